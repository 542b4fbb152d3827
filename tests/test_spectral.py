"""Spectral initialisation: characters, the singular-value flow against the full network, and the closed laws."""

import math

import numpy as np
import pytest
import sympy
import torch
from scipy.integrate import solve_ivp

import dufm
from dufm import DufmError, laws, spectral, spectral_end
from dufm.groups import characters
from dufm.spectral import spectral_flow, spectral_init

GROUPS = [("hadamard", 4), ("hadamard", 8), ("cyclic", 5), ("cyclic", 6), ("cyclic", 7), ((3, 3), 9), ((2, 6), 12)]


def draw(batch, free, scale=0.1, seed=0):
    return scale * (0.2 + torch.rand(batch, free, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


# ---------------------------------------------------------------- characters


@pytest.mark.parametrize(("group", "K"), [*GROUPS, ("cyclic", 2), ((4, 4), 16)])
def test_characters_are_orthonormal_and_complete(group, K):
    chi = characters(group, K)
    assert chi.num_classes == K and int(chi.multiplicity.sum()) == K - 1
    assert torch.allclose(chi.basis.mT @ chi.basis, torch.eye(K, dtype=torch.float64), atol=1e-14)
    inner = chi.table @ chi.table.mT / K
    assert torch.allclose(inner, torch.diag(1 / chi.multiplicity), atol=1e-14)


def test_hadamard_is_sylvesters():
    sylvester = np.array([[1]])
    for _ in range(3):
        sylvester = np.kron([[1, 1], [1, -1]], sylvester)
    assert np.array_equal(characters("hadamard", 8).table.numpy(), sylvester[1:])
    assert characters("cyclic", 7).num_free == 3 and characters("cyclic", 8).num_free == 4


@pytest.mark.parametrize(("group", "K"), GROUPS)
def test_softmax_of_a_group_matrix_is_a_group_matrix(group, K):
    chi = characters(group, K)
    s = draw(3, chi.num_free, 5.0)
    P = torch.softmax(chi.logits(s), -2)
    assert float(chi.spectrum(torch.eye(K) - P)[1].max()) < 1e-13
    found, off = chi.spectrum(chi.logits(s))
    assert torch.allclose(found, s, rtol=1e-12) and float(off.max()) < 1e-14


def test_margins_and_closed_form_codes():
    chi = characters("hadamard", 8)
    s = draw(4, 7)
    expected = dufm.margins(chi.logits(s))[..., 1:, 0]
    assert torch.allclose(s @ chi.rates, expected, rtol=1e-12)


# ---------------------------------------------------------------- the flow


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize(("group", "K"), GROUPS)
def test_flow_is_the_full_networks(group, K, depth):
    chi = characters(group, K)
    s0 = draw(2, chi.num_free)
    levels = {"log_loss": [1.0, 0.0, -3.0, -20.0]}
    few = spectral_flow(s0, depth, chi, rtol=1e-8, until_log_loss=-20.0, record=levels)
    full = dufm.gradient_flow(spectral_init(s0, depth, chi), rtol=1e-8, until_log_loss=-20.0, record=levels)
    s, off = chi.spectrum(full.history.Z)
    assert float((s / few.history.s - 1).abs().max()) < 1e-6
    assert float(off[:3].max()) < 1e-7
    assert torch.allclose(full.log_time, few.log_time, atol=1e-6)


def test_flow_is_scipys():
    """The equations as they stand on the page, written again in NumPy and stepped by LSODA."""
    depth, K = 4, 8
    chi = characters("hadamard", K)
    table, s0 = chi.table.numpy(), draw(1, 7)[0]

    def rate(t, log_s):
        s = np.exp(log_s)
        f = s @ table / K
        p = np.exp(f - f.max())
        p /= p.sum()
        return depth * s ** (1 - 2 / depth) * ((1 - table) @ p)

    log_times = [1.0, 2.0, 4.0, 8.0]
    run = spectral_flow(s0, depth, "hadamard", until_log_loss=-30.0, rtol=1e-10, record={"log_time": log_times})
    times = np.exp(log_times)
    reference = solve_ivp(rate, (0, times[-1]), s0.log().numpy(), "LSODA", times, rtol=1e-11, atol=1e-12)
    assert np.allclose(run.history.s.log().numpy(), reference.y.T, atol=2e-7)


def test_to_thousands_and_under_descent():
    run = spectral_flow(draw(3, 3), 3, "hadamard", until_log_loss=-4000.0, rtol=1e-3)
    assert (run.status == "reached").all() and float(run.s.max()) > 3000 and torch.isfinite(run.s).all()
    chi = characters("hadamard", 8)
    end = dufm.gradient_descent(spectral_init(draw(2, 7, 1.0), 3, chi), lr=0.05, steps=400)
    assert float(chi.spectrum(end.Z)[1].max()) < 1e-8


def test_batch_shapes_orders_and_alone():
    s0 = draw(6, 3).reshape(2, 3, 3)
    together = spectral_flow(s0, 3, "hadamard", record={"log_loss": [0.0, -5.0]})
    alone = spectral_flow(s0[1, 2], 3, (2, 2))
    assert together.s.shape == (2, 3, 3) and together.history.s.shape == (2, 2, 3, 3)
    assert alone.s.shape == (3,) and alone.log_loss.shape == ()
    assert torch.allclose(together.s[1, 2], alone.s, rtol=1e-9)
    order = torch.tensor([2, 0, 1])
    assert torch.allclose(spectral_flow(s0[..., order], 3, "hadamard").s, together.s[..., order], rtol=1e-9)


def test_init_is_balanced_and_takes_a_width():
    s0 = draw(2, 7)
    for width in (7, 8, 12):
        factors = spectral_init(s0, 4, "hadamard", width)
        assert [tuple(W.shape[1:]) for W in factors] == [(width, 8), (width, width), (width, width), (8, width)]
        assert max(float(D.abs().max()) for D in dufm.imbalance(factors)) < 1e-15
        assert torch.allclose(dufm.product(factors), characters("hadamard", 8).logits(s0), atol=1e-15)


# ---------------------------------------------------------------- ends


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_ends_are_vertices(depth):
    starts = draw(200, 3, 0.02, seed=3)
    end = spectral_end(spectral_flow(starts, depth, "hadamard").s, depth, "hadamard")
    assert end.decided.double().mean() > 0.8
    kinds = {tuple(sorted(row)) for row in end.spectrum[end.decided].round(decimals=9).tolist()}
    assert kinds <= {(1.0, 1.0, 1.0), (0.0, 2.0, 2.0)}
    assert (end.rank[end.decided] == (end.spectrum[end.decided] > 0).sum(-1)).all()
    if depth == 2:
        assert kinds == {(1.0, 1.0, 1.0)}


def test_a_spectrum_in_transit_is_followed_to_its_end():
    # On both sides of the separatrix s_3/s_1 = 1/8.
    s = torch.tensor([[300.0, 300.0, 120.0], [300.0, 300.0, 39.0], [300.0, 300.0, 36.0]], dtype=torch.float64)
    end = spectral_end(s, 3, "hadamard")
    assert end.decided.all() and end.rank.tolist() == [3, 3, 2]
    # On it: a critical point that is no vertex, with three values that grow.
    saddle = spectral_end(torch.tensor([300.0, 300.0, 37.5], dtype=torch.float64), 3, "hadamard")
    assert not saddle.decided and saddle.reason == "what grows is not what the vertex keeps"
    polygon = spectral_end(torch.tensor([700.0, 0.5], dtype=torch.float64), 4, (5,))
    assert bool(polygon.decided) and int(polygon.rank) == 2
    margin = dufm.normalized_margin(characters((5,)).logits(polygon.spectrum), 4)
    assert math.isclose(float(margin), dufm.closed_form_margin("polygon", 5, 4), rel_tol=1e-9)


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_early_law(depth):
    s0 = torch.tensor([1e-4, 0.8e-4, 0.5e-4], dtype=torch.float64)
    escape = laws.escape_time(s0, depth)
    assert torch.isinf(escape).all() == (depth == 2)
    time = 1.0 if depth == 2 else 0.5 * float(escape[0])
    run = spectral_flow(s0, depth, "hadamard", rtol=1e-9, until_log_loss=-1.0, record={"log_time": [math.log(time)]})
    law = laws.early_singular_values(time, s0, depth)
    assert torch.allclose(run.history.s[0], law, rtol=1e-3)
    if depth == 2:
        assert torch.allclose(run.history.s[0] / run.history.s[0, 0], s0 / s0[0], rtol=1e-3)
    else:
        assert torch.isinf(laws.early_singular_values(2 * float(escape[0]), s0[:1], depth)).all()


@pytest.mark.parametrize(("group", "K"), GROUPS)
def test_perturbation_law_for_every_group(group, K):
    chi = characters(group, K)
    mode = torch.ones(chi.num_free, dtype=torch.float64)
    mode[0] += 1e-6
    if chi.num_free == 1:
        return
    mode[1] -= 1e-6 * float(chi.multiplicity[0] / chi.multiplicity[1])
    run = spectral_flow(0.5 * mode, 5, chi, rtol=1e-11, until_log_loss=-8.0, record={"log_loss": [0.5, -1.0, -8.0]})
    mean = (run.history.s * chi.multiplicity).sum(-1) / (K - 1)
    grown = (run.history.s[:, 0] / mean - 1) / 1e-6
    law = laws.nc_perturbation_growth(mean, torch.full_like(mean, 0.5), K, 5)
    assert torch.allclose(grown, law, rtol=1e-3)


def test_perturbation_law_symbolically():
    """Linearise the three equations of K = 4, and the covariance form of any K, about equal singular values."""
    s, s0, e, L, K = sympy.symbols("s s_0 e L K", positive=True)
    deviation = sympy.symbols("d1:4")
    values = [s + e * d for d in (deviation[0], deviation[1], -deviation[0] - deviation[1])]
    signs = [(1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1)]
    weights = [sympy.exp(sum(x * v for x, v in zip(sign, values, strict=True)) / 4) for sign in signs]
    total = sum(weights)
    g = [sum(w * (1 - sign[i]) for w, sign in zip(weights, signs, strict=True)) / total for i in range(3)]
    speed = [L * v ** (2 - 2 / L) * rate for v, rate in zip(values, g, strict=True)]
    first = [sympy.diff(x, e).subs(e, 0) / speed[0].subs(e, 0) for x in speed]
    claimed = [(2 - 2 / L) * d / s - d / 4 for d in (deviation[0], deviation[1])]
    for got, want in zip(first, claimed, strict=False):
        assert sympy.simplify(got - want) == 0
    # Any K: E χ_i = h and E χ_iχ_j = h off the diagonal make the covariance g on the deviations that sum to zero.
    h = (sympy.exp(s) - 1) / (sympy.exp(s) + K - 1)
    assert sympy.simplify((1 - h) - K / (sympy.exp(s) + K - 1)) == 0
    relative = (s / s0) ** (1 - 2 / L) * sympy.exp(-(s - s0) / K)
    rate = (1 - 2 / L) / s - 1 / K
    assert sympy.simplify(sympy.diff(sympy.log(relative), s) - rate) == 0
    assert sympy.solve(sympy.Eq(rate, 0), s) == [K * (L - 2) / L]
    assert laws.turning_point(8, 4) == 4.0 and laws.turning_point(8, 2) == 0.0


def test_separatrix():
    assert laws.late_separatrix(2) == 0.0 and laws.late_separatrix(3) == 0.125
    for depth in (3, 6):
        ratio = laws.late_separatrix(depth) * torch.tensor([0.99, 1.01], dtype=torch.float64)
        start = torch.stack([torch.full_like(ratio, 100.0), torch.full_like(ratio, 100.0), 100 * ratio], -1)
        end = spectral_flow(start, depth, "hadamard", until_log_loss=-500.0, rtol=1e-8).s
        moved = end[:, 2] / end[:, 0] / ratio
        assert moved[0] < 1 < moved[1]


def test_least_rank_is_that_of_generators():
    """Over the prime p a group (Z/p)^m takes m generators, each a pair for p > 2; cyclic groups take one."""
    groups = [("hadamard", 8), ("hadamard", 16), ((3, 3), 9), ("cyclic", 2), ("cyclic", 7), ("cyclic", 12)]
    assert [characters(*group).least_rank for group in [*groups, ((2, 6), 12)]] == [3, 4, 4, 1, 2, 2, 3]


def test_comparison_with_the_network():
    chi = characters("cyclic", 6)
    s0 = draw(2, 3)
    both = spectral.compare_with_network(s0, 3, chi, [3.0, 1.0, -5.0])
    assert both.scalar.shape == both.network.shape == (3, 2, 3) and both.off.shape == (3, 2)
    assert both.network[0].isnan().all() and both.off[0].isnan().all()  # the loss starts at 6 log 6 / 6 = 1.79 in log
    assert float((both.network[1:] / both.scalar[1:] - 1).abs().max()) < 1e-6 and float(both.off[1:].max()) < 1e-7


def test_spectra_at_margin_one():
    chi = characters("cyclic", 7)
    s = chi.at_margin_one(draw(2, 3))
    assert torch.allclose(dufm.margins(chi.logits(s)).amin((-2, -1)), torch.ones(2, dtype=torch.float64), rtol=1e-12)


def test_random_turns():
    R = spectral.random_turns(8, [1e-3, 0.3], 0)
    assert torch.allclose(R.mT @ R, torch.eye(8, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(R.sum(-1), torch.ones(2, 8, dtype=torch.float64), atol=1e-14)
    turned = torch.linalg.eigvals(R).angle().abs().amax(-1)
    assert torch.allclose(turned, torch.tensor([1e-3, 0.3], dtype=torch.float64), rtol=1e-9)
    with pytest.raises(ValueError, match="num_classes"):
        spectral.random_turns(2, [0.1], 0)


@pytest.mark.parametrize("num_classes, leaders, order", [(4, [0, 1], 2), (8, [0, 1, 2], 2), (8, [0, 1, 3], 1)])
def test_order_at_which_equal_values_of_a_turned_start_split(num_classes, leaders, order):
    """Leaders that are products of each other do not feed the entries that split them; independent ones do."""
    chi = characters("hadamard", num_classes)
    s = torch.full((chi.num_free,), 0.07, dtype=torch.float64)
    s[leaders] = 0.13
    R = spectral.random_turns(num_classes, [1e-3, 1e-2], 0)
    Z = dufm.gradient_flow(dufm.balanced_init(R @ chi.logits(s) @ R.mT, 5), rtol=1e-10, until_log_loss=0.0).Z
    values = torch.linalg.svdvals(Z)[:, : len(leaders)]
    split = (values[:, 0] - values[:, -1]).log10()
    assert abs(float(split[1] - split[0]) - order) < 0.05


# ---------------------------------------------------------------- refusals

GOOD = torch.ones(3, dtype=torch.float64)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: spectral_flow(torch.tensor([1.0, 0.0, 1.0]), 3, "hadamard"), "s0 must be positive"),
        (lambda: spectral_flow(-GOOD, 3, "hadamard"), "s0 must be positive"),
        (lambda: spectral_flow(GOOD * math.nan, 3, "hadamard"), "s0 must be finite"),
        (lambda: spectral_flow(torch.ones(4, dtype=torch.float64), 3, "hadamard"), "power of two"),
        (lambda: spectral_flow(GOOD, 3, (5,)), "s0 must have 2 entries"),
        (lambda: spectral_flow(GOOD, 3, "cyclic"), "needs its order"),
        (lambda: spectral_flow(GOOD, 3, "dihedral"), "group must be"),
        (lambda: spectral_flow(torch.ones(3, dtype=torch.complex128), 3, "hadamard"), "s0 must have a floating dtype"),
        (lambda: spectral_flow(torch.ones(3, dtype=torch.int64), 3, "hadamard"), "floating dtype"),
        (lambda: spectral_flow([1.0, 1.0, 1.0], 3, "hadamard"), "torch tensor"),
        (lambda: spectral_flow(GOOD, 1, "hadamard"), "depth must be"),
        (lambda: spectral_flow(GOOD, 3, "hadamard", rtol=0.0), "rtol must be a number from"),
        (lambda: spectral_init(GOOD, 3, "hadamard", 2), "width must be"),
        (lambda: characters("hadamard", 6), "power of two"),
        (lambda: characters("cyclic"), "num_classes must be"),
        (lambda: characters((2, 1)), "an order"),
        (lambda: characters((2, 3), 7), "num_classes must be 6"),
        (lambda: characters(()), "group must be"),
        (lambda: laws.escape_time(-GOOD, 3), "s0 must be"),
        (lambda: laws.early_singular_values(-1.0, GOOD, 3), "t must be"),
        (lambda: laws.nc_perturbation_growth(GOOD, GOOD, 1, 3), "num_classes must be"),
        (lambda: laws.late_separatrix(1), "depth must be"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_a_complex_spectrum_is_refused():
    first = torch.tensor([2.0, 1.0, 0.3, 0.2, 0.1], dtype=torch.float64)
    circulant = torch.stack([first.roll(shift) for shift in range(5)])
    with pytest.raises(ValueError, match="real spectrum"):
        characters("cyclic", 5).spectrum(circulant)
    with pytest.raises(ValueError, match="shape"):
        characters("cyclic", 6).spectrum(circulant)


def test_least_rank_of_large_groups():
    for group, least in (((2, 2, 2), 3), ((40,), 2), ((2,) * 5, 5), ((2, 2, 3), 3)):
        assert characters(group).least_rank == least


def test_a_spectrum_that_does_not_separate_has_no_margin_one():
    with pytest.raises(dufm.DufmError, match="not positive"):
        characters("hadamard", 4).at_margin_one(torch.tensor([1.0, -3.0, 1.0]))


def test_an_array_of_orders_is_refused():
    for call in (dufm.characters, lambda group: dufm.spectral_flow(torch.ones(3), 3, group)):
        with pytest.raises(DufmError, match="group must be 'hadamard'"):
            call(np.array([2, 2]))
