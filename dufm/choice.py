r"""Which critical point random networks reach, and what the spectrum on the way there tells about it.

Let :math:`\sigma_1\ge\sigma_2\ge\dots` be the singular values of the centred logits at the moment when the loss has
fallen to a share φ of its value K log K at equal logits, and :math:`x_i = q\log(\sigma_i/\sqrt{\sigma_1\sigma_2})`,
q = 1 − 2/L: how far a value is behind the two that every code has.  The law of notebook 36 says that what has fallen
too far behind is lost:

.. math:: \Pr(\text{rank}\ge i \mid \text{rank}\ge i-1) = \frac1{1 + e^{-a - bx_i}},\qquad 3\le i\le\min(K-1, d).

Any other numbers in the place of :math:`x_i` give another model of the rank, in which ranks that cannot occur have
probability 0; so do the baselines of the notebook, which know only the cell.
"""

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas
import scipy.optimize
import torch
from scipy.special import expit, log_expit

from dufm._checks import check_count, short
from dufm._door import guard
from dufm._error import DufmError
from dufm._stepping import recorded
from dufm._together import check_once
from dufm.agreement import SAME, compare, selected_code
from dufm.certificate import kkt_certificate, off_range_values
from dufm.codes import code_logits, pairs_and_singles
from dufm.ends import UNDECIDED, end, limit
from dufm.flow import gradient_flow
from dufm.margin import closed_form_margin, normalized_margin
from dufm.metrics import centred
from dufm.model import balanced_init, chain
from dufm.search import stratum_curvature
from dufm.width import batches, check_ran, random_start

__all__ = [
    "CELL",
    "LOSSES",
    "advantage",
    "counted",
    "expected_ranks",
    "fit_models",
    "kind_of",
    "models",
    "rung",
    "scores",
    "spectral_numbers",
    "which_end",
]

LOSSES = (0.9, 0.5, 0.1, 0.01)  #: φ: losses over that of zero logits, K log K
_SHARPNESS = 1e3
CELL = ["num_classes", "depth", "width", "scale"]  #: what makes a cell


def which_end(
    seeds: Sequence[int], num_classes: int, depth: int, width: int, scale: float = 1.0
) -> dict[str, list[Any]]:
    r"""Certified end of networks from Gaussian starts, and their spectra on the way: a task for ``sweep.run``.

    Followed to log ℒ = −1000 and from there to the limit.  Columns: ``name``, ``rank``, ``margin_ratio`` and ``reason``
    of :func:`dufm.end` ("undecided", 0 and NaN where nothing near is certified), ``beta``, the largest of its β, and
    for every φ of ``LOSSES`` a text ``spectrum_φ``, the σ_i of the centred logits over σ_1 where ℒ = φ K log K; the
    start's, where its loss is lower.  ``DufmError`` as the functions named.
    """
    levels = [math.log(share * num_classes * math.log(num_classes)) for share in LOSSES]
    columns: dict[str, list[Any]] = {}
    for group in batches(seeds, depth, max(width, num_classes)):
        start = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=group)
        run = gradient_flow(start, until_log_loss=-_SHARPNESS, rtol=1e-3, record={"log_loss": levels})
        found = end(limit(run, sharpness=_SHARPNESS), depth)
        states = recorded(run.history).Z
        states = torch.where(states.isfinite(), states, chain(start))
        sigma = torch.linalg.svdvals(centred(states))[..., : num_classes - 1]
        texts = [[" ".join(f"{x:.4f}" for x in row) for row in level] for level in (sigma / sigma[..., :1]).tolist()]
        part = {
            "name": found.name.tolist(),
            "rank": torch.where(found.decided, found.rank, 0).tolist(),
            "margin_ratio": torch.where(found.decided, found.margin_ratio, torch.nan).tolist(),
            "beta": torch.where(found.decided, found.beta[:, 0], torch.nan).tolist(),
            "reason": found.reason.tolist(),
            **{f"spectrum_{share:g}": text for share, text in zip(LOSSES, texts, strict=True)},
        }
        columns = {name: columns.get(name, []) + values for name, values in part.items()}
    return columns


def counted(runs: pandas.DataFrame) -> pandas.DataFrame:
    """A row a cell and end, ``networks`` of ``of``: ends are told apart by name, rank and margin (five digits).

    ``runs``: what ``sweep.run`` makes of :func:`which_end`.  ``beta`` is the median of those networks.  ``DufmError``
    as :func:`dufm.width.check_ran`.
    """
    check_ran(runs)
    rows = runs.assign(margin_ratio=runs.margin_ratio.round(5).fillna(0.0), beta=runs.beta.fillna(0.0))
    keys = [*CELL, "name", "rank", "margin_ratio"]
    table = rows.groupby(keys, as_index=False).agg(beta=("beta", "median"), networks=("name", "size"))
    return table.assign(beta=table.beta.round(3), of=table.groupby(CELL).networks.transform("sum"))


# ---------------------------------------------------------------- what an end is


@functools.lru_cache(maxsize=512)
def _code_margin(num_classes: int, depth: int, rank: int) -> float:
    code = code_logits(selected_code(num_classes, rank, restarts=64))
    return float(normalized_margin(code, depth)) / closed_form_margin("nc", num_classes, depth)


@functools.lru_cache(maxsize=512)
def _best_margin(num_classes: int, depth: int, rank: int) -> float:
    return compare(num_classes, rank, [depth], restarts=32)[0].margin / closed_form_margin("nc", num_classes, depth)


def kind_of(num_classes: int, depth: int, rank: int, margin_ratio: float) -> str:
    """What an end is, by rank and margin over collapse (five digits): a word.

    "collapse"; "softmax code" of its rank; "depth's own" where its margin is at least that of the best solution of its
    rank that :func:`dufm.agreement.compare` finds, which is no code; "worse" where it is smaller; "undecided" (rank 0).
    """
    if rank == 0:
        return UNDECIDED
    if abs(margin_ratio / _code_margin(num_classes, depth, rank) - 1) < 1e-5 + SAME:
        return "collapse" if rank == num_classes - 1 else "softmax code"
    best = _best_margin(num_classes, depth, rank)
    return "depth's own" if margin_ratio > best * (1 - 1e-5 - SAME) else "worse"


def rung(num_classes: int, pairs: int, depth: int, *, off: float, margin: float) -> dict[str, Any]:
    """What holds t ≥ 2 pairs and K − 2t single classes in their place: a dict.

    ``threshold`` (1 − 1/t)^{1/q}, q = 1 − 2/L; ``error``, by how much the values β of the multipliers' block off the
    range, over the pairs' own, miss t/(t − 1); ``curvature`` on the stratum; ``below`` and ``above``: the names of the
    ends of balanced starts at this ``margin``, all extra values relative ``off`` from the threshold.
    """
    Z, p = pairs_and_singles(num_classes, check_count("pairs", pairs, 2)), 2 / depth
    rank, single = num_classes - pairs, num_classes - 2 * pairs
    sums = torch.kron(torch.eye(pairs, dtype=Z.dtype) - 1 / pairs, torch.full((2, 2), 0.5, dtype=Z.dtype))
    extra = torch.block_diag(sums, torch.zeros(single, single, dtype=Z.dtype))
    threshold = (1 - 1 / pairs) ** (1 / (1 - p))
    starts = torch.stack([margin * (Z + 2 * threshold * (1 + side) * extra) for side in (-off, off)])
    below, above = end(limit(balanced_init(starts, depth)), depth).name.tolist()
    mean = (torch.linalg.svdvals(Z)[:rank] ** (p - 1)).mean() / 2 ** (p - 1)
    beta = off_range_values(Z, depth, kkt_certificate(Z, depth, rank))[: pairs - 1] * mean
    numbers = {"threshold": threshold, "error": float(abs(beta * (pairs - 1) / pairs - 1).max())}
    curvature = stratum_curvature(Z, depth, rank)
    cell = {"K": num_classes, "t": pairs, "L": depth}
    return {**cell, **numbers, "curvature": curvature, "below": below, "above": above}


# ---------------------------------------------------------------- models of the rank


def spectral_numbers(spectra: Iterable[str], depth: int, width: int, *, power: float | None = None) -> np.ndarray:
    """Numbers ``(n, min(K − 1, d) − 2, 2)`` of the law, 1 and x_i: what multiplies (a, b).

    ``spectra``: texts of :func:`which_end`; ``power`` in the place of q.
    """
    texts = [text.split() for text in spectra]
    if len(texts[0]) < 2 or any(len(text) != len(texts[0]) for text in texts):
        raise DufmError(f"spectra must be texts of two or more numbers, as many in each, got {short(list(spectra))}")
    try:
        sizes = np.log(np.maximum(np.array(texts, dtype=float), 1e-4))
    except ValueError:
        raise DufmError(f"spectra must be texts of numbers, got {short(list(spectra))}") from None
    power = 1 - 2 / depth if power is None else power
    x = power * (sizes[:, 2 : max(min(sizes.shape[1], width), 2)] - sizes[:, :2].mean(1, keepdims=True))
    return np.stack([np.ones_like(x), x], -1)


def models(runs: pandas.DataFrame) -> dict[str, np.ndarray]:
    """Numbers of every model for the networks of one cell, rows of :func:`which_end`: a dict by name.

    "law φ" for φ of ``LOSSES``, and "law 0.1, power 1", with 1 in the place of q.  Those that know the cell only:
    "constant"; "two", log d and L; "five", also log K, log σ and log(K − i).
    """
    cell = runs.iloc[0]
    K, L, d = int(cell.num_classes), int(cell.depth), int(cell.width)
    found = {f"law {share:g}": spectral_numbers(runs[f"spectrum_{share:g}"], L, d) for share in LOSSES}
    found["law 0.1, power 1"] = spectral_numbers(runs["spectrum_0.1"], L, d, power=1.0)
    shape = found["law 0.5"].shape[:2]
    known = [1.0, math.log(d), L, math.log(K), math.log(cell.scale), np.log(K - np.arange(3, shape[1] + 3))]
    for name, count in (("constant", 1), ("two", 3), ("five", 6)):
        found[name] = np.stack([np.broadcast_to(x, shape) for x in known[:count]], -1)
    return found


def _log_likelihood(coefficients: np.ndarray, numbers: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Of every network's rank; 0 for undecided ones (rank 0)."""
    height = numbers @ coefficients
    step, ranks = np.arange(3, height.shape[1] + 3), np.asarray(ranks)[:, None]
    return (log_expit(height) * (ranks >= step) + log_expit(-height) * (ranks == step - 1)).sum(1)


def _ranks(cell: pandas.DataFrame, numbers: np.ndarray) -> np.ndarray:
    """Ranks of the networks of a cell, integers; ``DufmError`` for one that the numbers of no model know."""
    most, ranks = numbers.shape[1] + 2, cell["rank"].to_numpy()
    known = np.isin(ranks, [0, *range(2, most + 1)])
    if not known.all():
        raise DufmError(f"runs must have ranks from 2 to {most} (K − 1 or d), 0 undecided, got {ranks[~known][0]}")
    return ranks.astype(int)


def fit_models(runs: pandas.DataFrame) -> dict[str, np.ndarray]:
    """Coefficients of largest likelihood of every model of :func:`models`, a dict of arrays by name.

    Cells in which no two ranks can occur, K = 3 or d = 2, and undecided networks tell nothing.  ``DufmError`` as
    :func:`scores`.
    """
    cells = [(found := models(cell), _ranks(cell, found["constant"])) for _, cell in runs.groupby(CELL)]

    def misfit(coefficients: np.ndarray, name: str) -> float:
        return -sum(_log_likelihood(coefficients, numbers[name], ranks).sum() for numbers, ranks in cells)

    sizes = {name: numbers.shape[-1] for name, numbers in cells[0][0].items()}
    return {name: scipy.optimize.minimize(misfit, np.zeros(size), args=(name,)).x for name, size in sizes.items()}


def expected_ranks(coefficients: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Probabilities ``(n, min(K − 1, d) − 1)`` of the ranks 2, 3, … of each network."""
    survives = np.cumprod(expit(numbers @ coefficients), 1)
    survives = np.concatenate([np.ones((len(survives), 1)), survives, np.zeros((len(survives), 1))], 1)
    return survives[:, :-1] - survives[:, 1:]


def scores(runs: pandas.DataFrame, coefficients: Mapping[str, np.ndarray]) -> pandas.DataFrame:
    """How well models with given ``coefficients`` (a dict by name) predict the ranks: a row a cell and model.

    ``log_score``: mean over the decided networks of the log of the probability that the model gave to their rank;
    ``variation``: total variation between its shares and those found, undecided networks an outcome that it gives 0;
    ``right``: share of all networks whose rank was the likeliest; ``expected`` and ``found``: mean ranks.
    ``DufmError`` for coefficients of no model, or a rank outside 2 … min(K − 1, d).
    """
    rows = []
    for keys, cell in runs.groupby(CELL):
        numbers = models(cell)
        ranks = _ranks(cell, numbers["constant"])
        decided = ranks > 0
        for name, chosen in coefficients.items():
            if name not in numbers or np.shape(chosen) != numbers[name].shape[-1:]:
                raise DufmError(f"coefficients must be those of {', '.join(numbers)}, got {name!r}: {short(chosen)}")
            chances = expected_ranks(chosen, numbers[name])
            found = np.bincount(ranks[decided] - 2, minlength=chances.shape[1]) / len(ranks)
            gap = abs(found - chances.mean(0)).sum() + 1 - found.sum()
            score = _log_likelihood(chosen, numbers[name], ranks)[decided].mean()
            right = (chances.argmax(1) + 2 == ranks).mean()
            expected = chances.mean(0) @ np.arange(2, chances.shape[1] + 2)
            rows.append((*keys, name, score, gap / 2, right, expected, ranks[decided].mean()))
    names = [*CELL, "model", "log_score", "variation", "right", "expected", "found"]
    return pandas.DataFrame(rows, columns=names).round(5)


def advantage(
    table: pandas.DataFrame, model: str, other: str, *, draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over cells of the log score of ``model`` less that of ``other``, and its 95% interval, cells drawn again.

    ``table``: that of :func:`scores`; three NaN where it is empty.
    """
    if table.empty:
        return 3 * (math.nan,)
    check_once("table", table, [*CELL, "model"])
    if not {model, other} <= set(table.model):
        raise DufmError(f"model and other must be of {short(sorted(set(table.model)))}, got {model!r} and {other!r}")
    wide = table.pivot(index=CELL, columns="model", values="log_score")
    gain = (wide[model] - wide[other]).to_numpy()
    means = gain[np.random.default_rng(seed).integers(len(gain), size=(draws, len(gain)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(gain.mean()), float(low), float(high)


guard(globals())
