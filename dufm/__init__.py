"""Companion to "The Implicit Bias of Depth": the deep unconstrained feature model, its flow and its certificates.

The rooms, ground floor first; each imports only from those before it::

    loss, model, metrics          loss in the log domain; factors and their starts; ranks, margins, NC metrics
    characters, hadamard          finite abelian groups; the exact polyhedron of Hadamard spectra and its linear codes
    laws                          closed laws of singular values and of time
    flow, spectral                gradient flow and descent of factors; the flow of singular values
    linear_network, propagation   the linear network by SciPy; how products of matrices propagate norm
    networks, data                bias-free networks and their training; images
    margin, codes, code_search    norms and closed margins; named codes; the search for softmax codes
    certificate, ends, search     KKT certificate and polish; from a run to its certified end; multi-start search
    best_known                    the best solution known for K classes at depth L
    rank_two                      least product of two singular values, depth from which rank 2 is best
    agreement                     depth's best solution beside the softmax code of the same rank
    diagnosis                     a user's own logits: what have they become?
    perturbation                  small deviations from collapse: four families and their laws
    basin, shares                 which starts collapse, and what share of all directions they are
    complement                    what a KKT point leaves out: extra values beside it, and turns into their block
    width, alignment              random networks by depth and width; starts of the same logits and other factors
    choice                        which critical point a random network reaches
    descent                       descent with finite steps, and where it ends
    minibatches                   descent with batches of the samples, and where it ends
    optimizers                    methods that descend in other norms, and the margin problem where each ends
    weight_decay                  the flow with weight decay: where it rests, and which ends it unmakes
    unbalanced                    starts with small and big layers, and the depth that they have at first
    class_sizes, soft_labels      classes of unequal size; labels of which a share is wrong
    rectified                     one ReLU between the factors
    learned                       networks trained on images
    heads                         a convolutional body with a deep linear head
    explorer                      one run as a reader explores it, from its start along the loss to its certified end

What the notebooks share is in ``dufm.companion``; ``dufm.figures``, ``dufm.sweep`` and the others are short for it.
Examples in docstrings follow ``import dufm, torch`` and ``import numpy as np``.
"""

import importlib.util
from typing import Any

from dufm._checks import DufmError
from dufm.best_known import BestKnown, best
from dufm.certificate import Certificate, Polished, kkt_certificate, kkt_residual, off_range_values, polish
from dufm.characters import Characters, characters
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

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Rooms that ``import dufm`` does not load, and what notebooks share: ``dufm.networks``, ``dufm.figures``."""
    for module in (f"dufm.{name}", f"dufm.companion.{name}"):
        if not name.startswith("_") and importlib.util.find_spec(module):
            return importlib.import_module(module)
    raise AttributeError(f"module 'dufm' has no attribute {name!r}")


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
