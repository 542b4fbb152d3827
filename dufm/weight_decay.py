r"""Weight decay: the explicit bias to low rank, beside the implicit one.

Decay λ adds :math:`\tfrac\lambda2\sum_l\|W_l\|_F^2` to ℒ.  Imbalances fade like :math:`e^{-2\lambda t}`, so every point
of rest is balanced, a stationary point of :math:`\mathcal L(Z) + \tfrac{\lambda L}2\sum_i\sigma_i(Z)^{2/L}`.  Neural
collapse ``Z = sC`` is at rest where

.. math:: \lambda = K\,s^{q}/(e^s + K - 1),\qquad q = 1 - 2/L,

and for K ≥ 4 a minimum, up to turns of the factors, iff ``s > Kq``: iff λ is below :func:`critical_decay`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from dufm._checks import check_count, check_factors
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._methods import BS32
from dufm._scaling import check_in_range, norm
from dufm._together import check_once
from dufm.codes import name_of
from dufm.descent import spectral_ends, spectral_starts
from dufm.ends import UNDECIDED
from dufm.loss import evaluate
from dufm.margin import schatten
from dufm.metrics import centred, margins, numerical_rank
from dufm.model import balanced_init, chain
from dufm.spectral import spectral_init
from dufm.width import ends, random_start

__all__ = [
    "CELL",
    "Rested",
    "again",
    "by_decay",
    "critical_decay",
    "decay_ends",
    "decayed_flow",
    "factor_hessian",
    "least_cost",
    "threshold",
]

#: What makes a cell.
CELL = ["num_classes", "depth", "width", "scale", "decay", "first"]
RUNG = "rank 4: 2+1+1"
ZERO = "zero"
_RESTS, _MOVES = "rests", "still moving"
_AT_REST = 1e-8
# At rest a dropped value has σ^{1/L} below the residual.
_KEPT, _EQUAL = 1e-9, 1e-4


def critical_decay(num_classes: int, depth: int) -> float:
    r"""Decay :math:`K(Kq)^q/(e^{Kq}+K-1)`, q = 1 − 2/L, from which on neural collapse is no minimum; K ≥ 4.

    ``DufmError`` for other counts.
    """
    K, q = check_count("num_classes", num_classes, 4), 1 - 2 / depth
    return K * (K * q) ** q * math.exp(-K * q) / (1 + (K - 1) * math.exp(-K * q))


# ---------------------------------------------------------------- the cost and its stationary points


def least_cost(Z: Tensor, depth: int, decay: float) -> tuple[float, float]:
    r"""Scale c and cost :math:`\min_{c\ge1/2}\mathcal L(cZ)+\tfrac{\lambda L}2\sum_i\sigma_i(cZ)^{2/L}`.

    ``Z``: one matrix ``(K, K)`` of smallest margin 1, or another positive one.  Smaller c, on the way to zero, are left
    out.  ``DufmError`` for a decay or a margin that is not positive.
    """
    Z = Z.detach()
    smallest = float(margins(Z).amin())
    if smallest <= 0:
        raise DufmError(f"Z must have positive margins, the smallest is {smallest:g}")
    price = decay * depth / 2 * float(schatten(Z, 2 / depth)) ** (2 / depth)

    def cost(log_scale: float | np.ndarray) -> np.ndarray:
        scale = torch.as_tensor(log_scale, dtype=Z.dtype).exp()[..., None, None]
        return (evaluate(scale * Z)[0].exp() + price * scale[..., 0, 0] ** (2 / depth)).numpy()

    most = math.log((200 + 8 * abs(math.log(decay))) / smallest)
    if not math.log(0.5) < most < math.inf:
        raise DufmError(f"Z must have smallest margin 1, or near it, got {smallest:g}")
    grid = np.linspace(math.log(0.5), most, 200)
    best = int(np.argmin(cost(grid)))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, 199)]
    found = minimize_scalar(lambda x: float(cost(x)), bounds=bounds, method="bounded")
    return math.exp(found.x), found.fun


def _value(shapes: Sequence[torch.Size], decay: float) -> Callable[[Tensor], Tensor]:
    """ℒ/λ + Σ‖W_l‖²/2 as a function of all entries of the factors."""
    sizes = [math.prod(shape) for shape in shapes]

    def value(flat: Tensor) -> Tensor:
        Z = chain([part.reshape(shape) for part, shape in zip(flat.split(sizes), shapes, strict=True)])
        wrong = (Z - Z.diagonal()).exp() * (1 - torch.eye(len(Z)).to(Z))
        return torch.log1p(wrong.sum(0)).sum() / decay + flat.square().sum() / 2

    return value


def factor_hessian(factors: Sequence[Tensor], decay: float) -> Tensor:
    """Hessian of ℒ/λ + Σ‖W_l‖²/2 in all entries of one network's factors, by automatic differentiation; N = K.

    ``(n, n)``; ``DufmError`` for bad factors.
    """
    found = _hessian(_value([W.shape for W in factors], decay))(torch.cat([W.reshape(-1) for W in factors]))
    check_in_range("factors: the Hessian", found)
    return found


def _hessian(value: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    # Reverse over reverse: torch's forward mode compiles with what Python 3.14 no longer has.
    return torch.func.jacrev(torch.func.grad(value))


def _stationary(factors: Sequence[Tensor], decay: float) -> tuple[Sequence[Tensor], float]:
    """Where Newton's method from factors ends, and the least eigenvalue there: −inf where it does not converge."""
    shapes = [W.shape for W in factors]
    value, x = _value(shapes, decay), torch.cat([W.reshape(-1) for W in factors])
    slope, hessian = torch.func.grad(value), _hessian(value)
    for _ in range(12):
        g = slope(x)
        if not g.isfinite().all():
            break
        values, vectors = torch.linalg.eigh(hessian(x))
        if g.norm() < 1e-9 * x.norm():
            parts = x.split([W.numel() for W in factors])
            return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)], float(values[0])
        # Turns of the factors cost nothing: their eigenvalues vanish.
        inverse = torch.where(values.abs() > 1e-7, 1 / values, 0.0)
        x = x - vectors @ (inverse * (vectors.mT @ g))
    return factors, -math.inf


def threshold(Z: Tensor, depth: int, low: float, *, precision: float = 1e-5) -> float:
    r"""Decay up to which a minimum near the direction of ``Z`` ``(K, K)`` persists, followed upwards from ``low``.

    Newton's method on all factors, of width rank Z, from the minimum at the last decay, in steps of log λ that are
    halved where it leaves that minimum or finds a negative curvature, down to ``precision``.  ``DufmError`` where there
    is no minimum at ``low``.
    """
    Z, rank = Z.detach(), int(numerical_rank(Z, 1e-6))
    scale = least_cost(Z, depth, low)[0]
    at, least = _stationary(balanced_init(scale * Z, depth, rank), low)
    if least < -1e-6:
        raise DufmError(f"low must be a decay with a minimum near Z, got {low:g}")
    decay, step = low, 1.0
    while step > precision:
        trial = decay * math.exp(step)
        ratio = least_cost(Z, depth, trial)[0] / scale
        found, least = _stationary([ratio ** (1 / depth) * W for W in at], trial)
        near = torch.linalg.matrix_norm(chain(found) / ratio - chain(at)) < 0.3 * torch.linalg.matrix_norm(chain(at))
        if least > -1e-6 and near:
            at, decay, scale = found, trial, scale * ratio
        else:
            step /= 2
    return decay


# ---------------------------------------------------------------- the flow


@dataclass(frozen=True)
class Rested:
    """End of :func:`decayed_flow`, one entry a network.

    ``factors``; ``residual``: gradient over λ‖W‖; ``status``, a NumPy array: "rests", "zero" or "still moving";
    ``steps``.
    """

    factors: list[Tensor]
    residual: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor

    @property
    def Z(self) -> Tensor:
        """Logits ``(batch, K, N)``."""
        return chain(self.factors)


@torch.no_grad()
def decayed_flow(factors: Sequence[Tensor], decay: float, *, rtol: float = 1e-4, max_steps: int = 20_000) -> Rested:
    r"""Follow :math:`\dot W_l = -\partial\mathcal L/\partial W_l - \lambda W_l` until it rests, a clock a network.

    ``factors``: shapes ``(batch, d_l, d_{l−1})``.  Bogacki and Shampine's pair 3(2), local error below ``rtol`` times
    ‖W‖ or the gradient over λ, whichever is less.  A network rests where its gradient is below 1e-8 λ‖W‖, and goes to
    zero where :math:`\rho = \sum_l\|W_l\|^2/L` obeys :math:`\sqrt{2K}\rho^{L/2} < \lambda\rho`, L ≥ 3: ρ only falls
    from there; factors of zeros are there.  Returns :class:`Rested`.  ``DufmError`` for bad factors or a decay that is
    not positive.
    """
    num_classes, _, batch = check_factors(factors)
    if len(batch) != 1:
        raise DufmError(f"factors must have one batch dimension, got {tuple(batch)}")
    model, depth = FactorModel(factors), len(factors)

    def field(x: Tensor) -> Tensor:
        out = torch.empty_like(x)
        log_loss = model.field(x, out)[0]
        return out.mul_(log_loss.exp().unsqueeze(-1)).sub_(x, alpha=decay)

    x = model.flatten(factors)
    state, residual = x.clone(), x.new_full(x.shape[:1], torch.inf)
    steps, status = torch.zeros(len(x), dtype=torch.int64), np.full(len(x), _MOVES, dtype=object)
    rows, F = torch.arange(len(x)), field(x)
    h = 1e-3 * norm(x) / norm(F)
    for number in range(max_steps + 1):
        size, speed = norm(x), norm(F)
        left, rho = torch.where(size > 0, speed / (decay * size), 0.0), size.square() / depth
        rests = left < _AT_REST
        fades = (math.sqrt(2 * num_classes) * rho ** (depth / 2) < decay * rho) & (depth > 2) | (size == 0)
        done = rests | fades | (number == max_steps)
        if done.any():
            at = rows[done]
            state[at], residual[at], steps[at] = x[done], left[done], number
            status[at.numpy()] = np.where(fades[done], ZERO, np.where(rests[done], _RESTS, _MOVES))
            rows, x, F, h, size, speed = (part[~done] for part in (rows, x, F, h, size, speed))
            if not len(rows):
                break
        slopes = [F]
        for row in BS32.rows:
            new = x + h.unsqueeze(-1) * sum(weight * slope for weight, slope in zip(row, slopes, strict=True))
            slopes.append(field(new))
        apart: Any = sum(weight * slope for weight, slope in zip(BS32.error, slopes, strict=True))
        error = h * norm(apart)
        # Relative to the way left as well: bounded by ‖W‖ alone, the stiff part would rattle and never rest.
        error = (error / (rtol * torch.minimum(size, speed / decay))).nan_to_num(torch.inf)
        good = (error <= 1).unsqueeze(-1)
        x, F = torch.where(good, new, x), torch.where(good, slopes[-1], F)
        h = h * (0.9 * error.clamp(min=1e-9) ** (-1 / 3)).clamp(0.2, 4.0)
    return Rested(model.split(state), residual, status, steps)


def _names(Z: Tensor) -> np.ndarray:
    """Names of centred logits at rest: a known code's, else the rank and how often each singular value stands."""
    smallest = margins(Z).amin((-2, -1))
    names = name_of(Z / torch.where(smallest > 0, smallest, 1.0)[:, None, None]).astype(object)
    sigma, ranks = torch.linalg.svdvals(Z), numerical_rank(Z, _KEPT).tolist()
    for index, rank in enumerate(ranks):
        if smallest[index] <= 0 or names[index].startswith("rank"):
            kept = sigma[index, :rank]
            runs = torch.tensor_split(kept, (kept[1:] < (1 - _EQUAL) * kept[:-1]).nonzero().flatten() + 1)
            names[index] = f"rank {rank}: " + "+".join(str(len(run)) for run in runs)
    return names


def decay_ends(
    seeds: Sequence[int], num_classes: int, depth: int, width: int, scale: float, decay: float
) -> dict[str, Any]:
    """Where the flow with weight decay rests, one start a seed: a task for ``sweep.run``.

    Width 0: Hadamard spectra as in :func:`dufm.descent.spectral_ends`; else fan-in Gaussian factors.  Decay 0 is the
    unregularised flow, to its certified end.  Columns ``name``, that of a known code, "zero", "undecided" or rank and
    multiplicities as in "rank 4: 2+1+1"; and ``steps``.
    """
    if not decay:
        if width:
            return {"name": ends(seeds, num_classes, depth, width, scale)["name"], "steps": 0}
        return {"name": spectral_ends(seeds, num_classes, depth, scale, 0.0)["name"], "steps": 0}
    if width:
        start = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=seeds)
    else:
        start = spectral_init(spectral_starts(seeds, num_classes, scale), depth, "hadamard")
    run = decayed_flow(start, decay)
    names = np.where(run.status == _RESTS, _names(centred(run.Z)), np.where(run.status == ZERO, ZERO, UNDECIDED))
    return {"name": names.astype(str), "steps": run.steps.numpy()}


def again(row: Mapping[str, Any]) -> pandas.DataFrame:
    """Runs of a row of a table of :func:`by_decay`: a mapping with the columns of ``CELL`` and ``starts``."""
    seeds = list(range(row["first"], row["first"] + row["starts"]))
    found = decay_ends(seeds, *(row[name] for name in CELL[:-1]))
    return pandas.DataFrame({"seed": seeds, "name": found["name"]}).assign(**{name: row[name] for name in CELL})


def by_decay(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Counts of a table of runs, a row a cell of ``CELL``, each start beside itself without decay.

    ``runs``: a row a start, with ``seed`` and ``name``.  Columns ``starts``, ``collapse``, ``rung`` (two pairs and two
    single classes), ``one`` (rank 1), ``zero``, ``undecided`` and ``moved``: collapse here and not without decay, or
    the reverse; a start without a row of no decay is not in it.
    """
    keys = [*CELL[:-2], "first", "seed"]
    check_once("runs", runs[runs.decay == 0], keys)
    free = runs[runs.decay == 0].set_index(keys)["name"].reindex(pandas.MultiIndex.from_frame(runs[keys])).to_numpy()
    counted = {
        "collapse": runs.name == "NC",
        "rung": runs.name.isin([RUNG, "2 pairs, 2 single"]),
        "one": runs.name.str.startswith("rank 1"),
        "zero": runs.name == ZERO,
        "undecided": runs.name == UNDECIDED,
        "moved": ~pandas.isna(free) & ((runs.name == "NC") != (free == "NC")),
    }
    return runs[CELL].assign(starts=1, **counted).groupby(CELL, as_index=False).sum()


guard(globals())
