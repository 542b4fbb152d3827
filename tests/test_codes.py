"""Codes against closed forms, published arrangements and cvxpy."""

import math

import cvxpy
import numpy as np
import pytest
import scipy.optimize
import torch

from dufm import DufmError, closed_form_margin, kkt_certificate, margins, normalized_margin, softmax_code
from dufm._nnls import nonnegative_least_squares
from dufm.codes import (
    LITERATURE,
    antiprism,
    clebsch,
    code_logits,
    code_matrix,
    hypercube,
    icosahedron,
    name_of,
    named,
    one_vs_rest_margin,
    orthoplex,
    pairs_and_singles,
    petersen,
    polygon,
    principal_points,
    separators,
    simplex_etf,
    smallest_angle,
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


def test_separators_reach_the_distances_from_below_and_above():
    W = torch.randn(3, 9, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    W = W / W.norm(dim=-1, keepdim=True)
    H, distance = separators(W)
    assert torch.allclose(H.norm(dim=-1), torch.ones(3, 9).double(), atol=1e-12)
    # A unit h separates by at most the distance to the hull, and the separator does by all of it.
    reached = margins(W @ H.mT).amin(-2)
    assert torch.allclose(reached, distance, atol=1e-9)
    other = torch.randn(200, 3, 9, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    other = H + 0.1 * other
    assert (margins(W @ (other / other.norm(dim=-1, keepdim=True)).mT).amin(-2) <= distance + 1e-12).all()


def test_code_logits_are_centred_and_not_worse_than_the_gram_matrix():
    for W in (antiprism(), orthoplex(8)[:7], softmax_code(7, 3, restarts=16).vectors):
        Z = code_logits(W)
        assert Z.mean(-2).abs().max() < 1e-14 and margins(Z).amin().item() == pytest.approx(1.0, abs=1e-9)
        assert all(normalized_margin(Z, L) >= normalized_margin(code_matrix(W), L) * (1 - 1e-9) for L in (2, 3, 10))
    # One vertex of the octahedron missing: two pairs and a single class, whose matrix has a closed form.
    assert torch.allclose(code_logits(orthoplex(6)[:5]).svd().S, pairs_and_singles(5, 2).svd().S, atol=1e-12)


@pytest.mark.parametrize(
    "make, key, angle",
    [
        (antiprism, (8, 3), 74.858492),
        (petersen, (10, 4), None),
        (icosahedron, (12, 3), 63.434949),
        (clebsch, (16, 5), None),
    ],
)
def test_single_codes_are_the_literature(make, key, angle):
    W = make()
    cosine, _ = LITERATURE[key]
    assert W.shape == key and torch.allclose(W.norm(dim=1), torch.ones(len(W)).double(), atol=1e-14)
    gram = W @ W.mT - 2.0 * torch.eye(len(W))
    assert gram.max().item() == pytest.approx(cosine, abs=1e-14)
    assert angle is None or smallest_angle(W).item() == pytest.approx(angle, abs=1e-6)
    assert one_vs_rest_margin(W).item() == pytest.approx(1.0 - cosine, abs=1e-12)


def test_literature_solves_its_equations():
    x, y = LITERATURE[7, 3][0], LITERATURE[8, 3][0]
    assert abs(3 * x**3 - 9 * x**2 - 3 * x + 1) < 1e-15 and abs(7 * y**2 + 2 * y - 1) < 1e-15
    assert {key: cosine for key, (cosine, _) in LITERATURE.items()} == pytest.approx(LARGEST_COSINE, abs=1e-15)


def test_principal_points_of_turned_features():
    W = icosahedron()
    turn = torch.linalg.qr(torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    X = principal_points(3.0 * (turn @ W.mT), 3)
    assert torch.allclose(X @ X.mT, W @ W.mT, atol=1e-12)


def test_two_classes_have_one_code_of_margin_one():
    assert list(named(2)) == ["NC"] and margins(named(2)["NC"]).amin() == 1.0
    assert name_of(pairs_and_singles(2, 0)) == "NC"


# ---------------------------------------------------------------- bad input

# The least squares find a distance of 6e-17.
WITH_ONE_INSIDE = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0], [0.1, 0.05]])


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
        (lambda: one_vs_rest_margin(np.eye(3)), "W must be a torch tensor, got ndarray"),
        (lambda: one_vs_rest_margin(torch.full((3, 2), torch.nan)), "W must be finite"),
        (lambda: code_matrix(torch.ones(3, 2)), "positive margins"),
        (lambda: code_logits(torch.ones(3, 2)), "in the hull of the others"),
        (lambda: code_logits(WITH_ONE_INSIDE.double()), "in the hull of the others"),
        (lambda: code_logits(WITH_ONE_INSIDE), "in the hull of the others"),
        (lambda: pairs_and_singles(2, 1), "pairs must be an integer from 0 to 0, got 1: two classes"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(DufmError, match=words):
        call()


def test_distances_are_right_where_plain_nnls_stops_early():
    code = softmax_code(6, 3, restarts=16, seed=1)
    assert abs(one_vs_rest_margin(code.vectors).item() - 1.0) < 1e-9


def test_least_squares_without_a_column_do_not_end_the_process():
    x, left = nonnegative_least_squares(np.zeros((8, 0)), np.full(8, 2.0))
    assert x.shape == (0,) and left == pytest.approx(np.linalg.norm(np.full(8, 2.0)))


def test_least_squares_that_do_not_end_are_solved_another_way(monkeypatch):
    rng = np.random.default_rng(0)
    system, target = rng.standard_normal((9, 6)), rng.standard_normal(9)
    x, left = nonnegative_least_squares(system, target)

    def endless(*_, **__):
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr(scipy.optimize, "nnls", endless)
    again, same = nonnegative_least_squares(system, target)
    assert 0 < (x > 0).sum() < 6 and again == pytest.approx(x, abs=1e-9) and same == pytest.approx(left)


def test_distances_are_right_where_plain_nnls_misses_complementarity():
    # SciPy's own solution for one of these has slopes of the right sign, and a weight where the slope is not 0.
    H, distance = separators(softmax_code(12, 6).vectors)
    assert (distance - 1.0).abs().max() < 1e-9 and (H.norm(dim=1) - 1.0).abs().max() < 1e-9


@pytest.mark.parametrize(("shape", "rank", "words"), [((), 1, "features"), ((3,), 1, "features"), ((2, 5), 4, "rank")])
def test_principal_points_that_are_not_there_are_refused(shape, rank, words):
    with pytest.raises(DufmError, match=f"{words} must be"):
        principal_points(torch.ones(shape), rank)
