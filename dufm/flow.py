r"""Gradient flow to losses of :math:`e^{-10^4}`, a batch of networks at a time, each on its own clock.

The flow :math:`\dot W = -\nabla\mathcal L` needs time :math:`t\approx e^{m}` to reach margin ``m``.  We follow
:math:`W' = -\nabla\log\mathcal L` instead, the same path in another time τ, and carry :math:`\log t`,
:math:`dt = d\tau/\mathcal L`, beside it.

Why our own stepping: for L ≥ 3 −log ℒ blows up at a τ of each network's own, and t grows by :math:`e^{200}` or more.
torchdiffeq shares one step over a batch, and neither it nor SciPy carries a logarithm (notebook 93).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count, check_each, short
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel, matrix_field
from dufm._stepping import Record, follow
from dufm.loss import evaluate
from dufm.model import chain, check_slope

__all__ = ["History", "Trajectory", "gradient_descent", "gradient_flow", "loss_scaled_descent"]

_STEEPEST = 200.0  # ‖∇ log ℒ‖² from which loss_scaled_descent shortens its step


@dataclass(frozen=True)
class History:
    """A :class:`Trajectory`'s states at the recorded levels, the leading dimension; NaN where never reached.

    ``factors`` ``(levels, ..., d_l, d_{l-1})``, the rest ``(levels, ...)``.  Units: as there.  Source: this companion.

    >>> start = dufm.gaussian_init(3, 4, 4, seed=0)
    >>> dufm.gradient_flow(start, record={"log_loss": [-10.0, -50.0]}).history.log_loss.round()
    tensor([[-10.],
            [-50.]], dtype=torch.float64)
    """

    factors: list[Tensor]
    log_loss: torch.Tensor
    log_time: torch.Tensor

    @property
    def Z(self) -> Tensor:
        """Logits ``(levels, ..., K, N)``."""
        return chain(self.factors)


@dataclass(frozen=True)
class Trajectory:
    """End of a run, one entry a network.

    ``factors`` ``[W_1, …, W_L]``; ``log_loss`` log ℒ; ``log_time`` log t, t the time of dW/dt = −∇ℒ
    (−inf at the start); ``status``, a NumPy array of sentences ("reached", "stalled at a saddle of rank r",
    "precision exhausted", "max steps"; descent also "diverged"); ``steps`` accepted steps; ``history`` or None.

    ``factors`` are ``(..., d_l, d_{l-1})``, the others ``(...)``.  Units: as log t.  Source: this companion.

    >>> run = dufm.gradient_flow(dufm.gaussian_init(3, 4, 4, seed=0))
    >>> run.status.item(), run.log_loss.round(decimals=4).item(), run.Z.shape
    ('reached', -200.0, torch.Size([1, 4, 4]))
    """

    factors: list[Tensor]
    log_loss: torch.Tensor
    log_time: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor
    history: History | None = None

    @property
    def Z(self) -> Tensor:
        """Logits ``(..., K, N)``."""
        return chain(self.factors)


@torch.no_grad()
def gradient_flow(
    factors: Sequence[Tensor],
    *, until_log_loss: float = -200.0, rtol: float = 1e-4, max_steps: int = 50_000, record: Record = None,
) -> Trajectory:  # fmt: skip
    r"""Follow :math:`\dot W_l = -\partial\mathcal L/\partial W_l` until ``log ℒ`` falls to ``until_log_loss``.

    ``factors``: ``[W_1, …, W_L]``, shapes ``(..., d_l, d_{l-1})``, floating, on any device; the result stays there.
    ``rtol``: local error of a step relative to the norm of all factors of one network; its spread over the margins that
    are nearly the smallest stays below 100·rtol, and 0.1, as well.  The path is that of −∇ log ℒ by an embedded
    Runge–Kutta pair, Bogacki–Shampine 3(2), or Dormand–Prince 5(4) when ``rtol < 2e-6``, and by linearly implicit
    Rosenbrock–W steps where that is cheaper; every network has its own step and clock.  log t is the integral of
    ``1/ℒ`` along a step, of which ``‖∇ log ℒ‖`` at both ends and the step's length are known.

    ``record``: ``{"log_loss": levels}`` or ``{"log_time": levels}``, at which states are kept in ``.history``, in the
    order of the path; each is reached by a step that ends on the level, not by interpolation.  Memory grows with the
    batch and the levels, not with the steps.

    A network that is already there returns at once with ``log_time = −inf``.  ``status`` says how each one ended;
    "stalled at a saddle of rank r" means the gradient vanished to 1e-12 of what its factors allow, in single precision
    to 2e-6.

    Units: time is that of dW/dt = −∇ℒ.  Raises: ``DufmError`` for NaN, bad shapes, integer tensors, an argument out of
    range, or a start whose loss or slope is beyond the floats.  Source: Bogacki & Shampine (1989), Dormand & Prince
    (1980), Rang & Angermann (2005) for the steps; this companion, notebook 22.

    >>> run = dufm.gradient_flow([torch.eye(2).double() / 2] * 2, until_log_loss=-1000.0)
    >>> run.log_time.exp().isinf().item(), run.log_time.round(decimals=1).item()
    (True, 992.4)
    """
    control = {"until_log_loss": until_log_loss, "rtol": rtol, "max_steps": max_steps, "record": record}
    return follow_factors(FactorModel(factors), factors, **control)


def follow_factors(model: FactorModel, factors: Sequence[Tensor], **control: Any) -> Trajectory:
    """:class:`Trajectory` of the flow of ``model``, a :class:`FactorModel`; ``control`` as in :func:`gradient_flow`."""

    def shaped(flat: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
        return [part.reshape(*shape, *part.shape[-2:]) for part in model.split(flat)]

    check_slope(factors, model.evaluate(chain(factors))[1])
    run = follow(model, model.flatten(factors), **control)
    return _together(run.in_shape(factors[0].shape[:-2], shaped, Trajectory, History), model.evaluate)


def _together(run: Trajectory, loss: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Trajectory:
    """The run with the losses of the very factors that it returns: other orders of summation differ at large logits."""
    history = run.history and replace(run.history, log_loss=loss(run.history.Z)[0])
    return replace(run, log_loss=loss(run.Z)[0], history=history)


@torch.no_grad()
def gradient_descent(
    factors: Sequence[Tensor], *, lr: float, steps: int, record: Sequence[int] | None = None
) -> Trajectory:
    r"""Plain descent ``W_l ← W_l − lr·∂ℒ/∂W_l``, ``steps`` times: the flow's first discretisation.

    ``record``: step numbers at which states are kept in ``.history``.  ``log_time`` is ``log(lr·steps)``;
    ``status`` is "max steps", or "diverged" where numbers left the floats, then inf or NaN.  Shapes as
    :func:`gradient_flow`.

    Units: ``lr`` is a time.  Raises: ``DufmError`` as :func:`gradient_flow`, and for an ``lr`` or ``steps`` that is not
    positive.  Source: the definition; this companion, notebook 48.

    >>> run = dufm.gradient_descent([torch.eye(2).double() / 2] * 2, lr=0.1, steps=100)
    >>> run.log_time.exp().round(decimals=4).item(), run.log_loss.round(decimals=4).item()
    (10.0, -4.1985)
    """
    wanted = check_each("record", () if record is None else record, lambda _, n: check_count("record", n, 0, steps))
    factors, gradient = [W.clone() for W in factors], [torch.empty_like(W) for W in factors]
    kept: dict[int, list[Tensor]] = {}
    for number in range(steps + 1):
        log_loss = matrix_field(factors, gradient)[0]
        if number in wanted:
            kept[number] = [factor.clone() for factor in factors]
        if number < steps:
            rate = lr * torch.exp(log_loss)[..., None, None]
            for factor, slope in zip(factors, gradient, strict=True):
                factor.addcmul_(rate, slope)
    history = None
    if wanted:
        states = [torch.stack(parts) for parts in zip(*(kept[number] for number in wanted), strict=True)]
        log_times = math.log(lr) + torch.stack([torch.full_like(log_loss, number).log() for number in wanted])
        history = History(states, log_times, log_times)
    log_time, count = torch.full_like(log_loss, math.log(lr) + math.log(steps)), torch.full_like(log_loss, steps).long()
    run = _together(Trajectory(factors, log_loss, log_time, np.empty(0), count, history), evaluate)
    return replace(run, status=np.where(torch.isfinite(run.log_loss).cpu().numpy(), "max steps", "diverged"))


def loss_scaled_descent(factors: Sequence[Tensor], epsilon: float, levels: Sequence[float]) -> History:
    r"""Plain descent of one network at a rate that follows the loss, with nothing of the flow's integrator.

    :math:`W_l \leftarrow W_l - h\,\partial_{W_l}\mathcal L/\mathcal L`, h = ε min(1, 200/‖∇ log ℒ‖²): to first order no
    step lowers log ℒ by more than 200 ε.  ``levels``: descending values of log ℒ.  Returns the :class:`History` at the
    first step below each, ``log_time`` that of the steps taken.  Halve ``epsilon`` to see how far from the flow it is.
    ``DufmError`` for bad factors, an epsilon that is not positive, levels that do not descend, or where the loss no
    longer moves or is no number.
    """
    if any(late >= early for early, late in itertools.pairwise(levels)):
        raise DufmError(f"levels must descend, got {short(levels)}")
    factors, slopes = [W.detach().clone() for W in factors], [torch.empty_like(W.detach()) for W in factors]
    time, before = torch.tensor(-torch.inf), torch.tensor(torch.nan)
    kept: list[tuple[list[Tensor], Tensor, Tensor]] = []
    while len(kept) < len(levels):
        log_loss = matrix_field(factors, slopes)[0]
        steepness = float(sum(slope.square().sum() for slope in slopes))
        if not 0.0 < steepness < math.inf:
            raise DufmError(f"factors must lead to log loss {levels[len(kept)]:g}, but rest at {float(log_loss):g}")
        if log_loss <= levels[len(kept)]:
            kept.append(([factor.clone() for factor in factors], log_loss, time))
        h = epsilon * min(1.0, _STEEPEST / steepness)
        time = torch.logaddexp(time, math.log(h) - log_loss)
        if log_loss == before and all(torch.equal(W.add(s, alpha=h), W) for W, s in zip(factors, slopes, strict=True)):
            raise DufmError(f"epsilon must move the factors, but a step of {h:.3g} is below their rounding")
        before = log_loss
        for factor, slope in zip(factors, slopes, strict=True):
            factor.add_(slope, alpha=h)
    states, losses, times = zip(*kept, strict=True)
    return History([torch.stack(parts) for parts in zip(*states, strict=True)], torch.stack(losses), torch.stack(times))


guard(globals())
