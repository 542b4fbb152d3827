"""Finite steps: scalars against full-matrix descent, small steps against the flow, closed laws against runs."""

import math

import numpy as np
import pandas
import pytest
import sympy
import torch
from scipy.interpolate import CubicSpline

import dufm
from dufm import descent, perturbation
from dufm.groups import characters

GROUPS = [("hadamard", 4), ("hadamard", 8), ("cyclic", 5), ("cyclic", 6)]


def draw(batch, free, scale=0.1, seed=0):
    return scale * (0.2 + torch.rand(batch, free, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


@pytest.mark.parametrize("lr", [0.05, 1.0, 30.0])
@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize(("group", "K"), GROUPS)
def test_descent_of_spectra_is_the_full_networks(group, K, depth, lr):
    """Products of matrices that are never told to stay diagonal, step by step, above the rounding that they amplify."""
    chi = characters(group, K)
    s0 = draw(3, chi.num_free)
    full = dufm.gradient_descent(dufm.spectral_init(s0, depth, chi), lr=lr, steps=6, record=list(range(1, 7)))
    for number in range(6):
        few = descent.spectral_descent(s0, depth, chi, lr, until_log_loss=-3000.0, max_steps=number + 1)
        s, off = chi.spectrum(full.history.Z[number])
        alive = (few.steps == number + 1) & (few.log_loss > -30)
        assert torch.allclose(s[alive], few.s[alive], rtol=1e-9)
        assert float(off.max()) < 1e-9


@pytest.mark.parametrize("lr", [0.1, 2.0, 1e4])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_a_step_widens_a_ratio_where_the_flow_does_and_lowers_the_loss(depth, lr):
    s = draw(300, 7, 3.0, seed=2)
    assert descent.against_flow(s, depth, "hadamard", lr)[0] == 0
    assert descent.against_flow(s, depth, "hadamard", lr)[1] > 300 * 20
    after = descent.spectral_descent(s, depth, "hadamard", lr, until_log_loss=-1e9, max_steps=1)
    assert (after.rises == 0).all() and (after.s > s).all()
    logits = characters("hadamard", 8).logits
    assert (dufm.log_loss(logits(after.s)) < dufm.log_loss(logits(s))).all()


def test_values_that_rounding_hides_after_a_step_are_left_out():
    s = 3 * torch.ones(1, 7, dtype=torch.float64)
    s[0, 3] = 1e-3
    assert [descent.against_flow(s, 6, "hadamard", lr) for lr in (0.1, 1e4)] == [(0, 6), (0, 0)]


@pytest.mark.parametrize(("group", "K"), GROUPS)
def test_forces_are_one_up_to_the_mean_value(group, K):
    chi = characters(group, K)
    for scale in (0.01, 0.3, 5.0):
        s = draw(200, chi.num_free, scale)
        bound = (s * chi.multiplicity).sum(-1, keepdim=True) / K
        assert ((perturbation.forces(s, chi) - 1).abs() <= bound).all()


def test_steps_to_escape():
    """The fall of A(y) of notebook 48 differs from the count of steps by O(η/y): a 25th at a fifth of the size."""
    off = []
    for stop in (0.1, 0.02):
        w, lr, depth = stop / 20, 0.5, 4
        start, taken = w, 0
        while w < stop:
            w += lr * w ** (depth - 1)
            taken += 1
        y0, y = start ** -(depth - 2), w ** -(depth - 2)
        law = (y0 - y) / ((depth - 2) * lr) + (depth - 1) / (2 * (depth - 2)) * math.log(y0 / y)
        off.append(abs(law - taken))
    assert off[0] < 1e-2 and off[1] < off[0] / 15


def test_coordinate_of_the_recursion_symbolically():
    """A(y) = y/((L−2)η) + c log y falls by one a step, up to O((η/y)²), for c = (L−1)/(2(L−2)) alone."""
    e, c, L = sympy.symbols("e c L", positive=True)  # e = η/y
    after = (1 + e) ** -(L - 2)  # y⁺/y
    fall = (1 - after) / ((L - 2) * e) - c * sympy.log(after)
    series = sympy.series(fall, e, 0, 2).removeO()
    assert sympy.simplify(series.coeff(e, 0) - 1) == 0
    assert sympy.simplify(sympy.solve(series.coeff(e, 1), c)[0] - (L - 1) / (2 * (L - 2))) == 0


def test_modified_flow_is_the_gradient_of_a_modified_loss_symbolically():
    """F − (η/2)F'F = −∇(ℒ + (η/4)|∇ℒ|²), F = −∇ℒ; and a step of Euler is its flow up to O(η³)."""
    x, y, eta = sympy.symbols("x y eta")
    loss = sympy.exp(-x * y**2) + x**2 * y
    F = -sympy.Matrix([loss.diff(x), loss.diff(y)])
    field = F - eta / 2 * F.jacobian([x, y]) * F
    whole = loss + eta / 4 * (F.T * F)[0]
    assert sympy.simplify(field + sympy.Matrix([whole.diff(x), whole.diff(y)])) == sympy.zeros(2, 1)
    step = eta * field + eta**2 / 2 * field.jacobian([x, y]) * field
    assert all(sympy.simplify(sympy.expand(entry).coeff(eta, 2)) == 0 for entry in step)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_small_steps_follow_the_modified_flow_to_second_order(depth):
    """Followers against the leader: half of η, half as far from the flow, a quarter from the other."""
    s0 = torch.tensor([0.1, 0.08, 0.05], dtype=torch.float64)
    off = {}
    for lr in (0.08, 0.04):
        end = descent.spectral_descent(s0, depth, "hadamard", lr, until_log_loss=-2.0)
        levels = float(end.log_loss) + np.linspace(-0.4, 0.4, 17)
        for rate in (0.0, lr):
            near = [descent.modified_flow(s0, depth, "hadamard", rate, until_log_loss=level) for level in levels]
            path = np.unique(torch.stack(near).log().numpy(), axis=0)
            found = CubicSpline(path[:, 0], path[:, 1:])(float(end.s[0].log()))
            off[rate > 0, lr] = np.abs(found - end.s[1:].log().numpy()).max()
    assert 1.7 < off[False, 0.08] / off[False, 0.04] < 2.4
    assert 3.2 < off[True, 0.08] / off[True, 0.04] < 5.5


def test_modified_flow_without_steps_is_the_flow():
    s0 = draw(5, 3)
    s = descent.modified_flow(s0, 4, "hadamard", 0.0, until_log_loss=-2.0)
    levels = {"log_loss": dufm.log_loss(characters("hadamard", 4).logits(s)).tolist()}
    run = [
        dufm.spectral_flow(row, 4, "hadamard", until_log_loss=x, rtol=1e-9)
        for row, x in zip(s0, levels["log_loss"], strict=True)
    ]
    assert torch.allclose(torch.stack([r.s for r in run]), s, rtol=1e-6)
    with pytest.raises(ValueError, match="lower lr"):
        descent.modified_flow(s0, 6, "hadamard", 1e3)


# ---------------------------------------------------------------- where it ends


def test_late_spectra_of_four_collapse_by_the_triangle_inequality():
    """The certified end against s_3^−q < s_1^−q + s_2^−q, away from equality by more than the blur."""
    s = 3000 * (0.05 + draw(400, 3, 1.0, seed=5))
    for depth in (3, 4, 6):
        y = (s ** -(1 - 2 / depth)).sort(-1).values
        excess = y[:, 2] / (y[:, 0] + y[:, 1]) - 1
        clear = excess.abs() > 0.02
        assert torch.equal(descent.collapses(s, depth, "hadamard")[clear] == 1, excess[clear] < 0)
    y1, y2, y3, t = sympy.symbols("y1 y2 y3 t", positive=True)
    met = y3 - (y2 - y1)  # y_3 when y_2, which falls at the same rate, has reached y_1
    assert sympy.simplify((met - 2 * y1) - (y3 - y1 - y2)) == 0


def test_share_of_one_step_by_counting():
    s = np.sort(np.random.default_rng(0).dirichlet(np.ones(3), 400_000), 1)
    for depth in (3, 4, 6):
        y = s ** -((depth - 1) * (depth - 2) / depth)
        assert abs((y[:, 0] < y[:, 1] + y[:, 2]).mean() - descent.one_step_share(depth)) < 0.003


def test_networks_and_spectra_as_tasks():
    seeds = [3, 4, 5, 6]
    flow = descent.network_ends(seeds, 4, 3, 8, 0.5, 0.0)
    slow = descent.network_ends(seeds, 4, 3, 8, 0.5, 0.02)
    assert flow["name"].tolist() == slow["name"].tolist() and (slow["rises"] == 0).all()
    wild = descent.network_ends(seeds, 4, 3, 8, 0.5, 1e3, max_steps=50)
    assert (wild["name"] == "undecided").all() and set(wild["reason"]) <= {
        "diverged",
        "log loss above -6 after 50 steps",
    }
    both = [descent.spectral_ends(seeds, 4, 3, 0.1, 0.01, modified=modified)["name"] for modified in (True, False)]
    assert (both[0] == both[1]).all() and set(both[0]) <= {"NC", "other"}


def test_counts_are_paired():
    runs = pandas.DataFrame({"depth": 3, "lr": [0.0] * 10 + [0.1] * 10, "seed": 2 * list(range(10))})
    ends = ["NC"] * 4 + ["other"] * 6 + ["other"] + ["NC"] * 6 + ["undecided"] * 3
    table = descent.by_step(runs.assign(name=ends, rises=[0] * 19 + [2]), ["depth"])
    assert table.lr.tolist() == [0.0, 0.1] and table.collapse.tolist() == [4, 6]
    assert table.gained.tolist() == [0, 3] and table.lost.tolist() == [0, 1] and table.elsewhere.tolist() == [0, 7]
    assert table.undecided.tolist() == [0, 3] and table.rising.tolist() == [0, 1] and table.starts.tolist() == [10, 10]
    alone = descent.by_step(runs[runs.lr > 0].assign(name=ends[10:], rises=0), ["depth"])
    assert alone.collapse.item() == 6 and alone[["gained", "lost", "elsewhere"]].to_numpy().sum() == 0


def test_the_flow_works_against_collapse_and_steps_against_the_flow():
    """Exact for the flow at every size: d(y_3 − y_1 − y_2)/dt = 2(L−2)λ_12; descent's bracket is convex in g/y."""
    a, b, c, x, eta, L = sympy.symbols("a b c x eta L", positive=True)
    g1, g2, g3 = a + b, a + c, b + c  # a: the pair (1, 2), b: (1, 3), c: (2, 3)
    assert sympy.simplify(-(L - 2) * (g3 - g1 - g2) - 2 * (L - 2) * a) == 0
    curvature = sympy.diff((1 + eta * x) ** -(L - 2), x, 2) / ((L - 2) * (L - 1) * eta**2)
    assert sympy.simplify(curvature - (1 + eta * x) ** -L) == 0


def test_sharpness_is_automatic_differentiations():
    factors = [W[0] for W in dufm.gaussian_init(3, 5, 3, seed=0)]
    sizes = [W.numel() for W in factors]

    def loss(entries):
        first, hidden, last = (part.reshape(W.shape) for part, W in zip(entries.split(sizes), factors, strict=True))
        return torch.nn.functional.cross_entropy((last @ hidden @ first).mT, torch.arange(3), reduction="sum")

    hessian = torch.autograd.functional.hessian(loss, torch.cat([W.reshape(-1) for W in factors]))
    assert np.isclose(float(torch.linalg.eigvalsh(hessian)[-1]), descent.sharpness(factors), rtol=1e-7)
    peak = descent.peaks([0, 1], 3, 3, 5, 1.0)["peak"]
    assert peak.shape == (2,) and (peak > 0).all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: descent.spectral_descent(torch.ones(3, dtype=torch.float64), 3, "hadamard", 0.0), "lr must be"),
        (lambda: descent.spectral_descent(-torch.ones(3, dtype=torch.float64), 3, "hadamard", 1.0), "must be positive"),
        (lambda: descent.one_step_share(2), "depth must be"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(dufm.DufmError, match=words):
        call()


def test_a_start_with_a_graph_descends():
    s0 = torch.tensor([0.1, 0.1, 0.01], dtype=torch.float64, requires_grad=True)
    assert not descent.spectral_descent(s0, 4, "hadamard", 0.1).s.requires_grad
    assert not descent.modified_flow(s0, 4, "hadamard", 0.1).requires_grad
