r"""Closed laws of the singular values: escape, early motion, growth of deviations, separatrix.

Tensors give tensors, plain numbers alone give a float.
"""

import math
from collections.abc import Callable
from typing import Any, overload

import numpy as np
import scipy
import torch
from torch import Tensor

from dufm._checks import check_dtype, check_finite_positive
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range
from dufm.loss import log_softplus

__all__ = [
    "collapse_log_time",
    "early_singular_values",
    "escape_time",
    "late_separatrix",
    "nc_log_loss",
    "nc_perturbation_growth",
    "turning_point",
]


@overload
def escape_time(s0: float, depth: int) -> float: ...
@overload
def escape_time(s0: Tensor, depth: int) -> Tensor: ...
def escape_time(s0: float | Tensor, depth: int) -> float | Tensor:
    r"""Time at which :math:`\dot s = L s^{2-2/L}` blows up, :math:`s_0^{-q}/(L-2)`, q = 1 − 2/L; ``inf`` for L = 2.

    Elementwise on positive ``s0``: the time at which a small singular value leaves the small scale.

    Shape: that of s0.  Units: time is that of dW/dt = −∇ℒ.  Raises: ``DufmError`` for an s0 that is not positive, a
    depth below 2, or a time beyond the floats.  Source: Saxe, McClelland & Ganguli (2014) for L = 2; this companion,
    notebook 51.

    >>> dufm.escape_time(0.01, 4), dufm.escape_time(0.01, 2)
    (5.0, inf)
    """
    start = _positive("s0", s0)
    if depth == 2:
        return _as_given(torch.full_like(start, torch.inf), s0)
    time = start ** (2 / depth - 1) / (depth - 2)
    check_in_range("s0: the time", time)
    return _as_given(time, s0)


@overload
def early_singular_values(t: float, s0: float, depth: int) -> float: ...
@overload
def early_singular_values(t: Tensor, s0: float | Tensor, depth: int) -> Tensor: ...
@overload
def early_singular_values(t: float, s0: Tensor, depth: int) -> Tensor: ...
def early_singular_values(t: float | Tensor, s0: float | Tensor, depth: int) -> float | Tensor:
    r"""Early phase (g ≈ 1): :math:`[s_0^{-q} - (L-2)t]^{-1/q}`, or :math:`s_0e^{2t}` for L = 2; ``inf`` after escape.

    ``t`` ≥ 0, the time of dW/dt = −∇ℒ, and ``s0`` > 0 are numbers or tensors; they broadcast.

    Shapes ``(...)`` that broadcast, or numbers.  Units: time is that of dW/dt = −∇ℒ.  Raises: ``DufmError`` for a
    negative t, an s0 that is not positive, a depth below 2, or a value beyond the floats before it escapes.  Source:
    this companion, notebook 51.

    >>> [round(dufm.early_singular_values(t, 0.01, 4), 4) for t in (0.0, 2.5, 4.0)]  # it escapes at 5
    [0.01, 0.04, 0.25]
    """
    start = _positive("s0", s0)
    time = torch.as_tensor(t, dtype=start.dtype, device=start.device)
    if not (time >= 0).all():
        raise DufmError(f"t must be at least 0, the smallest is {time.min():g}")
    if depth == 2:
        s = torch.exp(2 * time + start.log())
        check_in_range("t: the value", s)
        return _as_given(s, t, s0)
    left = (1 - (depth - 2) * (time * start ** (1 - 2 / depth))).clamp(min=0.0)
    s = start * left ** (-depth / (depth - 2))
    check_in_range("t: the value", torch.where(left > 0, s, 0.0))
    return _as_given(s, t, s0)


@overload
def nc_log_loss(s: float, num_classes: int) -> float: ...
@overload
def nc_log_loss(s: Tensor, num_classes: int) -> Tensor: ...
def nc_log_loss(s: float | Tensor, num_classes: int) -> float | Tensor:
    r"""Log ℒ on the ray of neural collapse, ``Z = s(I − J/K)``: :math:`\log K + \log\log(1 + (K-1)e^{-s})`.

    Elementwise on positive ``s``, the common singular value; finite however large it is.

    Shape: that of s.  Units: none.  Raises: ``DufmError`` for an s that is not positive or fewer than 2 classes.
    Source: this companion, notebook 52.

    >>> round(dufm.nc_log_loss(1.0, 4), 4), round(dufm.nc_log_loss(1e4, 4), 4)
    (1.0901, -9997.5151)
    """
    K = num_classes
    return _as_given(math.log(K) + log_softplus(math.log(K - 1) - _positive("s", s))[0], s)


@overload
def nc_perturbation_growth(s: float, s0: float, num_classes: int, depth: int) -> float: ...
@overload
def nc_perturbation_growth(s: Tensor, s0: float | Tensor, num_classes: int, depth: int) -> Tensor: ...
@overload
def nc_perturbation_growth(s: float, s0: Tensor, num_classes: int, depth: int) -> Tensor: ...
def nc_perturbation_growth(s: float | Tensor, s0: float | Tensor, num_classes: int, depth: int) -> float | Tensor:
    r"""Growth of a small relative deviation from equal singular values, :math:`(s/s_0)^{1-2/L}e^{-(s-s_0)/K}`.

    ``s``, ``s0``: mean singular value now and at the start, positive; they broadcast.  Holds for every abelian group.

    Shapes ``(...)`` that broadcast, or numbers.  Units: none.  Raises: ``DufmError`` for singular values that are not
    positive, counts below 2, or a growth beyond the floats.  Source: this companion, notebook 53.

    >>> round(dufm.nc_perturbation_growth(2.0, 0.1, 4, 4), 4)
    2.7812
    """
    return deviation_growth(s, s0, 1 - 2 / depth, 1 / num_classes)


def deviation_growth(s: float | Tensor, s0: float | Tensor, power: float, pace: float) -> Any:
    r"""``(s/s_0)^power e^{−pace (s − s_0)}``, in logarithms; numbers or tensors, errors as those of its callers."""
    now, start = _positive("s", s), _positive("s0", s0)
    growth = torch.exp(power * (now.log() - start.log()) - pace * (now - start))
    check_in_range("s0: the growth", growth)
    return _as_given(growth, s, s0)


def turning_point(num_classes: int, depth: int) -> float:
    """Mean singular value ``s* = K(1 − 2/L)`` up to which deviations from equal singular values grow.

    Shape: one number.  Units: those of Z, none.  Raises: ``DufmError`` for a count below 2.  Source: this companion,
    notebook 52.

    >>> dufm.turning_point(4, 4), dufm.turning_point(4, 2)
    (2.0, 0.0)
    """
    return num_classes * (1 - 2 / depth)


def late_separatrix(depth: int, beta: float = 2.0) -> float:
    """Ratio ``β^{−L/(L−2)}`` to equal kept values below which an extra one, of β > 1 times their force, is discarded.

    For late times; 0 at L = 2, where none is.  At K = 4 the third value beside two equal ones has β = 2.

    Shape: one number.  Units: none.  Raises: ``DufmError`` for a depth below 2, a beta that is not positive, or a ratio
    beyond the floats.  Source: this companion, notebook 55.

    >>> dufm.late_separatrix(4), dufm.late_separatrix(2)
    (0.25, 0.0)
    """
    if depth == 2:
        return 0.0
    try:
        return beta ** (-depth / (depth - 2))
    except OverflowError:
        raise DufmError(f"beta: the ratio leaves the floats, got {beta:g} at depth {depth}") from None


def collapse_log_time(log_loss: float, s0: float, num_classes: int, depth: int) -> float:
    r"""Logarithm of the time at which the ray of neural collapse, from singular values ``s0``, has loss ``e^log_loss``.

    :math:`t = \int_{s_0}^s \frac{e^u + K - 1}{LK\,u^{2-2/L}}\,du`, :math:`\mathcal L = K\log(1 + (K-1)e^{-s})`, by
    quadrature with the integrand scaled by :math:`e^{-s}`.  Plain numbers.  ``DufmError`` for a loss above that at s0.
    """
    if not log_loss < nc_log_loss(s0, num_classes):
        most = nc_log_loss(s0, num_classes)
        raise DufmError(f"log_loss must be below that at s0 = {s0:g}, which is {most:g}, got {log_loss:g}")
    x = math.exp(log_loss) / num_classes
    s = math.log(num_classes * (num_classes - 1)) - log_loss - math.log(math.expm1(x) / x if x > 1e-300 else 1.0)

    def late(back: float) -> float:
        return (math.exp(-back) + (num_classes - 1) * math.exp(-s)) / (depth * num_classes)

    def log_part(integrand: Callable[[float], float], beside: float, *points: float) -> float:
        ends = sorted({min(max(point, points[0]), points[-1]) for point in points})
        known = {"epsabs": 1e-14 * math.exp(min(beside, 700.0)), "epsrel": 1e-12}
        total = sum(scipy.integrate.quad(integrand, *piece, **known)[0] for piece in zip(ends, ends[1:], strict=False))
        return math.log(total) if total else -math.inf

    # Much of the time is spent within some units of the end, and much at the start, where u goes by its logarithm.
    power, first, last = 2 / depth - 2, math.log(s0), min(s - s0, s / 2, 60.0)
    near = log_part(lambda back: late(back) * (1 - back / s) ** power, -math.inf, 0.0, last) + power * math.log(s)

    def slowness(y: float) -> float:
        return late(s - math.exp(y)) * math.exp((power + 1) * (y - first))

    scale = (power + 1) * first
    far = log_part(slowness, near - scale, first, first + 30, 0.0, math.log(s - last))
    return s + float(np.logaddexp(near, far + scale))


def _positive(name: str, value: float | Tensor) -> Tensor:
    """A positive tensor, in float64 where a plain number was given."""
    if not isinstance(value, torch.Tensor):
        check_finite_positive(name, value)
        return torch.tensor(float(value), dtype=torch.float64)
    check_dtype(name, value)
    if not (torch.isfinite(value) & (value > 0)).all():
        raise DufmError(f"{name} must be positive and finite, got {value!r}")
    return value


def _as_given(result: Tensor, *given: float | Tensor) -> Any:
    """A float where nothing given was a tensor."""
    return result if any(isinstance(value, torch.Tensor) for value in given) else float(result)


guard(globals())
