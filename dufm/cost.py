r"""What a decided end costs beside other ways to it, and how that grows.

Gradients are counted and belong to the method; processor and wall seconds are measured and belong to the machine too.
A method counts only as far as it stays on the path of the flow: its logits are compared, at equal loss, with those of
SciPy's Radau at rtol 1e-9 under the Jacobian in closed form, which shares nothing with this package's integrator.
"""

import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from dufm import peers
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._limit import continued
from dufm._linearised import Linearised
from dufm.ends import End, end
from dufm.flow import Trajectory, follow_factors
from dufm.model import gaussian_init

__all__ = [
    "AXES",
    "BASE",
    "LEVELS",
    "METHODS",
    "SPENT",
    "compared",
    "decided",
    "ended",
    "flow",
    "followed",
    "grown",
    "starts",
]

#: Levels of m = −log ℒ at which the paths are compared, and the sharpness of :func:`dufm.limit`.
LEVELS = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4]
#: What is spent, in the order of the columns.
SPENT = ("gradients", "processor", "wall")
_SETTINGS = {"rtol": 1e-3, "max_steps": 5000, "record": None}


class _Counted(FactorModel):
    """Counts as gradients: every field, term of the linearisation and product with Jᵀ of every network."""

    gradients = 0

    def field(self, flat: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        self.gradients += len(flat)
        return super().field(flat, out)

    def linearise(self, flat: Tensor) -> Linearised:
        at = super().linearise(flat)
        self.gradients += len(flat)

        def pull(pairs: Tensor, out: Tensor) -> None:
            self.gradients += len(flat)
            at.pull(pairs, out)

        return replace(at, pull=pull)

    def curvature(self, flat: Tensor) -> Tensor:
        self.gradients += len(flat)
        return super().curvature(flat)


def flow(factors: Sequence[Tensor], levels: Sequence[float]) -> tuple[Tensor, peers.Meter]:
    """:func:`dufm.gradient_flow` at rtol 1e-3 as a method of :mod:`dufm.peers`, from the start anew to each level."""
    whole, Z, batch = peers.Meter(levels), [], [W.unsqueeze(0) for W in factors]
    for m in levels:
        whole.began, model = whole.clocks(), _Counted(batch)
        run = follow_factors(model, batch, until_log_loss=-m, **_SETTINGS)
        whole.gradients = model.gradients
        whole.passed(m)
        Z.append(run.Z[0])
    return torch.stack(Z), whole


def decided(factors: Sequence[Tensor]) -> tuple[End, int]:
    """:class:`dufm.End` of a batch from its start, as ``dufm.end(factors, depth)`` gives it, and gradients in all."""
    model = _Counted(factors)
    run = follow_factors(model, factors, until_log_loss=-LEVELS[-1], **_SETTINGS)
    found = continued(model, model.flatten(run.factors), run.status, run.status.shape)
    return end(found, len(factors)), model.gradients


#: The ways to follow one network of three layers; the last needs an extra of its own.
METHODS: dict[str, Callable[[Sequence[Tensor], Sequence[float]], tuple[Tensor, peers.Meter]]] = {
    "dufm": flow,
    "constant steps": peers.constant_steps,
    "Adam": peers.adam,
    "loss-scaled steps": peers.loss_scaled,
    "torchdiffeq dopri5": functools.partial(peers.dopri5, rtol=1e-4),
    "SciPy BDF": functools.partial(peers.stiff, method="BDF"),
    "SciPy Radau": functools.partial(peers.stiff, method="Radau"),
    "SciPy LSODA": functools.partial(peers.stiff, method="LSODA"),
    "BDF, Jacobian": functools.partial(peers.stiff, method="BDF", exact=True),
    "Radau, Jacobian": functools.partial(peers.stiff, method="Radau", exact=True),
    "LSODA, Jacobian": functools.partial(peers.stiff, method="LSODA", exact=True),
    "diffrax Kvaerno5": peers.kvaerno5,
}

#: From where the cost grows.
BASE: dict[str, Any] = {"num_classes": 4, "depth": 3, "width": 16, "batch": 16, "m": 1e4}
#: What grows, and through which values.
AXES: dict[str, Sequence[float]] = {
    "batch": [1, 4, 16, 64, 256],
    "width": [8, 16, 32, 64, 128],
    "depth": [2, 3, 4, 6, 8],
    "num_classes": [3, 4, 6, 8, 10],
    "m": [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8],
}
# A row of a table.
Row = tuple[str | float, ...]
Value = TypeVar("Value")


def starts(seed: int, num_classes: int = 4, depth: int = 3, width: int = 16, batch: int = 16) -> list[Tensor]:
    """Gaussian starts of scale 1/2, which every measurement here uses."""
    return gaussian_init(depth, width, num_classes, scale=0.5, batch=batch, seed=seed)


def _check_method(argument: str, method: str) -> None:
    if method not in METHODS:
        raise DufmError(f"{argument} must be of {', '.join(METHODS)}, got {method!r}")


def compared(pair: int, names: Iterable[str]) -> list[Row]:
    """Rows ``(pair, method, m, *SPENT, error, end)``: network ``pair`` by one method after another, a row a level.

    ``SPENT`` are gradients, processor and wall seconds when m was first passed, ``error`` is that of the path there.
    The last row of a method is where it stopped, without error if that is between two levels; ``end`` is what its
    logits tell at the last level (:func:`dufm.end`).
    """
    network = [W[pair] for W in starts(0, batch=pair + 1)]
    reference, _ = peers.stiff(network, LEVELS, method="Radau", rtol=1e-9, exact=True)
    rows = []
    for name in names:
        _check_method("names", name)
        Z, meter = METHODS[name](network, LEVELS)
        stopped = meter.reached, *meter.so_far().tolist(), math.nan
        errors = peers.path_error(Z, reference).tolist()
        found = list(zip(LEVELS, *meter.marks.T.tolist(), errors, strict=True))[: meter.level]
        found += [stopped] * (meter.level < len(LEVELS))
        ends = [""] * (len(found) - 1) + [str(end(Z[meter.level - 1], len(network)).name)]
        rows += [(pair, name, *row, known) for row, known in zip(found, ends, strict=True)]
    return rows


def _spent(
    factors: Sequence[Tensor], function: Callable[[Sequence[Tensor]], tuple[Value, int]]
) -> tuple[Value, list[float]]:
    """``SPENT`` a network of ``function(factors)``, which returns anything and gradients in all."""
    began = np.array([time.process_time(), time.perf_counter()])
    value, gradients = function(factors)
    took = np.array([time.process_time(), time.perf_counter()]) - began
    return value, (np.array([gradients, *took]) / math.prod(factors[0].shape[:-2])).tolist()


def ended(pair: int, batch: int) -> Row:
    """A row as of :func:`compared` for the decided ends of ``batch`` networks at once, m infinite; costs a network."""
    factors = [W[pair:] for W in starts(0, batch=pair + batch)]
    found, spent = _spent(factors, decided)
    return pair, f"decided end, {batch} at once", math.inf, *spent, math.nan, f"{int(found.decided.sum())} of {batch}"


def grown(axis: str, value: float, seed: int) -> Row:
    """A row ``(axis, value, seed, *SPENT)``: a network's cost at ``BASE``, but ``axis`` of ``AXES`` at ``value``.

    To the decided end, for the axis m to log ℒ = −m.
    """
    if axis not in AXES:
        raise DufmError(f"axis must be one of {', '.join(AXES)}, got {axis!r}")
    if axis != "m" and (value != int(value) or value < 1):
        raise DufmError(f"value must be a count on the axis {axis}, got {value:g}")
    setting = BASE | {axis: value if axis == "m" else int(value)}
    m = setting.pop("m")

    def to_target(factors: Sequence[Tensor]) -> tuple[Trajectory, int]:
        model = _Counted(factors)
        return follow_factors(model, factors, until_log_loss=-m, **_SETTINGS), model.gradients

    return axis, value, seed, *_spent(starts(seed, **setting), to_target if axis == "m" else decided)[1]


def followed(method: str, width: int, seed: int) -> Row:
    """A row as of :func:`grown` for one network followed to log ℒ = −10⁴ by another method, which is the axis."""
    _check_method("method", method)
    _, meter = METHODS[method]([W[0] for W in starts(seed, width=width, batch=1)], LEVELS[-1:])
    return method, width, seed, *meter.marks[-1].tolist()


guard(globals())
