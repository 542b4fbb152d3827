"""Codes against closed forms, published arrangements and cvxpy."""

import math

import cvxpy
import numpy as np
import pytest
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
