r"""Arrangements of K vectors: the named codes and softmax codes.

A code is a ``(K, d)`` tensor of unit row vectors, one a class.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.linalg
import scipy.optimize
import torch

from dufm._checks import DufmError, check_count, check_dtype
from dufm._climb import BETA, climb, random_codes, soft_margin
from dufm._nnls import nonnegative_least_squares
from dufm._polish import margin_slopes
from dufm.metrics import margins, numerical_rank

__all__ = [
    "SoftmaxCode",
    "code_matrix",
    "hypercube",
    "name_of",
    "one_vs_rest_margin",
    "orthoplex",
    "pairs_and_singles",
    "polygon",
    "simplex_etf",
    "smallest_angle",
    "softmax_code",
]


# ---------------------------------------------------------------- named codes


def simplex_etf(num_classes):
    """Simplex ETF: K unit vectors ``(K, K − 1)`` of cosine ``−1/(K − 1)``.  K ≥ 2."""
    num_classes = check_count("num_classes", num_classes, 2)
    return torch.from_numpy(scipy.linalg.helmert(num_classes).T * math.sqrt(num_classes / (num_classes - 1)))


def polygon(num_classes):
    """Regular polygon: K unit vectors ``(K, 2)``, in order round the circle.  K ≥ 3."""
    num_classes = check_count("num_classes", num_classes, 3, why="a polygon needs three vertices")
    angle = 2.0 * math.pi / num_classes * torch.arange(num_classes, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], -1)


def orthoplex(num_classes):
    """Orthoplex (cross-polytope): ``±e_i``, ``(K, K/2)``; vector ``K/2 + i`` is opposite to i.  K ≥ 4, even."""
    if check_count("num_classes", num_classes, 4) % 2:
        raise DufmError(f"num_classes must be even for the orthoplex, got {num_classes}")
    axes = torch.eye(num_classes // 2, dtype=torch.float64)
    return torch.cat([axes, -axes])


def hypercube(num_classes):
    """Hypercube: ``(±1, …, ±1)/√m``, ``(K, m)`` with K = 2^m ≥ 4; bit i of the row is the sign of entry i."""
    num_classes = check_count("num_classes", num_classes, 4)
    if num_classes & (num_classes - 1):
        raise DufmError(f"num_classes must be a power of two for the hypercube, got {num_classes}")
    m = num_classes.bit_length() - 1
    bits = torch.arange(num_classes).unsqueeze(-1) >> torch.arange(m) & 1
    return (1.0 - 2.0 * bits.double()) / math.sqrt(m)


def code_matrix(W):
    r"""Logits ``Z = WWᵀ`` of a code, scaled to smallest margin 1, ``(..., K, K)``.

    ``W``: ``(..., K, d)``.  ``DufmError`` if a row does not win against all others.
    """
    W = _check_code(W)
    Z = W @ W.mT
    smallest = margins(Z).amin((-2, -1), keepdim=True)
    if not (smallest > 0).all():
        raise DufmError(f"W must have positive margins ⟨w_k − w_j, w_k⟩, the smallest is {smallest.min():.3g}")
    return Z / smallest


def smallest_angle(W):
    """Smallest angle between two rows of ``W`` ``(..., K, d)``, in degrees, ``(...)``."""
    W = _check_code(W)
    W = W / W.norm(dim=-1, keepdim=True)
    distance = (W.unsqueeze(-2) - W.unsqueeze(-3)).norm(dim=-1)
    own = torch.eye(W.shape[-2], dtype=torch.bool, device=W.device)
    # By the half chord: arccos of a cosine near 1 would lose half the digits.
    return torch.rad2deg(2.0 * torch.asin((distance.masked_fill(own, 2.0).amin((-2, -1)) / 2.0).clamp(max=1.0)))


def _check_code(W):
    if not isinstance(W, torch.Tensor):
        raise DufmError(f"W must be a floating torch tensor of row vectors, got {type(W).__name__}")
    check_dtype("W", W)
    if W.ndim < 2 or W.shape[-2] < 2 or W.shape[-1] < 1 or not torch.isfinite(W).all():
        raise DufmError(f"W must have shape (..., K, d) with K >= 2 and be finite, got shape {tuple(W.shape)}")
    return W


# ---------------------------------------------------------------- names

_NAMED_TOL = 1e-6


def pairs_and_singles(num_classes, pairs):
    r"""Logits ``(K, K)`` of t antipodal pairs and K − 2t single classes: the orthoplex with K − 2t vertices missing.

    Smallest margin 1, rank K − t, centred singular values 2 (t times), 1 (K − 2t − 1 times) and :math:`\sqrt{2t/K}`
    (none for t = 0, which is neural collapse; t = K/2 is the orthoplex), so that
    :math:`\gamma_L = (t2^p + K - 2t - 1 + (2t/K)^{p/2})^{-1/p}`, p = 2/L.  ``DufmError`` unless 0 ≤ t ≤ K/2.
    """
    num_classes = check_count("num_classes", num_classes, 2)
    pairs = check_count("pairs", pairs, 0, num_classes // 2)
    Z = torch.eye(num_classes, dtype=torch.float64)
    first = 2 * torch.arange(pairs)
    Z[first, first + 1] = Z[first + 1, first] = -1.0
    return Z - Z.mean(-2, keepdim=True)


@lru_cache(maxsize=64)
def _known(num_classes):
    """Names and their sorted margins and singular values, as rows."""
    known = {"NC": pairs_and_singles(num_classes, 0)}
    for pairs in range(1, num_classes // 2 + 1):
        singles = num_classes - 2 * pairs
        name = "orthoplex" if not singles else f"{pairs} pair{'s' * (pairs > 1)}, {singles} single"
        known[name] = pairs_and_singles(num_classes, pairs)
    if num_classes > 4:
        known["polygon"] = code_matrix(polygon(num_classes))
    if num_classes == 8:
        known["cube"] = code_matrix(hypercube(8))
        known["antiprism"] = code_matrix(_antiprism())
    if num_classes == 10:
        known["Petersen"] = code_matrix(_petersen())
    return list(known), torch.stack([_fingerprint(Z) for Z in known.values()])


def _antiprism():
    """Square antiprism in which the two faces and the sides are equally far: 8 unit vectors, smallest angle 74.858°."""
    # cos of the angle inside a face, (1 − z²)·0 + z², equals that across: (1 − z²)/√2 − z².
    z = math.sqrt(1 / (1 + 2 * math.sqrt(2)))
    angle = math.pi / 4 * torch.arange(8, dtype=torch.float64)
    height = z * (1 - 2 * (torch.arange(8) % 2)).double()
    return torch.stack([math.sqrt(1 - z * z) * angle.cos(), math.sqrt(1 - z * z) * angle.sin(), height], -1)


def _petersen():
    """Ten unit vectors in R⁴, cosines 1/6 and −2/3, one a pair of five things: an eigenspace of the Petersen graph."""
    pairs = [(i, j) for i in range(5) for j in range(i)]
    W = torch.tensor([[1.0 * (k in pair) - 0.4 for k in range(5)] for pair in pairs], dtype=torch.float64)
    return (W / W.norm(dim=-1, keepdim=True)) @ torch.from_numpy(scipy.linalg.helmert(5)).mT


def _fingerprint(Z):
    """Sorted margins and singular values of centred logits of margin 1: they do not see how classes are numbered."""
    gaps = margins(Z).flatten(-2)
    gaps = torch.where(gaps.isinf(), 0.0, gaps).sort(-1).values
    return torch.cat([gaps, torch.linalg.svdvals(Z - Z.mean(-2, keepdim=True))], -1)


def name_of(Z):
    """Names of solutions ``Z`` ``(..., K, N)`` of smallest margin 1, a NumPy array of the batch shape.

    "NC", "orthoplex", "t pairs, n single" (:func:`pairs_and_singles`), "polygon", "cube" and "antiprism" (K = 8),
    "Petersen" (K = 10); else "rank r".  A name is given where all margins and singular values of the class means agree
    to 1e-6.  "" for NaN.
    """
    num_classes, n_per_class = Z.shape[-2], Z.shape[-1] // Z.shape[-2]
    means = Z.unflatten(-1, (num_classes, n_per_class)).mean(-1).reshape(-1, num_classes, num_classes).double().cpu()
    whole = means.isfinite().all(-1).all(-1)
    names, known = _known(num_classes)
    print_of = _fingerprint(means.nan_to_num())
    away = (print_of.unsqueeze(1) - known).abs().amax(-1)
    rank = numerical_rank(means.nan_to_num() - means.nan_to_num().mean(-2, keepdim=True), 1e-6)
    found = [
        "" if not ok else names[int(row.argmin())] if row.min() < _NAMED_TOL else f"rank {int(r)}"
        for ok, row, r in zip(whole, away, rank, strict=True)
    ]
    return np.array(found, dtype=object).reshape(Z.shape[:-2])


# ---------------------------------------------------------------- softmax codes


def one_vs_rest_margin(W):
    r"""One-vs-rest margin :math:`\min_k \operatorname{dist}(w_k, \operatorname{conv}\{w_j : j \ne k\})`.

    ``W``: ``(..., K, d)``; the margins ``(...)``.  0 where a vector lies in the hull of the others.  The projections
    are found by non-negative least squares, exact up to rounding (Lawson & Hanson 1974, chapter 23).
    """
    W = _check_code(W)
    flat = W.detach().reshape(-1, *W.shape[-2:]).cpu().double().numpy()
    return W.new_tensor([_separators(rows)[0].min() for rows in flat]).reshape(W.shape[:-2])


def _separators(W):
    """Distances ``(K,)`` to the hulls of the others, and the unit vectors ``(K, d)`` along them."""
    distance, direction = np.zeros(len(W)), np.zeros(W.shape)
    for k, w in enumerate(W):
        # min ‖x‖ under ⟨w_k − w_j, x⟩ ≥ 1 has dual non-negative least squares, and 1/‖x‖ is the distance.
        system = np.vstack([(w - np.delete(W, k, 0)).T, np.ones(len(W) - 1)])
        target = np.append(np.zeros(W.shape[1]), 1.0)
        weights, _ = nonnegative_least_squares(system, target)
        nearest = system[:-1] @ (weights / weights.sum())
        distance[k] = np.linalg.norm(nearest)
        direction[k] = nearest / max(distance[k], np.finfo(float).tiny)
    return distance, direction


@dataclass(frozen=True)
class SoftmaxCode:
    """A softmax code.

    ``vectors`` ``(K, d)``, unit rows, float64; ``value`` their one-vs-rest margin; ``angle`` the smallest angle in
    degrees; ``residual`` of the KKT conditions, complementarity included; ``agree`` of ``restarts`` climbs ended at
    this value within 1e-4.  A search finds good codes, it does not exclude better ones.
    """

    vectors: torch.Tensor
    value: float
    angle: float
    residual: float
    agree: int
    restarts: int


CODE_STEPS = 600
CODE_LATE = 0.4
CODE_AGREE_TOL = 1e-4
CODE_RESIDUAL_TOL = 1e-8
CODE_ACTIVE_TOL = 1e-7
CODE_CANDIDATES = 8
CODE_POLISH_STEPS = 200
CODE_GAIN = 0.02  # more than polishing has added to a climb's end
CODE_NEAR = 0.25


def softmax_code(num_classes, dim, *, restarts=128, seed=0):
    r"""Softmax code: K unit vectors in R^d that maximise the one-vs-rest margin,

    .. math:: \max_{\|w_k\| = 1} \min_k \operatorname{dist}(w_k, \operatorname{conv}\{w_j : j \ne k\})
              = \max_{\|w_k\| = \|h_k\| = 1} \min_{j\ne k} \langle w_k - w_j, h_k\rangle .

    The search is for h = w, where the right-hand side is ``1 − cos θ`` of the smallest angle θ: a stationary spherical
    code is stationary for the softmax problem too, and climbs with h free have found no larger value.  Random codes
    climb in one batch, some from the middle of the smoothing schedule, since early smoothing leads all to the same few
    optima; SciPy's SLSQP takes the best distinct ends to KKT accuracy.  The value is K/(K − 1) for K ≤ d + 1
    (simplex ETF) and 1 for d + 2 ≤ K ≤ 2d (orthoplex, for one), where the code is often not unique.  Definition:
    Jiang et al. (ICML 2024).  Returns :class:`SoftmaxCode`.
    ``DufmError``: K < 2, d < 2, or no restart reached a KKT residual of 1e-8.
    """
    num_classes = check_count("num_classes", num_classes, 2)
    dim = check_count("dim", dim, 2)
    restarts = check_count("restarts", restarts, 1)
    W = random_codes(restarts, num_classes, dim, check_count("seed", seed, 0))
    begin = torch.linspace(0.0, CODE_LATE, restarts, dtype=W.dtype)
    X = climb(torch.stack([W, W], 1), _unit, _tangent, steps=CODE_STEPS, begin=begin)  # A = C stays so: Z is symmetric
    value = soft_margin(X, BETA[1])[0]
    found = _best_code(X[:, 0], value)
    if found is None:
        raise DufmError(
            f"no restart reached a KKT residual of {CODE_RESIDUAL_TOL:g} for num_classes = {num_classes}, dim = {dim}, "
            f"restarts = {restarts}, seed = {seed}; ask for more restarts, or another seed"
        )
    vectors, best, residual = found
    agree = int(((value / best - 1.0).abs() < CODE_AGREE_TOL).sum())
    return SoftmaxCode(vectors, best, float(smallest_angle(vectors)), residual, agree, restarts)


def _unit(X):
    return X / X.norm(dim=-1, keepdim=True)


def _tangent(X, value, push, share):
    return push - (push * X).sum(-1, keepdim=True) * X


def _best_code(codes, value):
    """The best polished code of the best distinct ends, its margin and residual; None if none is a KKT point."""
    best, left = None, torch.ones(len(codes), dtype=torch.bool)
    for _ in range(CODE_CANDIDATES):
        if not left.any():
            break
        top = torch.where(left, value, -torch.inf).argmax()
        if best is not None and value[top] < best[1] * (1.0 - CODE_GAIN):
            break
        left[top] = False
        W = _slsqp(codes[top].numpy())
        residual = _code_residual(W)
        if residual < CODE_RESIDUAL_TOL:
            left &= (value / value[top] - 1.0).abs() > CODE_AGREE_TOL
            margin = float(one_vs_rest_margin(torch.from_numpy(W)))
            if best is None or margin > best[1]:
                best = torch.from_numpy(W), margin, residual
    return best


def _slsqp(W):
    """Local maximiser of the smallest angle from a climb's end: t under ``⟨w_i, w_j⟩ ≤ 1 − t``, in ``x = (W, t)``."""
    shape, cosine = W.shape, W @ W.T - 4.0 * np.tri(len(W))
    first, second = np.nonzero(cosine > cosine.max() - CODE_NEAR)
    count = np.arange(len(first))

    def slack(x):
        W = x[:-1].reshape(shape)
        return 1.0 - x[-1] - (W[first] * W[second]).sum(1)

    def slack_jacobian(x):
        W = x[:-1].reshape(shape)
        slope = np.zeros((len(first), *shape))
        slope[count, first], slope[count, second] = -W[second], -W[first]
        return np.hstack([slope.reshape(len(first), -1), np.full((len(first), 1), -1.0)])

    def length(x):
        return (x[:-1].reshape(shape) ** 2).sum(1) / 2.0 - 0.5

    def length_jacobian(x):
        return np.hstack([scipy.linalg.block_diag(*x[:-1].reshape(shape)), np.zeros((len(W), 1))])

    up = np.append(np.zeros(W.size), -1.0)
    solution = scipy.optimize.minimize(
        lambda x: -x[-1],
        np.append(W, 1.0 - cosine.max()),
        jac=lambda x: up,
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": slack, "jac": slack_jacobian},
            {"type": "eq", "fun": length, "jac": length_jacobian},
        ],
        options={"ftol": 1e-16, "maxiter": CODE_POLISH_STEPS},
    )
    W = solution.x[:-1].reshape(shape)
    return W / np.linalg.norm(W, axis=1, keepdims=True)


def _code_residual(W):
    """Residual of the KKT conditions for unit W and the best h: stationarity or complementarity, the larger."""
    distance, H = _separators(W)
    margin = (W * H).sum(1)[None] - W @ H.T + 4.0 * np.eye(len(W))
    slack = margin - distance.min()
    wrong, true = np.nonzero(slack < CODE_ACTIVE_TOL)
    points = np.concatenate([W, H])
    slope = margin_slopes(W, H, wrong, true)  # less what would change the lengths
    slope -= (slope * points).sum(-1, keepdims=True) * points
    system = np.vstack([slope.reshape(len(wrong), -1).T, np.ones(len(wrong))])  # multipliers sum to 1
    multipliers, residual = nonnegative_least_squares(system, np.append(np.zeros(2 * W.size), 1.0))
    return max(float(residual), float(multipliers @ slack[wrong, true]))
