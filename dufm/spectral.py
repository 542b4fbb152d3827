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

from dufm._checks import DufmError, check_count
from dufm._nnls import nonnegative_least_squares
from dufm.flow import integrate
from dufm.loss import log_softplus

__all__ = [
    "Characters",
    "SpectralEnd",
    "SpectralHistory",
    "SpectralTrajectory",
    "characters",
    "early_singular_values",
    "escape_time",
    "late_separatrix",
    "nc_perturbation_growth",
    "spectral_end",
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
        if not isinstance(Z, torch.Tensor) or not Z.is_floating_point() or Z.shape[-2:] != (K, K):
            raise DufmError(f"Z must be a floating tensor of shape (..., {K}, {K}), got {getattr(Z, 'shape', Z)!r}")
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


def _check_spectrum(s, group, name="s0"):
    """Characters for a spectrum, or a refusal of either."""
    if not isinstance(s, torch.Tensor) or s.ndim < 1 or s.numel() == 0:
        raise DufmError(f"{name} must be a non-empty torch tensor of shape (..., F), got {getattr(s, 'shape', s)!r}")
    if s.is_complex():
        raise DufmError(f"{name} must be real: with complex singular values the phases turn too, got {s.dtype}")
    if not s.is_floating_point():
        raise DufmError(f"{name} must have a floating dtype (float64 is the default), got {s.dtype}")
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
    chi = _check_spectrum(s0, group)
    depth = check_count("depth", depth, 2)
    batch_shape = s0.shape[:-1]
    # Elements a and −a have the same margin: one column, counted as often as it stands.
    rates, count = torch.unique(chi.rates.mT.round(decimals=13), dim=0, return_counts=True)
    rates, log_count = rates.to(s0).contiguous(), count.to(s0).log().unsqueeze(-1)
    unit = (chi.multiplicity.to(s0) * depth).sqrt()
    log_classes = math.log(chi.num_classes)

    def field(u, out):
        # Starts last: every reduction then runs along a contiguous batch.
        root = (u / unit).mT.contiguous()
        power = _power(root, depth - 1)
        wrong = torch.addmm(log_count, rates, power * root, alpha=-1)
        top = wrong.amax(0)
        wrong.sub_(top).exp_()
        total = wrong.sum(0)
        log_sample, slope = log_softplus(top.add_(total.log()))
        torch.mul((rates.mT @ wrong.mul_(slope / total)).mul_(power).mT, depth / unit, out=out)
        return log_sample + log_classes

    def never(u, slope):
        # Every g_i is positive, so no start stalls.
        return u.new_full(u.shape[:1], -1, dtype=torch.int64)

    run = integrate(
        field,
        s0.reshape(-1, chi.num_free).pow(1 / depth) * unit,
        until_log_loss=until_log_loss,
        rtol=rtol,
        max_steps=max_steps,
        record=record,
        saddle_rank=never,
    )

    def spectrum(u):
        return (u / unit).pow(depth).reshape(*u.shape[:-2], *batch_shape, chi.num_free)

    history = run.history and SpectralHistory(
        spectrum(run.history.factors[0]),
        run.history.log_loss.reshape(-1, *batch_shape),
        run.history.log_time.reshape(-1, *batch_shape),
    )
    return SpectralTrajectory(
        spectrum(run.factors[0]),
        run.log_loss.reshape(batch_shape),
        run.log_time.reshape(batch_shape),
        run.status.reshape(batch_shape),
        run.steps.reshape(batch_shape),
        history,
    )


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
    chi = _check_spectrum(s0, group)
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


# ---------------------------------------------------------------- where a run ends


@dataclass(frozen=True)
class SpectralEnd:
    """The solution a spectral run is heading for, by the rule of :func:`spectral_end`.

    ``spectrum`` ``(..., F)`` of smallest margin 1, exactly zero off its support, NaN where no cut has a vertex near;
    ``rank`` of Z, int64; ``moved``: ``‖ŝ − spectrum‖/‖spectrum‖``, ŝ the run's own spectrum at the same scale;
    ``decided``: moved by at most a tenth.
    """

    spectrum: torch.Tensor
    rank: torch.Tensor
    moved: torch.Tensor
    decided: torch.Tensor


END_MOVED = 0.1
END_ACTIVE = 0.15
END_RESIDUAL = 1e-8


def spectral_end(s, depth, group):
    r"""The vertex of ``{s ≥ 0, margins ≥ 1}`` at which a spectrum ``s`` ``(..., F)`` of large margin will arrive.

    Each cut to the r largest values, r = 1 … F, is rescaled to smallest margin 1 and polished: the margins within
    15% of the smallest are set to 1 exactly.  What is then no vertex, or no KKT point of ``min Σ m_i
    s_i^{2/L}`` (residual
    1e-8), is dropped; the nearest of the others is the end if it is at most 10% away, otherwise the run
    is undecided.  (The trivial singular value being zero, the widest gap would always stand at K − 1; hence the
    nearest.)  Meant at margin ≥ 200.
    """
    chi = _check_spectrum(s, group, "s")
    depth = check_count("depth", depth, 2)
    flat = s.reshape(-1, chi.num_free)
    rates = chi.rates.to(flat)
    nearest = torch.full_like(flat, torch.nan)
    moved = flat.new_full(flat.shape[:1], torch.inf)
    place = flat.argsort(-1, descending=True).argsort(-1)
    bits = 2 ** torch.arange(chi.num_free + rates.shape[1], device=flat.device)
    for kept in range(1, chi.num_free + 1):
        support = place < kept
        margin = torch.where(support, flat, 0.0) @ rates
        smallest = margin.amin(-1, keepdim=True)
        tight = margin <= (1 + END_ACTIVE) * smallest
        keys, which = torch.unique((torch.cat([support, tight], -1) * bits).sum(-1), return_inverse=True)
        patterns = (keys.unsqueeze(-1) & bits).bool().cpu().numpy()
        points = [_vertex(row, rates.cpu().numpy(), chi.multiplicity.numpy(), depth) for row in patterns]
        point = flat.new_tensor(np.array(points))[which]
        change = (flat / smallest - point).norm(dim=-1) / point.norm(dim=-1)
        better = (smallest.squeeze(-1) > 0) & (change < moved)
        nearest = torch.where(better.unsqueeze(-1), point, nearest)
        moved = torch.where(better, change, moved)
    rank = ((nearest > 0) * chi.multiplicity.to(flat)).sum(-1).round().long()
    shape = s.shape[:-1]
    return SpectralEnd(
        nearest.reshape(s.shape), rank.reshape(shape), moved.reshape(shape), (moved <= END_MOVED).reshape(shape)
    )


def _vertex(pattern, rates, multiplicity, depth):
    """The KKT vertex of given support and tight margins, NaN where there is none."""
    support, tight = pattern[: len(rates)], pattern[len(rates) :]
    point, nothing = np.zeros(len(rates)), np.full(len(rates), np.nan)
    # At L = 2 the cost is linear and only neural collapse, every margin 1, solves it: what was dropped would grow.
    if depth == 2 and not (support.all() and tight.all()):
        return nothing
    system = rates[np.ix_(support, tight)]
    if np.linalg.matrix_rank(system) < support.sum():
        return nothing
    point[support] = np.linalg.lstsq(system.T, np.ones(tight.sum()), rcond=None)[0]
    margin = point @ rates
    if (point[support] <= 0).any() or (margin < 1 - 1e-9).any() or (margin[tight] > 1 + 1e-9).any():
        return nothing
    slope = multiplicity[support] * point[support] ** (2 / depth - 1)
    _, residual = nonnegative_least_squares(system, slope)
    return point if residual < END_RESIDUAL * np.linalg.norm(slope) else nothing


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
    if not isinstance(s, torch.Tensor) or not s.is_floating_point() or not (torch.isfinite(s) & (s > 0)).all():
        raise DufmError(f"{name} must be a tensor of finite positive numbers, got {s!r}")
    return check_count("depth", depth, 2)
