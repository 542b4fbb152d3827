r"""Gradient descent with finite steps, and where it ends.

A step of size η adds :math:`\eta F`, :math:`F = -\nabla\mathcal L`.  For the singular value :math:`w_i = s_i^{1/L}`
that the factors of :func:`dufm.spectral_init` share it is exactly

.. math:: w_i^+ = w_i\,(1 + \eta\,w_i^{L-2}g_i),

with the force g_i > 0 of :mod:`dufm.spectral`: values only grow and the loss only falls, whatever η is.
Small steps follow, to O(η²), the flow of :math:`\mathcal L + \tfrac\eta4\|\nabla\mathcal L\|^2` (Barrett & Dherin
2021).  Descent needs e^m steps to reach margin m, so it is handed over to the flow where the loss is small, and its end
is that of the flow from there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import torch
from scipy.integrate import quad
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._scaling import check_in_range
from dufm._stepping import recorded
from dufm._steps import Model
from dufm._together import check_once
from dufm.ends import UNDECIDED, end, limit, spectral_end
from dufm.flow import gradient_descent, gradient_flow
from dufm.groups import Group, check_spectrum
from dufm.perturbation import forces
from dufm.spectral import SpectralModel, spectral_init
from dufm.width import random_start

__all__ = [
    "CELL",
    "Descent",
    "again",
    "against_flow",
    "by_step",
    "collapses",
    "modified_flow",
    "network_ends",
    "one_step_share",
    "peaks",
    "sharpness",
    "spectral_descent",
    "spectral_ends",
    "spectral_starts",
]

HANDOVER = -6.0  # log loss at which descent is handed over to the flow
_GROWTH = 0.01  # relative length of a step of the modified flow


@dataclass(frozen=True)
class Descent:
    """End of a descent, one entry a start.

    ``s`` ``(..., F)`` spectra; ``log_loss``; both inf or NaN where it diverged; ``steps`` taken; ``rises``: steps that
    raised the loss.
    """

    s: torch.Tensor
    log_loss: torch.Tensor
    steps: torch.Tensor
    rises: torch.Tensor


@torch.no_grad()
def spectral_descent(
    s0: Tensor, depth: int, group: Group, lr: float, *, until_log_loss: float = HANDOVER, max_steps: int = 100_000
) -> Descent:
    """Descend with steps ``lr`` from singular values ``s0`` ``(..., F)`` until log ℒ is ``until_log_loss`` or less.

    ``s0``, ``group`` and ``DufmError`` as in :func:`dufm.spectral_flow`; ``lr`` positive.  A start that is not there
    after ``max_steps`` is returned as it is.  Returns :class:`Descent`.
    """
    model = _model(s0, depth, group)
    state, *rest = _descend(model, model.flatten(s0), lr, until_log_loss, max_steps)
    return Descent(model.spectrum(state).reshape(s0.shape), *(part.reshape(s0.shape[:-1]) for part in rest))


def _model(s0: Tensor, depth: int, group: Group) -> SpectralModel:
    return SpectralModel(check_spectrum(s0, group), depth, s0)


def _descend(
    model: Model, state: Tensor, lr: float, until: float, max_steps: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """States, log losses, numbers of steps and of rises of the loss; a start that leaves the floats stops there."""
    state = state.clone()
    reached = torch.full(state.shape[:1], torch.inf, dtype=state.dtype)
    steps, rises = (torch.zeros(state.shape[:1], dtype=torch.int64) for _ in range(2))
    rows = torch.arange(len(state))
    for number in range(max_steps + 1):
        slope = torch.empty_like(state[rows])
        now = model.field(state[rows], slope)[0]
        rises[rows] += now > reached[rows] * (1 + torch.sign(reached[rows]) * 1e-14)
        reached[rows] = now
        going = (now > until) & now.isfinite()
        rows, slope, now = rows[going], slope[going], now[going]
        if not len(rows) or number == max_steps:
            break
        state[rows] += lr * now.exp().unsqueeze(-1) * slope
        steps[rows] += 1
    return state, reached, steps, rises


@torch.no_grad()
def modified_flow(s0: Tensor, depth: int, group: Group, lr: float, *, until_log_loss: float = HANDOVER) -> Tensor:
    r"""Spectra ``(..., F)`` near log ℒ = ``until_log_loss`` along the flow that descent follows to O(lr²).

    Its field is :math:`F - \tfrac\eta2 F'F`, or :math:`-\nabla(\mathcal L + \tfrac\eta4\|\nabla\mathcal L\|^2)`;
    ``lr = 0`` is the flow.  Classical Runge–Kutta steps of 1% of the state each, F' along F by a central difference.
    Arguments and ``DufmError`` as :func:`spectral_descent`; also ``DufmError`` where the loss does not fall that far.
    """
    model = _model(s0, depth, group)

    def field(u: Tensor) -> tuple[Tensor, Tensor]:
        slope = torch.empty_like(u)
        now = model.field(u, slope)[0]
        return now, now.exp().unsqueeze(-1) * slope

    def modified(u: Tensor) -> tuple[Tensor, Tensor]:
        now, F = field(u)
        small = 1e-5 * u.norm(dim=-1, keepdim=True) / F.norm(dim=-1, keepdim=True)
        turned = (field(u + small * F)[1] - field(u - small * F)[1]) / (2 * small)
        return now, F - lr / 2 * turned

    state = model.flatten(s0)
    rows = torch.arange(len(state))
    for _ in range(5000):
        u = state[rows]
        now, first = modified(u)
        going = now > until_log_loss
        rows, u, first = rows[going], u[going], first[going]
        if not len(rows):
            check_in_range("lr: the flow", state)
            return model.spectrum(state).reshape(s0.shape)
        h = _GROWTH * u.norm(dim=-1, keepdim=True) / first.norm(dim=-1, keepdim=True)
        second = modified(u + h / 2 * first)[1]
        third = modified(u + h / 2 * second)[1]
        fourth = modified(u + h * third)[1]
        state[rows] = u + h / 6 * (first + 2 * second + 2 * third + fourth)
    raise DufmError(f"{len(rows)} of {len(state)} starts do not reach log loss {until_log_loss:g}: lower lr")


def collapses(s: Tensor, depth: int, group: Group) -> Tensor:
    """Which spectra ``(..., F)`` the flow takes to neural collapse: 1, another end 0, undecided −1; ``(...)``."""
    found = spectral_end(s, depth, group)
    kept = (found.spectrum > 0).all(-1).long()
    return torch.where(found.decided, kept, -1)


def spectral_starts(seeds: Sequence[int], num_classes: int, scale: float) -> Tensor:
    """Singular values ``(len(seeds), K − 1)`` of uniform direction on the simplex and mean ``scale``, one a seed."""
    draws = np.stack([np.random.default_rng(seed).dirichlet(np.ones(num_classes - 1)) for seed in seeds])
    starts = torch.from_numpy(draws.clip(1e-12)) * (num_classes - 1) * scale
    check_in_range("scale: a singular value", starts)
    return starts


def spectral_ends(
    seeds: Sequence[int],
    num_classes: int,
    depth: int,
    scale: float,
    lr: float,
    handover: float = HANDOVER,
    modified: bool = False,
) -> dict[str, Any]:
    """Where descent with steps ``lr`` from Hadamard spectra ends, one start a seed: a task for ``sweep.run``.

    Directions are uniform on the simplex, of mean ``scale``; ``lr = 0`` is the flow; ``modified``: along
    :func:`modified_flow` instead, with no step of descent.  Columns ``name``, "NC", "other" or "undecided", and
    ``rises``, the number of steps that raised the loss.
    """
    s0 = spectral_starts(seeds, num_classes, scale)
    rises = torch.zeros(len(s0), dtype=torch.int64)
    if modified:
        s0 = modified_flow(s0, depth, "hadamard", lr, until_log_loss=handover)
    elif lr:
        run = spectral_descent(s0, depth, "hadamard", lr, until_log_loss=handover)
        s0, rises = run.s, run.rises
    names = np.array(["other", "NC", UNDECIDED])[collapses(s0, depth, "hadamard").numpy()]
    return {"name": names, "rises": rises.numpy()}


def against_flow(s: Tensor, depth: int, group: Group, lr: float) -> tuple[int, int]:
    """Pairs of values of ``s`` ``(..., F)`` whose ratio descent widens and the flow does not, or the reverse.

    Descent takes one step of full matrices; the flow is read from ``s_i^{1−2/L} g_i``.  Pairs that agree in it to 1e-9
    are left out, and values that the step leaves below 1e-6 of the largest, which rounding of the product hides.
    Returns their number and that of all pairs compared.  ``DufmError`` as :func:`dufm.spectral_flow`.
    """
    chi = check_spectrum(s, group)
    after = chi.spectrum(gradient_descent(spectral_init(s, depth, chi), lr=lr, steps=1).Z)[0]
    pull = (s ** (1 - 2 / depth) * forces(s, chi)).log()
    i, j = torch.triu_indices(chi.num_free, chi.num_free, 1)
    growth = (after / s).log()
    pulled, widened = pull[..., i] - pull[..., j], growth[..., i] - growth[..., j]
    known = after > 1e-6 * after.amax(-1, keepdim=True)
    clear = (pulled.abs() > 1e-9) & known[..., i] & known[..., j]
    return int(((pulled > 0) != (widened > 0))[clear].sum()), int(clear.sum())


#: What makes a cell.
CELL = ["part", "num_classes", "depth", "width", "scale", "first"]


def again(row: Mapping[str, Any]) -> pandas.DataFrame:
    """Run a row of a table of :func:`by_step` again: the seeds from ``first`` on, width 0 for spectral starts.

    ``row``: a mapping with the columns of ``CELL``, ``lr`` and ``starts``.  Returns the runs, a row a start.
    """
    seeds = list(range(row["first"], row["first"] + row["starts"]))
    if row["width"]:
        names = ("num_classes", "depth", "width", "scale", "lr")
        found = network_ends(seeds, *(row[name] for name in names))
    else:
        found = spectral_ends(seeds, *(row[name] for name in ("num_classes", "depth", "scale", "lr")))
    columns = {"seed": seeds, "name": found["name"], "rises": found["rises"]}
    return pandas.DataFrame(columns).assign(**{key: row[key] for key in [*CELL, "lr"]})


def by_step(runs: pandas.DataFrame, keys: Sequence[str] = CELL) -> pandas.DataFrame:
    """Counts of a table of runs, a row a cell of ``keys`` and ``lr``: each start beside itself under the flow, lr = 0.

    ``runs``: a row a start of ``keys``, ``lr``, ``seed``, ``name`` and ``rises``.  Columns ``starts``, ``collapse``,
    ``undecided``, ``rising`` (starts whose loss rose), ``gained`` and ``lost`` (starts that collapse here and not under
    the flow, and the reverse) and ``elsewhere`` (those that end with another name); a start without a row of the flow
    is in none of these three.
    """
    check_once("runs", runs[runs.lr == 0], [*keys, "seed"])
    flow = runs[runs.lr == 0].set_index([*keys, "seed"])["name"]
    was = flow.reindex(pandas.MultiIndex.from_frame(runs[[*keys, "seed"]])).to_numpy()
    here, there, known = runs.name == "NC", was == "NC", ~pandas.isna(was)
    counted = {
        "collapse": here,
        "undecided": runs.name == UNDECIDED,
        "rising": runs.rises > 0,
        "gained": known & here & ~there,
        "lost": ~here & there,
        "elsewhere": known & (runs.name != was),
    }
    table = runs[[*keys, "lr"]].assign(starts=1, **counted)
    return table.groupby([*keys, "lr"], as_index=False).sum()


def one_step_share(depth: int) -> float:
    r"""Share of small directions at K = 4 that collapse in the limit of an infinite step.

    With :math:`\alpha = (L-1)(L-2)/L` these are the :math:`s_1\ge s_2\ge s_3` of
    :math:`s_3^{-\alpha} < s_1^{-\alpha} + s_2^{-\alpha}`, uniform on the simplex; by quadrature over s_1/s_2.
    ``DufmError`` for a depth below 3.
    """
    alpha = (check_count("depth", depth, 3) - 1) * (depth - 2) / depth

    def density(x: float) -> float:  # x = s_2/s_1 in (0, 1]
        c = 1 / x
        return 6 * ((c + 1 + (c**-alpha + 1) ** (-1 / alpha)) ** -2 - (c + 2) ** -2) * c**2

    return quad(density, 0, 1, epsabs=1e-12)[0]


@torch.no_grad()
def sharpness(factors: Sequence[Tensor]) -> float:
    """Largest eigenvalue of the Hessian of ℒ in all n entries of the factors of one network, by central differences.

    A float; ``DufmError`` for bad factors.
    """
    factors = [W.unsqueeze(0) for W in factors]
    model = FactorModel(factors)
    flat, small = model.flatten(factors), 1e-5
    ways = small * torch.eye(flat.shape[1], dtype=flat.dtype)
    probes = torch.cat([flat + ways, flat - ways])
    slopes = torch.empty_like(probes)
    now = model.field(probes, slopes)[0]
    ahead, behind = (-now.exp().unsqueeze(-1) * slopes).chunk(2)
    hessian = (ahead - behind) / (2 * small)
    return float(torch.linalg.eigvalsh((hessian + hessian.mT) / 2)[-1])


def peaks(seeds: Sequence[int], num_classes: int, depth: int, width: int, scale: float) -> dict[str, np.ndarray]:
    """Largest sharpness at ten losses of the flow from fan-in Gaussian starts: ``peak``, for ``sweep.run``."""
    factors = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=seeds)
    levels = torch.linspace(math.log(num_classes * math.log(num_classes)) - 0.05, -2, 10).tolist()
    path = recorded(gradient_flow(factors, until_log_loss=levels[-1], record={"log_loss": levels}).history)
    known = path.log_loss.isfinite()
    if not known.any(0).all():
        raise DufmError(f"scale must let every network reach a log loss of {levels[0]:.3g}, got {scale:g}")
    sharp = [
        max(sharpness([W[level, i] for W in path.factors]) for level in known[:, i].nonzero().flatten().tolist())
        for i in range(len(seeds))
    ]
    return {"peak": np.array(sharp)}


def network_ends(
    seeds: Sequence[int],
    num_classes: int,
    depth: int,
    width: int,
    scale: float,
    lr: float,
    until_log_loss: float = HANDOVER,
    max_steps: int = 20_000,
) -> dict[str, np.ndarray]:
    """Certified end of descent with steps ``lr`` from fan-in Gaussian starts, one a seed: a task for ``sweep.run``.

    ``lr = 0`` is the flow.  Columns ``name`` and ``reason`` of :func:`dufm.end`, ``rises`` of :class:`Descent`.  A
    network that diverges, or is not at ``until_log_loss`` after ``max_steps``, is undecided and says so.
    """
    factors = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=seeds)
    rises, name = np.zeros(len(seeds), dtype=np.int64), np.full(len(seeds), UNDECIDED, dtype=object)
    there, reason = np.arange(len(seeds)), np.full(len(seeds), "", dtype=object)
    if lr:
        model = FactorModel(factors)
        state, reached, _, rising = _descend(model, model.flatten(factors), lr, until_log_loss, max_steps)
        late = f"log loss above {until_log_loss:g} after {max_steps} steps"
        reason = np.where(reached.isfinite(), late, "diverged").astype(object)
        there, factors, rises = np.flatnonzero(reached <= until_log_loss), model.split(state), rising.numpy()
    if len(there):
        run = gradient_flow([W[there] for W in factors], until_log_loss=-1000.0, rtol=1e-3)
        found = end(limit(run), depth)
        name[there], reason[there] = found.name, found.reason
    return {"name": name.astype(str), "reason": reason.astype(str), "rises": rises}


guard(globals())
