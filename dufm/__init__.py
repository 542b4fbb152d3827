"""Companion to "The Implicit Bias of Depth": the deep unconstrained feature model, its flow and its certificates."""

from dufm._checks import DufmError
from dufm.flow import History, Trajectory, gradient_descent, gradient_flow
from dufm.loss import log_loss, log_loss_residual
from dufm.margin import (
    Certificate,
    Polished,
    closed_form_margin,
    kkt_certificate,
    kkt_residual,
    normalized_margin,
    polish,
    schatten,
)
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

__version__ = "0.1.0"

__all__ = [
    "Certificate",
    "DufmError",
    "History",
    "Polished",
    "Trajectory",
    "balanced_init",
    "closed_form_margin",
    "effective_rank",
    "final_rank",
    "gaussian_init",
    "gradient_descent",
    "gradient_flow",
    "imbalance",
    "kkt_certificate",
    "kkt_residual",
    "log_loss",
    "log_loss_residual",
    "margins",
    "nc_metrics",
    "normalized_margin",
    "numerical_rank",
    "orthogonal_init",
    "polish",
    "product",
    "rank_ratio",
    "schatten",
    "stable_rank",
]
