"""Step control of a batch, and the flow to a loss: with :mod:`dufm._resting` the only integrator of the flows.

Explicit steps are cheaper than implicit ones, and held back by stability.  **The rule**: a network is stepped
explicitly as long as its explicit steps, grown to what their error allows, move it by more than 1/price of what a
typical implicit step would, ``2·rtol^{1/3}`` of its norm; ``price`` is the model's cost of an implicit step in explicit
ones, and beyond a price of 200 no network is stepped implicitly.  It goes back where an implicit step is shorter than
the explicit ones that could be had at its price, and then waits until the stiffness has changed by a tenth.  Near a
saddle it does not wait, nor for an accepted step: explicit ones creep on there by 1e-6 of the norm.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_each, check_number, short
from dufm._error import DufmError
from dufm._scaling import check_in_range, norm
from dufm._steps import Control, Model, Step, control_of, explicit_step, implicit_step, near_saddle

__all__ = ["Batch", "Record", "Run", "begin", "follow", "following", "recorded", "returned", "slope_at"]

# Levels of log ℒ or of log t at which states are kept.
Record = Mapping[str, Sequence[float] | Tensor] | None
Ended = TypeVar("Ended")
Kept = TypeVar("Kept")

_SAFETY, _SHRINK, _GROW = 0.95, 0.1, 5.0
_RISEN = 0.5  # of a step refused because the loss rose: a small error does not tell by how much it was too long
_PROPORTIONAL, _INTEGRAL = 0.7, 0.4  # control (Gustafsson 1991) that halves the rejections at the edge of stability
_STALL_EVERY = 16
# Share of the allowed error from which an explicit step counts as grown; and the price beyond which none is implicit.
_HELD, _DEAREST = 0.1, 200.0
_CHANGED = 0.1  # of the stiffness, before implicit steps are tried again
# Of a level: how near a step ends to it, and what is rounding if the next trial does not halve it.
_LANDED, _ROUNDED = 1e-11, 1e-5
_MISSES = 16  # times that a network may go on from where its last step does not end at the target


@dataclass
class Batch:
    """The networks of a run, a row each."""

    state: torch.Tensor
    log_loss: torch.Tensor
    slope: torch.Tensor
    speed: torch.Tensor
    log_time: torch.Tensor
    h: torch.Tensor
    last_error: torch.Tensor
    steps: torch.Tensor
    level: torch.Tensor
    code: torch.Tensor
    implicit: torch.Tensor
    reach: torch.Tensor
    tried: torch.Tensor

    def put(self, rows: Tensor, **values: Any) -> None:
        """Write values into rows."""
        for name, value in values.items():
            getattr(self, name)[rows] = value

    def step(self, model: Model, control: Control, rows: Tensor, h: Tensor | None = None) -> Step:
        """One step of ``rows``, which must be of one kind, of the lengths ``h`` (default: their own)."""
        method = implicit_step if bool(self.implicit[rows[0]]) else explicit_step
        h = self.h[rows] if h is None else h
        state, slope = self.state, self.slope
        if len(rows) < len(state):
            shape = len(rows), state.shape[1]
            state = torch.index_select(state, 0, rows, out=control.scratch("rows", shape, state))
            slope = torch.index_select(slope, 0, rows, out=control.scratch("slopes of rows", shape, slope))
        return method(model, control, state, self.log_loss[rows], slope, self.speed[rows], h)

    def kinds(self, mask: Tensor) -> list[Tensor]:
        """Rows of ``mask`` that step explicitly, and those that step implicitly; empty ones left out."""
        split = (mask & ~self.implicit, mask & self.implicit)
        return [rows for rows in (part.nonzero().squeeze(-1) for part in split) if len(rows)]

    def factor(self, rows: Tensor, error: Tensor, accepted: Tensor, order: float | Tensor) -> Tensor:
        """What the step lengths change by, proportional-integral control; keeps the error for the next time."""
        error = error.clamp(min=1e-8)
        grown = _SAFETY * error ** (-_PROPORTIONAL / order) * self.last_error[rows] ** (_INTEGRAL / order)
        retry = torch.where(error > 1, (_SAFETY * error ** (-1 / order)).clamp(_SHRINK, 0.9), _RISEN)
        self.last_error[rows] = torch.where(accepted, error.clamp(min=1e-4), self.last_error[rows])
        return torch.where(accepted, grown.clamp(0.2, _GROW), retry)

    def adapt(
        self, rows: Tensor, error: Tensor, edge: Tensor, accepted: Tensor, model: Model, control: Control
    ) -> None:
        """Next step lengths, and the next kind of step by the rule of the module."""
        implicit = self.implicit[rows]
        order = torch.where(implicit, 3.0, control.pair.order + 1.0).to(error)
        factor = self.factor(rows, error, accepted, order)
        reach = self.h[rows] * edge
        growth = self.speed[rows] / norm(self.state[rows])
        stiffness = edge / growth
        # An explicit step that is as long as its error lets it be, and short beside an implicit one at its price.
        saddle = near_saddle(stiffness, self.log_loss[rows])
        held = ~implicit & (error > _HELD) & (model.price <= _DEAREST)
        changed = (stiffness / self.tried[rows] - 1).abs() > _CHANGED
        to_implicit = held & (self.h[rows] * growth * model.price < control.share) & (saddle | (accepted & changed))
        # Judged by the next step: the first implicit one is still as short as the last explicit one.
        to_explicit = implicit & accepted & (reach * factor < model.price * self.reach[rows])
        h = self.h[rows] * factor
        h = torch.where(to_implicit, torch.maximum(h, control.share / 2 / growth), h)
        self.put(
            rows,
            h=torch.where(to_explicit & (reach > self.reach[rows]), h * self.reach[rows] / reach, h),
            reach=torch.where(to_implicit, reach, self.reach[rows]),
            tried=torch.where(to_explicit, stiffness, self.tried[rows]),
            implicit=(implicit | to_implicit) & ~to_explicit,
        )


def slope_at(model: Model, state: Tensor) -> tuple[Tensor, Tensor]:
    """Log ℒ and −∇ log ℒ at the states."""
    slope = torch.empty_like(state)
    return model.field(state, slope)[0], slope


def begin(model: Model, state: Tensor, control: Control) -> Batch:
    """A batch at its start."""
    log_loss, slope = slope_at(model, state)
    speed = norm(slope)
    none = torch.zeros_like(log_loss)
    return Batch(
        state=state.clone(),
        log_loss=log_loss,
        slope=slope,
        speed=speed,
        log_time=torch.full_like(log_loss, -torch.inf),
        h=control.share / 2 * norm(state) / torch.where(speed > 0, speed, 1.0),
        last_error=torch.ones_like(log_loss),
        steps=none.long(),
        level=none.long(),
        code=none.long(),
        implicit=none.bool(),
        reach=none.clone(),
        tried=none.clone(),
    )


def exhausted(batch: Batch, rows: Tensor, accepted: Tensor) -> Tensor:
    """Rows whose refused step is below the last digits of their state."""
    moved = batch.h[rows] * batch.speed[rows]
    return ~accepted & (moved <= 4 * torch.finfo(moved.dtype).eps * norm(batch.state[rows]))


RUNNING, LAST, REACHED, EXHAUSTED, SADDLE = 0, 1, 2, 3, 4
_NEVER = {"log_loss": -math.inf, "log_time": math.inf}


@dataclass(frozen=True)
class Run:
    """End of :func:`follow`, a row a start; ``kept``: states, log ℒ, log t at the recorded levels, none without."""

    state: torch.Tensor
    log_loss: torch.Tensor
    log_time: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor
    kept: tuple[Tensor, ...]

    def in_shape(
        self,
        batch_shape: tuple[int, ...],
        states: Callable[[Tensor, tuple[int, ...]], Any],
        whole: Callable[..., Ended],
        history: Callable[..., Any],
    ) -> Ended:
        """The run as ``whole(…, history(…))``, rows in ``batch_shape``; ``states(flat, shape)`` reads flat states."""

        def values(flat: Tensor) -> Tensor:
            return flat.reshape((*flat.shape[:-1], *batch_shape))

        def read(state: Tensor, *of_rows: Tensor) -> tuple[Any, ...]:
            return states(state, (*state.shape[:-2], *batch_shape)), *map(values, of_rows)

        kept = history(*read(*self.kept)) if self.kept else None
        state, log_loss, log_time, steps = read(self.state, self.log_loss, self.log_time, self.steps)
        return whole(state, log_loss, log_time, self.status.reshape(batch_shape), steps, kept)


def follow(model: Model, state: Tensor, **control: Any) -> Run:
    """:func:`following` to its end."""
    return returned(following(model, state, **control))


@torch.inference_mode()
def following(
    model: Model, state: Tensor, *, until_log_loss: float, rtol: float, max_steps: int, record: Record
) -> Generator[Tensor, None, Run]:
    """Follow ``model`` from ``state`` ``(batch, n)`` to a target of log ℒ; the others as in ``gradient_flow``.

    A generator that yields log ℒ every 16 steps, and can be left there.  Inference mode saves small networks a fifth.
    """
    control = control_of(rtol)
    kind, levels = _levels(record, until_log_loss, state) if record is not None else (None, state.new_empty(0))
    batch = begin(model, state, control)
    check_in_range(f"{model.name}: the loss of the start, or its slope,", batch.log_loss, batch.speed)
    batch.code[batch.log_loss <= until_log_loss + model.rounding(batch.log_loss)] = REACHED
    if kind == "log_loss":
        # A level that the start has passed already is not on the path.
        batch.level = (levels > batch.log_loss.unsqueeze(-1)).sum(-1)
    misses, exact = torch.zeros_like(batch.steps), max(_LANDED, 8 * torch.finfo(state.dtype).eps)
    kept: tuple[Tensor, ...] = ()
    if kind is not None:
        shape = (len(levels), len(state))
        kept = tuple(state.new_full(size, torch.nan) for size in ((*shape, state.shape[1]), shape, shape))

    def land(rows: Tensor, kind: str, goal: Tensor, length: Tensor, longest: Tensor) -> tuple[Step, Tensor]:
        """Steps of ``rows`` ending where log ℒ or log t equals ``goal``, and log t there; ``length`` a first guess.

        Newton's method, safeguarded by halving: steps as long as ``longest`` pass the goal.  The end of a step does not
        move with its length as fast as the path does there: by how much it did between the last two trials counts.
        """
        log_time, low, high, before = batch.log_time[rows], torch.zeros_like(length), longest, None
        while True:
            step = batch.step(model, control, rows, length)
            if kind == "log_loss":
                miss, rate = goal - step.log_loss, step.speed * step.speed
            else:
                reached = step.log_time(log_time)
                miss, rate = reached - goal, torch.exp(-step.log_loss - reached)
            low, high = torch.where(miss < 0, length, low), torch.where(miss < 0, high, length)
            closer, middle = length - miss / rate, (low + high) / 2
            away = miss.abs() > exact * goal.abs().clamp(min=1.0)
            if before is not None:
                last, last_miss, last_rate = before
                halved = miss.abs() < 0.5 * last_miss.abs()
                bias = (miss - last_miss) / (length - last) * 2 / (rate + last_rate)
                closer = torch.where(halved, length - miss / (rate * bias), middle)
                away &= halved | (miss.abs() > _ROUNDED)
            before = length, miss, rate
            for instead in (middle, high):  # where rounding hides the goal the shortest step that passes it counts
                closer = torch.where((closer > low) & (closer < high), closer, instead)
            away &= closer != length
            if not away.any():
                return step, step.log_time(log_time)
            length = torch.where(away, closer, length)

    def keep(rows: Tensor, step: Step, reached: Tensor, final: bool = False) -> None:
        """Store the states at the levels that the steps of ``rows`` pass."""
        while kind is not None:
            goal = torch.cat([levels, levels.new_full((1,), _NEVER[kind])])[batch.level[rows]]
            value = step.log_loss if kind == "log_loss" else reached
            slack = 1e-9 * goal.abs().clamp(max=torch.finfo(goal.dtype).max) + 1e-12
            passed = value <= goal + slack if kind == "log_loss" else value >= goal - slack
            if final and kind == "log_loss":
                passed |= goal >= until_log_loss
            passed &= batch.level[rows] < len(levels)
            if not passed.any():
                return
            rows, step, reached = rows[passed], step[passed], reached[passed]
            where = batch.level[rows], rows
            length = step.part(kind, goal[passed], batch.log_time[rows])
            landed, landed_log_time = land(rows, kind, goal[passed], length, step.length)
            for store, value in zip(kept, (landed.state, landed.log_loss, landed_log_time), strict=True):
                store[where] = value
            batch.level[rows] += 1

    def end() -> Tensor:
        """Take the last steps to the target; which networks go on.

        Far out the end of a step is no smooth function of its length, for its stages meet other pairs: where no length
        ends at the target, up to the rounding of a state, a network goes on by half that step.
        """
        for rows in batch.kinds(batch.code == LAST):
            goal = torch.full_like(batch.h[rows], until_log_loss)
            length = batch.step(model, control, rows).part("log_loss", goal, batch.log_time[rows])
            step, reached = land(rows, "log_loss", goal, length, batch.h[rows])
            grain = model.rounding(goal) + torch.finfo(goal.dtype).eps * step.speed * norm(step.state)
            met = (step.log_loss - goal).abs() <= torch.maximum(exact * goal.abs().clamp(min=1.0), grain)
            missed, rows, step, reached = rows[~met], rows[met], step[met], reached[met]
            misses[missed] += 1
            again = torch.where(misses[missed] <= _MISSES, RUNNING, EXHAUSTED)
            batch.put(missed, code=again, h=batch.h[missed] / 2, steps=batch.steps[missed] - 1)
            keep(rows, step, reached, final=True)
            batch.put(rows, state=step.state, log_loss=step.log_loss, log_time=reached, code=REACHED)
        return batch.code == RUNNING

    for count in range(max_steps):
        if count % _STALL_EVERY == 0:
            rank = model.saddle_rank(batch.state, batch.slope)
            stalled = (batch.code == RUNNING) & (rank >= 0)
            batch.code = torch.where(stalled, SADDLE + rank, batch.code)
            yield batch.log_loss
        running = batch.code == RUNNING
        if not running.any() and not (running := end()).any():
            break
        for rows in batch.kinds(running):
            step = batch.step(model, control, rows)
            before = batch.log_loss[rows]
            accepted = (step.error <= 1) & (step.log_loss <= before + model.rounding(before))
            batch.code[rows[exhausted(batch, rows, accepted)]] = EXHAUSTED
            batch.steps[rows] += accepted
            last = accepted & (step.log_loss <= until_log_loss)
            if last.any():
                # The step that passes the target is taken again, to it, when all others have got there.
                batch.code[rows[last]] = LAST
                rows, step, accepted = rows[~last], step[~last], accepted[~last]
            if accepted.any():
                moved, there = rows[accepted], step[accepted]
                reached = there.log_time(batch.log_time[moved])
                keep(moved, there, reached)
                ended = {name: getattr(there, name) for name in ("state", "log_loss", "slope", "speed")}
                batch.put(moved, log_time=reached, **ended)
            batch.adapt(rows, step.error, step.edge, accepted, model, control)
    end()
    names = {RUNNING: "max steps", REACHED: "reached", EXHAUSTED: "precision exhausted"}
    status = np.array([names.get(code, f"stalled at a saddle of rank {code - SADDLE}") for code in batch.code.tolist()])
    found = (batch.state, batch.log_loss, batch.log_time, batch.steps, *kept)
    with torch.inference_mode(False):
        state, log_loss, log_time, steps, *at_levels = (value.clone() for value in found)
    return Run(state, log_loss, log_time, status, steps, tuple(at_levels))


def returned(run: Generator[Any, None, Ended]) -> Ended:
    """What a generator returns, all of it done at once."""
    while True:
        try:
            next(run)
        except StopIteration as stop:
            return stop.value


def recorded(history: Kept | None) -> Kept:
    """The history of a run that was told to record."""
    if history is None:
        raise DufmError("record must be given for a history")
    return history


def _levels(record: Any, until_log_loss: float, state: Tensor) -> tuple[str, Tensor]:
    """Kind and levels of ``record`` in the order in which the path meets them."""
    if not isinstance(record, dict) or len(record) != 1 or next(iter(record)) not in _NEVER:
        raise DufmError(f'record must be {{"log_loss": levels}} or {{"log_time": levels}}, got {short(record)}')
    ((kind, given),) = record.items()
    levels = state.new_tensor(check_each(f"record[{kind!r}]", given, check_number))
    if not len(levels) or not levels.isfinite().all():
        raise DufmError(f"record[{kind!r}] must hold at least one level, finite in {state.dtype}, got {short(given)}")
    if kind == "log_loss" and levels.min() < until_log_loss:
        raise DufmError(
            f"record['log_loss'] must stay at or above until_log_loss = {until_log_loss}, got {levels.min():g}"
        )
    return kind, levels.sort(descending=kind == "log_loss").values
