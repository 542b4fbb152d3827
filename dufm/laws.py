r"""Closed laws of the singular values: escape, early motion, growth of deviations, separatrix."""

import torch

from dufm._checks import DufmError, check_count, check_dtype

__all__ = [
    "early_singular_values",
    "escape_time",
    "late_separatrix",
    "nc_perturbation_growth",
    "turning_point",
]


def escape_time(s0, depth):
    r"""Time at which :math:`\dot s = L s^{2-2/L}` blows up, :math:`s_0^{-q}/(L-2)`, q = 1 − 2/L; ``inf`` for L = 2.

    Elementwise on a positive tensor: the time at which a small singular value leaves the small scale.
    """
    depth = _check_law(s0, "s0", depth)
    if depth == 2:
        return torch.full_like(s0, torch.inf)
    return s0 ** (2 / depth - 1) / (depth - 2)


def early_singular_values(t, s0, depth):
    r"""Early phase (g ≈ 1): :math:`[s_0^{-q} - (L-2)t]^{-1/q}`, or :math:`s_0e^{2t}` for L = 2; ``inf`` after escape.

    ``t`` a number or tensor ≥ 0, ``s0`` a positive tensor; they broadcast.
    """
    depth = _check_law(s0, "s0", depth)
    t = torch.as_tensor(t, dtype=s0.dtype, device=s0.device)
    if not (t >= 0).all():
        raise DufmError(f"t must be at least 0, the smallest is {t.min():g}")
    if depth == 2:
        return s0 * torch.exp(2 * t)
    return s0 * (1 - t / escape_time(s0, depth)).clamp(min=0.0) ** (-depth / (depth - 2))


def nc_perturbation_growth(s, s0, num_classes, depth):
    r"""Growth of a small relative deviation from equal singular values, :math:`(s/s_0)^{1-2/L}e^{-(s-s_0)/K}`.

    ``s``, ``s0`` positive tensors: mean singular value now and at the start.  Holds for every abelian group.
    """
    depth = _check_law(s, "s", depth)
    _check_law(s0, "s0", depth)
    num_classes = check_count("num_classes", num_classes, 2)
    return (s / s0) ** (1 - 2 / depth) * torch.exp(-(s - s0) / num_classes)


def turning_point(num_classes, depth):
    """Mean singular value ``s* = K(1 − 2/L)`` up to which deviations from equal singular values grow."""
    return check_count("num_classes", num_classes, 2) * (1 - 2 / check_count("depth", depth, 2))


def late_separatrix(depth):
    """Ratio ``2^{−L/(L−2)}`` of the smallest to the two equal singular values, K = 4, above which collapse wins.

    For late times; 0 at L = 2, where it always does.
    """
    depth = check_count("depth", depth, 2)
    return 0.0 if depth == 2 else 2.0 ** (-depth / (depth - 2))


def _check_law(s, name, depth):
    if not isinstance(s, torch.Tensor) or not (torch.isfinite(s) & (s > 0)).all():
        raise DufmError(f"{name} must be a tensor of finite positive numbers, got {s!r}")
    check_dtype(name, s)
    return check_count("depth", depth, 2)
