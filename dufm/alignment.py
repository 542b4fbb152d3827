r"""Efficiency and alignment: starts with the same logits and other factors, and where they end.

For given logits Z the efficiency :math:`e = \|Z\|_F/\prod_l\|W_l\|_F` is largest for balanced factors and, if all
layers have one norm, :math:`e = \|Z\|_F (L/R^2)^{L/2}` with :math:`R^2 = \sum_l\|W_l\|_F^2`.  Three ways away from
balance that leave Z alone: *wide*, a Gaussian network of larger width; *skewed*, :math:`W_l \to G_lW_lG_{l-1}^{-1}` of
balanced factors of width K; *scaled*, one layer larger and the others smaller, which costs norm and no efficiency.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._door import guard
from dufm._error import DufmError
from dufm.ends import end, limit
from dufm.flow import gradient_flow
from dufm.lazy import layer_products
from dufm.metrics import centred
from dufm.model import balanced_init, chain, imbalance, turned
from dufm.propagation import efficiency
from dufm.width import random_start

__all__ = ["KINDS", "balanced_to", "realigned", "realigned_ends", "scaled_to", "skewed_to", "slowest_rate"]

#: Ways to have weights of larger norm than balanced ones: see :func:`realigned`.
KINDS = ("wide", "skewed", "scaled")
_TOLERANCE, _STEPS, _HALVINGS, _SHARPNESS = 1e-6, 5000, 60, 1e3


def slowest_rate(factors: Sequence[Tensor]) -> Tensor:
    r"""Least eigenvalue of :math:`E \mapsto \sum_l A_lEB_l` on matrices of centred columns, ``(...)``.

    The logits move by :math:`\dot Z = \sum_l A_l(I - P)B_l`: no direction of the force is answered more slowly than
    this.  For balanced factors it falls with the smallest singular values of Z.  ``DufmError`` for bad factors.
    """
    A, B = layer_products(factors)
    num_classes = A[0].shape[-1]
    basis = torch.linalg.svd(centred(torch.eye(num_classes, dtype=A[0].dtype))).U[:, :-1]
    kernel: Any = sum(torch.einsum("...ij,...kl->...ikjl", basis.mT @ a @ basis, b) for a, b in zip(A, B, strict=True))
    return torch.linalg.eigvalsh(kernel.flatten(-4, -3).flatten(-2)).amin(-1)


def realigned(factors: Sequence[Tensor], kind: str, excess: float, seeds: Sequence[int]) -> list[Tensor]:
    r"""Factors of the same product whose weight norm exceeds the balanced one by a share of what ``factors`` have.

    With R_g the norm of ``factors``, their layers brought to equal norms, and R_b that of balanced factors:
    :math:`\log R = \log R_b + x(\log R_g - \log R_b)`, x = ``excess`` from 0 to 1.  ``kind`` is one of ``KINDS``:
    "wide" takes ``factors`` themselves towards balance (:func:`balanced_to`), "skewed" and "scaled" take balanced
    factors of width K away from it (:func:`skewed_to`, :func:`scaled_to`).  Leading dimension: the networks.
    ``seeds``: one a network, of its skew.  ``DufmError`` for another kind or excess.
    """
    if kind not in KINDS:
        raise DufmError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    even, balanced = _even(factors), balanced_init(chain(factors), len(factors))
    target = excess * _log_norm(even) + (1 - excess) * _log_norm(balanced)
    if excess == 0:
        return balanced
    if kind == "wide":
        return balanced_to(even, target)
    return skewed_to(balanced, target, seeds) if kind == "skewed" else scaled_to(balanced, target)


def balanced_to(factors: list[Tensor], log_norm: Tensor) -> list[Tensor]:
    r"""Factors of the same product on the way to balance, at mean log layer norm ``log_norm`` ``(n,)``.

    Steps of :math:`\dot W_l = D_lW_l - W_lD_{l-1}`, D_l the imbalances, along which Z stays and the squared norm falls
    at the rate :math:`2\sum_l\|D_l\|_F^2`; layers are kept at equal norms.  ``DufmError`` if a network does not get
    there: balance itself may be reached only in the limit.
    """
    step = torch.full_like(log_norm, 0.2)
    for _ in range(_STEPS):
        left = _log_norm(factors) - log_norm
        if (left < _TOLERANCE).all():
            return factors
        D = imbalance(factors)
        size = torch.stack([torch.linalg.matrix_norm(part, 2) for part in D]).amax(0)
        moved = _even(turned(factors, [part * (step / size)[:, None, None] for part in D]))
        taken = (_log_norm(moved) < _log_norm(factors)) & (_log_norm(moved) >= log_norm)
        factors = [torch.where(taken[:, None, None], new, old) for new, old in zip(moved, factors, strict=True)]
        step = torch.where(taken, (1.5 * step).clamp(max=0.5), step / 2)
    raise DufmError(f"log_norm was not reached: {int((left >= _TOLERANCE).sum())} of {len(left)} networks stop above")


def skewed_to(balanced: Sequence[Tensor], log_norm: Tensor, seeds: Sequence[int]) -> list[Tensor]:
    r"""Balanced factors skewed by :math:`W_l \to e^{\tau S_l}W_le^{-\tau S_{l-1}}` to mean log layer norm ``log_norm``.

    S_l symmetric Gaussian matrices, network i's from ``seeds[i]``; the norm is log-convex in τ and least at 0.
    ``DufmError`` for hidden widths that differ, and a norm below that of balance or beyond that at τ = 4.
    """
    width = balanced[0].shape[-2]
    if any(W.shape[-2] != width for W in balanced[:-1]):
        raise DufmError(f"balanced must have one hidden width, got {[W.shape[-2] for W in balanced[:-1]]}")
    shape = (len(balanced) - 1, width, width)
    draws = np.stack([np.random.default_rng(seed).standard_normal(shape) for seed in seeds], 1)
    S = torch.from_numpy(draws).to(balanced[0])

    def skewed(tau: Tensor) -> list[Tensor]:
        return _even(turned(balanced, list((S + S.mT) * tau[:, None, None])))

    return skewed(_bisected(lambda tau: _log_norm(skewed(tau)), log_norm, 4.0))


def scaled_to(balanced: Sequence[Tensor], log_norm: Tensor) -> list[Tensor]:
    """Balanced factors, the features c times as large and each other layer c^(−1/(L − 1)) times, of the same squared
    norm as factors with equal layers of log norm ``log_norm``: the efficiency stays that of balance.
    ``DufmError`` for a norm below that of balance or beyond that at log c = 20.
    """
    rest = -1 / (len(balanced) - 1)

    def norm(log_c: Tensor) -> Tensor:
        return 0.5 * ((2 * log_c).exp() + (2 * rest * log_c).exp() / -rest).log()

    log_c = _bisected(norm, log_norm - _log_norm(balanced) + 0.5 * np.log(len(balanced)), 20.0)[:, None, None]
    return [balanced[0] * log_c.exp(), *(W * (rest * log_c).exp() for W in balanced[1:])]


def realigned_ends(
    seeds: Sequence[int],
    num_classes: int,
    depth: int,
    width: int,
    scale: float,
    kind: str,
    excess: float,
    first: int = 0,
) -> dict[str, Tensor]:
    """Certified end from :func:`realigned` Gaussian networks of seeds ``first`` + seed: a task for ``sweep.run``.

    Columns: ``log_efficiency`` and ``log_rate`` (of :func:`slowest_rate`) at the start, ``rank`` of :func:`dufm.end`,
    0 where it is undecided.  ``DufmError`` as there.
    """
    seeds = [first + seed for seed in seeds]
    gaussian = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=seeds)
    start = realigned(gaussian, kind, excess, seeds)
    run = gradient_flow(start, until_log_loss=-_SHARPNESS, rtol=1e-3)
    found = end(limit(run, sharpness=_SHARPNESS), depth)
    return {
        "log_efficiency": efficiency(start).log(),
        "log_rate": slowest_rate(start).log(),
        "rank": torch.where(found.decided, found.rank, 0),
    }


def _log_norm(factors: Sequence[Tensor]) -> Tensor:
    """Mean over the layers of log ‖W_l‖_F."""
    return torch.stack([torch.linalg.matrix_norm(W) for W in factors]).log().mean(0)


def _even(factors: Sequence[Tensor]) -> list[Tensor]:
    """The same product with layers of equal norm."""
    mean = _log_norm(factors).exp()
    return [W * (mean / torch.linalg.matrix_norm(W))[..., None, None] for W in factors]


def _bisected(function: Callable[[Tensor], Tensor], target: Tensor, high: float) -> Tensor:
    """Where a function of a tensor that increases from 0 to ``high`` reaches its target, entry by entry."""
    below, above = torch.zeros_like(target), torch.full_like(target, high)
    for _ in range(_HALVINGS):
        middle = (below + above) / 2
        less = function(middle) < target
        below, above = torch.where(less, middle, below), torch.where(less, above, middle)
    near = max(_TOLERANCE, 100 * torch.finfo(target.dtype).eps)
    if missed := int((~((function(middle) - target).abs() < near)).sum()):
        raise DufmError(f"log_norm was not reached: {missed} of {len(target)} networks stop at balance or at the most")
    return middle


guard(globals())
