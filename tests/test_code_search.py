"""The search for softmax codes against published arrangements, proved values and free directions."""

import math

import cvxpy
import numpy as np
import pytest
import torch

from dufm import DufmError, code_search
from dufm._climb import climb, random_codes
from dufm.code_search import _tangent, _unit, softmax_code, unit_norm_margins
from dufm.codes import LITERATURE, one_vs_rest_margin, polygon, simplex_etf, smallest_angle


@pytest.mark.parametrize("num_classes, dim", sorted(LITERATURE))
def test_softmax_codes_are_the_published_arrangements(num_classes, dim):
    code = softmax_code(num_classes, dim)
    cosine, _ = LITERATURE[num_classes, dim]
    assert code.angle == pytest.approx(math.degrees(math.acos(cosine)), abs=1e-6)
    assert math.cos(math.radians(code.angle)) == pytest.approx(cosine, abs=1e-8)
    assert code.residual < 1e-8 and code.agree > code.restarts / 2
    assert torch.allclose(code.vectors.norm(dim=1), torch.ones(num_classes).double(), atol=1e-14)


def test_softmax_codes_of_known_value():
    assert softmax_code(4, 3, restarts=4).margin == pytest.approx(4 / 3, abs=1e-9)
    assert softmax_code(4, 5, restarts=4).angle == pytest.approx(smallest_angle(simplex_etf(4)).item(), abs=1e-6)
    assert softmax_code(7, 2, restarts=4).margin == pytest.approx(one_vs_rest_margin(polygon(7)).item(), abs=1e-9)
    for num_classes, dim in ((5, 3), (6, 3), (7, 4), (9, 5)):  # d + 2 ≤ K ≤ 2d
        assert softmax_code(num_classes, dim, restarts=4).margin == pytest.approx(1.0, abs=1e-9)


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
    assert code.margin > least - 1e-9 and code.residual < 1e-8
    assert code.margin == pytest.approx(1 - math.cos(math.radians(code.angle)), abs=1e-9)


@pytest.mark.parametrize("num_classes, dim", [(7, 3), (13, 3), (11, 4), (13, 5)])
def test_climbs_with_free_directions_find_no_better_code(num_classes, dim):
    # The search keeps h = w; here h starts anywhere.
    X = random_codes(128, num_classes, dim, 0).view(64, 2, num_classes, dim)
    begin = torch.linspace(0.0, 0.4, 64, dtype=X.dtype)
    W = climb(X, _unit, _tangent, steps=400, begin=begin)[:, 0]
    assert one_vs_rest_margin(W).max().item() < softmax_code(num_classes, dim).margin + 1e-9


def test_softmax_code_value_is_that_of_the_max_min_form():
    W = softmax_code(9, 3).vectors.numpy()
    # The inner problem given w: max t under ⟨w_k − w_j, h⟩ ≥ t, ‖h‖ ≤ 1, class by class.
    values = []
    for k in range(9):
        h, t = cvxpy.Variable(3), cvxpy.Variable()
        problem = cvxpy.Problem(cvxpy.Maximize(t), [(W[k] - np.delete(W, k, 0)) @ h >= t, cvxpy.norm(h) <= 1])
        values.append(problem.solve(solver=cvxpy.CLARABEL))
    assert min(values) == pytest.approx(softmax_code(9, 3).margin, abs=1e-7)


def test_a_polish_that_stops_short_goes_on(monkeypatch):
    """As that of SciPy 1.15 does for all climbs at 19 classes in 6 dimensions."""
    steps, whole = [], code_search._slsqp
    monkeypatch.setattr(code_search, "_slsqp", lambda W: whole(W) if steps else steps.append(W) or W)
    code = softmax_code(7, 3, restarts=1)
    assert len(steps) == 1 and code_search._code_residual(steps[0]) > 1e-6 and code.residual < 1e-8


def test_softmax_code_is_repeatable():
    one, two = (softmax_code(7, 3, restarts=8, seed=5) for _ in range(2))
    assert torch.equal(one.vectors, two.vectors) and one.margin == two.margin


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: softmax_code(5, 1), "dim must be an integer >= 2, got 1"),
        (lambda: softmax_code(1, 3), "num_classes"),
        (lambda: softmax_code(5, 3, restarts=0), "restarts"),
        (lambda: softmax_code(5, 3, seed=-1), "seed"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(DufmError, match=words):
        call()


def test_unit_norm_networks_arrive_at_the_code():
    for num_classes, dim in ((6, 5), (5, 2), (8, 3)):  # simplex, polygon, antiprism
        found = unit_norm_margins(num_classes, dim, networks=8)
        assert (found / softmax_code(num_classes, dim, restarts=16).margin - 1).abs().max() < 1e-3
    # Below the code's where it gets stuck, never above it: ten in three dimensions have a second optimum.
    ten = unit_norm_margins(10, 3, networks=32, seed=1) / softmax_code(10, 3, restarts=64).margin
    assert ten.max() < 1 + 1e-9 and ten.min() < 1 - 1e-3
