"""Intervals against their formulas and against simulation."""

import math

import numpy as np
import pytest

from dufm import DufmError, stats


@pytest.mark.parametrize(("hits", "total"), [(0, 10), (3, 10), (10, 10), (50, 128)])
def test_wilson_is_where_the_score_test_rejects(hits, total):
    for p in stats.wilson(hits, total):
        if 0 < p < 1:
            assert abs(hits / total - p) / math.sqrt(p * (1 - p) / total) == pytest.approx(1.959964, abs=1e-5)


def test_mean_interval_covers_95_percent():
    draws = np.random.default_rng(0).standard_normal((4000, 5))
    covered = [low <= 0 <= high for _, low, high in map(stats.mean_interval, draws)]
    assert stats.wilson(sum(covered), len(covered))[0] < 0.95 < stats.wilson(sum(covered), len(covered))[1]


def test_within_slope_is_the_regression_on_indicators_and_its_interval_covers():
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(60), 4)
    x = rng.standard_normal((240, 2)) + rng.standard_normal(60)[groups][:, None]
    y = x @ [0.5, -2.0] + 3 * rng.standard_normal(60)[groups] + rng.standard_normal(240)
    design = np.hstack([x, np.eye(60)[groups]])
    found, low, high = stats.within_slope(x, y, groups)
    assert found == pytest.approx(np.linalg.lstsq(design, y, rcond=None)[0][:2])
    assert (low < found).all() and (found < high).all()
    covered = []
    for _ in range(600):
        # Errors that a group shares after its constant is taken: half of its rows go up together.
        shared = rng.standard_normal(60)[groups] * np.tile([1, 1, -1, -1], 60)
        _, low, high = stats.within_slope(x[:, 0], shared + rng.standard_normal(240), groups)
        covered.append(low <= 0 <= high)
    assert 0.9 < np.mean(covered) < 0.98


@pytest.mark.parametrize(("first", "second"), [(0.5, 0.4), (0.95, 0.05), (0.02, 0.01)])
def test_unpaired_interval_covers_95_percent(first, second):
    hits = np.random.default_rng(2).binomial((80, 200), (first, second), (2000, 2))
    low, high = np.array([stats.unpaired(pair, (80, 200)) for pair in hits]).T
    assert 0.94 < ((low <= first - second) & (first - second <= high)).mean() < 0.985


def test_unpaired_interval_is_that_of_the_paper():
    assert stats.unpaired((56, 48), (70, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert stats.unpaired((0, 0), (10, 20)) == pytest.approx((-0.1611, 0.2775), abs=5e-5)


@pytest.mark.parametrize(("up", "down"), [(0.1, 0.1), (0.05, 0.01)])
def test_paired_interval_covers_95_percent(up, down):
    gained, lost, _ = np.random.default_rng(1).multinomial(200, [up, down, 1 - up - down], 4000).T
    low, high = stats.paired(gained, lost, 200)
    assert 0.94 < ((low <= up - down) & (up - down <= high)).mean() < 0.97


def test_words():
    assert stats.share(3, 10) == "0.30 [0.11, 0.60]"
    assert stats.share(3, 10, digits=3).startswith("0.300 [")
    assert stats.below(-1e-12, 1e-9) == "below 1e-9" and stats.below(0.0123, 1e-9) == "0.012"


def test_a_share_of_no_run():
    assert np.isnan(stats.wilson(0, 0)).all() and stats.share(0, 0) == "nan [nan, nan]"


@pytest.mark.parametrize("call", [lambda: stats.wilson(1, 0), lambda: stats.wilson(3, 2), lambda: stats.wilson(-1, 2)])
def test_shares_that_are_none(call):
    with pytest.raises(DufmError, match="hits must be"):
        call()


@pytest.mark.parametrize("values", [[math.nan], [1.0, math.inf]])
def test_means_that_are_none(values):
    with pytest.raises(DufmError, match="finite"):
        stats.mean_interval(values)


def test_fewer_than_two_values_have_no_interval():
    assert np.isnan(stats.mean_interval([])).all()
    middle, *ends = stats.mean_interval([8.0])
    assert middle == 8.0 and np.isnan(ends).all() and stats.mean([8.0]) == "8.00 [nan, nan]"


def test_a_mean_in_words():
    assert stats.mean([8.0, 8.5], 1) == "8.2 [5.1, 11.4]"
    assert stats.mean([-1e-9, -2e-9]) == "0.00 [0.00, 0.00]"


def test_falling_is_spearmans_correlation_and_says_nothing_of_a_constant():
    assert stats.falling([2, 3, 5, 8], [9.0, 8.0, 6.0, 5.0]) == pytest.approx((-1.0, 0.0))
    r, p = stats.falling([1, 2, 3, 4, 5], [2.0, 1.0, 4.0, 3.0, 5.0])
    assert r == pytest.approx(0.8) and 0.9 < p < 1
    assert np.isnan([stats.falling([8, 8], [1.0, 2.0]), stats.falling([2, 8], [1.0, 1.0])]).all()
