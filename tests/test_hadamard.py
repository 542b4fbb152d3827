"""The Hadamard polyhedron against brute force over bases, random linear programs, and sympy's rational ranks."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import sympy
import torch

from dufm import DufmError, closed_form_margin, normalized_margin
from dufm.hadamard import (
    OFF_LIST,
    UNDECIDED,
    _canonical,
    _linear_group,
    _odd_parity,
    hadamard_polyhedron,
    is_vertex,
)


@pytest.fixture(scope="module")
def sixteen():
    return hadamard_polyhedron(4)


def test_eight_classes_have_four_kinds_of_vertex():
    found = {
        tuple(sorted((int(s) for s in v.spectrum if s), reverse=True)): (v.orbit_size, v.nkd)
        for v in hadamard_polyhedron(3).orbits
    }
    assert found == {
        (1,) * 7: (1, (7, 3, 4)),
        (2,) * 4: (7, (4, 3, 2)),
        (4, 2, 2, 2): (28, (5, 3, 2)),
        (4, 4, 4): (28, (3, 3, 1)),
    }
    assert hadamard_polyhedron(3).num_vertices == 64


@pytest.mark.parametrize("m", [2, 3])
def test_vertices_against_all_bases(m):
    size, K = 2**m - 1, 2**m
    rows = np.vstack([_odd_parity(size) * 2 / K, np.eye(size)])
    bounds = np.repeat([1.0, 0.0], size)
    vertices = set()
    for basis in itertools.combinations(range(2 * size), size):
        system = rows[list(basis)]
        if abs(np.linalg.det(system)) > 1e-9:
            s = np.linalg.solve(system, bounds[list(basis)])
            if (rows @ s > bounds - 1e-9).all():
                vertices.add(tuple(np.round(s, 6) + 0.0))
    group = _linear_group(m)
    ours = {
        tuple(float(x) for x in np.array(v.spectrum)[permutation])
        for v in hadamard_polyhedron(m).orbits
        for permutation in group
    }
    assert ours == vertices
    assert len(ours) == hadamard_polyhedron(m).num_vertices


def test_sixteen_classes_against_random_linear_programs(sixteen):
    assert (len(sixteen.orbits), sixteen.num_vertices) == (15, 9384)
    group, parity = _linear_group(4), _odd_parity(15)
    assert len(group) == 20160 == len(np.unique(group, axis=0))
    known = {_canonical(np.array(v.spectrum) * 24, group)[0] for v in sixteen.orbits}
    draw, hit = np.random.default_rng(0), Counter()
    for spread in np.repeat([0.03, 0.1, 0.3, 1.0], 20):
        solved = scipy.optimize.linprog(np.exp(spread * draw.standard_normal(15)), A_ub=-parity / 8, b_ub=-np.ones(15))
        hit[_canonical(np.rint(solved.x * 24).astype(int), group)[0]] += 1
    assert set(hit) <= known and len(hit) >= 5


def test_every_vertex_is_exact(sixteen):
    for vertex in sixteen.orbits:
        s = vertex.spectrum
        margins = [sum((x for x, odd in zip(s, row, strict=True) if odd), Fraction(0)) / 8 for row in _odd_parity(15)]
        assert min(margins) == 1 and min(s) >= 0
        tight = [row for row, margin in zip(_odd_parity(15), margins, strict=True) if margin == 1]
        rows = np.array([*tight, *np.eye(15)[[x == 0 for x in s]]])
        assert np.linalg.matrix_rank(rows) == 15 and vertex.degenerate == (len(rows) > 15)
        # Weights are margins times the code's distance.
        n, k, d = vertex.nkd
        assert Counter(vertex.weights) == Counter([int(margin * d) for margin in margins]) + Counter([0])
        assert n == sum(vertex.multiplicities) and k == 4


def test_vertex_margins_against_their_matrices(sixteen):
    characters = scipy.linalg.hadamard(16)[1:]
    for vertex in sixteen.orbits:
        Z = torch.from_numpy((characters.T * np.array(vertex.spectrum, dtype=float)) @ characters / 16)
        assert normalized_margin(Z, 5).item() == pytest.approx(vertex.margin(5), rel=1e-12)


def test_named_codes_among_the_vertices(sixteen):
    by_code = {(v.nkd, v.rank): v for v in sixteen.orbits}
    for depth in (2, 3, 8):
        assert by_code[(15, 4, 8), 15].margin(depth) == pytest.approx(closed_form_margin("nc", 16, depth))
        assert by_code[(8, 4, 4), 8].margin(depth) == pytest.approx(closed_form_margin("orthoplex", 16, depth))
        assert by_code[(4, 4, 1), 4].margin(depth) == pytest.approx(closed_form_margin("hypercube", 16, depth))


def test_depth_ranges(sixteen):
    eight = hadamard_polyhedron(3)
    won = {eight.orbits[i].nkd: depths for i, depths in eight.best_depths(12).items()}
    assert won == {(7, 3, 4): (2,), (4, 3, 2): (3, 4), (3, 3, 1): tuple(range(5, 13))}
    won = {sixteen.orbits[i].nkd: depths for i, depths in sixteen.best_depths(12).items()}
    assert won == {(15, 4, 8): (2,), (5, 4, 2): (3, 4, 5, 6), (4, 4, 1): tuple(range(7, 13))}


# ---------------------------------------------------------------- looking up


def test_a_vertex_is_one_by_sympy_too(sixteen):
    """Mixtures, multiples, and minima that are not basic, beside the vertices themselves."""
    for vertex in sixteen.orbits:
        s = vertex.spectrum
        other = sixteen.orbits[0].spectrum
        for candidate in (s, tuple(2 * x for x in s), tuple((x + y) / 2 for x, y in zip(s, other, strict=True))):
            margins = sympy.Matrix(_odd_parity(15).tolist()) * sympy.Matrix([sympy.Rational(x) for x in candidate]) / 8
            rows = [_odd_parity(15)[a].tolist() for a in range(15) if margins[a] == 1]
            rows += [[int(i == j) for j in range(15)] for i in range(15) if candidate[i] == 0]
            expected = min(margins) == 1 and sympy.Matrix(rows).rank() == 15
            assert is_vertex(candidate) == expected == (candidate in (s, other))
    assert not is_vertex(tuple(-x for x in sixteen.orbits[0].spectrum))


def test_orbits_are_found_from_floats(sixteen):
    group = _linear_group(4)
    draw = np.random.default_rng(0)
    images = np.array([[np.array(v.spectrum, dtype=float)[group[i]] for i in draw.integers(len(group), size=3)]
                       for v in sixteen.orbits])  # fmt: skip
    expected = np.repeat(np.arange(15)[:, None], 3, axis=1)
    assert np.array_equal(sixteen.orbit_of(images), expected)
    assert np.array_equal(sixteen.orbit_of(images * (1 + 1e-11)), expected)
    single = sixteen.orbit_of(images.astype(np.float32)), sixteen.orbit_of(torch.from_numpy(images).float())
    assert all(np.array_equal(found, expected) for found in single)
    moved = images.copy()
    moved[..., 0] += 1e-5
    moved[0, 0] = np.nan
    found = sixteen.orbit_of(moved)
    assert found[0, 0] == UNDECIDED and (np.delete(found.ravel(), 0) == OFF_LIST).all()
    assert sixteen.orbit_of(images, np.arange(3) > 0).tolist() == [[UNDECIDED, i, i] for i in range(15)]
    # By singular values alone: the first of the orbits that share them.
    spectra = [sorted(v.spectrum) for v in sixteen.orbits]
    first = [spectra.index(s) for s in spectra]
    assert sixteen.orbit_of_values(images[:, 0] + 1e-9).tolist() == first
    assert sixteen.orbit_of_values(np.array([images[0, 0] * 1.01, images[0, 0] * np.nan])).tolist() == [-1, -2]


def test_edges_join_neighbours():
    """All pairs of vertices at K = 8: neighbours have tight constraints of rank K − 2 in common."""
    eight = hadamard_polyhedron(3)
    rows, bounds = np.vstack([_odd_parity(7) / 4, np.eye(7)]), np.repeat([1.0, 0.0], 7)
    points = {
        i: np.unique(np.array(v.spectrum, dtype=float)[_linear_group(3)], axis=0) for i, v in enumerate(eight.orbits)
    }
    expected = set()
    for (i, left), (j, right) in itertools.combinations_with_replacement(points.items(), 2):
        for a, b in itertools.product(left, right):
            common = (np.abs(rows @ a - bounds) < 1e-9) & (np.abs(rows @ b - bounds) < 1e-9)
            if (a != b).any() and common.sum() >= 6 and np.linalg.matrix_rank(rows[common]) == 6:
                expected.add((i, j))
    assert eight.edges == expected


def test_names_and_powers(sixteen):
    named = {v.name: v.powers for v in sixteen.orbits if v.name}
    assert named == {"simplex (collapse)": "1^15", "Reed-Muller (orthoplex)": "2^8", "trivial (cube)": "8^4"}
    assert [v.name for v in hadamard_polyhedron(2).orbits] == ["simplex (collapse)", "trivial (square)"]
    assert {v.powers for v in hadamard_polyhedron(3).orbits} == {"1^7", "2^4", "4^1 2^3", "4^3"}


def test_the_best_at_every_real_depth(sixteen):
    x, four_thirds = sympy.Symbol("x", positive=True), sympy.Rational(4, 3)
    cubic = sympy.expand((x + 2) / 3 * (3 * x + 7) - 8 * x)
    assert cubic == x**2 - sympy.Rational(11, 3) * x + sympy.Rational(14, 3) and sympy.discriminant(cubic, x) < 0
    chord = x ** sympy.log(four_thirds, 2) - (x + 2) / 3
    assert all(sympy.simplify(chord.subs(x, end)) == 0 for end in (1, 2))
    assert sympy.log(four_thirds, 2) < 1  # concave
    # The least of all listed costs against the envelope of the proof, and which orbit has it.
    powers = {4: ((3, 0), (2, 1)), 8: ((7, 0), (4, 1), (3, 2)), 16: ((15, 0), (8, 1), (5, 2), (4, 3))}
    for polyhedron in (hadamard_polyhedron(2), hadamard_polyhedron(3), sixteen):
        for depth in np.geomspace(2.0, 200.0, 301):
            costs = [float(vertex.cost(depth)) for vertex in polyhedron.orbits]
            least, rank = min((n * 2 ** (2 * k / depth), n) for n, k in powers[polyhedron.num_classes])
            assert min(costs) == pytest.approx(least, rel=1e-12)
            assert polyhedron.orbits[int(np.argmin(costs))].rank == rank


def test_raw_spectra_name_their_vertex():
    eight = hadamard_polyhedron(3)
    points, orbit = eight.vertices
    assert points.shape == (64, 7) and np.bincount(orbit).tolist() == [1, 7, 28, 28]
    draw = np.random.default_rng(0)
    earlier = 10 * points + draw.uniform(0.01, 0.5, points.shape)
    later = 100 * points + np.where(points > 0, 0.0, earlier)
    assert eight.named_by_growth(earlier, later, orbit).all()
    assert not eight.named_by_growth(earlier, later, np.full(64, -2)).any()
    still = np.where(points > 0, later, 10 * earlier)  # what the vertex drops still grows
    assert not eight.named_by_growth(earlier, still, orbit)[1:].any()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: hadamard_polyhedron(5), "m must be an integer from 2 to 4, got 5"),
        (lambda: hadamard_polyhedron(1), "m must be"),
        (lambda: hadamard_polyhedron(3).best(1), "depth"),
        (lambda: hadamard_polyhedron(3).orbit_of(np.ones(6)), "spectra must have shape"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(DufmError, match=words):
        call()
