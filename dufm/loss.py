r"""Cross-entropy in the log domain: exact when the loss is :math:`e^{-10^4}`.

``cross_entropy`` and its true-class gradient are exactly zero in float64 beyond a margin of about 37,
while the wrong-class gradients live on to 745.  Here only gaps :math:`D_{jc} = z_{jc} - z_{cc}` are
exponentiated, after their maximum is taken out, and the loss itself is never formed.
"""

import math
from functools import lru_cache

import torch

from dufm._checks import check_logits

__all__ = ["log_loss", "log_loss_residual"]

# Below this, log softplus(l) = l + O(e^l) equals l to the last bit of a float64.
_LINEAR_BELOW = -37.0


def log_loss(Z):
    r"""Logarithm of the loss, :math:`\log\mathcal L = \log\sum_c \frac1n\sum_{i\in c} -\log\mathrm{softmax}(z_i)_c`.

    ``Z``: logits ``(..., K, N)``, columns class by class, ``N = K·n_per_class``.  Returns shape ``(...)``,
    dimensionless.  Raises ``DufmError`` for a NaN, a non-float dtype or a shape that is not ``(..., K, nK)``.
    """
    check_logits(Z)
    return evaluate(Z)[0]


def log_loss_residual(Z):
    r"""Descent direction in logit space, :math:`-\partial\log\mathcal L/\partial Z = (I - P)/\mathcal L`.

    The true-class entry is minus the sum of the others (columns sum to zero to rounding), so it keeps
    its relative accuracy where ``1 - p_c`` underflows.  Shapes and errors as :func:`log_loss`.
    """
    check_logits(Z)
    return evaluate(Z)[1]


@lru_cache(maxsize=64)
def _true_class(num_classes, columns, device):
    """Row of the true class in every column ``(1, N)``, and the mask ``(K, N)`` of those entries."""
    rows = torch.arange(columns, device=device) // (columns // num_classes)
    mask = torch.zeros(num_classes, columns, dtype=torch.bool, device=device)
    mask[rows, torch.arange(columns, device=device)] = True
    return rows.unsqueeze(0), mask


def evaluate(Z):
    """Log ℒ ``(...)`` and −∂ log ℒ/∂Z ``(..., K, N)``, unchecked: the inner loop of the flow."""
    num_classes, columns = Z.shape[-2:]
    rows, mask = _true_class(num_classes, columns, Z.device)
    rows = rows.expand(*Z.shape[:-2], 1, columns)
    gaps = (Z - Z.gather(-2, rows)).masked_fill_(mask, -torch.inf)
    ell = torch.logsumexp(gaps, -2, keepdim=True)
    softplus = torch.logaddexp(ell, torch.zeros_like(ell))
    linear = ell < _LINEAR_BELOW
    log_sample = torch.where(linear, ell, torch.log(softplus))
    slope = torch.where(linear, 1.0, torch.sigmoid(ell) / softplus)
    log_total = torch.logsumexp(log_sample, -1, keepdim=True)
    residual = torch.exp(gaps - ell).mul_(torch.exp(log_sample - log_total).mul_(slope)).neg_()
    residual.scatter_(-2, rows, -residual.sum(-2, keepdim=True))
    log_value = log_total.squeeze(-1).squeeze(-1) - math.log(columns // num_classes)
    return log_value, residual
