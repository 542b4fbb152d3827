r"""Multi-start search for the best solution of the margin problem at a given depth and rank."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count, check_logits
from dufm._climb import BETA, climb, random_codes, soft_margin
from dufm._door import guard
from dufm._error import DufmError
from dufm._nnls import nonnegative_least_squares
from dufm._polish import margin_slopes
from dufm.certificate import ACTIVE_TOL, Certificate, polish
from dufm.codes import name_of
from dufm.margin import closed_form_margin, normalized_margin
from dufm.metrics import centred, final_rank, margins

__all__ = [
    "MaxMargin", "NothingCertified", "along_depth", "best_rank", "end_curvatures", "max_margin", "stratum_curvature",
    "as_row",
]  # fmt: skip

STEPS = 600
LATE = (0.0, 0.1, 0.2, 0.3)
AGREE_TOL = 3e-4  # relative accuracy of an unpolished γ
RANK_TOL = 1e-3  # σ_r/σ_1 below which a restart has left the stratum
HELD = 0.9
CURVATURE_TOL = 1e-6
CANDIDATES = 4
NOISE = 0.02


@dataclass(frozen=True)
class MaxMargin:
    """The best solution a search found at exact ``rank``.

    ``Z`` ``(K, K)`` of smallest margin 1; ``margin`` its normalised margin; ``certificate`` with residual and gap below
    1e-8; ``curvature`` as :func:`stratum_curvature`; ``agree`` of ``restarts`` climbs, the ``starts`` included,
    ended at this value within 3e-4.  A search finds good solutions, it does not exclude better ones.

    Units: none.  Source: this companion, notebook 24.

    >>> found = dufm.max_margin(3, 4, 2, restarts=4)
    >>> found.locally_optimal, found.rank, found.Z.shape
    (True, 2, torch.Size([3, 3]))
    """

    Z: torch.Tensor
    margin: float
    rank: int
    certificate: Certificate
    curvature: float
    agree: int
    restarts: int

    @property
    def locally_optimal(self) -> bool:
        """Whether second-order probing found no way up within matrices of this rank."""
        return self.curvature > -CURVATURE_TOL


def as_row(found: MaxMargin | None, depth: int) -> dict[str, Any]:
    """Columns for a table of searches: what a :class:`MaxMargin`, or None, is, as a dict.

    ``margin_ratio`` over neural collapse, ``name`` (:func:`dufm.codes.name_of`), ``locally_optimal`` (0 or 1),
    ``agree``, ``climbs``; NaN and "" of None.
    """
    if found is None:
        return {"margin_ratio": np.nan, "name": "", "locally_optimal": np.nan, "agree": np.nan, "climbs": np.nan}
    return {
        "margin_ratio": found.margin / closed_form_margin("nc", len(found.Z), depth),
        "name": str(name_of(found.Z)),
        "locally_optimal": int(found.locally_optimal),
        "agree": found.agree,
        "climbs": found.restarts,
    }


class NothingCertified(DufmError):
    """A search none of whose ends could be certified."""


def max_margin(
    num_classes: int,
    depth: int,
    rank: int,
    *,
    restarts: int = 64,
    seed: int = 0,
    starts: Sequence[Tensor] | Tensor | None = None,
) -> MaxMargin:
    r"""Maximise the normalised margin :math:`\gamma_L(Z)` over K × K matrices of exact rank r by multi-start search.

    Climbs ``restarts`` random codes in one batch, in factors ``Z = A Cᵀ`` with the norm written, for p = 2/L, as

    .. math:: \sum\sigma_i(Z)^p = \min_{Z = AC^\top} \tfrac12\operatorname{tr}[(A^\top A)^p + (C^\top C)^p].

    The margin is smoothed, then sharpened; p falls from 1 to 2/L on the way, each restart at its own pace, since at
    small p directions die early; and some begin late, as early smoothing leads all to the same few ends.
    :func:`dufm.polish` takes the best distinct ends to certificate accuracy.

    ``starts``: further matrices ``(n, K, K)`` to climb from (known codes, the solution of a neighbouring cell), at the
    final p from the middle of the schedule; what they lack in rank is filled with noise.  Returns :class:`MaxMargin`.

    Units: none.  Raises: ``DufmError`` for a rank outside 2 … K − 1 (1 for K = 2), bad starts, or where no climb ended
    on the stratum and could be certified.  Source: this companion, notebook 24.

    >>> found = dufm.max_margin(4, 4, 2, restarts=4)
    >>> round(found.margin, 4), round(dufm.closed_form_margin("polygon", 4, 4), 4)
    (0.125, 0.125)
    """
    rank = check_count("rank", rank, 1, num_classes - 1, why=f"K = {num_classes} classes, and margins ignore a shift")
    if rank == 1 and num_classes > 2:
        raise DufmError(
            f"rank must be at least 2 for K = {num_classes}, got 1: no rank-1 matrix separates three classes"
        )
    ((Z, gamma),) = _climbs(num_classes, depth, [rank], restarts, seed, starts)
    best = _best(Z, gamma, depth, rank)
    if best is None:
        raise NothingCertified(
            f"of {len(Z)} restarts {int(gamma.isfinite().sum())} came to rest at rank {rank} and none could be "
            f"certified, for num_classes = {num_classes}, depth = {depth}, seed = {seed}; ask for more restarts, or "
            "give starts"
        )
    return best


def best_rank(
    num_classes: int, depth: int, *, restarts: int = 24, seed: int = 0, starts: Sequence[Tensor] | Tensor | None = None
) -> MaxMargin | None:
    """The best solution over the ranks 2 … K − 1 (1 for K = 2), all of which climb in one batch: :class:`MaxMargin`.

    ``restarts`` random codes a rank, and ``starts`` at every rank; then ranks are polished as long as the best climb of
    the next could still win.  None where nothing could be certified.  Errors as :func:`max_margin`.
    """
    ranks = range(min(2, num_classes - 1), num_classes)
    ends = _climbs(num_classes, depth, ranks, restarts, seed, starts)
    best = None
    for rank, (Z, gamma) in sorted(zip(ranks, ends, strict=True), key=lambda item: -float(item[1][1].max())):
        if best is None or gamma.max() > best.margin * (1.0 - AGREE_TOL):
            found = _best(Z, gamma, depth, rank)
            best = found if best is None or (found is not None and found.margin > best.margin) else best
    return best


def _climbs(
    num_classes: int,
    depth: int,
    ranks: Sequence[int],
    restarts: int,
    seed: int,
    starts: Sequence[Tensor] | Tensor | None,
) -> list[tuple[Tensor, Tensor]]:
    """Climb at several ranks as one batch: ``(Z, γ)`` of each, γ being −∞ where a climb has left its stratum."""
    parts = [_starts(num_classes, rank, restarts, seed, starts) for rank in ranks]
    X = torch.cat([torch.nn.functional.pad(part, (0, max(ranks) - part.shape[-1])) for part, _, _ in parts])
    begin, mix, p = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts]), 2.0 / depth
    own = X.ne(0).any(-2, keepdim=True)  # of a lower rank the further columns stay zero

    def slope(X: Tensor, value: Tensor, push: Tensor, share: Tensor) -> Tensor:
        return own * _slope(X, value, push, share, p, mix)

    X = climb(X, _mean_margin_one, slope, steps=STEPS, begin=begin)
    return [_rested(part[..., :rank], depth) for part, rank in zip(X.tensor_split(len(parts)), ranks, strict=True)]


def _rested(X: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """Logits of climbs at their end, and their γ, −∞ where a direction is dying and the climb about to lose rank."""
    p, rank = 2.0 / depth, X.shape[-1]
    value, push = soft_margin(X, BETA[1])
    pressure = _pressure(X, p)
    norm = (X * pressure).sum((1, 2, 3)) / 2.0
    gamma = value / norm ** (depth / 2.0)
    Z = X[:, 0] @ X[:, 1].mT
    sigma = torch.linalg.svdvals(Z)
    # At rest the margins hold up the weakest direction against the norm; where it is dying they do not.
    weakest = torch.linalg.eigh(X.mT @ X)[1][..., :1]
    along = X @ weakest
    held = (push @ weakest * along).sum((1, 2, 3)) > HELD * value / norm * (pressure @ weakest * along).sum((1, 2, 3))
    settled = held & (sigma[:, rank - 1] > RANK_TOL * sigma[:, 0])
    return Z, torch.where(settled, gamma, -torch.inf)


def along_depth(
    num_classes: int, rank: int, depths: Iterable[int], *, restarts: int = 64, seed: int = 0
) -> list[MaxMargin | None]:
    """Searches at one rank over ascending ``depths``, the last solution found among the starts of the next.

    A list of :class:`MaxMargin`, or None where nothing could be certified.
    """
    found: list[MaxMargin | None] = []
    for depth in depths:
        starts = [solution.Z for solution in found if solution is not None][-1:]
        try:
            found.append(max_margin(num_classes, depth, rank, restarts=restarts, seed=seed, starts=starts))
        except NothingCertified:
            found.append(None)
    return found


def _starts(
    num_classes: int, rank: int, restarts: int, seed: int, starts: Sequence[Tensor] | Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Factors ``(B, 2, K, r)``, where in the schedule each begins, and when its p has fallen to its end."""
    W = random_codes(3 * restarts, num_classes, rank, seed).view(3, restarts, num_classes, rank)
    X = torch.stack([W[0], W[0]], 1) + NOISE * W[1:].transpose(0, 1)
    mix = torch.linspace(0.2, 0.9, restarts, dtype=X.dtype)  # early: more variety; late: rank is kept
    begin = torch.tensor(LATE, dtype=X.dtype)[torch.arange(restarts) % len(LATE)]
    if starts is not None and len(starts):
        for index, start in enumerate(starts):
            if check_logits(start, f"starts[{index}]") != (num_classes, 1) or start.ndim != 2:
                raise DufmError(
                    f"starts must be matrices of shape ({num_classes}, {num_classes}), "
                    f"but starts[{index}] has shape {tuple(start.shape)}"
                )
        extra = _factors(torch.stack(list(starts)).double().cpu(), rank)
        size = extra.square().mean((1, 2, 3), keepdim=True).sqrt()
        extra = extra + NOISE * size * random_codes(2 * len(extra), num_classes, rank, seed + 1).view_as(extra)
        X = torch.cat([X, extra])
        mix = torch.cat([mix, torch.zeros(len(extra), dtype=X.dtype)])
        begin = torch.cat([begin, torch.full((len(extra),), 0.5, dtype=X.dtype)])
    return X, begin, mix.view(-1, 1, 1)


def _factors(Z: Tensor, rank: int) -> Tensor:
    """Balanced factors ``(…, 2, K, r)`` of Z cut to ``rank``."""
    U, sigma, Vh = torch.linalg.svd(Z)
    root = sigma[..., :rank].sqrt().unsqueeze(-2)
    return torch.stack([U[..., :rank] * root, Vh[..., :rank, :].mT * root], -3)


def _mean_margin_one(X: Tensor) -> Tensor:
    """Scale X so that the mean margin is 1 in size: then β has the same meaning for all."""
    A, C = X.unbind(1)
    trace, total = (A * C).sum((-2, -1)), (A.sum(-2) * C.sum(-2)).sum(-1)
    count = X.shape[-2]
    mean = (count * trace - total).abs() / (count * (count - 1))
    size = X.square().sum((1, 2, 3)) / count
    return X / torch.maximum(mean, 1e-2 * size).sqrt().view(-1, 1, 1, 1)  # a start may separate nothing


def _slope(X: Tensor, value: Tensor, push: Tensor, share: Tensor, p: float, mix: Tensor) -> Tensor:
    """Slope of ``log(soft margin) − log‖Z‖_{S_q}``, up to the factor ``value``, with q on its way from 1 to p."""
    q = 1.0 + (p - 1.0) * torch.where(share < mix, share / mix.clamp(min=1e-9), 1.0)
    pressure = _pressure(X, q.view(-1, 1, 1))
    norm = (X * pressure).sum((1, 2, 3)) / 2.0
    return push - (value / norm).view(-1, 1, 1, 1) * pressure


def _pressure(X: Tensor, p: float | Tensor) -> Tensor:
    """Slope of ``tr[(AᵀA)^p + (CᵀC)^p]/(2p)`` in ``X = (A, C)``; its product with X is the sum of the traces."""
    values, vectors = torch.linalg.eigh(X.mT @ X)
    power = values.clamp(min=1e-14) ** (p - 1.0)  # floored where a direction has died
    return X @ (vectors * power.unsqueeze(-2)) @ vectors.mT


def _best(Z: Tensor, gamma: Tensor, depth: int, rank: int) -> MaxMargin | None:
    """Polish the best distinct of the ends ``Z`` that settled; None if none of them can be certified."""
    best, left = None, gamma.isfinite()
    for _ in range(CANDIDATES):
        if not left.any():
            break
        top = torch.where(left, gamma, -torch.inf).argmax()
        if best is not None and gamma[top] < best.margin * (1.0 + AGREE_TOL) and best.locally_optimal:
            break
        left[top] = False
        solved = polish(Z[top], depth, rank)
        sigma = torch.linalg.svdvals(solved.Z.nan_to_num())
        if not (solved.certificate.holds() and sigma[rank - 1] > RANK_TOL * sigma[0]):
            continue
        left &= (gamma / gamma[top] - 1.0).abs() > AGREE_TOL
        value = float(normalized_margin(solved.Z, depth))
        agree = int(((gamma / value - 1.0).abs() < AGREE_TOL).sum())
        curvature = stratum_curvature(solved.Z, depth, rank)
        found = MaxMargin(solved.Z, value, rank, solved.certificate, curvature, agree, len(Z))
        if best is None or found.margin > best.margin:
            best = found
    return best


def stratum_curvature(Z: Tensor, depth: int, rank: int | None = None) -> float:
    r"""Smallest curvature of the Lagrangian at a KKT point, along directions that keep rank and tight margins.

    In balanced factors of Z (centred, cut to ``rank``, default :func:`dufm.final_rank`, margin 1) the cost is
    :math:`\frac1{2p}\operatorname{tr}[(A^\top A)^p + (C^\top C)^p]`, whose least value over the factors of a matrix is
    ``Σσ^p/p``, so that its curvature is negative somewhere iff that of ``Σσ^p`` on the stratum is.  Returned: the
    smallest eigenvalue of the Lagrangian's Hessian on the directions that leave every margin of positive multiplier
    unchanged, over the largest.  Rotations of the factors make it 0 at best.  Below 0, a second-order direction of
    lower cost exists for these multipliers (those of least norm, where they are not unique); at 0 none does.
    A float, for one ``(K, K)`` matrix, else ``DufmError``; meaningful only where the certificate holds.
    """
    num_classes, n_per_class = check_logits(Z)
    if n_per_class != 1 or Z.ndim != 2:
        raise DufmError(f"Z must be one square matrix, got shape {tuple(Z.shape)}")
    rank = int(final_rank(Z)) if rank is None else check_count("rank", rank, 1, num_classes - 1)
    X = _factors(centred(Z.detach()).double().cpu(), rank)
    smallest = margins(X[0] @ X[1].mT).amin()
    if smallest <= 0:
        raise DufmError(f"Z cut to rank {rank} must have positive margins, got {smallest:.3g}")
    X = X / smallest.sqrt()
    p = 2.0 / depth
    wrong, true = (margins(X[0] @ X[1].mT) <= 1.0 + ACTIVE_TOL).nonzero().T
    slopes = margin_slopes(X[0].numpy(), X[1].numpy(), wrong.numpy(), true.numpy()).reshape(len(wrong), -1)
    cost = _pressure(X.unsqueeze(0), p).flatten().numpy()
    ridge = 1e-5 * np.eye(len(wrong))  # picks the multipliers of least norm
    target = np.concatenate([cost, np.zeros(len(wrong))])
    multipliers = nonnegative_least_squares(np.vstack([slopes.T, ridge]), target)[0]
    pull = torch.zeros(num_classes, num_classes, dtype=X.dtype)
    pull[wrong, true] = -torch.from_numpy(multipliers)
    pull -= torch.diag(pull.sum(0))

    def lagrangian(X: Tensor) -> Tensor:
        A, C = X.unbind(1)
        return (_pressure(X, p) - torch.stack([pull @ C, pull.mT @ A], 1)).flatten(1)

    size = X.numel()
    step = 1e-5 * X.abs().max()
    shifts = step * torch.eye(size, dtype=X.dtype).view(size, *X.shape)
    hessian = (lagrangian(X + shifts) - lagrangian(X - shifts)) / (2.0 * step)
    held = torch.from_numpy(slopes[multipliers > 1e-6 * multipliers.max()])
    _, sigma, Vh = torch.linalg.svd(held)
    free = Vh[int((sigma > 1e-9 * sigma[0]).sum()) :]
    curvatures = torch.linalg.eigvalsh(free @ (hessian + hessian.mT) @ free.mT / 2.0)
    return float(curvatures[0] / curvatures.abs().max())


def end_curvatures(found: Any, depth: int, which: Iterable[int] | None = None) -> list[float]:
    """:func:`stratum_curvature` of the solutions of a :class:`dufm.ends.End` of one batch dimension, as a list.

    ``which``: indices; by default one network for each end that occurs, told apart by name and margin.
    """
    if found.Z.ndim != 3:
        raise DufmError(f"found must be of one batch dimension, got Z of shape {tuple(found.Z.shape)}")
    if which is None:
        seen: dict[tuple[str, float], int] = {}
        for index, (name, ratio) in enumerate(zip(found.name, found.margin_ratio.tolist(), strict=True)):
            seen.setdefault((name, round(ratio, 4)), index)
        which = [index for index in seen.values() if found.decided[index]]
    which = [check_count("which", index, 0, len(found.Z) - 1) for index in which]
    return [stratum_curvature(found.Z[i].cpu(), depth, int(found.rank[i])) for i in which]


guard(globals())
