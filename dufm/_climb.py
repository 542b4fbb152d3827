r"""Batched ascent of the smallest margin of ``Z = A Cᵀ``, shared by the codes and the depth problem.

The smallest margin is smoothed to :math:`-\frac1\beta\log\sum_{j\ne c}e^{-\beta(z_{cc}-z_{jc})}`, with β rising and
Adam's step falling over a fixed number of steps; what keeps the scale is the caller's.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dufm._checks import check_fits

__all__ = ["climb", "random_codes", "soft_margin"]

BETA = (5.0, 2e3)  # in units of the margins, which the callers keep near 1
STEP = (0.1, 3e-4)
DECAY = (0.9, 0.99)


def random_codes(count: int, num_classes: int, rank: int, seed: int) -> Tensor:
    """``(count, K, r)`` unit vectors drawn with ``seed``."""
    check_fits("restarts · num_classes · rank", count, num_classes, rank)
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(count, num_classes, rank, generator=draw, dtype=torch.float64)
    return W / W.norm(dim=-1, keepdim=True)


def soft_margin(X: Tensor, beta: float | Tensor) -> tuple[Tensor, Tensor]:
    """Weighted margin ``Σλm`` ``(B,)`` and its slope in ``X = (A, C)`` ``(B, 2, K, r)``, λ the softmin weights.

    At a smooth optimum ``Σλm`` is off the true value by O(1/β²) only, the value being stationary in λ.
    """
    A, C = X.unbind(1)
    Z = A @ C.mT
    margins = Z.diagonal(dim1=-2, dim2=-1).unsqueeze(-2) - Z
    own = torch.eye(Z.shape[-1], dtype=torch.bool, device=X.device)
    weights = torch.softmax((-beta * margins).masked_fill(own, -torch.inf).flatten(1), -1).view_as(Z)
    pull = torch.diag_embed(weights.sum(-2)) - weights
    return (weights * margins).sum((-2, -1)), torch.stack([pull @ C, pull.mT @ A], 1)


def climb(
    X: Tensor,
    retract: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    *,
    steps: int,
    begin: float | Tensor = 0.0,
) -> Tensor:
    """Ascend from ``X`` ``(B, 2, K, r)``; ``begin`` in [0, 1), a number or one a row, skips that share of the schedule.

    ``retract(X)`` puts X back to scale; ``slope(X, value, push, share)`` turns the slope of the soft margin into
    that of the objective, ``share`` ``(B, 1, 1)`` being how far the schedule is.
    """
    mean, square = torch.zeros_like(X), torch.zeros_like(X)
    begin = torch.as_tensor(begin, dtype=X.dtype, device=X.device).expand(len(X)).view(-1, 1, 1)
    for count in range(1, steps + 1):
        share = begin + (1.0 - begin) * (count - 1) / (steps - 1)
        X = retract(X)
        value, push = soft_margin(X, BETA[0] * (BETA[1] / BETA[0]) ** share)
        ascent = slope(X, value, push, share)
        mean.lerp_(ascent, 1.0 - DECAY[0])
        square.lerp_(ascent.square(), 1.0 - DECAY[1])
        scale = (square / (1.0 - DECAY[1] ** count)).sqrt_().add_(1e-12)
        step = STEP[0] * (STEP[1] / STEP[0]) ** share / (1.0 - DECAY[0] ** count)
        X = X + step.unsqueeze(-1) * mean / scale
    return retract(X)
