r"""Arrangements of K vectors: the named codes, their margins, and the name of a solution.

A code is a ``(K, d)`` tensor of unit row vectors, one a class.
"""

import itertools
import math
from functools import lru_cache

import numpy as np
import scipy
import torch
from torch import Tensor

from dufm._checks import check_count, check_logits, check_pairs
from dufm._door import guard
from dufm._error import DufmError
from dufm._nnls import nonnegative_least_squares
from dufm._scaling import check_in_range, in_range, times_power
from dufm.metrics import centred, margins, numerical_rank

__all__ = [
    "LITERATURE", "antiprism", "class_code", "clebsch", "code_logits", "code_matrix", "hypercube", "icosahedron",
    "name_of", "named", "one_vs_rest_margin", "orthoplex", "pairs_and_singles", "petersen", "polygon",
    "principal_points", "separators", "simplex_etf", "smallest_angle", "truncated_tetrahedron",
]  # fmt: skip

#: Largest cosine of the best spherical code of K points in R^d, (K, d), and who proved it; also in the tables of
#: N. J. A. Sloane and of H. Cohn.  (7, 3): the root of 3x³ − 9x² − 3x + 1; (8, 3): of 7x² + 2x − 1.
LITERATURE = {
    (5, 3): (0.0, "Rankin 1955"),
    (6, 3): (0.0, "Rankin 1955"),
    (7, 3): (0.21013831273060308, "Schütte & van der Waerden 1951"),
    (8, 3): ((2 * math.sqrt(2) - 1) / 7, "Schütte & van der Waerden 1951"),
    (9, 3): (1 / 3, "Schütte & van der Waerden 1951"),
    (12, 3): (1 / math.sqrt(5), "Fejes Tóth 1943"),
    (8, 4): (0.0, "Rankin 1955"),
    (10, 4): (1 / 6, "Bachoc & Vallentin 2009"),
    (16, 5): (1 / 5, "Levenshtein 1992"),
    (27, 6): (1 / 4, "Levenshtein 1992"),
}


# ---------------------------------------------------------------- named codes


def simplex_etf(num_classes: int) -> Tensor:
    """Simplex ETF: K unit vectors ``(K, K − 1)`` of cosine ``−1/(K − 1)``.  K ≥ 2.

    Units: none.  Raises: ``DufmError`` for fewer than 2.  Source: Papyan, Han & Donoho (2020).

    >>> (dufm.simplex_etf(4) @ dufm.simplex_etf(4).mT)[0]
    tensor([ 1.0000, -0.3333, -0.3333, -0.3333], dtype=torch.float64)
    """
    return torch.from_numpy(scipy.linalg.helmert(num_classes).T * math.sqrt(num_classes / (num_classes - 1)))


def polygon(num_classes: int) -> Tensor:
    """Regular polygon: K unit vectors ``(K, 2)``, in order round the circle.  K ≥ 3.

    Units: none.  Raises: ``DufmError`` for fewer than 3.  Source: this companion, notebook 26.

    >>> round(torch.linalg.vector_norm(dufm.polygon(6)[1] - dufm.polygon(6)[0]).item(), 4)
    1.0
    """
    num_classes = check_count("num_classes", num_classes, 3, why="a polygon needs three vertices")
    angle = 2.0 * math.pi / num_classes * torch.arange(num_classes, dtype=torch.float64)
    return torch.stack([angle.cos(), angle.sin()], -1)


def orthoplex(num_classes: int) -> Tensor:
    """Orthoplex (cross-polytope): ``±e_i``, ``(K, K/2)``; vector ``K/2 + i`` is opposite to i.  K ≥ 4, even.

    Units: none.  Raises: ``DufmError`` for an odd K or one below 4.  Source: Rankin (1955); this companion, notebook
    32.

    >>> dufm.orthoplex(6)[:, 0]
    tensor([ 1.,  0.,  0., -1., -0., -0.], dtype=torch.float64)
    """
    if check_count("num_classes", num_classes, 4) % 2:
        raise DufmError(f"num_classes must be even for the orthoplex, got {num_classes}")
    axes = torch.eye(num_classes // 2, dtype=torch.float64)
    return torch.cat([axes, -axes])


def hypercube(num_classes: int) -> Tensor:
    """Hypercube: ``(±1, …, ±1)/√m``, ``(K, m)`` with K = 2^m ≥ 4; bit i of the row is the sign of entry i.

    Units: none.  Raises: ``DufmError`` for a K that is no power of two, or below 4.  Source: this companion, notebook
    32.

    >>> (dufm.hypercube(8)[0] @ dufm.hypercube(8).mT)[:4]
    tensor([ 1.0000,  0.3333,  0.3333, -0.3333], dtype=torch.float64)
    """
    num_classes = check_count("num_classes", num_classes, 4)
    if num_classes & (num_classes - 1):
        raise DufmError(f"num_classes must be a power of two for the hypercube, got {num_classes}")
    m = num_classes.bit_length() - 1
    bits = torch.arange(num_classes).unsqueeze(-1) >> torch.arange(m) & 1
    return (1.0 - 2.0 * bits.double()) / math.sqrt(m)


def antiprism() -> Tensor:
    """Square antiprism in which the two faces and the sides are equally far: ``(8, 3)``, smallest angle 74.858°."""
    # cos of the angle inside a face, (1 − z²)·0 + z², equals that across: (1 − z²)/√2 − z².
    z = math.sqrt(1 / (1 + 2 * math.sqrt(2)))
    angle = math.pi / 4 * torch.arange(8, dtype=torch.float64)
    height = z * (1 - 2 * (torch.arange(8) % 2)).double()
    return torch.stack([math.sqrt(1 - z * z) * angle.cos(), math.sqrt(1 - z * z) * angle.sin(), height], -1)


def icosahedron() -> Tensor:
    """Icosahedron, ``(12, 3)``, cosines ±1/√5 and −1: (0, ±1, ±φ) and its cyclic shifts, φ the golden ratio."""
    golden = (1 + math.sqrt(5)) / 2
    points = [(0.0, a, b * golden) for a in (1.0, -1.0) for b in (1.0, -1.0)]
    W = torch.tensor([point[k:] + point[:k] for point in points for k in range(3)], dtype=torch.float64)
    return W / W.norm(dim=-1, keepdim=True)


def petersen() -> Tensor:
    """Ten unit vectors in R⁴, cosines 1/6 and −2/3, one a pair of five things: an eigenspace of the Petersen graph."""
    pairs = [(i, j) for i in range(5) for j in range(i)]
    W = torch.tensor([[1.0 * (k in pair) - 0.4 for k in range(5)] for pair in pairs], dtype=torch.float64)
    return (W / W.norm(dim=-1, keepdim=True)) @ torch.from_numpy(scipy.linalg.helmert(5)).mT


def clebsch() -> Tensor:
    """Sixteen unit vectors in R⁵, cosines 1/5 and −3/5: the sign vectors with an even number of minuses."""
    signs = [s for s in itertools.product((1.0, -1.0), repeat=5) if math.prod(s) > 0]
    return torch.tensor(signs, dtype=torch.float64) / math.sqrt(5)


def truncated_tetrahedron(ratio: float) -> Tensor:
    """Twelve unit vectors ``(±1, ±1, ±ratio)/n`` and permutations, an even number of minuses, ``(12, 3)``; ratio > 1.

    An orbit of the tetrahedron's group, transitive and irreducible, for every ratio; Archimedes' solid at 3.
    """
    places = [(ratio, 1.0, 1.0), (1.0, ratio, 1.0), (1.0, 1.0, ratio)]
    signs = [s for s in itertools.product((1.0, -1.0), repeat=3) if math.prod(s) > 0]
    W = torch.tensor(places, dtype=torch.float64).unsqueeze(1) * torch.tensor(signs, dtype=torch.float64)
    return W.flatten(0, 1) / math.sqrt(ratio**2 + 2.0)


def code_matrix(W: Tensor) -> Tensor:
    r"""Logits ``Z = WWᵀ`` of a code, scaled to smallest margin 1, ``(..., K, K)``.

    ``W``: ``(..., K, d)``.  ``DufmError`` if a row does not win against all others.
    """
    W = in_range(_check_code(W))[0]
    Z = W @ W.mT
    smallest = margins(Z).amin((-2, -1), keepdim=True)
    if not (smallest > 0).all():
        raise DufmError(f"W must have positive margins ⟨w_k − w_j, w_k⟩, the smallest is {smallest.min():.3g}")
    return Z / smallest


def smallest_angle(W: Tensor) -> Tensor:
    """Smallest angle between two rows of ``W`` ``(..., K, d)``, in degrees, ``(...)``.

    ``DufmError`` for another shape, or a row of zeros, which has no direction.
    """
    W = in_range(_check_code(W), -1)[0]
    if not W.any(-1).all():
        raise DufmError("W must have no row of zeros")
    W = W / W.norm(dim=-1, keepdim=True)
    distance = (W.unsqueeze(-2) - W.unsqueeze(-3)).norm(dim=-1)
    own = torch.eye(W.shape[-2], dtype=torch.bool, device=W.device)
    # By the half chord: arccos of a cosine near 1 would lose half the digits.
    return torch.rad2deg(2.0 * torch.asin((distance.masked_fill(own, 2.0).amin((-2, -1)) / 2.0).clamp(max=1.0)))


def _check_code(W: Tensor) -> Tensor:
    if W.ndim < 2 or W.shape[-2] < 2:
        raise DufmError(f"W must have shape (..., K, d) with K >= 2, got shape {tuple(W.shape)}")
    return W


def separators(W: Tensor) -> tuple[Tensor, Tensor]:
    r"""Unit vectors from the hull of the others to each vector of a code, and the distances.

    ``W`` ``(..., K, d)``; ``H`` ``(..., K, d)`` and ``distance`` ``(..., K)``: :math:`h_k` maximises
    :math:`\min_{j\ne k}\langle w_k - w_j, h\rangle` over unit h, and the maximum is the distance.  0 and a meaningless
    h where a vector lies in the hull of the others.  By non-negative least squares, exact up to rounding (Lawson &
    Hanson 1974, chapter 23).  ``DufmError`` for a W of another shape, not finite, or with a distance beyond the floats.
    """
    W, e = in_range(_check_code(W))
    flat = W.detach().reshape(-1, *W.shape[-2:]).cpu().double().numpy()
    distance, H = np.zeros(flat.shape[:-1]), np.zeros(flat.shape)
    for index, k in np.ndindex(distance.shape):
        w, others = flat[index, k], np.delete(flat[index], k, 0)
        # min ‖x‖ under ⟨w_k − w_j, x⟩ ≥ 1 has dual non-negative least squares, and 1/‖x‖ is the distance.
        system = np.vstack([(w - others).T, np.ones(len(others))])
        weights, _ = nonnegative_least_squares(system, np.append(np.zeros(len(w)), 1.0))
        nearest = system[:-1] @ (weights / weights.sum())
        distance[index, k] = np.linalg.norm(nearest)
        H[index, k] = nearest / max(distance[index, k], np.finfo(float).tiny)
    distances = times_power(W.new_tensor(distance).reshape(W.shape[:-1]), e.squeeze(-1))
    check_in_range("W: a distance", distances)
    return W.new_tensor(H).reshape(W.shape), distances


def one_vs_rest_margin(W: Tensor) -> Tensor:
    r"""One-vs-rest margin :math:`\min_k \operatorname{dist}(w_k, \operatorname{conv}\{w_j : j \ne k\})`.

    ``W``: ``(..., K, d)``; the margins ``(...)``.  0 where a vector lies in the hull of the others.

    Units: none.  Raises: ``DufmError`` for a W that is no ``(..., K, d)`` of finite floats.  Source: Jiang et al.
    (2024).

    >>> dufm.one_vs_rest_margin(torch.stack([dufm.polygon(4), dufm.orthoplex(4)]))
    tensor([1.0000, 1.0000], dtype=torch.float64)
    """
    return separators(W)[1].amin(-1)


_IN_HULL = 1e-12  # distances, over the longest vector, that the least squares cannot tell from 0


def code_logits(W: Tensor) -> Tensor:
    r"""Centred logits :math:`(I - J/K)\,WH^\top` of a code and its :func:`separators`, of smallest margin 1.

    Centring changes no margin and raises no singular value, so every solution of the depth problem is centred.
    ``W``: ``(..., K, d)``; returns ``(..., K, K)``.  ``DufmError`` if a vector lies in the hull of the others,
    up to rounding: within 1e-12 of the longest vector, in float32 within 4 eps.
    """
    W = in_range(_check_code(W))[0]
    H, distance = separators(W)
    smallest = distance.amin(-1)[..., None, None]
    longest = W.norm(dim=-1).amax(-1)[..., None, None]
    if not (smallest > max(_IN_HULL, 4 * torch.finfo(W.dtype).eps) * longest).all():
        raise DufmError(f"W must have no vector in the hull of the others, a distance is {smallest.min():.3g}")
    return centred(W @ H.mT) / smallest


def principal_points(features: Tensor, rank: int) -> Tensor:
    """Classes in the leading directions of features ``(..., d, K)``: ``(..., K, rank)``, of mean length 1; not of 0.

    ``DufmError`` for a rank above d or K.
    """
    rank = check_count("rank", rank, 1, min(features.shape[-2:]), "d or K")
    _, sigma, Vh = torch.linalg.svd(in_range(features)[0], full_matrices=False)
    X = (sigma[..., :rank, None] * Vh[..., :rank, :]).mT
    if not (sigma[..., 0] > 0).all():
        raise DufmError("features must not be zero")
    return X / X.norm(dim=-1, keepdim=True).mean(-2, keepdim=True)


def class_code(Z: Tensor, rank: int) -> Tensor:
    """Class code ``(..., K, rank)`` of centred class-mean logits ``Z`` ``(..., K, K)``: unit vectors, one a class.

    The rows of ``U√Σ`` at unit length, ``UΣVᵀ`` the best approximation of Z of this rank: what balanced factors hold.
    ``DufmError`` for bad logits, a rank outside 1 … K − 1, or a class whose vector is zero.
    """
    num_classes, _ = check_logits(Z)
    rank = check_count("rank", rank, 1, num_classes - 1)
    U, sigma, _ = torch.linalg.svd(in_range(Z)[0])
    W = U[..., :rank] * sigma[..., None, :rank].sqrt()
    length = W.norm(dim=-1, keepdim=True)
    if not (length > 0).all():
        raise DufmError(f"Z must give every class a vector at rank {rank}, but one is zero")
    return W / length


# ---------------------------------------------------------------- names

_NAMED_TOL = 1e-6


def pairs_and_singles(num_classes: int, pairs: int) -> Tensor:
    r"""Logits ``(K, K)`` of t antipodal pairs and K − 2t single classes: the orthoplex with K − 2t vertices missing.

    Smallest margin 1, rank K − t, centred singular values 2 (t times), 1 (K − 2t − 1 times) and :math:`\sqrt{2t/K}`
    (none for t = 0, which is neural collapse; t = K/2 is the orthoplex), so that
    :math:`\gamma_L = (t2^p + K - 2t - 1 + (2t/K)^{p/2})^{-1/p}`, p = 2/L.  ``DufmError`` unless 0 ≤ t ≤ K/2,
    and for a pair of two classes, which is neural collapse.
    """
    pairs = check_pairs(num_classes, pairs)
    Z = torch.eye(num_classes, dtype=torch.float64)
    first = 2 * torch.arange(pairs)
    Z[first, first + 1] = Z[first + 1, first] = -1.0
    return centred(Z)


_SINGLE = {
    "antiprism": (8, antiprism),
    "Petersen": (10, petersen),
    "icosahedron": (12, icosahedron),
    "Clebsch": (16, clebsch),
}


def named(num_classes: int) -> dict[str, Tensor]:
    """The codes of :func:`name_of` for K classes: centred logits ``(K, K)`` of smallest margin 1, by name, a dict."""
    codes = {"NC": pairs_and_singles(num_classes, 0)}
    for pairs in range(1, num_classes // 2 + 1) if num_classes > 2 else ():
        singles = num_classes - 2 * pairs
        name = "orthoplex" if not singles else f"{pairs} pair{'s' * (pairs > 1)}, {singles} single"
        codes[name] = pairs_and_singles(num_classes, pairs)
    if num_classes > 4:
        codes["polygon"] = code_matrix(polygon(num_classes))
    if num_classes == 8:
        codes["cube"] = code_matrix(hypercube(8))
    return codes | {name: code_matrix(make()) for name, (size, make) in _SINGLE.items() if size == num_classes}


@lru_cache(maxsize=64)
def _known(num_classes: int) -> tuple[list[str], Tensor]:
    """Names and their sorted margins and singular values, as rows."""
    codes = named(num_classes)
    return list(codes), torch.stack([_fingerprint(Z) for Z in codes.values()])


def _fingerprint(Z: Tensor) -> Tensor:
    """Sorted margins and singular values of centred logits of margin 1: they do not see how classes are numbered."""
    gaps = margins(Z).flatten(-2)
    gaps = torch.where(gaps.isinf(), 0.0, gaps).sort(-1).values
    return torch.cat([gaps, torch.linalg.svdvals(centred(Z))], -1)


def name_of(Z: Tensor) -> np.ndarray:
    """Names of solutions ``Z`` ``(..., K, N)`` of smallest margin 1, a NumPy array of the batch shape.

    "NC", "orthoplex", "t pairs, n single" (:func:`pairs_and_singles`), "polygon", "cube" and "antiprism" (K = 8),
    "Petersen" (K = 10), "icosahedron" (K = 12), "Clebsch" (K = 16); else "rank r".  A name is given where all margins
    and singular values of the class means agree to 1e-6.  "" for NaN.
    """
    num_classes, n_per_class = check_logits(Z, finite=False)
    means = Z.unflatten(-1, (num_classes, n_per_class)).mean(-1).reshape(-1, num_classes, num_classes).double().cpu()
    whole = means.isfinite().all(-1).all(-1)
    names, known = _known(num_classes)
    print_of = _fingerprint(means.nan_to_num())
    away = (print_of.unsqueeze(1) - known).abs().amax(-1)
    rank = numerical_rank(centred(means.nan_to_num()), 1e-6)
    found = [
        "" if not ok else names[int(row.argmin())] if row.min() < _NAMED_TOL else f"rank {int(r)}"
        for ok, row, r in zip(whole, away, rank, strict=True)
    ]
    return np.array(found, dtype=object).reshape(Z.shape[:-2])


guard(globals())
