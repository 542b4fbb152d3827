r"""Cross-entropy in the log domain: exact when the loss is :math:`e^{-10^4}`.

``cross_entropy`` and its true-class gradient are exactly zero in float64 beyond a margin of about 37,
while the wrong-class gradients live on to 745.  Here only gaps :math:`D_{jc} = z_{jc} - z_{cc}` are
exponentiated, after their maximum is taken out, and the loss itself is never formed.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from dufm._door import guard
from dufm._scaling import check_in_range

__all__ = ["log_loss", "log_loss_residual"]

# Row and column of every sample's true class, and its mark, as a mask and as numbers.
Marks = tuple[Tensor, Tensor, Tensor, Tensor]

# Below this, log softplus(l) = l + O(e^l) equals l to the last bit of a float64.
_LINEAR_BELOW = -37.0


@torch.no_grad()
def log_loss(Z: Tensor) -> Tensor:
    r"""Logarithm of the loss, :math:`\log\mathcal L = \log\sum_c \frac1n\sum_{i\in c} -\log\mathrm{softmax}(z_i)_c`.

    ``Z``: logits ``(..., K, N)``, columns class by class, ``N = K·n_per_class``.  Returns shape ``(...)``; no autograd
    graph, the derivative is :func:`log_loss_residual`.

    Units: none, a natural logarithm.  Raises: ``DufmError`` for a NaN, a non-float dtype, a shape that is not
    ``(..., K, nK)``, or differences beyond the floats.  Source: this companion, notebook 22; Lyu & Li (2020) train in
    the log domain too.

    >>> dufm.log_loss(torch.zeros(4, 4))  # 4 classes, log 4 each
    tensor(1.7129)
    >>> dufm.log_loss(1e4 * torch.eye(4).double())
    tensor(-9997.5151, dtype=torch.float64)
    """
    return _evaluated(Z)[0]


@torch.no_grad()
def log_loss_residual(Z: Tensor) -> Tensor:
    r"""Descent direction in logit space, :math:`-\partial\log\mathcal L/\partial Z = (I - P)/\mathcal L`.

    The true-class entry is minus the sum of the others (columns sum to zero to rounding), so it keeps its relative
    accuracy where ``1 - p_c`` underflows.  ``Z`` and the result: ``(..., K, N)``, as in :func:`log_loss`.

    Units: those of 1/Z, none.  Raises: ``DufmError`` as there.  Source: this companion, notebook 28.

    >>> dufm.log_loss_residual(1e3 * torch.eye(2).double())
    tensor([[ 0.5000, -0.5000],
            [-0.5000,  0.5000]], dtype=torch.float64)
    """
    return _evaluated(Z)[1]


def _evaluated(Z: Tensor) -> tuple[Tensor, Tensor]:
    found = evaluate(Z)
    check_in_range("Z: a difference of its entries", *found)
    return found


def true_class(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Marks:
    """Row and column of every sample's true class, and its mark ``(K, N, 1)``: a mask and as numbers 0, 1."""
    samples = torch.arange(len(labels), device=labels.device)
    mask = torch.zeros(num_classes, len(labels), 1, dtype=torch.bool, device=labels.device)
    mask[labels, samples] = True
    return labels, samples, mask, mask.to(dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _class_by_class(num_classes: int, columns: int, dtype: torch.dtype, device: torch.device) -> Marks:
    return true_class(torch.arange(columns, device=device) // (columns // num_classes), num_classes, dtype)


def log_softplus(x: Tensor) -> tuple[Tensor, Tensor]:
    """``log log(1 + e^x)`` and its slope, elementwise."""
    linear = x < _LINEAR_BELOW
    # The default threshold of 20 would drop e^{-20}.
    softplus = torch.nn.functional.softplus(x, threshold=40.0)
    return torch.where(linear, x, softplus.log()), torch.where(linear, 1.0, x.sigmoid() / softplus)


def evaluate(Z: Tensor) -> tuple[Tensor, Tensor]:
    """Log ℒ ``(...)`` and −∂ log ℒ/∂Z ``(..., K, N)``, unchecked: the inner loop of the flow."""
    num_classes, columns = Z.shape[-2:]
    log_sum, residual = log_sum_and_residual(Z, _class_by_class(num_classes, columns, Z.dtype, Z.device))
    return log_sum - math.log(columns // num_classes), residual


def log_sum_and_residual(Z: Tensor, marks: Marks, log_weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log of the summed losses of all samples and minus its gradient, for ``marks`` from :func:`true_class`.

    Dividing by a number of samples shifts the first and leaves the second.  ``log_weights``: of the samples, ``(N,)``.
    """
    rows, samples, mask, one_hot = marks
    # Networks last: every reduction then runs along a contiguous batch.
    logits = Z.reshape(-1, *Z.shape[-2:]).permute(1, 2, 0).contiguous()
    gaps = (logits - logits[rows, samples]).masked_fill_(mask, -torch.inf)
    top = gaps.amax(0)
    wrong = gaps.sub_(top).exp_()
    total = wrong.sum(0)
    ell = top.add_(total.log())
    log_sample, slope = log_softplus(ell)
    if log_weights is not None:
        log_sample = log_sample + log_weights.unsqueeze(-1)
    largest = log_sample.amax(0)
    share = log_sample.sub_(largest).exp_()
    share_total = share.sum(0)
    log_sum = largest + share_total.log()
    weight = share.div_(share_total).mul_(slope)
    residual = torch.sub(one_hot, wrong.div_(total)).mul_(weight)
    return log_sum.reshape(Z.shape[:-2]), residual.permute(2, 0, 1).reshape(Z.shape)


guard(globals())
