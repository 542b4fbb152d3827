"""One ReLU between the factors: field against autograd, certificate against the linear one, prices against search."""

import math

import numpy as np
import pytest
import scipy.optimize
import sympy
import torch

import dufm
from dufm import DufmError, codes, rectified, sweep

DTYPE = torch.float64
QUICK = ((50.0, 30.0), (200.0, 1.0))


def draw(depth, width, num_classes, seed, batch=1):
    return dufm.gaussian_init(depth, width, num_classes, seed=seed, batch=batch)


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_field_is_the_slope_of_the_log_loss(place):
    factors = [W.requires_grad_() for W in draw(4, 5, 3, 1, batch=2)]
    M, A, B = rectified.layers(factors, place)
    assert torch.equal(A, torch.relu(M) if place else M)
    loss = torch.nn.functional.cross_entropy((B @ A).mT.flatten(0, 1), torch.arange(3).repeat(2), reduction="none")
    loss.reshape(2, 3).sum(1).log().sum().backward()
    model = rectified._Rectified(factors, place)
    flat = model.flatten([W.detach() for W in factors])
    slope = torch.empty_like(flat)
    model.field(flat, slope)
    assert torch.allclose(slope, -model.flatten([W.grad for W in factors]), atol=1e-12)


@pytest.mark.parametrize("place", [1, 2, 4])
def test_the_cheapest_factors_cost_what_the_formula_says(place):
    torch.manual_seed(0)
    M, B = torch.randn(2, 4, 4, dtype=DTYPE)
    factors = rectified.network(M, B, place, 5)
    below, _, above = rectified.layers(factors, place)
    assert torch.allclose(above @ below.clamp(min=0), B @ M.clamp(min=0))
    cost = sum(float(W.square().sum()) for W in factors)
    norms = float(dufm.schatten(M, 2 / place) * dufm.schatten(B, 2 / (5 - place)))
    assert cost == pytest.approx(5 * norms ** (2 / 5))
    least = dufm.metrics.margins(B @ M.clamp(min=0)).amin()
    assert float(rectified.place_margin(M, B, place, 5)) == pytest.approx(float(least) / norms)


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_without_a_relu_the_residual_is_that_of_the_certificate(depth):
    for Z, critical in ((codes.pairs_and_singles(6, 3), True), (codes.pairs_and_singles(6, 1), False)):
        found = rectified.residual(dufm.balanced_init(Z, depth), 0)
        assert (found < 1e-10) == critical == bool(dufm.kkt_residual(Z, depth) < 1e-10)
        assert critical or found > 0.05


def test_frames_are_critical_only_with_collapse_above_at_the_last_place():
    M = rectified.sums_of_simplices(6, 3)
    assert torch.equal(M.clamp(min=0), torch.eye(6, dtype=DTYPE))
    critical, other = (rectified.network(M, codes.pairs_and_singles(6, t), 3, 4) for t in (0, 3))
    assert rectified.residual(critical, 3) < 1e-12 and rectified.residual(other, 3) > 0.1


def least_price(Z, depth, seed):
    """Least ‖A‖_F‖B‖_(L−1) over A ≥ 0 and B with BA = Z, over ‖Z‖_(L), by a search that knows no proof."""
    K = len(Z)
    rng = np.random.default_rng(seed)

    def price(entries):
        A = entries.reshape(2 * K, K) ** 2
        sigma = np.linalg.svd(Z.numpy() @ np.linalg.pinv(A), compute_uv=False)
        norm = (sigma[sigma > 1e-9] ** (2 / (depth - 1))).sum() ** ((depth - 1) / 2)
        return math.log(np.linalg.norm(A) * norm)

    best = min(
        scipy.optimize.minimize(price, rng.random(2 * K * K), method="BFGS", options={"maxiter": 150}).fun
        for _ in range(3)
    )
    return math.exp(best) / float(dufm.schatten(Z, 2 / depth))


@pytest.mark.parametrize("depth", [2, 3])
def test_no_search_finds_collapse_cheaper_at_the_first_place(depth):
    found = least_price(codes.pairs_and_singles(3, 0), depth, 0)
    assert math.sqrt(3 / 2) - 1e-6 < found < 1.02 * math.sqrt(3 / 2)


def test_pairs_pay_the_root_of_two_at_the_first_place():
    Z = codes.pairs_and_singles(6, 3)
    A, B = torch.cat([Z, -Z]).clamp(min=0), torch.cat([Z, -Z], 1)
    ratio = rectified.place_margin(A, B, 1, 4) / dufm.normalized_margin(B @ A, 4)
    assert float(ratio) == pytest.approx(1 / math.sqrt(2))
    assert rectified.residual(rectified.network(A, B, 1, 4), 1) < 1e-12


def test_exponents_in_symbols():
    more, L, place, x = sympy.symbols("m L l x", positive=True)
    K = more + 1
    linear = (2 - 2 / K) ** (L / 2) / 2
    first = linear * sympy.sqrt(K / (2 * K - 2))
    assert sympy.simplify(first / ((2 - 2 / K) ** ((L - 1) / 2) / 2)) == 1
    price = x**-1 * (K * x) ** (place / 2)  # Schatten 2/l of K x values 1/x each
    assert sympy.simplify((K * x * (1 / x) ** (2 / place)) ** (place / 2) / price) == 1
    assert sympy.simplify(x * sympy.diff(price, x) / price - (place / 2 - 1)) == 0
    over = (K - 1) ** (place / 2) / price.subs(x, sympy.Rational(1, 2))
    assert sympy.simplify(over / ((2 - 2 / K) ** (place / 2) / 2)) == 1


def test_descent_without_a_relu_ends_where_the_flow_does():
    factors = draw(3, 6, 4, 3, batch=6)
    found, turning = rectified.descend(factors, 0, stages=QUICK)
    end = dufm.end(factors, 3)
    Z = dufm.metrics.centred(dufm.product(found))
    assert (turning < 5e-3).all() and torch.equal(
        (torch.linalg.svdvals(Z) > 0.03 * torch.linalg.svdvals(Z)[:, :1]).sum(-1), end.rank
    )


def test_classes_without_a_live_unit_are_undecided():
    factors = draw(3, 4, 3, 0, batch=2)
    factors[0][1] = -factors[0][1].abs()
    _, turning = rectified.descend(factors, 1, stages=QUICK, max_steps=1500)
    assert torch.isinf(turning[1])


def test_cells_are_counted():
    grid = [{"num_classes": 3, "depth": 3, "width": 12, "place": 2, "scale": 1.0}]
    runs = sweep.run(rectified.ends, grid, seeds=range(2))
    row = rectified.by_place(runs).iloc[0]
    assert row.networks == 2 and row.full + row.undecided == 2 and row.frame <= row.collapsed <= row.full
    assert (runs.residual[runs["rank"] > 0] < 0.05).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: rectified.layers(draw(3, 4, 3, 0), 3),
        lambda: rectified.sums_of_simplices(6, 4),
        lambda: rectified.place_margin(torch.eye(3), torch.eye(3), 0, 3),
        lambda: rectified.descend(draw(3, 4, 3, 0), 1, stages=((0.0, 1.0),)),
    ],
)
def test_refusals(call):
    with pytest.raises(dufm.DufmError):
        call()


def test_margins_in_single_precision_are_those_in_double():
    C = torch.eye(4).double() - 0.25
    single, double = (rectified.place_margin(M, M, 10, 20) for M in (C.float(), C))
    assert float(single) == pytest.approx(float(double), rel=1e-4)


@pytest.mark.parametrize("stages", [5, None, [], [(1.0,)]])
def test_stages_that_are_no_pairs_are_refused(stages):
    with pytest.raises(DufmError, match="stages"):
        rectified.descend(draw(3, 4, 3, 0), 1, stages=stages)
