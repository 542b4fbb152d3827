"""Refusals at the door: every public function checks its arrays and counts here."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "DufmError",
    "check_count",
    "check_dtype",
    "check_factors",
    "check_finite_positive",
    "check_logits",
    "check_rank",
    "check_tensor",
]


class DufmError(ValueError):
    """Bad input: the message names the argument, the value, and what is accepted.

    A ``ValueError``: either name catches it.  Every public function refuses at its door, before it computes.

    Units: none.  Source: this companion.

    >>> dufm.polygon(2)
    Traceback (most recent call last):
        ...
    dufm._checks.DufmError: num_classes must be an integer >= 3, got 2: a polygon needs three vertices
    """


def check_count(name: str, value: Any, low: int, high: int | None = None, why: str = "") -> int:
    """Return ``value`` as an int in ``[low, high]``, or raise."""
    span = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise DufmError(f"{name} must be {span}, got {value!r}")
    value = int(value)
    if value < low or (high is not None and value > high):
        raise DufmError(f"{name} must be {span}, got {value}" + (f": {why}" if why else ""))
    return value


def check_finite(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DufmError(f"{name} must be a finite number, got {value!r}")


def check_finite_positive(name: str, value: Any) -> None:
    """Raise unless ``value`` is a finite positive number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
        raise DufmError(f"{name} must be a finite positive number, got {value!r}")


def check_rank(rank: Any, Z: Tensor) -> Tensor:
    """Check an integer rank, or integers of the batch shape of logits ``Z``; return it as a tensor of that shape."""
    num_classes, shape = Z.shape[-2], Z.shape[:-2]
    accepted = f"rank must be an integer from 1 to {num_classes - 1} (K − 1), or a tensor of them"
    if isinstance(rank, bool) or not (hasattr(rank, "__index__") or isinstance(rank, torch.Tensor)):
        raise DufmError(f"{accepted}, got {rank!r}")
    values = torch.as_tensor(rank, device=Z.device)
    whole = not (values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if not whole or values.numel() == 0 or values.min() < 1 or values.max() > num_classes - 1:
        raise DufmError(f"{accepted}, got {rank!r}")
    if values.ndim and values.shape != shape:
        raise DufmError(f"{accepted} of shape {tuple(shape)}, got shape {tuple(values.shape)}")
    return values.expand(shape)


def check_dtype(name: str, value: Tensor) -> None:
    """Raise unless the tensor ``value`` is float32 or float64."""
    # Half precisions have no factorisations, and no room for the tail of the loss.
    if value.dtype not in (torch.float32, torch.float64):
        raise DufmError(
            f"{name} must have a floating dtype (float32 or float64; float64 is the default), got {value.dtype}"
        )


def check_tensor(name: str, value: Any, min_dim: int = 2) -> None:
    """Raise unless ``value`` is a finite float32 or float64 tensor, not empty, of at least ``min_dim`` dimensions."""
    if not isinstance(value, torch.Tensor):
        raise DufmError(f"{name} must be a torch tensor, got {type(value).__name__}")
    check_dtype(name, value)
    if value.ndim < min_dim:
        raise DufmError(f"{name} must have at least {min_dim} dimensions, got shape {tuple(value.shape)}")
    if value.numel() == 0:
        raise DufmError(f"{name} must not be empty, got shape {tuple(value.shape)}")
    if not torch.isfinite(value).all():
        raise DufmError(f"{name} must be finite, but it holds NaN or inf")


def check_logits(Z: Tensor, name: str = "Z") -> tuple[int, int]:
    """Check logits ``(..., K, N)`` with N a multiple of K >= 2; return ``(K, n_per_class)``."""
    check_tensor(name, Z)
    num_classes, columns = Z.shape[-2:]
    if num_classes < 2:
        raise DufmError(f"{name} needs at least 2 classes (rows), got shape {tuple(Z.shape)}")
    if columns % num_classes:
        raise DufmError(
            f"{name} must have shape (..., K, N) with N a multiple of K, columns class by class; got {tuple(Z.shape)}"
        )
    return num_classes, columns // num_classes


def check_factors(factors: Iterable[Tensor], name: str = "factors") -> tuple[int, int, torch.Size]:
    """Check ``[W_1, …, W_L]`` of shapes (..., d_l, d_{l-1}); return ``(K, n_per_class, batch shape)``."""
    factors = list(factors)
    if len(factors) < 2:
        raise DufmError(f"{name}: depth must be at least 2 (depth 2 is the ordinary UFM), got {len(factors)}")
    for index, factor in enumerate(factors, start=1):
        check_tensor(f"{name}: W_{index}", factor)
    shapes = [tuple(factor.shape) for factor in factors]
    first = factors[0]
    for index, (left, right) in enumerate(zip(factors[1:], factors[:-1], strict=True), start=2):
        if left.shape[-1] != right.shape[-2] or left.shape[:-2] != first.shape[:-2]:
            raise DufmError(f"{name}: W_{index} does not follow W_{index - 1}; shapes are {shapes}")
        if left.dtype != first.dtype or left.device != first.device:
            raise DufmError(
                f"{name}: W_{index} is {left.dtype} on {left.device}, W_1 is {first.dtype} on {first.device}"
            )
    num_classes, columns = factors[-1].shape[-2], first.shape[-1]
    if num_classes < 2 or columns % num_classes:
        raise DufmError(
            f"{name}: W_L needs K >= 2 rows and W_1 a multiple of K columns, class by class; shapes are {shapes}"
        )
    return num_classes, columns // num_classes, first.shape[:-2]
