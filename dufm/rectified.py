r"""One ReLU between the factors: ``Z = W_L ⋯ W_{l+1} relu(W_l ⋯ W_1)``, l = 1 … L − 1 the place of the ReLU, 0 none.

Let ``M = W_l ⋯ W_1``, ``A = relu(M)`` and ``B = W_L ⋯ W_{l+1}``.  Both chains are linear, so that

.. math:: \min\sum_k\|W_k\|_F^2 = L\,\bigl(\|M\|_{S_{2/l}}\|B\|_{S_{2/(L-l)}}\bigr)^{2/L}.

The flow is defined almost everywhere and can slide along the kinks of the ReLU, where steps that control their error
stop.  So these networks *descend*: each step is a fixed small share of the weights' norm, and from log ℒ = −m on all
factors are scaled back to that loss after each step, as in :func:`dufm.limit`, until the direction rests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count, check_each, check_finite_positive, short
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._nnls import nonnegative_least_squares
from dufm._resting import growth_rate
from dufm._scaling import check_in_range, norm
from dufm.loss import evaluate
from dufm.metrics import centred, margins, significant_values
from dufm.model import balanced_init, chain, chain_slopes
from dufm.width import check_ran, random_start

if TYPE_CHECKING:
    import pandas

__all__ = ["CELL", "by_place", "descend", "ends", "layers", "network", "place_margin", "residual", "sums_of_simplices"]

# Sharpness m and growth u at it, first to find the end and then to see it at a tenth of the blur.
_STAGES = ((100.0, 60.0), (1000.0, 2.0))
_STEP = 0.4  # times 1/m: share of the weights' norm that a step moves; descent is stable up to about 2/3.5
_RESTING = 5e-3
_KEPT, _DROPPED = 3e-2, 3e-3  # of the largest singular value
_ACTIVE, _KINK = 0.02, 1e-2
_FRAME = 0.05
#: What makes a cell.
CELL = ["num_classes", "depth", "width", "scale", "place"]


def layers(factors: Sequence[Tensor], place: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(M, A, B)`` of factors ``[W_1, …, W_L]``, ``(..., d_l, d_{l−1})``; with place 0 M = A are the features.

    ``DufmError`` for factors that do not follow one another, or a place outside 0 … L − 1.
    """
    place = check_count("place", place, 0, len(factors) - 1, why="logits have no ReLU")
    M, B = chain(factors[: max(place, 1)]), chain(factors[max(place, 1) :])
    check_in_range("factors: a product", M, B)
    return M, M.clamp(min=0) if place else M, B


def place_margin(M: Tensor, B: Tensor, place: int, depth: int) -> Tensor:
    r"""Margin of ``B relu(M)`` over its cost, :math:`\min_{j\ne c}(z_{cc}-z_{jc})/\|M\|_{S_{2/l}}\|B\|_{S_{2/(L-l)}}`.

    ``M`` ``(..., d, K)``, ``B`` ``(..., K, d)``, l = ``place`` from 1 to L − 1.  It is what
    :func:`dufm.normalized_margin` is without a ReLU.  ``DufmError`` for a place out of range.
    """
    place = check_count("place", place, 1, depth - 1)
    cost = _quasi_norm(M, place) * _quasi_norm(B, depth - place)
    margin = margins(B @ M.clamp(min=0)).amin((-2, -1)) / cost
    check_in_range("M and B: their margin", margin)
    return margin


def _quasi_norm(X: Tensor, count: int) -> Tensor:
    """Schatten quasi-norm of index 2/``count``, of a matrix of any shape."""
    return (significant_values(X) ** (2.0 / count)).sum(-1) ** (count / 2.0)


def network(M: Tensor, B: Tensor, place: int, depth: int) -> list[Tensor]:
    """The cheapest factors ``[W_1, …, W_L]`` with ``W_l ⋯ W_1 = M`` ``(d, K)`` and ``W_L ⋯ W_{l+1} = B`` ``(K, d)``.

    Both chains balanced, all factors of one norm.  Here d is K.
    """
    below, above = (
        [matrix] if count == 1 else balanced_init(matrix, count) for matrix, count in ((M, place), (B, depth - place))
    )
    share = float((torch.linalg.matrix_norm(above[0]) / torch.linalg.matrix_norm(below[0])).detach())
    up = share ** ((depth - place) / depth)
    factors = [W * up for W in below] + [W * up ** (-place / (depth - place)) for W in above]
    check_in_range("M and B: a factor", *factors)
    return factors


def sums_of_simplices(num_classes: int, size: int) -> Tensor:
    r"""``K/k`` orthogonal simplices of k classes, :math:`\frac k{k-1}(I - J/k)` each, ``(K, K)``; k = 1: I.

    Their Gram matrix up to scale: ones on the diagonal, nothing positive off it, so that a ReLU makes it the identity.
    ``DufmError`` for a size that does not divide K.
    """
    if num_classes % check_count("size", size, 1, num_classes):
        raise DufmError(f"size must divide the number of classes, got {size} for {num_classes}")
    block = torch.eye(size, dtype=torch.float64) - (1.0 / size if size > 1 else 0.0)
    return torch.block_diag(*[block * (size / max(size - 1, 1))] * (num_classes // size))


# ---------------------------------------------------------------- certificate


def residual(factors: Sequence[Tensor], place: int) -> float:
    r"""How far one network is from a KKT point of ``min Σ‖W_k‖²``, margins at least 1: relative residual, a float.

    :math:`\min\|W - \sum_i\lambda_i\,\partial_W(\text{margin})_i\|/\|W\|` over λ ≥ 0 on the margins up to 1.02 of the
    least, all factors together, by non-negative least squares.  A unit within 1% of its kink may pass any share between
    none and all of its gradient (Clarke's subdifferential).  ``factors`` ``[W_1, …, W_L]`` without batch dimension.
    ``DufmError`` as :func:`layers`, and for factors that do not separate the classes.
    """
    factors = [W.detach() for W in factors]
    M, A, B = layers(factors, place)
    gaps = margins(B @ A)
    if gaps.amin() <= 0:
        raise DufmError(f"factors must separate the classes, the smallest margin is {float(gaps.amin()):g}")
    wrong, sample = ((gaps <= (1 + _ACTIVE) * gaps.amin()) & ~torch.eye(len(gaps), dtype=torch.bool)).nonzero().T
    own = torch.eye(len(gaps)).to(M)
    kink = (M.abs() <= _KINK * M.abs().amax()) if place else torch.zeros_like(M, dtype=torch.bool)
    on = (M > 0) & ~kink if place else torch.ones_like(M, dtype=torch.bool)
    cut = max(place, 1)
    lower, upper = factors[:cut], factors[cut:]

    def column(below: Tensor, above: Tensor) -> Tensor:
        """Slopes in all factors, from slopes in M ``(d, K)`` and in B ``(K, d)``."""
        return torch.cat([part.flatten() for part in (*chain_slopes(lower, below), *chain_slopes(upper, above))])

    columns, pulls = [], []
    for j, c in zip(wrong.tolist(), sample.tolist(), strict=True):
        push = torch.outer(own[c] - own[j], own[c])
        pulls.append(B.mT @ push)
        columns.append(column(pulls[-1] * on, push @ A.mT))
    pairs = len(columns)
    for i, c in kink.nonzero().tolist():
        unit = torch.zeros_like(M)
        unit[i, c] = 1.0
        columns.append(column(unit, torch.zeros_like(B)))
    system = torch.stack(columns, 1).numpy()
    weights = torch.cat([W.flatten() for W in factors]).numpy()
    found, _ = nonnegative_least_squares(np.hstack([system, -system[:, pairs:]]), weights)
    passed = sum(x * pull for x, pull in zip(found.tolist(), pulls, strict=False))[kink].numpy()
    free = found[pairs : system.shape[1]] - found[system.shape[1] :]
    free = np.clip(free, np.minimum(passed, 0), np.maximum(passed, 0))
    return float(np.linalg.norm(system @ np.concatenate([found[:pairs], free]) - weights) / np.linalg.norm(weights))


# ---------------------------------------------------------------- descent


class _Rectified(FactorModel):
    """What descends: flat states ``(batch, n)``."""

    def __init__(self, factors: Sequence[Tensor], place: int) -> None:
        super().__init__(factors)
        self.place = place

    def field(self, flat: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Write −∂ log ℒ/∂W into ``out``; log ℒ and the logits."""
        factors, slopes = self.split(flat), self.split(out)
        values = [factors[0]]
        on: Any = None
        for number, factor in enumerate(factors[1:], start=1):
            if number == self.place:
                on = values[-1] > 0
                values[-1] = values[-1] * on
            values.append(factor @ values[-1])
        log_loss, back = evaluate(values[-1])
        for index in range(len(factors) - 1, 0, -1):
            slopes[index].copy_(back @ values[index - 1].mT)
            back = factors[index].mT @ back
            if index == self.place:
                back = back * on
        slopes[0].copy_(back)
        return log_loss, values[-1]


@torch.no_grad()
def descend(
    factors: Sequence[Tensor], place: int, *, stages: Sequence[tuple[float, float]] = _STAGES, max_steps: int = 10_000
) -> tuple[list[Tensor], Tensor]:
    """Descend networks ``[W_1, …, W_L]`` ``(batch, d_l, d_{l−1})`` until their directions rest.

    ``stages``: pairs of a sharpness m and of the growth u of the logarithm of the margin that is followed at it; a step
    is 0.4/m of the weights' norm.  Returns the factors, at log ℒ = −m of the last stage, and by how much the direction
    of the centred logits turned a unit of u in the last tenth of the first stage, inf where u was not reached.
    ``DufmError`` as :func:`layers`, and for a number that is not positive.
    """
    layers(factors, place)
    pairs = check_each("stages", stages, lambda name, stage: check_each(name, stage, check_finite_positive))
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise DufmError(f"stages must be pairs of a sharpness and a growth, one or more, got {short(pairs)}")
    model = _Rectified(factors, place)
    state = model.flatten(factors)
    turning: Any = None
    for sharpness, growth in pairs:
        rows = slice(None) if turning is None else turning.isfinite()
        state[rows], turned = _stage(model, state[rows], sharpness, growth, max_steps)
        turning = turned if turning is None else turning
    check_in_range("factors: what they become", state)
    return model.split(state), turning


def _stage(model: _Rectified, state: Tensor, sharpness: float, growth: float, max_steps: int) -> tuple[Tensor, Tensor]:
    """States after a growth at a sharpness, and their turning; each network stops by itself."""
    state, rows = state.clone(), torch.arange(len(state), device=state.device)
    u, turned = state.new_zeros(len(state)), torch.full_like(state[:, 0], torch.inf)
    before = state.new_zeros(len(state), model.shapes[-1][0] * model.shapes[0][1])
    for _ in range(max_steps):
        now = state[rows]
        slope = torch.empty_like(now)
        log_loss, Z = model.field(now, slope)
        late = log_loss <= -sharpness
        h = _STEP / sharpness * norm(now) / norm(slope).clamp(min=1e-300)
        gained = torch.where(late | (u[rows] > 0), model.depth * h * growth_rate(now, slope), 0.0)
        here, there = u[rows], u[rows] + gained
        marked, over = (here < 0.9 * growth) & (there >= 0.9 * growth), there >= growth
        before[rows[marked]] = _direction(Z[marked])
        turned[rows[over]] = norm(_direction(Z[over]) - before[rows[over]]) / (0.1 * growth)
        back = (-sharpness / torch.where(late, log_loss, -sharpness)) ** (1 / model.depth)
        u[rows], state[rows] = there, back.unsqueeze(-1) * now + h.unsqueeze(-1) * slope
        rows = rows[~over]
        if not len(rows):
            break
    return state, turned


def _direction(Z: Tensor) -> Tensor:
    flat = centred(Z).flatten(1)
    return flat / norm(flat).unsqueeze(-1)


def ends(
    seeds: Sequence[int], num_classes: int, depth: int, width: int, place: int, scale: float = 1.0
) -> dict[str, np.ndarray]:
    r"""Where descent ends from fan-in Gaussian starts, one network a seed: a task for ``sweep.run``.

    The factor below the ReLU starts larger by √2, so that as much passes as without (He et al. 2015).  Columns:
    ``rank`` of the centred logits, and of M ``below``, 0 where undecided: the direction turns by more than 0.005 a unit
    of u, or a singular value lies between 0.003 and 0.03 of the largest; ``cosine``, the largest between columns of A;
    ``collapse``, the relative distance of the centred logits, scaled, from neural collapse; ``margin_ratio``, the
    margin for factors of mean square norm 1 over collapse's without a ReLU; ``residual`` of :func:`residual`, NaN where
    nothing is separated; ``turning`` of :func:`descend`.
    """
    place = check_count("place", place, 0, depth - 1, why="logits have no ReLU")
    factors = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=seeds)
    if place:
        factors[place - 1] = factors[place - 1] * 2**0.5
    factors, turning = descend(factors, place)
    M, A, B = layers(factors, place)
    Z = centred(B @ A)
    units = A / torch.linalg.vector_norm(A, dim=-2, keepdim=True).clamp(min=1e-300)
    cosines = units.mT @ units - torch.eye(num_classes, dtype=A.dtype)
    simplex = _direction(torch.eye(num_classes, dtype=A.dtype).unsqueeze(0))
    size = sum(W.square().sum((-2, -1)) for W in factors) / depth
    margin = margins(Z).amin((-2, -1)) / size ** (depth / 2) * (num_classes - 1) ** (depth / 2)
    separates = margin > 0
    decided = separates & (turning <= _RESTING)
    networks = zip(separates.tolist(), *factors, strict=True)
    columns = {
        "cosine": cosines.abs().amax((-2, -1)),
        "collapse": norm(_direction(Z) - simplex),
        "margin_ratio": margin,
        "residual": torch.tensor([residual(one, place) if good else torch.nan for good, *one in networks]),
        "turning": turning,
    }
    ranks = {"rank": torch.where(decided, _rank(Z), 0), "below": torch.where(decided, _rank(M), 0)}
    return {name: values.numpy().round(5) for name, values in (ranks | columns).items()}


def _rank(X: Tensor) -> Tensor:
    """Singular values that are kept, 0 where one is neither kept nor dropped."""
    sigma = torch.linalg.svdvals(X)
    share = sigma / sigma[..., :1]
    unclear = ((share > _DROPPED) & (share < _KEPT)).any(-1)
    return torch.where(unclear, 0, (share >= _KEPT).sum(-1))


def by_place(runs: pandas.DataFrame) -> pandas.DataFrame:
    """A row a cell of ``CELL``: counts over its networks, and means over those that are decided.

    ``runs``: what ``sweep.run`` makes of :func:`ends`.  ``full``: logits of rank K − 1; ``collapsed``: those within 5%
    of neural collapse; ``frame``: collapsed over a frame, columns of A orthogonal to 0.05; ``less``: rank K − 2 or less
    below the ReLU; ``undecided``; ``rank`` and ``below``: means and their standard errors, NaN for too few;
    ``residual``: its quantile of nine tenths.  ``DufmError`` as :func:`dufm.width.check_ran`.
    """
    check_ran(runs)
    collapsed = (runs["rank"] == runs.num_classes - 1) & (runs.collapse < _FRAME)
    kept = runs.assign(
        full=runs["rank"] == runs.num_classes - 1,
        collapsed=collapsed,
        frame=collapsed & (runs.cosine < _FRAME),
        less=(runs.below > 0) & (runs.below <= runs.num_classes - 2),
        undecided=runs["rank"] == 0,
        rank=runs["rank"].where(runs["rank"] > 0),
        below=runs.below.where(runs.below > 0),
    )
    counts = kept.groupby(CELL)[["full", "collapsed", "frame", "less", "undecided"]].sum()
    means = kept.groupby(CELL)[["rank", "below"]].mean()
    errors = kept.groupby(CELL)[["rank", "below"]].sem().add_suffix("_error")
    rest = kept.groupby(CELL).agg(networks=("seed", "size"), residual=("residual", lambda x: x.quantile(0.9)))
    return counts.join([means, errors, rest]).reset_index().round(4)


guard(globals())
