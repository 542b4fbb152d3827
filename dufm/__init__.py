"""Companion to "The Implicit Bias of Depth": the deep unconstrained feature model, its flow and its certificates."""

import importlib

from dufm._checks import DufmError
from dufm.certificate import Certificate, Polished, kkt_certificate, kkt_residual, off_range_values, polish
from dufm.characters import Characters, characters
from dufm.codes import (
    SoftmaxCode,
    hypercube,
    one_vs_rest_margin,
    orthoplex,
    polygon,
    simplex_etf,
    softmax_code,
)
from dufm.ends import End, Limit, SpectralEnd, end, limit, spectral_end, spectral_limit
from dufm.flow import History, Trajectory, gradient_descent, gradient_flow
from dufm.hadamard import hadamard_polyhedron
from dufm.laws import (
    early_singular_values,
    escape_time,
    late_separatrix,
    nc_perturbation_growth,
    turning_point,
)
from dufm.loss import log_loss, log_loss_residual
from dufm.margin import closed_form_margin, normalized_margin, schatten
from dufm.metrics import (
    effective_rank,
    final_rank,
    margins,
    nc_metrics,
    numerical_rank,
    rank_ratio,
    stable_rank,
)
from dufm.model import balanced_init, gaussian_init, imbalance, orthogonal_init, product
from dufm.search import MaxMargin, max_margin
from dufm.spectral import spectral_flow, spectral_init

__version__ = "0.1.0"

_COMPANION = ("claims", "figures", "notebook", "stats", "sweep")
_ROOMS = ("basin", "data", "networks")


def __getattr__(name):
    """Rooms that ``import dufm`` does not load: what notebooks share, and what needs more than torch and SciPy."""
    if name in _COMPANION:
        return importlib.import_module(f"dufm.companion.{name}")
    if name in _ROOMS:
        return importlib.import_module(f"dufm.{name}")
    raise AttributeError(f"module 'dufm' has no attribute {name!r}")

__all__ = [
    "Certificate",
    "Characters",
    "DufmError",
    "End",
    "History",
    "Limit",
    "MaxMargin",
    "Polished",
    "SoftmaxCode",
    "SpectralEnd",
    "Trajectory",
    "balanced_init",
    "characters",
    "closed_form_margin",
    "early_singular_values",
    "effective_rank",
    "end",
    "escape_time",
    "final_rank",
    "gaussian_init",
    "gradient_descent",
    "gradient_flow",
    "hadamard_polyhedron",
    "hypercube",
    "imbalance",
    "kkt_certificate",
    "kkt_residual",
    "limit",
    "late_separatrix",
    "log_loss",
    "log_loss_residual",
    "margins",
    "max_margin",
    "nc_metrics",
    "nc_perturbation_growth",
    "normalized_margin",
    "numerical_rank",
    "off_range_values",
    "one_vs_rest_margin",
    "orthogonal_init",
    "orthoplex",
    "polish",
    "polygon",
    "product",
    "rank_ratio",
    "schatten",
    "simplex_etf",
    "softmax_code",
    "spectral_end",
    "spectral_flow",
    "spectral_init",
    "spectral_limit",
    "stable_rank",
    "turning_point",
]
