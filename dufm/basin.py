r"""The basin of neural collapse under Hadamard initialisation: its labels, critical starts, and where starts end.

Throughout ``q = 1 − 2/L`` and ``y = s^{−q}``.  A trajectory that leaves 0 is labelled by the constants
:math:`y_i - y_j`, and the boundary of the basin is a fixed surface in them.  Late, at K = 4 and
:math:`s_1 = s_2 \ge s_3`, that surface is the ratio :math:`s_3/s_1 = 2^{-1/q}` (:func:`dufm.late_separatrix`).
What share of all directions lies inside: :mod:`dufm.shares`.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.integrate import quad
from torch import Tensor

from dufm._checks import check_count, check_each, short
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range
from dufm._stepping import recorded
from dufm.ends import SpectralEnd, spectral_end
from dufm.groups import characters
from dufm.spectral import spectral_flow

__all__ = [
    "CODES",
    "FOUR_ENDS",
    "code_counts",
    "critical_deviation",
    "critical_labels",
    "critical_ratio",
    "distance_from_end",
    "ends_of_four",
    "greedy_basis",
    "greedy_lag",
    "late_ratio",
    "least_lag",
    "local_label",
    "map_starts",
    "triangle_cells",
]

#: Ends of spectral starts at K = 4, and what is not decided.
FOUR_ENDS = ("collapse", "square without s1", "square without s2", "square without s3", "undecided")
#: Kinds of ends of spectral starts at K = 2^m, and what is not decided.
CODES = ("collapse", "Reed–Muller", "cube", "other", "undecided")
_SECTIONS = 24  # of an interval, at once


# ---------------------------------------------------------------- critical starts


def critical_deviation(label: float, scale: float, depth: int) -> float:
    """Relative deviation ``1 − (1 + c s_0^q)^{−1/q}`` of values that lag by the label c behind leaders at s_0.

    ``DufmError`` below depth 3, or for a label of values so far ahead that they have none.
    """
    q = 1 - 2 / check_count("depth", depth, 3)
    _check_label(label, scale**q)
    return 1 - (1 + label * scale**q) ** (-1 / q)


def _check_label(label: float, reach: float) -> None:
    if 1 + label * reach <= 0:
        raise DufmError(f"label must be above {-1 / reach:.4g} at this scale and depth, got {label:g}")


def critical_labels(lags: Sequence[bool] | Tensor, depth: int, scales: Sequence[float], *, rounds: int = 4) -> Tensor:
    """Label c* up to which neural collapse wins, one for each of ``scales``, known to ``2/24^rounds``.

    ``lags``: boolean ``(K − 1,)``, the Hadamard characters that start behind the others, which start at the scale.
    Collapse has won if the laggards gain on the leaders between losses e^−40 and e^−60.  ``DufmError``: all or none
    lag, a bad depth or scale, or no c*, or more than one, between 0 and 2.
    """
    check_count("depth", depth, 3)
    lags = torch.tensor(check_each("lags", lags, _check_flag), dtype=torch.bool)
    if lags.all() or not lags.any():
        raise DufmError(f"lags must name some of the characters and not all of them, got {lags.tolist()}")
    q = 1 - 2 / depth
    leader = torch.tensor(scales, dtype=torch.float64)[:, None, None]

    def collapse_wins(label: Tensor) -> Tensor:
        laggard = (leader**-q + label.unsqueeze(-1)) ** (-1 / q)
        return _laggards_gain(torch.where(lags, laggard, leader), lags, depth, (-40.0, -60.0))

    return only_change(collapse_wins, torch.zeros(len(scales)), torch.full((len(scales),), 2.0), rounds)


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_, int)) or value not in (0, 1):
        raise DufmError(f"{name} must be True or False, got {short(value)}")
    return bool(value)


def local_label(label: float, scale: float, depth: int, num_classes: int) -> float:
    r"""What is left at leaders of size s_0 of a label c, for two sizes of values at K = 2^m, to first order in s_0:

    :math:`c - \frac qK\int_0^{s_0} s^{-q}\bigl[1 - (1 + cs^q)^{-1/q}\bigr]ds`, which is :math:`ce^{-s_0/K}` for small
    :math:`cs_0^q`.  ``DufmError`` as :func:`critical_deviation`.
    """
    q = 1 - 2 / check_count("depth", depth, 3)
    _check_label(label, scale**q)
    # In v = s^(1 − q) the integrand is bounded.
    lost, _, _, *why = quad(
        lambda v: 1 - (1 + label * v ** (q / (1 - q))) ** (-1 / q), 0, scale ** (1 - q), epsabs=0, full_output=True
    )
    if why:
        raise DufmError(f"label: its loss is not known to the digits asked for at scale {scale:g}, got {label:g}")
    return label - q / ((1 - q) * num_classes) * lost


def critical_ratio(depth: int, sizes: Iterable[float], *, rounds: int = 4) -> Tensor:
    """Ratio s_3/s_1 above which neural collapse wins at K = 4 from s_1 = s_2 = size, known to ``1/24^rounds``.

    One for each of ``sizes``; for large ones the law is :func:`dufm.late_separatrix`.  Collapse has won if s_3 gains on
    the others between two losses later than any of these starts.  ``DufmError`` as :func:`critical_labels`.
    """
    check_count("depth", depth, 3)
    third = torch.tensor([False, False, True])
    found = []
    for size in sizes:
        losses = (-40.0 - size, -60.0 - 1.3 * size)

        def square_wins(ratio: Tensor, size: float = size, losses: tuple[float, float] = losses) -> Tensor:
            starts = torch.where(third, ratio.unsqueeze(-1), 1.0) * size
            return ~_laggards_gain(starts, third, depth, losses)

        found.append(only_change(square_wins, torch.zeros(1), torch.ones(1), rounds))
    return torch.cat(found)


def late_ratio(ratio: Tensor, growth: float | Tensor, depth: int, beta: float = 2.0) -> Tensor:
    r"""Late ratio x = ε/s of an extra value, of β times the force of the kept ones, after s has grown by a factor g:
    :math:`[\beta + (x_0^{-q} - \beta)\,g^q]^{-1/q}`, :math:`x_0g^{\beta-1}` at L = 2, and 1 once it has caught up.

    ``ratio`` x_0 and ``growth`` g: positive tensors that broadcast.  β = 2: s_3/s_1 at K = 4, s_1 = s_2, exact but for
    :math:`e^{-(s_1 - s_3)/2}`.  ``DufmError`` for a depth below 2, what is not positive, or a result beyond the floats.
    """
    q = 1 - 2 / depth
    if not ((ratio > 0).all() and (torch.as_tensor(growth) > 0).all()):
        raise DufmError("ratio and growth must be positive")
    late = (ratio * growth ** (beta - 1)) if q == 0 else (beta + (ratio**-q - beta) * growth**q)
    check_in_range("growth: what it makes of the ratio", late)
    return late.clamp(max=1.0) if q == 0 else late.clamp(min=1.0) ** (-1 / q)


def _laggards_gain(starts: Tensor, lags: Tensor, depth: int, losses: tuple[float, float]) -> Tensor:
    """Whether the mean of what lags gains on the mean of the others between two log losses, or has caught up."""
    run = spectral_flow(
        starts, depth, "hadamard", rtol=1e-10, until_log_loss=losses[1], record={"log_loss": list(losses)}
    )
    s = recorded(run.history).s
    early, late = s[..., lags].mean(-1) / s[..., ~lags].mean(-1)
    if late.isnan().any():
        raise DufmError(f"{int(late.isnan().sum())} starts did not reach log loss {losses[1]:g}, at depth {depth}")
    return (late > early) | (late > 0.999)


def only_change(holds: Callable[[Tensor], Tensor], low: Tensor, high: Tensor, rounds: int) -> Tensor:
    """Where ``holds``, true from ``low`` and false from there to ``high``, changes: multi-section, a row each."""
    low, high = low.double(), high.double()
    for turn in range(rounds):
        step = (high - low) / _SECTIONS
        held = holds(low[:, None] + step[:, None] * torch.arange(1, _SECTIONS))
        last = held.sum(1)
        if not (held.long().cumprod(1).sum(1) == last).all():
            raise DufmError("the critical value is not the only one: collapse wins, loses and wins again")
        if turn == 0 and (last == _SECTIONS - 1).any():
            raise DufmError(f"there is no critical value up to {float(high.max()):g}: collapse is not lost below it")
        low, high = low + step * last, low + step * (last + 1)
    return (low + high) / 2


# ---------------------------------------------------------------- where starts end


def triangle_cells(side: int) -> np.ndarray:
    """Corners ``(side², 3, 3)`` of the equal triangles that the proportions (s_1 : s_2 : s_3) are cut into.

    ``DufmError`` below 1.
    """
    corners = []
    for i in range(side):
        for j in range(side - i):
            corners.append([(i, j), (i + 1, j), (i, j + 1)])
            if i + j + 2 <= side:
                corners.append([(i + 1, j + 1), (i + 1, j), (i, j + 1)])
    first_two = np.array(corners) / side
    return np.concatenate([first_two, 1 - first_two.sum(-1, keepdims=True)], -1)


def map_starts(side: int, each: int, seed: int) -> Tensor:
    """Directions ``(each, side², 3)`` of mean 1, ``each`` uniform in every one of :func:`triangle_cells`.

    As many in each cell: more evenly spread than independent ones, so that binomial intervals are on the safe side.
    ``DufmError`` for a count below 1.
    """
    corners = triangle_cells(side)
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(3), (len(corners), each))
    directions = (weights @ corners).clip(1e-12)
    return torch.from_numpy(directions / directions.mean(-1, keepdims=True)).transpose(0, 1)


def ends_of_four(starts: Tensor, depth: int, *, rtol: float = 1e-4) -> Tensor:
    """Where starts ``(..., 3)`` at K = 4 end, by :func:`dufm.spectral_end`: an index into ``FOUR_ENDS``, ``(...)``.

    0 neural collapse, i the square that drops s_i, 4 undecided.
    """
    run = spectral_flow(starts, depth, "hadamard", rtol=rtol)
    return _which_of_four(spectral_end(run.s, depth, "hadamard"))


def distance_from_end(starts: Tensor, depth: int, log_loss: float) -> tuple[Tensor, Tensor]:
    """How far starts ``(..., 3)`` at K = 4 still are from their ends at a finite loss, and those, as an index.

    The distance is ``‖s − s_end‖/‖s_end‖``, both scaled to smallest margin 1, the index that of :func:`ends_of_four`.
    """
    run = spectral_flow(starts, depth, "hadamard", until_log_loss=log_loss)
    end = spectral_end(run.s, depth, "hadamard")
    scaled = run.s / (run.s @ characters("hadamard", 4).rates.to(run.s)).amin(-1, keepdim=True)
    return (scaled - end.spectrum).norm(dim=-1) / end.spectrum.norm(dim=-1), _which_of_four(end)


def _which_of_four(end: SpectralEnd) -> Tensor:
    code = torch.where(end.rank == 3, 0, 1 + (end.spectrum == 0).int().argmax(-1))
    return torch.where(end.decided, code, 4)


def _check_hadamard(s: Tensor) -> None:
    if len(s) & (len(s) + 1):
        raise DufmError(f"s must have K − 1 values, K a power of two, got {len(s)}")


def greedy_basis(s: Tensor) -> list[int]:
    """The first log2 K independent characters in the order of their values ``s`` ``(K − 1,)``, largest first.

    Their numbers from 1, ascending; characters i and j multiply to character i XOR j.  ``DufmError`` for a K that is no
    power of two.
    """
    _check_hadamard(s)
    basis, span = [], {0}
    for i in (torch.argsort(s, descending=True) + 1).tolist():
        if i not in span:
            basis.append(i)
            span |= {i ^ j for j in span}
    return sorted(basis)


def least_lag(s: Tensor, depth: int) -> float:
    """Least ``y_j − y_b`` over the members b of :func:`greedy_basis` and all j outside the span of those before b.

    inf where there is none.  ``DufmError`` below depth 3, for values that are not positive, and for a K that is no
    power of two.
    """
    _check_hadamard(s)
    if not (s > 0).all():
        raise DufmError(f"s must be positive, the smallest is {float(s.min()):g}")
    y = s ** (2 / check_count("depth", depth, 3) - 1)
    check_in_range("s: a label", y)
    lag, span = math.inf, {0}
    for i in (torch.argsort(y) + 1).tolist():
        if i not in span:
            behind = [float(y[j - 1] - y[i - 1]) for j in range(1, len(y) + 1) if j not in {*span, i}]
            lag = min([lag, *behind])
            span |= {i ^ j for j in span}
    return lag


def greedy_lag(num_classes: int, depth: int) -> float:
    """Lag ``1.75 (L − 2) 2^{−2/L} + (log2 K − 1) 2^q``: with a larger :func:`least_lag` the greedy cube is the end."""
    return 1.75 * (depth - 2) * 2 ** (-2 / depth) + (math.log2(num_classes) - 1) * 2 ** (1 - 2 / depth)


def code_counts(seeds: Sequence[int], num_classes: int, depth: int, scale: float, starts: int) -> dict[str, list[int]]:
    """How many uniform directions of mean ``scale`` end in each of ``CODES`` at K = 2^m; a count a seed, by name.

    Neural collapse keeps K − 1 equal values, Reed–Muller (the orthoplex) K/2, the cube log2 K; all by
    :func:`dufm.spectral_end`.  "greedy cube" counts those cubes that keep the :func:`greedy_basis` of their start;
    "sure" the starts with a :func:`least_lag` above :func:`greedy_lag`, none at depth 2, and "sure and greedy" those of
    them that are greedy cubes.  ``DufmError`` as :func:`dufm.spectral_flow`.
    """
    K, bits = check_count("num_classes", num_classes, 4), int(num_classes).bit_length() - 1
    ranks = torch.tensor([K - 1, K // 2, bits])
    counts = []
    for seed in seeds:
        draw = np.random.default_rng([seed, bits]).dirichlet(np.ones(K - 1), starts) * (K - 1)
        directions = torch.from_numpy(draw.clip(1e-9))
        run = spectral_flow(scale * directions, depth, "hadamard")
        end = spectral_end(run.s, depth, "hadamard")
        least = torch.where(end.spectrum > 0, end.spectrum, torch.inf).amin(-1)
        named = (end.rank[:, None] == ranks) & (least > 0.999 * end.spectrum.amax(-1))[:, None]
        code = torch.where(end.decided, torch.where(named.any(-1), named.int().argmax(-1), 3), 4)
        basis = [greedy_basis(start) for start in directions]
        kept = [(spectrum.nonzero().flatten() + 1).tolist() for spectrum in end.spectrum]
        greedy = (code == 2) & torch.tensor([a == b for a, b in zip(basis, kept, strict=True)])
        enough = greedy_lag(K, depth)
        sure = torch.tensor([depth > 2 and least_lag(scale * start, depth) > enough for start in directions])
        marks = [int(x.sum()) for x in (greedy, sure, sure & greedy)]
        counts.append([*code.bincount(minlength=len(CODES)).tolist(), *marks])
    names = [*CODES, "greedy cube", "sure", "sure and greedy"]
    return dict(zip(names, map(list, zip(*counts, strict=True)), strict=True))


guard(globals())
