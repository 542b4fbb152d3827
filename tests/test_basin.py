"""Critical starts by search against integration back and closed laws; where starts end against what must be."""

import math

import numpy as np
import pytest
import sympy
import torch

from dufm import DufmError, basin, late_separatrix, perturbation
from dufm.shares import boundary_labels
from dufm.spectral import spectral_flow

FOUR = [False, False, True]


# ---------------------------------------------------------------- critical starts


@pytest.mark.parametrize("depth", [3, 6])
def test_critical_label_is_that_of_the_boundary_integrated_back(depth):
    scales = [1e-2, 1e-4]
    found = basin.critical_labels(FOUR, depth, scales)
    for scale, label in zip(scales, found.tolist(), strict=True):
        mean = scale * (1 - basin.critical_deviation(label, scale, depth) / 3)
        assert abs(float(boundary_labels(depth, mean)[1][0]) - label) < 2e-5


def test_critical_deviation_has_its_label():
    for depth, scale in ((3, 1e-3), (10, 0.5)):
        q = 1 - 2 / depth
        delta = basin.critical_deviation(0.7, scale, depth)
        assert math.isclose((scale * (1 - delta)) ** -q - scale**-q, 0.7, rel_tol=1e-9)


@pytest.mark.parametrize(
    ("lags", "scales", "message"),
    [
        ([False] * 3, [0.1], "lags must name some of the characters"),
        ([True] * 3, [0.1], "lags must name some of the characters"),
        (FOUR, [0.1, -1.0], r"scales\[1\] must be a finite positive number, got -1.0"),
        ([True, False, False, True], [0.1], "power of two"),
    ],
)
def test_bad_critical_starts_are_refused(lags, scales, message):
    with pytest.raises(DufmError, match=message):
        basin.critical_labels(lags, 3, scales)


def test_a_lag_that_is_never_lost_has_no_critical_label():
    # Two equal laggards behind one leader: collapse wins whatever the label.
    for lags in ([False, True, True], [0, 1, 1], torch.tensor([0, 1, 1])):
        with pytest.raises(DufmError, match="no critical value up to 2"):
            basin.critical_labels(lags, 4, [1e-2], rounds=1)


def test_more_than_one_change_is_refused():
    with pytest.raises(DufmError, match="not the only one"):
        basin.only_change(lambda x: (x < 0.3) | (x > 0.8), torch.zeros(1), torch.ones(1), 1)
    found = basin.only_change(lambda x: x < torch.tensor([[0.3], [0.7]]), torch.zeros(2), torch.ones(2), 3)
    assert ((found - torch.tensor([0.3, 0.7])).abs() < 24**-3).all()


def test_critical_ratio_tends_to_the_separatrix():
    for depth in (3, 6):
        miss = (basin.critical_ratio(depth, [2.0, 5.0, 10.0, 80.0]) / late_separatrix(depth) - 1).abs()
        assert (miss.diff() < 0).all() and miss[0] > 0.2 and miss[-1] < 3e-5


def test_late_ratio_is_that_of_the_flow():
    for depth in (3, 10):
        start = torch.tensor([0.3, 0.9, 1.02, 1.5]) * late_separatrix(depth)
        s0 = torch.stack([torch.ones(4), torch.ones(4), start], -1).double() * 200
        run = spectral_flow(s0, depth, "hadamard", rtol=1e-8, until_log_loss=-500.0)
        law = basin.late_ratio(start, run.s[:, 0] / 200, depth)
        assert torch.allclose(run.s[:, 2] / run.s[:, 0], law, rtol=1e-4)
    assert basin.late_ratio(torch.tensor(0.9), 1e6, 3) == 1


@pytest.mark.parametrize("size", [0.5, 4.0, 30.0])
def test_the_bracket_of_the_separatrix_is_exact(size):
    """g_3/g_1 = 2/(1 + e^{−(s_1 − s_3)/2}) at every size, and what starts below the law falls."""
    s = size * torch.tensor([1.0, 1.0, 0.3], dtype=torch.float64)
    g = perturbation.forces(s, "hadamard")
    assert abs(float(g[2] / g[0]) - 2 / (1 + math.exp(-0.35 * size))) < 1e-12
    below = size * torch.tensor([1.0, 1.0, 0.99 * late_separatrix(4)], dtype=torch.float64)
    levels = [-size - drop for drop in (1.0, 9.0, 40.0)]
    run = spectral_flow(below, 4, "hadamard", rtol=1e-8, until_log_loss=levels[-1], record={"log_loss": levels})
    ratio = run.history.s[:, 2] / run.history.s[:, 0]
    assert (ratio.diff() < 0).all()


# ---------------------------------------------------------------- where starts end


def test_cells_are_equal_and_fill_the_triangle():
    cells = basin.triangle_cells(7)
    area = np.abs(np.linalg.det(cells[:, 1:, :2] - cells[:, :1, :2]))
    assert len(cells) == 49 and np.allclose(area, 1 / 49) and np.allclose(cells.sum(-1), 1)
    assert len(np.unique(cells.mean(1).round(9), axis=0)) == 49


def test_map_starts_lie_in_their_cells():
    starts, cells = basin.map_starts(5, 3, 1), basin.triangle_cells(5)
    assert starts.shape == (3, 25, 3) and torch.allclose(starts.mean(-1), torch.ones(3, 25, dtype=torch.float64))
    inside = np.linalg.solve(cells.transpose(0, 2, 1), starts.numpy()[..., None] / 3)
    assert (inside > -1e-9).all()
    assert torch.equal(starts, basin.map_starts(5, 3, 1)) and not torch.equal(starts, basin.map_starts(5, 3, 2))


def test_ends_of_four_follow_the_order_of_the_values():
    starts = 0.1 * torch.tensor([[0.1, 1.5, 1.4], [1.5, 0.1, 1.4], [1.4, 1.5, 0.1], [1.0, 1.0, 1.0]]).double()
    assert basin.ends_of_four(starts, 4).tolist() == [1, 2, 3, 0]
    assert basin.ends_of_four(starts, 2).tolist() == [0, 0, 0, 0]


def test_distance_from_the_end_falls_with_the_loss():
    starts = 0.1 * torch.tensor([[0.1, 1.5, 1.4], [1.2, 1.0, 0.8]]).double()
    (early, ends), (late, same) = (basin.distance_from_end(starts, 3, loss) for loss in (-50.0, -800.0))
    assert (late < early).all() and (late > 0).all() and ends.tolist() == same.tolist()
    assert ends.tolist() == basin.ends_of_four(starts, 3).tolist()


def test_greedy_basis_skips_what_is_spanned():
    # In the order 1, 2, 3 = 1 XOR 2, 5, ...
    assert basin.greedy_basis(torch.tensor([7.0, 6.0, 5.0, 1.0, 4.0, 2.0, 3.0])) == [1, 2, 5]
    assert basin.greedy_basis(torch.tensor([1.0, 2.0, 3.0])) == [2, 3]


@pytest.mark.parametrize("call", [basin.greedy_basis, lambda s: basin.least_lag(s, 4)])
def test_characters_are_those_of_a_power_of_two(call):
    with pytest.raises(DufmError, match="s must have K − 1 values, K a power of two, got 5"):
        call(torch.arange(1.0, 6.0))


def test_code_counts_are_shares_of_what_was_drawn():
    found = basin.code_counts([0, 1], 8, 3, 0.1, 60)
    assert list(found) == [*basin.CODES, "greedy cube", "sure", "sure and greedy"]
    assert all(sum(found[name][seed] for name in basin.CODES) == 60 for seed in (0, 1))
    assert found["Reed–Muller"][0] > found["cube"][0] > 0
    assert found != basin.code_counts([2, 3], 8, 3, 0.1, 60)
    deep = basin.code_counts([0], 8, 10, 1e-3, 40)
    assert deep["cube"][0] >= 38 and deep["greedy cube"] == deep["cube"]
    assert 10 < deep["sure"][0] == deep["sure and greedy"][0] < 40
    assert basin.code_counts([0], 8, 2, 0.1, 20)["collapse"] == [20]


def test_least_lag_looks_only_outside_the_span():
    y = torch.tensor([1.0, 1.5, 1.6, 4.0, 4.2, 4.3, 4.7], dtype=torch.float64)
    # 1 leads 2 by 0.5; 2 its product 3 by 0.1; 4, outside the span {1, 2, 3}, leads 5 by 0.2.
    assert math.isclose(basin.least_lag(y**-3, 3), 0.1, rel_tol=1e-9)
    y[2] = 9.0
    assert math.isclose(basin.least_lag(y**-3, 3), 0.2, rel_tol=1e-9)


# ---------------------------------------------------------------- steps of the proofs in 56, 57 and 59


@pytest.mark.parametrize("K", [4, 8, 16])
def test_products_never_gain_on_the_sum_of_their_factors(K):
    """y_j − Σ y_b, j the product of the b, along the flow; its rate for two is (L − 2) E[(1 − χ)(1 − χ')]."""
    depth, q = 4, 0.5
    s0 = 0.3 * torch.from_numpy(np.random.default_rng(K).dirichlet(np.ones(K - 1), 20) * (K - 1)).clip(1e-3)
    losses = np.linspace(math.log(K), -60, 40).tolist()
    history = spectral_flow(s0, depth, "hadamard", rtol=1e-9, record={"log_loss": losses}, until_log_loss=-60.0).history
    y = history.s**-q
    y = y[~y.isnan().any(-1).any(-1)]
    for factors in ([1, 2], [1, 2, 4] if K > 4 else [1, 3]):
        product = 0
        for b in factors:
            product ^= b
        ahead = y[..., product - 1] - sum(y[..., b - 1] for b in factors)
        assert len(ahead) > 20 and (ahead.diff(dim=0) > -1e-9).all() and (ahead[-1] > ahead[0]).all()


@pytest.mark.parametrize("K", [4, 8, 16])
def test_forces_of_two_sizes(K):
    """Leaders (or laggards) that are a subgroup less 0: the ratio of the forces in 57, against the softmax itself."""
    bits = K.bit_length() - 1
    z, y = 3.7, 2.2
    for k in range(1, bits):
        inside = torch.arange(1, K) < 2**k
        share, least = 2**k / K, 2.0**-k
        g = perturbation.forces(torch.where(inside, z, y).double(), "hadamard")
        expected = 1 / (1 - least + least * math.exp(share * (z - y)))
        assert torch.allclose(g[0] / g[~inside], torch.tensor(expected, dtype=g.dtype), rtol=1e-12)
        g = perturbation.forces(torch.where(inside, y, z).double(), "hadamard")
        expected = 1 / (1 - least + least * math.exp(-share * (z - y)))
        assert torch.allclose(g[0] / g[~inside], torch.tensor(expected, dtype=g.dtype), rtol=1e-12)


def test_leaders_of_a_subgroup_fall_back_above_the_turning_point():
    """(1 + v/y)^q < 1 − ν + ν e^{θv}, νθ = 1/K, for all v > 0 once y ≥ Kq, and no sooner."""
    v = np.geomspace(1e-4, 50, 400)
    for K, k, depth in ((4, 1, 3), (8, 2, 6), (16, 1, 20)):
        q, share, least = 1 - 2 / depth, 2**k / K, 2.0**-k
        right = 1 - least + least * np.exp(share * v)
        assert ((1 + v / (K * q)) ** q < right).all()
        assert not ((1 + v / (0.9 * K * q)) ** q < right).all()


def test_local_label_is_that_of_the_flow():
    """A trajectory of known label at 1e-4 is followed to 0.03 and 0.1, at K = 4 and 8."""
    for K, lags, depth in ((4, FOUR, 3), (8, [True] * 3 + [False] * 4, 10)):
        q = 1 - 2 / depth
        s0 = torch.full((K - 1,), 1e-4, dtype=torch.float64)
        s0[torch.tensor(lags)] = (1e4**q + 0.4) ** (-1 / q)
        losses = torch.linspace(math.log(K * math.log(K)) - 1e-3, -1.0, 300).tolist()
        run = spectral_flow(s0, depth, "hadamard", rtol=1e-11, record={"log_loss": losses}, until_log_loss=-1.0)
        s = run.history.s[(run.history.s.amax(-1) < 0.2)]
        label = s.amin(-1) ** -q - s.amax(-1) ** -q
        for leader, found in zip(s.amax(-1).tolist()[:3], label.tolist(), strict=False):
            lost = 0.4 - basin.local_label(0.4, leader, depth, K)
            assert abs(0.4 - found - lost) < 3 * leader * lost + 1e-5


def test_first_orders_of_the_forces_and_the_late_ratio_in_symbols():
    """Notebooks 57 and 55: the label's rate (s_1 − s_3)/K, and g_3/g_1 = 2/(1 + e^−D) at s_1 = s_2, K = 4."""
    s1, s2, s3, size = sympy.symbols("s1 s2 s3 size", positive=True)
    w12, w13, w23 = (sympy.exp(-size * (a + b) / 2) for a, b in ((s1, s2), (s1, s3), (s2, s3)))
    total = 1 + w12 + w13 + w23
    g1, g3 = 2 * (w12 + w13) / total, 2 * (w13 + w23) / total
    assert sympy.simplify(g1.subs(size, 0) - 1) == 0
    first = sympy.diff(g3 - g1, size).subs(size, 0)
    assert sympy.simplify(first - (s1 - s3) / 4) == 0
    late = (g3 / g1).subs(s2, s1).subs(size, 1)
    assert sympy.simplify(late - 2 / (1 + sympy.exp(-(s1 - s3) / 2))) == 0


def test_labels_so_far_ahead_that_they_have_no_values_are_refused():
    assert basin.critical_deviation(-0.5, 1.0, 5) < 0
    for call in (lambda: basin.critical_deviation(-5.0, 1.0, 5), lambda: basin.local_label(-5.0, 1.0, 5, 4)):
        with pytest.raises(DufmError, match="label must be above -1 "):
            call()


@pytest.mark.parametrize("lags", [None, "abc", {}, torch.ones(2, 3) > 0, [[True], [True, False]]])
def test_lags_that_are_no_flags_are_refused(lags):
    with pytest.raises(DufmError, match="lags"):
        basin.critical_labels(lags, 3, [0.1])
