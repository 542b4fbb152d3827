"""Powers of two that keep squares and products within the floats: exact, and 1 for what is of ordinary size."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dufm._error import DufmError

__all__ = ["check_in_range", "common_power", "in_range", "norm", "times_power"]

# What has its largest entry between 2^-9 and 2^7 is left as it is, and the rest taken there by steps of 2^16.
_LOW, _STEP = -9, 16
_SMALL = {torch.float64: 1e-150, torch.float32: 1e-16}  # norms whose squares may have underflowed


def in_range(x: Tensor, dim: int | tuple[int, ...] = (-2, -1)) -> tuple[Tensor, Tensor]:
    """``x·2^−e`` with its largest entry over ``dim`` from 2^−9 to 2^7, zeros apart; whole numbers e, ``dim`` kept."""
    top = x.detach().abs().amax(dim, keepdim=True)
    least, most = top.aminmax() if top.numel() else (1.0, 1.0)
    if 2.0**_LOW <= least and most < 2.0 ** (_LOW + _STEP):
        return x, torch.zeros_like(top, dtype=torch.int32)
    exponent = torch.frexp(top.nan_to_num(0.0, 0.0)).exponent - 1
    e = torch.where(top > 0, (exponent - _LOW).div(_STEP, rounding_mode="floor") * _STEP, 0)
    return times_power(x, -e), e


def common_power(factors: Sequence[Tensor]) -> Tensor:
    """The largest e of :func:`in_range` over the factors of each network: one power for all keeps their proportions."""
    return torch.stack([in_range(W)[1] for W in factors]).amax(0)


def times_power(x: Tensor, e: Tensor) -> Tensor:
    """``x·2^e``, exact but for what leaves the floats."""
    most = math.frexp(torch.finfo(x.dtype).max)[1] - 2
    while e.any():
        part = e.clamp(-most, most)
        x, e = x * torch.exp2(part.to(x)), e - part
    return x


def check_in_range(what: str, *results: Any) -> None:
    """``DufmError`` for a result that has left the floats."""
    for result in results:
        if not torch.isfinite(result).all():
            raise DufmError(f"{what} leaves the range of {result.dtype}")


def norm(v: Tensor) -> Tensor:
    """Euclidean norm along the last dimension, also where the squares underflow."""
    size = torch.linalg.vector_norm(v, dim=-1)
    if bool((size < _SMALL[size.dtype]).any()):
        v, e = in_range(v, -1)
        size = times_power(torch.linalg.vector_norm(v, dim=-1), e.squeeze(-1))
    return size
