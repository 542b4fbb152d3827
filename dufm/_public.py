"""All public names in one place, which ``import dufm`` loads when the first of them is used."""

from dufm._error import DufmError
from dufm.best_known import BestKnown, best
from dufm.certificate import Certificate, Polished, kkt_certificate, kkt_residual, off_range_values, polish
from dufm.code_search import SoftmaxCode, softmax_code
from dufm.codes import (
    hypercube,
    one_vs_rest_margin,
    orthoplex,
    polygon,
    simplex_etf,
)
from dufm.diagnosis import Diagnosis, diagnose
from dufm.ends import End, Limit, SpectralEnd, end, limit, spectral_end, spectral_limit
from dufm.flow import History, Trajectory, gradient_descent, gradient_flow
from dufm.groups import Characters, characters
from dufm.hadamard import hadamard_polyhedron
from dufm.laws import (
    early_singular_values,
    escape_time,
    late_separatrix,
    nc_log_loss,
    nc_perturbation_growth,
    turning_point,
)
from dufm.linear_network import first_layer, linear_network_flow
from dufm.loss import log_loss, log_loss_residual
from dufm.margin import closed_form_margin, normalized_margin, schatten
from dufm.metrics import (
    effective_rank,
    final_rank,
    margins,
    nc_metrics,
    numerical_rank,
    rank_ratio,
)
from dufm.model import (
    balanced_init,
    cheapest_factors,
    gaussian_init,
    imbalance,
    imbalance_drift,
    orthogonal_init,
    product,
    split_at,
)
from dufm.propagation import efficiency, haar_frames, rank_r_factors
from dufm.search import MaxMargin, max_margin
from dufm.spectral import spectral_flow, spectral_init

__all__ = [
    "BestKnown",
    "Certificate",
    "Characters",
    "Diagnosis",
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
    "best",
    "characters",
    "cheapest_factors",
    "closed_form_margin",
    "diagnose",
    "early_singular_values",
    "effective_rank",
    "efficiency",
    "end",
    "escape_time",
    "final_rank",
    "first_layer",
    "gaussian_init",
    "gradient_descent",
    "gradient_flow",
    "haar_frames",
    "hadamard_polyhedron",
    "hypercube",
    "imbalance",
    "imbalance_drift",
    "kkt_certificate",
    "kkt_residual",
    "limit",
    "late_separatrix",
    "linear_network_flow",
    "log_loss",
    "log_loss_residual",
    "margins",
    "max_margin",
    "nc_log_loss",
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
    "rank_r_factors",
    "rank_ratio",
    "schatten",
    "simplex_etf",
    "softmax_code",
    "spectral_end",
    "spectral_flow",
    "spectral_init",
    "spectral_limit",
    "split_at",
    "turning_point",
]
