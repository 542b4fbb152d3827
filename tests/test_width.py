"""Width: ends against the flow itself, intervals against SciPy, lazy laws against their own small systems."""

import math

import numpy as np
import pandas
import pytest
import sympy
import torch
from scipy.integrate import solve_ivp
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


# ---------------------------------------------------------------- the lazy range


@pytest.mark.parametrize("depth", [2, 4])
def test_logit_rate_is_that_of_a_gradient_step(depth):
    factors = [W.requires_grad_() for W in gaussian_init(depth, 5, 3, batch=2, seed=4)]
    logits = product(factors)
    loss = -torch.log_softmax(logits, -2).diagonal(dim1=-2, dim2=-1).sum()
    slopes, step = torch.autograd.grad(loss, factors), 1e-6
    ahead, behind = (product([W - sign * step * G for W, G in zip(factors, slopes, strict=True)]) for sign in (1, -1))
    velocity = ((ahead - behind) / (2 * step)).detach()
    force = (torch.eye(3, dtype=torch.float64) - torch.softmax(logits, -2)).detach()
    expected = (velocity * force).sum((-2, -1)) / force.square().sum((-2, -1))
    close(width.logit_rate([W.detach() for W in factors]), expected, 1e-8)
    A, B = width.layer_products([W.detach() for W in factors])
    close(sum(a @ force @ b for a, b in zip(A, B, strict=True)), velocity, 1e-8)


def test_products_are_nearly_multiples_of_the_identity_in_wide_networks():
    narrow, wide = (np.median(list(width.at_start(range(8), 4, 4, d, 0.8).values()), 1) for d in (64, 1024))
    # left, right: 1/√d, so a quarter
    assert (np.abs(np.log2(narrow[:2] / wide[:2]) / 4 - 0.5) < 0.15).all()
    assert 1 < wide[2] < narrow[2] and abs(wide[3] - 1) < 0.1


@pytest.mark.parametrize(("depth", "ratios"), [(2, [0.3, 2.0]), (3, [0.1, 1.5])])
def test_lazy_law_is_that_of_one_direction(depth, ratios):
    """One row u of the classifier, at right angles to what it meets at the start; the features move at L = 2 only."""
    scale, num_classes, hidden = 0.6, 4, 10**6
    length = scale * math.sqrt(hidden / num_classes)
    metric = 1.0 if depth == 2 else length**2

    def law(_, state):
        u, h = state.reshape(2, 2)
        return np.concatenate([h, metric * u])

    u, h = np.array([scale, 0.0]), np.array([0.0, length * (1.0 if depth == 2 else scale)])
    start, unit = np.concatenate([u, h]), width.lazy_size(depth, hidden, num_classes, scale)
    # κ is ds over the common factor of the loss, which the clock of `law` has taken out.
    rate = lambda state: state[2:] @ state[2:] + metric * state[:2] @ state[:2]  # noqa: E731
    size = lambda state: state[:2] @ state[2:]  # noqa: E731
    sizes = np.array(ratios) * (unit if depth == 3 else width.lazy_rate(2, hidden, num_classes, scale))
    events = [lambda t, state, s=s: size(state) - s for s in sizes]
    run = solve_ivp(law, (0, 20 / math.sqrt(metric)), start, events=events, rtol=1e-10, atol=1e-12)
    seen = [rate(states[0]) / rate(start) for states in run.y_events]
    assert seen == pytest.approx([width.lazy_law(s, depth, hidden, num_classes, scale) for s in sizes], rel=1e-4)


def test_lazy_law_is_given_at_two_depths_only():
    assert math.isnan(width.lazy_law(1.0, 4, 64, 4, 1.0))


def test_the_flow_of_a_wide_network_follows_the_lazy_law():
    path = width.lazy_path([0, 1], 4, 3, 256, 0.3, levels=[0.125, 0.5, 1.0])
    law = width.lazy_law(path["ratio"] * width.lazy_size(3, 256, 4, 0.3), 3, 256, 4, 0.3)
    assert np.abs(path["growth"] / law - 1).max() < 256**-0.5
    assert (path["beside"] < 0.3).all() and path["ratio"] == pytest.approx([0.125, 0.5, 1.0], rel=0.05)


def test_a_network_that_starts_below_a_mark_is_left_out_there():
    passed, other, both = (width.lazy_path(seeds, 4, 2, 16, 0.5, levels=[1 / 16, 1.0]) for seeds in ([4], [0], [0, 4]))
    for key in both:
        assert np.isnan(passed[key][0]) and both[key][0] == other[key][0]
        assert both[key][1] == pytest.approx((passed[key][1] + other[key][1]) / 2)


def test_lazy_path_stops_where_losses_end():
    assert len(width.lazy_path([0], 4, 2, 64, 1.0, levels=[0.1, 1e3])["ratio"]) == 1
    with pytest.raises(DufmError, match="levels"):
        width.lazy_path([0], 4, 2, 64, 1.0, levels=[1e3])


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


def test_the_lazy_law_at_three_layers_in_symbols():
    """Notebook 62: a = |u|², b = |h|², c = u·h of a hyperbolic rotation keep a − b and (a + b)² − 4c²."""
    a, b, c, pull, sigma, x, s = sympy.symbols("a b c pull sigma x s", positive=True)
    rates = {a: 2 * pull * c, b: 2 * pull * c, c: pull * (a + b)}
    for constant in (a - b, (a + b) ** 2 - 4 * c**2):
        assert sympy.simplify(sum(sympy.diff(constant, part) * rate for part, rate in rates.items())) == 0
    rate = x**2 * sympy.sqrt(4 * sigma**4 + 4 * (s / x) ** 2)  # κ = |x|²(a + b), c = s/|x|
    values = {sigma: 0.8, s: 1.7, x: 0.8 * math.sqrt(512 / 4)}
    ratio = float((rate / rate.subs(s, 0)).subs(values))
    assert ratio == pytest.approx(float(width.lazy_law(1.7, 3, 512, 4, 0.8)), rel=1e-12)
