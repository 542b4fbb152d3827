r"""The same flow by other hands: what a reader would otherwise run, each with a meter.

Every function takes the factors ``[W_1, …, W_L]`` of one network, each ``(d_l, d_{l-1})``, and ascending levels of
m = −log ℒ, and returns its logits at the levels, ``(levels, K, K)``, NaN where it does not come to one, and a
:class:`Meter`.  What can follow a field in any clock is given :math:`dW/dm = F/\|F\|^2`, :math:`F = -\nabla\log\mathcal
L`: the path of the flow, at finite speed and ended exactly at the target.  In its own time the same path takes
:math:`e^m`, and descent with constant steps has to live through that.

torchdiffeq and diffrax are asked for where they are used: ``pip install 'dufm[notebooks]'`` and ``'dufm[bench]'``.
"""

import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dufm._checks import short
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._scaling import check_in_range, in_range
from dufm.model import chain

__all__ = [
    "ClosedForm",
    "Meter",
    "adam",
    "constant_steps",
    "dopri5",
    "kvaerno5",
    "log_loss",
    "loss_scaled",
    "path_error",
    "stiff",
]


class Meter:
    """What a run has cost when it first passed each level: ``marks`` ``(levels, 3)``, NaN where it did not.

    The columns are gradients, processor seconds and wall seconds; ``gradients`` is counted by who takes them,
    ``reached`` is the last m.  ``DufmError`` for levels that do not increase.
    """

    def __init__(self, levels: Sequence[float]) -> None:
        self.levels, self.level, self.reached = list(levels), 0, -math.inf
        if any(late <= early for early, late in itertools.pairwise(self.levels)):
            raise DufmError(f"levels must increase, got {short(self.levels)}")
        self.gradients: float = 0
        self.marks = np.full((len(self.levels), 3), np.nan)
        self.began = self.clocks()

    @staticmethod
    def clocks() -> np.ndarray:
        """Processor and wall seconds now."""
        return np.array([time.process_time(), time.perf_counter()])

    def so_far(self) -> np.ndarray:
        """Gradients, processor seconds and wall seconds until now."""
        return np.array([self.gradients, *(self.clocks() - self.began)])

    def passed(self, m: float) -> int:
        """Note that the run has come to m; the number of levels passed for the first time."""
        known, self.reached = self.level, m
        while self.level < len(self.levels) and m >= self.levels[self.level]:
            self.marks[self.level] = self.so_far()
            self.level += 1
        return self.level - known


def path_error(Z: Tensor | np.ndarray, reference: Tensor | np.ndarray) -> Tensor:
    """Distance of the directions ``Z/‖Z‖`` of two logits ``(..., K, N)`` of equal loss; NaN where there are none."""
    Z, reference = (in_range(torch.as_tensor(part * 1.0))[0] for part in (Z, reference))
    return torch.linalg.matrix_norm(
        Z / torch.linalg.matrix_norm(Z, keepdim=True) - reference / torch.linalg.matrix_norm(reference, keepdim=True)
    )


# ---------------------------------------------------------------- plain PyTorch


def log_loss(factors: Sequence[Tensor]) -> Tensor:
    """Log ℒ of one network in the log domain, with its autograd graph."""
    Z = chain(factors)
    wrong = ~torch.eye(len(Z), dtype=torch.bool, device=Z.device)
    gaps = torch.logsumexp((Z - Z.diagonal()).T[wrong].view(len(Z), -1), 1)
    small = gaps < -30.0
    softplus = torch.nn.functional.softplus(torch.where(small, 0.0, gaps))
    log_loss = torch.logsumexp(torch.where(small, gaps, softplus.log()), 0)
    check_in_range("factors: log ℒ", log_loss)
    return log_loss


@torch.inference_mode(False)
def _trained(
    factors: Sequence[Tensor],
    levels: Sequence[float],
    maker: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
    steps: int,
) -> tuple[Tensor, Meter]:
    """Cross-entropy and an optimiser as PyTorch has them, until ``steps`` or until the loss is rounded to 0."""
    weights = [torch.nn.Parameter(W.clone()) for W in factors]
    optimizer, labels = maker(weights), torch.arange(len(factors[-1]))
    meter, Z = Meter(levels), torch.full((len(levels), len(labels), len(labels)), torch.nan, dtype=factors[0].dtype)
    while meter.gradients < steps:
        logits = chain(weights)
        loss = torch.nn.functional.cross_entropy(logits.mT, labels, reduction="sum")
        value = loss.item()
        if value <= 0:
            break
        new = meter.passed(-math.log(value))
        Z[meter.level - new : meter.level] = logits.detach()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.gradients += 1
    return Z, meter


def constant_steps(
    factors: Sequence[Tensor], levels: Sequence[float], lr: float = 0.1, steps: int = 10_000
) -> tuple[Tensor, Meter]:
    """``torch.optim.SGD`` at a constant rate; logits at the levels that it has passed, NaN at the others."""
    return _trained(factors, levels, functools.partial(torch.optim.SGD, lr=lr), steps)


def adam(
    factors: Sequence[Tensor], levels: Sequence[float], lr: float = 1e-3, steps: int = 10_000
) -> tuple[Tensor, Meter]:
    """``torch.optim.Adam`` as it comes, which follows no gradient flow; NaN as in :func:`constant_steps`."""
    return _trained(factors, levels, functools.partial(torch.optim.Adam, lr=lr), steps)


@torch.inference_mode(False)
def loss_scaled(factors: Sequence[Tensor], levels: Sequence[float], epsilon: float = 5e-3) -> tuple[Tensor, Meter]:
    r"""Steps ``ε min(1, 200/‖∇ log ℒ‖²)`` along −∇ log ℒ by autograd: to first order none lowers log ℒ by over 200 ε.

    The rate over the loss of Lyu & Li (2020), capped as in :func:`dufm.flow.loss_scaled_descent`.
    """
    weights = [W.detach().clone().requires_grad_() for W in factors]
    meter, value = Meter(levels), torch.tensor(torch.nan)
    Z: list[Tensor] = []
    while len(Z) < len(levels):
        before, value = value, log_loss(weights)
        slopes = torch.autograd.grad(value, weights)
        with torch.no_grad():
            Z += [chain(weights)] * meter.passed(-value.item())
            steepness = float(sum(slope.square().sum() for slope in slopes))
            if not 0.0 < steepness < math.inf:
                raise DufmError(f"factors must lead to m = {levels[len(Z)]:g}, but rest at {-value.item():g}")
            h = epsilon * min(1.0, 200.0 / steepness)
            if value == before and all(torch.equal(W.sub(s, alpha=h), W) for W, s in zip(weights, slopes, strict=True)):
                raise DufmError(f"epsilon must move the factors, but a step of {h:.3g} is below their rounding")
            for W, slope in zip(weights, slopes, strict=True):
                W.sub_(slope, alpha=h)
        meter.gradients += 1
    return torch.stack(Z), meter


# ---------------------------------------------------------------- solvers of differential equations


def _flat(factors: Sequence[Tensor]) -> Tensor:
    return torch.cat([W.detach().flatten() for W in factors])


def _clock(factors: Sequence[Tensor], levels: Sequence[float]) -> list[float]:
    """Where m starts, and the levels; or ``DufmError`` where they do not increase."""
    clock = [-float(log_loss(factors)), *levels]
    if any(late <= early for early, late in itertools.pairwise(clock)):
        raise DufmError(f"levels must increase from that of the start, {clock[0]:.3g}, got {short(levels)}")
    return clock


def dopri5(factors: Sequence[Tensor], levels: Sequence[float], rtol: float = 1e-3) -> tuple[Tensor, Meter]:
    """Dormand–Prince steps of torchdiffeq; the field by hand in torch, as in :mod:`dufm.flow`."""
    from torchdiffeq import odeint

    model = FactorModel([W.unsqueeze(0) for W in factors])
    state, meter = _flat(factors), Meter(levels)

    def field(m: Tensor, state: Tensor) -> Tensor:
        meter.passed(float(m))
        meter.gradients += 1
        out = torch.empty_like(state.unsqueeze(0))
        model.field(state.unsqueeze(0), out)
        return out[0] / out.square().sum()

    clock = torch.tensor(_clock(factors, levels), dtype=state.dtype)
    states = odeint(field, state, clock, method="dopri5", rtol=rtol, atol=rtol * float(state.std()))
    meter.passed(levels[-1])
    return chain(model.split(states[1:])), meter


class ClosedForm:
    """Field and Jacobian of one network of three layers, ``[A, B, C]``, in the clock m, in closed form and NumPy."""

    def __init__(self, factors: Sequence[Tensor]) -> None:
        if len(factors) != 3:
            raise DufmError(f"the Jacobian in closed form is that of three layers, got {len(factors)}")
        self.shapes = [tuple(W.shape) for W in factors]
        self.cuts = np.cumsum([math.prod(shape) for shape in self.shapes])
        self.wrong, self.of = np.nonzero(~np.eye(self.shapes[-1][0], dtype=bool))
        self.eye, self.parts = np.eye(self.shapes[1][0]), np.split(np.arange(self.cuts[-1]), self.cuts[:-1])

    def split(self, x: np.ndarray) -> list[np.ndarray]:
        """``[A, B, C]`` of a flat state."""
        return [part.reshape(shape) for part, shape in zip(np.split(x, self.cuts[:-1]), self.shapes, strict=True)]

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Z of a flat state."""
        A, B, C = self.split(x)
        return C @ B @ A

    def _loss(self, Z: np.ndarray) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """Log ℒ; λ as a matrix; the softmax of the wrong classes; the slope of softplus."""
        gaps = Z - Z.diagonal()
        np.fill_diagonal(gaps, -np.inf)
        top = gaps.max(0)
        wrong = np.exp(gaps - top)
        total = wrong.sum(0)
        ell = top + np.log(total)
        far = ell < -30
        near = np.where(far, 0.0, ell)
        sigmoid = np.where(far, 0.0, 1 / (1 + np.exp(-near)))
        softplus = np.log1p(np.exp(near))
        sample, slope = np.where(far, ell, np.log(softplus)), np.where(far, 1.0, sigmoid / softplus)
        most = sample.max()
        share = np.exp(sample - most)
        return most + math.log(share.sum()), wrong * (slope * share / share.sum() / total), wrong / total, sigmoid

    def _descent(self, x: np.ndarray) -> tuple[np.ndarray, float, tuple[np.ndarray, ...]]:
        A, B, C = self.split(x)
        BA, CB = B @ A, C @ B
        log_loss, weights, *rest = self._loss(C @ BA)
        G = -weights
        np.fill_diagonal(G, weights.sum(0))
        F = np.concatenate([(CB.T @ G).ravel(), (C.T @ G @ A.T).ravel(), (G @ BA.T).ravel()])
        return F, log_loss, (A, B, C, BA, CB, G, weights, *rest)

    def field(self, _: float, x: np.ndarray) -> np.ndarray:
        """``F/‖F‖²``."""
        F = self._descent(x)[0]
        return F / (F @ F)

    def jacobian(self, _: float, x: np.ndarray) -> np.ndarray:
        """Its derivative ``(n, n)``."""
        F, _, (A, B, C, BA, CB, G, weights, softmax, sigmoid) = self._descent(x)
        K, pairs = len(C), (self.wrong, self.of)
        eye = np.eye(K)
        rate = np.concatenate(
            [
                np.einsum("aj,ck->acjk", CB, eye).reshape(K, K, -1),
                np.einsum("ai,jc->acij", C, A).reshape(K, K, -1),
                np.einsum("ab,ic->acbi", eye, BA).reshape(K, K, -1),
            ],
            axis=2,
        )
        rate = rate[pairs] - rate[self.of, self.of]
        weight = weights[pairs]
        curved = np.diag(weight) - np.outer(weight, weight)
        curved -= (self.of[:, None] == self.of) * np.outer(weight, (softmax * sigmoid)[pairs])
        turn = -rate.T @ curved @ rate
        first, second, third = self.parts
        for rows, columns, block in (
            (second, first, np.einsum("ik,jl->ijlk", C.T @ G, self.eye)),
            (third, second, np.einsum("aj,ib->aibj", G @ A.T, self.eye)),
            (third, first, np.einsum("ak,ij->aijk", G, B)),
        ):
            block = block.reshape(len(rows), len(columns))
            turn[np.ix_(rows, columns)] += block
            turn[np.ix_(columns, rows)] += block.T
        speed = F @ F
        return (turn - np.outer(F, 2 / speed * (F @ turn))) / speed


def stiff(
    factors: Sequence[Tensor], levels: Sequence[float], method: str = "BDF", rtol: float = 1e-3, exact: bool = False
) -> tuple[Tensor, Meter]:
    """SciPy's "BDF", "Radau" or "LSODA"; it differences the Jacobian, a gradient a column, or is given it ``exact``."""
    if method not in ("BDF", "Radau", "LSODA"):
        raise DufmError(f"method must be BDF, Radau or LSODA, got {method!r}")
    peer, meter = ClosedForm(factors), Meter(levels)
    x = _flat(factors).numpy()

    def field(m: float, x: np.ndarray) -> np.ndarray:
        meter.passed(m)
        meter.gradients += 1
        return peer.field(m, x)

    def jacobian(m: float, x: np.ndarray) -> np.ndarray:  # a method of an object, handed to LSODA, kills SciPy 1.16
        return peer.jacobian(m, x)

    keywords = {"jac": jacobian} if exact else {}
    begin, *_, last = _clock(factors, levels)
    run = solve_ivp(field, (begin, last), x, method, t_eval=levels, rtol=rtol, atol=rtol * x.std(), **keywords)
    if not run.success:
        raise DufmError(f"{method} at rtol = {rtol:g}: {run.message}")
    meter.passed(levels[-1])
    return torch.from_numpy(np.stack([peer.logits(state) for state in run.y.T])), meter


def kvaerno5(factors: Sequence[Tensor], levels: Sequence[float], rtol: float = 1e-3) -> tuple[Tensor, Meter]:
    """Kvaerno5 of diffrax, the field by jax's own differentiation; compiled before, gradients not counted (NaN)."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    peer, start = ClosedForm(factors), _flat(factors).numpy()
    own = jnp.eye(len(factors[-1]), dtype=bool)

    def log_loss(x: jax.Array) -> jax.Array:
        A, B, C = (part.reshape(shape) for part, shape in zip(jnp.split(x, peer.cuts[:-1]), peer.shapes, strict=True))
        Z = C @ (B @ A)
        ell = jax.nn.logsumexp(jnp.where(own, -jnp.inf, Z - jnp.diagonal(Z)), axis=0)
        far = ell < -30
        return jax.nn.logsumexp(jnp.where(far, ell, jnp.log(jnp.log1p(jnp.exp(jnp.where(far, 0.0, ell))))))

    def field(m: jax.Array, x: jax.Array, args: None) -> jax.Array:
        F = -jax.grad(log_loss)(x)
        return F / (F @ F)

    @jax.jit
    def solve(x: jax.Array, rtol: float) -> jax.Array:
        control = diffrax.PIDController(rtol=rtol, atol=rtol * jnp.std(x))
        keep = diffrax.SaveAt(ts=jnp.array(levels))
        equation, method, first = diffrax.ODETerm(field), diffrax.Kvaerno5(), -log_loss(x)
        return diffrax.diffeqsolve(
            equation, method, first, levels[-1], None, x, stepsize_controller=control, saveat=keep, max_steps=20_000
        ).ys

    jax.block_until_ready(solve(start, 0.1))
    meter = Meter(levels)
    meter.gradients = math.nan
    states = np.array(jax.block_until_ready(solve(start, rtol)))
    meter.passed(levels[-1])
    meter.marks[:-1] = math.nan
    return torch.from_numpy(np.stack([peer.logits(state) for state in states])), meter


guard(globals())
