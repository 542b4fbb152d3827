r"""Spectral initialisation: when only the singular values move, and their flow.

For a finite abelian group of K elements with characters χ and a real spectrum,
:math:`Z_{ab} = \frac1K\sum_\chi s_\chi\,\chi(a - b)` keeps its singular vectors under the flow of balanced factors,
because the softmax of such a matrix is such a matrix, and

.. math:: \dot s_i = L\,s_i^{2-2/L} g_i,\qquad g_i = \sum_a p(a)(1 - \operatorname{Re}\chi_i(a)),\qquad
          p = \mathrm{softmax}(f),\quad f(a) = \tfrac1K\sum_i m_i s_i\operatorname{Re}\chi_i(a).

Conjugate characters share one s, counted :math:`m_i = 2` times.  The trivial character has no gradient; it starts at 0
and stays there.  For :math:`(\mathbb Z/2)^m` the characters are the rows of the Sylvester–Hadamard matrix.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._linearised import Linearised
from dufm._scaling import check_in_range
from dufm._stepping import Record, follow, recorded
from dufm._steps import Model
from dufm.flow import gradient_flow
from dufm.groups import Characters, Group, check_spectrum
from dufm.loss import log_softplus

__all__ = [
    "SpectralComparison",
    "SpectralHistory",
    "SpectralTrajectory",
    "compare_with_network",
    "random_turns",
    "spectral_flow",
    "spectral_init",
]


@dataclass(frozen=True)
class SpectralHistory:
    """States at the recorded levels: leading dimension = level, then the batch; NaN where never reached."""

    s: torch.Tensor
    log_loss: torch.Tensor
    log_time: torch.Tensor


@dataclass(frozen=True)
class SpectralTrajectory:
    """End of a spectral run, one entry a start; fields as in :class:`dufm.Trajectory`, ``s`` ``(..., F)``."""

    s: torch.Tensor
    log_loss: torch.Tensor
    log_time: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor
    history: SpectralHistory | None = None


def spectral_flow(
    s0: Tensor,
    depth: int,
    group: Group,
    *,
    until_log_loss: float = -200.0,
    rtol: float = 1e-4,
    max_steps: int = 50_000,
    record: Record = None,
) -> SpectralTrajectory:
    r"""Follow :math:`\dot s_i = L\,s_i^{2-2/L} g_i` until ``log ℒ`` falls to ``until_log_loss``.

    ``s0``: positive singular values ``(..., F)``, one for each free character, in the order of the characters' labels.
    ``group``: :class:`Characters`, a tuple of orders, or "hadamard" with K = F + 1.

    With :math:`u_i = \sqrt{m_i L}\,s_i^{1/L}`, the norm of what the L factors hold of character i, this is Euclidean
    gradient flow: so it is stepped by the same code as :func:`dufm.gradient_flow`, and ``rtol``, ``record`` and the
    fields of the result mean the same.  ``rtol`` is relative to ``‖u‖``: an s that is 10^{−k} of the largest has k/L
    fewer digits than it.  Each start has its own clock.

    Units: time is that of dW/dt = −∇ℒ.  Raises: ``DufmError`` for a spectrum that is not positive, real and of length
    F, or an argument out of range.  Source: this companion, notebook 42.

    >>> run = dufm.spectral_flow(torch.tensor([0.1, 0.1, 0.01]).double(), 4, "hadamard")
    >>> (run.s / run.s.max()).round(decimals=2)
    tensor([1., 1., 0.], dtype=torch.float64)
    """
    chi = check_spectrum(s0, group)
    model = SpectralModel(chi, depth, s0)
    run = follow(model, model.flatten(s0), until_log_loss=until_log_loss, rtol=rtol, max_steps=max_steps, record=record)

    def spectra(u: Tensor, shape: tuple[int, ...]) -> Tensor:
        return model.spectrum(u).reshape(*shape, chi.num_free)

    return run.in_shape(s0.shape[:-1], spectra, SpectralTrajectory, SpectralHistory)


class SpectralModel(Model):
    """Spectra as states ``u_i = √(m_i L) s_i^{1/L}`` ``(batch, F)``; a pair is a distinct margin."""

    name = "s0"
    # Measured, 20,000 starts at K = 4 and 8: small solves against sums along the batch.
    price = 3.0

    def __init__(self, chi: Characters, depth: int, like: Tensor) -> None:
        # Elements a and −a have the same margin: one column, counted as often as it stands.
        rates, count = torch.unique(chi.rates.mT.round(decimals=13), dim=0, return_counts=True)
        self.rates, self.log_count = rates.to(like).contiguous(), count.to(like).log().unsqueeze(-1)
        self.unit = (chi.multiplicity.to(like) * depth).sqrt()
        self.slope = depth / self.unit
        self.depth, self.log_classes = depth, math.log(chi.num_classes)

    def flatten(self, s: Tensor) -> Tensor:
        """States of spectra with any leading dimensions."""
        return s.reshape(-1, s.shape[-1]).pow(1 / self.depth) * self.unit

    def spectrum(self, u: Tensor) -> Tensor:
        """Spectra of states."""
        return (u / self.unit).pow(self.depth)

    def _evaluate(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log ℒ, λ and ``s^{1 − 1/L}``, starts last: every reduction then runs along a contiguous batch."""
        root = (u / self.unit).mT.contiguous()
        power = _power(root, self.depth - 1)
        wrong = torch.addmm(self.log_count, self.rates, power * root, alpha=-1)
        top = wrong.amax(0)
        wrong.sub_(top).exp_()
        total = wrong.sum(0)
        log_sample, slope = log_softplus(top.add_(total.log()))
        return log_sample + self.log_classes, wrong.mul_(slope / total), power

    def field(self, u: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """Write −∂ log ℒ/∂u into ``out``; log ℒ and λ."""
        log_loss, weights, power = self._evaluate(u)
        torch.mul((self.rates.mT @ weights).mul_(power).mT, self.slope, out=out)
        return log_loss, weights.mT

    def gaps(self, u: Tensor) -> Tensor:
        """Minus the distinct margins ``(batch, A)``."""
        return -(self.spectrum(u) @ self.rates.mT)

    def gap_rate(self, u: Tensor, change: Tensor) -> Tensor:
        """Change of minus the margins along a change of the state."""
        return -((change * self._slope(u)) @ self.rates.mT)

    def linearise(self, u: Tensor) -> Linearised:
        """The first term of the field's derivative."""
        slope = self._slope(u)
        jacobian = -self.rates * slope.unsqueeze(-2)

        def pull(pairs: Tensor, out: Tensor) -> None:
            torch.mul(pairs @ self.rates, -slope, out=out)

        return Linearised(
            self._evaluate(u)[1].mT,
            jacobian @ jacobian.mT,
            lambda change: -((change * slope) @ self.rates.mT),
            pull,
        )

    def saddle_rank(self, u: Tensor, slope: Tensor) -> Tensor:
        """Every g_i is positive, so no start stalls."""
        return u.new_full(u.shape[:1], -1, dtype=torch.int64)

    def _slope(self, u: Tensor) -> Tensor:
        """``ds_i/du_i``."""
        return _power(u / self.unit, self.depth - 1) * self.slope


def _power(x: Tensor, exponent: int) -> Tensor:
    """``x ** exponent`` for a whole exponent >= 1 by repeated squaring: five times faster than ``pow``."""
    result = x
    for bit in bin(exponent)[3:]:
        result = result * result
        if bit == "1":
            result = result * x
    return result


def spectral_init(s0: Tensor, depth: int, group: Group, width: int | None = None) -> list[Tensor]:
    r"""Balanced, aligned factors ``[W_1, …, W_L]`` of :math:`Z = \frac1K\sum_\chi s_\chi\,\chi\chi^*`.

    ``s0`` and ``group`` as in :func:`spectral_flow`; ``width`` d defaults to K and must be at least K − 1.  Shapes as
    :func:`dufm.gaussian_init`.  The trivial character starts at 0.  The flow of these factors keeps their singular
    vectors, and so does plain gradient descent.

    Units: none.  Raises: ``DufmError`` as :func:`spectral_flow`, and for a width below K − 1.  Source: Saxe, McClelland
    & Ganguli (2014) for aligned starts; this companion, notebook 41.

    >>> factors = dufm.spectral_init(torch.tensor([3.0, 2.0, 1.0]), 3, "hadamard")
    >>> torch.linalg.svdvals(dufm.product(factors))[:3]
    tensor([3.0000, 2.0000, 1.0000])
    """
    chi = check_spectrum(s0, group)
    K = chi.num_classes
    width = check_count("width", K if width is None else width, K - 1, why="the rank of Z is K − 1")
    root = s0[..., chi.owner.to(s0.device)].pow(1 / depth)
    basis = chi.basis[:, 1:].to(s0)
    first = s0.new_zeros(*s0.shape[:-1], width, K)
    hidden = s0.new_zeros(*s0.shape[:-1], width, width)
    first[..., : K - 1, :] = root.unsqueeze(-1) * basis.mT
    hidden.diagonal(dim1=-2, dim2=-1)[..., : K - 1] = root
    return [first, *(hidden.clone() for _ in range(depth - 2)), first.mT.contiguous()]


@dataclass(frozen=True)
class SpectralComparison:
    """The scalar equations beside the full network, a leading dimension for the recorded losses.

    ``scalar``, ``network`` ``(levels, ..., F)``: singular values by either; ``off`` ``(levels, ...)``: what of the
    network's logits the characters do not explain, over ``‖Z‖_F``.  NaN at losses above the start's.
    """

    scalar: torch.Tensor
    network: torch.Tensor
    off: torch.Tensor


def compare_with_network(
    s0: Tensor, depth: int, group: Group, log_losses: Sequence[float], *, rtol: float = 1e-8
) -> SpectralComparison:
    """Scalar equations of ``s0`` ``(..., F)`` beside the flow of the factors that :func:`spectral_init` makes of it.

    Both are recorded at ``log_losses`` (descending) and run to the last.  The network is a product of matrices that is
    never told to stay diagonal.  Returns :class:`SpectralComparison`; ``DufmError`` as :func:`spectral_flow`.
    """
    chi = check_spectrum(s0, group)
    options: dict[str, Any] = {"rtol": rtol, "until_log_loss": log_losses[-1], "record": {"log_loss": list(log_losses)}}
    few = spectral_flow(s0, depth, chi, **options)
    Z = recorded(gradient_flow(spectral_init(s0, depth, chi), **options).history).Z
    met = ~Z.isnan().any(-1).any(-1)
    s, off = chi.spectrum(torch.where(met[..., None, None], Z, 1.0))
    return SpectralComparison(
        recorded(few.history).s, torch.where(met.unsqueeze(-1), s, torch.nan), torch.where(met, off, torch.nan)
    )


def random_turns(num_classes: int, angles: Sequence[float], seed: int | np.random.Generator) -> Tensor:
    """Rotations ``(len(angles), K, K)`` about one random axis system, by ``angles`` in radians, that fix the ones.

    ``exp(angle·A/‖A‖_2)`` with A antisymmetric, Gaussian, orthogonal to the vector of ones: the largest angle by which
    a plane turns is ``angle``.  ``seed``: of NumPy's default generator, or a generator.  ``DufmError`` for fewer than
    three classes.
    """
    num_classes = check_count("num_classes", num_classes, 3, why="two classes leave no plane to turn")
    A = np.random.default_rng(seed).standard_normal((num_classes, num_classes))
    centre = np.eye(num_classes) - 1 / num_classes
    A = centre @ (A - A.T) @ centre
    turn = torch.from_numpy(A / np.linalg.norm(A, 2))
    turns = torch.linalg.matrix_exp(torch.as_tensor(angles, dtype=turn.dtype)[:, None, None] * turn)
    check_in_range("angles: a turn", turns)
    return turns


guard(globals())
