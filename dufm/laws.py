r"""Closed laws of the singular values: escape, early motion, growth of deviations, separatrix, rate.

Singular values and times are plain numbers or tensors; of plain numbers alone a law is a plain number.
"""

import math

import scipy.integrate
import torch

from dufm._checks import DufmError, check_count, check_dtype, check_finite_positive

__all__ = [
    "collapse_log_time",
    "early_singular_values",
    "escape_time",
    "late_separatrix",
    "nc_perturbation_growth",
    "turning_point",
]


def escape_time(s0, depth):
    r"""Time at which :math:`\dot s = L s^{2-2/L}` blows up, :math:`s_0^{-q}/(L-2)`, q = 1 − 2/L; ``inf`` for L = 2.

    Elementwise on positive ``s0``: the time at which a small singular value leaves the small scale.
    """
    depth = check_count("depth", depth, 2)
    (s0,), result = _tensors(s0=s0)
    return result(torch.full_like(s0, torch.inf) if depth == 2 else s0 ** (2 / depth - 1) / (depth - 2))


def early_singular_values(t, s0, depth):
    r"""Early phase (g ≈ 1): :math:`[s_0^{-q} - (L-2)t]^{-1/q}`, or :math:`s_0e^{2t}` for L = 2; ``inf`` after escape.

    ``t`` at least 0 and ``s0`` positive broadcast.
    """
    depth = check_count("depth", depth, 2)
    (t, s0), result = _tensors(t=t, s0=s0)
    if depth == 2:
        return result(s0 * torch.exp(2 * t))
    return result(s0 * (1 - t / escape_time(s0, depth)).clamp(min=0.0) ** (-depth / (depth - 2)))


def nc_perturbation_growth(s, s0, num_classes, depth):
    r"""Growth of a small relative deviation from equal singular values, :math:`(s/s_0)^{1-2/L}e^{-(s-s_0)/K}`.

    ``s``, ``s0`` positive: mean singular value now and at the start.  Holds for every abelian group.
    """
    depth = check_count("depth", depth, 2)
    num_classes = check_count("num_classes", num_classes, 2)
    (s, s0), result = _tensors(s=s, s0=s0)
    return result((s / s0) ** (1 - 2 / depth) * torch.exp(-(s - s0) / num_classes))


def turning_point(num_classes, depth):
    """Mean singular value ``s* = K(1 − 2/L)`` up to which deviations from equal singular values grow."""
    return check_count("num_classes", num_classes, 2) * (1 - 2 / check_count("depth", depth, 2))


def late_separatrix(depth):
    """Ratio ``2^{−L/(L−2)}`` of the smallest to the two equal singular values, K = 4, above which collapse wins.

    For late times; 0 at L = 2, where it always does.
    """
    depth = check_count("depth", depth, 2)
    return 0.0 if depth == 2 else 2.0 ** (-depth / (depth - 2))


def collapse_log_time(log_loss, s0, num_classes, depth):
    r"""Logarithm of the time at which the ray of neural collapse, from singular values ``s0``, has loss e^``log_loss``.

    :math:`t = \int_{s_0}^s \frac{e^u + K - 1}{LK\,u^{2-2/L}}\,du`, :math:`\mathcal L = K\log(1 + (K-1)e^{-s})`, by
    quadrature with the integrand scaled by :math:`e^{-s}`.  Plain numbers.  ``DufmError`` for a loss above that at s0.
    """
    depth = check_count("depth", depth, 2)
    num_classes = check_count("num_classes", num_classes, 2)
    check_finite_positive("s0", s0)
    x = math.exp(log_loss) / num_classes
    s = math.log(num_classes * (num_classes - 1)) - log_loss - math.log(math.expm1(x) / x if x > 1e-300 else 1.0)
    if not s > s0:
        raise DufmError(f"log_loss must be below that at s0 = {s0:g}, got {log_loss:g}, which is at s = {s:g}")

    def slowness(back):
        late = math.exp(-back) + (num_classes - 1) * math.exp(-s)
        return late / (depth * num_classes * (s - back) ** (2 - 2 / depth))

    # Most of the time is spent within some units of the end: a breakpoint there.
    parts = sorted({0.0, min(s - s0, 60.0), s - s0})
    scaled = sum(scipy.integrate.quad(slowness, *ends, epsrel=1e-12)[0] for ends in zip(parts, parts[1:], strict=False))
    return s + math.log(scaled)


def _tensors(**values):
    """The values, positive or (``t``) at least 0, as tensors of one dtype; and what makes a law of numbers a number."""
    like = next((value for value in values.values() if isinstance(value, torch.Tensor)), None)
    tensors = []
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, torch.Tensor)):
            raise DufmError(f"{name} must be a number or a tensor of them, got {type(value).__name__}")
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(value, dtype=torch.float64) if like is None else like.new_tensor(value)
        check_dtype(name, value)
        if not (value.isfinite() & (value >= 0 if name == "t" else value > 0)).all():
            least = "at least 0" if name == "t" else "positive"
            raise DufmError(f"{name} must be finite and {least}, the smallest is {value.min():g}")
        tensors.append(value)
    return tensors, torch.Tensor.item if like is None else lambda law: law
