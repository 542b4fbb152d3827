r"""Small deviations from neural collapse: four families, their laws, and what the flow makes of them.

Around the ray ``Z = sC``, ``C = I − J/K``, ``u = 1/√K``, a deviation E of the logits is a sum of four kinds:
*symmetric* (and centred, with zero diagonal), *antisymmetric* (and centred), *shift* ``u cᵀ`` of all logits of a
sample, and class *imbalance* ``C Diag(x) C + b uᵀ``; x, b, c sum to zero.  With C and ``u uᵀ``, which do not deviate,
these are all K² directions.  Growth is that of ``E/s``, and the clock is s itself.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from dufm._checks import check_count, check_logits
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range, in_range, times_power
from dufm._stepping import recorded
from dufm.flow import gradient_flow
from dufm.groups import Group, characters, check_spectrum
from dufm.laws import deviation_growth, early_singular_values, escape_time, nc_log_loss, nc_perturbation_growth
from dufm.model import balanced_init
from dufm.spectral import spectral_flow

__all__ = [
    "FAMILIES",
    "early_phase",
    "family_growth",
    "forces",
    "imbalance_coordinates",
    "imbalance_path",
    "imbalance_peak",
    "measured_families",
    "measured_imbalance",
    "measured_repulsion",
    "project",
    "random_directions",
]

_LONGEST = 1e5  # in s: the pair that follows the imbalance is explicit, and takes about a step a unit

#: Small deviations from collapse by their symmetry: :func:`project` splits them.
FAMILIES = ("symmetric", "antisymmetric", "shift", "imbalance")


# ---------------------------------------------------------------- the families


def project(E: Tensor) -> Tensor:
    """Orthogonal projections ``(4, ..., K, K)`` of ``E`` ``(..., K, K)`` onto the ``FAMILIES``, in their order.

    What they leave is the part along C and ``u uᵀ``.  ``DufmError`` unless E is square and K at least 3.
    """
    K = _check_square(E)
    E, e = in_range(E)
    C = _centring(K).to(E)
    inner = C @ E @ C
    x = _diagonal(inner, K)
    own = C @ torch.diag_embed(x) @ C
    trace = inner.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
    even = (inner + inner.mT) / 2 - own - trace / (K - 1) * C
    shift = E.mean(-2, keepdim=True).expand_as(E) @ C
    tilt = C @ E.mean(-1, keepdim=True).expand_as(E)
    parts = times_power(torch.stack([even, (inner - inner.mT) / 2, shift, own + tilt]), e)
    check_in_range("E: a projection", parts)
    return parts


def imbalance_coordinates(E: Tensor) -> tuple[Tensor, Tensor]:
    """``x`` and ``b`` ``(..., K)`` of the fourth family ``C Diag(x) C + b uᵀ`` in ``E`` ``(..., K, K)``.

    ``DufmError`` as :func:`project`.
    """
    K = _check_square(E)
    E, e = in_range(E)
    C = _centring(K).to(E)
    x, b = (times_power(part, e[..., 0]) for part in (_diagonal(C @ E @ C, K), (C @ E).sum(-1) / math.sqrt(K)))
    check_in_range("E: a coordinate", x, b)
    return x, b


def random_directions(num_classes: int, seed: int) -> Tensor:
    """One random unit direction of each family, ``(4, K, K)``, float64; K = 3 has no first one: zeros there.

    ``DufmError`` below.
    """
    K = check_count("num_classes", num_classes, 3)
    generator = np.random.default_rng([seed, K])
    C = _centring(K)
    R = C @ torch.from_numpy(generator.standard_normal((K, K))) @ C
    x, b, c = C @ torch.from_numpy(generator.standard_normal((3, K))).unsqueeze(-1)
    ones = torch.full((1, K), K**-0.5, dtype=torch.float64)
    parts = project(torch.stack([R, R, ones.mT @ c.mT, C @ torch.diag(x[:, 0]) @ C + b @ ones]))
    parts = torch.stack([parts[i, i] for i in range(4)])
    size = torch.linalg.matrix_norm(parts)[:, None, None]
    return torch.where(size > 1e-12, parts / size, 0.0)


def _centring(K: int) -> Tensor:
    return torch.eye(K, dtype=torch.float64) - 1 / K


def _diagonal(inner: Tensor, K: int) -> Tensor:
    """Vector x of the ``C Diag(x) C`` that has the diagonal of a centred matrix, up to a multiple of C."""
    diagonal = inner.diagonal(dim1=-2, dim2=-1)
    return (diagonal - diagonal.mean(-1, keepdim=True)) / (1 - 2 / K)


def _check_square(E: Tensor) -> int:
    K, n_per_class = check_logits(E, "E")
    if n_per_class != 1 or K < 3:
        raise DufmError(f"E must have shape (..., K, K) with K at least 3, got {tuple(E.shape)}")
    return K


# ---------------------------------------------------------------- their laws


def family_growth(family: str, s: float | Tensor, s0: float | Tensor, num_classes: int, depth: int) -> Any:
    r"""Growth of E/s of one of the first three families as the common singular value goes from ``s0`` to ``s``.

    Symmetric :math:`(s/s_0)^{1-2/L}e^{-(s-s_0)/K}`, antisymmetric :math:`(s/s_0)^{-1}e^{-(s-s_0)/K}`, shift
    :math:`(s/s_0)^{-1/L}`; numbers or tensors.  The fourth family has no such formula: :func:`imbalance_path`.
    ``DufmError`` for another family or depth.
    """
    if family not in FAMILIES[:3]:
        raise DufmError(f"family must be one of {', '.join(FAMILIES[:3])}, got {family!r}")
    K = num_classes
    power, pace = {"symmetric": (1 - 2 / depth, 1 / K), "antisymmetric": (-1, 1 / K), "shift": (-1 / depth, 0)}[family]
    return deviation_growth(s, s0, power, pace)


def imbalance_path(
    x: np.ndarray | Sequence[float],
    b: np.ndarray | Sequence[float],
    s: np.ndarray | Sequence[float],
    num_classes: int,
    depth: int,
    *,
    rtol: float = 1e-10,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Class imbalance along the ray: ``x`` and ``b``, each ``(len(s), n)``, from ``x``, ``b`` ``(n,)`` at ``s[0]``.

    .. math:: x' = \frac{2-2/L}{s}x - \frac1K[x + \rho((K-2)x + \sqrt K b)],\qquad
              b' = \frac{1-1/L}{s}b - \frac1{LK}[b + \rho(\tfrac{K-2}{\sqrt K}x + b)],

    ``ρ = (e^s − 1)/(e^s + K − 1)``, entry by entry; integrated by Dormand and Prince's pair of order 8.
    ``s``: increasing and positive, shape ``(levels,)``, over at most 1e5.  ``DufmError`` for other levels, or counts
    out of range.
    """
    K, L = check_count("num_classes", num_classes, 3), depth
    s = np.asarray(s, dtype=float)
    if s.ndim != 1 or len(s) < 2 or not (s[0] > 0 and (np.diff(s) > 0).all()):
        raise DufmError(f"s must be increasing and positive, at least two levels, got {s}")
    if s[-1] - s[0] > _LONGEST:
        raise DufmError(f"s must span at most {_LONGEST:g}, some {_LONGEST:g} steps, got {s[-1] - s[0]:g}")

    def field(s: float, y: np.ndarray) -> np.ndarray:
        x, b = y.reshape(2, -1)
        rho = (1 - math.exp(-s)) / (1 + (K - 1) * math.exp(-s))
        dx = (2 - 2 / L) * x / s - (x + rho * ((K - 2) * x + math.sqrt(K) * b)) / K
        db = (1 - 1 / L) * b / s - (b + rho * ((K - 2) * x / math.sqrt(K) + b)) / (L * K)
        return np.concatenate([dx, db])

    begin = np.concatenate([np.atleast_1d(x), np.atleast_1d(b)]).astype(float)
    run = solve_ivp(field, (s[0], s[-1]), begin, "DOP853", t_eval=s, rtol=rtol, atol=1e-6 * rtol)
    if not run.success:
        raise DufmError(f"class imbalance was not followed to s = {s[-1]:g}: {run.message}")
    x, b = np.split(run.y.T, 2, axis=1)
    return x, b


def imbalance_peak(num_classes: int, depth: int, *, s0: float = 0.01) -> float:
    """Largest growth of ‖E‖/s from ``s0`` on over all mixtures of x and b: 1 where imbalance is never amplified."""
    return _imbalance_peak(num_classes, depth, s0)[0]


def _imbalance_peak(K: int, depth: int, s0: float) -> tuple[float, float, np.ndarray]:
    """The peak, the s at which it is reached, and the mixture (‖C Diag(x) C‖, ‖b uᵀ‖) that reaches it."""
    s = np.geomspace(s0, 6 * K, 400)
    maps = np.stack(imbalance_path([1.0, 0.0], [0.0, 1.0], s, K, depth, rtol=1e-6), 1)
    # ‖C Diag(x) C‖² = (1 − 2/K)‖x‖² for x that sums to zero, ‖b uᵀ‖² = ‖b‖².
    weight = np.array([math.sqrt(1 - 2 / K), 1.0])
    left, size, right = np.linalg.svd(maps * weight[:, None] / weight)
    growth = size[:, 0] * s0 / s
    top = int(growth.argmax())
    return float(growth[top]), float(s[top]), right[top, 0]


# ---------------------------------------------------------------- what the flow does


def forces(s: Tensor, group: Group) -> Tensor:
    r"""The force :math:`g_i = \sum_a p(a)(1 - \operatorname{Re}\chi_i(a))` on every singular value, ``(..., F)``.

    ``s`` and ``group`` as in :func:`dufm.spectral_flow`; 1 at Z = 0, and right to rounding however small.
    ``DufmError`` as there.
    """
    chi = check_spectrum(s, group, "s")
    f = torch.nn.functional.pad(-(s @ chi.rates.to(s)), (1, 0))
    return torch.softmax(f, -1)[..., 1:] @ (1 - chi.table[:, 1:]).to(s).mT


@torch.no_grad()
def early_phase(s0: Tensor, depth: int, shares: Sequence[float] | Tensor) -> dict[str, np.ndarray]:
    r"""Spectral flow from small ``s0`` ``(K − 1,)``, Hadamard, beside the early law, at ``shares`` of the escape time.

    At depth 2, where nothing escapes, the clock is the time at which the law brings the largest value to 1.  A dict of
    arrays, one entry a share that is reached before log ℒ = −1: ``share``; the ``largest`` and the ``smallest`` value
    and ``law_largest``, ``law_smallest``; ``deviation``, the largest relative one over all values; ``used``, the
    largest share of what is allowed that a value uses: :math:`|\tau/t - 1|/m`, :math:`m = \sum_i s_i/K`, where the law
    has at τ the value that the flow has at t.  From share 1 on the law is inf.
    ``DufmError`` as :func:`dufm.spectral_flow`, for shares that are not positive, and for values from 1 on at depth 2.
    """
    chi = characters("hadamard", s0.shape[-1] + 1)
    top = float(s0.max())
    if depth == 2 and not 0 < top < 1:
        raise DufmError(f"s0 must have its largest value between 0 and 1 at depth 2, got {top:g}")
    clock = escape_time(top, depth) if depth > 2 else -math.log(top) / 2
    shares = torch.as_tensor(shares, dtype=s0.dtype)
    if not (shares > 0).all():
        raise DufmError(f"shares must be positive, the smallest is {float(shares.min()):g}")
    times = {"log_time": (shares * clock).log().tolist()}
    s = recorded(spectral_flow(s0, depth, chi, rtol=1e-9, until_log_loss=-1.0, record=times).history).s
    reached = ~s.isnan().any(-1)
    s, shares = s[reached], shares[reached]
    time = shares.unsqueeze(-1) * clock
    law = early_singular_values(time, s0, depth)
    q = 1 - 2 / depth
    at = (s / s0).log() / 2 if depth == 2 else -s0**-q * torch.expm1(-q * (s / s0).log()) / (depth - 2)
    used = (at / time - 1).abs() / (s.sum(-1, keepdim=True) / chi.num_classes)
    columns = {
        "share": shares,
        "largest": s.amax(-1),
        "smallest": s.amin(-1),
        "law_largest": law.amax(-1),
        "law_smallest": law.amin(-1),
        "deviation": (s / law - 1).abs().amax(-1),
        "used": used.amax(-1),
    }
    return {name: column.numpy() for name, column in columns.items()}


def measured_repulsion(
    num_classes: int, depth: int, *, scale: float = 0.1, levels: int = 60, seed: int = 0, size: float = 1e-6
) -> dict[str, Any]:
    """Growth of a small random deviation from equal singular values, Hadamard, between ``scale`` and 3K.

    Two starts, one a side of the ray, ``size`` apart relative to ``scale``; half their difference has no second order.
    A dict of arrays ``s`` (the mean), ``growth`` and ``law``, and ``peak``: the mean at which the measured growth is
    largest, from a polynomial of degree 4 in log s through the nine levels about the largest, nan if that is an end.
    ``DufmError`` for fewer than four classes or twelve levels.
    """
    K = check_count("num_classes", num_classes, 4)
    generator = np.random.default_rng([seed, K])
    direction = torch.from_numpy(generator.standard_normal(K - 1))
    direction = direction - direction.mean()
    direction = direction / direction.norm()
    start = scale * (1 + size * torch.stack([direction, -direction]))
    s = torch.from_numpy(np.geomspace(1.05 * scale, 3 * K, check_count("levels", levels, 12)))
    marks = nc_log_loss(s, K).tolist()
    run = spectral_flow(start, depth, "hadamard", rtol=1e-11, until_log_loss=marks[-1], record={"log_loss": marks})
    s = recorded(run.history).s
    mean = s.mean((-2, -1))
    growth = ((s[:, 0] - s[:, 1]) / (2 * size * mean.unsqueeze(-1))) @ direction
    return {
        "s": mean.numpy(),
        "growth": growth.numpy(),
        "law": nc_perturbation_growth(mean, scale, K, depth).numpy(),
        "peak": _peak(mean.numpy(), growth.numpy()),
    }


def _peak(s: np.ndarray, growth: np.ndarray) -> float:
    top = int(np.argmax(growth))
    near = slice(max(top - 4, 0), top + 5)
    if top < 4 or top > len(s) - 5:
        return math.nan
    curve = np.polynomial.Polynomial.fit(np.log(s[near]), np.log(growth[near]), 4)
    roots = np.exp(curve.deriv().roots())
    return float(roots[np.abs(roots - s[top]).argmin()].real)


def measured_families(
    num_classes: int, depth: int, *, seed: int = 0, s0: float = 0.5, levels: int = 12, size: float = 1e-6
) -> dict[str, np.ndarray]:
    """Growth of the four families in a full network, from balanced factors of ``s0 C ± size·E``, E one of each.

    A dict of arrays, one entry a family and level: ``family``, the common singular value ``s``, ``growth`` of E/s,
    ``law``, and ``deviation``, the relative one from the law; for imbalance that of the vector (x, b).  Three classes
    have no first family.  ``DufmError`` for fewer than three.
    """
    K = check_count("num_classes", num_classes, 3)
    parts, C = random_directions(K, seed), _centring(K)
    sign = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None, None]
    marks = nc_log_loss(torch.from_numpy(np.geomspace(1.1 * s0, 2.5 * K, levels)), K).tolist()
    Z0 = s0 * C + sign * size * parts.sum(0)
    run = gradient_flow(balanced_init(Z0, depth), rtol=1e-11, until_log_loss=marks[-1], record={"log_loss": marks})
    Z = torch.cat([Z0.unsqueeze(0), recorded(run.history).Z])
    s = (Z * C).sum((-2, -1)).mean(-1) / (K - 1)
    E = (Z[:, 0] - Z[:, 1]) / (2 * size)
    rows: list[tuple[Any, ...]] = []
    for family, part in zip(FAMILIES[:3], parts, strict=False):
        law = family_growth(family, s, s0, K, depth)
        grown = (E * part).sum((-2, -1)) * s0 / s
        if part.any():
            rows += zip([family] * len(s), s, grown, law, (grown / law - 1).abs(), strict=True)
    x, b = (part.numpy() for part in imbalance_coordinates(E))
    law = np.concatenate(imbalance_path(x[0], b[0], s.numpy(), K, depth), 1)
    found = np.concatenate([x, b], 1)
    size_found, size_law, off = (np.linalg.norm(part, axis=1) for part in (found, law, found - law))
    shrink = s0 / s.numpy() / size_found[0]
    rows += zip(["imbalance"] * len(s), s, size_found * shrink, size_law * shrink, off / size_law, strict=True)
    names = ("family", "s", "growth", "law", "deviation")
    columns = dict(zip(names, zip(*rows, strict=True), strict=True))
    return {name: np.array(column) if name == "family" else np.array(column, float) for name, column in columns.items()}


def measured_imbalance(num_classes: int, depth: int, *, s0: float = 0.01, size: float = 1e-6, seed: int = 0) -> float:
    """Growth of ‖E‖/s in a full network, from the mixture of class imbalance and at the s of :func:`imbalance_peak`.

    From balanced factors of ``s0 (C ± size E)``, E of random x and b along each other; the norm is that of all of what
    E has become, whatever family it is in.  ``DufmError`` for fewer than three classes.
    """
    K = check_count("num_classes", num_classes, 3)
    _, peak, mixture = _imbalance_peak(K, depth, s0)
    C, u = _centring(K), torch.full((K,), K**-0.5, dtype=torch.float64)
    x = C @ torch.from_numpy(np.random.default_rng([seed, K]).standard_normal(K))
    x /= x.norm()
    E = mixture[0] * C @ torch.diag(x) @ C / math.sqrt(1 - 2 / K) + mixture[1] * torch.outer(x, u)
    start = balanced_init(s0 * torch.stack([C + size * E, C - size * E]), depth)
    Z = gradient_flow(start, rtol=1e-11, until_log_loss=nc_log_loss(peak, K)).Z
    s = float((Z * C).sum((-2, -1)).mean()) / (K - 1)
    return float(torch.linalg.matrix_norm(Z[0] - Z[1])) / (2 * size * s)


guard(globals())
