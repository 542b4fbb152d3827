"""Ends of runs: the limit against closed forms, over sharpness, against the flow itself; reasons; gauge."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tolerances import CERTIFIED, LINALG, close

import dufm
from dufm import DufmError, closed_form_margin, ends, gaussian_init, gradient_flow, margins, polygon, simplex_etf
from dufm.codes import code_matrix, name_of, pairs_and_singles
from dufm.ends import End, Limit, columns, end, limit, spectral_end, spectral_limit
from dufm.metrics import centred

TOL = LINALG[torch.float64]
KNOWN = {name: pairs_and_singles(6, t) for name, t in (("NC", 0), ("2 pairs, 2 single", 2), ("orthoplex", 3))}


@pytest.fixture(scope="module")
def six():
    """Random networks at K = 6, L = 3, brought to margin 200."""
    return gradient_flow(gaussian_init(3, 16, 6, scale=0.5, batch=12, seed=0))


@pytest.fixture(scope="module")
def six_ends(six):
    return end(six, 3)


# ---------------------------------------------------------------- the limit


def test_the_limit_rests_at_closed_form_points(six, six_ends):
    found = limit(six)
    assert (found.status == "rests").all() and (found.turning < 1e-8).all() and (found.growth > 0).all()
    close(dufm.log_loss(found.Z), torch.full((12,), -1e4, dtype=torch.float64), 1e-6)
    Z = centred(found.Z)
    Z = Z / margins(Z).amin((-2, -1))[:, None, None]
    for matrix, name in zip(Z, six_ends.name, strict=True):
        # Up to a renumbering of the classes, and O(1/sharpness).
        close(torch.linalg.svdvals(matrix), torch.linalg.svdvals(KNOWN[name]), 30 / 1e4)
    # Kept values grow with the margin, dropped ones have frozen.
    for rates, rank in zip(found.rates, six_ends.rank.tolist(), strict=True):
        close(rates[:rank], torch.ones(rank, dtype=torch.float64), 1e-3)
        assert rates[rank:].abs().max() < 0.05


def test_a_resting_point_is_stationary_with_the_softmax_weights():
    # Balanced starts: nothing is frozen, and the whole of W rests, not only Z.
    noise = torch.sin(torch.arange(16, dtype=torch.float64)).view(4, 4)
    start = dufm.balanced_init(centred(12.0 * code_matrix(simplex_etf(4)) + 0.1 * noise), 4)
    found = limit(start)
    assert found.status == "rests"
    for factor, turned in zip(found.factors, gradient_of(found.factors), strict=True):
        unit = factor / torch.linalg.matrix_norm(factor)
        close(turned / torch.linalg.matrix_norm(turned), unit, 1e-7)


def gradient_of(factors):
    """−∂ log ℒ/∂W_l by autograd, from the exact log-sum-exp of the gaps."""
    leaves = [factor.clone().requires_grad_() for factor in factors]
    Z = leaves[0]
    for leaf in leaves[1:]:
        Z = leaf @ Z
    gaps = Z - Z.diagonal()
    mask = ~torch.eye(len(Z), dtype=torch.bool)
    return torch.autograd.grad(-torch.logsumexp(gaps[mask], 0), leaves)


def test_ends_agree_over_sharpness_and_with_the_flow_itself(six, six_ends):
    for sharpness in (1e3, 1e5):
        assert end(limit(six, sharpness=sharpness), 3).name.tolist() == six_ends.name.tolist()
    far = gradient_flow(six.factors, until_log_loss=-1e6)
    read = end(far.Z, 3)
    # The flow has not rested at −10⁶; where its logits are near a certified solution, it is the limit's.
    agree = read.decided.numpy()
    assert agree.sum() >= 6 and (read.name[agree] == six_ends.name[agree]).all()


def test_the_spectral_limit_agrees_with_the_sign_of_the_late_change():
    generator = torch.Generator().manual_seed(3)
    s0 = 0.1 * torch.rand(60, 3, generator=generator, dtype=torch.float64)
    run = dufm.spectral_flow(s0, 3, "hadamard", until_log_loss=-3e4, record={"log_loss": [-1e3, -3e4]})
    ordered = run.history.s.sort(-1).values
    collapses = (ordered[1, :, 0] / ordered[1, :, 2] > ordered[0, :, 0] / ordered[0, :, 2]) | (
        ordered[1, :, 0] > 0.999 * ordered[1, :, 2]
    )
    found = spectral_end(s0, 3, "hadamard")
    assert found.decided.all() and 0 < int(collapses.sum()) < 60
    assert torch.equal(found.rank == 3, collapses)


def test_scalar_and_full_networks_have_one_limit():
    s0 = torch.tensor([[1.0, 0.9, 0.5], [1.0, 1.0, 0.02]], dtype=torch.float64)
    few, rates, status = spectral_limit(s0, 4, "hadamard")
    assert (status == "rests").all()
    full = limit(dufm.spectral_init(s0, 4, "hadamard"))
    assert (full.status == "rests").all()
    sigma = torch.linalg.svdvals(full.Z)[:, :3]
    close(sigma / sigma[:, :1], few.sort(-1, descending=True).values / few.amax(-1, keepdim=True), 1e-6)
    assert ((rates > 0.5).sum(-1) == torch.tensor([3, 2])).all()


# ---------------------------------------------------------------- the end


def test_every_run_is_decided_and_certified(six_ends):
    assert isinstance(six_ends, End) and six_ends.decided.all() and (six_ends.reason == "").all()
    assert set(six_ends.name) <= set(KNOWN)
    assert six_ends.certificate.holds(CERTIFIED).all() and (six_ends.moved < 1e-2).all()
    close(margins(six_ends.Z).amin((-2, -1)), torch.ones(12), TOL)
    ratio = dufm.normalized_margin(six_ends.Z, 3) / closed_form_margin("nc", 6, 3)
    close(six_ends.margin_ratio, ratio, TOL)
    for name, rank, beta in zip(six_ends.name, six_ends.rank.tolist(), six_ends.beta, strict=True):
        assert rank == {"NC": 5, "2 pairs, 2 single": 4, "orthoplex": 3}[name]
        exact = dufm.off_range_values(KNOWN[name], 3, dufm.kkt_certificate(KNOWN[name], 3, rank))
        close(beta, exact, 1e-6)


def test_columns_of_a_table(six, six_ends):
    held = six_ends.decided.clone()
    held[0] = False
    rows = columns(replace(six_ends, decided=held))
    assert {len(column) for column in rows.values()} == {12}
    assert rows["end"].tolist() == six_ends.name.tolist() and rows["network"].tolist() == list(range(12))
    assert np.isnan(rows["margin_ratio"][0]) and np.isnan(rows["moved"][0])
    close(torch.from_numpy(rows["margin_ratio"][1:]), six_ends.margin_ratio[1:], 0.0)
    assert "slowest_kept" not in rows
    found = limit(six)
    rows = columns(end(found, 3), found)
    for i, rank in enumerate(rows["rank"]):
        assert rows["slowest_kept"][i] == found.rates[i, :rank].min() > 0.9
        assert rows["fastest_dropped"][i] == found.rates[i, rank:].max() < 0.1


def test_distance_sees_neither_size_nor_shift(six_ends):
    Z = torch.stack([six_ends.Z, 1.1 * six_ends.Z, -six_ends.Z]) + 3.0
    close(ends.distance(Z[:2], six_ends.Z), torch.zeros(2, 12), 1e-12)
    assert ends.distance(Z[2], six_ends.Z).isnan().all()
    close(ends.distance(Z[0], 1e200 * six_ends.Z), torch.ones(12), 1e-12)
    assert ends.distance(Z[0, :1], six_ends.Z[:0]).shape == (0,)
    other = six_ends.Z.clone()
    other[:, 0, 0] += 0.3  # the smallest margin stays 1; the centred change has norm 0.3·√(1 − 1/6)
    away = ends.distance(other, six_ends.Z) * torch.linalg.matrix_norm(six_ends.Z)
    assert away.tolist() == pytest.approx([0.3 * (5 / 6) ** 0.5] * 12, rel=1e-9)


def test_a_common_shift_changes_no_end(six, six_ends):
    shifted = end(six_ends.Z + 40.0 * torch.linspace(-1, 1, 6, dtype=torch.float64), 3)
    assert shifted.decided.all() and shifted.name.tolist() == six_ends.name.tolist()
    # In the factors the shift is a common row added to the classifier.
    found = limit(six)
    last = found.factors[-1] + 3.0 * found.factors[-1].norm() * torch.ones(6, 1, dtype=torch.float64)
    moved = Limit([*found.factors[:-1], last], found.growth, found.turning, found.rates, 1e4, found.status)
    assert end(moved, 3).rank.tolist() == six_ends.rank.tolist()


def test_shapes_of_batches_and_single_networks():
    factors = gaussian_init(3, 8, 4, scale=0.7, batch=4, seed=1)
    flat = end(factors, 3)
    nested = end([f.reshape(2, 2, *f.shape[1:]) for f in factors], 3)
    single = end([f[2] for f in factors], 3)
    assert nested.name.shape == nested.rank.shape == nested.reason.shape == (2, 2)
    assert nested.certificate.multipliers.shape == (2, 2, 4, 4) and nested.beta.shape == (2, 2, 3)
    assert nested.name.ravel().tolist() == flat.name.tolist()
    assert single.Z.shape == (4, 4) and single.rank.shape == () and single.name.item() == flat.name[2]


def test_several_samples_two_classes_and_a_bottleneck():
    many = end(gaussian_init(3, 12, 4, scale=0.7, n_per_class=3, batch=3, seed=0), 3)
    assert many.decided.all() and many.Z.shape == (3, 4, 12)
    collapsed = many.name == "NC"
    close(many.margin_ratio[collapsed], torch.ones(int(collapsed.sum()), dtype=torch.float64), 1e-8)
    two = end(gaussian_init(3, 8, 2, scale=0.7, batch=3, seed=0), 3)
    assert (two.name == "NC").all() and (two.rank == 1).all()
    narrow = end(gaussian_init(3, 2, 5, scale=0.7, batch=4, seed=0), 3)
    assert (narrow.name == "polygon").all()
    ratio = closed_form_margin("polygon", 5, 3) / closed_form_margin("nc", 5, 3)
    close(narrow.margin_ratio, torch.full((4,), ratio, dtype=torch.float64), 1e-8)


# ---------------------------------------------------------------- what is undecided says why


def test_reasons():
    zero = [torch.zeros(2, 6, 4).double(), torch.zeros(2, 6, 6).double(), torch.zeros(2, 4, 6).double()]
    found = limit(zero)
    assert (found.status == "stalled at a saddle of rank 0").all() and found.growth.isnan().all()
    stalled = end(found, 3)
    assert not stalled.decided.any() and (stalled.reason == found.status).all() and (stalled.name == "undecided").all()
    assert stalled.rank.eq(0).all() and stalled.Z.isnan().all() and stalled.margin_ratio.isnan().all()

    unseparated = end(torch.zeros(3, 4, 4, dtype=torch.float64), 3)
    assert (unseparated.reason == "the classes are not separated").all()

    turning = end(limit(gaussian_init(3, 16, 6, scale=0.5, batch=4, seed=0), until_growth=0.5), 3)
    assert (turning.reason == "still turning").any()

    far = centred(torch.eye(5, dtype=torch.float64)) + torch.diag(torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0]).double())
    assert str(end(far, 3).reason) == "no certified solution within 10%"

    rested = limit(gaussian_init(3, 16, 6, scale=0.5, batch=2, seed=0))
    denied = Limit(
        rested.factors, rested.growth, rested.turning, torch.ones_like(rested.rates), rested.sharpness, rested.status
    )
    below = end(rested, 3).rank < 6
    assert below.all() and not end(denied, 3).decided.any()
    assert all("singular values grow" in reason for reason in end(denied, 3).reason)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: limit(gaussian_init(3, 8, 4, seed=0), sharpness=50.0), "sharpness must be at least 100"),
        (lambda: limit(gaussian_init(3, 8, 4, seed=0), sharpness=math.inf), "sharpness must be a finite positive"),
        (lambda: limit(gaussian_init(3, 8, 4, seed=0), until_growth=0.0), "until_growth must be a finite positive"),
        (lambda: limit(gaussian_init(2, 4, 41, seed=0)), "at most 1500 of them, got 1640"),
        (lambda: limit([torch.eye(3)]), "depth must be at least 2"),
        (lambda: end(gaussian_init(3, 8, 4, seed=0), 4), "depth must be the run's own, 3, got 4"),
        (lambda: end(torch.eye(4).half(), 3), "got torch.float16"),
        (lambda: limit([f.bfloat16() for f in gaussian_init(3, 8, 4, seed=0)]), "got torch.bfloat16"),
        (lambda: end(torch.full((4, 4), math.nan), 3), "run must be finite"),
        (lambda: spectral_limit(torch.ones(3).double(), 3, "hadamard", sharpness=1.0), "sharpness must be at least"),
        (lambda: spectral_end(torch.ones(4).double(), 3, "hadamard"), "power of two"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(DufmError, match=says):
        call()


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("num_classes", [4, 5, 6, 7, 8])
def test_pairs_and_singles(num_classes):
    for pairs in range(num_classes // 2 + 1):
        Z = pairs_and_singles(num_classes, pairs)
        close(margins(Z).amin(), 1.0, TOL)
        close(Z.sum(-2), torch.zeros(num_classes), TOL)
        sigma = [2.0] * pairs + [1.0] * max(num_classes - 2 * pairs - 1, 0)
        if 0 < pairs < num_classes / 2:
            sigma.append(math.sqrt(2 * pairs / num_classes))
        sigma = sorted(sigma, reverse=True)
        expected = torch.tensor(sigma + [0.0] * (num_classes - len(sigma)), dtype=torch.float64)
        close(torch.linalg.svdvals(Z), expected, TOL)
        for depth in (2, 3, 4, 6):
            residual = dufm.kkt_residual(Z, depth, len(sigma))
            assert residual > 0.1 if pairs == 1 else residual < 1e-12


def test_names_do_not_depend_on_the_numbering_of_classes():
    order = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    known = {
        "NC": pairs_and_singles(8, 0),
        "orthoplex": pairs_and_singles(8, 4),
        "2 pairs, 4 single": pairs_and_singles(8, 2),
        "polygon": code_matrix(polygon(8)),
        "cube": code_matrix(dufm.hypercube(8)),
        "antiprism": code_matrix(dufm.softmax_code(8, 3).vectors),
    }
    for name, Z in known.items():
        assert name_of(Z[order][:, order]).item() == name
    Petersen = code_matrix(dufm.softmax_code(10, 4).vectors)
    assert name_of(Petersen).item() == "Petersen"
    other = known["antiprism"] + 1e-3 * known["cube"]
    assert name_of(other / margins(other).amin()).item() == "rank 6"
    batch = torch.stack([known["NC"], torch.full((8, 8), math.nan, dtype=torch.float64)])
    assert name_of(batch).tolist() == ["NC", ""] and isinstance(name_of(batch), np.ndarray)


@pytest.mark.parametrize(("group", "num_classes"), [("hadamard", 64), ((70,), 70), ((2, 2, 2, 2, 3), 48)])
def test_many_characters_are_decided_like_few(group, num_classes):
    free = dufm.characters(group, num_classes if group == "hadamard" else None).num_free
    found = spectral_end(torch.full((free,), 0.5).double(), 3, group)
    assert found.decided and found.rank == num_classes - 1


def test_single_precision_is_followed_in_double():
    start = [W.float() for W in gaussian_init(3, 6, 6, seed=0, batch=4, scale=0.7)]
    found, double = limit(start), limit([W.double() for W in start])
    assert found.Z.dtype == torch.float64 and torch.equal(found.rates, double.rates)
    assert end(start, 3).decided.all()


@pytest.mark.parametrize("bad", [[[1.0, 0.0], [0.0, 1.0]], [[1.0], [1.0, 2.0]], np.eye(2), torch.eye(2).long()])
def test_a_distance_of_what_is_no_tensor_is_refused(bad):
    with pytest.raises(DufmError, match="Z must"):
        ends.distance(bad, torch.eye(2))
    with pytest.raises(DufmError, match="solution must"):
        ends.distance(torch.eye(2), bad)


def test_columns_of_another_run_are_refused():
    run = dufm.limit(dufm.gaussian_init(3, 4, 4, seed=0, batch=2))
    found = dufm.end(dufm.orthoplex(4).expand(3, 4, 2) @ dufm.orthoplex(4).mT, 3)
    with pytest.raises(DufmError, match="run must be of the batch shape"):
        ends.columns(found, run)
