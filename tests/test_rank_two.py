"""Two singular values: the proofs' symbolic steps, the bound of the image triangle, and descents of the product."""

import math

import numpy as np
import pytest
import sympy
import torch
from tolerances import LINALG, close

from dufm import DufmError, codes, margins, rank_two

TOL = LINALG[torch.float64]


def test_trace_under_unit_determinant():
    # Q = [[a, b], [b, (1 + b²)/a]] has determinant 1; tr(QM)² − 4 det M is a sum of squares in x = tr(QM) − ….
    a, x, y, z = sympy.symbols("a x y z", positive=True)
    b = sympy.symbols("b", real=True)
    Q, M = sympy.Matrix([[a, b], [b, (1 + b**2) / a]]), sympy.Matrix([[x, y], [y, z]])
    assert sympy.simplify(Q.det()) == 1
    # Equality at Q = √det M · M⁻¹, where the gradient in (a, b) vanishes.
    trace, root = (Q * M).trace(), sympy.sqrt(x * z - y**2)
    best = {a: z / root, b: -y / root}
    assert sympy.simplify(trace.subs(best) - 2 * root) == 0
    assert all(sympy.simplify(trace.diff(v).subs(best)) == 0 for v in (a, b))


def test_weitzenboeck_is_a_square():
    u, v, s, t = sympy.symbols("u v s t", real=True)
    first, second = u + sympy.I * v, s + sympy.I * t
    size = lambda w: sympy.re(w) ** 2 + sympy.im(w) ** 2  # noqa: E731
    twice_area = u * t - v * s
    turned = sympy.Rational(1, 2) * (1 + sympy.I * sympy.sqrt(3)) * first
    sides = size(first) + size(second) + size(first - second)
    assert sympy.expand(sides - 2 * sympy.sqrt(3) * twice_area - 2 * size(sympy.expand(second - turned))) == 0


def test_obtuse_triangles_cost_more():
    beta, b, c = sympy.symbols("beta b c", positive=True)
    # a² = b² + c² − 2bc cos(π − β) and the bound at bc = √3/sin β, b = c.
    bound = sympy.Rational(2, 3) * b * c * (1 + sympy.cos(beta)) + 2 / (b * c)
    closed = 2 / sympy.sqrt(3) * (sympy.cot(beta / 2) + sympy.sin(beta))
    at_area = bound.subs(c, sympy.sqrt(3) / sympy.sin(beta) / b)
    assert sympy.simplify(sympy.expand_trig((at_area - closed).rewrite(sympy.tan).subs(beta, 2 * sympy.atan(c)))) == 0
    x = 2 * sympy.sin(beta / 2) ** 2
    assert sympy.simplify((closed.diff(beta) * sympy.sqrt(3) / 2 - (1 - x - 1 / x)).rewrite(sympy.exp)) == 0
    assert sympy.simplify(closed.subs(beta, sympy.pi / 2) - 4 / sympy.sqrt(3)) == 0


@pytest.mark.parametrize("num_classes", [3, 4, 5, 8])
def test_polygon_value(num_classes):
    sigma = torch.linalg.svdvals(codes.code_matrix(codes.polygon(num_classes)))[:2]
    close(sigma, torch.full((2,), rank_two.polygon_value(num_classes), dtype=torch.float64), TOL)


def test_image_bound_holds_for_random_logits():
    rng, slack = np.random.default_rng(0), []
    corners = math.sqrt(2 / 3) * codes.polygon(3).numpy()  # the projections e_c in an orthonormal basis of the plane
    for _ in range(2000):
        Y = rng.standard_normal((3, 2)) * rng.uniform(0, 1.5) ** 2 + corners
        Z = torch.from_numpy(corners @ Y.T)
        smallest = float(margins(Z).amin())
        if smallest <= 0:
            continue
        U, sigma, _ = np.linalg.svd(Y.T / smallest)
        angle = math.atan2(U[1, 0], U[0, 0])
        slack.append(sigma[0] * sigma[1] / rank_two.image_bound(sigma[0] / sigma[1], angle) - 1)
    assert len(slack) > 500 and min(slack) > -1e-12 and min(slack) < 0.1
    close(rank_two.image_bound(1.0, 0.3), 1.0, TOL)
    # A stretch along a side: an acute triangle by its heights, an obtuse one by distances from the obtuse corner.
    close(rank_two.image_bound(1.2, math.pi / 2), (2 * 1.2 + (0.5 * 1.2 + 1.5 / 1.2) * 2) / 6, TOL)
    obtuse = (2 * 9 / 3 + 2 / (0.5 * 9 + 1.5 / 9)) / 2
    close(rank_two.image_bound(9.0, math.pi / 2), obtuse, TOL)
    with pytest.raises(DufmError, match="ratio: the bound leaves the range"):
        rank_two.image_bound(5e-324, 0.0)


@pytest.mark.parametrize("num_classes", [3, 4, 6])
def test_descents_end_in_the_polygon(num_classes):
    found = rank_two.product_runs(num_classes, 12, seed=5)
    assert (found["start_product"] > found["product"]).all()
    assert (found["product"] - 1).abs().max() < 1e-8
    assert found["away"].max() < 1e-4


def test_a_descent_keeps_its_margins():
    W, Y = codes.polygon(5).numpy() + 0.1, 5 * codes.polygon(5).numpy()
    Z = torch.from_numpy(rank_two.least_product(W, Y))
    close(margins(Z).amin(), 1.0, TOL)
    close(Z.mean(0), torch.zeros(5), TOL)
    sigma = torch.linalg.svdvals(Z)
    close(sigma[0] * sigma[1], rank_two.polygon_value(5) ** 2, 1e-8)


@pytest.mark.parametrize("num_classes", [4, 5, 7, 10, 100])
def test_depth_of_rank_two_by_the_least_cost_over_the_third_value(num_classes):
    # max((1 − √2 ε)₊^p c, 2) + ε^p over ε > 0 stays above c = 2s^p beyond the depth, and falls below it before.
    s, depth = rank_two.polygon_value(num_classes), rank_two.rank_two_depth(num_classes)
    eps = np.geomspace(1e-6, 1, 400001)
    for factor, above in ((1.01, True), (0.99, False)):
        p = 2 / (factor * depth)
        c = 2 * s**p
        cost = np.maximum(np.clip(1 - math.sqrt(2) * eps, 0, None) ** p * c, 2) + eps**p
        assert (cost.min() > c) == above


def test_bad_arguments():
    for call in (rank_two.polygon_value, rank_two.rank_two_depth):
        with pytest.raises(DufmError, match="num_classes must"):
            call(2)
    with pytest.raises(DufmError, match="ratio must"):
        rank_two.image_bound(0.0, 0.1)
    with pytest.raises(DufmError, match="runs must"):
        rank_two.product_runs(4, 0)


def test_steps_of_the_bound_on_the_product():
    # (a∧b)(u∧v) = ⟨a,u⟩⟨b,v⟩ − ⟨a,v⟩⟨b,u⟩, and with both neighbours' margins 1 it is H + H' − 1.
    a, b, u, v = (sympy.Matrix(sympy.symbols(f"{name}:2")) for name in "abuv")
    wedge = lambda x, y: sympy.Matrix.hstack(x, y).det()  # noqa: E731
    assert sympy.expand(wedge(a, b) * wedge(u, v) - (a.dot(u) * b.dot(v) - a.dot(v) * b.dot(u))) == 0
    H, G = sympy.symbols("H G")
    assert sympy.expand(H * G - (G - 1) * (H - 1) - (H + G - 1)) == 0
    # Four classes: corners x + ap, x + cq, x − bp, x − dq of mean 0 on the axes p, q.
    a, b, c, d = sympy.symbols("a b c d", positive=True)
    corners = [sympy.Matrix(x) for x in ((a, 0), (0, c), (-b, 0), (0, -d))]
    middle = sum(corners, sympy.zeros(2, 1)) / 4
    product = 1
    for i in range(4):
        before, own, after = ((corners[(i + k) % 4] - middle) for k in (-1, 0, 1))
        beside, across = wedge(before, own) + wedge(own, after), wedge(before, after)
        product *= (beside + across) / (beside - across)
    assert sympy.simplify(product - ((a + b) * (c + d)) ** 2 / (16 * a * b * c * d)) == 0


def test_steps_of_the_depth_of_rank_two():
    u, p, eps, c = sympy.symbols("u p epsilon c", positive=True)
    slope = sympy.log(u**p - 1).diff(u) - p * sympy.log(u - 1).diff(u)
    assert sympy.simplify(slope - p * (1 - u ** (p - 1)) / ((u**p - 1) * (u - 1))) == 0
    cost = c * (1 - sympy.sqrt(2) * eps) ** p + eps**p
    second = p * (p - 1) * (2 * c * (1 - sympy.sqrt(2) * eps) ** (p - 2) + eps ** (p - 2))
    for depth in (2, 3, 5):
        assert sympy.simplify((cost.diff(eps, 2) - second).subs(p, sympy.Rational(2, depth))) == 0


@pytest.mark.parametrize("num_classes", [3, 5, 8])
def test_corners_by_the_diagonal_of_the_logits(num_classes):
    rng = np.random.default_rng(3)
    W = codes.polygon(num_classes).numpy() + 0.05 * rng.standard_normal((num_classes, 2))
    W -= W.mean(0)
    # y_c is fixed by the margin 1 against both neighbours; the gap is the mean of ½ log(2z_cc − 1), less its least.
    own = [np.linalg.solve(W[c] - W[[c - 1, (c + 1) % num_classes]], np.ones(2)) @ W[c] for c in range(num_classes)]
    expected = np.log(2 * np.array(own) - 1).mean() / 2 - math.log(1 / math.tan(math.pi / num_classes))
    close(rank_two.corner_gap(W), expected, TOL)
    close(rank_two.corner_gap(codes.polygon(num_classes).numpy() @ np.array([[2.0, 1.0], [0.0, 0.3]])), 0.0, TOL)
    assert math.isinf(rank_two.corner_gap(W[::-1])) and (num_classes == 3) == (expected < 1e-9)


def test_corner_descents_fall_to_the_regular_polygon():
    found = rank_two.corner_descents(5, 6, seed=2)
    assert (found["end"] < found["start"]).all() and found["end"].abs().max() < 1e-6


@pytest.mark.parametrize("ratio", [1e10, 1e14, 1e16, 1e300])
def test_image_bound_keeps_its_digits_at_any_ratio(ratio):
    # Along a height: the side across it costs r/2, both others together 1/(2r).
    close(rank_two.image_bound(ratio, 0.0) / ratio, 0.5, TOL)
    close(rank_two.image_bound(1 / ratio, math.pi / 2 + 0.1) / rank_two.image_bound(ratio, 0.1), 1.0, TOL)


def test_a_star_polygon_is_not_convex():
    assert math.isinf(rank_two.corner_gap(codes.polygon(5).numpy()[[0, 2, 4, 1, 3]]))
