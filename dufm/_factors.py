r"""The factors of a network as what :mod:`dufm._stepping` moves: field, gaps, and the derivative of the field.

F' of a product of matrices is :math:`-J^\top CJ + S`.  The second term S is what the slope G in Z makes of products of
two changes, :math:`\langle v, Sw\rangle = \sum_{i>j}\langle G,\ U_i\,(v_iM_{ij}w_j + w_iM_{ij}v_j)\,V_j\rangle`, with
:math:`U_i` the factors above i, :math:`V_j` those below j and :math:`M_{ij}` those between.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from dufm._linearised import Linearised
from dufm._scaling import norm
from dufm._steps import Model
from dufm.loss import evaluate
from dufm.metrics import numerical_rank
from dufm.model import chain

__all__ = ["FactorModel", "matrix_field", "values_below"]

_TINY = 400  # multiplications in one product of a batch below which torch does not call BLAS
_REST = 1e-12  # slope of a network at rest, of what its factors would let through
_SMALL = 3e6  # multiplications in Θ = JJᵀ up to which most networks alone are faster with J as a matrix


class FactorModel(Model):
    """Factors ``[W_1, …, W_L]`` as flat states ``(batch, n)``; pairs (class j, sample i) as the entries of Z."""

    def __init__(self, factors: Sequence[Tensor]) -> None:
        self.shapes = [tuple(factor.shape[-2:]) for factor in factors]
        self.sizes = [rows * columns for rows, columns in self.shapes]
        num_classes, samples = self.shapes[-1][0], self.shapes[0][1]
        self.sample = torch.arange(samples, device=factors[0].device)
        self.true = self.sample // (samples // num_classes)
        self.own = torch.nn.functional.one_hot(self.true, num_classes).mT.bool()
        self.wrong, self.of = (~self.own).nonzero().T.unbind(0)
        self.winner, self.live = self.true[self.of], self.wrong * samples + self.of
        rows = [a.unsqueeze(1) * num_classes + b for a in (self.wrong, self.winner) for b in (self.wrong, self.winner)]
        self.kernel = [(row * samples + self.of.unsqueeze(1)) * samples + self.of for row in rows]
        self.depth, self.price = len(factors), _price(self.shapes, len(self.of))

    def flatten(self, factors: Sequence[Tensor]) -> Tensor:
        """Flat states of factors with any leading dimensions."""
        return torch.cat([f.reshape(-1, size) for f, size in zip(factors, self.sizes, strict=True)], 1)

    def split(self, flat: Tensor) -> list[Tensor]:
        """Factors of flat states: views."""
        parts, leading = flat.split_with_sizes(self.sizes, -1), flat.shape[:-1]
        return [part.view(*leading, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def evaluate(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Log ℒ and −∂ log ℒ/∂Z: what makes this the flow of one loss and not of another."""
        return evaluate(Z)

    def field(self, flat: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Write −∂ log ℒ/∂W into ``out``; log ℒ, and λ for every entry of Z, zero at the sample's own class."""
        log_loss, residual = matrix_field(self.split(_alone(flat)), self.split(_alone(out)), self.evaluate)
        return log_loss.view(len(flat)), residual.neg().masked_fill_(self.own, 0.0).view(len(flat), self.own.numel())

    def gaps(self, flat: Tensor) -> Tensor:
        """Gaps ``z_jc − z_cc`` ``(batch, K·N)``."""
        Z = chain(self.split(_alone(flat)))
        return (Z - Z[..., self.true, self.sample].unsqueeze(-2)).view(len(flat), self.own.numel())

    def gap_rate(self, flat: Tensor, change: Tensor) -> Tensor:
        """Change of ``z_jc − z_cc`` along a change of the factors, ``(batch, K·N)``."""
        factors, changes = self.split(flat), self.split(change)
        value, rate = factors[0], changes[0]
        for factor, turn in zip(factors[1:], changes[1:], strict=True):
            rate = torch.baddbmm(_times(turn, value), factor, rate)
            value = _times(factor, value)
        return (rate - rate[:, self.true, self.sample].unsqueeze(-2)).flatten(1)

    def linearise(self, flat: Tensor) -> Linearised:
        """The first term of the field's derivative: J, Θ = JJᵀ and λ on the pairs j ≠ c."""
        if len(flat) == 1 and len(self.of) ** 2 * flat.shape[1] <= _SMALL:
            return self._dense(flat)
        factors = self.split(flat)
        below, above = values_below(factors), _above(factors)
        weights = -self.evaluate(below[-1])[1][:, self.wrong, self.of]
        rows, columns = below[-1].shape[-2:]
        eye_rows, eye_columns = (torch.eye(size).to(flat).expand(len(flat), size, size) for size in (rows, columns))
        left = torch.stack([eye_rows if a is None else torch.bmm(a, a.mT) for a in above], -1)
        right = torch.stack([eye_columns if b is None else torch.bmm(b.mT, b) for b in below[:-1]], 1)
        theta = self._of_pairs(torch.bmm(left.flatten(1, 2), right.flatten(2)))

        def push(change: Tensor) -> Tensor:
            rate: Any = None
            for factor, turn, value in zip(factors, self.split(change), below, strict=False):
                turned = turn if value is None else _times(turn, value)
                rate = turned if rate is None else torch.baddbmm(turned, factor, rate)
            return rate[:, self.wrong, self.of] - rate[:, self.winner, self.of]

        def pull(pairs: Tensor, out: Tensor) -> None:
            back = pairs.new_zeros(len(pairs), rows, columns)
            back[:, self.wrong, self.of] = pairs
            back[:, self.true, self.sample] = -back.sum(-2)
            _back_propagate(factors, below, back, self.split(out))

        return Linearised(weights, theta, push, pull, lambda rows: self.curvature(flat[rows]))

    def _dense(self, flat: Tensor) -> Linearised:
        """:meth:`linearise` of one small network by J as a matrix: there calls cost time, and not arithmetic."""
        factors, pairs = self.split(flat[0]), len(self.of)
        (*below, Z), above = values_below(factors), _above(factors)
        eye_rows, eye_columns = (torch.eye(size).to(flat) for size in Z.shape)
        # Of an entry (a, b) between U and V the logit z_jc takes U_ja V_bc.
        U, V = torch.cat([*above[:-1], eye_rows], 1), torch.cat([eye_columns, *below[1:]]).mT[self.of]
        outs, ins = zip(*self.shapes, strict=True)
        us, vs = (U[self.wrong] - U[self.winner]).split_with_sizes(outs, 1), V.split_with_sizes(ins, 1)
        J = flat.new_empty(pairs, flat.shape[1])
        for part, shape, u, v in zip(J.split_with_sizes(self.sizes, 1), self.shapes, us, vs, strict=True):
            torch.mul(u.unsqueeze(-1), v.unsqueeze(-2), out=part.view(pairs, *shape))
        weights = -self.evaluate(Z)[1][self.wrong, self.of].unsqueeze(0)

        def pull(values: Tensor, out: Tensor) -> None:
            torch.mm(values, J, out=out)

        theta = (J @ J.mT).unsqueeze(0)
        return Linearised(weights, theta, lambda change: change @ J.mT, pull, lambda rows: self.curvature(flat[rows]))

    def curvature(self, flat: Tensor) -> Tensor:
        """``JSJᵀ`` ``(batch, M, M)`` of the second term S."""
        factors = self.split(flat)
        below, above = values_below(factors), _above(factors)
        slope = self.evaluate(below[-1])[1].mT
        batch, samples, num_classes = slope.shape
        squares = [torch.eye(samples).to(flat).expand(batch, samples, samples)]
        squares += [torch.bmm(V.mT, V) for V in below[1:-2]]
        stacked, turned, outer, inner = torch.cat(squares, 1), above[0].mT, [], []
        for i in range(1, len(factors)):
            if i > 1:  # M_ij U_jᵀ for all j < i, side by side
                turned = torch.cat([torch.bmm(factors[i - 1], turned), above[i - 1].mT], -1)
            back = slope if above[i] is None else torch.bmm(torch.bmm(slope, above[i]), above[i].mT)
            outer.append(torch.bmm(stacked[:, : i * samples], back).view(batch, i, samples * num_classes))
            inner.append(torch.bmm(below[i].mT, turned).view(batch, samples, i, num_classes).transpose(1, 2).flatten(2))
        # Row (d, a) and column (b, c) belong to the entries (a, b) and (c, d) of Z.
        whole = torch.bmm(torch.cat(outer, 1).mT, torch.cat(inner, 1))
        half = self._of_pairs(whole.view(-1, samples, num_classes, samples, num_classes).permute(0, 2, 4, 3, 1))
        return half + half.mT

    def _of_pairs(self, whole: Tensor) -> Tensor:
        """A form on pairs ``(batch, M, M)`` from that on the entries (a, b), (c, d) of Z, in the order a, c, b, d."""
        ww, wc, cw, cc = (whole.flatten(1)[:, index] for index in self.kernel)
        return ww.sub_(wc).sub_(cw).add_(cc)

    def saddle_rank(self, flat: Tensor, slope: Tensor) -> Tensor:
        """Rank of Z where the slope is rounding noise beside what the factors above and below would let through."""
        factors = self.split(flat)
        *below, Z = values_below(factors)
        sizes = [[1.0 if M is None else norm(M.flatten(1)) for M in side] for side in (_above(factors), below)]
        through = sum(above * below for above, below in zip(*sizes, strict=True))
        noise = max(_REST, 16 * torch.finfo(flat.dtype).eps)
        stalled = norm(slope) <= noise * norm(self.evaluate(Z)[1].flatten(1)) * through
        if not stalled.any():
            return torch.full_like(stalled, -1, dtype=torch.int64)
        return torch.where(stalled, numerical_rank(Z, 1e-6), -1)


def _price(shapes: Sequence[tuple[int, ...]], pairs: int) -> float:
    """Cost of an implicit step in explicit ones, by their arithmetic alone.

    Over K = 3 … 24, d = 8 … 64, L = 2 … 8 times of batches of 32 are 0.5 to 5 times this, those of a network alone,
    whose steps are calls and hardly arithmetic, 0.04 to 0.9.  The size of the batch is left out: a network takes the
    same steps alone and in company.
    """
    explicit = 21 * shapes[0][1] * sum(rows * columns for rows, columns in shapes)
    return 3.2 + (15 * len(shapes) * pairs**2 + 0.5 * pairs**3) / explicit


def _alone(flat: Tensor) -> Tensor:
    """The one state of a batch of one: products of matrices are called faster than batches of them."""
    return flat[0] if len(flat) == 1 else flat


def _times(left: Tensor, right: Tensor) -> Tensor:
    """``left @ right``, around the slow path that torch takes for tiny batched products: one network is no batch."""
    if left.ndim != 3:
        return left @ right
    (batch, rows, inner), columns = left.shape, right.shape[-1]
    size = rows * inner * columns
    if batch == 1 and size < _TINY:
        return (left[0] @ right[0]).unsqueeze(0)
    if not 100 <= size < _TINY or left.device.type != "cpu":
        return torch.bmm(left, right)  # what @ calls, after as long again
    if columns > rows:
        return _times(right.mT, left.mT).mT
    right = torch.nn.functional.pad(right, (0, math.ceil(_TINY / (rows * inner)) - columns))  # by columns of zeros
    return torch.bmm(left, right)[..., :columns]


def values_below(factors: Sequence[Tensor]) -> list[Any]:
    """What each factor is applied to, None for the features, and Z after them."""
    return [None, *accumulate(factors, lambda below, factor: _times(factor, below))]


def _above(factors: Sequence[Tensor]) -> list[Any]:
    """What is applied to the output of each factor, None for the classifier."""
    return [None, *accumulate(factors[:0:-1], _times)][::-1]


def matrix_field(
    factors: Sequence[Tensor], out: Sequence[Tensor], evaluate: Callable[[Tensor], tuple[Tensor, Tensor]] = evaluate
) -> tuple[Tensor, Tensor]:
    """Write −∂ log ℒ/∂W_l into ``out``; return log ℒ and −∂ log ℒ/∂Z."""
    below = values_below(factors)
    log_loss, residual = evaluate(below[-1])
    _back_propagate(factors, below, residual, out)
    return log_loss, residual


def _back_propagate(factors: Sequence[Tensor], below: Sequence[Any], back: Tensor, out: Sequence[Tensor]) -> None:
    """Write Jᵀ of ``back``, a slope in Z, into ``out``; ``below[l]`` is what factor l is applied to."""
    for layer in range(len(factors) - 1, 0, -1):
        if back.ndim == 2:  # a network alone, where a call costs more than its arithmetic
            torch.mm(back, below[layer].mT, out=out[layer])
        else:
            out[layer].copy_(_times(back, below[layer].mT))
        back = _times(factors[layer].mT, back)
    out[0].copy_(back)
