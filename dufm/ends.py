r"""Where a run ends: the limit of the flow, and the certified solution that it has arrived at.

As ℒ → 0 the direction of the flow obeys an autonomous law in u, the logarithm of the margin; only the sharpness of
the smooth minimum grows with u, and at margin m it blurs the max-margin problem by O(1/m).  :func:`limit` holds the
sharpness constant and follows the direction until it rests; :func:`end` reads the resting point: centred, cut,
polished, certified, with an independent sign from the growth of its singular values.  It is the flow's limit, not the
flow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_dtype, check_logits
from dufm._door import guard
from dufm._error import DufmError
from dufm._limit import SHARPNESS, Limit, limit, spectral_limit
from dufm._nnls import nonnegative_least_squares
from dufm._resting import RESTS
from dufm._scaling import check_in_range, in_range, times_power
from dufm.certificate import DECIDED_MOVE, Certificate, kkt_certificate, off_range_values, polish
from dufm.codes import name_of
from dufm.flow import Trajectory
from dufm.groups import Group, check_spectrum
from dufm.margin import normalized_margin
from dufm.metrics import centred, margins

__all__ = ["End", "Limit", "SpectralEnd", "columns", "distance", "end", "limit", "spectral_end", "spectral_limit"]


# ---------------------------------------------------------------- the certified end


@dataclass(frozen=True)
class End:
    """The solution at which a run ends, one entry a network.

    ``Z`` ``(..., K, N)``: centred, of smallest margin 1, NaN where nothing near is certified; ``rank`` of it, 0 there;
    ``name`` by :func:`dufm.codes.name_of`, a NumPy array; ``margin_ratio``: its normalised margin over that of neural
    collapse; ``certificate``; ``moved``: ``‖Z − Ẑ‖_F/‖Ẑ‖_F``, Ẑ the run's own centred logits of smallest margin 1;
    ``beta`` ``(..., K − 1)``: :func:`dufm.off_range_values`; ``decided``; ``reason``: a sentence where it is not.
    Where nothing near is certified ``margin_ratio`` and ``beta`` are NaN, ``moved`` and the certificate's residual inf.

    Units: none.  Source: this companion, notebook 35.

    >>> found = dufm.end(dufm.orthoplex(6) @ dufm.orthoplex(6).mT, 4)
    >>> found.name.item(), found.rank.item(), found.decided.item()
    ('orthoplex', 3, True)
    """

    Z: torch.Tensor
    rank: torch.Tensor
    name: np.ndarray
    margin_ratio: torch.Tensor
    certificate: Certificate
    moved: torch.Tensor
    beta: torch.Tensor
    decided: torch.Tensor
    reason: np.ndarray


# A cut that keeps less than this of σ_1 keeps dust: no solution has so small a value beside its largest.
_DUST = 1e-3
UNDECIDED = "undecided"


def end(run: Limit | Trajectory | Sequence[Tensor] | Tensor, depth: int) -> End:
    r"""The certified solution at which a run ends: the one rule of the package for rank and end.

    ``run``: a :class:`Limit`, or what :func:`limit` takes, which is then called; or logits ``(..., K, N)``, which are
    read as they are: a run in transit can pass a saddle of its stratum, and is then misread as ending there.

    1. The logits are centred, which changes no margin, and scaled to smallest margin 1.
    2. At every cut r = 2 … K − 1 (1 for K = 2) that drops at most a tenth of the norm they are polished and certified
       (:func:`dufm.polish`); the end is the nearest solution of those that certify, if it is at most a tenth away.
    3. A second sign, independent of the polish: of the singular values, those kept grow with the margin, those
       dropped have frozen (``rates`` of :class:`Limit`).  Where the two disagree the run is undecided.

    A run that does not rest, or has not separated its classes, is undecided and says why in ``reason``.  Returns
    :class:`End`.

    Units: none.  Raises: ``DufmError`` as :func:`limit` and :func:`dufm.polish`, and for a depth that is not the run's.
    Source: this companion, notebooks 21 and 35.

    >>> found = dufm.end(dufm.gaussian_init(3, 4, 4, seed=0), 3)
    >>> found.name.item(), round(found.margin_ratio.item(), 4), found.reason.item()
    ('orthoplex', 0.9186, '')
    """
    if isinstance(run, torch.Tensor):
        check_logits(run)
        Z, rates, status = run.detach(), None, None
    else:
        found = run if isinstance(run, Limit) else limit(run)
        if len(found.factors) != depth:
            raise DufmError(f"depth must be the run's own, {len(found.factors)}, got {depth}")
        Z, rates, status = found.Z, found.rates.reshape(-1, found.rates.shape[-1]), found.status.reshape(-1)
    shape = Z.shape[:-2]
    own = centred(Z.reshape(-1, *Z.shape[-2:])).double().cpu()
    smallest = margins(own).amin((-2, -1))
    separates = smallest > 0
    reason = np.where(separates, "", "the classes are not separated").astype(object)
    if status is not None:
        reason[status != RESTS] = status[status != RESTS]
    own = own / torch.where(separates, smallest, 1.0)[:, None, None]
    nearest, rank, moved = _nearest(own, depth, torch.from_numpy(reason == ""))
    reason[(reason == "") & (moved > DECIDED_MOVE).numpy()] = f"no certified solution within {DECIDED_MOVE:.0%}"
    if rates is not None:
        growing = (rates.cpu() > 0.5).sum(-1)
        for index in np.flatnonzero((reason == "") & (growing != rank).numpy()):
            reason[index] = f"certified at rank {int(rank[index])}, but {int(growing[index])} singular values grow"
    certificate = kkt_certificate(nearest.nan_to_num(), depth, rank.clamp(min=1))
    names = name_of(nearest)
    names[reason != ""] = UNDECIDED
    values = {
        "Z": nearest,
        "rank": rank,
        "name": names,
        "margin_ratio": normalized_margin(nearest.nan_to_num(), depth) / _collapse_margin(Z.shape[-2:], depth),
        "certificate": certificate,
        "moved": moved,
        "beta": off_range_values(nearest.nan_to_num(), depth, certificate),
        "decided": torch.from_numpy(reason == ""),
        "reason": reason.astype(str),
    }
    return End(**{name: _reshaped(value, shape, Z.device) for name, value in values.items()})


def columns(found: End, run: Limit | None = None) -> dict[str, np.ndarray]:
    """Columns for a table, a row a network: what an :class:`End` says of each, its batch flattened.

    ``network`` (its index), ``end`` (its name, or "undecided"), ``rank``, ``margin_ratio`` and ``moved`` (NaN where
    undecided), ``reason``; with the :class:`Limit` ``run`` that it is the end of also ``slowest_kept`` and
    ``fastest_dropped``, the least and the largest of its ``rates`` among what is kept and dropped.  A dict of NumPy
    arrays.
    """
    if run is not None and run.rates.shape[:-1] != found.rank.shape:
        shapes = tuple(found.rank.shape), tuple(run.rates.shape[:-1])
        raise DufmError("run must be of the batch shape {} of found, got {}".format(*shapes))
    decided = found.decided.reshape(-1).cpu().numpy()

    def numbers(values: Tensor) -> np.ndarray:
        return np.where(decided, values.reshape(-1).cpu().numpy(), np.nan)

    table = {
        "network": np.arange(len(decided)),
        "end": found.name.reshape(-1),
        "rank": found.rank.reshape(-1).cpu().numpy(),
        "margin_ratio": numbers(found.margin_ratio),
        "moved": numbers(found.moved),
        "reason": found.reason.reshape(-1),
    }
    if run is not None:
        kept = torch.arange(run.rates.shape[-1], device=run.rates.device) < found.rank.unsqueeze(-1)
        table["slowest_kept"] = numbers(torch.where(kept, run.rates, torch.inf).amin(-1))
        table["fastest_dropped"] = numbers(torch.where(kept, -torch.inf, run.rates).amax(-1))
    return table


def distance(Z: Tensor, solution: Tensor) -> Tensor:
    """Relative distance of logits ``Z`` ``(..., K, N)``, centred and scaled to smallest margin 1, from a solution.

    ``solution``: the ``Z`` of an :class:`End`; leading dimensions broadcast.  NaN where Z separates nothing.
    """
    check_logits(Z, finite=False)
    if not isinstance(solution, Tensor):
        raise DufmError(f"solution must be a torch tensor, got {type(solution).__name__}")
    check_dtype("solution", solution)
    batches = zip(reversed(Z.shape[:-2]), reversed(solution.shape[:-2]), strict=False)
    if solution.shape[-2:] != Z.shape[-2:] or not all(a == b or 1 in (a, b) for a, b in batches):
        raise DufmError(f"solution must be of shape (..., K, N) as Z, {tuple(Z.shape)}, got {tuple(solution.shape)}")
    Z = centred(Z)
    smallest = margins(Z).amin((-2, -1), keepdim=True)
    solution, e = in_range(solution)
    away = torch.linalg.matrix_norm(times_power(Z / smallest, -e) - solution) / torch.linalg.matrix_norm(solution)
    separates = smallest[..., 0, 0] > 0
    check_in_range("solution: the distance from it", torch.where(separates & away.isinf(), away, 0.0))
    return torch.where(separates, away, torch.nan)


def _collapse_margin(shape: Sequence[int], depth: int) -> Tensor:
    """Normalised margin of neural collapse for K classes and N samples."""
    simplex = centred(torch.eye(shape[0], dtype=torch.float64))
    return normalized_margin(simplex.repeat_interleave(shape[1] // shape[0], -1), depth)


def _reshaped(value: Any, shape: tuple[int, ...], device: torch.device) -> Any:
    """Rows of a tensor, an array or a certificate in the batch shape, tensors on ``device``."""
    if isinstance(value, Certificate):
        parts = vars(value).items()
        return Certificate(**{k: v if k == "active_tol" else _reshaped(v, shape, device) for k, v in parts})
    if isinstance(value, np.ndarray):
        return value.reshape((*shape, *value.shape[1:]))
    return value.reshape((*shape, *value.shape[1:])).to(device)


def _nearest(own: Tensor, depth: int, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest certified solution over all cuts of centred logits of margin 1, its rank, and how far it is."""
    num_classes = own.shape[-2]
    nearest = torch.full_like(own, torch.nan)
    rank = torch.zeros(len(own), dtype=torch.int64)
    moved = torch.full((len(own),), torch.inf, dtype=own.dtype)
    square = torch.linalg.svdvals(own).square()
    total = square.sum(-1)
    for kept in range(1 if num_classes == 2 else 2, num_classes):
        dropped = square[:, kept:].sum(-1)
        rows = wanted & (dropped <= DECIDED_MOVE**2 * total) & (square[:, kept - 1] >= _DUST**2 * square[:, 0])
        rows = rows.nonzero().squeeze(-1)
        if len(rows):
            solved = polish(own[rows], depth, kept, fallback=False)
            size = torch.linalg.matrix_norm(own[rows])
            away = torch.linalg.matrix_norm(solved.Z.nan_to_num() - own[rows]) / size
            better = solved.certificate.holds() & (away < moved[rows])
            nearest[rows[better]], rank[rows[better]], moved[rows[better]] = solved.Z[better], kept, away[better]
    return nearest, rank, moved


# ---------------------------------------------------------------- spectra


@dataclass(frozen=True)
class SpectralEnd:
    """The solution at which a spectral run ends, by the rule of :func:`spectral_end`.

    ``spectrum`` ``(..., F)`` of smallest margin 1, exactly zero off its support, NaN where no vertex is near;
    ``rank`` of Z, int64, 0 there; ``moved``: ``‖ŝ − spectrum‖/‖spectrum‖``, ŝ the run's own spectrum at the same scale,
    inf there;
    ``decided``; ``reason``: a sentence where it is not, else "".

    Units: none.  Source: this companion, notebook 42.

    >>> found = dufm.spectral_end(torch.tensor([0.1, 0.1, 0.01]).double(), 4, "hadamard")
    >>> found.decided.item(), found.rank.item(), found.moved.item() < 0.1
    (True, 2, True)
    """

    spectrum: torch.Tensor
    rank: torch.Tensor
    moved: torch.Tensor
    decided: torch.Tensor
    reason: np.ndarray


_TIGHT = 0.15
_CERTIFIED = 1e-8


def spectral_end(s: Tensor, depth: int, group: Group, *, sharpness: float = SHARPNESS) -> SpectralEnd:
    r"""The vertex of ``{s ≥ 0, margins ≥ 1}`` at which a spectrum ``s`` ``(..., F)`` ends, by the rule of :func:`end`.

    The spectrum is followed to its limit at this ``sharpness`` (:func:`spectral_limit`).  Each cut to the r largest
    values, r = 1 … F, is rescaled to smallest margin 1 and polished: the margins within 15% of the smallest are set to
    1 exactly.  What is then no vertex, or no KKT point of ``min Σ m_i s_i^{2/L}`` (residual 1e-8), is dropped; the
    nearest of the others is the end if it is at most 10% away and keeps just what still grows with the margin.  Returns
    :class:`SpectralEnd`.

    Units: none.  Raises: ``DufmError`` as :func:`spectral_limit`.  Source: this companion, notebook 42.

    >>> starts = torch.tensor([[0.1, 0.1, 0.1], [0.1, 0.1, 0.01]]).double()
    >>> dufm.spectral_end(starts, 4, "hadamard").spectrum.round(decimals=4)
    tensor([[1., 1., 1.],
            [2., 2., 0.]], dtype=torch.float64)
    """
    chi = check_spectrum(s, group, "s")
    s, growing, status = spectral_limit(s, depth, chi, sharpness=sharpness)
    growing, status = growing.reshape(-1, chi.num_free) > 0.5, status.reshape(-1)
    flat = s.reshape(-1, chi.num_free)
    rates = chi.rates.to(flat)
    nearest = torch.full_like(flat, torch.nan)
    moved = flat.new_full(flat.shape[:1], torch.inf)
    place = flat.argsort(-1, descending=True).argsort(-1)
    for kept in range(1, chi.num_free + 1):
        support = place < kept
        margin = torch.where(support, flat, 0.0) @ rates
        smallest = margin.amin(-1, keepdim=True)
        tight = margin <= (1 + _TIGHT) * smallest
        patterns, which = torch.unique(torch.cat([support, tight], -1), dim=0, return_inverse=True)
        points = [_vertex(row, rates.cpu().numpy(), chi.multiplicity.numpy(), depth) for row in patterns.cpu().numpy()]
        point = flat.new_tensor(np.array(points))[which]
        change = (flat / smallest - point).norm(dim=-1) / point.norm(dim=-1)
        better = (smallest.squeeze(-1) > 0) & (change < moved)
        nearest = torch.where(better.unsqueeze(-1), point, nearest)
        moved = torch.where(better, change, moved)
    rank = ((nearest > 0) * chi.multiplicity.to(flat)).sum(-1).round().long()
    shape = s.shape[:-1]
    reason = np.where(moved.cpu() <= DECIDED_MOVE, "", f"no certified vertex within {DECIDED_MOVE:.0%}").astype(object)
    mixed = (growing != (nearest > 0)).any(-1).cpu().numpy()
    reason[(reason == "") & mixed] = "what grows is not what the vertex keeps"
    reason[status != RESTS] = status[status != RESTS]
    return SpectralEnd(
        nearest.reshape(s.shape),
        rank.reshape(shape),
        moved.reshape(shape),
        torch.from_numpy(reason == "").to(s.device).reshape(shape),
        reason.astype(str).reshape(shape),
    )


def _vertex(pattern: np.ndarray, rates: np.ndarray, multiplicity: np.ndarray, depth: int) -> np.ndarray:
    """The KKT vertex of given support and tight margins, NaN where there is none."""
    support, tight = pattern[: len(rates)], pattern[len(rates) :]
    point, nothing = np.zeros(len(rates)), np.full(len(rates), np.nan)
    # At L = 2 the cost is linear and only neural collapse, every margin 1, solves it: what was dropped would grow.
    if depth == 2 and not (support.all() and tight.all()):
        return nothing
    system = rates[np.ix_(support, tight)]
    if np.linalg.matrix_rank(system) < support.sum():
        return nothing
    point[support] = np.linalg.lstsq(system.T, np.ones(tight.sum()), rcond=None)[0]
    margin = point @ rates
    if (point[support] <= 0).any() or (margin < 1 - 1e-9).any() or (margin[tight] > 1 + 1e-9).any():
        return nothing
    slope = multiplicity[support] * point[support] ** (2 / depth - 1)
    _, residual = nonnegative_least_squares(system, slope)
    return point if residual < _CERTIFIED * np.linalg.norm(slope) else nothing


guard(globals())
