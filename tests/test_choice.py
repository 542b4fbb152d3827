"""Which critical point is reached: the task beside the rooms it calls, the models of the rank by counting."""

import math

import numpy as np
import pandas
import pytest
import sympy
import tables
import torch

import dufm
from dufm import DufmError, choice, codes, sweep, width


@pytest.fixture(scope="module")
def runs():
    return sweep.run(choice.which_end, [{"num_classes": 5, "depth": 3, "width": 4, "scale": 1.0}], seeds=range(12))


def test_ends_are_those_of_the_task_of_the_width_diagram(runs):
    other = width.ends(list(range(12)), 5, 3, 4)
    assert runs["name"].tolist() == other["name"] and runs["rank"].tolist() == other["rank"]
    assert ((runs.margin_ratio == 1) == (runs["name"] == "NC")).all()


def test_spectra_are_taken_where_the_loss_says(runs):
    start = dufm.gaussian_init(3, 4, 5, seed=7)
    run = dufm.gradient_flow(start, until_log_loss=math.log(0.5 * 5 * math.log(5)), rtol=1e-6)
    sigma = torch.linalg.svdvals(run.Z - run.Z.mean(-2, keepdim=True))[0]
    found = np.array(runs["spectrum_0.5"][7].split(), dtype=float)
    assert np.allclose(found, (sigma / sigma[0])[:4], atol=2e-3)


def test_a_start_below_a_loss_is_its_own_spectrum():
    starts = ((seed, dufm.product(dufm.gaussian_init(2, 40, 3, scale=2.0, seed=seed))) for seed in range(100))
    seed, Z = next((seed, Z) for seed, Z in starts if dufm.log_loss(Z) < math.log(0.9 * 3 * math.log(3)))
    sigma = torch.linalg.svdvals(dufm.metrics.centred(Z)).flatten()
    found = choice.which_end([seed], 3, 2, 40, 2.0)["spectrum_0.9"][0]
    assert np.allclose(np.array(found.split(), dtype=float), (sigma / sigma[0])[:2], atol=1e-4)


def test_counts_keep_every_network(runs):
    table = choice.counted(runs)
    assert table.networks.sum() == 12 and (table.of == 12).all()
    collapse = table[table["name"] == "NC"]
    assert collapse.networks.sum() == (runs["name"] == "NC").sum() and (collapse.beta == 0).all()


@pytest.mark.parametrize(
    ("rank", "ratio", "kind"),
    [
        (0, 0.0, "undecided"),
        (5, 1.0, "collapse"),
        (4, 0.98566, "softmax code"),
        (3, 1.07583, "softmax code"),
        (3, 0.9, "worse"),
    ],
)
def test_kinds(rank, ratio, kind):
    assert choice.kind_of(6, 3, rank, ratio) == kind


def test_seven_classes_have_a_solution_that_is_no_code():
    assert choice.kind_of(7, 4, 3, 1.35895) == "depth's own"
    assert choice.kind_of(7, 4, 3, 1.35802) == "softmax code"


def test_probabilities_are_products_of_survivals():
    numbers = choice.spectral_numbers(["1.0 0.8 0.5 0.2 0.05"], 4, 9)
    assert np.allclose(numbers[0, :, 1], 0.5 * np.log(np.array([0.5, 0.2, 0.05]) / math.sqrt(0.8)))
    chances = choice.expected_ranks(np.array([3.0, 2.0]), numbers)[0]
    keep = [1 / (1 + math.exp(-3 - 2 * x)) for x in numbers[0, :, 1]]
    by_hand = [1 - keep[0], keep[0] * (1 - keep[1]), keep[0] * keep[1] * (1 - keep[2]), keep[0] * keep[1] * keep[2]]
    assert np.allclose(chances, by_hand) and math.isclose(chances.sum(), 1)
    assert choice.spectral_numbers(["1.0 0.8 0.5 0.2 0.05"], 4, 3).shape == (1, 1, 2)
    two = choice.spectral_numbers(["1.0 0.8"], 4, 2)
    assert two.shape == (1, 0, 2) and choice.expected_ranks(np.array([3.0, 2.0]), two).tolist() == [[1.0]]


def drawn(coefficients, rng, networks=400):
    """Networks of made-up spectra whose ranks follow the law, in three cells."""
    cells = []
    for K, L, d in ((5, 3, 8), (6, 4, 8), (7, 3, 4)):
        sizes = np.sort(rng.uniform(0.01, 1, (networks, K - 1)))[:, ::-1]
        texts = [" ".join(f"{x / row[0]:.4f}" for x in row) for row in sizes]
        numbers = choice.spectral_numbers(texts, L, d)
        keep = rng.uniform(size=numbers.shape[:2]) < 1 / (1 + np.exp(-numbers @ coefficients))
        rank = 2 + keep.cumprod(1).sum(1)
        about = {"num_classes": K, "depth": L, "width": d, "scale": 1.0, "rank": rank}
        cells.append(pandas.DataFrame({**about, **{f"spectrum_{share:g}": texts for share in choice.LOSSES}}))
    return pandas.concat(cells, ignore_index=True)


def test_the_fit_finds_the_law_that_made_the_ranks():
    rng, true = np.random.default_rng(0), np.array([4.0, 5.0])
    made = drawn(true, rng)
    fitted = choice.fit_models(made)
    assert np.allclose(fitted["law 0.5"], true, rtol=0.15)
    table = choice.scores(drawn(true, rng), fitted)
    gain, low, high = choice.advantage(table, "law 0.5", "two")
    assert low <= gain <= high and low > 0
    law = table[table.model == "law 0.5"]
    assert (law.variation < 0.1).all() and np.allclose(law.expected, law.found, atol=0.1)


def test_undecided_networks_are_missed_and_nothing_else():
    made = drawn(np.array([4.0, 5.0]), np.random.default_rng(1)).query("num_classes == 5")
    lost = made.assign(rank=made["rank"].where(np.arange(len(made)) % 4 > 0, 0))
    model = {"law 0.5": np.array([4.0, 5.0])}
    before, after = (choice.scores(table, model).iloc[0] for table in (made, lost))
    assert after.variation >= 0.25 and after.right <= 0.75 and abs(after.log_score - before.log_score) < 0.1


def test_multipliers_of_a_rung_have_the_block_that_its_proof_says():
    """The matrix of the multipliers x, y = 0, w, v, by symbols, on contrasts of the sums of pairs and on all pairs."""
    t, n, p, x, w, v = sympy.symbols("t n p x w v", positive=True)
    # One pair's sample: its class carries −Σ, classes of other pairs x; in the basis (sum of own pair, sum of another).
    own, other = (2 * t - 2) * x, -2 * x
    solved = {x: 2 ** (p - 1) / (2 * t - 2)}
    contrast = (own - other).subs(solved)
    assert sympy.simplify(contrast / 2 ** (p - 1) - t / (t - 1)) == 0
    assert sympy.simplify(own + (t - 1) * other) == 0
    K = 2 * t + n
    last = (2 * t / K) ** (p / 2) / (2 * t)
    single = (1 - 2 * t * w) / n
    assert sympy.simplify((2 * t * w + n * v).subs(v, single) - 1) == 0
    assert sympy.simplify((2 * t * last) ** (2 / p) - 2 * t / K) == 0


def test_plane_of_equal_pairs_has_the_rates_that_its_proof_says():
    """Orthoplex of s with the contrasts of its sums at e: margins and rates of I − P, from the matrix itself."""
    t, s, e = 3, 1.3, 0.4
    pairs = torch.kron(torch.eye(t), torch.ones(2, 2)).double() / 2
    swap = torch.kron(torch.eye(t), torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).double() / 2
    sums = pairs - 1 / (2 * t)
    Z = s * swap + e * sums
    P = torch.softmax(Z, 0)
    partner, cross = float(P[1, 0]), float(P[2, 0])
    force = torch.eye(2 * t).double() - P
    assert torch.allclose(force @ swap, ((2 * t - 2) * cross + 2 * partner) * swap)
    assert torch.allclose(force @ sums, 2 * t * cross * sums)
    assert math.isclose(float(Z[0, 0] - Z[1, 0]), s) and math.isclose(float(Z[0, 0] - Z[2, 0]), (s + e) / 2)
    assert codes.name_of(2 * swap - 0 * sums) == "orthoplex"


def test_a_rung_keeps_what_is_below_its_threshold():
    square, mixed = choice.rung(4, 2, 4, off=0.05, margin=60.0), choice.rung(5, 2, 4, off=0.05, margin=60.0)
    assert square["threshold"] == mixed["threshold"] == 0.25
    assert (square["below"], square["above"], mixed["above"]) == ("orthoplex", "NC", "2 pairs, 1 single")
    assert max(square["error"], mixed["error"], -square["curvature"]) < 1e-8


@pytest.mark.parametrize("rank", [1, 4])
def test_a_rank_that_cannot_occur_is_refused(rank):
    given = tables.call("choice.scores.runs", tables.TABLES["choice.scores.runs"].assign(rank=rank))
    with pytest.raises(DufmError, match="runs must have ranks from 2 to 3"):
        choice.scores(**given)
