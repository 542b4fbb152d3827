r"""Where a run ends: the limit of the flow, and the certified solution that it has arrived at.

As ℒ → 0 the direction of the flow obeys an autonomous law in u, the logarithm of the margin; only the sharpness of
the smooth minimum grows with u, and at margin m it blurs the max-margin problem by O(1/m).  :func:`limit` holds the
sharpness constant and follows the direction until it rests; :func:`end` reads the resting point: centred, cut,
polished, certified, with an independent sign from the growth of its singular values.  It is the flow's limit, not the
flow.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from dufm._checks import DufmError, check_count, check_factors, check_finite_positive, check_logits
from dufm._nnls import nonnegative_least_squares
from dufm._stepping import RESTS, growth_rate, rest
from dufm.certificate import DECIDED_MOVE, Certificate, kkt_certificate, off_range_values, polish
from dufm.characters import check_spectrum
from dufm.codes import name_of
from dufm.flow import FactorModel, Trajectory, gradient_flow
from dufm.margin import normalized_margin
from dufm.metrics import centred, margins
from dufm.model import chain
from dufm.spectral import SpectralModel, spectral_flow

__all__ = ["End", "Limit", "SpectralEnd", "end", "limit", "spectral_end", "spectral_limit"]

SHARPNESS, UNTIL_GROWTH = 1e4, 300.0
_RTOL, _STEPS = 1e-3, 5000
_LEAST_SHARPNESS = 100.0
# Pairs N(K − 1) beyond which the dense solve of a step is refused: a step of one network would take seconds.
_MOST_PAIRS = 1500


@dataclass(frozen=True)
class Limit:
    """The flow continued at constant sharpness, one entry a network.

    ``factors`` ``[W_1, …, W_L]`` at log ℒ = −``sharpness``; ``growth`` u, by how much the logarithm of the margin has
    grown since the flow was there; ``turning``: change of the direction of all gaps, scaled to norm 1, a unit of u;
    ``rates`` ``(..., min(K, N))``: d log σ_i/du of the singular values of the centred logits, descending in σ: 1 for
    what grows with the margin, 0 for what has frozen; ``status``: "rests", "still turning" where u ran out,
    "precision exhausted", or how the flow before it ended short of the sharpness.
    """

    factors: list
    growth: torch.Tensor
    turning: torch.Tensor
    rates: torch.Tensor
    sharpness: float
    status: np.ndarray

    @property
    def Z(self):
        """Logits ``(..., K, N)``."""
        return chain(self.factors)


def limit(run, *, sharpness=SHARPNESS, until_growth=UNTIL_GROWTH):
    r"""Limit of the flow's direction: continuation at constant sharpness until each network rests.

    ``run``: a :class:`dufm.Trajectory`, or factors ``[W_1, …, W_L]``.  The flow itself is followed to
    log ℒ = −``sharpness`` with rtol 1e-3, so a start is better brought some way by ``gradient_flow``; from there
    on the field is :math:`F - \alpha W`, :math:`F = -\nabla\log\mathcal L`, with
    :math:`\alpha = \|F\|^2/\langle F, W\rangle` holding log ℒ.  Its zeros are the KKT points to O(1/sharpness).
    A network rests when the direction of its gaps turns by less than 1e-8 while the margin would have grown by a factor
    e; ``until_growth`` bounds u, the logarithm of that growth.  Nearly balanced factors are not needed: what is
    frozen falls behind like :math:`e^{-u/L}` and drops out of Z.

    Returns :class:`Limit`; that a network does not rest, or has not separated its classes, is its ``status``.
    ``DufmError``: bad factors, a sharpness below 100, more than 1500 pairs N(K − 1), until_growth not positive.
    """
    factors = run.factors if isinstance(run, Trajectory) else run
    num_classes, _, batch_shape = check_factors(factors)
    _check_continuation(sharpness, until_growth, (num_classes - 1) * factors[0].shape[-1])
    flow = gradient_flow(factors, until_log_loss=-sharpness, rtol=_RTOL, max_steps=_STEPS)
    model = FactorModel(factors)
    state, status = model.flatten(flow.factors), flow.status.reshape(-1).astype(object)
    rows = torch.from_numpy(status == "reached").nonzero().squeeze(-1).to(state.device)
    none = torch.full((len(state),), torch.nan, dtype=state.dtype, device=state.device)
    growth, turning = none, none.clone()
    rates = none[:, None].repeat(1, min(num_classes, factors[0].shape[-1]))
    if len(rows):
        rested = _rest(model, state[rows], sharpness, until_growth)
        state[rows], growth[rows], turning[rows] = rested.state, rested.growth, rested.turning
        rates[rows] = _rates(model, rested.state)
        status[rows.cpu().numpy()] = rested.status
    return Limit(
        [part.reshape(*batch_shape, *part.shape[-2:]) for part in model.split(state)],
        growth.reshape(batch_shape),
        turning.reshape(batch_shape),
        rates.reshape(*batch_shape, -1),
        float(sharpness),
        status.astype(str).reshape(batch_shape),
    )


def _check_continuation(sharpness, until_growth, pairs):
    check_finite_positive("sharpness", sharpness)
    check_finite_positive("until_growth", until_growth)
    if sharpness < _LEAST_SHARPNESS:
        raise DufmError(
            f"sharpness must be at least {_LEAST_SHARPNESS:g}: it blurs the solution by 1/sharpness; got {sharpness!r}"
        )
    if pairs > _MOST_PAIRS:
        raise DufmError(
            f"the limit solves dense systems of N(K − 1) pairs and takes at most {_MOST_PAIRS} of them, got {pairs}; "
            "gradient_flow takes more"
        )


def _rest(model, state, sharpness, until_growth):
    return rest(model, state, sharpness=sharpness, until_growth=until_growth, rtol=_RTOL, max_steps=_STEPS)


# Below this share of σ_1 a singular value is rounding noise and has no rate.
_NOISE = 1e-11


def _rates(model, state):
    """Rates d log σ_i/du of the centred logits of flat states, 0 where σ_i is noise."""
    slope = torch.empty_like(state)
    model.field(state, slope)
    factors, turns = model.split(state), model.split(slope)
    Z, moved = factors[0], turns[0]
    for factor, turn in zip(factors[1:], turns[1:], strict=True):
        moved = turn @ Z + factor @ moved
        Z = factor @ Z
    U, sigma, Vh = torch.linalg.svd(centred(Z), full_matrices=False)
    change = ((U.mT @ centred(moved)) * Vh).sum(-1)
    grown = change / sigma.clamp(min=1e-300) / (model.depth * growth_rate(state, slope)).unsqueeze(-1)
    return torch.where(sigma > _NOISE * sigma[..., :1], grown, 0.0)


# ---------------------------------------------------------------- the certified end


@dataclass(frozen=True)
class End:
    """The solution at which a run ends, one entry a network.

    ``Z`` ``(..., K, N)``: centred, of smallest margin 1, NaN where nothing near is certified; ``rank`` of it, 0 there;
    ``name`` by :func:`dufm.codes.name_of`, a NumPy array; ``margin_ratio``: its normalised margin over that of neural
    collapse; ``certificate``; ``moved``: ``‖Z − Ẑ‖_F/‖Ẑ‖_F``, Ẑ the run's own centred logits of smallest margin 1;
    ``beta`` ``(..., K − 1)``: :func:`dufm.off_range_values`; ``decided``; ``reason``: a sentence where it is not.
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


def end(run, depth):
    r"""The certified solution at which a run ends: the one rule of the package for rank and end.

    ``run``: a :class:`Limit`, or what :func:`limit` takes, which is then called; or logits ``(..., K, N)``, which are
    read as they are: a run in transit can pass a saddle of its stratum, and is then misread as ending there.

    1. The logits are centred, which changes no margin, and scaled to smallest margin 1.
    2. At every cut r = 2 … K − 1 (1 for K = 2) that drops at most a tenth of the norm they are polished and certified
       (:func:`dufm.polish`); the end is the nearest solution of those that certify, if it is at most a tenth away.
    3. A second sign, independent of the polish: of the singular values, those kept grow with the margin, those
       dropped have frozen (``rates`` of :class:`Limit`).  Where the two disagree the run is undecided.

    A run that does not rest, or has not separated its classes, is undecided and says why in ``reason``.
    Returns :class:`End`.  ``DufmError`` as :func:`limit` and :func:`dufm.polish`, and for a depth that is not the
    run's.
    """
    depth = check_count("depth", depth, 2)
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


def _collapse_margin(shape, depth):
    """Normalised margin of neural collapse for K classes and N samples."""
    simplex = centred(torch.eye(shape[0], dtype=torch.float64))
    return normalized_margin(simplex.repeat_interleave(shape[1] // shape[0], -1), depth)


def _reshaped(value, shape, device):
    """Rows of a tensor, an array or a certificate in the batch shape, tensors on ``device``."""
    if isinstance(value, Certificate):
        parts = {item.name: getattr(value, item.name) for item in fields(value)}
        return Certificate(**{k: v if k == "active_tol" else _reshaped(v, shape, device) for k, v in parts.items()})
    if isinstance(value, np.ndarray):
        return value.reshape((*shape, *value.shape[1:]))
    return value.reshape((*shape, *value.shape[1:])).to(device)


def _nearest(own, depth, wanted):
    """The nearest certified solution over all cuts of centred logits of margin 1, its rank, and how far it is."""
    num_classes = own.shape[-2]
    nearest = torch.full_like(own, torch.nan)
    rank = torch.zeros(len(own), dtype=torch.int64)
    moved = torch.full((len(own),), torch.inf, dtype=own.dtype)
    square = torch.linalg.svdvals(own).square()
    total = square.sum(-1)
    for kept in range(1 if num_classes == 2 else 2, num_classes):
        dropped = square[:, kept:].sum(-1)
        rows = (wanted & (dropped <= DECIDED_MOVE**2 * total) & (square[:, kept - 1] >= _DUST**2 * square[:, 0]))
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
    ``rank`` of Z, int64; ``moved``: ``‖ŝ − spectrum‖/‖spectrum‖``, ŝ the run's own spectrum at the same scale;
    ``decided``; ``reason``: a sentence where it is not, else "".
    """

    spectrum: torch.Tensor
    rank: torch.Tensor
    moved: torch.Tensor
    decided: torch.Tensor
    reason: np.ndarray


def spectral_limit(s, depth, group, *, sharpness=SHARPNESS, until_growth=UNTIL_GROWTH):
    r"""Limit of a spectral run: :func:`limit` for singular values ``s`` ``(..., F)``.

    Returns ``(s, rates, status)``: spectra at log ℒ = −``sharpness``, d log s_i/du, both ``(..., F)``, and a NumPy
    array of statuses.  ``DufmError`` as :func:`dufm.spectral_flow`, or for a sharpness below 100.
    """
    chi = check_spectrum(s, group, "s")
    depth = check_count("depth", depth, 2)
    _check_continuation(sharpness, until_growth, chi.num_classes - 1)
    flow = spectral_flow(s, depth, chi, until_log_loss=-sharpness, rtol=_RTOL, max_steps=_STEPS)
    model = SpectralModel(chi, depth, s)
    state, status = model.flatten(flow.s), flow.status.reshape(-1).astype(object)
    rows = torch.from_numpy(status == "reached").nonzero().squeeze(-1).to(state.device)
    rates = torch.full_like(state, torch.nan)
    if len(rows):
        rested = _rest(model, state[rows], sharpness, until_growth)
        slope = torch.empty_like(rested.state)
        model.field(rested.state, slope)
        alpha = growth_rate(rested.state, slope).unsqueeze(-1)
        state[rows], rates[rows] = rested.state, slope / rested.state / alpha
        status[rows.cpu().numpy()] = rested.status
    shape = s.shape[:-1]
    return model.spectrum(state).reshape(s.shape), rates.reshape(s.shape), status.astype(str).reshape(shape)


_TIGHT = 0.15
_CERTIFIED = 1e-8


def spectral_end(s, depth, group):
    r"""The vertex of ``{s ≥ 0, margins ≥ 1}`` at which a spectrum ``s`` ``(..., F)`` ends, by the rule of :func:`end`.

    The spectrum is followed to its limit (:func:`spectral_limit`).  Each cut to the r largest values, r = 1 … F, is
    rescaled to smallest margin 1 and polished: the margins within 15% of the smallest are set to 1 exactly.  What is
    then no vertex, or no KKT point of ``min Σ m_i s_i^{2/L}`` (residual 1e-8), is dropped; the nearest of the others is
    the end if it is at most 10% away and keeps just what still grows with the margin.
    ``DufmError`` as :func:`spectral_limit`.
    """
    chi = check_spectrum(s, group, "s")
    depth = check_count("depth", depth, 2)
    s, growing, status = spectral_limit(s, depth, chi)
    growing, status = growing.reshape(-1, chi.num_free) > 0.5, status.reshape(-1)
    flat = s.reshape(-1, chi.num_free)
    rates = chi.rates.to(flat)
    nearest = torch.full_like(flat, torch.nan)
    moved = flat.new_full(flat.shape[:1], torch.inf)
    place = flat.argsort(-1, descending=True).argsort(-1)
    bits = 2 ** torch.arange(chi.num_free + rates.shape[1], device=flat.device)
    for kept in range(1, chi.num_free + 1):
        support = place < kept
        margin = torch.where(support, flat, 0.0) @ rates
        smallest = margin.amin(-1, keepdim=True)
        tight = margin <= (1 + _TIGHT) * smallest
        keys, which = torch.unique((torch.cat([support, tight], -1) * bits).sum(-1), return_inverse=True)
        patterns = (keys.unsqueeze(-1) & bits).bool().cpu().numpy()
        points = [_vertex(row, rates.cpu().numpy(), chi.multiplicity.numpy(), depth) for row in patterns]
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


def _vertex(pattern, rates, multiplicity, depth):
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
