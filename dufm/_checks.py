"""Refusals at the door: what one argument must be; ``_door`` says which argument must be what."""

import itertools
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._error import DufmError

__all__ = [
    "check_count",
    "check_dtype",
    "check_each",
    "check_factors",
    "check_finite_positive",
    "check_fits",
    "check_logits",
    "check_number",
    "check_pairs",
    "check_rank",
    "check_real",
    "check_tensor",
    "short",
]

# Beyond it an integer fits neither a tensor nor a seed.
_LARGEST = 2**63 - 1
_MOST_NUMBERS = 2**31
_MOST_ITEMS = 1_000_000


def short(value: Any) -> str:
    """What a message shows of a value: its ``repr`` in one line of at most 80 characters; of a tensor its shape."""
    try:
        if isinstance(value, (torch.Tensor, np.ndarray)) and value.ndim:
            return f"{type(value).__name__} of {value.dtype} and shape {tuple(value.shape)}"
        text = " ".join(repr(value).split())
    except Exception as error:  # of whatever class came in, or an integer of more digits than Python prints
        return f"{type(value).__name__} ({type(error).__name__} in its repr)"
    return text if len(text) <= 80 else f"{text[:60]} … {text[-15:]}"


def check_count(name: str, value: Any, low: int, high: int | None = None, why: str = "") -> int:
    """Return ``value``, one integer of whatever type, as an int in ``[low, high]``, or raise."""
    span = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    if type(value) is not int:
        value = _whole(name, value, span)
    if not low <= value <= (_LARGEST if high is None else high):
        raise DufmError(f"{name} must be {span}, got {short(value)}" + (f": {why}" if why else ""))
    return value


def _whole(name: str, value: Any, span: str) -> int:
    """An integer of Python, NumPy or torch; neither a bool nor an array of one or more dimensions is one."""
    if isinstance(value, torch.Tensor):
        plain = value.ndim == 0 and value.device.type != "meta"
        whole = plain and not (value.is_floating_point() or value.is_complex() or value.dtype == torch.bool)
    elif isinstance(value, np.ndarray):
        whole = value.ndim == 0 and value.dtype.kind in "iu"
    else:
        whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole:
        raise DufmError(f"{name} must be {span}, got {short(value)}")
    return int(value)


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf, words: str = "") -> float:
    """Return ``value``, one finite real number in ``[low, high]``, as Python has it, or raise."""
    words = words or ("a finite number" if low == -math.inf else f"a number from {low:g} to {high:g}")
    found = value
    if isinstance(value, (torch.Tensor, np.ndarray)):
        real = value.ndim == 0 and (isinstance(value, np.ndarray) or value.device.type != "meta")
        found = value.item() if real else None
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        raise DufmError(f"{name} must be {words}, got {short(value)}")
    try:
        found = float(found)
    except OverflowError:  # an integer or a fraction beyond 1.8e308
        found = math.inf
    if not (low <= found <= high and math.isfinite(found)):
        raise DufmError(f"{name} must be {words}, got {short(value)}")
    return value if type(value) in (int, float) else found


def check_finite_positive(name: str, value: Any) -> float:
    """Return ``value`` as a float, or raise unless it is a finite positive number."""
    return check_number(name, value, low=math.ulp(0.0), words="a finite positive number")


def check_each(name: str, value: Any, check: Callable[[str, Any], Any]) -> list[Any]:
    """What ``check`` makes of each item; whatever can be iterated over is read once."""
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    if isinstance(value, (torch.Tensor, np.ndarray)):
        # Of two dimensions or more it is a matrix or a batch, and no list of them.
        several = value.ndim == 1 and not getattr(value, "is_meta", False)
        value = value.tolist() if several else value
    if not several:
        raise DufmError(f"{name} must be a sequence, got {short(value)}")
    found = [check(f"{name}[{i}]", item) for i, item in enumerate(itertools.islice(value, _MOST_ITEMS + 1))]
    if len(found) > _MOST_ITEMS:
        raise DufmError(f"{name} must be a sequence of at most {_MOST_ITEMS} items")
    return found


def check_fits(what: str, *counts: int) -> None:
    """Raise if an array of so many numbers is larger than what this is for."""
    if math.prod(counts) > _MOST_NUMBERS:
        raise DufmError(f"{what} must ask for at most 2**31 numbers, 16 GiB, got {math.prod(counts):.3g}")


def check_real(name: str, found: Any) -> Any:
    """Real parts of NumPy's complex numbers, or raise where one is not real, or no number."""
    if not (found.imag == 0).all() or np.isnan(found).any():
        raise DufmError(f"{name} must be such that there is a real solution")
    return found.real


def check_pairs(num_classes: int, pairs: Any) -> int:
    """Return how many antipodal pairs there are among the classes, at most K/2 and none of two classes, or raise."""
    why = "" if num_classes > 2 else "two classes are opposite at neural collapse"
    return check_count("pairs", pairs, 0, num_classes // 2 if num_classes > 2 else 0, why)


def check_rank(rank: Any, Z: Tensor) -> Tensor:
    """Check an integer rank, or integers of the batch shape of logits ``Z``; return it as a tensor of that shape."""
    num_classes, shape = Z.shape[-2], Z.shape[:-2]
    accepted = f"rank must be an integer from 1 to {num_classes - 1} (K − 1), or a tensor of them"
    if not isinstance(rank, torch.Tensor):
        rank = check_count("rank", rank, 1, num_classes - 1, "K − 1")
    values = torch.as_tensor(rank, device=Z.device)
    whole = not (values.is_meta or values.is_floating_point() or values.is_complex() or values.dtype == torch.bool)
    if not whole or values.numel() == 0 or values.min() < 1 or values.max() > num_classes - 1:
        raise DufmError(f"{accepted}, got {short(rank)}")
    if values.ndim and values.shape != shape:
        raise DufmError(f"{accepted} of shape {tuple(shape)}, got shape {tuple(values.shape)}")
    return values.expand(shape)


def check_dtype(name: str, value: Tensor) -> None:
    """Raise unless the tensor ``value`` is float32 or float64, strided, and holds its numbers."""
    # Half precisions have no factorisations, and no room for the tail of the loss.
    if value.dtype not in (torch.float32, torch.float64):
        raise DufmError(
            f"{name} must have a floating dtype (float32 or float64; float64 is the default), got {value.dtype}"
        )
    if value.layout != torch.strided or value.is_nested or value.is_meta:
        kind = "nested" if value.is_nested else "meta" if value.is_meta else str(value.layout)
        raise DufmError(f"{name} must be a strided tensor, got a {kind} one: .to_dense() makes a sparse one so")


def check_tensor(name: str, value: Any, min_dim: int = 2, *, finite: bool = True) -> None:
    """Raise unless ``value`` is a finite float32 or float64 tensor, not empty, of at least ``min_dim`` dimensions."""
    if not isinstance(value, torch.Tensor):
        raise DufmError(f"{name} must be a torch tensor, got {type(value).__name__}")
    check_dtype(name, value)
    if value.ndim < min_dim:
        raise DufmError(f"{name} must have at least {min_dim} dimensions, got shape {tuple(value.shape)}")
    if value.numel() == 0:
        raise DufmError(f"{name} must not be empty, got shape {tuple(value.shape)}")
    # The sum is finite only where every number is, and is quicker; it may overflow where all are.
    if finite and not math.isfinite(value.detach().sum()) and not torch.isfinite(value).all():
        raise DufmError(f"{name} must be finite, but it holds NaN or inf")


def check_logits(Z: Tensor, name: str = "Z", *, finite: bool = True) -> tuple[int, int]:
    """Check logits ``(..., K, N)`` with N a multiple of K >= 2; return ``(K, n_per_class)``."""
    check_tensor(name, Z, finite=finite)
    num_classes, columns = Z.shape[-2:]
    if num_classes < 2:
        raise DufmError(f"{name} needs at least 2 classes (rows), got shape {tuple(Z.shape)}")
    if columns % num_classes:
        raise DufmError(
            f"{name} must have shape (..., K, N) with N a multiple of K, columns class by class; got {tuple(Z.shape)}"
        )
    return num_classes, columns // num_classes


def check_factors(
    factors: Sequence[Tensor], name: str = "factors", *, finite: bool = True
) -> tuple[int, int, torch.Size]:
    """Check ``[W_1, …, W_L]`` of shapes (..., d_l, d_{l-1}); return ``(K, n_per_class, batch shape)``."""
    if not isinstance(factors, (list, tuple)):
        raise DufmError(f"{name} must be a list of matrices [W_1, …, W_L], got {short(factors)}")
    if len(factors) < 2:
        raise DufmError(f"{name}: depth must be at least 2 (depth 2 is the ordinary UFM), got {len(factors)}")
    for index, factor in enumerate(factors, start=1):
        check_tensor(f"{name}: W_{index}", factor, finite=finite)
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
