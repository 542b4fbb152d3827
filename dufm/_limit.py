r"""The limit of the flow's direction, of factors and of spectra: continuation at constant sharpness."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_factors
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._resting import Rest, growth_rate, rest
from dufm._steps import Model
from dufm.flow import Trajectory, gradient_flow
from dufm.groups import Group, check_spectrum
from dufm.metrics import centred
from dufm.model import chain
from dufm.spectral import SpectralModel, spectral_flow

__all__ = ["Limit", "limit", "spectral_limit"]

SHARPNESS, UNTIL_GROWTH = 1e4, 300.0
_RTOL, _STEPS = 1e-3, 5000
_LEAST_SHARPNESS = 100.0
# Pairs N(K − 1) beyond which the dense solve of a step is refused: a step of one network would take seconds.
_MOST_PAIRS = 1500


@dataclass(frozen=True)
class Limit:
    """The flow continued at constant sharpness, one entry a network.

    ``factors`` ``[W_1, …, W_L]`` at log ℒ = ``−sharpness``; ``growth`` u, by how much the logarithm of the margin has
    grown since the flow was there; ``turning``: change of the direction of all gaps, scaled to norm 1, a unit of u, inf
    where u ran out before one;
    ``rates`` ``(..., min(K, N))``: d log σ_i/du of the singular values of the centred logits, descending in σ: 1 for
    what grows with the margin, 0 for what has frozen; ``status``: "rests", "still turning" where u ran out,
    "precision exhausted", or how the flow before it ended short of the sharpness; then the numbers are NaN.

    Units: u is a logarithm, the others have none.  Source: this companion, notebook 21.

    >>> found = dufm.limit(dufm.gaussian_init(3, 4, 4, seed=0))
    >>> found.status.item(), (found.rates > 0.5).sum().item(), found.Z.shape
    ('rests', 2, torch.Size([1, 4, 4]))
    """

    factors: list[Tensor]
    growth: torch.Tensor
    turning: torch.Tensor
    rates: torch.Tensor
    sharpness: float
    status: np.ndarray

    @property
    def Z(self) -> Tensor:
        """Logits ``(..., K, N)``."""
        return chain(self.factors)


def limit(
    run: Trajectory | Sequence[Tensor], *, sharpness: float = SHARPNESS, until_growth: float = UNTIL_GROWTH
) -> Limit:
    r"""Limit of the flow's direction: continuation at constant sharpness until each network rests.

    ``run``: a :class:`dufm.Trajectory`, or factors ``[W_1, …, W_L]``.  The flow itself is followed to log ℒ =
    ``−sharpness`` with rtol 1e-3, so a start is better brought some way by ``gradient_flow``; from there on the field
    is :math:`F - \alpha W`, :math:`F = -\nabla\log\mathcal L`, with :math:`\alpha = \|F\|^2/\langle F, W\rangle`
    holding log ℒ.  Its zeros are the KKT points to O(1/sharpness).  A network rests when the direction of its gaps
    turns by less than 1e-8 while the margin would have grown by a factor e; ``until_growth`` bounds u, the logarithm of
    that growth.  Nearly balanced factors are not needed: what is frozen falls behind like :math:`e^{-u/L}` and drops
    out of Z.

    Returns :class:`Limit`, in double precision whatever that of the run; that a network does not rest, or has not
    separated its classes, is its ``status``.

    Shapes of factors ``(..., d_l, d_{l-1})``.  Units: u is a logarithm.  Raises: ``DufmError`` for bad factors, a
    sharpness below 100, more than 1500 pairs N(K − 1), an until_growth that is not positive.  Source: this companion,
    notebook 21; Lyu & Li (2020) for the KKT points.

    >>> found = dufm.limit([torch.eye(3).double()] * 3)
    >>> found.rates.abs().round(decimals=4), found.turning.item() < 1e-8
    (tensor([1., 1., 0.], dtype=torch.float64), True)
    """
    factors = run.factors if isinstance(run, Trajectory) else run
    num_classes, _, batch_shape = check_factors(factors)
    factors = [W.double() for W in factors]
    _check_continuation(sharpness, (num_classes - 1) * factors[0].shape[-1])
    flow = gradient_flow(factors, until_log_loss=-sharpness, rtol=_RTOL, max_steps=_STEPS)
    model = FactorModel(factors)
    return continued(model, model.flatten(flow.factors), flow.status.reshape(-1), batch_shape, sharpness, until_growth)


def continued(
    model: FactorModel,
    state: Tensor,
    status: np.ndarray,
    batch_shape: tuple[int, ...] = (-1,),
    sharpness: float = SHARPNESS,
    until_growth: float = UNTIL_GROWTH,
) -> Limit:
    """:class:`Limit` of flat states of a ``FactorModel``, at log ℒ = ``−sharpness`` where ``status`` is "reached"."""
    status = status.reshape(-1).astype(object)
    rows = torch.from_numpy(status == "reached").nonzero().squeeze(-1).to(state.device)
    none = torch.full((len(state),), torch.nan, dtype=state.dtype, device=state.device)
    growth, turning = none, none.clone()
    rates = none[:, None].repeat(1, min(model.shapes[-1][0], model.shapes[0][1]))
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


def spectral_limit(
    s: Tensor, depth: int, group: Group, *, sharpness: float = SHARPNESS, until_growth: float = UNTIL_GROWTH
) -> tuple[Tensor, Tensor, np.ndarray]:
    r"""Limit of a spectral run: :func:`limit` for singular values ``s`` ``(..., F)``.

    Returns ``(s, rates, status)``: spectra at log ℒ = ``−sharpness``, d log s_i/du, both ``(..., F)``, and a NumPy
    array of statuses.  Rates are NaN where the flow ended short of the sharpness, as its status says.

    Units: u is a logarithm.  Raises: ``DufmError`` as :func:`dufm.spectral_flow`, or for a sharpness below 100.
    Source: this companion, notebook 42.

    >>> s, rates, status = dufm.spectral_limit(torch.tensor([0.1, 0.1, 0.01]).double(), 4, "hadamard")
    >>> status.item(), (rates > 0.5).tolist()
    ('rests', [True, True, False])
    """
    chi = check_spectrum(s, group, "s")
    _check_continuation(sharpness, chi.num_classes - 1)
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


def _check_continuation(sharpness: float, pairs: int) -> None:
    if sharpness < _LEAST_SHARPNESS:
        raise DufmError(
            f"sharpness must be at least {_LEAST_SHARPNESS:g}: it blurs the solution by 1/sharpness; got {sharpness!r}"
        )
    if pairs > _MOST_PAIRS:
        raise DufmError(
            f"the limit solves dense systems of N(K − 1) pairs and takes at most {_MOST_PAIRS} of them, got {pairs}; "
            "gradient_flow takes more"
        )


def _rest(model: Model, state: Tensor, sharpness: float, until_growth: float) -> Rest:
    return rest(model, state, sharpness=sharpness, until_growth=until_growth, rtol=_RTOL, max_steps=_STEPS)


# Below this share of σ_1 a singular value is rounding noise and has no rate.
_NOISE = 1e-11


def _rates(model: FactorModel, state: Tensor) -> Tensor:
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


guard(globals())
