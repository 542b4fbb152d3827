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

from dufm._checks import DufmError, check_count, check_factors, check_finite_positive
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
    """Explicit first-same-as-last pair: stage rows, error weights, order of the error estimate."""

    rows: tuple
    error: tuple
    order: int


# Bogacki & Shampine (1989), order 3(2).
_BS32 = _Pair(
    rows=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    order=2,
)
# Dormand & Prince (1980), order 5(4).
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
)
# Loose runs are limited by stability, tight ones by accuracy: per evaluation 3(2) reaches 1.5 times further
# on the negative real axis, where the Hessian of a gradient flow has its stiff part.
_TIGHT = 2e-6

_SAFETY, _SHRINK, _GROW = 0.9, 0.1, 5.0
# Proportional-integral control (Gustafsson 1991): it halves the rejections at the edge of stability.
_PROPORTIONAL, _INTEGRAL = 0.7, 0.4
_STALL_EVERY = 16
# ‖error‖·‖∇ log ℒ‖ bounds the error of log ℒ.  Relative to the factors alone it would reach 1 where L·margin
# reaches 1/rtol; beyond L·margin = 1000 it is held at 1000·rtol.
_LOGIT_SPAN = 1e3

_NODES, _WEIGHTS = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(6))
_NODES, _LOG_WEIGHTS = (_NODES + 1) / 2, torch.log(_WEIGHTS / 2)


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


def _matrix_field(factors, out):
    """Write −∂ log ℒ/∂W_l into ``out``; return log ℒ."""
    below = [factors[0]]
    for factor in factors[1:]:
        below.append(factor @ below[-1])
    log_loss, back = evaluate(below.pop())
    for layer in range(len(factors) - 1, 0, -1):
        out[layer].copy_(back @ below.pop().mT)
        back = factors[layer].mT @ back
    out[0].copy_(back)
    return log_loss


def _saddle_rank(factors, gradient):
    """Rank of Z where the gradient is rounding noise beside ‖∂ log ℒ/∂Z‖·Σ_l Π_{k≠l}‖W_k‖, else −1."""
    Z = chain(factors)
    norms = torch.stack([torch.linalg.matrix_norm(factor) for factor in factors])
    others = torch.stack([norms[torch.arange(len(factors)) != layer].prod(0) for layer in range(len(factors))]).sum(0)
    scale = torch.linalg.matrix_norm(evaluate(Z)[1]) * others
    stalled = gradient.norm(dim=-1) <= 1e-12 * scale
    return torch.where(stalled, numerical_rank(Z, 1e-6), -1)


# ---------------------------------------------------------------- the stepping


def integrate(field, state, *, until_log_loss, rtol, max_steps, record, saddle_rank):
    """Follow ``field`` from ``state`` ``(batch, n)``; the stepping behind every flow of the package.

    ``field(state, out)`` writes −∂ log ℒ into ``out`` and returns log ℒ ``(batch,)``; ``saddle_rank(state, slope)``
    returns the rank of a network that no longer moves, −1 for one that does.  The other arguments and the
    result are those of :func:`gradient_flow`, with the states as the only entry of ``factors``.
    """
    if not isinstance(until_log_loss, (int, float)) or not math.isfinite(until_log_loss):
        raise DufmError(f"until_log_loss must be a finite number, got {until_log_loss!r}")
    if not isinstance(rtol, (int, float)) or not 1e-13 <= rtol <= 1e-1:
        raise DufmError(f"rtol must lie in [1e-13, 0.1], got {rtol!r}")
    max_steps = check_count("max_steps", max_steps, 1)
    kind, levels = _levels(record, until_log_loss, state)
    pair = _BS32 if rtol >= _TIGHT else _DP54
    rows = [state.new_tensor(row) for row in pair.rows]
    error_weights = state.new_tensor(pair.error)
    stages = len(rows) + 1
    total, size = state.shape

    def advance(start, slope, h):
        """One step of length ``h`` (batch,): stage slopes, new state, new log ℒ."""
        slopes = start.new_empty(stages, *start.shape)
        slopes[0] = slope
        for stage, row in enumerate(rows, start=1):
            increment = torch.mv(slopes[:stage].flatten(1).mT, row).view_as(start)
            new = torch.addcmul(start, increment, h.unsqueeze(-1))
            log_loss = field(new, slopes[stage])
        return slopes, new, log_loss

    first = torch.empty_like(state)
    log_loss = field(state, first)
    length = first.norm(dim=1)
    at = {
        "id": torch.arange(total, device=state.device),
        "state": state,
        "slope": first,
        "log_loss": log_loss,
        "log_time": torch.full_like(log_loss, -torch.inf),
        "h": 1e-2 * state.norm(dim=1) / torch.where(length > 0, length, 1.0),
        "last_error": torch.ones_like(log_loss),
        "steps": torch.zeros_like(log_loss, dtype=torch.int64),
        "level": torch.zeros_like(log_loss, dtype=torch.int64),
        "code": torch.where(log_loss <= until_log_loss, _REACHED, _RUNNING),
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

    def land(index, kind, goal, h, new, new_slope, new_log_loss):
        """Steps from the current states ``index`` that end where log ℒ or log t equals ``goal``."""
        start, slope = at["state"][index], at["slope"][index]
        log_loss, log_time = at["log_loss"][index], at["log_time"][index]
        path = _Hermite(log_loss, slope, new_log_loss, new_slope, h)
        length = h * path.locate(kind, goal, log_time)
        for correct in (True, False):
            slopes, new, new_log_loss = advance(start, slope, length)
            path = _Hermite(log_loss, slope, new_log_loss, slopes[-1], length)
            new_log_time = path.log_time(log_time)
            if correct:
                miss, rate = (
                    (new_log_loss - goal, path.slope_end)
                    if kind == "log_loss"
                    else (new_log_time - goal, length * torch.exp(-new_log_loss - new_log_time))
                )
                length = torch.minimum(length * (1 - miss / rate).clamp(0.5, 1.5), h)
        return new, slopes[-1], new_log_loss, new_log_time, length

    for step in range(max_steps):
        if step % _STALL_EVERY == 0:
            rank = saddle_rank(at["state"], at["slope"])
            at["code"] = torch.where((at["code"] == _RUNNING) & (rank >= 0), _SADDLE + rank, at["code"])
        running = at["code"] == _RUNNING
        count = int(running.sum())
        if count < 0.8 * len(running) or count == 0:
            done = ~running
            for name, value in at.items():
                end[name][at["id"][done]] = value[done]
            at = {name: value[running] for name, value in at.items()}
            running = running[running]
        if count == 0:
            break

        h = at["h"]
        slopes, new, new_log_loss = advance(at["state"], at["slope"], h)
        new_slope = slopes[-1]
        defect = torch.mv(slopes.flatten(1).mT, error_weights).view_as(new).norm(dim=1) * h
        error = defect / rtol * torch.maximum(1 / new.norm(dim=1), new_slope.norm(dim=1) / _LOGIT_SPAN)
        rounding = 64 * torch.finfo(new.dtype).eps * at["log_loss"].abs().clamp(min=1.0)
        accepted = running & (error <= 1) & (new_log_loss <= at["log_loss"] + rounding)
        error = torch.where(error.isfinite(), error, torch.inf).clamp(min=1e-8)
        scaled = (
            _SAFETY * error ** (-_PROPORTIONAL / (pair.order + 1)) * at["last_error"] ** (_INTEGRAL / (pair.order + 1))
        )
        retry = (_SAFETY * error ** (-1 / (pair.order + 1))).clamp(_SHRINK, 0.9)
        factor = torch.where(accepted, scaled.clamp(0.2, _GROW), retry)
        exhausted = (
            running
            & ~accepted
            & (h * at["slope"].norm(dim=1) <= 4 * torch.finfo(new.dtype).eps * at["state"].norm(dim=1))
        )
        new_log_time = _Hermite(at["log_loss"], at["slope"], new_log_loss, new_slope, h).log_time(at["log_time"])

        def replace(index, landed, columns):
            for column, value in zip(columns, landed, strict=True):
                column[index] = value

        final = (accepted & (new_log_loss <= until_log_loss)).nonzero().squeeze(-1)
        if len(final):
            landed = land(
                final, "log_loss", until_log_loss, h[final], new[final], new_slope[final], new_log_loss[final]
            )
            h = h.clone()
            replace(final, landed, (new, new_slope, new_log_loss, new_log_time, h))
        while kind is not None:
            goal = torch.cat([levels, levels.new_full((1,), _NEVER[kind])])[at["level"]]
            value = new_log_loss if kind == "log_loss" else new_log_time
            slack = 1e-9 * goal.abs().clamp(max=1e300) + 1e-12
            passed = value <= goal + slack if kind == "log_loss" else value >= goal - slack
            if kind == "log_loss":
                passed[final] |= goal[final] >= until_log_loss
            cross = (accepted & (at["level"] < len(levels)) & passed).nonzero().squeeze(-1)
            if not len(cross):
                break
            where = at["level"][cross], at["id"][cross]
            landed = land(cross, kind, goal[cross], h[cross], new[cross], new_slope[cross], new_log_loss[cross])
            for store, value in zip(kept, (landed[0], landed[2], landed[3]), strict=True):
                store[where] = value
            at["level"][cross] += 1

        take = accepted.unsqueeze(-1)
        at["state"] = torch.where(take, new, at["state"])
        at["slope"] = torch.where(take, new_slope, at["slope"])
        at["log_loss"] = torch.where(accepted, new_log_loss, at["log_loss"])
        at["log_time"] = torch.where(accepted, new_log_time, at["log_time"])
        at["last_error"] = torch.where(accepted, error.clamp(min=1e-4), at["last_error"])
        at["h"] = h * factor
        at["steps"] += accepted
        at["code"][exhausted] = _EXHAUSTED
        at["code"][final] = _REACHED
    for name, value in at.items():
        end[name][at["id"]] = value
    names = {_RUNNING: "max steps", _REACHED: "reached", _EXHAUSTED: "precision exhausted"}
    status = np.array(
        [names.get(code, f"stalled at a saddle of rank {code - _SADDLE}") for code in end["code"].tolist()]
    )
    history = None if kept is None else History([kept[0]], kept[1], kept[2])
    return Trajectory([end["state"]], end["log_loss"], end["log_time"], status, end["steps"], history)


_RUNNING, _REACHED, _EXHAUSTED, _SADDLE = 0, 1, 2, 3
_NEVER = {"log_loss": -math.inf, "log_time": math.inf}


def _levels(record, until_log_loss, state):
    """Kind and levels of ``record`` in the order in which the path meets them."""
    if record is None:
        return None, None
    if not isinstance(record, dict) or len(record) != 1 or next(iter(record)) not in _NEVER:
        raise DufmError(f'record must be {{"log_loss": levels}} or {{"log_time": levels}}, got {record!r}')
    ((kind, levels),) = record.items()
    levels = torch.as_tensor(levels, dtype=state.dtype, device=state.device)
    if levels.ndim != 1 or not len(levels) or not levels.isfinite().all():
        raise DufmError(f"record[{kind!r}] must be a non-empty 1-D sequence of finite levels, got {levels}")
    if kind == "log_loss" and levels.min() < until_log_loss:
        raise DufmError(
            f"record['log_loss'] must stay at or above until_log_loss = {until_log_loss}, got {levels.min():g}"
        )
    return kind, levels.sort(descending=kind == "log_loss").values


class _Hermite:
    """Cubic of log ℒ over one step from values and slopes at both ends; θ in [0, 1]."""

    def __init__(self, log_loss, slope, new_log_loss, new_slope, h):
        # Along −∇ log ℒ the rate of log ℒ is −‖∇ log ℒ‖².
        self.start, self.end, self.h = log_loss, new_log_loss, h
        self.slope_start = -h * slope.square().sum(-1)
        self.slope_end = -h * new_slope.square().sum(-1)

    def __call__(self, theta):
        rest = 1 - theta
        return rest * rest * ((1 + 2 * theta) * self.start + theta * self.slope_start) + theta * theta * (
            (1 + 2 * rest) * self.end - rest * self.slope_end
        )

    def log_time(self, log_time, theta=None):
        """Log t at ``θ`` (default 1): log t_0 and the log of h ∫_0^θ e^{−log ℒ}."""
        theta = torch.ones_like(self.h) if theta is None else theta
        nodes, log_weights = (array.to(self.h).unsqueeze(-1) for array in (_NODES, _LOG_WEIGHTS))
        inner = torch.logsumexp(log_weights - self(nodes * theta), 0)
        return torch.logaddexp(log_time, inner + torch.log(self.h * theta))

    def locate(self, kind, goal, log_time):
        """θ where log ℒ falls, or log t rises, to ``goal``, by bisection."""
        low, high = torch.zeros_like(self.h), torch.ones_like(self.h)
        for _ in range(30):
            middle = (low + high) / 2
            before = self(middle) > goal if kind == "log_loss" else self.log_time(log_time, middle) < goal
            low, high = torch.where(before, middle, low), torch.where(before, high, middle)
        return high
