r"""The matrix of a linearly implicit step, for a batch of states: what it stands for, and products with its inverse.

The flow is stiff in few dimensions.  With D the gaps :math:`z_{jc} - z_{cc}` of all M pairs, J = ∂D/∂x and λ the slope
of log ℒ in D, the field is :math:`-J^\top\lambda`, and in units of its growth the eigenvalues of
:math:`-J^\top C J`, :math:`C = \operatorname{Diag}\lambda - \lambda\lambda^\top/\sum\lambda`, reach down to about
:math:`-3.5\,|\log\mathcal L|`, while the rest S of F' stays of order one.  A *Rosenbrock–W* method keeps its order for
any matrix in the place of F'.  With that one every solve is M × M,

.. math:: (I + \gamma h J^\top C J)^{-1} v = v - \gamma h\,J^\top B\,(I + \gamma h\,B^\top\Theta B)^{-1}B^\top J v,
          \qquad \Theta = JJ^\top,\quad C = BB^\top .

Near a saddle next to nothing grows, and S is as large as the first term, of either sign.  There A is what F' is in the
range of :math:`J^\top`, but for what grows, which an implicit step would damp: with :math:`\Theta = RR^\top`, to which
:math:`\sqrt\epsilon` of its mean diagonal is added, and :math:`E = J^\top R^{-\top}`, whose columns are orthonormal,

.. math:: (I - \gamma hA)^{-1} = I - EQ\operatorname{Diag}\frac{\gamma h\mu^+}{1+\gamma h\mu^+}Q^\top E^\top,
          \qquad R^\top CR - R^{-1}JSJ^\top R^{-\top} = Q\operatorname{Diag}(\mu)\,Q^\top .
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dufm._scaling import norm

__all__ = ["Linearised"]


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

    def inverse(self, scale: Tensor, saddles: Tensor) -> tuple[Callable[[Tensor, Tensor], Tensor], Tensor]:
        """A function ``(v, memory)`` that replaces v by (I − scale·A)⁻¹v and returns J v; and where A has an inverse.

        ``scale`` γh ``(batch, 1)``; ``saddles``: the rows near one, which count where there is a curvature.
        """
        stiff, root, unit = self.stiff
        shrink: Tensor | None = None
        if self.damping is not None:
            shrink = 1 / (1 + scale * self.damping.unsqueeze(-1))
            scale = scale * shrink
        matrix = scale.unsqueeze(-1) * stiff
        matrix.diagonal(dim1=-2, dim2=-1).add_(1.0)
        lower, failed = torch.linalg.cholesky_ex(matrix)
        lower = torch.where((failed == 0)[:, None, None], lower, torch.eye(lower.shape[-1]).to(lower))
        inner = torch.cholesky_inverse(lower)
        whole: Tensor | None = None
        if self.curvature is not None and len(saddles):
            whole = _whole(self.curvature(saddles), self.theta[saddles], self.weights[saddles], scale[saddles])

        def solve(rate: Tensor) -> Tensor:
            """``γh P J v`` from ``J v``, P = B(I + γhBᵀΘB)⁻¹Bᵀ."""
            narrow = rate * root
            narrow.sub_((narrow * unit).sum(-1, keepdim=True) * unit)
            narrow = _through(inner, narrow)
            return (narrow - (narrow * unit).sum(-1, keepdim=True) * unit) * root * scale

        def apply(move: Tensor, memory: Tensor) -> Tensor:
            if shrink is not None:
                move.mul_(shrink)
            rate = self.push(move)
            correction = solve(rate)
            if whole is not None:
                correction[saddles] = _through(whole, rate[saddles])
            self.pull(correction, memory)
            move.sub_(memory)
            return rate - _through(self.theta, correction)

        return apply, failed == 0


def _through(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.bmm(matrix, vector.unsqueeze(-1)).squeeze(-1)


def _whole(curvature: Tensor, theta: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
    """What stands between Jᵀ and J in I − (I − γhA)⁻¹, A the second of the module; 0 where a factorisation fails."""
    floor = torch.finfo(theta.dtype).eps ** 0.5 * theta.diagonal(dim1=-2, dim2=-1).mean(-1)
    lower, failed = torch.linalg.cholesky_ex(theta + torch.diag_embed(floor.unsqueeze(-1).expand_as(weights)))
    weights = weights.clamp(min=0).unsqueeze(-1)
    mean = torch.bmm(lower.mT, weights / weights.sum(-2, keepdim=True).sqrt())
    bent = torch.linalg.solve_triangular(lower, curvature, upper=False)
    inner = torch.bmm(lower.mT, weights * lower) - mean * mean.mT
    inner -= torch.linalg.solve_triangular(lower, bent.mT, upper=False)
    good = ((failed == 0) & inner.isfinite().flatten(1).all(1))[:, None, None]
    values, Q = torch.linalg.eigh(torch.where(good, inner, 0.0))
    shares = scale * values.clamp(min=0)
    Q = torch.linalg.solve_triangular(lower.mT, Q, upper=True)
    return torch.where(good, Q * (shares / (1 + shares)).unsqueeze(-2) @ Q.mT, 0.0)
