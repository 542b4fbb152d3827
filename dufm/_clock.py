"""Time along a step of the flow: log t and the length up to a loss or a time, exactly where a step is long."""

import numpy as np
import torch
from torch import Tensor

__all__ = ["Clock"]

_NODES, _WEIGHTS = (torch.from_numpy(array) for array in np.polynomial.legendre.leggauss(10))
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_BEND = (-0.9, 4.0)
_TICKS = 32


class Clock:
    r"""Time along one step: :math:`d\tau = -d\ell/\|F\|^2` and :math:`dt = e^{-\ell}d\tau`, ℓ = log ℒ.

    ``φ = 1/‖F‖²`` is smooth in ℓ: a power law through both ends in ``w = 1 + max(ℓ_0, 0) − ℓ``, bent by a parabola in
    log w so that its integral is the step length h.  The exponential is integrated exactly against it, so that
    a step may be long.
    """

    def __init__(self, start: Tensor, end: Tensor, speed: Tensor, new_speed: Tensor, h: Tensor) -> None:
        self.start, self.end, self.speed, self.new_speed, self.h = start, end, speed, new_speed, h
        # w at the start; by log1p, for a short step has few digits of a difference.
        self.first = 1 + start.clamp(min=0) - start
        # Rounding may leave ℓ where it was: then any profile does.
        self.range = torch.log1p((start - end) / self.first).clamp(min=1e-300)
        self.bend = torch.zeros_like(h)
        plain, bump = self._mass(torch.ones_like(h))
        self.bend = ((h * new_speed * new_speed - plain) / bump.clamp(min=1e-300)).clamp(*_BEND)
        self.bend = torch.where((start - end).abs() > 1e-10 * (1 + start.abs()), self.bend, 0.0)

    def _profile(self, theta: Tensor) -> Tensor:
        """φ over its value at the end."""
        return ((1 - theta) * 2 * (self.new_speed / self.speed).log()).exp() * (1 + 4 * self.bend * theta * (1 - theta))

    def _mass(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """``∫φ dℓ`` up to ``theta`` (share of log w), over φ at the end; and what the unit bend adds to it."""
        nodes, weights = (array.to(self.h).view(-1, *[1] * theta.ndim) for array in (_NODES, _WEIGHTS))
        at = theta * nodes
        w = self.first * (at * self.range).exp()
        value = self._profile(at) * w
        scale = self.range * theta
        return (weights * value).sum(0) * scale, (weights * value * 4 * at * (1 - at)).sum(0) * scale

    def theta(self, ell: Tensor) -> Tensor:
        """Share of log w at ``ell``."""
        return torch.log1p((self.start - ell) / self.first) / self.range

    def length(self, ell: Tensor) -> Tensor:
        """Part of h up to log ℒ = ``ell``."""
        return self.h * self._mass(self.theta(ell).clamp(0, 1))[0] / self._mass(torch.ones_like(self.h))[0]

    def length_at(self, goal: Tensor, log_time: Tensor) -> Tensor:
        """Part of h up to log t = ``goal``, from log t at the start."""
        # Where log ℒ hardly moves it tells no time, and t is linear in τ.
        flat = self.start - self.end <= 1e-6 * (1 + self.start.abs())
        begun = torch.exp(log_time - self.log_time(log_time))
        linear = (torch.exp(goal - self.log_time(log_time)) - begun) / (1 - begun)
        return torch.where(flat, self.h * linear.nan_to_num().clamp(0, 1), self.length(self.locate(goal, log_time)))

    def log_time(self, log_time: Tensor, ell: Tensor | None = None) -> Tensor:
        """Log t where log ℒ is ``ell`` (default: the end), from log t at the start."""
        ell = self.end if ell is None else ell
        fall = (self.start - ell).clamp(min=0)
        share = -torch.expm1(-fall)
        nodes, weights = (array.to(self.h).view(-1, *[1] * fall.ndim) for array in (_NODES, _WEIGHTS))
        back = -torch.log1p(-nodes * share)
        inner = (weights * self._profile(self.theta(ell + back).clamp(0, 1))).sum(0)
        # Short steps know their own length better than the profile does.
        short = self.start - self.end < 1
        whole = self._mass(torch.ones_like(self.h))[0]
        known = torch.where(short, self.h.log() - whole.log(), -2 * self.new_speed.log())
        log_share = torch.where(share > 0, share, 1.0).log()
        added = torch.where(share > 0, known + log_share + inner.log() - ell, -torch.inf)
        still = (self.start - self.end <= 1e-10 * (1 + self.start.abs())) & (fall == self.start - self.end)
        added = torch.where(still, self.h.log() - ell, added)
        return torch.logaddexp(log_time, added)

    def locate(self, goal: Tensor, log_time: Tensor) -> Tensor:
        """Log ℒ at which log t rises to ``goal``, to 1e-9 of the step."""
        low, width = torch.zeros_like(self.h), 1.0
        ticks = torch.arange(1, _TICKS, device=low.device, dtype=low.dtype).unsqueeze(-1) / _TICKS
        for _ in range(6):
            part = low + width * ticks
            before = self.log_time(log_time, self.start + (self.end - self.start) * part) < goal
            low = low + before.long().cumprod(0).sum(0) * (width / _TICKS)
            width /= _TICKS
        return self.start + (self.end - self.start) * (low + width)
