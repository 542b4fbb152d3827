r"""One step of the flow, explicit or linearly implicit, of a batch of states.

Every flow here is :math:`x' = F(x) = -\nabla\log\mathcal L`, followed from each start on its own clock.  A
:class:`Model` says what moves: the factors of a network, or its singular values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor

from dufm._clock import Clock
from dufm._linearised import Linearised
from dufm._methods import BS32, DP54, ROS34PW2, Pair
from dufm._scaling import norm

__all__ = [
    "Control",
    "Model",
    "Step",
    "control_of",
    "explicit_step",
    "implicit_step",
    "near_saddle",
    "spread",
]


class Model:
    """What is followed: states are rows ``(batch, n)`` of a floating tensor.

    ``name`` of the argument that is the start; ``depth`` L, the gaps D being homogeneous of that degree; ``price``: the
    cost of an implicit step in explicit ones.
    The pairs of ``field``, ``gaps`` and ``gap_rate`` may be more than those of ``linearise``, which are the ``live``
    ones; the others weigh 0.
    """

    name = "factors"
    depth: int
    price: float
    live: slice | Tensor = slice(None)

    def field(self, x: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Write −∇ log ℒ into ``out``; log ℒ ``(batch,)`` and the pair weights λ ``(batch, M)``."""
        raise NotImplementedError

    def rounding(self, log_loss: Tensor) -> Tensor:
        """What a log ℒ of this size may be off by rounding alone."""
        return 64 * torch.finfo(log_loss.dtype).eps * log_loss.abs().clamp(min=1.0)

    def gaps(self, x: Tensor) -> Tensor:
        """D ``(batch, M)``."""
        raise NotImplementedError

    def gap_rate(self, x: Tensor, change: Tensor) -> Tensor:
        """J v ``(batch, M)`` of a change v."""
        raise NotImplementedError

    def linearise(self, x: Tensor) -> Linearised:
        """The first term of the field's derivative."""
        raise NotImplementedError

    def saddle_rank(self, x: Tensor, slope: Tensor) -> Tensor:
        """Rank of a network that no longer moves, −1 for one that does, int64 ``(batch,)``."""
        raise NotImplementedError


# Loose runs are limited by stability, tight ones by accuracy: per evaluation 3(2) reaches 1.5 times further
# on the negative real axis, where the Hessian of a gradient flow has its stiff part.
_TIGHT = 2e-6

# A relative error of 1e-4 in the state is several units of margin at −log ℒ = 10⁴ and throws a run off its slow
# manifold for ever: the error's spread over the nearly active margins is bounded as well, absolutely.
SPREAD, _SPREAD_PER_RTOL, _NEAR = 0.1, 100.0, 6.0

_SADDLE = 1e3
# Newton steps that hold the margins of a stage near a saddle, where logits are 10⁵ and more and margins of order one.
_HELD = 2


def near_saddle(stiffness: Tensor, log_loss: Tensor) -> Tensor:
    """Where the stiffness, in units of growth, is far beyond the 3.5 |log ℒ| that margins make it."""
    return stiffness > _SADDLE * log_loss.abs().clamp(min=1.0)


def spread(rate: Tensor, weights: Tensor, new_weights: Tensor) -> Tensor:
    """Spread of the changes ``rate`` of the gaps ``(batch, M)`` over the pairs that are nearly active at either end.

    The weighted mean is taken out: a common growth of all margins is no error of the path.  Pairs count fully up to a
    margin of 6 above the least, then by the factor e a unit less, since λ falls so.  Both ends count, for a margin
    may join the active ones within the step.
    """
    active = torch.maximum(*(w / w.amax(-1, keepdim=True) for w in (weights, new_weights)))
    mean = (rate * active).sum(-1, keepdim=True) / active.sum(-1, keepdim=True)
    return ((rate - mean).abs() * (active * math.exp(_NEAR)).clamp(max=1.0)).amax(-1)


@dataclass
class Control:
    """Tolerances, the explicit pair they ask for, and memory that the stages share."""

    rtol: float
    pair: Pair
    memory: dict[str, Tensor]

    @property
    def share(self) -> float:
        """Share of its state's norm by which a typical implicit step moves it."""
        return 2 * self.rtol ** (1 / 3)

    def scratch(self, name: str, shape: Sequence[int], like: Tensor) -> Tensor:
        """Memory of a name, as large as asked for: large arrays cost more to allocate than to fill."""
        size = math.prod(shape)
        if name not in self.memory or self.memory[name].numel() < size:
            self.memory[name] = like.new_empty(size)
        return self.memory[name][:size].view(shape)

    def error(self, error: Tensor, new: Tensor, spread: Tensor) -> Tensor:
        """Size of an error over what is allowed; inf where it is not finite."""
        allowed = min(SPREAD, _SPREAD_PER_RTOL * self.rtol)
        ratio = torch.maximum(norm(error) / (self.rtol * norm(new)), spread / allowed)
        return torch.where(ratio.isfinite(), ratio, torch.inf)


def control_of(rtol: float) -> Control:
    """A :class:`Control` with the pair of this accuracy."""
    return Control(rtol, BS32 if rtol >= _TIGHT else DP54, {})


# ---------------------------------------------------------------- the steps


@dataclass
class Step:
    """One step of some rows: where it ends, its error over the tolerance, the stiffness it felt, knots of the path.

    State and slope lie in memory that the next step overwrites; indexing copies them.
    """

    state: torch.Tensor
    log_loss: torch.Tensor
    slope: torch.Tensor
    speed: torch.Tensor
    error: torch.Tensor
    edge: torch.Tensor
    knots: list[tuple[Tensor, ...]]

    def __getitem__(self, rows: Tensor) -> Step:
        values = {item.name: getattr(self, item.name)[rows] for item in fields(self)[:-1]}
        return Step(**values, knots=[tuple(value[rows] for value in knot) for knot in self.knots])

    @cached_property
    def clocks(self) -> list[Clock]:
        """Clocks between the knots, which are log ℒ, speed and τ."""
        return [Clock(a[0], b[0], a[1], b[1], b[2] - a[2]) for a, b in zip(self.knots, self.knots[1:], strict=False)]

    def log_time(self, log_time: Tensor) -> Tensor:
        """Log t at the end, from log t at the start."""
        for clock in self.clocks:
            log_time = clock.log_time(log_time)
        return log_time

    @property
    def length(self) -> Tensor:
        """Length h."""
        return self.knots[-1][2]

    def part(self, kind: str, goal: Tensor, log_time: Tensor) -> Tensor:
        """Length up to where log ℒ falls, or log t rises, to ``goal``, by the clocks: a first guess."""
        length = torch.zeros_like(goal)
        for clock in self.clocks:
            if kind == "log_loss":
                length += clock.length(goal)
            else:
                length += clock.length_at(goal, log_time)
                log_time = clock.log_time(log_time)
        return length


def _mixed(slopes: Tensor, weights: Tensor, out: Tensor) -> Tensor:
    """``Σ weights·slopes`` over the leading dimension, into ``out``."""
    torch.mv(slopes[: len(weights)].flatten(1).mT, weights, out=out.view(-1))
    return out


def explicit_step(
    model: Model, control: Control, state: Tensor, log_loss: Tensor, slope: Tensor, speed: Tensor, h: Tensor
) -> Step:
    pair, column = control.pair, h.unsqueeze(-1)
    rows = [row.to(state) for row in pair.rows]
    slopes = control.scratch("slopes", (len(rows) + 1, *state.shape), state)
    mixed, new = control.scratch("mixed", state.shape, state), control.scratch("new", state.shape, state)
    slopes[0] = slope
    for stage, row in enumerate(rows, start=1):
        torch.addcmul(state, _mixed(slopes, row, mixed), column, out=new)
        new_log_loss, weights = model.field(new, slopes[stage])
    new_speed = norm(slopes[-1])
    # Lipschitz constant between the last two stages: near the stability limit the stiffest direction fills both.
    apart = rows[-1].clone()
    apart[: len(rows[-2])] -= rows[-2]
    edge = 1 / (h * norm(_mixed(slopes, apart, mixed))).clamp(min=1e-300)
    edge = norm(torch.sub(slopes[-1], slopes[-2], out=mixed)) * edge
    error = _mixed(slopes, pair.error.to(state), mixed).mul_(column)
    error = control.error(error, new, spread(model.gap_rate(new, error), weights, weights))
    knots: list[tuple[Tensor, ...]] = [(log_loss, speed, torch.zeros_like(h)), (new_log_loss, new_speed, h)]
    if pair.middle is not None:
        centre = torch.addcmul(state, _mixed(slopes, pair.middle.to(state), mixed), column)
        middle, _ = model.field(centre, slopes[0])
        knots.insert(1, (middle, norm(slopes[0]), h / 2))
    return Step(new, new_log_loss, slopes[-1], new_speed, error, edge, knots)


def implicit_step(
    model: Model, control: Control, state: Tensor, log_loss: Tensor, slope: Tensor, speed: Tensor, h: Tensor
) -> Step:
    method, column = ROS34PW2, h.unsqueeze(-1)
    scale = method.gamma * column
    at = model.linearise(state)
    rows = near_saddle(at.edge * norm(state) / speed, log_loss).nonzero().squeeze(-1)
    saddles = at.saddles(scale, rows)
    damp, found = at.inverse(scale, saddles)
    moves = control.scratch("moves", (4, *state.shape), state)
    new, field, mixed = (control.scratch(name, state.shape, state) for name in ("new", "field", "mixed"))
    stages, couple = method.stage.to(state), method.couple.to(state)
    gaps = model.gaps(state)[:, model.live] if saddles is not None else None
    rates: list[Tensor] = []

    def reach(weights: Tensor) -> None:
        """The state plus its moves; near a saddle one whose gaps change as the moves say to first order."""
        torch.add(_mixed(moves, weights, new), state, out=new)
        if saddles is not None:
            planned = gaps + sum(weight * rate for weight, rate in zip(weights, rates, strict=True))
            for _ in range(_HELD):
                new.sub_(at.pulled(saddles, saddles.held, model.gaps(new)[:, model.live] - planned, field))

    for stage, move in enumerate(moves):
        if stage:
            reach(stages[stage, :stage])
            model.field(new, field)
            torch.addcmul(_mixed(moves, couple[stage, :stage], move), field, scale, out=move)
        else:
            torch.mul(slope, scale, out=move)
        rates.append(damp(move, field))
    reach(method.end.to(state))
    if saddles is not None:
        model.field(new, field)
        new.add_(at.pulled(saddles, saddles.settled, at.push(torch.mul(field, scale, out=mixed)), field))
    error_weights = method.error.to(state)
    error = _mixed(moves, error_weights, mixed)
    new_slope = field
    new_log_loss, new_weights = model.field(new, new_slope)
    new_speed = norm(new_slope)
    rate = sum(weight * rate for weight, rate in zip(error_weights, rates, strict=True))
    apart = spread(rate, at.weights, new_weights[:, model.live])
    error = torch.where(found, control.error(error, new, apart), torch.inf)
    knots: list[tuple[Tensor, ...]] = [(log_loss, speed, torch.zeros_like(h)), (new_log_loss, new_speed, h)]
    return Step(new, new_log_loss, new_slope, new_speed, error, at.edge, knots)
