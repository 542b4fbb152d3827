r"""What share of Hadamard starts ends in neural collapse: the basin's boundary, quadrature, sampling, leading order.

Directions are uniform on the simplex: K − 1 singular values of mean :math:`s_0` with independent exponential
proportions.  Throughout ``q = 1 − 2/L`` and ``y = s^{−q}``; differences of the y label the trajectories out of 0.

At K = 4 the boundary is one invariant surface, the stable manifold of the late separatrix
:math:`s_1 = s_2,\ s_3/s_1 = 2^{-1/q}`, which is exact late up to :math:`e^{-s_1(1 - 2^{-1/q})/2}`.  It attracts
backwards in time, so one backward integration gives it at every scale, without a search for critical starts.
Behind a leader at lag D its width in y tends to :math:`\Lambda^{-q}`, Λ the leader's size when the followers come,
:math:`\Lambda = 2\log D + 2(1+q)\log\Lambda - 2\log q`; hence for small scales

.. math:: \mathrm{share} \approx \frac{4}{3q(2+q)}\Bigl(\frac{s_0}{\Lambda}\Bigr)^{q},\qquad D = s_0^{-q}.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import torch
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.special import gammaln, lambertw, logsumexp
from torch import Tensor

from dufm._checks import check_count, check_real, short
from dufm._door import guard
from dufm._error import DufmError
from dufm.ends import spectral_end
from dufm.spectral import spectral_flow

__all__ = [
    "CollapseShare",
    "SampledShare",
    "basin_boundary",
    "boundary_labels",
    "collapse_share",
    "fourth_power",
    "leader_size",
    "leading_share",
    "sampled_share",
]

SCALES = 1e-30, 1.0
TOLERANCE = 1e-9
DENSITY = 8  # nodes of the boundary for each factor e in a leader's label


@dataclass(frozen=True)
class CollapseShare:
    """Share of directions that end in collapse, and the change to half the nodes: some ten times the error left."""

    share: torch.Tensor
    error: torch.Tensor


def collapse_share(depth: int, scale: float | Tensor) -> CollapseShare:
    r"""Share of the directions at K = 4 that end in neural collapse, by quadrature over the basin's boundary.

    With :math:`c = s_1/s_2 \ge 1` and the critical :math:`r = s_3/s_2` of :func:`basin_boundary`, in any order of the
    three,

    .. math:: \mathrm{share} = 6\int_1^\infty \bigl[(c + 1 + r(c))^{-2} - (c + 2)^{-2}\bigr]\,dc.

    ``scale``: the mean s_0, a number or a tensor of them from 1e-30 to 1; the scales of one call share the work.
    Relative error about 1e-6.  ``DufmError`` for a depth below 3 or another scale.
    """
    lead, lag = (side.numpy() for side in basin_boundary(depth, scale))
    shares, errors = np.empty(lead.shape[:-1]), np.empty(lead.shape[:-1])
    for at in np.ndindex(shares.shape):
        a, ratio, gap = lead[at], np.exp(lead[at]), -np.expm1(-lag[at])
        density = 6 * ratio * gap * (2 * ratio + 4 - gap) / ((ratio + 2 - gap) * (ratio + 2)) ** 2
        # The density is level before the first node; the rest is smooth in log a.
        fine, coarse = (
            CubicSpline(x := np.log(a[::step]), (density * a)[::step]).integrate(x[0], x[-1]) for step in (1, 2)
        )
        shares[at], errors[at] = fine + density[0] * a[0], abs(fine - coarse)
    return CollapseShare(torch.from_numpy(shares), torch.from_numpy(errors))


def basin_boundary(depth: int, scale: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""The boundary of the basin at K = 4, as ``(log s_1/s_2, log s_2/s_3)``, each ``(..., nodes)``, s_1 > s_2 > s_3.

    At each mean s_0 in ``scale`` ``(...)`` the first rises along the nodes, from nearly 0 to where the share beyond is
    below 1e-10; starts with a smaller second end in collapse.  ``scale`` and ``DufmError`` as in
    :func:`collapse_share`.
    """
    depth, scale = check_count("depth", depth, 3), _check_scale(scale)
    q = 1 - 2 / depth
    smallest = float(scale.min())
    # Leaders' labels, as they stand in log a late on, up to where a > 12 at the smallest scale.
    farthest = 12 * q + 7.5 - q * math.log(smallest)
    late = 2 * farthest + 50
    lead = np.arange(-10, farthest, 1 / DENSITY) - late / 2
    start = np.stack([np.full_like(lead, math.log(late)), lead, np.full_like(lead, math.log(math.log(2) / q))])
    nodes = np.arange(len(lead))

    def mean(states: np.ndarray) -> np.ndarray:
        return np.log(_unpack(states)[0].mean(0))

    def passed(_: Any, states: np.ndarray) -> float:
        return mean(states.reshape(3, -1)).max() - math.log(smallest) + 1e-6

    passed.terminal = True  # type: ignore[attr-defined]

    def back(_: Any, states: np.ndarray) -> np.ndarray:
        return -_velocity(states.reshape(3, -1), q).ravel()

    run = solve_ivp(
        back, (0, np.inf), start.ravel(), "DOP853", events=passed, dense_output=True, rtol=TOLERANCE, atol=TOLERANCE
    )
    means = mean(run.y.reshape(3, len(nodes), -1))
    found = []
    for target in np.log(scale.flatten().numpy()):
        before = (means >= target).sum(1) - 1
        early, step = run.t[before], np.diff(run.t)[before]
        high, low = means[nodes, before], means[nodes, before + 1]
        clock = early + step * (high - target) / (high - low)
        for _ in range(5):
            states = run.sol(clock).reshape(3, len(nodes), -1)[:, nodes, nodes]
            s, lags = _unpack(states)
            top, *rates = _velocity(states, q) * np.concatenate([np.ones_like(lags[:1]), lags])
            slope = (s * np.stack([top, top - rates[0], top - rates[0] - rates[1]])).sum(0) / s.sum(0)
            clock = np.clip(clock + (mean(states) - target) / slope, early, early + step)
        found.append(lags)
    both = torch.from_numpy(np.stack(found)).reshape(*scale.shape, 2, -1)
    return both[..., 0, :], both[..., 1, :]


def leading_share(depth: int, scale: float | Tensor) -> Tensor:
    r"""Leading order of :func:`collapse_share` as the scale falls, :math:`\frac{4}{3q(2+q)}(s_0/\Lambda)^q`.

    Λ is the :func:`leader_size` at D = s_0^−q.  ``scale`` and ``DufmError`` as in :func:`collapse_share`.
    """
    depth, scale = check_count("depth", depth, 3), _check_scale(scale)
    q = 1 - 2 / depth
    return 4 / (3 * q * (2 + q)) * (scale / leader_size(scale**-q, depth)) ** q


def leader_size(lag: Tensor, depth: int) -> Tensor:
    r"""Size Λ of a leader when followers at ``lag`` D in y, a tensor, have come, L ≥ 3: the larger root of

    .. math:: \Lambda = 2\log D + 2(1+q)\log\Lambda - 2\log q.
    """
    q = 1 - 2 / check_count("depth", depth, 3)
    plain, factor = 2 * lag.log() - 2 * math.log(q), 2 * (1 + q)
    root = check_real("lag", lambertw((-torch.exp(-plain / factor) / factor).detach().numpy(), -1))
    return -factor * torch.as_tensor(root)


def fourth_power(eight: pandas.DataFrame, *, fitted: Sequence[float]) -> pandas.DataFrame:
    """Rows of sampled shares at K = 8 with two more columns, c share_4^4 and its standard error beside the sample's.

    ``eight``: a DataFrame of ``depth``, ``scale``, ``share`` and ``error``; share_4 is :func:`collapse_share`, and
    log c, one for each depth, the weighted mean at the scales ``fitted``.  ``leading`` is NaN at a depth without them;
    ``leading_error`` is that of log(share/leading), the error of c included where c was not fitted.
    """
    rows = []
    for L, group in eight.groupby("depth"):
        power = collapse_share(L, torch.tensor(group.scale.to_numpy())).share.numpy() ** 4
        relative = (group.error / group.share).to_numpy()
        used = np.isclose(group.scale.to_numpy()[:, None], fitted).any(1)
        weight = used / relative**2
        total = weight.sum() if used.any() else np.nan
        constant = np.exp((weight * np.log(group.share / power)).sum() / total)
        error = np.sqrt(relative**2 + np.where(used, -1, 1) / total)
        rows.append(group.assign(leading=constant * power, leading_error=error))
    return pandas.concat(rows)


def boundary_labels(depth: int, scale: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""The boundary of :func:`basin_boundary` in labels: ``(y_2 − y_1, y_3 − y_2)``, y = s^−q, each ``(..., nodes)``.

    For small scales the two no longer depend on ``scale``.  ``DufmError`` as in :func:`collapse_share`.
    """
    lead, lag = basin_boundary(depth, scale)
    q = 1 - 2 / depth
    total = 3 * _check_scale(scale).unsqueeze(-1)
    first = total / (1 + torch.exp(-lead) + torch.exp(-lead - lag))
    return first**-q * torch.expm1(q * lead), (first * torch.exp(-lead)) ** -q * torch.expm1(q * lag)


def _check_scale(scale: float | Tensor) -> Tensor:
    """Scales as a float64 tensor."""
    scale = torch.as_tensor(scale, dtype=torch.float64, device="cpu").detach()
    if not ((scale >= SCALES[0]) & (scale <= SCALES[1])).all():
        raise DufmError(f"scale must be a number or numbers from {SCALES[0]:g} to {SCALES[1]:g}, got {short(scale)}")
    return scale


def _unpack(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Singular values ``(3, ...)``, and the lags ``(2, ...)`` in log s, of ``(log s_1, log a, log b)``."""
    lags = np.exp(states[1:])
    return np.exp(states[0] - np.stack([np.zeros_like(lags[0]), lags[0], lags[0] + lags[1]])), lags


def _velocity(states: np.ndarray, q: float) -> np.ndarray:
    """Rates of ``(log s_1, log a, log b)`` in the clock ``Σ log s_i + s_i/2``, which resolves e^−s as it does s.

    Written in differences: a lag of 1e-30, and a leader whose classes have errors of 1e-30, keep all their digits.
    """
    s, lags = _unpack(states)
    wrong = np.exp((s - s.sum(0)) / 2)
    p = wrong / (1 + wrong.sum(0))
    g = 2 * (p[[1, 0, 0]] + p[[2, 2, 1]])
    rate = s**q * g
    apart = 2 * s[1:] ** q * p[:2] * np.expm1(s[:2] * np.expm1(-lags) / 2) - rate[:2] * np.expm1(-q * lags)
    return np.concatenate([rate[:1], apart / lags]) / (rate * (1 + s / 2)).sum(0)


# ---------------------------------------------------------------- more classes: sampling


@dataclass(frozen=True)
class SampledShare:
    """Estimated share, its standard error, the part of it that the largest single weight holds, what is undecided.

    With ``largest`` above a tenth the error itself is uncertain: raise ``count``.  ``undecided`` is the estimated share
    of the directions whose end is not decided; they are not in ``share``.
    """

    share: float
    error: float
    largest: float
    undecided: float


KERNELS, FREEDOM, WIDTH, BROAD = 300, 5.0, 0.5, 0.15
# Here the labels have done their work, and what is left needs no tolerance of theirs.
LABELS_SPENT = -100.0


def sampled_share(num_classes: int, depth: int, scale: float, *, count: int = 5000, seed: int = 0) -> SampledShare:
    r"""Share of the directions that end in neural collapse at K = 2^m, by importance sampling in the labels.

    Population Monte Carlo in three rounds of ``count`` starts: a heavy-tailed law in every label, then Student kernels
    around the hits of the round before (15% stay broad); only the last is counted.  Below some 2500 starts at K = 8 the
    kernels can miss an arm of the basin: the share comes out low, and its error too small.  A start counts as collapse
    if its :func:`dufm.spectral_end` is: at K = 8 a run may gain on collapse for long and turn away at log losses
    beyond −2000, so that no finite loss decides.
    ``DufmError`` for bad input, and if too few of a round's starts are hits to go on.
    """
    K = check_count("num_classes", num_classes, 4)
    if K & (K - 1):
        raise DufmError(f"num_classes must be a power of two, got {K}")
    depth, count = check_count("depth", depth, 3), check_count("count", count, 1000)
    if scale >= 1:
        raise DufmError(f"scale must be below 1: the labels are those of small starts; got {scale}")
    rng = np.random.default_rng(seed)
    q = 1 - 2 / depth
    grids = _label_grids(K, q, scale)
    # A relative error of s is one of y too, and the boundary is of order 1 in y = s^−q.
    rtol = min(1e-5, max(1e-8, 0.02 * scale**q))
    z = _draw_broad(grids, rng, count)
    proposal = _broad_density(grids, z)
    for last in (False, False, True):
        s, target = _starts(z, q, scale)
        hit, decided = _collapsed(s, depth, rtol)
        each = np.exp(target - proposal)
        weight = np.where(hit, each, 0.0)
        if hit.sum() < 2 * z.shape[1]:
            raise DufmError(f"count must be larger: only {hit.sum()} of {len(z)} starts of a round end in collapse")
        if last:
            break
        # Square roots of the weights keep the kernels wider than what they are to cover.
        power = np.sqrt(weight[hit])
        power /= power.sum()
        centres = z[hit][rng.choice(int(hit.sum()), KERNELS, p=power)]
        away = z[hit] - power @ z[hit]
        root = WIDTH * np.linalg.cholesky((away.T * power) @ away + 1e-6 * np.eye(z.shape[1]))
        z = _draw_near(centres, root, rng, count)
        wide = rng.random(count) < BROAD
        z[wide] = _draw_broad(grids, rng, int(wide.sum()))
        proposal = np.logaddexp(
            math.log(1 - BROAD) + _near_density(centres, root, z), math.log(BROAD) + _broad_density(grids, z)
        )
    error = weight.std() / math.sqrt(len(z))
    undecided = np.where(decided, 0.0, each).mean()
    largest = weight.max() / weight.sum()
    return SampledShare(float(weight.mean()), float(error), float(largest), float(undecided))


def _collapsed(s: np.ndarray, depth: int, rtol: float) -> tuple[np.ndarray, np.ndarray]:
    """Whether each start ends in collapse, the only vertex of full rank, and whether its end is decided."""
    run = spectral_flow(torch.from_numpy(s), depth, "hadamard", rtol=rtol, until_log_loss=LABELS_SPENT)
    end = spectral_end(run.s, depth, "hadamard")
    return (end.decided & (end.rank == s.shape[1])).numpy(), end.decided.numpy()


def _label_grids(K: int, q: float, scale: float) -> list[np.ndarray]:
    """Scales of the broad law of each label: character 2^j leads a level, the next 2^j − 1 lag behind it."""
    size = scale**-q
    far = np.geomspace(0.3, 4 * size, 3 + int(1.5 * math.log10(size)))
    near = np.geomspace(0.03 if K > 4 else 0.3, 3, 5)
    return [far if i & (i - 1) == 0 else near for i in range(2, K)]


def _draw_broad(grids: Sequence[np.ndarray], rng: np.random.Generator, n: int) -> np.ndarray:
    """Logarithms ``(n, K − 2)`` of labels, log-logistic at a random one of the scales."""
    return np.stack([np.log(rng.choice(grid, n) * (1 / rng.random(n) - 1)) for grid in grids], 1)


def _broad_density(grids: Sequence[np.ndarray], z: np.ndarray) -> np.ndarray:
    labels = np.exp(z)[..., None]
    heavy = [np.log((grid / (grid + labels[:, i]) ** 2).mean(-1)) for i, grid in enumerate(grids)]
    return z.sum(1) + np.sum(heavy, 0)


def _draw_near(centres: np.ndarray, root: np.ndarray, rng: np.random.Generator, n: int) -> np.ndarray:
    kick = rng.standard_normal((n, len(root))) / np.sqrt(rng.chisquare(FREEDOM, (n, 1)) / FREEDOM)
    return centres[rng.integers(len(centres), size=n)] + kick @ root.T


def _near_density(centres: np.ndarray, root: np.ndarray, z: np.ndarray) -> np.ndarray:
    width = len(root)
    a, b = np.linalg.solve(root, z.T).T, np.linalg.solve(root, centres.T).T
    square = np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T, 0)
    peak = gammaln((FREEDOM + width) / 2) - gammaln(FREEDOM / 2) - width / 2 * math.log(FREEDOM * math.pi)
    kernel = peak - np.log(np.diag(root)).sum() - (FREEDOM + width) / 2 * np.log1p(square / FREEDOM)
    return logsumexp(kernel, axis=1) - math.log(len(centres))


def _starts(z: np.ndarray, q: float, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Singular values ``(n, K − 1)`` of mean ``scale``, and the log density in z of uniform directions.

    Character 2^j is the largest of level j and of all after it; the density is that of all orders together.
    """
    free = z.shape[1] + 1
    labels, lag, lead = np.exp(z), np.zeros((len(z), free)), np.zeros(len(z))
    levels = (free + 1).bit_length() - 1
    for first in (2**j for j in range(1, levels)):
        lead = lead + labels[:, first - 2]
        lag[:, first - 1] = lead
        lag[:, first : 2 * first - 1] = lead[:, None] + labels[:, first - 1 : 2 * first - 2]
    low, high = (np.full(len(z), math.log(edge) - q * math.log(scale)) for edge in (1e-15, 1e3))
    for _ in range(80):
        middle = (low + high) / 2
        above = ((np.exp(middle)[:, None] + lag) ** (-1 / q)).sum(1) > free * scale
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    y = np.exp(low)[:, None] + lag
    # s_i/s_0 has slope −y^(−1/q − 1)/(q s_0) in its label; the smallest y moves with the others to keep the mean.
    slope = -(1 / q + 1) * np.log(y) - math.log(q * scale)
    orders = math.prod(free + 1 - 2**j for j in range(levels))
    volume = math.lgamma(free) - (free - 1) * math.log(free) + math.log(orders)
    return y ** (-1 / q), slope.sum(1) - logsumexp(slope, axis=1) + z.sum(1) + volume


guard(globals())
