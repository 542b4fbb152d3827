r"""Gradient flow to losses of :math:`e^{-10^4}`, a batch of networks at a time, each on its own clock.

The flow :math:`\dot W = -\nabla\mathcal L` needs time :math:`t\approx e^{m}` to reach margin ``m``.  We follow
:math:`W' = -\nabla\log\mathcal L` instead, the same path in another time τ, and carry
:math:`\log t`, :math:`dt = d\tau/\mathcal L`, beside it.

Why our own stepping: each network of a batch needs its own step and its own clock (for L ≥ 3 the flow of
−log ℒ blows up at a finite τ that differs between networks), and t grows by :math:`e^{200}` or more, so it can
only be carried as a logarithm.  torchdiffeq shares one step over the batch, and neither it nor SciPy
carries a state in the log domain.  ``make bench`` compares the two at equal measured error.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from dufm._checks import DufmError, check_count, check_factors, check_finite, check_finite_positive
from dufm.loss import evaluate
from dufm.metrics import numerical_rank
from dufm.model import chain

__all__ = ["History", "Trajectory", "gradient_descent", "gradient_flow", "integrate"]


@dataclass(frozen=True)
class History:
    """States at the recorded levels: leading dimension = level, then the batch; NaN where never reached."""

    factors: list
    log_loss: torch.Tensor
    log_time: torch.Tensor

    @property
    def Z(self):
        """Logits ``(levels, ..., K, N)``."""
        return chain(self.factors)


@dataclass(frozen=True)
class Trajectory:
    """End of a run, one entry a network.

    ``factors`` ``[W_1, …, W_L]``; ``log_loss`` log ℒ; ``log_time`` log t, t the time of dW/dt = −∇ℒ
    (−inf at the start); ``status``, a NumPy array of sentences ("reached", "stalled at a saddle of rank r",
    "precision exhausted", "max steps"; descent also "diverged"); ``steps`` accepted steps; ``history`` or None.
    """

    factors: list
    log_loss: torch.Tensor
    log_time: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor
    history: History | None = None

    @property
    def Z(self):
        """Logits ``(..., K, N)``."""
        return chain(self.factors)


# ---------------------------------------------------------------- the two embedded pairs


@dataclass(frozen=True)
class _Pair:
    """Explicit first-same-as-last pair: stage rows, error weights, order of the error estimate.

    ``middle``: weights of the state half-way through a step, one order below the pair's own.
    """

    rows: tuple
    error: tuple
    order: int
    middle: tuple | None = None


# Bogacki & Shampine (1989), order 3(2).
_BS32 = _Pair(
    rows=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    order=2,
)
# Dormand & Prince (1980), order 5(4); the middle is Shampine's (1986).
_DP54 = _Pair(
    rows=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    order=4,
    middle=(
        6025192743 / 60171106304,
        0,
        51252292925 / 130801643196,
        -2691868925 / 90256659456,
        187940372067 / 3189068634112,
        -1776094331 / 39487288512,
        11237099 / 470086768,
    ),
)
# Loose runs are limited by stability, tight ones by accuracy: per evaluation 3(2) reaches 1.5 times further
# on the negative real axis, where the Hessian of a gradient flow has its stiff part.
_TIGHT = 2e-6

_SAFETY, _SHRINK, _GROW = 0.9, 0.1, 5.0
# Proportional-integral control (Gustafsson 1991): it halves the rejections at the edge of stability.
_PROPORTIONAL, _INTEGRAL = 0.7, 0.4
_STALL_EVERY, _TICKS = 16, 32
# Multiplications in one product of a batch below which torch does not call BLAS.
_TINY = 400
# ‖error‖·‖∇ log ℒ‖ bounds the error of log ℒ.  Relative to the factors alone it would reach 1 where L·margin
# reaches 1/rtol; beyond L·margin = 1000 it is held at 1000·rtol.
_LOGIT_SPAN = 1e3

_NODES, _WEIGHTS = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(10))
_NODES, _LOG_WEIGHTS = (_NODES + 1) / 2, torch.log(_WEIGHTS / 2)
_BUMP = (4 * _NODES * (1 - _NODES)) ** 2
# What value at the start less that at the end, both slopes, lift and tilt of a `_Hermite` contribute at the nodes.
_AT_NODES = torch.stack(
    [
        (1 - _NODES) ** 2 * (1 + 2 * _NODES),
        (1 - _NODES) ** 2 * _NODES,
        -(_NODES**2) * (1 - _NODES),
        _BUMP,
        _BUMP * (_NODES - 0.5),
    ],
    1,
)


@torch.no_grad()
def gradient_flow(factors, *, until_log_loss=-200.0, rtol=1e-4, max_steps=50_000, record=None):
    r"""Follow :math:`\dot W_l = -\partial\mathcal L/\partial W_l` until ``log ℒ`` falls to ``until_log_loss``.

    ``factors``: ``[W_1, …, W_L]``, shapes ``(..., d_l, d_{l-1})``, floating, on any device; the result stays
    there.  ``rtol``: local error of a step relative to the norm of all factors of one network, and from
    L·margin = 1000 on relative to that margin's, which keeps log ℒ and log t right to about 1000·rtol.  The path
    is that of −∇ log ℒ by an embedded Runge–Kutta pair, Bogacki–Shampine 3(2), or Dormand–Prince 5(4) when
    ``rtol < 2e-6``; every network has its own step and clock; log t follows by Gauss quadrature of ``1/ℒ``
    on the cubic Hermite interpolant of ``log ℒ``.

    ``record``: ``{"log_loss": levels}`` or ``{"log_time": levels}``, at which states are kept in
    ``.history``; each is reached by a step that ends on the level, not by interpolation.  Memory grows
    with the batch and the levels, not with the steps.

    A network that is already there returns at once with ``log_time = −inf``.  ``status`` says how each one
    ended; "stalled at a saddle of rank r" means the gradient vanished to 1e-12 of what its factors allow.
    Raises ``DufmError`` for NaN, bad shapes, integer tensors, or an argument out of range.
    """
    num_classes, n_per_class, batch_shape = check_factors(factors)
    shapes = [tuple(factor.shape[-2:]) for factor in factors]
    state = torch.cat(
        [factor.reshape(-1, rows * columns) for factor, (rows, columns) in zip(factors, shapes, strict=True)],
        1,
    )

    def field(flat, out):
        return _matrix_field(_split(flat, shapes), _split(out, shapes))

    def saddle_rank(flat, gradient):
        return _saddle_rank(_split(flat, shapes), gradient)

    run = integrate(
        field,
        state,
        until_log_loss=until_log_loss,
        rtol=rtol,
        max_steps=max_steps,
        record=record,
        saddle_rank=saddle_rank,
    )

    def unflatten(flat):
        return [part.reshape(*flat.shape[:-2], *batch_shape, *part.shape[-2:]) for part in _split(flat, shapes)]

    history = run.history and History(
        unflatten(run.history.factors[0]),
        run.history.log_loss.reshape(-1, *batch_shape),
        run.history.log_time.reshape(-1, *batch_shape),
    )
    return Trajectory(
        unflatten(run.factors[0]),
        run.log_loss.reshape(batch_shape),
        run.log_time.reshape(batch_shape),
        run.status.reshape(batch_shape),
        run.steps.reshape(batch_shape),
        history,
    )


@torch.no_grad()
def gradient_descent(factors, *, lr, steps, record=None):
    r"""Plain descent ``W_l ← W_l − lr·∂ℒ/∂W_l``, ``steps`` times: the flow's first discretisation.

    ``record``: increasing step numbers at which states are kept in ``.history``.  ``log_time`` is
    ``log(lr·steps)``; ``status`` is "max steps", or "diverged" where a number left the floats.  Raises
    as :func:`gradient_flow`.
    """
    check_factors(factors)
    check_finite_positive("lr", lr)
    steps = check_count("steps", steps, 1)
    wanted = [check_count("record", number, 0, steps) for number in ([] if record is None else record)]
    factors = [factor.clone() for factor in factors]
    gradient = [torch.empty_like(factor) for factor in factors]
    kept = {}
    for number in range(steps + 1):
        log_loss = _matrix_field(factors, gradient)
        if number in wanted:
            kept[number] = ([factor.clone() for factor in factors], log_loss)
        if number < steps:
            rate = lr * torch.exp(log_loss)[..., None, None]
            for factor, slope in zip(factors, gradient, strict=True):
                factor.addcmul_(rate, slope)
    history = None
    if wanted:
        history = History(
            [torch.stack(parts) for parts in zip(*(kept[number][0] for number in wanted), strict=True)],
            torch.stack([kept[number][1] for number in wanted]),
            torch.stack([torch.full_like(log_loss, lr * number).log() for number in wanted]),
        )
    status = np.where(torch.isfinite(log_loss).cpu().numpy(), "max steps", "diverged")
    log_time = torch.full_like(log_loss, math.log(lr * steps))
    return Trajectory(factors, log_loss, log_time, status, torch.full_like(log_loss, steps, dtype=torch.int64), history)


# ---------------------------------------------------------------- the field


def _split(flat, shapes):
    parts = flat.split([rows * columns for rows, columns in shapes], dim=-1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


def _times(left, right):
    """``left @ right``, widened by zero columns where torch would take its slow path for tiny batched products."""
    rows, inner, columns = left.shape[-2], left.shape[-1], right.shape[-1]
    if left.ndim == 2 or left.device.type != "cpu" or not 100 <= rows * inner * columns < _TINY:
        return left @ right
    if columns > rows:
        return _times(right.mT, left.mT).mT
    wide = math.ceil(_TINY / (rows * inner))
    return (left @ torch.nn.functional.pad(right, (0, wide - columns)))[..., :columns]


def _matrix_field(factors, out):
    """Write −∂ log ℒ/∂W_l into ``out``; return log ℒ."""
    below = [factors[0]]
    for factor in factors[1:]:
        below.append(_times(factor, below[-1]))
    log_loss, back = evaluate(below.pop())
    for layer in range(len(factors) - 1, 0, -1):
        out[layer].copy_(_times(back, below.pop().mT))
        back = _times(factors[layer].mT, back)
    out[0].copy_(back)
    return log_loss


def _saddle_rank(factors, gradient):
    """Rank of Z where the gradient is rounding noise beside ‖∂ log ℒ/∂Z‖·Σ_l Π_{k≠l}‖W_k‖, else −1."""
    Z = chain(factors)
    norms = torch.stack([torch.linalg.matrix_norm(factor) for factor in factors])
    others = torch.stack([norms[torch.arange(len(factors)) != layer].prod(0) for layer in range(len(factors))]).sum(0)
    scale = torch.linalg.matrix_norm(evaluate(Z)[1]) * others
    stalled = gradient.norm(dim=-1) <= 1e-12 * scale
    if not stalled.any():
        return torch.full_like(stalled, -1, dtype=torch.int64)
    return torch.where(stalled, numerical_rank(Z, 1e-6), -1)


# ---------------------------------------------------------------- the stepping


@torch.no_grad()
def integrate(field, state, *, until_log_loss, rtol, max_steps, record, saddle_rank):
    """Follow ``field`` from ``state`` ``(batch, n)``; the stepping behind every flow of the package.

    ``field(state, out)`` writes −∂ log ℒ into ``out`` and returns log ℒ ``(batch,)``; ``saddle_rank(state, slope)``
    returns the rank of a network that no longer moves, −1 for one that does.  The other arguments and the
    result are those of :func:`gradient_flow`, with the states as the only entry of ``factors``.
    """
    check_finite("until_log_loss", until_log_loss)
    if not isinstance(rtol, (int, float)) or not 1e-13 <= rtol <= 1e-1:
        raise DufmError(f"rtol must lie in [1e-13, 0.1], got {rtol!r}")
    max_steps = check_count("max_steps", max_steps, 1)
    kind, levels = _levels(record, until_log_loss, state)
    pair = _BS32 if rtol >= _TIGHT else _DP54
    rows = [state.new_tensor(row) for row in pair.rows]
    error_weights = state.new_tensor(pair.error)
    middle_weights = None if pair.middle is None else state.new_tensor(pair.middle)
    stages = len(rows) + 1
    total, size = state.shape

    def workspace(count):
        """Stage slopes, the new state, and scratch: reused, for large arrays cost more to allocate than to fill."""
        return state.new_empty(stages, count, size), state.new_empty(count, size), state.new_empty(count, size)

    def combine(slopes, weights, out):
        return torch.mv(slopes[: len(weights)].flatten(1).mT, weights, out=out.view(-1)).view_as(out)

    def advance(start, log_loss, speed, h, work):
        """One step of length ``h`` (batch,) from ``start`` with slope ``work[0][0]``; returns error and path."""
        slopes, new, scratch = work
        column = h.unsqueeze(-1)
        for stage, (row, weights) in enumerate(zip(pair.rows, rows, strict=True), start=1):
            if any(row[:-1]):
                torch.addcmul(start, combine(slopes, weights, scratch), column, out=new)
            else:
                torch.addcmul(start, slopes[stage - 1], column * row[-1], out=new)
            new_log_loss = field(new, slopes[stage])
        path = _Hermite(log_loss, speed, new_log_loss, slopes[-1].norm(dim=1), h)
        error = combine(slopes, error_weights, scratch).norm(dim=1) * h
        if middle_weights is not None:
            centre = torch.addcmul(start, combine(slopes, middle_weights, scratch), column)
            path.bend(field(centre, scratch), scratch.norm(dim=1))
        return error, path

    def rounding(log_loss):
        return 64 * torch.finfo(log_loss.dtype).eps * log_loss.abs().clamp(min=1.0)

    work = workspace(total)
    log_loss = field(state, work[0][0])
    speed = work[0][0].norm(dim=1)
    at = {
        "id": torch.arange(total, device=state.device),
        "state": state.clone(),
        "log_loss": log_loss,
        "log_time": torch.full_like(log_loss, -torch.inf),
        "h": 1e-2 * state.norm(dim=1) / torch.where(speed > 0, speed, 1.0),
        "speed": speed,
        "last_error": torch.ones_like(log_loss),
        "steps": torch.zeros_like(log_loss, dtype=torch.int64),
        "level": torch.zeros_like(log_loss, dtype=torch.int64),
        "code": torch.where(log_loss <= until_log_loss + rounding(log_loss), _REACHED, _RUNNING),
    }
    if kind == "log_loss":
        # A level that the start has passed already is not on the path.
        at["level"] = (levels > log_loss.unsqueeze(-1)).sum(-1)
    end = {name: value.clone() for name, value in at.items()}
    kept = None
    if kind is not None:
        shape = (len(levels), total)
        kept = (
            state.new_full((*shape, size), torch.nan),
            state.new_full(shape, torch.nan),
            state.new_full(shape, torch.nan),
        )

    def land(rows, kind, goal, path):
        """Steps from the current states ``rows`` that end where log ℒ or log t equals ``goal``."""
        start, log_time, h = at["state"][rows], at["log_time"][rows], path.h
        length = h * path.locate(kind, goal, log_time)
        part = workspace(len(rows))
        part[0][0] = work[0][0, rows]
        for correct in (True, True, False):
            _, path = advance(start, path.start, path.speed, length, part)
            new_log_time = path.log_time(log_time)
            if correct:
                miss, rate = (
                    (path.end - goal, path.slope_end)
                    if kind == "log_loss"
                    else (new_log_time - goal, length * torch.exp(-path.end - new_log_time))
                )
                length = torch.minimum(length * (1 - miss / rate).clamp(0.5, 1.5), h)
        return part[1], path, new_log_time

    def keep(rows, path, new_log_time, final=False):
        """Store the states at the levels that the steps ``path`` of ``rows`` pass."""
        while kind is not None and len(rows):
            goal = torch.cat([levels, levels.new_full((1,), _NEVER[kind])])[at["level"][rows]]
            value = path.end if kind == "log_loss" else new_log_time
            slack = 1e-9 * goal.abs().clamp(max=1e300) + 1e-12
            passed = value <= goal + slack if kind == "log_loss" else value >= goal - slack
            if final and kind == "log_loss":
                passed |= goal >= until_log_loss
            passed &= at["level"][rows] < len(levels)
            rows, path, new_log_time = rows[passed], path[passed], new_log_time[passed]
            if len(rows):
                where = at["level"][rows], at["id"][rows]
                landed, part, landed_log_time = land(rows, kind, goal[passed], path)
                for store, value in zip(kept, (landed, part.end, landed_log_time), strict=True):
                    store[where] = value
                at["level"][rows] += 1

    def finish():
        """Take the last step of the networks whose next step passes the target; together, for it costs a few."""
        rows = (at["code"] == _LAST).nonzero().squeeze(-1)
        if len(rows):
            part = workspace(len(rows))
            part[0][0] = work[0][0, rows]
            _, path = advance(at["state"][rows], at["log_loss"][rows], at["speed"][rows], at["h"][rows], part)
            new, path, new_log_time = land(rows, "log_loss", until_log_loss, path)
            keep(rows, path, new_log_time, final=True)
            at["state"][rows], at["log_loss"][rows], at["log_time"][rows] = new, path.end, new_log_time
            at["code"][rows] = _REACHED

    for step in range(max_steps):
        if step % _STALL_EVERY == 0:
            rank = saddle_rank(at["state"], work[0][0])
            at["code"] = torch.where((at["code"] == _RUNNING) & (rank >= 0), _SADDLE + rank, at["code"])
        running = at["code"] == _RUNNING
        count = int(running.sum())
        if count < 0.6 * len(running) or count == 0:
            finish()
            done = ~running
            for name, value in at.items():
                end[name][at["id"][done]] = value[done]
            slope, work = work[0][0, running], workspace(count)
            work[0][0] = slope
            at = {name: value[running] for name, value in at.items()}
            running = running[running]
        if count == 0:
            break

        slopes, new, scratch = work
        defect, path = advance(at["state"], at["log_loss"], at["speed"], at["h"], work)
        error = defect / rtol * torch.maximum(1 / new.norm(dim=1), path.new_speed / _LOGIT_SPAN)
        accepted = running & (error <= 1) & (path.end <= at["log_loss"] + rounding(at["log_loss"]))
        error = torch.where(error.isfinite(), error, torch.inf).clamp(min=1e-8)
        scaled = (
            _SAFETY * error ** (-_PROPORTIONAL / (pair.order + 1)) * at["last_error"] ** (_INTEGRAL / (pair.order + 1))
        )
        retry = (_SAFETY * error ** (-1 / (pair.order + 1))).clamp(_SHRINK, 0.9)
        factor = torch.where(accepted, scaled.clamp(0.2, _GROW), retry)
        exhausted = (
            running
            & ~accepted
            & (at["h"] * at["speed"] <= 4 * torch.finfo(new.dtype).eps * at["state"].norm(dim=1))
        )
        last = accepted & (path.end <= until_log_loss)
        accepted = accepted & ~last
        new_log_time = path.log_time(at["log_time"])
        if kind is not None:
            moved = accepted.nonzero().squeeze(-1)
            keep(moved, path[moved], new_log_time[moved])

        back = (~accepted).nonzero().squeeze(-1)
        new[back], slopes[-1][back] = at["state"][back], slopes[0][back]
        slopes[0].copy_(slopes[-1])
        at["state"], work = new, (slopes, at["state"], scratch)
        at["log_loss"] = torch.where(accepted, path.end, at["log_loss"])
        at["log_time"] = torch.where(accepted, new_log_time, at["log_time"])
        at["speed"] = torch.where(accepted, path.new_speed, at["speed"])
        at["last_error"] = torch.where(accepted, error.clamp(min=1e-4), at["last_error"])
        at["h"] = torch.where(running & ~last, at["h"] * factor, at["h"])
        at["steps"] += accepted | last
        at["code"][exhausted] = _EXHAUSTED
        at["code"][last] = _LAST
    finish()
    for name, value in at.items():
        end[name][at["id"]] = value
    names = {_RUNNING: "max steps", _REACHED: "reached", _EXHAUSTED: "precision exhausted"}
    status = np.array(
        [names.get(code, f"stalled at a saddle of rank {code - _SADDLE}") for code in end["code"].tolist()]
    )
    history = None if kept is None else History([kept[0]], kept[1], kept[2])
    return Trajectory([end["state"]], end["log_loss"], end["log_time"], status, end["steps"], history)


_RUNNING, _LAST, _REACHED, _EXHAUSTED, _SADDLE = 0, 1, 2, 3, 4
_NEVER = {"log_loss": -math.inf, "log_time": math.inf}


def _levels(record, until_log_loss, state):
    """Kind and levels of ``record`` in the order in which the path meets them."""
    if record is None:
        return None, None
    if not isinstance(record, dict) or len(record) != 1 or next(iter(record)) not in _NEVER:
        raise DufmError(f'record must be {{"log_loss": levels}} or {{"log_time": levels}}, got {record!r}')
    ((kind, levels),) = record.items()
    try:
        levels = torch.as_tensor(levels, dtype=state.dtype, device=state.device)
    except (TypeError, ValueError) as error:
        raise DufmError(f"record[{kind!r}] must be a 1-D sequence of finite levels, got {levels!r}") from error
    if levels.ndim != 1 or not len(levels) or not levels.isfinite().all():
        raise DufmError(f"record[{kind!r}] must be a 1-D sequence of finite levels, at least one, got {levels}")
    if kind == "log_loss" and levels.min() < until_log_loss:
        raise DufmError(
            f"record['log_loss'] must stay at or above until_log_loss = {until_log_loss}, got {levels.min():g}"
        )
    return kind, levels.sort(descending=kind == "log_loss").values


class _Hermite:
    """Cubic of log ℒ over one step from values and slopes at both ends; θ in [0, 1].

    :meth:`bend` makes it the quintic through a value and slope in the middle.
    """

    def __init__(self, log_loss, speed, new_log_loss, new_speed, h):
        # Along −∇ log ℒ the rate of log ℒ is −‖∇ log ℒ‖², the square of the speed.
        self.start, self.end, self.h = log_loss, new_log_loss, h
        self.speed, self.new_speed = speed, new_speed
        self.slope_start, self.slope_end = -h * speed.square(), -h * new_speed.square()
        self.lift = self.tilt = None

    def bend(self, log_loss, speed):
        """Meet value and slope in the middle."""
        self.lift = log_loss - self(0.5)
        self.tilt = (
            1.5 * (self.start - self.end) + 0.25 * (self.slope_start + self.slope_end) - self.h * speed.square()
        )

    def __getitem__(self, index):
        part = object.__new__(_Hermite)
        part.__dict__ = {name: value if value is None else value[index] for name, value in vars(self).items()}
        return part

    def __call__(self, theta):
        rest = 1 - theta
        value = rest * rest * ((1 + 2 * theta) * self.start + theta * self.slope_start) + theta * theta * (
            (1 + 2 * rest) * self.end - rest * self.slope_end
        )
        if self.lift is None:
            return value
        return value + (4 * theta * rest) ** 2 * (self.lift + (theta - 0.5) * self.tilt)

    def log_time(self, log_time, theta=None):
        """Log t at ``θ`` (default 1): log t_0 and the log of h ∫_0^θ e^{−log ℒ}."""
        if theta is None:
            # Once a step for every network: the values at the nodes are one product with fixed weights.
            ends = [self.start - self.end, self.slope_start, self.slope_end]
            known = torch.stack(ends if self.lift is None else [*ends, self.lift, self.tilt])
            exponent = torch.addmm(
                _LOG_WEIGHTS.to(known).unsqueeze(-1), _AT_NODES[:, : len(known)].to(known), known, alpha=-1
            )
            return torch.logaddexp(log_time, torch.logsumexp(exponent, 0).sub_(self.end).add_(self.h.log()))
        shape = (-1, *[1] * theta.ndim)
        nodes, log_weights = (array.to(self.h).view(shape) for array in (_NODES, _LOG_WEIGHTS))
        inner = torch.logsumexp(log_weights - self(nodes * theta), 0)
        return torch.logaddexp(log_time, inner + torch.log(self.h * theta))

    def locate(self, kind, goal, log_time):
        """θ where log ℒ falls, or log t rises, to ``goal``, to 1e-9."""
        low, width = torch.zeros_like(self.h), 1.0
        ticks = torch.arange(1, _TICKS, device=low.device, dtype=low.dtype).unsqueeze(-1) / _TICKS
        for _ in range(6):
            theta = low + width * ticks
            before = self(theta) > goal if kind == "log_loss" else self.log_time(log_time, theta) < goal
            # The first tick that is not before the goal: the path is monotone, its interpolant nearly.
            low = low + before.long().cumprod(0).sum(0) * (width / _TICKS)
            width /= _TICKS
        return low + width
