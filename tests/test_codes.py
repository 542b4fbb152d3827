"""Codes against closed forms, published arrangements, cvxpy, and brute force over bases and random linear programs."""

import itertools
import math
from collections import Counter
from fractions import Fraction

import cvxpy
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import torch

from dufm import DufmError, closed_form_margin, kkt_certificate, normalized_margin
from dufm._climb import climb, random_codes
from dufm.codes import (
    _separators,
    _tangent,
    _unit,
    code_matrix,
    hypercube,
    one_vs_rest_margin,
    orthoplex,
    polygon,
    simplex_etf,
    smallest_angle,
    softmax_code,
)
from dufm.hadamard import _canonical, _linear_group, _odd_parity, hadamard_polyhedron

# Largest cosine of the best spherical code known: Tammes' problem for d = 3, N. J. A. Sloane's and H. Cohn's tables.
LARGEST_COSINE = {
    (5, 3): 0.0,
    (6, 3): 0.0,
    (7, 3): 0.21013831273060308,
    (8, 3): 0.26120387496374144,
    (9, 3): 1 / 3,
    (12, 3): 1 / math.sqrt(5),
    (8, 4): 0.0,
    (10, 4): 1 / 6,
    (16, 5): 1 / 5,
    (27, 6): 1 / 4,
}
ANGLE = {(7, 3): 77.869542, (8, 3): 74.858492, (9, 3): 70.528779, (12, 3): 63.434949}


@pytest.fixture(scope="module")
def sixteen():
    return hadamard_polyhedron(4)


@pytest.mark.parametrize("depth", [2, 3, 7])
@pytest.mark.parametrize(
    "kind, make, sizes",
    [
        ("nc", simplex_etf, (2, 3, 8)),
        ("polygon", polygon, (3, 5, 8)),
        ("orthoplex", orthoplex, (4, 6, 10)),
        ("hypercube", hypercube, (4, 8, 32)),
    ],
)
def test_named_codes_reach_their_closed_forms(kind, make, sizes, depth):
    for num_classes in sizes:
        W = make(num_classes)
        Z = code_matrix(W)
        assert W.dtype == torch.float64 and torch.allclose(W.norm(dim=1), torch.ones(num_classes).double())
        assert normalized_margin(Z, depth).item() == pytest.approx(
            closed_form_margin(kind, num_classes, depth), rel=1e-12
        )


def test_code_matrix_is_a_kkt_point_for_tight_transitive_codes():
    for W in (simplex_etf(5), polygon(7), orthoplex(6), hypercube(8), softmax_code(12, 3).vectors):
        assert kkt_certificate(code_matrix(W), 4, W.shape[1]).residual < 1e-8
    assert code_matrix(torch.stack([polygon(6), -polygon(6)])).shape == (2, 6, 6)


@pytest.mark.parametrize("num_classes, dim", [(6, 2), (7, 3), (10, 4), (5, 6)])
def test_one_vs_rest_margin_against_cvxpy(num_classes, dim):
    W = torch.randn(2, num_classes, dim, generator=torch.Generator().manual_seed(dim), dtype=torch.float64)
    W[0] /= W[0].norm(dim=-1, keepdim=True)
    direct = []
    for rows in W.numpy():
        distances = []
        for k in range(num_classes):
            weights = cvxpy.Variable(num_classes - 1, nonneg=True)
            distance = cvxpy.norm(rows[k] - weights @ np.delete(rows, k, 0))
            problem = cvxpy.Problem(cvxpy.Minimize(distance), [cvxpy.sum(weights) == 1])
            distances.append(problem.solve(solver=cvxpy.CLARABEL))
        direct.append(min(distances))
    assert one_vs_rest_margin(W).numpy() == pytest.approx(np.array(direct), abs=1e-7)


def test_one_vs_rest_margin_of_known_codes():
    assert one_vs_rest_margin(simplex_etf(6)).item() == pytest.approx(6 / 5, abs=1e-14)
    assert one_vs_rest_margin(orthoplex(8)).item() == pytest.approx(1.0, abs=1e-14)
    assert one_vs_rest_margin(polygon(7)).item() == pytest.approx(1 - math.cos(2 * math.pi / 7), abs=1e-14)
    inside = torch.cat([orthoplex(4), torch.full((1, 2), 0.1, dtype=torch.float64)])
    assert one_vs_rest_margin(inside).item() < 1e-12


@pytest.mark.parametrize("num_classes, dim", sorted(LARGEST_COSINE))
def test_softmax_codes_are_the_published_arrangements(num_classes, dim):
    code = softmax_code(num_classes, dim)
    expected = math.degrees(math.acos(LARGEST_COSINE[num_classes, dim]))
    assert code.angle == pytest.approx(expected, abs=1e-6)
    assert math.cos(math.radians(code.angle)) == pytest.approx(LARGEST_COSINE[num_classes, dim], abs=1e-8)
    assert code.residual < 1e-8 and code.agree > code.restarts / 2
    assert torch.allclose(code.vectors.norm(dim=1), torch.ones(num_classes).double(), atol=1e-14)
    if (num_classes, dim) in ANGLE:
        assert code.angle == pytest.approx(ANGLE[num_classes, dim], abs=1e-6)


def test_softmax_codes_of_known_value():
    assert softmax_code(4, 3, restarts=4).value == pytest.approx(4 / 3, abs=1e-9)
    assert softmax_code(4, 5, restarts=4).angle == pytest.approx(smallest_angle(simplex_etf(4)).item(), abs=1e-6)
    assert softmax_code(7, 2, restarts=4).value == pytest.approx(one_vs_rest_margin(polygon(7)).item(), abs=1e-9)
    for num_classes, dim in ((5, 3), (6, 3), (7, 4), (9, 5)):  # d + 2 ≤ K ≤ 2d
        assert softmax_code(num_classes, dim, restarts=4).value == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize(
    "num_classes, dim, least",
    [
        (13, 3, 1 - math.cos(0.99722359243811916)),  # Tammes' problem: Musin & Tarasov (2012), OEIS A217695
        (14, 3, 1 - math.cos(0.97163474288622407)),  # Musin & Tarasov (2015), OEIS A383860
        (24, 4, 0.5),  # the 24-cell
        (20, 6, 11 / 14),  # two cross-polytopes in parallel hyperplanes: Wang, arXiv:0805.0776
        # Seen in other searches, and not reached by climbs that all follow the smoothing from its start.
        (13, 5, 0.8127),
        (16, 4, 0.61237),
        (18, 6, 0.80218),
        (24, 5, 0.62576),
        (19, 6, 0.79977),
    ],
)
def test_softmax_code_is_not_left_at_a_lesser_optimum(num_classes, dim, least):
    code = softmax_code(num_classes, dim)
    assert code.value > least - 1e-9 and code.residual < 1e-8
    assert code.value == pytest.approx(1 - math.cos(math.radians(code.angle)), abs=1e-9)


@pytest.mark.parametrize("num_classes, dim", [(7, 3), (13, 3), (11, 4), (13, 5)])
def test_climbs_with_free_directions_find_no_better_code(num_classes, dim):
    # The search keeps h = w; here h starts anywhere.
    X = random_codes(128, num_classes, dim, 0).view(64, 2, num_classes, dim)
    begin = torch.linspace(0.0, 0.4, 64, dtype=X.dtype)
    W = climb(X, _unit, _tangent, steps=400, begin=begin)[:, 0]
    assert one_vs_rest_margin(W).max().item() < softmax_code(num_classes, dim).value + 1e-9


def test_softmax_code_value_is_that_of_the_max_min_form():
    W = softmax_code(9, 3).vectors.numpy()
    # The inner problem given w: max t under ⟨w_k − w_j, h⟩ ≥ t, ‖h‖ ≤ 1, class by class.
    values = []
    for k in range(9):
        h, t = cvxpy.Variable(3), cvxpy.Variable()
        problem = cvxpy.Problem(cvxpy.Maximize(t), [(W[k] - np.delete(W, k, 0)) @ h >= t, cvxpy.norm(h) <= 1])
        values.append(problem.solve(solver=cvxpy.CLARABEL))
    assert min(values) == pytest.approx(softmax_code(9, 3).value, abs=1e-7)


def test_softmax_code_is_repeatable():
    one, two = (softmax_code(7, 3, restarts=8, seed=5) for _ in range(2))
    assert torch.equal(one.vectors, two.vectors) and one.value == two.value


# ---------------------------------------------------------------- Hadamard polyhedron


def test_eight_classes_have_four_kinds_of_vertex():
    found = {
        tuple(sorted((int(s) for s in v.spectrum if s), reverse=True)): (v.orbit_size, v.code)
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
        n, k, d = vertex.code
        assert Counter(vertex.weights) == Counter([int(margin * d) for margin in margins]) + Counter([0])
        assert n == sum(vertex.multiplicities) and k == 4


def test_vertex_margins_against_their_matrices(sixteen):
    characters = scipy.linalg.hadamard(16)[1:]
    for vertex in sixteen.orbits:
        Z = torch.from_numpy((characters.T * np.array(vertex.spectrum, dtype=float)) @ characters / 16)
        assert normalized_margin(Z, 5).item() == pytest.approx(vertex.margin(5), rel=1e-12)


def test_named_codes_among_the_vertices(sixteen):
    by_code = {(v.code, v.rank): v for v in sixteen.orbits}
    for depth in (2, 3, 8):
        assert by_code[(15, 4, 8), 15].margin(depth) == pytest.approx(closed_form_margin("nc", 16, depth))
        assert by_code[(8, 4, 4), 8].margin(depth) == pytest.approx(closed_form_margin("orthoplex", 16, depth))
        assert by_code[(4, 4, 1), 4].margin(depth) == pytest.approx(closed_form_margin("hypercube", 16, depth))


def test_depth_ranges(sixteen):
    eight = hadamard_polyhedron(3)
    won = {eight.orbits[i].code: depths for i, depths in eight.best_depths(12).items()}
    assert won == {(7, 3, 4): (2,), (4, 3, 2): (3, 4), (3, 3, 1): tuple(range(5, 13))}
    won = {sixteen.orbits[i].code: depths for i, depths in sixteen.best_depths(12).items()}
    assert won == {(15, 4, 8): (2,), (5, 4, 2): (3, 4, 5, 6), (4, 4, 1): tuple(range(7, 13))}


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: simplex_etf(1), "num_classes"),
        (lambda: polygon(2), "three vertices"),
        (lambda: orthoplex(7), "even for the orthoplex, got 7"),
        (lambda: orthoplex(2), "num_classes"),
        (lambda: hypercube(12), "power of two for the hypercube, got 12"),
        (lambda: hypercube(2), "num_classes"),
        (lambda: hypercube(8.0), "num_classes must be an integer"),
        (lambda: softmax_code(5, 1), "dim must be an integer >= 2, got 1"),
        (lambda: softmax_code(1, 3), "num_classes"),
        (lambda: softmax_code(5, 3, restarts=0), "restarts"),
        (lambda: softmax_code(5, 3, seed=-1), "seed"),
        (lambda: hadamard_polyhedron(5), "m must be an integer from 2 to 4, got 5"),
        (lambda: hadamard_polyhedron(1), "m must be"),
        (lambda: hadamard_polyhedron(3).best(1), "depth"),
        (lambda: one_vs_rest_margin(np.eye(3)), "W must be a floating torch tensor"),
        (lambda: one_vs_rest_margin(torch.full((3, 2), torch.nan)), "W must have shape"),
        (lambda: code_matrix(torch.ones(3, 2)), "positive margins"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(DufmError, match=words):
        call()


def test_distances_are_right_where_plain_nnls_stops_early():
    code = softmax_code(6, 3, restarts=16, seed=1)
    assert abs(one_vs_rest_margin(code.vectors).item() - 1.0) < 1e-9


def test_distances_are_right_where_plain_nnls_misses_complementarity():
    # SciPy's own solution for one of these has slopes of the right sign, and a weight where the slope is not 0.
    distance, direction = _separators(softmax_code(12, 6).vectors.numpy())
    assert np.abs(distance - 1.0).max() < 1e-9
    assert np.abs(np.linalg.norm(direction, axis=1) - 1.0).max() < 1e-9
