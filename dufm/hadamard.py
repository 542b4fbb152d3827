r"""The polyhedron of Hadamard spectra and its vertices, which are binary linear codes, in exact arithmetic."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from dufm._checks import short
from dufm._door import guard
from dufm._error import DufmError

__all__ = ["OFF_LIST", "UNDECIDED", "HadamardPolyhedron", "SpectralVertex", "hadamard_polyhedron", "is_vertex"]

Array = np.ndarray | Tensor | Sequence[Any]

COST_DIGITS = 60
TIE_DIGITS = 40
OFF_LIST, UNDECIDED = -1, -2  #: the orbits of a spectrum that is no vertex, and of a run that is not decided
# How floats are read as fractions; the vertices up to K = 16 have denominators up to 3.
DENOMINATOR, READING = 1000, 1e-9
SAME_VALUES = 1e-6


@dataclass(frozen=True)
class SpectralVertex:
    r"""A vertex of the Hadamard polyhedron, one for its whole orbit under GL(m, 2).

    ``spectrum``: the singular values ``s_1 … s_{K−1}`` as fractions, at smallest margin 1, ``s_i`` that of
    ``χ_i(a) = (−1)^{⟨i, a⟩}`` with i and a read as bit vectors; ``orbit_size``: how many vertices coordinate changes
    make of it; ``degenerate``: more than K − 1 constraints are tight.  Cleared of denominators the spectrum
    is a multiset of columns i, a binary linear code whose codeword a has weight proportional to its margin.
    """

    spectrum: tuple[Fraction, ...]
    orbit_size: int
    degenerate: bool

    @cached_property
    def multiplicities(self) -> tuple[int, ...]:
        """Smallest whole numbers proportional to the spectrum: how often column i stands in the generator matrix."""
        scale = math.lcm(*(s.denominator for s in self.spectrum))
        whole = [int(s * scale) for s in self.spectrum]
        return tuple(count // math.gcd(*whole) for count in whole)

    @cached_property
    def weights(self) -> dict[int, int]:
        """Weight distribution of the code, ``{weight: number of codewords}``."""
        count = np.array(self.multiplicities)
        return dict(sorted(Counter([0, *(_odd_parity(len(count)) @ count).tolist()]).items()))

    @property
    def nkd(self) -> tuple[int, int, int]:
        """``(n, k, d)`` of the code: length, dimension, and smallest nonzero weight."""
        return sum(self.multiplicities), (len(self.spectrum) + 1).bit_length() - 1, min(set(self.weights) - {0})

    @property
    def name(self) -> str:
        """The classical name of the code, "" where it has none."""
        (n, m, d), half = self.nkd, (len(self.spectrum) + 1) // 2
        if max(self.multiplicities) > 1:
            return ""
        if n == len(self.spectrum):
            return "simplex (collapse)"
        if n == m:
            return "trivial (cube)" if m > 2 else "trivial (square)"
        return "Reed-Muller (orthoplex)" if (n, d) == (half, half // 2) else ""

    @property
    def powers(self) -> str:
        """Positive singular values, largest first, with how often each stands: ``"4^1 2^3"``."""
        return " ".join(f"{s}^{count}" for s, count in sorted(Counter(self.spectrum).items(), reverse=True) if s)

    @property
    def rank(self) -> int:
        """Rank of Z: the number of positive singular values."""
        return sum(s > 0 for s in self.spectrum)

    def cost(self, depth: float) -> Decimal:
        """``Σ s_i^{2/L}`` as a decimal of 60 digits; L may be any real number from 2 on."""
        with localcontext(prec=COST_DIGITS):
            p = Decimal(2) / Decimal(depth)
            return sum(((Decimal(s.numerator) / Decimal(s.denominator)) ** p for s in self.spectrum if s), Decimal(0))

    def margin(self, depth: float) -> float:
        """Normalised margin ``γ_L = (Σ s_i^p)^{−1/p}``."""
        return float(self.cost(depth)) ** (-depth / 2.0)


@dataclass(frozen=True)
class HadamardPolyhedron:
    """All vertices of the Hadamard polyhedron, one :class:`SpectralVertex` an orbit, those of highest rank first.

    ``edges``: pairs of orbits, by index, of which two vertices are joined by an edge; ``(i, i)`` is possible.
    """

    num_classes: int
    orbits: tuple[SpectralVertex, ...]
    edges: frozenset[tuple[int, int]]

    @property
    def num_vertices(self) -> int:
        """Vertices in all orbits together."""
        return sum(vertex.orbit_size for vertex in self.orbits)

    @cached_property
    def vertices(self) -> tuple[np.ndarray, np.ndarray]:
        """All vertices ``(num_vertices, K − 1)`` as floats, and the index of each one's orbit, int64."""
        group = _linear_group(self.num_classes.bit_length() - 1)
        images = [np.unique(np.array(vertex.spectrum, dtype=float)[group], axis=0) for vertex in self.orbits]
        return np.vstack(images), np.repeat(np.arange(len(images)), [len(points) for points in images])

    def best(self, depth: int) -> tuple[int, ...]:
        """Indices of the orbits of lowest cost at this depth; more than one only where 40 digits agree."""
        costs = [vertex.cost(depth) for vertex in self.orbits]
        return tuple(i for i, cost in enumerate(costs) if cost - min(costs) < Decimal(10) ** -TIE_DIGITS)

    def best_depths(self, max_depth: int) -> dict[int, tuple[int, ...]]:
        """``{orbit index: (depths 2 … max_depth at which it is best)}``, for those that are best somewhere."""
        won: dict[int, list[int]] = {}
        for depth in range(2, max_depth + 1):
            for index in self.best(depth):
                won.setdefault(index, []).append(depth)
        return {index: tuple(depths) for index, depths in won.items()}

    def orbit_of(self, spectra: Array, decided: Array | None = None) -> np.ndarray:
        """Indices of the orbits of ``spectra`` ``(..., K − 1)``, each settled in rational arithmetic; int64 ``(...)``.

        A spectrum of floats is read as fractions of denominator at most 1000, within 1e-9, or 1e-6 in single precision,
        must be a vertex by :func:`is_vertex`, and is looked up by its sorted entries and margins.  ``OFF_LIST`` where
        that fails, ``UNDECIDED`` for NaN and where ``decided`` ``(...)``, if given, is false.
        """
        rows = self._rows("spectra", spectra)
        distinct, which = np.unique(rows.reshape(-1, rows.shape[-1]).round(10), axis=0, return_inverse=True)
        near = SAME_VALUES if str(getattr(spectra, "dtype", "")).endswith("float32") else READING
        found = [self._read(row, near) for row in distinct.tolist()]
        orbit = np.array(found, dtype=np.int64)[which].reshape(rows.shape[:-1])
        return orbit if decided is None else np.where(_like("decided", decided, orbit), orbit, UNDECIDED)

    def _rows(self, name: str, values: Array) -> np.ndarray:
        rows = _numbers(name, values)
        if rows.ndim < 1 or rows.shape[-1] != self.num_classes - 1:
            raise DufmError(f"{name} must have shape (..., {self.num_classes - 1}), got {rows.shape}")
        return rows

    def orbit_of_values(self, sigma: Array) -> np.ndarray:
        """Indices of the orbits whose sorted spectra are ``sigma`` ``(..., K − 1)`` up to 1e-6 of the norm; int64.

        For a matrix of margin 1 of which nothing but the singular values is known.  Orbits may share them: the first
        is returned.  ``OFF_LIST`` where none has them, ``UNDECIDED`` for NaN.
        """
        sigma = np.sort(self._rows("sigma", sigma), axis=-1)[..., None, :]
        listed = np.sort(np.array([vertex.spectrum for vertex in self.orbits], dtype=float), axis=-1)
        away = np.linalg.norm(sigma - listed, axis=-1) / np.linalg.norm(listed, axis=-1)
        found = np.where(away.min(-1) <= SAME_VALUES, away.argmin(-1), OFF_LIST)
        return np.where(np.isnan(sigma).any((-2, -1)), UNDECIDED, found)

    def named_by_growth(self, earlier: Array, later: Array, orbits: Array) -> np.ndarray:
        """Whether raw spectra ``(..., K − 1)`` at two losses, tenfold in log ℒ, name a vertex of ``orbits`` ``(...)``.

        What grows from ``earlier`` to ``later`` with a slope above 1/2 in log(−log ℒ) must be the support of the vertex
        that is nearest to ``later``, of all vertices, both at smallest margin 1; and this must lie in the orbit given.
        Nothing is polished or certified.  Bool ``(...)``, false where the orbit is negative.
        """
        points, orbit = self.vertices
        later = self._rows("later", later)
        earlier, orbits = _like("earlier", earlier, later), _like("orbits", orbits, later[..., 0])
        margin = (later @ _odd_parity(self.num_classes - 1) * 2 / self.num_classes).min(-1, keepdims=True)
        scaled = later / margin
        square = (scaled**2).sum(-1, keepdims=True) - 2 * scaled @ points.T + (points**2).sum(-1)
        nearest = square.argmin(-1)
        grows = np.log10(later / earlier) > 0.5
        return (grows == (points[nearest] > 0)).all(-1) & (orbit[nearest] == orbits)

    @cached_property
    def _signatures(self) -> dict[tuple, int]:
        known = {_signature(vertex.spectrum): index for index, vertex in enumerate(self.orbits)}
        if len(known) < len(self.orbits):
            raise ArithmeticError("two orbits have the same singular values and margins")
        return known

    def _read(self, row: Sequence[float], near: float) -> int:
        if any(math.isnan(value) for value in row):
            return UNDECIDED
        exact = tuple(Fraction(value).limit_denominator(DENOMINATOR) for value in row)
        away = max(abs(float(a) - b) for a, b in zip(exact, row, strict=True))
        return self._signatures.get(_signature(exact), OFF_LIST) if away < near and is_vertex(exact) else OFF_LIST


def _numbers(name: str, values: Array) -> np.ndarray:
    try:
        return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=float)
    except (TypeError, ValueError):
        raise DufmError(f"{name} must be numbers in an array, a tensor or lists, got {short(values)}") from None


def _like(name: str, values: Array, beside: np.ndarray) -> np.ndarray:
    found = _numbers(name, values)
    pairs = zip(found.shape[::-1], beside.shape[::-1], strict=False)
    if found.ndim > beside.ndim or any(n not in (1, m) for n, m in pairs):
        raise DufmError(f"{name} must broadcast to shape {beside.shape}, got {found.shape}")
    return found


def is_vertex(spectrum: Sequence[Fraction]) -> bool:
    """Whether a spectrum of K − 1 fractions is a vertex: feasible, with tight constraints of rank K − 1, all exact."""
    size = len(spectrum)
    margins = _margins(spectrum)
    tight = [row for row, margin in zip(_odd_parity(size), margins, strict=True) if margin == 1]
    tight += [row for row, s in zip(np.eye(size, dtype=np.int64), spectrum, strict=True) if s == 0]
    return min(margins) == 1 and min(spectrum) >= 0 and len(_independent(np.array(tight))) == size


def _margins(spectrum: Sequence[Fraction]) -> list[Fraction]:
    """Margins ``(2/K) Σ s_i [⟨i, a⟩ odd]`` against each a, as fractions."""
    return [
        Fraction(2, len(spectrum) + 1) * sum((s for s, odd in zip(spectrum, row, strict=True) if odd), Fraction(0))
        for row in _odd_parity(len(spectrum)).tolist()
    ]


def _signature(spectrum: Sequence[Fraction]) -> tuple:
    """What coordinate changes leave alone: the sorted singular values and the sorted margins."""
    return tuple(sorted(spectrum)), tuple(sorted(_margins(spectrum)))


def hadamard_polyhedron(m: int) -> HadamardPolyhedron:
    r"""All vertices of ``{s ≥ 0, As ≥ 1}``, ``A_{ai} = (2/K)[χ_i(a) = −1]``, K = 2^m, in exact arithmetic.

    These are the spectra of ``Z = (1/K) Σ s_i χ_iχ_iᵀ`` with margins at least 1.  ``Σ s_i^{2/L}`` is concave and the
    polyhedron has no line, so at every depth a vertex is best.  From the simplex code's vertex the search pivots along
    every edge, one representative an orbit of GL(m, 2); the edges are the extreme rays of the cone of tight
    constraints, by double description.  It ends when no neighbour is new: as vertices and bounded edges form a
    connected graph, none is then missing.  m = 2, 3, 4.  Returns :class:`HadamardPolyhedron`.

    Shapes: a spectrum is ``(K − 1,)``.  Units: none.  Raises: ``DufmError`` for another m.  Source: Motzkin et al.
    (1953) for the edges; this companion, notebook 45.

    >>> vertices = dufm.hadamard_polyhedron(2).orbits
    >>> [(vertex.name, vertex.powers) for vertex in vertices]
    [('simplex (collapse)', '1^3'), ('trivial (square)', '2^2')]
    """
    size = 2**m - 1
    constraints = np.vstack([_odd_parity(size), np.eye(size, dtype=np.int64)])
    bounds = np.repeat([1, 0], size)
    group = _linear_group(m)
    # Vertices are whole numbers over a denominator, in units s = (K/2)·t.
    start = (1,) * size, 2 ** (m - 1)
    seen, waiting = {start}, [start]
    orbits, joined = {}, set()
    while waiting:
        numerators, denominator = here = waiting.pop()
        point = np.array(numerators)
        slack = constraints @ point - denominator * bounds
        rays = _extreme_rays(constraints[slack == 0])
        for ray in rays:
            fall = constraints @ ray
            lengths = [Fraction(int(slack[i]), -int(fall[i])) for i in np.flatnonzero(fall < 0)]
            if lengths:  # else the edge is unbounded
                length = min(lengths)
                end = _canonical(length.denominator * point + length.numerator * ray, group)[0]
                scale = length.denominator * denominator
                common = math.gcd(scale, *end)
                found = tuple(x // common for x in end), scale // common
                joined.add((here, found))
                if found not in seen:
                    seen.add(found)
                    waiting.append(found)
        spectrum = tuple(Fraction(2 ** (m - 1) * x, denominator) for x in numerators)
        stabiliser = _canonical(point, group)[1]
        orbits[here] = SpectralVertex(spectrum, len(group) // stabiliser, bool((slack == 0).sum() > size))
    order = sorted(orbits, key=lambda point: (-orbits[point].rank, orbits[point].multiplicities))
    place = {point: index for index, point in enumerate(order)}
    edges = frozenset((min(place[a], place[b]), max(place[a], place[b])) for a, b in joined)
    return HadamardPolyhedron(2**m, tuple(orbits[point] for point in order), edges)


def _odd_parity(size: int) -> np.ndarray:
    """``(size, size)`` matrix of ``⟨i, a⟩ mod 2`` for i, a = 1 … size."""
    index = np.arange(1, size + 1)
    return np.bitwise_count(index[:, None] & index).astype(np.int64) % 2


def _linear_group(m: int) -> np.ndarray:
    """Elements of GL(m, 2) as permutations of the nonzero bit vectors, ``(order, 2^m − 1)``, entries from 0."""
    images = np.zeros((1, 1), dtype=np.int64)  # images of 0 … 2^k − 1
    for _ in range(m):
        following = np.arange(1, 2**m)
        pairs = [(span, v) for span in images for v in following if v not in span]
        images = np.array([np.concatenate([span, span ^ v]) for span, v in pairs])
    return images[:, 1:] - 1


def _canonical(point: np.ndarray, group: np.ndarray) -> tuple[tuple[int, ...], int]:
    """Lexicographically largest image of ``point`` under the group, and the size of its stabiliser."""
    images = point[group]
    for column in range(len(point)):
        images = images[images[:, column] == images[:, column].max()]
    return tuple(images[0].tolist()), len(images)


def _extreme_rays(rows: np.ndarray) -> np.ndarray:
    """Extreme rays of the pointed cone ``{x : rows @ x ≥ 0}``, primitive whole vectors, by double description."""
    size = rows.shape[1]
    order = _independent(rows)
    inverse = np.linalg.inv(rows[order].astype(float))
    det = round(abs(np.linalg.det(rows[order].astype(float))))
    rays = np.rint(det * inverse).astype(np.int64).T
    if not (rows[order] @ rays.T == det * np.eye(size, dtype=np.int64)).all():
        raise ArithmeticError("the inverse of a tight system is not exact")
    rays //= np.gcd.reduce(rays, axis=1, keepdims=True)
    for row in set(range(len(rows))) - set(order):
        side = rays @ rows[row]
        tight = rays @ rows[order].T == 0
        crossing = []
        for i in np.flatnonzero(side > 0):
            for j in np.flatnonzero(side < 0):
                common = tight[i] & tight[j]
                # Adjacent: no third ray is tight wherever both are.
                if common.sum() >= size - 2 and tight[:, common].all(1).sum() == 2:
                    ray = side[i] * rays[j] - side[j] * rays[i]
                    crossing.append(ray // np.gcd.reduce(ray))
        rays = np.vstack([rays[side >= 0], *crossing])
        order.append(row)
    return rays


def _independent(rows: np.ndarray) -> list[int]:
    """Indices of the first rows that form a basis, by exact elimination."""
    chosen: list[int] = []
    reduced: list[tuple[int, list[Fraction]]] = []
    for index, row in enumerate(rows.tolist()):
        row = [Fraction(x) for x in row]
        for pivot, base in reduced:
            if row[pivot]:
                row = [x - row[pivot] * y for x, y in zip(row, base, strict=True)]
        first = next((i for i, x in enumerate(row) if x), None)
        if first is not None:
            reduced.append((first, [x / row[first] for x in row]))
            chosen.append(index)
    return chosen


guard(globals())
