"""What must not matter does not: scale, shifts, order of classes, rotations, batches, precision.

And no NaN comes out of finite input; the smallest instances of what once gave one stand at the end.
"""

import math
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import CERTIFIED, LINALG, close

import dufm
from dufm import DufmError, codes, laws, lazy, networks, perturbation, weight_decay
from dufm._scaling import in_range, times_power

quick = settings(derandomize=True, deadline=None, database=None, max_examples=25)
few = settings(quick, max_examples=3)
seeds = st.integers(0, 2**32 - 1)
F64, F32 = torch.float64, torch.float32
# Powers of two that leave normal numbers some room on both sides, and those that do not.
POWERS = {F64: st.integers(-1000, 1000), F32: st.integers(-110, 110)}
SPECIAL = {
    F64: [0.0, 1.0, -1.0, 3.0, 1e-8, 1e8, 1e-155, -1e155, 1e-200, 1e200, 2.2e-308, -5e-324, 1.7e308, -1.7e308],
    F32: [0.0, 1.0, -1.0, 3.0, 1e-8, 1e8, 1e-20, -1e20, 1e-30, 1e30, 1.2e-38, -1e-45, 3e38, -3e38],
}


def rng(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *shape, dtype=F64):
    return torch.randn(*shape, generator=rng(seed), dtype=F64).to(dtype)


def separated(seed, num_classes, n_per_class=1, dtype=F64):
    """Logits that separate their classes."""
    own = 3.0 * torch.eye(num_classes, dtype=F64).repeat_interleave(n_per_class, 1)
    return (own + 0.5 * normal(seed, num_classes, num_classes * n_per_class).tanh()).to(dtype)


def rotation(seed, size, dtype=F64):
    return torch.linalg.qr(normal(seed, size, size))[0].to(dtype)


def network(seed, depth=3, width=5, num_classes=3, dtype=F64):
    factors = dufm.gaussian_init(depth, width, num_classes, seed=seed % 2**20)
    return [W[0].to(dtype) for W in factors]


def alike(found, expected, tol):
    """‖found − expected‖ within ``tol`` of ‖expected‖."""
    found, expected = found.double(), expected.double()
    away = torch.linalg.vector_norm(found - expected)
    assert away <= tol * torch.linalg.vector_norm(expected), (found, expected)


def own(Z):
    """Mask of the true class of every sample."""
    return torch.eye(Z.shape[-2], dtype=torch.bool).repeat_interleave(Z.shape[-1] // Z.shape[-2], 1)


# Functions of logits, and the power of a factor that they come out with.
LOGITS = {
    "effective_rank": (dufm.effective_rank, 0),
    "numerical_rank": (dufm.numerical_rank, 0),
    "final_rank": (dufm.final_rank, 0),
    "rank_ratio": (dufm.rank_ratio, 0),
    "margins": (lambda Z: dufm.margins(Z).masked_fill(own(Z), 0.0), 1),
    "schatten": (lambda Z: dufm.schatten(Z, 0.5), 1),
    "normalized_margin": (lambda Z: dufm.normalized_margin(Z, 3), 0),
    "kkt_residual": (lambda Z: dufm.kkt_residual(Z, 3, Z.shape[-2] - 1), 0),
    "balanced_init": (lambda Z: dufm.product(dufm.balanced_init(Z, 3)), 1),
    "nc_metrics": (lambda Z: torch.stack(list(dufm.nc_metrics(Z, Z[..., : Z.shape[-2]]).values())[1:4]), 0),
}
# And of codes, vectors as rows.
VECTORS = {
    "smallest_angle": (codes.smallest_angle, 0),
    "one_vs_rest_margin": (dufm.one_vs_rest_margin, 1),
    "separators": (lambda W: codes.separators(W)[0], 0),
    "code_logits": (codes.code_logits, 0),
    "code_matrix": (codes.code_matrix, 0),
    "project": (lambda W: perturbation.project(W @ W.mT), 2),
}
# And of factors.
FACTORS = {
    "product": (dufm.product, 3),
    "efficiency": (dufm.efficiency, 0),
    "imbalance": (lambda factors: torch.stack(dufm.imbalance(factors)), 2),
    "imbalance_drift": (lambda factors: dufm.imbalance_drift(factors, [1.1 * W for W in factors]), 0),
    "split_at": (lambda factors: dufm.split_at(factors, 2)[0], 2),
}
ALL = [(kind, name) for kind, table in (("Z", LOGITS), ("W", VECTORS), ("F", FACTORS)) for name in table]


def case(kind, name, seed, dtype):
    """A function with its degree, and an argument of ordinary size."""
    table = {"Z": LOGITS, "W": VECTORS, "F": FACTORS}[kind]
    if kind == "Z":
        return *table[name], separated(seed, 4, 2, dtype)
    if kind == "W":
        return *table[name], (dufm.simplex_etf(4) + 0.2 * normal(seed, 4, 3).tanh()).to(dtype)
    return *table[name], network(seed, dtype=dtype)


def times(argument, factor):
    return [W * factor for W in argument] if isinstance(argument, list) else argument * factor


@pytest.mark.parametrize(("kind", "name"), ALL)
@pytest.mark.parametrize("dtype", [F64, F32])
def test_scale_comes_out_as_it_goes_in(kind, name, dtype):
    @settings(quick, max_examples=12)
    @given(seeds, POWERS[dtype])
    def check(seed, power):
        function, degree, x = case(kind, name, seed, dtype)
        k = power // max(degree, 1)
        ordinary, scaled = function(x), function(times(x, 2.0**k))
        back = times_power(scaled, torch.tensor(-k * degree)) if degree else scaled
        alike(back, ordinary, LINALG[dtype])

    check()


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_a_batch_is_its_members_whatever_their_scales(kind, name):
    @settings(quick, max_examples=5)
    @given(seeds, st.lists(st.integers(-300, 300), min_size=2, max_size=3))
    def check(seed, powers):
        members = []
        for index, power in enumerate(powers):
            function, degree, x = case(kind, name, seed + index, F64)
            members.append(times(x, 2.0 ** (power // max(degree, 1))))
        batch = [torch.stack(parts) for parts in zip(*members, strict=True)] if kind == "F" else torch.stack(members)
        together, at = function(batch), {"nc_metrics": 1, "imbalance": 1, "project": 1}.get(name, 0)
        for index, member in enumerate(members):
            alike(together.select(at, index), function(member), 1e-12)

    check()


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_float32_is_float64_to_its_digits(kind, name):
    @settings(quick, max_examples=8)
    @given(seeds)
    def check(seed):
        function, _, x = case(kind, name, seed, F64)
        low = [W.float() for W in x] if kind == "F" else x.float()
        high = [W.double() for W in low] if kind == "F" else low.double()
        alike(function(low), function(high), 1e-3)

    check()


@quick
@given(seeds, st.integers(2, 6), st.integers(1, 3), st.floats(-50, 50))
def test_a_common_shift_of_a_samples_logits_changes_no_margin_and_no_loss(seed, num_classes, n_per_class, size):
    Z = separated(seed, num_classes, n_per_class)
    moved = Z + size * normal(seed + 1, 1, Z.shape[1])
    close(dufm.margins(moved)[~own(Z)], dufm.margins(Z)[~own(Z)], 1e-12)
    close(dufm.log_loss(moved), dufm.log_loss(Z), 1e-12)
    close(dufm.log_loss_residual(moved), dufm.log_loss_residual(Z), 1e-12)
    assert dufm.final_rank(moved) == dufm.final_rank(Z)
    close(dufm.rank_ratio(moved), dufm.rank_ratio(Z), 1e-10)
    rank = num_classes - 1
    close(dufm.kkt_residual(moved, 3, rank), dufm.kkt_residual(Z, 3, rank), CERTIFIED)


@quick
@given(seeds, st.integers(2, 6), st.integers(1, 3))
def test_classes_have_no_order(seed, num_classes, n_per_class):
    Z = separated(seed, num_classes, n_per_class)
    order = torch.randperm(num_classes, generator=rng(seed))
    moved = Z[order].unflatten(1, (num_classes, n_per_class))[:, order].flatten(1)
    for name in ("effective_rank", "numerical_rank", "final_rank", "schatten", "normalized_margin", "kkt_residual"):
        close(LOGITS[name][0](moved), LOGITS[name][0](Z), CERTIFIED if name == "kkt_residual" else 1e-12)
    close(dufm.log_loss(moved), dufm.log_loss(Z), 1e-13)
    gaps = dufm.margins(Z)[order].unflatten(1, (num_classes, n_per_class))[:, order].flatten(1)
    assert torch.equal(dufm.margins(moved), gaps)


@quick
@given(seeds, st.integers(3, 6))
def test_singular_values_know_no_transposition_and_codes_no_rotation(seed, size):
    Z = separated(seed, size)
    for name in ("effective_rank", "numerical_rank", "schatten"):
        close(LOGITS[name][0](Z.mT), LOGITS[name][0](Z), 1e-12)
    Q, W = rotation(seed, size - 1), dufm.simplex_etf(size) + 0.1 * normal(seed, size, size - 1).tanh()
    for name, (function, _) in VECTORS.items():
        expected = function(W) @ Q if name == "separators" else function(W)
        close(function(W @ Q), expected, 1e-10)
    features, classifier = normal(seed + 2, size - 1, 2 * size), normal(seed + 3, size, size - 1)
    plain, turned = dufm.nc_metrics(features, classifier), dufm.nc_metrics(Q @ features, classifier @ Q.mT)
    for name, value in plain.items():
        close(turned[name], value, 1e-10)


@few
@given(seeds)
def test_the_flow_knows_no_basis_no_order_and_no_neighbours(seed):
    factors, options = network(seed), {"rtol": 1e-8, "until_log_loss": -10.0}
    run = dufm.gradient_flow(factors, **options)
    Q, order = rotation(seed, 5), torch.randperm(3, generator=rng(seed))
    first, middle, last = factors
    turned = dufm.gradient_flow([Q @ first, Q @ middle @ Q.mT, last @ Q.mT], **options)
    moved = dufm.gradient_flow([first[:, order], middle, last[order]], **options)
    other = network(seed + 1)
    both = dufm.gradient_flow([torch.stack(pair) for pair in zip(factors, other, strict=True)], **options)
    for log_time in (turned.log_time, moved.log_time, both.log_time[0]):
        close(log_time, run.log_time, 1e-6)
    for Z in (turned.Z, moved.Z[torch.argsort(order)][:, torch.argsort(order)], both.Z[0]):
        alike(Z, run.Z, 1e-5)
    low = dufm.gradient_flow([W.float() for W in factors], rtol=1e-4, until_log_loss=-10.0)
    assert low.log_loss.dtype == F32 and abs(float(low.log_time - run.log_time)) < 0.05


@few
@given(seeds, st.integers(2, 5))
def test_the_spectral_flow_knows_no_names_of_characters_and_no_neighbours(seed, depth):
    s0 = 0.1 * normal(seed, 3).abs() + 0.01
    options = {"rtol": 1e-8, "until_log_loss": -10.0}
    run = dufm.spectral_flow(s0, depth, "hadamard", **options)
    order = torch.randperm(3, generator=rng(seed))  # of K = 4 every order of the characters is an automorphism
    moved = dufm.spectral_flow(torch.stack([s0[order], 2 * s0]), depth, "hadamard", **options)
    alike(moved.s[0], run.s[order], 1e-6)
    close(moved.log_time[0], run.log_time, 1e-6)


# ---------------------------------------------------------------- finite in, finite out


def refuses_or_is_finite(function, *arguments, **options):
    """A finite result, or one line of refusal."""
    try:
        found = function(*arguments, **options)
    except DufmError as error:
        assert "\n" not in str(error), error
        return None
    for part in found if isinstance(found, (tuple, list)) else [found]:
        numbers = part if isinstance(part, torch.Tensor) else torch.tensor(part, dtype=F64)
        assert torch.isfinite(numbers).all(), (found, arguments)
    return found


def matrices(dtype, rows, columns):
    return st.lists(st.sampled_from(SPECIAL[dtype]), min_size=rows * columns, max_size=rows * columns).map(
        lambda values: torch.tensor(values, dtype=dtype).reshape(rows, columns)
    )


@pytest.mark.parametrize("dtype", [F64, F32])
def test_logits_of_any_size_give_numbers_or_a_refusal(dtype):
    @settings(quick, max_examples=60)
    @given(matrices(dtype, 3, 6))
    def check(Z):
        for name in ("effective_rank", "numerical_rank", "final_rank", "rank_ratio", "margins", "schatten"):
            refuses_or_is_finite(LOGITS[name][0], Z)
        refuses_or_is_finite(dufm.log_loss, Z)
        refuses_or_is_finite(dufm.log_loss_residual, Z)
        refuses_or_is_finite(dufm.balanced_init, Z, 3)
        if Z.any():
            refuses_or_is_finite(dufm.normalized_margin, Z, 3)
        metrics = dufm.nc_metrics(Z, Z[:, :3].mT.contiguous(), 2)
        assert set(metrics) == {"nc1", "trace_ratio", "nc2", "nc3", "rank"}
        assert not any(value.isinf() for value in metrics.values())
        certificate = dufm.kkt_certificate(Z, 3, 2)
        assert not certificate.residual.isnan() and not certificate.gap.isnan()
        refuses_or_is_finite(lambda: dufm.end(Z, 3).decided)

    check()


@pytest.mark.parametrize("dtype", [F64, F32])
def test_codes_of_any_size_give_numbers_or_a_refusal(dtype):
    @settings(quick, max_examples=40)
    @given(matrices(dtype, 4, 3))
    def check(W):
        for function, _ in VECTORS.values():
            refuses_or_is_finite(function, W)
        refuses_or_is_finite(codes.class_code, W[:3], 2)

    check()


@pytest.mark.parametrize("dtype", [F64, F32])
def test_factors_of_any_size_give_numbers_or_a_refusal(dtype):
    @settings(quick, max_examples=30)
    @given(matrices(dtype, 4, 3), matrices(dtype, 4, 4), matrices(dtype, 3, 4))
    def check(first, middle, last):
        factors = [first, middle, last]
        refuses_or_is_finite(dufm.product, factors)
        refuses_or_is_finite(dufm.imbalance, factors)
        refuses_or_is_finite(dufm.imbalance_drift, factors, factors)
        refuses_or_is_finite(dufm.split_at, factors, 1)
        if all(W.any() for W in factors):
            refuses_or_is_finite(dufm.efficiency, factors)
        refuses_or_is_finite(lambda: dufm.gradient_flow(factors, max_steps=5).log_loss)
        refuses_or_is_finite(lambda: dufm.gradient_flow(factors, max_steps=5).Z)

    check()


@quick
@given(*[st.floats(min_value=5e-324, max_value=1.79e308)] * 2, st.integers(2, 50), st.integers(2, 5000))
def test_laws_give_numbers_or_a_refusal(s, s0, num_classes, depth):
    growth = refuses_or_is_finite(dufm.nc_perturbation_growth, s, s0, num_classes, depth)
    assert growth is None or growth >= 0
    if depth > 2:
        refuses_or_is_finite(dufm.escape_time, s0, depth)
        early = dufm.early_singular_values(0.0, s0, depth)
        assert math.isclose(early, s0, rel_tol=1e-12)
    else:
        refuses_or_is_finite(dufm.early_singular_values, s, s0, depth)
    refuses_or_is_finite(dufm.nc_log_loss, s, num_classes)
    refuses_or_is_finite(dufm.late_separatrix, depth, s)
    refuses_or_is_finite(laws.collapse_log_time, -s, s0, num_classes, depth)
    for family in perturbation.FAMILIES[:3]:
        refuses_or_is_finite(perturbation.family_growth, family, s, s0, num_classes, depth)


@settings(quick, max_examples=10)
@given(st.lists(st.sampled_from([x for x in SPECIAL[F64] if x > 0]), min_size=3, max_size=3), st.integers(2, 5))
def test_spectra_of_any_size_give_numbers_or_a_refusal(values, depth):
    s0 = torch.tensor(values, dtype=F64)
    refuses_or_is_finite(lambda: dufm.spectral_flow(s0, depth, "hadamard", max_steps=5).s)
    refuses_or_is_finite(perturbation.forces, s0, "hadamard")
    refuses_or_is_finite(dufm.characters("hadamard", 4).at_margin_one, s0)
    refuses_or_is_finite(dufm.characters("hadamard", 4).spectrum, torch.diag(torch.cat([s0, s0[:1]])))
    refuses_or_is_finite(dufm.spectral_init, s0, depth, "hadamard")


@settings(quick, max_examples=8)
@given(seeds, st.integers(-900, 900))
def test_a_diagnosis_has_no_scale(seed, power):
    labels = [0, 0, 1, 1, 2, 2, 0]
    logits = separated(seed, 3, 2).mT[[0, 1, 2, 3, 4, 5, 0]]
    plain, scaled = (dufm.diagnose(x, labels, depth=3) for x in (logits, logits * 2.0**power))
    for field in ("effective_rank", "stable_rank", "distance", "margin_ratio"):
        assert math.isclose(getattr(plain, field), getattr(scaled, field), rel_tol=1e-9, abs_tol=1e-9)
    assert (plain.rank, plain.name, plain.decided) == (scaled.rank, scaled.name, scaled.decided)
    assert scaled.margins == tuple(x * 2.0**power for x in plain.margins)
    assert all(math.isclose(plain.nc[key], scaled.nc[key], rel_tol=1e-9) for key in plain.nc)


@quick
@given(matrices(F64, 2, 3), matrices(F32, 2, 3))
def test_scaling_is_exact_and_leaves_ordinary_sizes_alone(double, single):
    for x in (double, single):
        y, e = in_range(x)
        assert torch.equal(torch.where(y.abs() >= torch.finfo(x.dtype).tiny, times_power(y, e), x), x)
        assert not x.any() or 2.0**-9 <= y.abs().max() < 2.0**7
        ordinary = x.sign() + 2.5
        assert in_range(ordinary)[0] is ordinary


# ---------------------------------------------------------------- the smallest instances


def test_squares_of_what_is_very_large_or_small():
    triangle, pentagon = dufm.polygon(3), dufm.polygon(5)
    assert math.isclose(dufm.one_vs_rest_margin(triangle * 1e100) / 1e100, 1.5, rel_tol=1e-12)
    for power in (-47, -500, 500):  # off by 1e-5 and more
        margin = dufm.one_vs_rest_margin(pentagon * 2.0**power) / 2.0**power
        assert math.isclose(margin, dufm.one_vs_rest_margin(pentagon), rel_tol=1e-14)
    for scale in (1e160, 1e-160):
        assert math.isclose(codes.smallest_angle(pentagon * scale), 72.0, rel_tol=1e-12)
    assert math.isclose(codes.smallest_angle(pentagon.float() * 1e-25), 72.0, rel_tol=1e-5)
    labels = [0, 1, 0]
    for scale in (1e-20, 1e-200, 1e200):
        ones = scale * torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, -1.0]], dtype=F64)
        assert math.isclose(dufm.diagnose(ones, labels).stable_rank, 1.0)
    features, classifier = normal(0, 3, 6, dtype=F32), torch.eye(3)
    for scale in (1e10, 1e-25):
        plain, scaled = dufm.nc_metrics(features, classifier), dufm.nc_metrics(features * scale, classifier)
        close(scaled["nc2"], plain["nc2"], 1e-5)
    for matrix in (torch.eye(3, dtype=F64) * 1e-320, torch.eye(3, dtype=F64) * 1.7e308, torch.eye(3) * 1e-43):
        close(dufm.normalized_margin(matrix, 3), 3**-1.5, 1e-6)
    close(dufm.end(torch.eye(3, dtype=F64) * 1e-310, 3).margin_ratio, 1.0, 1e-9)


def test_powers_that_cancel():
    assert dufm.nc_perturbation_growth(1.8e8, 1e-300, 2, 3) == 0.0
    eye = torch.eye(2, dtype=F64)
    close(dufm.product([eye * 1e200, eye * 1e200, eye * 1e-300]) / 1e100, eye, 1e-12)
    factors = network(0)
    for scale in (1e200, 1e-200):
        large = [W * scale for W in factors]
        close(dufm.efficiency(large), dufm.efficiency(factors), 1e-12)
        drift = [dufm.imbalance_drift(part, [1.1 * W for W in part]) for part in (large, factors)]
        close(drift[0], drift[1], 1e-12)
    assert dufm.early_singular_values(400.0, 1e-300, 2) > 1e46
    assert weight_decay.critical_decay(1000, 10) == 0.0
    # I − P is exactly 0 beyond a margin of 745, the rate at which it moves the logits of c³·I is Σ c⁴.
    close(lazy.logit_rate([12.0 * torch.eye(4, dtype=F64)] * 3), 3 * 12.0**4, 1e-9)
    assert math.isclose(laws.collapse_log_time(-1.0, 1e-300, 4, 3), -math.log(3) + math.log(1e-300) / -3, rel_tol=0.01)


HUGE = [W * 1e200 for W in network(0)]
WEIGHTS = networks.he_init(3, 5, 4, 3, seed=0)
DATA = (normal(1, 4, 6), torch.arange(6) % 3)
BEYOND = [
    (lambda: dufm.product(HUGE), "factors: the product"),
    (lambda: dufm.imbalance(HUGE), "factors: an imbalance"),
    (lambda: dufm.split_at(HUGE, 2), "factors: a product"),
    (lambda: dufm.gradient_flow(HUGE), "factors: the loss of the start"),
    (lambda: dufm.gradient_flow([W.float() * 1e20 for W in network(0)]), "factors: the loss of the start"),
    (lambda: dufm.gradient_flow([W * 1e-200 for W in network(0)]), "factors: the slope of the start is below"),
    (lambda: dufm.spectral_flow(torch.full((3,), 1.7e308, dtype=F64), 3, "hadamard"), "s0: the loss of the start"),
    (lambda: networks.train([W * 1e103 for W in WEIGHTS], *DATA), "weights: the loss of the start"),
    (lambda: networks.forward([W * 1e110 for W in WEIGHTS], DATA[0]), "weights: an output"),
    (lambda: dufm.schatten(torch.eye(4), 1e-3), "Z: its norm at p = 0.001"),
    (lambda: dufm.margins(torch.tensor([[1.7e308, 0.0], [-1.7e308, 0.0]], dtype=F64)), "Z: a margin"),
    (lambda: dufm.log_loss(torch.tensor([[1.7e308, 0.0], [-1.7e308, 0.0]], dtype=F64)), "Z: a difference of its"),
    (lambda: dufm.gaussian_init(3, 4, 3, scale=1.7e308, seed=0), "scale: an entry"),
    (lambda: dufm.late_separatrix(3, 1e-300), "beta: the ratio"),
    (lambda: dufm.escape_time(5e-324, 10_000), "s0: the time"),
    (lambda: dufm.early_singular_values(1e9, 0.1, 2), "t: the value"),
    (lambda: laws.collapse_log_time(800.0, 0.1, 4, 3), "log_loss must be below"),
    (lambda: codes.smallest_angle(torch.zeros(3, 2)), "W must have no row of zeros"),
    (lambda: dufm.linear_network_flow(torch.eye(3), [W for W in network(0)], [0.0]), "weights: W_1 must have"),
    (lambda: dufm.first_layer(torch.eye(2), torch.eye(3), torch.eye(3)), "H must have shape"),
]


@pytest.mark.parametrize(("call", "message"), BEYOND, ids=range(len(BEYOND)))
def test_what_no_number_answers_is_refused_by_name(call, message):
    with pytest.raises(DufmError, match=message):
        call()


def test_metrics_of_features_that_do_not_differ_are_undefined_one_by_one():
    rank_one = torch.outer(torch.arange(3.0), torch.arange(3.0))
    features = torch.stack([torch.zeros(3, 3), torch.ones(3, 3), rank_one, torch.eye(3)]).double()
    found = dufm.nc_metrics(features, torch.eye(3, dtype=F64).expand(4, 3, 3))
    for name in ("nc1", "trace_ratio", "nc2", "nc3"):
        assert found[name].isnan().tolist() == [True, True, False, False]


@pytest.mark.parametrize("rtol", [0.1, 0.01, 1e-4])
@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_what_is_reached_has_been_reached(rtol, scale):
    """At scale 30 a run was called reached at −21, and at −1154, and at 1000 one at −9·10⁶, for a target of −200."""
    start = dufm.gaussian_init(3, 4, 4, seed=3, batch=512, scale=scale)
    run = dufm.gradient_flow(start, rtol=rtol, max_steps=60)
    reached = torch.from_numpy(run.status == "reached") & (run.steps > 0)
    assert reached.any()
    # A product of three 4 × 4 matrices is rounded by at most 8 u |W_3||W_2||W_1|, a margin is a difference of two.
    W = [factor.abs() for factor in run.factors]
    precision = 1e-10 * 200 + 8 * torch.finfo(F64).eps * (W[2] @ W[1] @ W[0]).amax((-2, -1))
    assert ((run.log_loss + 200).abs() < precision)[reached].all()
    assert torch.equal(dufm.log_loss(run.Z), run.log_loss)


def test_where_no_length_of_the_last_step_ends_at_the_target_half_of_it_is_taken():
    """Of all lengths of this network's step from 1.7 the nearest ends 6.5e-9 away from −200."""
    start = [factor[21:22] for factor in dufm.gaussian_init(3, 4, 4, seed=1, batch=32, scale=100.0)]
    run = dufm.gradient_flow(start, rtol=0.1)
    assert run.status == ["reached"] and abs(float(run.log_loss) + 200) < 2e-9


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_what_is_returned_belongs_together(shape):
    """Logits and loss were summed in other orders, which at scale 1000 shows in the tenth digit."""
    drawn = dufm.gaussian_init(3, 8, 4, seed=0, batch=3, scale=1e3)
    start = [W[: math.prod(shape)].reshape(*shape, *W.shape[1:]) for W in drawn]
    run = dufm.gradient_flow(start, rtol=1e-2, max_steps=20)
    assert torch.equal(dufm.log_loss(run.Z), run.log_loss)
    ordinary = [W / 1e3 for W in start]
    run = dufm.gradient_flow(ordinary, until_log_loss=-5.0, record={"log_loss": [-1.0, -5.0]})
    assert torch.equal(dufm.log_loss(run.history.Z), run.history.log_loss)
    run = dufm.gradient_descent(ordinary, lr=0.01, steps=20, record=[0, 7, 20])
    assert torch.equal(dufm.log_loss(run.history.Z), run.history.log_loss)
    assert torch.equal(dufm.log_loss(run.Z), run.log_loss)


def test_records_of_a_run_that_stopped_are_whole_or_absent():
    start = dufm.gaussian_init(3, 4, 4, seed=0, batch=4)
    history = dufm.gradient_flow(start, max_steps=12, record={"log_loss": [1.0, 0.0, -5.0, -50.0]}).history
    parts = [history.log_loss, history.log_time, *(W.sum((-2, -1)) for W in history.factors), history.Z.sum((-2, -1))]
    absent = history.log_loss.isnan()
    assert absent.any() and not absent.all() and (absent.long().diff(dim=0) >= 0).all()
    for part in parts:
        assert torch.equal(part.isnan(), absent)


@pytest.mark.parametrize("num_classes", [3, 4])
@pytest.mark.parametrize("scale", [1e-4, 1e-8])
def test_from_saddle_to_saddle_and_home(num_classes, scale):
    """Small starts once spent all their steps on the way past the first saddle."""
    start = dufm.gaussian_init(3, 8, num_classes, seed=0, batch=2, scale=scale)
    run = dufm.gradient_flow(start, max_steps=2000)
    assert (run.status == "reached").all() and (run.steps < 1000).all()
    assert (dufm.imbalance_drift(start, run.factors) < 1e-3).all()


@pytest.mark.parametrize("num_classes", [16, 24, 32])
def test_the_polish_of_an_exact_simplex_is_quick(num_classes):
    begun = time.process_time()
    solved = dufm.polish(torch.eye(num_classes, dtype=F64) - 1 / num_classes, 3)
    assert solved.decided and solved.moved < 1e-12 and not solved.fallback
    assert time.process_time() - begun < 10
