"""Width: ends against the flow itself, intervals against SciPy."""

import math

import numpy as np
import pandas
import pytest
import torch
from scipy.special import expit
from scipy.stats import ttest_ind
from tolerances import LINALG, close, relative

from dufm import DufmError, balanced_init, final_rank, gaussian_init, gradient_flow, imbalance, product, width

TOL = LINALG[torch.float64]
KEYS = ["num_classes", "width"]


# ---------------------------------------------------------------- starts and ends


@pytest.mark.parametrize("init", width.STARTS)
def test_a_network_depends_on_its_seed_alone(init):
    together = width.random_start(init, 3, 6, 4, scale=0.7, seeds=[5, 6, 7])
    alone = width.random_start(init, 3, 6, 4, scale=0.7, seeds=[6])
    d = 4 if init in ("twin", "limit") else 6
    assert [W.shape for W in together] == [(3, d, 4), (3, d, d), (3, 4, d)]
    assert all(relative(a[1], b[0]) < TOL for a, b in zip(together, alone, strict=True))


@pytest.mark.parametrize("init", ["balanced", "twin"])
def test_twins_have_the_product_of_the_gaussian_network_and_no_imbalance(init):
    plain, twins = (width.random_start(start, 4, 9, 4, scale=0.8, seeds=range(3)) for start in ("gaussian", init))
    close(product(twins), product(plain), TOL)
    assert max(float(part.abs().max()) for part in imbalance(twins)) < TOL
    assert max(float(part.abs().max()) for part in imbalance(plain)) > 0.1


def test_products_of_wide_networks_have_the_law_of_the_limit():
    many = {"num_classes": 3, "scale": 0.9, "seeds": range(400)}
    wide, limit = (product(width.random_start(init, 3, 60, **many)) for init in ("gaussian", "limit"))
    for power in (2, 4):
        moments = [(Z**power).mean().item() for Z in (wide, limit)]
        assert moments[0] == pytest.approx(moments[1], rel=0.15)
    assert max(float(part.abs().max()) for part in imbalance(width.random_start("limit", 3, 4, 3, seeds=[0]))) < TOL


def test_ends_agree_with_the_rank_that_the_flow_shows():
    found = width.ends(range(12), 4, 4, 6, 1.0)
    start = [torch.cat(parts) for parts in zip(*(gaussian_init(4, 6, 4, seed=i) for i in range(12)), strict=True)]
    run = gradient_flow(start, until_log_loss=-1e5, rtol=1e-4)
    assert found["rank"] == final_rank(product(run.factors)).tolist()
    assert set(zip(found["name"], found["rank"], strict=True)) == {("NC", 3), ("orthoplex", 2)}
    assert set(found["reason"]) == {""}


@pytest.mark.parametrize("bad", [{"init": "uniform"}, {"depth": 1}, {"scale": -1.0}, {"seeds": []}])
def test_starts_refuse(bad):
    arguments = {"init": "gaussian", "depth": 3, "width": 4, "num_classes": 3, "seeds": [0]} | bad
    with pytest.raises(DufmError, match=next(iter(bad))):
        width.random_start(**arguments)


def test_undecided_networks_completed_are_the_cell_with_those_ranks():
    ranks = [3, 3, 2, 0, 4, 0]
    runs = pandas.DataFrame({"width": 8, "rank": ranks, "name": [f"rank {r}" if r else "undecided" for r in ranks]})
    cell = width.by_cell(runs.assign(error=""), ["width"])
    full = width.completed(next(cell.itertuples()), 5)
    known = [rank or 5 for rank in ranks]
    assert (full.decided, full.networks) == (6, 6)
    assert (full.mean_rank, full.sd_rank) == pytest.approx((np.mean(known), np.std(known, ddof=1)))


# ---------------------------------------------------------------- counts and intervals


@pytest.fixture
def runs():
    rng = np.random.default_rng(3)
    ranks = np.concatenate([rng.integers(2, 6, 20), rng.integers(3, 8, 30), [0, 0]])
    names = np.where(ranks == 0, "undecided", np.where(ranks == 7, "NC", "rank"))
    cells = {"num_classes": 8, "width": [4] * 20 + [16] * 32}
    return pandas.DataFrame({**cells, "name": names, "rank": ranks, "error": ""})


def test_summary_counts_the_networks_of_a_cell(runs):
    cells = width.by_cell(runs, KEYS)
    assert cells.networks.tolist() == [20, 32] and cells.decided.tolist() == [20, 30]
    assert cells.collapse.tolist() == [0, int((runs["rank"] == 7).sum())]
    assert cells.commonest.tolist() == ["rank", "rank"]
    of = runs[runs["rank"] > 0].groupby("width")["rank"]
    close(torch.tensor(cells.mean_rank), torch.tensor(of.mean().to_numpy()), TOL)
    close(torch.tensor(cells.sd_rank), torch.tensor(of.std().to_numpy()), TOL)


def test_a_cell_without_decided_networks_has_no_rank(runs):
    cells = width.by_cell(runs.assign(name="undecided", rank=0), KEYS)
    assert cells.decided.tolist() == [0, 0] and cells.mean_rank.isna().all() and cells.sd_rank.isna().all()


def test_a_failed_cell_is_no_result(runs):
    with pytest.raises(DufmError, match="out of memory"):
        width.by_cell(runs.assign(error=["out of memory"] * 20 + [""] * 32), KEYS)


def test_differing_sees_counts_and_ranks_of_the_shared_cells(runs):
    cells = width.by_cell(runs, KEYS)
    more = cells.assign(width=[16, 64])
    assert width.differing(cells, cells, KEYS).tolist() == [False, False]
    assert len(width.differing(cells, more, KEYS)) == 1
    for column in ("collapse", "decided", "mean_rank"):
        changed = cells.assign(**{column: [cells[column][0], cells[column][1] - 1]})
        assert width.differing(cells, changed, KEYS).tolist() == [False, True]


def test_rank_change_is_the_welch_interval(runs):
    first, last = width.by_cell(runs, KEYS).itertuples()
    few, many = (runs[(runs.width == d) & (runs["rank"] > 0)]["rank"] for d in (4, 16))
    expected = ttest_ind(many, few, equal_var=False).confidence_interval(0.95)
    close(torch.tensor(width.rank_change(first, last)[1:]), torch.tensor([expected.low, expected.high]), TOL)


def test_a_cell_of_equal_ranks_has_the_error_of_one_network_off():
    cells = pandas.DataFrame({"decided": [16], "mean_rank": [3.0], "sd_rank": [0.0]})
    off = np.array([3] * 15 + [2])
    assert width.rank_error(cells)[0] == pytest.approx(off.std(ddof=1) / 4, rel=0.01)


# ---------------------------------------------------------------- the half-width

WIDTHS = [4, 8, 16, 32, 64]


def test_half_width_finds_the_curve():
    shares = expit(2.5 * (np.log(WIDTHS) - math.log(13.0)))
    found = width.half_width(WIDTHS, 1e7 * shares, [1e7] * 5)
    assert found.log_width == pytest.approx(math.log(13.0), abs=1e-5) and found.slope == pytest.approx(2.5, abs=1e-4)
    assert found.misfit < 1e-5


def test_half_width_error_is_the_spread_over_samples():
    rng = np.random.default_rng(0)
    shares = expit(2.5 * (np.log(WIDTHS) - math.log(13.0)))
    found = [width.half_width(WIDTHS, rng.binomial(64, shares), [64] * 5) for _ in range(300)]
    centres = np.array([fit.log_width for fit in found])
    assert np.mean([fit.error for fit in found]) == pytest.approx(centres.std(), rel=0.15)
    covered = np.mean([fit.interval[1] < 13 < fit.interval[2] for fit in found])
    assert 0.91 < covered < 0.985


@pytest.mark.parametrize("collapse", [[0, 1, 2], [9, 10, 10]])
def test_half_width_needs_a_bracket(collapse):
    assert math.isnan(width.half_width([4, 8, 16], collapse, [10] * 3).log_width)


@pytest.mark.parametrize(("widths", "collapse"), [([4], [1]), ([8, 4], [1, 2]), ([4, 8], [1, 11]), ([4, 8], [1, 2, 3])])
def test_half_width_refuses(widths, collapse):
    with pytest.raises(DufmError, match="widths|collapse"):
        width.half_width(widths, collapse, [10] * len(collapse))


def test_scaling_exponents():
    assert [width.scaling_exponent(L) for L in (3, 4, 5, 6)] == pytest.approx([1, 2, 10 / 3, 4.5])
    with pytest.raises(DufmError, match="depth"):
        width.scaling_exponent(2)


def test_half_widths_are_those_of_the_ladders():
    ladders = {"scale": [0.5] * 3 + [0.2] * 3 + [0.1], "width": [16, 4, 8, 4, 8, 16, 4], "depth": 3}
    cells = pandas.DataFrame({**ladders, "collapse": [9, 1, 4, 0, 2, 7, 3], "networks": 10})
    small, large = width.half_widths(cells, ["depth", "scale"])
    assert (small["depth"], small["scale"], small["widest"]) == (3, 0.2, 16)
    expected = width.half_width([4, 8, 16], [1, 4, 9], [10] * 3)
    assert (large["half_width"], large["low"], large["high"]) == expected.interval
    assert large["misfit"] == expected.misfit and small["half_width"] > large["half_width"]


def test_power_law_through_two_points():
    exponent, half, constant = width.power_law([1.0, 0.25], [1.0, 4.0], [0.1, 0.2])
    assert exponent == pytest.approx(3 / math.log(4)) and constant == pytest.approx(1.0)
    assert half == pytest.approx(1.96 * math.hypot(0.1, 0.2) / math.log(4))
    assert all(map(math.isnan, width.power_law([1.0], [1.0], [0.1])))


def test_width_does_nothing_to_balanced_factors():
    Z = torch.from_numpy(0.1 * np.random.default_rng(1).standard_normal((2, 4, 4)))
    narrow, wide = (gradient_flow(balanced_init(Z, 4, d), until_log_loss=-10.0, rtol=1e-9).factors for d in (4, 12))
    assert relative(product(wide), product(narrow)) < 1e-6
