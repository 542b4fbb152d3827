"""The basin at K = 4 by quadrature against counting, forward runs and its closed law; sampling against quadrature."""

import math

import numpy as np
import pandas
import pytest
import sympy
import torch
from scipy.stats import binomtest

from dufm import DufmError, shares, spectral_end
from dufm.shares import basin_boundary, boundary_labels, collapse_share, leading_share, sampled_share
from dufm.spectral import spectral_flow


def collapses(s, depth, rtol=1e-6, losses=(-60.0, -100.0)):
    """Whether the smallest value gains on the largest late on."""
    run = spectral_flow(s, depth, "hadamard", rtol=rtol, until_log_loss=losses[1], record={"log_loss": losses})
    early, late = run.history.s.amin(-1) / run.history.s.amax(-1)
    return (late > early) | (late > 0.999)


def leaders_size(lag, depth):
    """Λ of the module's law for a leader at ``lag`` in y."""
    q = 1 - 2 / depth
    size = 50.0
    for _ in range(60):
        size = 2 * math.log(lag) + 2 * (1 + q) * math.log(size) - 2 * math.log(q)
    return size


# ---------------------------------------------------------------- quadrature at K = 4


@pytest.mark.parametrize(("depth", "scale"), [(3, 0.1), (3, 0.01), (4, 0.1)])
def test_share_is_the_share_counted(depth, scale):
    draw = np.random.default_rng(depth).dirichlet(np.ones(3), 3000) * 3 * scale
    hits = int(collapses(torch.from_numpy(draw), depth).sum())
    interval = binomtest(hits, len(draw)).proportion_ci(0.999, method="wilson")
    assert interval.low < float(collapse_share(depth, scale).share) < interval.high


@pytest.mark.parametrize(("depth", "scale"), [(3, 1.0), (3, 0.01), (6, 0.01)])
def test_forward_runs_part_at_the_boundary(depth, scale):
    lead, lag = (side[::6] for side in basin_boundary(depth, scale))
    lead, lag = lead[(lead > 0.01) & (lead < 4)], lag[(lead > 0.01) & (lead < 4)]
    for factor in (0.999, 1.001):
        s = torch.exp(-torch.stack([0 * lead, lead, lead + factor * lag], -1))
        won = collapses(scale * s / s.mean(-1, keepdim=True), depth, rtol=1e-8)
        assert (won == (factor < 1)).all()


def test_boundary_is_fixed_in_the_labels_and_starts_at_the_critical_label():
    # The labels of (1, 1, 1 − δ) found by multi-section with spectral_flow, notebook 57.
    for depth, critical in ((3, 0.8396), (4, 0.7247), (6, 0.5986), (10, 0.5006)):
        for scale in (1e-6, 1e-18):
            assert abs(float(boundary_labels(depth, scale)[1][0]) - critical) < 1e-4


@pytest.mark.parametrize("depth", [3, 4, 6])
def test_strip_behind_a_leader_follows_the_leaders_size(depth):
    lead, width = (side.numpy() for side in boundary_labels(depth, 1e-24))
    q = 1 - 2 / depth
    far = np.array([1e4, 1e6, 1e8, 1e10])
    size = np.interp(np.log(far), np.log(lead), width ** (-1 / q))
    miss = np.abs(size / [leaders_size(lag, depth) for lag in far] - 1)
    assert (np.diff(miss) < 0).all() and miss[0] < 0.02 and miss[-1] < 0.005


@pytest.mark.parametrize(("depth", "known"), [(3, 7.13e-3), (4, 2.34e-4), (6, 8.25e-6)])
def test_share_and_exponents_of_an_independent_solver(depth, known):
    q = 1 - 2 / depth
    share = collapse_share(depth, torch.tensor([1e-4, 1e-6, 1e-12, 1e-18])).share
    assert abs(share[1] / known - 1) < 5e-3
    exponents = (share[::2] / share[1::2]).log() / torch.tensor([1e2, 1e6]).log() / q
    assert abs(exponents[0] - {3: 1.080, 4: 1.075, 6: 1.070}[depth]) < 1e-3
    assert abs(exponents[1] - 1.025) < 1e-3


def test_share_tends_to_its_closed_law():
    scales = torch.logspace(-6, -30, 5, dtype=torch.float64)
    for depth in (3, 6, 1000):
        ratio = collapse_share(depth, scales).share / leading_share(depth, scales)
        assert (ratio > 1).all() and (ratio.diff() < 0).all() and ratio[-1] < 1.025


@pytest.mark.parametrize("depth", [3, 4, 20])
def test_leading_share_solves_for_the_leaders_size(depth):
    q = 1 - 2 / depth
    for scale in (1e-3, 1e-30):
        known = 4 / (3 * q * (2 + q)) * (scale / leaders_size(scale**-q, depth)) ** q
        assert abs(float(leading_share(depth, scale)) / known - 1) < 1e-12


def test_error_covers_a_refinement(monkeypatch):
    scales = torch.tensor([1.0, 0.1, 1e-6, 1e-18], dtype=torch.float64)
    for depth in (3, 6):
        found = collapse_share(depth, scales)
        with monkeypatch.context() as patch:
            patch.setattr(shares, "DENSITY", 16)
            patch.setattr(shares, "TOLERANCE", 1e-11)
            finer = collapse_share(depth, scales)
        assert ((finer.share - found.share).abs() < found.error).all()
        assert (found.error < 1e-5 * found.share).all() and (finer.error < 0.1 * found.error).all()


def test_shapes_and_scales_solved_together_agree_with_each_alone():
    scales = torch.tensor([[0.5, 1e-3], [1e-9, 1e-30]])
    found = collapse_share(5, scales)
    assert found.share.shape == found.error.shape == scales.shape
    alone = torch.stack([collapse_share(5, float(scale)).share for scale in scales.flatten()])
    assert torch.allclose(found.share.flatten(), alone, rtol=1e-6)
    assert (found.share.flatten().diff() < 0).all() and alone[0].shape == ()


@pytest.mark.parametrize("scale", [0.0, -1.0, 1.5, 1e-31, math.nan, torch.empty(0), "small", True, None])
def test_bad_scales_are_refused(scale):
    with pytest.raises(DufmError, match="scale must "):
        collapse_share(3, scale)


def test_shallow_depth_is_refused():
    with pytest.raises(DufmError, match="depth must be an integer >= 3, got 2"):
        basin_boundary(2, 0.1)


def test_relations_on_which_the_proof_at_four_classes_rests():
    s1, s2, s3, q = sympy.symbols("s1 s2 s3 q", positive=True)
    s, L = (s1, s2, s3), 2 / (1 - q)
    chi = [[1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
    # The softmax column of one sample, from the characters alone.
    weight = [sympy.exp(sum(s[i] * chi[i][a] for i in range(3)) / 4) for a in range(4)]
    g = [sum(weight[a] * (1 - chi[i][a]) for a in range(4)) / sum(weight) for i in range(3)]
    rate = [-q * s[i] ** (-q - 1) * L * s[i] ** (1 + q) * g[i] for i in range(3)]
    p = [sympy.exp((s[i] - sum(s)) / 2) for i in range(3)]
    p = [x / (1 + sum(p)) for x in p]
    a = 2 * (L - 2)
    claims = {
        rate[2] - rate[1]: -a * (p[1] - p[2]),
        rate[1] - rate[0]: -a * (p[0] - p[1]),
        rate[0] + rate[1] - rate[2]: -2 * a * p[2],
        rate[0] / rate[1]: (sympy.exp(s2 / 2) + sympy.exp(s3 / 2)) / (sympy.exp(s1 / 2) + sympy.exp(s3 / 2)),
        (p[1] - p[2]) / (p[1] + p[2]): sympy.tanh((s2 - s3) / 4),
    }
    rng = np.random.default_rng(0)
    for left, right in claims.items():
        for _ in range(5):
            at = dict(zip((s1, s2, s3, q), [*rng.uniform(0.01, 5, 3), rng.uniform(0.3, 0.9)], strict=True))
            assert abs(sympy.N((left - right).subs(at), 30)) < 1e-12
        assert sympy.simplify((left - right).subs(q, sympy.Rational(1, 3)).rewrite(sympy.exp)) == 0
    x, k = sympy.symbols("x k", positive=True)
    area = 6 * sympy.integrate(x ** (1 + k) / k, (x, 0, 1)) / sympy.Rational(9, 2)
    assert sympy.simplify(area - 4 / (3 * k * (2 + k))) == 0


def test_fourth_power_recovers_its_constant_and_its_errors():
    scale = np.array([1e-4, 1e-6, 1e-8])
    power = collapse_share(3, torch.from_numpy(scale)).share.numpy() ** 4
    share = 0.2 * power * np.exp([0.1, -0.1, 0.3])
    rows = pandas.DataFrame({"depth": 3, "scale": scale, "share": share, "error": 0.1 * share})
    found = shares.fourth_power(rows, fitted=(1e-4, 1e-6))
    assert np.allclose(found.leading, 0.2 * power) and np.allclose(found.leading_error, 0.1 * np.sqrt([0.5, 0.5, 1.5]))
    assert shares.fourth_power(rows, fitted=(1e-2,)).leading.isna().all()


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize(("classes", "depth", "scale"), [(4, 4, 1e-3), (8, 3, 0.1)])
def test_weights_of_all_directions_sum_to_one(classes, depth, scale):
    q = 1 - 2 / depth
    grids = shares._label_grids(classes, q, scale)
    z = shares._draw_broad(grids, np.random.default_rng(0), 200_000)
    s, target = shares._starts(z, q, scale)
    weight = np.exp(target - shares._broad_density(grids, z))
    assert abs(weight.mean() - 1) < 4 * weight.std() / math.sqrt(len(z)) < 0.1
    assert np.allclose(s.mean(1), scale, rtol=1e-9)


def test_sampled_share_is_the_quadrature_at_four_classes():
    found = sampled_share(4, 3, 1e-2, count=1000, seed=3)
    assert abs(found.share - float(collapse_share(3, 1e-2).share)) < 4 * found.error
    assert found.error < 0.06 * found.share and found.largest < 0.02 and found.undecided == 0


def test_sampled_share_at_eight_classes_is_the_share_counted():
    found = sampled_share(8, 3, 0.3, count=2500, seed=4)
    draw = torch.from_numpy(np.random.default_rng(0).dirichlet(np.ones(7), 1500) * 7 * 0.3)
    end = spectral_end(spectral_flow(draw, 3, "hadamard").s, 3, "hadamard")
    hits = int((end.decided & (end.rank == 7)).sum())
    spread = math.hypot(found.error, math.sqrt(hits) / len(draw))
    assert hits > 30 and abs(found.share - hits / len(draw)) < 4 * spread
    assert found.error < 0.4 * found.share


def test_sampling_repeats_with_its_seed_and_measures_a_known_region(monkeypatch):
    def nearly_equal(s, *_):
        return s.min(1) > 0.3 * s.max(1), np.full(len(s), True)

    monkeypatch.setattr(shares, "_collapsed", nearly_equal)
    first, again, other = (sampled_share(8, 3, 0.1, count=4000, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    draw = np.random.default_rng(0).dirichlet(np.ones(7), 400_000)
    counted = (draw.min(1) > 0.3 * draw.max(1)).mean()
    assert abs(first.share - counted) < 4 * math.hypot(first.error, math.sqrt(counted / len(draw)))
    assert first.error < 0.1 * counted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((6, 3, 0.1), "num_classes must be a power of two, got 6"),
        ((2, 3, 0.1), "num_classes must be an integer >= 4"),
        ((4, 2, 0.1), "depth must be an integer >= 3"),
        ((4, 3, 1.0), "scale must be below 1"),
        ((4, 3, math.nan), "scale must be a finite positive number"),
    ],
)
def test_bad_input_of_sampling_is_refused(arguments, message):
    with pytest.raises(DufmError, match=message):
        sampled_share(*arguments)
