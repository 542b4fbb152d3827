"""The flow held at constant loss until its direction rests."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dufm._linearised import Linearised
from dufm._scaling import norm
from dufm._stepping import EXHAUSTED, LAST, REACHED, RUNNING, begin, slope_at
from dufm._steps import SPREAD, Model, control_of

__all__ = ["RESTS", "Rest", "Steady", "growth_rate", "rest"]

_RESTING = 1e-8
# Longest step in units of 1/α: what is not stiff is stepped explicitly, with eigenvalues of a few α.
_LONGEST = 0.3
_DRIFT = 0.03
RESTS, TURNS, LOST = "rests", "still turning", "precision exhausted"


@dataclass(frozen=True)
class Rest:
    """End of :func:`rest`: states at the given sharpness, growth u, change of the direction a unit of u, statuses."""

    state: torch.Tensor
    growth: torch.Tensor
    turning: torch.Tensor
    status: np.ndarray


def growth_rate(x: Tensor, slope: Tensor) -> Tensor:
    """Rate α = ‖F‖²/⟨F, x⟩ at which x would have to shrink to keep log ℒ; log margins grow at L times it."""
    return (slope * slope).sum(-1) / (slope * x).sum(-1)


class Steady(Model):
    """A model held at constant log ℒ: the field less αx, α = ‖F‖²/⟨F, x⟩; its zeros are where the direction rests.

    ``rate``: α at the states of the next step, which who takes it knows already.
    """

    rate: torch.Tensor

    def __init__(self, model: Model) -> None:
        self.model, self.live = model, model.live

    def field(self, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Write F − αx into ``out``; log ℒ and λ."""
        log_loss, weights = self.model.field(x, out)
        out.addcmul_(x, growth_rate(x, out).unsqueeze(-1), value=-1)
        return log_loss, weights

    def linearise(self, x: Tensor) -> Linearised:
        """The first term of F', and −α."""
        return replace(self.model.linearise(x), curvature=None, damping=self.rate)


@torch.inference_mode()
def rest(model: Model, state: Tensor, *, sharpness: float, until_growth: float, rtol: float, max_steps: int) -> Rest:
    """Continue ``model`` at constant log ℒ = ``−sharpness`` until the direction of its gaps rests.

    A row rests when its gaps, scaled to norm 1, turn by less than 1e-8 while the logarithm u of the margin that
    the flow would have reached grows by 1.
    """
    control = control_of(rtol)
    steady = Steady(model)
    batch = begin(steady, _at_sharpness(model, state, slope_at(model, state)[0], sharpness), control)
    batch.implicit[:] = True
    rate = growth_rate(batch.state, slope_at(model, batch.state)[1])
    batch.h = control.share / 2 / rate
    growth = torch.zeros_like(batch.log_loss)
    turning = torch.full_like(growth, torch.inf)
    anchor, begun = _direction(model, batch.state), growth.clone()
    for _ in range(max_steps):
        rows = (batch.code == RUNNING).nonzero().squeeze(-1)
        if not len(rows):
            break
        steady.rate = rate[rows]
        step = batch.step(steady, control, rows)
        # Where margins join the active ones a step can fail whole and both its orders agree: log ℒ, which the field
        # keeps, then rises by a share of what the flow would have gained.
        gained = model.depth * rate[rows] * batch.h[rows] * sharpness
        accepted = (step.error <= 1) & (step.log_loss + sharpness <= SPREAD + _DRIFT * gained)
        lost = ~accepted & (batch.h[rows] * rate[rows] <= 4 * torch.finfo(rate.dtype).eps)
        batch.code[rows[lost]] = EXHAUSTED
        h = batch.h[rows]
        batch.h[rows] = h * batch.factor(rows, step.error, accepted, 3)
        rows, h = rows[accepted], h[accepted]
        if not len(rows):
            continue
        there = _at_sharpness(model, step.state[accepted], step.log_loss[accepted], sharpness)
        growth[rows] += model.depth * rate[rows] * h
        log_loss, slope = slope_at(model, there)
        rate[rows] = growth_rate(there, slope)
        slope.addcmul_(there, rate[rows].unsqueeze(-1), value=-1)
        batch.put(rows, state=there, log_loss=log_loss, slope=slope, speed=norm(slope))
        batch.h[rows] = torch.minimum(batch.h[rows], _LONGEST / rate[rows])
        rows = rows[growth[rows] - begun[rows] >= 1]
        now = _direction(model, batch.state[rows])
        turning[rows] = norm(now - anchor[rows]) / (growth[rows] - begun[rows])
        anchor[rows], begun[rows] = now, growth[rows]
        batch.code[rows[turning[rows] < _RESTING]] = REACHED
        batch.code[(batch.code == RUNNING) & (growth >= until_growth)] = LAST
    names = {REACHED: RESTS, EXHAUSTED: LOST}
    status = np.array([names.get(code, TURNS) for code in batch.code.tolist()])
    with torch.inference_mode(False):
        return Rest(batch.state.clone(), growth.clone(), turning.clone(), status)


def _at_sharpness(model: Model, state: Tensor, log_loss: Tensor, sharpness: float) -> Tensor:
    """States, of these log ℒ, scaled to log ℒ = −sharpness, to a relative error of 1/sharpness².

    Log ℒ is all but homogeneous.
    """
    state = state * (-sharpness / log_loss).pow(1 / model.depth).unsqueeze(-1)
    log_loss, _ = model.field(state, torch.empty_like(state))
    return state * (-sharpness / log_loss).pow(1 / model.depth).unsqueeze(-1)


def _direction(model: Model, state: Tensor) -> Tensor:
    gaps = model.gaps(state)
    return gaps / norm(gaps).unsqueeze(-1)
