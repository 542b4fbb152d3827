r"""Classes of unequal size: losses of unequal weights, and classes that stand for unequal numbers of free samples.

With sizes :math:`n_c` of mean 1 the loss is :math:`\sum_c n_c\ell_c`.  *Weights*: one feature a class, which is also
what many copies of one sample are.  *Samples*: every sample has a free feature of its own.  Where those of a class are
equal they stay so, and their norm is :math:`n_c\|h_c\|^2`: with features :math:`\sqrt{n_c}h_c` in the place of
:math:`W_1`, :math:`M = W_L\cdots W_1` and logits :math:`Z = MN^{-1/2}`, :math:`N = \operatorname{Diag}(n)`, it is a
flow of K columns again, whose limits are KKT points of

.. math:: \min\|ZN^{1/2}\|_{S_p}^p \quad\text{subject to}\quad z_{cc} - z_{jc} \ge 1, \qquad p = 2/L .

Neural collapse, :math:`Z = C`, is one for all sizes and depths: derived in notebook 85.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._limit import Limit, continued
from dufm._linearised import Linearised
from dufm._polish import frames, least_multipliers, pair_margins
from dufm._resting import RESTS
from dufm._scaling import check_in_range, in_range
from dufm._stepping import Record
from dufm.ends import UNDECIDED, distance, end
from dufm.flow import Trajectory, follow_factors
from dufm.loss import log_sum_and_residual, true_class
from dufm.metrics import centred
from dufm.width import random_start

__all__ = ["KINDS", "class_sizes", "sized_ends", "sized_flow", "sized_limit", "sized_residual"]

#: How a class is larger: its samples weigh more, or are more.
KINDS = ("weights", "samples")
_COLLAPSED = 0.02  # distance from collapse: at rest at sharpness m it is of order (log n)/m


class SizedModel(FactorModel):
    """Factors of one column a class, of log-weights ``log n``, the logits of class c ``n_c^{-1/2}`` for *samples*."""

    def __init__(self, factors: Sequence[Tensor], sizes: Tensor, kind: str) -> None:
        super().__init__(factors)
        sizes = torch.as_tensor(sizes).to(factors[0])
        self.log_weights = sizes.log()
        self.scale = sizes**-0.5 if kind == "samples" else torch.ones_like(sizes)
        self.marks = true_class(self.true, len(sizes), sizes.dtype)

    def evaluate(self, M: Tensor) -> tuple[Tensor, Tensor]:
        """Log ℒ and −∂ log ℒ/∂M."""
        log_loss, residual = log_sum_and_residual(M * self.scale, self.marks, self.log_weights)
        return log_loss, residual * self.scale

    def field(self, flat: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`FactorModel`, λ those of the logits."""
        log_loss, weights = super().field(flat, out)
        return log_loss, self._by_class(weights, 1 / self.scale)

    def _by_class(self, pairs: Tensor, scale: Tensor) -> Tensor:
        return (pairs.unflatten(1, (-1, len(scale))) * scale).flatten(1)

    def gaps(self, flat: Tensor) -> Tensor:
        """As in :class:`FactorModel`, of the logits."""
        return self._by_class(super().gaps(flat), self.scale)

    def gap_rate(self, flat: Tensor, change: Tensor) -> Tensor:
        """As in :class:`FactorModel`, of the logits."""
        return self._by_class(super().gap_rate(flat, change), self.scale)

    def linearise(self, flat: Tensor) -> Linearised:
        """As in :class:`FactorModel`."""
        plain, scale = super().linearise(flat), self.scale[self.of]
        return replace(
            plain,
            weights=plain.weights / scale,
            theta=plain.theta * scale * scale.unsqueeze(-1),
            push=lambda change: plain.push(change) * scale,
            pull=lambda pairs, out: plain.pull(pairs * scale, out),
        )

    def curvature(self, flat: Tensor) -> Tensor:
        """As in :class:`FactorModel`, of the logits."""
        scale = self.scale[self.of]
        return super().curvature(flat) * scale * scale.unsqueeze(-1)


def class_sizes(num_classes: int, ratio: float) -> Tensor:
    """Sizes of mean 1 ``(K,)``, the first class ``ratio`` times as large as the others; ``DufmError`` out of range."""
    sizes = torch.ones(num_classes, dtype=torch.float64)
    sizes[0] = ratio
    return sizes / sizes.mean()


def sized_flow(
    factors: Sequence[Tensor],
    sizes: Tensor,
    kind: str,
    *,
    until_log_loss: float = -1e3,
    rtol: float = 1e-3,
    record: Record = None,
) -> Trajectory:
    r"""Flow of :math:`\sum_cn_c\ell_c`, a :class:`dufm.Trajectory`; its ``Z`` is M for ``kind`` "samples".

    ``factors``: ``[W_1, …, W_L]`` with one column a class, batch ``(B, ...)``, the features :math:`\sqrt{n_c}h_c` for
    "samples"; ``sizes``: ``(K,)``, positive; the others as in :func:`dufm.gradient_flow`.
    """
    control = {"until_log_loss": until_log_loss, "rtol": rtol, "max_steps": 50_000, "record": record}
    return follow_factors(_model(factors, sizes, kind), factors, **control)


def sized_limit(run: Trajectory, sizes: Tensor, kind: str, *, sharpness: float = 1e3) -> Limit:
    """:func:`dufm.limit` of a :func:`sized_flow` that was followed to log ℒ = ``−sharpness``, for its own loss."""
    model = _model(run.factors, sizes, kind)
    return continued(model, model.flatten(run.factors), run.status, run.status.shape, sharpness)


def sized_ends(
    seeds: Sequence[int], num_classes: int, depth: int, width: int, scale: float, ratio: float, kind: str
) -> dict[str, Any]:
    """Ends of Gaussian networks at :func:`class_sizes`, one a seed: a task for ``sweep.run``.

    The first logits of a seed are the same for all sizes and kinds.  Columns: ``name`` ("NC", or another, or
    "undecided") and ``rank`` (0 there); ``collapse``, distance of the resting logits from collapse, inf where they do
    not separate.  Ends of "weights" are those of :func:`dufm.end`.  For "samples" the rank is the number of singular
    values of M that grow with the margin; at rank K − 1 and less than 2% away it is collapse, otherwise the name is
    "rank r".
    """
    sizes = class_sizes(num_classes, ratio)
    start = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=seeds)
    if kind == "samples":
        start[0] = start[0] * sizes.sqrt()
    found = sized_limit(sized_flow(start, sizes, kind), sizes, kind)
    logits = found.Z / sizes.sqrt() if kind == "samples" else found.Z
    away = distance(logits, centred(torch.eye(num_classes, dtype=logits.dtype))).nan_to_num(torch.inf)
    if kind == "weights":
        certified = end(found, depth)
        name, rank = certified.name, torch.where(certified.decided, certified.rank, 0)
    else:
        rests = torch.from_numpy(found.status == RESTS)
        rank = torch.where(rests, (found.rates > 0.5).sum(-1), 0)
        name = np.array([f"rank {r}" if r else UNDECIDED for r in rank.tolist()], dtype=object)
        name[((rank == num_classes - 1) & (away < _COLLAPSED)).numpy()] = "NC"
    return {"name": name.tolist(), "rank": rank, "collapse": away}


def sized_residual(Z: Tensor, sizes: Tensor, depth: int, rank: int, active_tol: float = 1e-6) -> Tensor:
    r"""Relative residual of the KKT conditions of the *samples* problem at logits ``Z`` ``(B, K, K)``, ``(B,)``.

    With M = ZN^{1/2} = UΣVᵀ cut to ``rank``: non-negative multipliers on the margins of Z up to
    1 + ``active_tol`` times the smallest solve, in least squares,
    :math:`\Lambda N^{-1/2}V = U\Sigma^{p-1}`, :math:`N^{-1/2}\Lambda^\top U = V\Sigma^{p-1}`.
    ``sizes``: ``(B, K)`` or ``(K,)``.  ``DufmError`` for logits, sizes, a rank or a depth out of range.
    """
    rank = check_count("rank", rank, 1, Z.shape[-1] - 1, "K − 1")
    if not (sizes > 0).all():
        raise DufmError(f"sizes must be positive, the smallest is {float(sizes.min()):g}")
    Z = in_range(Z.detach())[0]
    U, sigma, V = frames(Z * torch.as_tensor(sizes).to(Z).sqrt().unsqueeze(-2))
    margin = pair_margins(Z)
    active = margin <= (1 + active_tol) * margin.amin(-1, keepdim=True)
    # √n_c only rescales the multipliers of class c.
    residual = least_multipliers(U[..., :rank], sigma[..., :rank], V[..., :rank], active, 2.0 / depth)[1]
    check_in_range("sizes: the residual", residual)
    return residual


def _model(factors: Sequence[Tensor], sizes: Tensor, kind: str) -> SizedModel:
    if kind not in KINDS or tuple(sizes.shape) != (factors[0].shape[-1],) or not (sizes > 0).all():
        raise DufmError(f"kind must be of {', '.join(KINDS)} and sizes positive, one a class, got {kind!r}, {sizes}")
    return SizedModel(factors, sizes, kind)


guard(globals())
