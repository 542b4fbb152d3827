r"""The matrix of a linearly implicit step, for a batch of states: what it stands for, and products with its inverse.

The flow is stiff in few dimensions.  With D the gaps :math:`z_{jc} - z_{cc}` of all M pairs, J = ∂D/∂x and λ the slope
of log ℒ in D, the field is :math:`-J^\top\lambda`, and in units of its growth the eigenvalues of
:math:`-J^\top C J`, :math:`C = \operatorname{Diag}\lambda - \lambda\lambda^\top/\sum\lambda`, reach down to about
:math:`-3.5\,|\log\mathcal L|`, while the rest S of F' stays of order one.  A *Rosenbrock–W* method keeps its order for
any matrix in the place of F'.  With that one every solve is M × M,

.. math:: (I + \gamma h J^\top C J)^{-1} v = v - \gamma h\,J^\top B\,(I + \gamma h\,B^\top\Theta B)^{-1}B^\top J v,
          \qquad \Theta = JJ^\top,\quad C = BB^\top .

Near a saddle next to nothing grows, and S is as large as the first term, of either sign.  There A is what F' is in the
range of :math:`J^\top`, but for what grows, which an implicit step would damp: with :math:`\Theta = U\theta U^\top` and
the orthonormal columns of :math:`E = J^\top U\theta^{-1/2}`,

.. math:: (I - \gamma hA)^{-1} = I - EQ\operatorname{Diag}\frac{\gamma h\mu^+}{1+\gamma h\mu^+}Q^\top E^\top,
          \qquad \theta^{1/2}U^\top CU\theta^{1/2} - \theta^{-1/2}U^\top JSJ^\top U\theta^{-1/2}
          = Q\operatorname{Diag}(\mu)\,Q^\top .

Directions of small θ are rounding, in S more than in the first term.  Logits there are 10⁵ and more while the margins
that count are of order one: a stage that moves by a share δ of its state along what is tied misses them by
10⁵ δ², and is moved back to the margins that its moves have to first order; a step that ends off them by 10⁻⁵ has a
slope a thousand times the path's, and ends at rest in the stiff directions instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dufm._scaling import norm

__all__ = ["Linearised", "Saddles"]

# Exponents of ε: the shares of the largest θ below which a direction is left out, and where S is left out of it.
_KEPT, _BENT = 0.8, 0.5
_STIFF = 100.0  # γhμ from which a direction is held and settled


@dataclass(frozen=True)
class Saddles:
    """Rows near a saddle, and the matrices ``(rows, M, M)`` that stand between Jᵀ and J there.

    ``damped``: in I − (I − γhA)⁻¹; and in the directions far stiffer than a step is long, of γhμ over 100, ``held``: in
    what undoes a change of the gaps, ``settled``: in what takes γhF to the move that ends at rest.  Both are of fourth
    order in h in the other directions.  0 where they are not ``found``.
    """

    rows: torch.Tensor
    damped: torch.Tensor
    held: torch.Tensor
    settled: torch.Tensor
    found: torch.Tensor


@dataclass(frozen=True)
class Linearised:
    """The first term of F' at a state: ``weights`` λ ``(batch, M)``, ``theta`` Θ, products with J and Jᵀ.

    ``push(v)`` is J v, ``pull(pairs, out)`` writes Jᵀ of pairs; ``curvature(rows)`` is JSJᵀ of some rows, None for a
    matrix without it; ``damping`` α ``(batch,)``: for a field with a further term −αx.
    """

    weights: torch.Tensor
    theta: torch.Tensor
    push: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor], None]
    curvature: Callable[[Tensor], Tensor] | None = None
    damping: torch.Tensor | None = None

    @cached_property
    def stiff(self) -> tuple[Tensor, Tensor, Tensor]:
        """``BᵀΘB`` and B as a function, B = Diag(√λ)(I − uuᵀ) with u = √(λ/Σλ)."""
        root = self.weights.clamp(min=0).sqrt()
        unit = root / norm(root).unsqueeze(-1)
        scaled = root.unsqueeze(-1) * self.theta * root.unsqueeze(-2)
        row = torch.bmm(unit.unsqueeze(-2), scaled).squeeze(-2)
        corner = (row * unit).sum(-1, keepdim=True)
        cross = unit.unsqueeze(-1) * (row - 0.5 * corner * unit).unsqueeze(-2)
        return scaled - cross - cross.mT, root, unit

    @cached_property
    def edge(self) -> Tensor:
        """Bound of the eigenvalues of ``JᵀCJ``, ``(batch,)``."""
        return torch.linalg.matrix_norm(self.stiff[0])

    def saddles(self, scale: Tensor, rows: Tensor) -> Saddles | None:
        """What a step needs of ``rows`` near a saddle, ``scale`` γh ``(batch, 1)``; None where nothing is."""
        if self.curvature is None or not len(rows):
            return None
        return _saddles(rows, self.curvature(rows), self.theta[rows], self.weights[rows], scale[rows])

    def pulled(self, saddles: Saddles, matrix: Tensor, pairs: Tensor, out: Tensor) -> Tensor:
        """Write Jᵀ ``matrix`` of pairs into ``out``, 0 in rows that are near no saddle."""
        correction = torch.zeros_like(pairs)
        correction[saddles.rows] = _through(matrix, pairs[saddles.rows])
        self.pull(correction, out)
        return out

    def inverse(self, scale: Tensor, saddles: Saddles | None) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
        """A function ``(v, memory)`` that replaces v by (I − γhA)⁻¹v and returns J v; and where A has an inverse."""
        shrink: Tensor | None = None
        if self.damping is not None:
            shrink = (1 + scale * self.damping.unsqueeze(-1)).reciprocal()
            scale = scale * shrink
        first: Callable[[Tensor], Tensor] | None = None
        found = torch.ones(len(scale), dtype=torch.bool, device=scale.device)
        if saddles is None or len(saddles.rows) < len(scale):
            first, found = self._first(scale)
        if saddles is not None:
            found[saddles.rows] = saddles.found

        def apply(move: Tensor, memory: Tensor) -> Tensor:
            if shrink is not None:
                move.mul_(shrink)
            rate = self.push(move)
            correction = torch.empty_like(rate) if first is None else first(rate)
            if saddles is not None:
                correction[saddles.rows] = _through(saddles.damped, rate[saddles.rows])
            self.pull(correction, memory)
            move.sub_(memory)
            return rate - _through(self.theta, correction)

        return apply, found

    def _first(self, scale: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """``γh P J v`` from ``J v``, P = B(I + γhBᵀΘB)⁻¹Bᵀ, as a function; and where that inverse is found."""
        stiff, root, unit = self.stiff
        matrix = scale.unsqueeze(-1) * stiff
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        lower, failed = torch.linalg.cholesky_ex(matrix)
        lower = torch.where((failed == 0)[:, None, None], lower, torch.eye(lower.shape[-1]).to(lower))
        inner = torch.cholesky_inverse(lower)

        def solve(rate: Tensor) -> Tensor:
            narrow = rate * root
            narrow.sub_((narrow * unit).sum(-1, keepdim=True) * unit)
            narrow = _through(inner, narrow)
            return (narrow - (narrow * unit).sum(-1, keepdim=True) * unit) * root * scale

        return solve, failed == 0


def _through(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.bmm(matrix, vector.unsqueeze(-1)).squeeze(-1)


def _saddles(rows: Tensor, curvature: Tensor, theta: Tensor, weights: Tensor, scale: Tensor) -> Saddles:
    """:class:`Saddles` of JSJᵀ, Θ, λ and γh of the rows."""
    finite = theta.isfinite().flatten(1).all(1)
    sizes, U = torch.linalg.eigh(torch.where(finite[:, None, None], theta, 0.0))
    kept, bent = (U * _roots(sizes, share).unsqueeze(-2) for share in (_KEPT, _BENT))
    R = torch.bmm(theta, kept)
    weights = weights.clamp(min=0).unsqueeze(-1)
    mean = torch.bmm(R.mT, weights / weights.sum(-2, keepdim=True).sqrt())
    inner = torch.bmm(R.mT, weights * R) - mean * mean.mT - bent.mT @ curvature @ bent
    found = inner.isfinite().flatten(1).all(1)
    values, Q = torch.linalg.eigh(torch.where(found[:, None, None], inner, 0.0))
    shares, Q = scale * values.clamp(min=0), kept @ Q
    stiff = 1 / (1 + (_STIFF / shares) ** 4)
    parts = shares / (1 + shares), stiff, stiff / shares.clamp(min=torch.finfo(shares.dtype).tiny)
    damped, held, settled = (Q * part.unsqueeze(-2) @ Q.mT for part in parts)
    return Saddles(rows, damped, held, settled, found)


def _roots(sizes: Tensor, share: float) -> Tensor:
    """θ^(-1/2), smoothly cut below the share ``ε**share`` of the largest θ."""
    largest = sizes[:, -1:].clamp(min=torch.finfo(sizes.dtype).tiny)
    shares, floor = (sizes / largest).clamp(min=0), torch.finfo(sizes.dtype).eps ** share
    return (shares / (shares**2 + floor**2)).sqrt() / largest.sqrt()
