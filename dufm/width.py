r"""Width and random starts: where wide networks end, and how wide is wide enough.

Starts are fan-in Gaussian of scale σ, entries of ``W_l`` N(0, σ²/fan-in), unless said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.optimize
import torch
from scipy import stats
from scipy.special import expit
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm.ends import UNDECIDED, end, limit
from dufm.flow import gradient_flow
from dufm.model import balanced_init, chain, gaussian_init, orthogonal_init

if TYPE_CHECKING:
    import pandas

__all__ = [
    "HalfWidth", "batches", "by_cell", "check_ran", "completed", "differing", "ends", "half_width", "half_widths",
    "power_law", "random_start", "rank_change", "rank_error", "scaling_exponent",
]  # fmt: skip

# ---------------------------------------------------------------- where random networks end

STARTS = ("gaussian", "orthogonal", "balanced", "twin", "limit")
_NARROW = ("twin", "limit")  # of width K, whatever the width of the network that they come from
_ENTRIES = 2_000_000  # of hidden layers followed at once: as many as fit a core's cache


def random_start(
    init: str, depth: int, width: int, num_classes: int, *, scale: float = 1.0, seeds: Sequence[int]
) -> list[Tensor]:
    r"""Factors ``[W_1, …, W_L]`` of one network a seed, batch dimension ``len(seeds)``.

    ``init``: "gaussian" or "orthogonal" (:func:`dufm.gaussian_init`, :func:`dufm.orthogonal_init`); "balanced" or
    "twin", the balanced factors, of width d or K, of the Gaussian network's own product: the same logits at the start,
    and no imbalance; "limit", balanced factors of width K of a matrix with entries N(0, σ^{2L}/K), the law of those
    products as d → ∞.  ``DufmError`` for another ``init``, no seeds, a width below K for "balanced", or what those
    functions refuse.
    """
    if init not in STARTS or not len(seeds):
        raise DufmError(f"init must be one of {', '.join(STARTS)} and seeds not empty, got {init!r}, {list(seeds)!r}")
    if init == "limit":
        numbers = np.stack([np.random.default_rng(seed).standard_normal((num_classes, num_classes)) for seed in seeds])
        return balanced_init(torch.from_numpy(scale**depth / num_classes**0.5 * numbers), depth)
    draw = orthogonal_init if init == "orthogonal" else gaussian_init
    each = (draw(depth, width, num_classes, scale=scale, seed=seed) for seed in seeds)
    if init in ("balanced", "twin"):
        logits = torch.cat([chain(factors) for factors in each])
        return balanced_init(logits, depth, None if init in _NARROW else width)
    return [torch.cat(parts) for parts in zip(*each, strict=True)]


def batches(seeds: Sequence[int], depth: int, width: int) -> list[Sequence[int]]:
    """``seeds`` in groups of as many networks as are best followed at once, a list of slices; at least one each."""
    together = max(1, _ENTRIES // (depth * width**2))
    return [seeds[i : i + together] for i in range(0, len(seeds), together)]


def ends(
    seeds: Sequence[int], num_classes: int, depth: int, width: int, scale: float = 1.0, init: str = "gaussian",
    sharpness: float = 1e3, rtol: float = 1e-3,
) -> dict[str, list[Any]]:  # fmt: skip
    """Certified end of the flow from :func:`random_start`, one network a seed: a task for ``sweep.run``.

    Each is followed to log ℒ = ``−sharpness`` with ``rtol`` and from there to its limit.  Columns ``name``, ``rank``
    ("undecided" and 0 where nothing near is certified) and ``reason`` of :func:`dufm.end`.  ``DufmError`` as there.
    """
    columns: dict[str, list[Any]] = {"name": [], "rank": [], "reason": []}
    for group in batches(seeds, depth, num_classes if init in _NARROW else width):
        start = random_start(init, depth, width, num_classes, scale=scale, seeds=group)
        run = gradient_flow(start, until_log_loss=-sharpness, rtol=rtol)
        found = end(limit(run, sharpness=sharpness), depth)
        columns["name"] += found.name.tolist()
        columns["rank"] += torch.where(found.decided, found.rank, 0).tolist()
        columns["reason"] += found.reason.tolist()
    return columns


def check_ran(runs: pandas.DataFrame) -> None:
    """``DufmError`` with the message of a cell of a table of ``sweep.run`` that failed."""
    if (runs.error != "").any():
        raise DufmError(f"a cell failed: {runs.error[runs.error != ''].iloc[0]}")


def by_cell(runs: pandas.DataFrame, keys: Sequence[str]) -> pandas.DataFrame:
    """A row a cell: ``networks``, ``decided``, ``collapse`` (those that end in neural collapse), ``commonest`` (the
    name that most have), ``mean_rank`` and ``sd_rank`` of the certified ranks of the decided ones, NaN for too few.

    ``runs``: the table that ``sweep.run`` makes of :func:`ends`; ``keys``: its columns that make a cell.  ``DufmError``
    as :func:`check_ran`.
    """
    check_ran(runs)
    decided = runs.name != UNDECIDED
    certified = {"certified": runs["rank"].where(decided), "decided": decided, "collapse": runs.name == "NC"}
    cells = runs[[*keys, "name"]].assign(**certified).groupby(keys, as_index=False)
    return cells.agg(
        networks=("name", "size"),
        decided=("decided", "sum"),
        collapse=("collapse", "sum"),
        commonest=("name", lambda names: names.mode().iloc[0]),
        mean_rank=("certified", "mean"),
        sd_rank=("certified", "std"),
    )


def differing(cells: pandas.DataFrame, others: pandas.DataFrame, keys: Sequence[str]) -> pandas.Series:
    """Of the cells of :func:`by_cell` that two tables share, one boolean each: do counts or mean rank (1e-4) differ?"""
    both = cells.merge(others, on=keys, suffixes=("", "_other"))
    moved = (both.mean_rank - both.mean_rank_other).abs() > 1e-4
    return (both.collapse != both.collapse_other) | (both.decided != both.decided_other) | moved


def completed(cell: Any, rank: int) -> Any:
    """A row of :func:`by_cell` as a named tuple, its undecided networks counted as decided at ``rank``."""
    known, missing = cell.decided, cell.networks - cell.decided
    mean = (known * cell.mean_rank + missing * rank) / cell.networks
    squares = (known - 1) * cell.sd_rank**2 + known * (cell.mean_rank - mean) ** 2 + missing * (rank - mean) ** 2
    return cell._replace(decided=cell.networks, mean_rank=mean, sd_rank=(squares / (cell.networks - 1)) ** 0.5)


def rank_error(cells: Any) -> Any:
    """Standard error of ``mean_rank``, at least that of a cell in which one network is a rank off."""
    return (np.maximum(cells.sd_rank**2, 1 / cells.decided) / cells.decided) ** 0.5


def rank_change(first: Any, last: Any) -> tuple[float, float, float]:
    """Mean certified rank of cell ``last`` less that of ``first``, and both ends of Welch's 95% interval.

    Rows of :func:`by_cell`.
    """
    a, b = rank_error(first) ** 2, rank_error(last) ** 2
    freedom = (a + b) ** 2 / (a**2 / (first.decided - 1) + b**2 / (last.decided - 1))
    middle, half = last.mean_rank - first.mean_rank, stats.t.ppf(0.975, freedom) * math.sqrt(a + b)
    return middle, middle - half, middle + half


# ---------------------------------------------------------------- the half-width


@dataclass(frozen=True)
class HalfWidth:
    """Centre of a logistic curve in log d: ``log_width`` log d_½, its standard ``error``, the ``slope``, and
    ``misfit``, the largest distance of a measured share from the curve.  NaN where the shares do not bracket one half.
    """

    log_width: float
    error: float
    slope: float
    misfit: float

    @property
    def interval(self) -> tuple[float, float, float]:
        """d_½ and both ends of its 95% interval."""
        middle, low, high = (math.exp(self.log_width + 1.96 * self.error * side) for side in (0, -1, 1))
        return middle, low, high


def scaling_exponent(depth: int) -> float:
    """Exponent e_L of d_½ ∝ σ^{−e_L} by a scaling argument (notebook 63): L − 2 to L = 4, then L(L − 3)/(L − 2)."""
    depth = check_count("depth", depth, 3)
    return float(depth - 2) if depth < 5 else depth * (depth - 3) / (depth - 2)


def half_width(widths: Sequence[float], collapse: Sequence[float], networks: Sequence[float]) -> HalfWidth:
    r"""Width at which half of the networks collapse, by maximum likelihood of a logistic curve in log d.

    ``widths`` increasing; of ``networks`` at each, ``collapse`` did.  Half a hit and half a miss are added to every
    cell, which keeps the slope finite; the error is that of the Fisher information.  Returns :class:`HalfWidth`.
    ``DufmError`` for fewer than two widths, widths that do not increase, or counts out of range.
    """
    x, hits, total = (np.asarray(values, dtype=float) for values in (widths, collapse, networks))
    if x.ndim != 1 or len(x) < 2 or not (x.shape == hits.shape == total.shape) or not (np.diff(x) > 0).all():
        raise DufmError(f"widths must be at least two, increasing, each with its counts, got {widths}")
    if not ((x > 0) & (hits >= 0) & (hits <= total) & (total > 0)).all():
        raise DufmError(f"collapse must be from 0 to networks, got {collapse} of {networks}")
    share, design = hits / total, np.stack([np.ones_like(x), np.log(x)])
    hits, total = hits + 0.5, total + 1
    if not hits[0] / total[0] < 0.5 < hits[-1] / total[-1]:
        return HalfWidth(*4 * (math.nan,))

    def misfit(coefficients: np.ndarray) -> tuple[float, np.ndarray]:
        height = coefficients @ design
        return (total * np.logaddexp(0, height) - hits * height).sum(), design @ (total * expit(height) - hits)

    guess = np.interp(0.5, hits / total, design[1])
    fit = scipy.optimize.minimize(misfit, [-2 * guess, 2.0], jac=True, method="BFGS", options={"gtol": 1e-8})
    constant, slope = fit.x
    curve = expit(fit.x @ design)
    centre = -constant / slope
    # d centre = −(d constant + centre d slope)/slope
    along = np.array([1.0, centre]) / slope
    covariance = np.linalg.inv((design * total * curve * (1 - curve)) @ design.T)
    return HalfWidth(centre, math.sqrt(along @ covariance @ along), slope, float(abs(share - curve).max()))


def half_widths(cells: pandas.DataFrame, keys: Sequence[str]) -> list[dict[str, Any]]:
    """:func:`half_width` of every ladder of a table like that of :func:`by_cell`, as a list of rows (dicts).

    ``keys``: the columns that make a ladder; those with a single width are left out.  A row holds them, ``widest``, the
    fields of :class:`HalfWidth`, and d_½ with its interval as ``half_width``, ``low``, ``high``.
    """
    rows = []
    for case, ladder in cells.sort_values("width").groupby(keys):
        if len(ladder) > 1:
            fit = half_width(ladder.width, ladder.collapse, ladder.networks)
            interval = dict(zip(("half_width", "low", "high"), fit.interval, strict=True))
            rows.append({**dict(zip(keys, case, strict=True)), "widest": ladder.width.max(), **vars(fit), **interval})
    return rows


def power_law(
    scales: Sequence[float], log_widths: Sequence[float], errors: Sequence[float]
) -> tuple[float, float, float]:
    """Exponent e of d_½ = a σ^{−e}, half its 95% interval, and log a, weighted by the errors; NaN for less than two."""
    if len(scales) < 2:
        return 3 * (math.nan,)
    if len(set(scales)) < 2 or not 0 < max(errors) < 1e6 * min(errors):
        raise DufmError("scales must differ, and errors be positive and within a factor 1e6 of each other")
    design = -np.log(np.asarray(scales, dtype=float))
    (exponent, constant), covariance = np.polyfit(design, log_widths, 1, w=1 / np.asarray(errors), cov="unscaled")
    return float(exponent), 1.96 * math.sqrt(covariance[0, 0]), float(constant)


guard(globals())
