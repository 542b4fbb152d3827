r"""Spectral initialisation: when only the singular values move, and the closed laws of their motion.

For a finite abelian group of K elements with characters χ and a real spectrum,
:math:`Z_{ab} = \frac1K\sum_\chi s_\chi\,\chi(a - b)` keeps its singular vectors under the flow of balanced factors,
because the softmax of such a matrix is such a matrix, and

.. math:: \dot s_i = L\,s_i^{2-2/L} g_i,\qquad g_i = \sum_a p(a)(1 - \operatorname{Re}\chi_i(a)),\qquad
          p = \mathrm{softmax}(f),\quad f(a) = \tfrac1K\sum_i m_i s_i\operatorname{Re}\chi_i(a).

Conjugate characters share one s, counted :math:`m_i = 2` times.  The trivial character has no gradient; it starts at 0
and stays there.  For :math:`(\mathbb Z/2)^m` the characters are the rows of the Sylvester–Hadamard matrix.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from dufm._checks import DufmError, check_count, check_dtype
from dufm._stepping import follow
from dufm._steps import Linearised, Model
from dufm.loss import log_softplus

__all__ = [
    "Characters",
    "SpectralHistory",
    "SpectralTrajectory",
    "characters",
    "early_singular_values",
    "escape_time",
    "late_separatrix",
    "nc_perturbation_growth",
    "spectral_flow",
    "spectral_init",
    "turning_point",
]


# ---------------------------------------------------------------- characters


@dataclass(frozen=True)
class Characters:
    """The nontrivial characters of a finite abelian group, conjugates tied; F of them are free.

    ``orders``: of the cyclic factors; ``labels``: exponents ``(k_1, k_2, …)`` of a representative of each free
    character, ``χ(a) = exp(2πi Σ k_j a_j / n_j)``; ``multiplicity`` ``(F,)``: 1 for a real character, 2 for a conjugate
    pair; ``table`` ``(F, K)``: ``Re χ_i(a)``, elements a in the order of mixed-radix counting; ``basis``
    ``(K, K)``: orthonormal columns, the constant first, then one for each real character, a cosine and
    a sine for each pair; ``owner`` ``(K − 1,)``: the free character of each later column.
    """

    orders: tuple
    labels: tuple
    multiplicity: torch.Tensor
    table: torch.Tensor
    basis: torch.Tensor
    owner: torch.Tensor

    @property
    def num_classes(self):
        """Order K of the group."""
        return self.table.shape[1]

    @property
    def num_free(self):
        """Number F of free singular values: K − 1 for Hadamard, ⌊K/2⌋ for a cyclic group."""
        return len(self.labels)

    @property
    def rates(self):
        """``(F, K − 1)``: margin against the class ``a`` away, per unit of s_i: ``m_i (1 − Re χ_i(a))/K``."""
        return self.multiplicity.unsqueeze(-1) * (1 - self.table[:, 1:]) / self.num_classes

    def logits(self, s):
        """Logits ``(..., K, K)`` of a spectrum ``s`` ``(..., F)``: symmetric, rows and columns sum to zero."""
        basis = self.basis[:, 1:].to(s)
        return (basis * s[..., self.owner.to(s.device)].unsqueeze(-2)) @ basis.mT

    def spectrum(self, Z):
        """Spectrum ``(..., F)`` of logits ``Z`` ``(..., K, K)``, and ``‖off‖_F/‖Z‖_F`` of all it does not explain.

        ``DufmError`` if Z is not K × K, or if its spectrum is not real: an antisymmetric part inside a pair of
        conjugate characters of more than 1e-6 of the norm.
        """
        K = self.num_classes
        if not isinstance(Z, torch.Tensor) or Z.shape[-2:] != (K, K):
            raise DufmError(f"Z must be a floating tensor of shape (..., {K}, {K}), got {getattr(Z, 'shape', Z)!r}")
        check_dtype("Z", Z)
        basis = self.basis[:, 1:].to(Z)
        inner = basis.mT @ Z @ basis
        size = torch.linalg.matrix_norm(Z)
        pair = (self.owner[:-1] == self.owner[1:]).nonzero().squeeze(-1)
        turned = (inner[..., pair, pair + 1] - inner[..., pair + 1, pair]).abs() / 2
        if (turned > 1e-6 * size.unsqueeze(-1)).any():
            raise DufmError(
                f"Z must have a real spectrum for the group of orders {self.orders}: between conjugate characters "
                "it is antisymmetric, and their phase would turn along the flow; symmetrise Z"
            )
        one_hot = torch.nn.functional.one_hot(self.owner, self.num_free).to(Z)
        s = inner.diagonal(dim1=-2, dim2=-1) @ one_hot / self.multiplicity.to(Z)
        return s, torch.linalg.matrix_norm(Z - self.logits(s)) / size


def characters(group, num_classes=None):
    r"""Characters of a finite abelian group of K elements, conjugates tied.

    ``group``: ``"hadamard"`` with ``num_classes`` = 2^m; ``"cyclic"`` with any ``num_classes``; or the orders of cyclic
    factors, ``(3, 3)`` for (Z/3)², whose product is K.  Hadamard is ``(2, …, 2)``: character i is
    :math:`\chi_i(a) = (-1)^{\langle i, a\rangle}`, i and a read as bit vectors.  Returns :class:`Characters`, and
    one that it is given unchanged.  ``DufmError`` for an unknown group, a K that is no power of two, an order below 2.
    """
    if isinstance(group, Characters):
        return group
    if group == "hadamard":
        K = check_count("num_classes", num_classes, 2)
        if K & (K - 1):
            raise DufmError(f"num_classes must be a power of two for group 'hadamard', got {K}; 'cyclic' takes any")
        orders = (2,) * (K.bit_length() - 1)
    elif group == "cyclic":
        orders = (check_count("num_classes", num_classes, 2),)
    elif isinstance(group, (tuple, list)) and len(group):
        orders = tuple(check_count("group: an order", order, 2) for order in group)
        if num_classes not in (None, math.prod(orders)):
            raise DufmError(f"num_classes must be {math.prod(orders)} for orders {orders}, got {num_classes}")
    else:
        raise DufmError(f"group must be 'hadamard', 'cyclic', or a tuple of orders such as (2, 6), got {group!r}")
    sizes = np.array(orders)
    elements = np.indices(orders).reshape(len(orders), -1).T
    conjugate = np.ravel_multi_index(tuple((-elements % sizes).T), orders)
    free = [i for i in range(1, len(elements)) if i <= conjugate[i]]
    # Whole turns are taken out in integers.
    common = math.lcm(*orders)
    turns = elements[free] * (common // sizes) @ elements.T % common
    cosine, sine = np.cos(2 * math.pi * turns / common), np.sin(2 * math.pi * turns / common)
    paired = conjugate[free] != free
    K = len(elements)
    columns, owner = [np.full(K, K**-0.5)], []
    for index, pair in enumerate(paired):
        waves = [cosine[index], sine[index]] if pair else [cosine[index]]
        columns += [wave * math.sqrt(len(waves) / K) for wave in waves]
        owner += [index] * len(waves)
    return Characters(
        orders,
        tuple(tuple(label) for label in elements[free].tolist()),
        torch.from_numpy(1.0 + paired),
        torch.from_numpy(cosine),
        torch.from_numpy(np.stack(columns, 1)),
        torch.tensor(owner),
    )


def check_spectrum(s, group, name="s0"):
    """Characters for a spectrum, or a refusal of either."""
    if not isinstance(s, torch.Tensor) or s.ndim < 1 or s.numel() == 0:
        raise DufmError(f"{name} must be a non-empty torch tensor of shape (..., F), got {getattr(s, 'shape', s)!r}")
    if s.is_complex():
        raise DufmError(f"{name} must be real: with complex singular values the phases turn too, got {s.dtype}")
    check_dtype(name, s)
    if isinstance(group, str) and group == "cyclic":
        raise DufmError("group 'cyclic' needs its order: pass characters('cyclic', K), or (K,)")
    chi = characters(group, s.shape[-1] + 1 if isinstance(group, str) else None)
    if s.shape[-1] != chi.num_free:
        raise DufmError(
            f"{name} must have {chi.num_free} entries, one for each free character of the group of orders {chi.orders} "
            f"(conjugates tied, the trivial one left out), got shape {tuple(s.shape)}"
        )
    if not (torch.isfinite(s).all() and (s > 0).all()):
        raise DufmError(f"{name} must be positive and finite: a zero never grows; the smallest is {s.min():g}")
    return chi


# ---------------------------------------------------------------- the flow


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


def spectral_flow(s0, depth, group, *, until_log_loss=-200.0, rtol=1e-4, max_steps=50_000, record=None):
    r"""Follow :math:`\dot s_i = L\,s_i^{2-2/L} g_i` until ``log ℒ`` falls to ``until_log_loss``.

    ``s0``: positive singular values ``(..., F)``, one for each free character, in the order of the characters' labels.
    ``group``: :class:`Characters`, a tuple of orders, or "hadamard" with K = F + 1.

    With :math:`u_i = \sqrt{m_i L}\,s_i^{1/L}`, the norm of what the L factors hold of character i, this is
    Euclidean gradient flow: so it is stepped by the same code as :func:`dufm.gradient_flow`, and ``rtol``,
    ``record`` and the fields of the result mean the same.  ``rtol`` is relative to ``‖u‖``: an s that is 10^{−k}
    of the largest has k/L fewer digits than it.  Each start has its own clock.  ``DufmError`` for a spectrum that is
    not positive, real and of length F, or an argument out of range.
    """
    chi = check_spectrum(s0, group)
    depth = check_count("depth", depth, 2)
    batch_shape = s0.shape[:-1]
    model = SpectralModel(chi, depth, s0)
    run = follow(
        model, model.flatten(s0), until_log_loss=until_log_loss, rtol=rtol, max_steps=max_steps, record=record
    )

    def spectrum_of(u):
        return model.spectrum(u).reshape(*u.shape[:-2], *batch_shape, chi.num_free)

    def values_of(flat):
        return flat.reshape((*flat.shape[:-1], *batch_shape))

    history = run.kept and SpectralHistory(spectrum_of(run.kept[0]), values_of(run.kept[1]), values_of(run.kept[2]))
    return SpectralTrajectory(
        spectrum_of(run.state),
        values_of(run.log_loss),
        values_of(run.log_time),
        run.status.reshape(batch_shape),
        values_of(run.steps),
        history,
    )


class SpectralModel(Model):
    """Spectra as states ``u_i = √(m_i L) s_i^{1/L}`` ``(batch, F)``; a pair is a distinct margin."""

    # Measured, 20,000 starts at K = 4 and 8: small solves against sums along the batch.
    price = 3.0

    def __init__(self, chi, depth, like):
        # Elements a and −a have the same margin: one column, counted as often as it stands.
        rates, count = torch.unique(chi.rates.mT.round(decimals=13), dim=0, return_counts=True)
        self.rates, self.log_count = rates.to(like).contiguous(), count.to(like).log().unsqueeze(-1)
        self.unit = (chi.multiplicity.to(like) * depth).sqrt()
        self.depth, self.log_classes = depth, math.log(chi.num_classes)

    def flatten(self, s):
        """States of spectra with any leading dimensions."""
        return s.reshape(-1, s.shape[-1]).pow(1 / self.depth) * self.unit

    def spectrum(self, u):
        """Spectra of states."""
        return (u / self.unit).pow(self.depth)

    def _evaluate(self, u):
        """Log ℒ, λ and ``s^{1 − 1/L}``, starts last: every reduction then runs along a contiguous batch."""
        root = (u / self.unit).mT.contiguous()
        power = _power(root, self.depth - 1)
        wrong = torch.addmm(self.log_count, self.rates, power * root, alpha=-1)
        top = wrong.amax(0)
        wrong.sub_(top).exp_()
        total = wrong.sum(0)
        log_sample, slope = log_softplus(top.add_(total.log()))
        return log_sample + self.log_classes, wrong.mul_(slope / total), power

    def field(self, u, out):
        """Write −∂ log ℒ/∂u into ``out``; log ℒ and λ."""
        log_loss, weights, power = self._evaluate(u)
        torch.mul((self.rates.mT @ weights).mul_(power).mT, self.depth / self.unit, out=out)
        return log_loss, weights.mT

    def gaps(self, u):
        """Minus the distinct margins ``(batch, A)``."""
        return -(self.spectrum(u) @ self.rates.mT)

    def gap_rate(self, u, change):
        """Change of minus the margins along a change of the state."""
        return -((change * self._slope(u)) @ self.rates.mT)

    def linearise(self, u):
        """The first term of the field's derivative."""
        slope = self._slope(u)
        jacobian = -self.rates * slope.unsqueeze(-2)
        return Linearised(
            self._evaluate(u)[1].mT,
            jacobian @ jacobian.mT,
            lambda change: -((change * slope) @ self.rates.mT),
            lambda pairs, out: torch.mul(pairs @ self.rates, -slope, out=out),
        )

    def saddle_rank(self, u, slope):
        """Every g_i is positive, so no start stalls."""
        return u.new_full(u.shape[:1], -1, dtype=torch.int64)

    def _slope(self, u):
        """``ds_i/du_i``."""
        return _power(u / self.unit, self.depth - 1) * (self.depth / self.unit)


def _power(x, exponent):
    """``x ** exponent`` for a whole exponent >= 1 by repeated squaring: five times faster than ``pow``."""
    result = x
    for bit in bin(exponent)[3:]:
        result = result * result
        if bit == "1":
            result = result * x
    return result


def spectral_init(s0, depth, group, width=None):
    r"""Balanced, aligned factors ``[W_1, …, W_L]`` of :math:`Z = \frac1K\sum_\chi s_\chi\,\chi\chi^*`.

    ``s0`` and ``group`` as in :func:`spectral_flow`; ``width`` d defaults to K and must be at least K − 1.  The trivial
    character starts at 0.  The flow of these factors keeps their singular vectors, and so does plain gradient descent.
    """
    chi = check_spectrum(s0, group)
    depth = check_count("depth", depth, 2)
    K = chi.num_classes
    width = check_count("width", K if width is None else width, K - 1, why="the rank of Z is K − 1")
    root = s0[..., chi.owner.to(s0.device)].pow(1 / depth)
    basis = chi.basis[:, 1:].to(s0)
    first = s0.new_zeros(*s0.shape[:-1], width, K)
    hidden = s0.new_zeros(*s0.shape[:-1], width, width)
    first[..., : K - 1, :] = root.unsqueeze(-1) * basis.mT
    hidden.diagonal(dim1=-2, dim2=-1)[..., : K - 1] = root
    return [first, *(hidden.clone() for _ in range(depth - 2)), first.mT.contiguous()]


# ---------------------------------------------------------------- closed laws


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
