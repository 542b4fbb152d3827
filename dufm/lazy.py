r"""The lazy range of wide networks: how near their start is to its limit, and how long they move like a linear model.

Starts are fan-in Gaussian of scale σ, entries of ``W_l`` N(0, σ²/fan-in).  With

.. math:: A_l = (W_L\cdots W_{l+1})(W_L\cdots W_{l+1})^\top, \qquad B_l = (W_{l-1}\cdots W_1)^\top(W_{l-1}\cdots W_1)

the flow of the logits is :math:`\dot Z = \sum_l A_l (I - P) B_l`.  In a wide network these products are close to
multiples of the identity, and it moves like a linear model at the rate κ, until the logits have :func:`lazy_size`.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range
from dufm._stepping import recorded
from dufm.flow import gradient_flow
from dufm.loss import log_loss, log_loss_residual
from dufm.model import chain
from dufm.width import random_start

__all__ = ["at_start", "layer_products", "lazy_law", "lazy_path", "lazy_rate", "lazy_size", "logit_rate"]


def layer_products(factors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """``[A_1, …, A_L]`` and ``[B_1, …, B_L]``, each ``(..., K, K)`` and ``(..., N, N)``; A_L and B_1 are identities.

    ``DufmError`` for bad factors, or products beyond the floats.
    """
    above, below = (torch.eye(n).to(factors[0]) for n in (factors[-1].shape[-2], factors[0].shape[-1]))
    lefts, rights = [above], [below]
    for lower, upper in zip(factors[:-1], reversed(factors[1:]), strict=True):
        above, below = above @ upper, lower @ below
        lefts.append(above)
        rights.append(below)
    shape = factors[0].shape[:-2]
    A, B = [M @ M.mT for M in reversed(lefts)], [M.mT @ M for M in rights]
    check_in_range("factors: a product of layers", *A, *B)
    return [M.expand(*shape, *M.shape[-2:]) for M in A], [M.expand(*shape, *M.shape[-2:]) for M in B]


def logit_rate(factors: Sequence[Tensor]) -> Tensor:
    r"""Rate :math:`\kappa = \langle\dot Z, I - P\rangle/\|I - P\|^2` at which the logits move, ``(...)``.

    One sample a class, times of the flow of the loss.  ``DufmError``: bad factors, or a rate beyond the floats.
    """
    A, B = layer_products(factors)
    force = log_loss_residual(chain(factors))  # (I − P)/ℒ: I − P itself is lost at large margins
    velocity = sum(a @ force @ b for a, b in zip(A, B, strict=True))
    rate = (velocity * force).sum((-2, -1)) / force.square().sum((-2, -1))
    check_in_range("factors: the rate", rate)
    return rate


def lazy_rate(depth: int, width: int, num_classes: int, scale: float) -> float:
    """Limit σ^{2L−2}(1 + (L − 1) d/K) of κ at the start, d → ∞."""
    return scale ** (2 * depth - 2) * (1 + (depth - 1) * width / num_classes)


def lazy_size(depth: int, width: int, num_classes: int, scale: float) -> float:
    """Size s_lazy = L σ^L (d/K)^{1/2} of the logits at which a wide network stops being lazy."""
    return depth * scale**depth * math.sqrt(width / num_classes)


def lazy_law(size: float | np.ndarray, depth: int, width: int, num_classes: int, scale: float) -> Any:
    """κ/κ_0 at logits of ``size`` s, d → ∞: √(1 + (2s/κ_0)²) at L = 2 and √(1 + (3s/s_lazy)²) at L = 3, NaN beyond."""
    if depth == 2:
        ratio = 2 * size / lazy_rate(depth, width, num_classes, scale)
    else:
        ratio = 3 * size / lazy_size(depth, width, num_classes, scale) if depth == 3 else math.nan * size
    return (1 + ratio**2) ** 0.5


def at_start(
    seeds: Sequence[int], num_classes: int, depth: int, width: int, scale: float = 1.0
) -> dict[str, list[float]]:
    """How near a Gaussian start is to its lazy limit, one network a seed: a task for ``sweep.run``.

    Columns ``left``: largest relative distance (Frobenius) of A_l, l < L, from σ^{2(L−l)} I; ``right``: of B_l, l > 1,
    from σ^{2(l−1)}(d/K) I; ``condition``: largest condition number of those products, beyond 10^15 for d < K and inf
    where one is 0; ``rate``: κ/κ_0.
    """
    columns: dict[str, list[float]] = {"left": [], "right": [], "condition": [], "rate": []}
    for seed in seeds:
        factors = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=[seed])
        A, B = (torch.cat(parts) for parts in layer_products(factors))
        powers = scale ** (2.0 * torch.arange(1, depth, dtype=A.dtype))[:, None, None]
        left, right = A[:-1] / powers.flip(0), B[1:] / powers * num_classes / width
        for name, near in (("left", left), ("right", right)):
            away = torch.linalg.matrix_norm(near - torch.eye(num_classes, dtype=A.dtype)) / math.sqrt(num_classes)
            columns[name].append(float(away.max()))
        condition = torch.linalg.cond(torch.cat([left, right])).nan_to_num(torch.inf, torch.inf)
        columns["condition"].append(float(condition.max()))
        columns["rate"].append(float(logit_rate(factors)) / lazy_rate(depth, width, num_classes, scale))
    return columns


# Logits beyond which a loss no longer tells lazy from feature learning: e^{−20} is left of it.
_LARGEST = 20.0


def lazy_path(
    seeds: Sequence[int], num_classes: int, depth: int, width: int, scale: float,
    *, levels: Sequence[float], device: str = "cpu",
) -> dict[str, np.ndarray]:  # fmt: skip
    """κ along the flow from Gaussian starts, where the logits are near ``levels``·s_lazy (increasing).

    Marks are set by the loss of sC, C = I − J/K, up to s = 20; s is ⟨Z − Z(0), C⟩/(K − 1).  Arrays ``(marks,)``, means
    over the seeds whose start has a larger loss: ``ratio`` s/s_lazy, ``growth`` κ/κ(0), ``beside``
    ‖Z − Z(0) − sC‖/‖sC‖.  ``DufmError``: no mark.
    """
    lazy = lazy_size(depth, width, num_classes, scale)
    pull = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    marks = [float(log_loss(level * lazy * pull)) for level in levels if level * lazy < _LARGEST]
    if not marks:
        raise DufmError(f"levels must hold one below {_LARGEST / lazy:.3g}: s_lazy is {lazy:.3g}; got {list(levels)}")
    pull, rows = pull.to(device), []
    for seed in seeds:  # one at a time: a batch of wide networks does not fit a core's cache
        start = [W.to(device) for W in random_start("gaussian", depth, width, num_classes, scale=scale, seeds=[seed])]
        history = recorded(gradient_flow(start, until_log_loss=marks[-1], record={"log_loss": marks}).history)
        moved = history.Z[:, 0] - chain(start)
        size = (moved * pull).sum((-2, -1)) / (num_classes - 1)
        beside = torch.linalg.matrix_norm(moved - size[:, None, None] * pull) / (size * math.sqrt(num_classes - 1))
        growth, met = torch.full_like(size, math.nan), size.isfinite()
        growth[met] = logit_rate([W[met, 0] for W in history.factors]) / logit_rate(start)
        rows.append(torch.stack([size / lazy, growth, beside]))
    return dict(zip(("ratio", "growth", "beside"), torch.stack(rows).nanmean(0).cpu().numpy(), strict=True))


guard(globals())
