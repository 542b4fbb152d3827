"""Certificates against the factors' own stationarity, polish against cvxpy."""

import math

import cvxpy
import numpy as np
import pytest
import torch
from known import CODES, RANK, dense, gram, ladder, orthoplex, polygon, rotated, shifted, simplex
from tolerances import CERTIFIED, LINALG, ROUNDING, SOLVER, close, relative

from dufm import (
    Certificate,
    DufmError,
    balanced_init,
    closed_form_margin,
    final_rank,
    gaussian_init,
    gradient_flow,
    kkt_certificate,
    kkt_residual,
    margins,
    normalized_margin,
    polish,
    rank_ratio,
    schatten,
)
from dufm import certificate as certificate_module
from dufm._polish import margin_slopes
from dufm.certificate import factor_residual, off_range_values
from dufm.metrics import centred

TOL = LINALG[torch.float64]
# A certificate of an exact code is wrong only by rounding.
EXACT = 1e-13


# ---------------------------------------------------------------- certificate


def cut_to(Z, rank):
    """Z centred, cut to ``rank`` and scaled to margin 1."""
    U, sigma, Vh = torch.linalg.svd(centred(Z))
    cut = U[:, :rank] * sigma[:rank] @ Vh[:rank]
    return cut / margins(cut).min()


def stationarity_of_factors(Z, certificate, depth):
    """max_l ‖W_l − W_{>l}ᵀ Λ W_{<l}ᵀ‖/‖W_l‖ at balanced factors of the certified matrix, by dense products."""
    factors = balanced_init(cut_to(Z, certificate.rank.item()), depth)
    num_classes, columns = Z.shape
    Lambda = torch.zeros_like(Z)
    for i in range(columns):
        c = i // (columns // num_classes)
        for j in range(num_classes):
            Lambda[c, i] += certificate.multipliers[j, i]
            Lambda[j, i] -= certificate.multipliers[j, i]
    worst = 0.0
    for l in range(depth):
        force = Lambda
        for upper in reversed(factors[l + 1 :]):
            force = upper.mT @ force
        for lower in factors[:l]:
            force = force @ lower.mT
        worst = max(worst, relative(force, factors[l]))
    return worst


@pytest.mark.parametrize("depth", [2, 3, 4, 9])
@pytest.mark.parametrize(
    ("kind", "num_classes"),
    [("nc", 2), ("nc", 4), ("nc", 7), ("polygon", 4), ("polygon", 5), ("orthoplex", 6), ("orthoplex", 8),
     ("hypercube", 8), ("hypercube", 16)],
)
def test_codes_are_kkt(kind, num_classes, depth):
    Z = 17.0 * shifted(rotated(CODES[kind](num_classes)))
    certificate = kkt_certificate(Z, depth)
    assert certificate.rank.item() == RANK[kind](num_classes)
    assert certificate.residual < EXACT and certificate.gap.abs() < EXACT
    assert certificate.holds() and certificate.active_tol > 0
    assert (certificate.multipliers >= 0).all() and (certificate.multipliers.sum() > 0)
    assert (certificate.discarded < 1e-14).all()
    assert stationarity_of_factors(Z, certificate, depth) < TOL
    # Strong duality of a homogeneous problem: the multipliers add up to Σσ^p at margin 1.
    sigma = torch.linalg.svdvals(cut_to(Z, certificate.rank))[: certificate.rank]
    close(certificate.multipliers.sum() / (sigma ** (2 / depth)).sum(), 1.0, TOL)
    assert kkt_residual(Z, depth) == certificate.residual


def test_certificate_with_several_samples_a_class():
    Z = simplex(4).repeat_interleave(3, 1)
    certificate = kkt_certificate(Z, 3)
    assert certificate.multipliers.shape == (4, 12) and certificate.rank.item() == 3
    assert certificate.residual < EXACT and certificate.gap.abs() < EXACT
    assert stationarity_of_factors(Z, certificate, 3) < TOL


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_other_matrices_are_not_kkt(depth):
    for seed in range(4):
        Z = simplex(5) + dense(5, 5, seed, scale=0.1)
        certificate = kkt_certificate(Z, depth, rank=4)
        assert margins(Z).min() > 0 and certificate.residual > 1e-2 and not certificate.holds()
    # Equal weight on the three axes of the cube is KKT, unequal weight is not.
    bits = torch.tensor([[1.0 - 2.0 * (k >> b & 1) for b in range(3)] for k in range(8)], dtype=torch.float64)
    assert kkt_residual(gram(bits), depth, 3) < EXACT
    assert kkt_residual(gram(bits * torch.tensor([1.0, 1.0, 1.3])), depth, 3) > 1e-2


def test_the_residual_says_nothing_about_what_was_cut():
    third = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64) / 2
    Z = polygon(4) / 2 + 0.1 * torch.outer(third, third)
    close(torch.linalg.svdvals(Z), torch.tensor([1.0, 1.0, 0.1, 0.0], dtype=torch.float64), TOL)
    cut = kkt_certificate(Z, 3, rank=2)
    assert cut.residual < EXACT and cut.gap.abs() < EXACT
    close(cut.discarded, torch.tensor([0.1, 0.1], dtype=torch.float64), TOL)
    # The matrix itself, nothing cut, is not a KKT point.
    whole = kkt_certificate(Z, 3, rank=3)
    assert whole.residual > 1e-2
    close(whole.discarded, torch.zeros(2), TOL)


def test_discarded_is_against_the_first_and_the_last_kept():
    left, right = torch.linalg.qr(centred(dense(5, 4, 1)))[0], torch.linalg.qr(dense(5, 5, 2))[0][:4]
    Z = left @ torch.diag(torch.tensor([8.0, 4.0, 1.0, 0.5], dtype=torch.float64)) @ right + dense(1, 5, 3)
    expected = {1: (0.5, 0.5), 2: (0.125, 0.25), 3: (0.0625, 0.5)}
    for rank, values in expected.items():
        close(kkt_certificate(Z, 3, rank).discarded, torch.tensor(values, dtype=torch.float64), TOL)


def test_gap_counts_what_was_wrongly_called_active():
    # A slack of 1e-3 under an active_tol of 1e-2: λ·slack shows in the gap.
    Z = simplex(3)
    Z[0, 1] -= 2e-3
    loose = kkt_certificate(Z, 2, rank=2, active_tol=1e-2)
    tight = kkt_certificate(Z, 2, rank=2)
    assert loose.active_tol == 1e-2 and tight.active_tol == 1e-6
    assert loose.gap > 1e-5 and not loose.holds()
    # Σλ(margin − 1) ≤ active_tol·Σλ, and Σλ is Σσ^p up to the residual.
    assert tight.gap <= tight.active_tol and tight.residual > 1e-4


def test_certificate_without_a_positive_margin():
    certificate = kkt_certificate(torch.stack([-simplex(3), torch.zeros(3, 3, dtype=torch.float64)]), 3)
    assert torch.isinf(certificate.residual).all() and torch.isinf(certificate.gap).all()
    assert not certificate.holds().any() and (certificate.multipliers == 0).all()


def test_certificates_of_a_batch():
    batch = torch.stack([orthoplex(6), simplex(6), polygon(6)]).expand(2, 3, 6, 6)
    certificate = kkt_certificate(batch, 4)
    assert certificate.residual.shape == certificate.gap.shape == certificate.rank.shape == (2, 3)
    assert certificate.discarded.shape == (2, 3, 2) and certificate.multipliers.shape == (2, 3, 6, 6)
    assert certificate.rank.tolist() == [[3, 5, 2]] * 2
    assert (certificate.residual < EXACT).all()
    given = kkt_certificate(batch, 4, rank=torch.tensor([[3, 5, 2], [3, 5, 1]]))
    assert torch.isinf(given.residual[1, 2]) and (given.residual.flatten()[:5] < EXACT).all()


# ---------------------------------------------------------------- multipliers


def nonunique(num_classes, pairs):
    """Orthoplex for K = 2t, the ladder else: more active margins than the stratum has dimensions."""
    return orthoplex(num_classes) if num_classes == 2 * pairs else ladder(num_classes, pairs)


@pytest.mark.parametrize(("num_classes", "pairs"), [(4, 2), (6, 3), (8, 4), (6, 2), (8, 3), (10, 4)])
def test_multipliers_are_those_of_least_norm(num_classes, pairs):
    Z, rank, depth = nonunique(num_classes, pairs), num_classes - pairs, 3
    certificate = kkt_certificate(Z, depth, rank)
    assert certificate.holds() and certificate.residual < EXACT
    unit = cut_to(Z, rank)
    U, sigma, Vh = (part.numpy() for part in torch.linalg.svd(unit))
    U, sigma, Vh = U[:, :rank], sigma[:rank] ** (2 / depth - 1), Vh[:rank]
    wrong, true = (margins(unit) <= 1 + 1e-6).nonzero().T.numpy()
    x = cvxpy.Variable(len(wrong), nonneg=True)
    eye = np.eye(num_classes)
    Lambda = (eye[true] - eye[wrong]).T @ cvxpy.diag(x) @ eye[true]
    constraints = [Lambda @ Vh.T == U * sigma, U.T @ Lambda == (Vh.T * sigma).T]
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(x)), constraints).solve(solver="CLARABEL")
    close(certificate.multipliers[wrong, true], torch.tensor(x.value), SOLVER[torch.float64])


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_rungs_of_the_ladder(depth):
    for num_classes in (5, 7, 8):
        for pairs in range(1, num_classes // 2 + 1):
            certificate = kkt_certificate(ladder(num_classes, pairs), depth, num_classes - pairs)
            assert bool(certificate.holds()) == (pairs > 1)
            assert certificate.residual < EXACT if pairs > 1 else certificate.residual > 0.1


@pytest.mark.parametrize("depth", [2, 3, 5])
def test_off_range_values_of_codes(depth):
    # Of the cube: products of two coordinates 2, of three 3.  Of the orthoplex with equal multipliers λ = 1/(K − 2):
    # Λ = λ((K − 1)I + Π − J), Π the antipode, which is λK on the even vectors.
    expected = {
        ("nc", 5): [0.0] * 4,
        ("polygon", 4): [2.0, 0, 0],
        ("hypercube", 8): [3.0, 2, 2, 2, 0, 0, 0],
        ("orthoplex", 6): [1.5, 1.5, 0, 0, 0],
        ("orthoplex", 8): [4 / 3] * 3 + [0.0] * 4,
    }
    for (kind, num_classes), beta in expected.items():
        Z = 3.0 * shifted(rotated(CODES[kind](num_classes)))
        values = off_range_values(Z, depth, kkt_certificate(Z, depth))
        close(values, torch.tensor(beta, dtype=torch.float64), CERTIFIED)


def test_off_range_values_of_other_multipliers():
    # The multipliers of the orthoplex are not unique: the cyclic choice λ = 1/2 on half of its margins is a vertex.
    Z = orthoplex(6)
    certificate = kkt_certificate(Z, 2)
    cyclic = torch.zeros(3, 3, dtype=torch.float64)
    cyclic[[1, 2, 0], [0, 1, 2]] = 0.5
    vertex = Certificate(
        certificate.residual, certificate.gap, certificate.discarded, 1e-6, certificate.rank, cyclic.repeat(2, 2)
    )
    assert stationarity_of_factors(Z, vertex, 2) < TOL
    close(off_range_values(Z, 2, vertex)[:2], torch.full((2,), 3**0.5, dtype=torch.float64), TOL)


def test_off_range_values_of_a_batch():
    batch = torch.stack([orthoplex(6), simplex(6) + dense(6, 6, 0, scale=0.1), polygon(6), simplex(6)]).view(2, 2, 6, 6)
    certificate = kkt_certificate(batch, 4, torch.tensor([[3, 5], [2, 5]]))
    values = off_range_values(batch, 4, certificate)
    assert values.shape == (2, 2, 5) and values[0, 1].isnan().all()
    for i, j in ((0, 0), (1, 0), (1, 1)):
        alone = kkt_certificate(batch[i, j], 4, certificate.rank[i, j])
        close(values[i, j], off_range_values(batch[i, j], 4, alone), CERTIFIED)
    for wrong in (None, kkt_certificate(batch[0], 4)):
        with pytest.raises(DufmError, match="certificate must be"):
            off_range_values(batch, 4, wrong)


def test_factor_residual_is_the_stationarity_of_the_factors():
    Z = torch.stack([orthoplex(6), ladder(6, 2) / ladder(6, 2)[0, 0]])
    Z = centred(Z)
    certificate = kkt_certificate(Z, 4)
    assert (factor_residual(Z, 4, certificate) < 1e-7).all()
    # Several samples a class, and a matrix that is no critical point.
    twice = simplex(4).repeat_interleave(2, 1)
    close(factor_residual(twice, 3, kkt_certificate(twice, 3)), 0.0, 1e-7)
    other = ladder(6, 1)
    other = centred(other) / margins(other).min()
    certificate = kkt_certificate(other, 3, 5)
    assert factor_residual(other, 3, certificate) > 0.1
    close(factor_residual(other, 3, certificate), stationarity_of_factors(other, certificate, 3), 1e-9)
    with pytest.raises(DufmError, match="certificate must be"):
        factor_residual(Z[0], 4, certificate_module.kkt_certificate(Z, 4))


def test_margin_slopes_are_the_derivative():
    A, B = dense(4, 3, 0), dense(8, 3, 1)
    wrong, true, sample = (index.numpy() for index in certificate_module.pairs(4, 8))

    def slack(A, B):
        return ((A[true] - A[wrong]) * B[sample]).sum(-1)

    by_A, by_B = torch.autograd.functional.jacobian(slack, (A, B))
    slopes = margin_slopes(A.numpy(), B.numpy(), wrong, true, sample)
    close(torch.from_numpy(slopes), torch.cat([by_A, by_B], 1), TOL)
    square = margin_slopes(A.numpy(), A.numpy(), np.array([1]), np.array([2]))
    close(torch.from_numpy(square[0, [2, 1, 6]]), torch.stack([A[2], -A[2], A[2] - A[1]]), TOL)


# ---------------------------------------------------------------- polish


@pytest.fixture(scope="module", params=[2, 3, 4])
def ends(request):
    """Ends of flows from six random networks at one depth, K = 4."""
    depth = request.param
    flow = gradient_flow(gaussian_init(depth, 8, 4, scale=0.6, batch=6, seed=11), until_log_loss=-220.0)
    assert (flow.status == "reached").all()
    return depth, flow.Z, polish(flow.Z, depth)


def test_polish_decides_by_the_rule(ends):
    depth, Z, polished = ends
    certificate = polished.certificate
    expected = (certificate.residual < CERTIFIED) & (certificate.gap.abs() < CERTIFIED) & (polished.moved <= 0.1)
    assert torch.equal(polished.decided, expected)
    assert polished.decided.all() and not polished.fallback.any()


def test_polish_certifies_flow_ends(ends):
    depth, Z, polished = ends
    before = kkt_certificate(Z, depth)
    assert not before.holds().all(), "at a finite loss the active margins are not all equal"
    assert torch.equal(polished.certificate.rank, final_rank(Z))
    close(polished.certificate.discarded[..., 1], rank_ratio(Z), TOL)
    close(margins(polished.Z).amin((-2, -1)), torch.ones(6), TOL)
    for i in polished.decided.nonzero().squeeze(-1).tolist():
        certificate = kkt_certificate(polished.Z[i], depth, polished.certificate.rank[i])
        assert certificate.residual < CERTIFIED and certificate.gap.abs() < CERTIFIED
        assert certificate.discarded.max() < 1e-12
        assert stationarity_of_factors(polished.Z[i], certificate, depth) < CERTIFIED


def test_polish_moves_by_what_it_says(ends):
    depth, Z, polished = ends
    for matrix, end, rank, moved in zip(Z, polished.Z, polished.certificate.rank.tolist(), polished.moved, strict=True):
        close(moved, relative(end, cut_to(matrix, rank)), CERTIFIED)


def test_polish_ends_are_nc_or_the_square(ends):
    depth, _, polished = ends
    kinds = {3: "nc", 2: "polygon"}
    for i in polished.decided.nonzero().squeeze(-1).tolist():
        expected = closed_form_margin(kinds[polished.certificate.rank[i].item()], 4, depth)
        close(normalized_margin(polished.Z[i], depth) / expected, 1.0, CERTIFIED)


def nuclear_optimum(num_classes, columns):
    """Least nuclear norm under margins >= 1, by cvxpy."""
    Z = cvxpy.Variable((num_classes, columns))
    true = np.arange(columns) // (columns // num_classes)
    constraints = [
        Z[true[i], i] - Z[j, i] >= 1 for i in range(columns) for j in range(num_classes) if j != true[i]
    ]
    return cvxpy.Problem(cvxpy.Minimize(cvxpy.normNuc(Z)), constraints).solve(solver="CLARABEL")


@pytest.mark.parametrize(("num_classes", "n_per_class"), [(4, 1), (3, 2)])
def test_depth_two_reaches_the_convex_optimum(num_classes, n_per_class):
    factors = gaussian_init(2, 7, num_classes, scale=0.8, batch=4, seed=5, n_per_class=n_per_class)
    polished = polish(gradient_flow(factors).Z, 2)
    assert polished.decided.all()
    optimum = nuclear_optimum(num_classes, num_classes * n_per_class)
    close(schatten(polished.Z, 1.0) / optimum, torch.ones(4), SOLVER[torch.float64])
    if n_per_class == 1:
        close(optimum * closed_form_margin("nc", num_classes, 2), 1.0, SOLVER[torch.float64])


def test_polish_returns_to_an_exact_code():
    for depth in (3, 5):
        code = orthoplex(6) / margins(orthoplex(6)).min()
        polished = polish(5.0 * (code + dense(6, 6, 3, scale=1e-3)), depth, rank=3)
        assert polished.decided and polished.moved < 1e-2
        close(normalized_margin(polished.Z, depth) / closed_form_margin("orthoplex", 6, depth), 1.0, CERTIFIED)


def near_codes(depth):
    """KKT points of K = 6 and their ranks, each moved by 1e-3 in four ways: ``(16, 6, 6)``."""
    codes = [(simplex(6), 5), (orthoplex(6), 3), (ladder(6, 2), 4), (polygon(6), 2)]
    exact = torch.stack([code / margins(code).min() for code, _ in codes]).repeat_interleave(4, 0)
    noise = dense(16, 36, depth, scale=1e-3).view(16, 6, 6) * exact.abs().amax((-2, -1), keepdim=True)
    return exact, exact + noise, torch.tensor([rank for _, rank in codes]).repeat_interleave(4)


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
def test_polish_needs_no_fallback_near_a_solution(depth):
    exact, start, rank = near_codes(depth)
    shift = 30.0 * dense(16, 6, 7).unsqueeze(-2)
    polished = polish((7.0 * start + shift).view(4, 4, 6, 6), depth, rank.view(4, 4))
    assert polished.decided.shape == polished.fallback.shape == (4, 4)
    assert polished.decided.all() and not polished.fallback.any() and (polished.moved < 1e-2).all()
    # Not each comes back to the code itself: the hexagon is one of a family of solutions of one norm.
    ends = polished.Z.flatten(0, 1)
    close(schatten(ends, 2 / depth) / schatten(centred(exact), 2 / depth), torch.ones(16), CERTIFIED)
    for i in range(0, 16, 3):
        alone = polish(start[i], depth, rank[i])
        assert relative(alone.Z, ends[i]) < 1e-10


@pytest.mark.parametrize("depth", [2, 4])
def test_newton_and_slsqp_agree(depth, monkeypatch):
    exact, start, rank = near_codes(depth)
    newton = polish(start, depth, rank)
    # No rung of the ladder: SLSQP has to find the solution, and Newton's method only its last digits.
    monkeypatch.setattr(certificate_module, "_ACTIVE_LADDER", ())
    slsqp = polish(start[:12], depth, rank[:12])
    assert slsqp.fallback.all() and slsqp.decided.all()
    assert relative(slsqp.Z, newton.Z[:12]) < 1e-9
    without = polish(start, depth, rank, fallback=False)
    assert without.Z.isnan().all() and not (without.fallback | without.decided).any()
    # Beyond 240 margins a run of SLSQP takes minutes, and none is started.
    assert not polish(simplex(17), depth).fallback


def test_polish_of_many_classes():
    for code, rank in ((simplex(16), 15), (ladder(16, 5), 11)):
        start = code / margins(code).min() + dense(16, 16, 1, scale=1e-3)
        polished = polish(start, 3, rank)
        assert polished.decided and not polished.fallback and polished.moved < 1e-2
    for function in (polish, kkt_certificate):
        with pytest.raises(DufmError, match=r"at most 2000 margins, N\(K − 1\).*shape \(46, 46\) has 2070"):
            function(simplex(46), 3)


def test_polish_with_several_samples_a_class():
    start = simplex(4).repeat_interleave(3, 1) + dense(4, 12, 0, scale=1e-3)
    polished = polish(start, 3, 3)
    assert polished.decided and not polished.fallback
    assert stationarity_of_factors(polished.Z, polished.certificate, 3) < CERTIFIED


def test_rank_one_never_separates_three_classes():
    column = torch.tensor([3.0, 1.0, -2.0], dtype=torch.float64)
    low = torch.outer(column, column) + dense(3, 3, 0, scale=1e-4)
    assert final_rank(low).item() == 1
    polished = polish(torch.stack([low, simplex(3)]).unsqueeze(0), 3)
    assert polished.decided.tolist() == [[False, True]]
    assert torch.isinf(polished.moved[0, 0]) and torch.isinf(polished.certificate.residual[0, 0])
    assert polished.Z.shape == (1, 2, 3, 3) and polished.Z[0, 0].isnan().all()
    assert polished.certificate.discarded[0, 0, 1] < 1e-3


def test_moving_far_is_undecided():
    # Cut at rank 3, the start is far from any solution of that rank: what polish finds is not where the flow went.
    start = simplex(4) + 0.4 * torch.outer(torch.tensor([1.0, -1.0, 0, 0]), torch.tensor([1.0, 0, -1.0, 0])).double()
    polished = polish(start, 3, rank=3)
    assert polished.moved > 0.1 and not polished.decided
    assert polished.certificate.residual < CERTIFIED


# ---------------------------------------------------------------- bad input

EYE = torch.eye(4, dtype=torch.float64)


@pytest.mark.parametrize("function", [kkt_certificate, kkt_residual, polish])
@pytest.mark.parametrize("rank", [0, 4, -1, 1.0, True, "2", torch.tensor(2.0), torch.tensor([1, 2]), torch.tensor(4)])
def test_bad_ranks(function, rank):
    with pytest.raises(DufmError, match=r"rank must be an integer from 1 to 3"):
        function(EYE, 3, rank)


@pytest.mark.parametrize(
    "function",
    [lambda Z: schatten(Z, 1.0), lambda Z: normalized_margin(Z, 3), lambda Z: kkt_certificate(Z, 3),
     lambda Z: kkt_residual(Z, 3), lambda Z: polish(Z, 3)],
    ids=["schatten", "normalized_margin", "kkt_certificate", "kkt_residual", "polish"],
)
@pytest.mark.parametrize(
    ("Z", "says"),
    [
        (EYE * math.nan, "Z must be finite"),
        (EYE / 0.0, "Z must be finite"),
        (EYE.int(), "Z must have a floating dtype"),
        (EYE > 0, "Z must have a floating dtype"),
        (EYE[:1], "Z needs at least 2 classes"),
        (EYE[:3], "Z must have shape"),
        (EYE.new_empty(0, 4, 4), "Z must not be empty"),
    ],
)
def test_bad_logits(function, Z, says):
    with pytest.raises(DufmError, match=says):
        function(Z)


@pytest.mark.parametrize("depth", [1, 0, 2.5, True, None])
def test_bad_depths(depth):
    for function in (normalized_margin, kkt_certificate, kkt_residual, polish):
        with pytest.raises(DufmError, match=f"depth must be an integer >= 2, got {depth}"):
            function(EYE, depth)


def test_bad_p_and_tolerance():
    for value in (0.0, -1.0, math.nan, math.inf, True, "1"):
        with pytest.raises(DufmError, match="p must be a finite positive number"):
            schatten(EYE, value)
        with pytest.raises(DufmError, match="active_tol must be a finite positive number"):
            kkt_certificate(EYE, 3, active_tol=value)


def test_certificates_follow_the_dtype():
    certificate = kkt_certificate(simplex(4).float(), 3)
    assert certificate.residual.dtype == torch.float32 and certificate.rank.item() == 3
    assert certificate.residual < LINALG[torch.float32]
    assert ROUNDING[torch.float32] > certificate.gap.abs()


def test_a_member_that_is_zero_leaves_the_others_polished():
    found = polish(torch.stack([torch.eye(4), torch.zeros(4, 4)]).double(), 3)
    assert found.decided.tolist() == [True, False] and found.Z[1].isnan().all()
    assert found.certificate.residual[0] < CERTIFIED


def test_what_is_discarded_beside_rounding_is_not_known():
    found = kkt_certificate(orthoplex(6), 4, 4)
    assert found.discarded.isnan().all()
