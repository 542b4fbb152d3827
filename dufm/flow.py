r"""Gradient flow to losses of :math:`e^{-10^4}`, a batch of networks at a time, each on its own clock.

The flow :math:`\dot W = -\nabla\mathcal L` needs time :math:`t\approx e^{m}` to reach margin ``m``.  We follow
:math:`W' = -\nabla\log\mathcal L` instead, the same path in another time τ, and carry :math:`\log t`,
:math:`dt = d\tau/\mathcal L`, beside it.

Why our own stepping: for L ≥ 3 −log ℒ blows up at a τ of each network's own, and t grows by :math:`e^{200}` or more.
torchdiffeq shares one step over a batch, and neither it nor SciPy carries a logarithm (notebook 93).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._stepping import Record, follow
from dufm._steps import Linearised, Model, norm
from dufm.loss import evaluate
from dufm.metrics import numerical_rank
from dufm.model import chain, check_slope

__all__ = ["History", "Trajectory", "gradient_descent", "gradient_flow", "loss_scaled_descent"]

_TINY = 400  # multiplications in one product of a batch below which torch does not call BLAS
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
    "stalled at a saddle of rank r" means the gradient vanished to 1e-12 of what its factors allow.

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
    wanted = [check_count("record", number, 0, steps) for number in ([] if record is None else record)]
    factors, gradient = [W.clone() for W in factors], [torch.empty_like(W) for W in factors]
    kept: dict[int, list[Tensor]] = {}
    for number in range(steps + 1):
        log_loss = _matrix_field(factors, gradient)[0]
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
    ``DufmError`` for bad factors, an epsilon that is not positive, or where the loss no longer moves or is no number.
    """
    factors, slopes = [W.detach().clone() for W in factors], [torch.empty_like(W.detach()) for W in factors]
    time, before = torch.tensor(-torch.inf), torch.tensor(torch.nan)
    kept: list[tuple[list[Tensor], Tensor, Tensor]] = []
    while len(kept) < len(levels):
        log_loss = _matrix_field(factors, slopes)[0]
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


# ---------------------------------------------------------------- the model that is stepped


class FactorModel(Model):
    """Factors ``[W_1, …, W_L]`` as flat states ``(batch, n)``; pairs (class j, sample i) as the entries of Z."""

    def __init__(self, factors: Sequence[Tensor]) -> None:
        self.shapes = [tuple(factor.shape[-2:]) for factor in factors]
        self.sizes = [rows * columns for rows, columns in self.shapes]
        num_classes, samples = self.shapes[-1][0], self.shapes[0][1]
        self.sample = torch.arange(samples, device=factors[0].device)
        self.true = self.sample // (samples // num_classes)
        self.own = torch.nn.functional.one_hot(self.true, num_classes).mT.bool()
        self.wrong, self.of = (~self.own).nonzero().T.unbind(0)
        self.winner, self.live = self.true[self.of], self.wrong * samples + self.of
        rows = [a.unsqueeze(1) * num_classes + b for a in (self.wrong, self.winner) for b in (self.wrong, self.winner)]
        self.kernel = [(row * samples + self.of.unsqueeze(1)) * samples + self.of for row in rows]
        self.depth, self.price = len(factors), _price(self.shapes, len(self.of))

    def flatten(self, factors: Sequence[Tensor]) -> Tensor:
        """Flat states of factors with any leading dimensions."""
        return torch.cat([f.reshape(-1, size) for f, size in zip(factors, self.sizes, strict=True)], 1)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Factors of flat states: views."""
        parts, leading = flat.split_with_sizes(self.sizes, -1), flat.shape[:-1]
        return [part.view(*leading, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def evaluate(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Log ℒ and −∂ log ℒ/∂Z: what makes this the flow of one loss and not of another."""
        return evaluate(Z)

    def field(self, flat: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Write −∂ log ℒ/∂W into ``out``; log ℒ, and λ for every entry of Z, zero at the sample's own class."""
        log_loss, residual = _matrix_field(self.split(flat), self.split(out), self.evaluate)
        return log_loss, residual.neg().masked_fill_(self.own, 0.0).flatten(1)

    def gaps(self, flat: Tensor) -> Tensor:
        """Gaps ``z_jc − z_cc`` ``(batch, K·N)``."""
        Z = chain(self.split(flat))
        return (Z - Z[:, self.true, self.sample].unsqueeze(-2)).flatten(1)

    def gap_rate(self, flat: Tensor, change: Tensor) -> Tensor:
        """Change of ``z_jc − z_cc`` along a change of the factors, ``(batch, K·N)``."""
        factors, changes = self.split(flat), self.split(change)
        value, rate = factors[0], changes[0]
        for factor, turn in zip(factors[1:], changes[1:], strict=True):
            rate = torch.baddbmm(_times(turn, value), factor, rate)
            value = _times(factor, value)
        return (rate - rate[:, self.true, self.sample].unsqueeze(-2)).flatten(1)

    def linearise(self, flat: Tensor) -> Linearised:
        """The first term of the field's derivative: J, Θ = JJᵀ and λ on the pairs j ≠ c."""
        factors = self.split(flat)
        below, above = _below(factors), _above(factors)
        weights = -self.evaluate(below[-1])[1][:, self.wrong, self.of]
        rows, columns = below[-1].shape[-2:]
        eye_rows, eye_columns = (torch.eye(size).to(flat).expand(len(flat), size, size) for size in (rows, columns))
        left = torch.stack([eye_rows if a is None else torch.bmm(a, a.mT) for a in above], -1)
        right = torch.stack([eye_columns if b is None else torch.bmm(b.mT, b) for b in below[:-1]], 1)
        theta = self._pair_kernel(left.flatten(1, 2), right.flatten(2))

        def push(change: Tensor) -> Tensor:
            rate: Any = None
            for factor, turn, value in zip(factors, self.split(change), below, strict=False):
                turned = turn if value is None else _times(turn, value)
                rate = turned if rate is None else torch.baddbmm(turned, factor, rate)
            return rate[:, self.wrong, self.of] - rate[:, self.winner, self.of]

        def pull(pairs: Tensor, out: Tensor) -> None:
            back = pairs.new_zeros(len(pairs), rows, columns)
            back[:, self.wrong, self.of] = pairs
            back[:, self.true, self.sample] = -back.sum(-2)
            _back_propagate(factors, below, back, self.split(out))

        return Linearised(weights, theta, push, pull)

    def _pair_kernel(self, left: Tensor, right: Tensor) -> Tensor:
        """Θ ``(batch, M, M)`` from the products ``(batch, K², L)`` above and ``(batch, L, N²)`` below the factors."""
        whole = torch.bmm(left, right).flatten(1)
        ww, wc, cw, cc = (whole[:, index] for index in self.kernel)
        return ww.sub_(wc).sub_(cw).add_(cc)

    def saddle_rank(self, flat: Tensor, slope: Tensor) -> Tensor:
        """Rank of Z where the slope is rounding noise beside what the factors above and below would let through."""
        factors = self.split(flat)
        *below, Z = _below(factors)
        sizes = [[1.0 if M is None else norm(M.flatten(1)) for M in side] for side in (_above(factors), below)]
        through = sum(above * below for above, below in zip(*sizes, strict=True))
        stalled = norm(slope) <= 1e-12 * norm(self.evaluate(Z)[1].flatten(1)) * through
        if not stalled.any():
            return torch.full_like(stalled, -1, dtype=torch.int64)
        return torch.where(stalled, numerical_rank(Z, 1e-6), -1)


def _price(shapes: Sequence[tuple[int, ...]], pairs: int) -> float:
    """Cost of an implicit step in explicit ones: within a factor of two of times, K = 3 … 24, d = 8 … 256."""
    explicit = 21 * shapes[0][1] * sum(rows * columns for rows, columns in shapes)
    return 3.2 + (15 * len(shapes) * pairs**2 + 0.5 * pairs**3) / explicit


def _times(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``, around the slow path that torch takes for tiny batched products: one network is no batch."""
    if left.ndim != 3:
        return left @ right
    (batch, rows, inner), columns = left.shape, right.shape[-1]
    size = rows * inner * columns
    if batch == 1 and size < _TINY:
        return (left[0] @ right[0]).unsqueeze(0)
    if not 100 <= size < _TINY or left.device.type != "cpu":
        return torch.bmm(left, right)  # what @ calls, after as long again
    if columns > rows:
        return _times(right.mT, left.mT).mT
    right = torch.nn.functional.pad(right, (0, math.ceil(_TINY / (rows * inner)) - columns))  # by columns of zeros
    return torch.bmm(left, right)[..., :columns]


def _below(factors: Sequence[Tensor]) -> list[Any]:
    """What each factor is applied to, None for the features, and Z after them."""
    return [None, *accumulate(factors, lambda below, factor: _times(factor, below))]


def _above(factors: Sequence[Tensor]) -> list[Any]:
    """What is applied to the output of each factor, None for the classifier."""
    return [None, *accumulate(factors[:0:-1], _times)][::-1]


def _matrix_field(
    factors: Sequence[Tensor], out: Sequence[Tensor], evaluate: Callable[[Tensor], tuple[Tensor, Tensor]] = evaluate
) -> tuple[Tensor, Tensor]:
    """Write −∂ log ℒ/∂W_l into ``out``; return log ℒ and −∂ log ℒ/∂Z."""
    below = _below(factors)
    log_loss, residual = evaluate(below[-1])
    _back_propagate(factors, below, residual, out)
    return log_loss, residual


def _back_propagate(factors: Sequence[Tensor], below: Sequence[Any], back: Tensor, out: Sequence[Tensor]) -> None:
    """Write Jᵀ of ``back``, a slope in Z, into ``out``; ``below[l]`` is what factor l is applied to."""
    for layer in range(len(factors) - 1, 0, -1):
        out[layer].copy_(_times(back, below[layer].mT))
        back = _times(factors[layer].mT, back)
    out[0].copy_(back)


guard(globals())
