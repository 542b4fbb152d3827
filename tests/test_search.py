"""Multi-start search against closed forms and best values found elsewhere; the cube, KKT without being optimal."""

import pytest
import torch

import dufm
from dufm import (
    DufmError,
    agreement,
    closed_form_margin,
    kkt_certificate,
    margins,
    normalized_margin,
    search,
    softmax_code,
)
from dufm.codes import code_matrix, hypercube, orthoplex, pairs_and_singles, polygon, simplex_etf
from dufm.ends import end
from dufm.search import max_margin, stratum_curvature

# Best γ_L over γ_NC of independent multi-start searches, to the digits given: (K, L, r).
BEST = {
    (4, 4, 2): 1.125,
    (6, 3, 3): 1.0758,
    (6, 6, 2): 2.6042,
    (8, 3, 4): 1.1575,
    (8, 6, 3): 3.5492,
    (8, 8, 2): 10.988,
    (7, 4, 3): 1.35895,
    (9, 4, 3): 1.58345,
}


def ratio(found, depth):
    return found.margin / closed_form_margin("nc", len(found.Z), depth)


@pytest.mark.parametrize("num_classes, depth, rank", sorted(BEST))
def test_best_values(num_classes, depth, rank):
    found = max_margin(num_classes, depth, rank)
    expected = BEST[num_classes, depth, rank]
    digits = len(str(expected).split(".")[1])
    assert ratio(found, depth) == pytest.approx(expected, abs=10.0**-digits)
    assert found.rank == rank and found.agree >= 2 and found.locally_optimal
    # The certificate, and the value, from the matrix alone.
    again = kkt_certificate(found.Z, depth, rank)
    for certificate in (found.certificate, again):
        assert certificate.residual < 1e-8 and abs(certificate.gap) < 1e-8
    sigma = torch.linalg.svdvals(found.Z)
    assert sigma[rank] < 1e-12 * sigma[0]
    assert margins(found.Z).amin().item() == pytest.approx(1.0, abs=1e-12)
    assert found.margin == pytest.approx(normalized_margin(found.Z, depth).item(), rel=1e-14)


@pytest.mark.parametrize(
    "num_classes, depth, rank, least",
    [
        (9, 3, 4, 0.0470183),
        (9, 4, 4, 0.0236122),
        (9, 6, 4, 0.00592993),
        (11, 4, 5, 0.0160041),
        (11, 6, 5, 0.00324685),
        (13, 3, 6, 0.0280884),
    ],
)
def test_search_is_not_left_at_a_lesser_optimum(num_classes, depth, rank, least):
    # Climbs that all follow the smoothing from its start end 0.3% to 1.4% below, hundreds of them too in some cells.
    assert max_margin(num_classes, depth, rank).margin > least


@pytest.mark.parametrize(
    "kind, num_classes, depth, rank",
    [
        ("nc", 2, 3, 1),
        ("nc", 3, 6, 2),
        ("nc", 5, 2, 4),
        ("nc", 6, 3, 5),
        ("polygon", 5, 8, 2),
        ("polygon", 9, 12, 2),
        ("orthoplex", 8, 3, 4),
        ("orthoplex", 10, 4, 5),
        ("hypercube", 4, 6, 2),
    ],
)
def test_search_ends_at_the_closed_form(kind, num_classes, depth, rank):
    found = max_margin(num_classes, depth, rank)
    assert found.margin == pytest.approx(closed_form_margin(kind, num_classes, depth), rel=1e-10)


def test_no_search_ends_below_the_codes():
    for num_classes, rank in ((6, 3), (7, 3), (8, 3)):
        code = normalized_margin(code_matrix(softmax_code(num_classes, rank).vectors), 4).item()
        assert max_margin(num_classes, 4, rank).margin >= code * (1 - 1e-9)


def test_softmax_code_falls_short_where_it_is_irregular():
    code = normalized_margin(code_matrix(softmax_code(7, 3).vectors), 4).item()
    assert code / closed_form_margin("nc", 7, 4) < 1.356 < ratio(max_margin(7, 4, 3), 4)


def test_nuclear_norm_is_convex():
    found = max_margin(6, 2, 5, restarts=8)
    assert found.margin == pytest.approx(closed_form_margin("nc", 6, 2), rel=1e-12) and found.agree == 8


def test_starts_carry_a_solution_to_the_next_depth():
    before = max_margin(8, 5, 3)
    found = max_margin(8, 6, 3, restarts=1, starts=[before.Z])
    assert ratio(found, 6) == pytest.approx(3.5492, abs=1e-4) and found.restarts == 2
    batch = max_margin(8, 6, 3, restarts=1, starts=torch.stack([before.Z, code_matrix(hypercube(8))]))
    assert batch.restarts == 3 and batch.margin == pytest.approx(found.margin, rel=1e-9)


def test_search_is_repeatable():
    one, two = (max_margin(6, 3, 3, restarts=8, seed=7) for _ in range(2))
    assert torch.equal(one.Z, two.Z) and one.agree == two.agree


def test_deep_high_rank_stays_on_its_stratum():
    found = max_margin(8, 8, 6)
    sigma = torch.linalg.svdvals(found.Z)
    assert found.rank == 6 and sigma[5] > 0.05 * sigma[0]


@pytest.mark.parametrize("depth", [2, 3, 4, 10])
def test_the_cube_is_kkt_but_not_a_local_optimum(depth):
    cube = code_matrix(hypercube(8))
    assert kkt_certificate(cube, depth, 3).residual < 1e-12
    assert stratum_curvature(cube, depth, 3) < -0.1
    # A second route: twisting one face, at the best height, raises the margin all the way to the antiprism.
    height = torch.linspace(0.7, 1.3, 241, dtype=torch.float64).view(-1, 1, 1)
    values = []
    for angle in torch.linspace(0.0, torch.pi / 4, 6, dtype=torch.float64):
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
        W = hypercube(8)
        square = torch.where(W[:, 2:] > 0, W[:, :2] @ turn.T, W[:, :2])
        codes = torch.cat([square.expand(241, -1, -1), height * W[:, 2:]], -1)
        values.append(normalized_margin(code_matrix(codes), depth).max().item())
    assert values[0] == pytest.approx(normalized_margin(cube, depth).item(), rel=1e-3)
    assert values == sorted(values) and values[-1] > 1.05 * values[0]


def test_curvature_of_local_optima():
    for W in (simplex_etf(5), polygon(7), orthoplex(8), softmax_code(8, 3).vectors, softmax_code(12, 3).vectors):
        assert stratum_curvature(code_matrix(W), 3) > -1e-6


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: max_margin(5, 3, 5), "rank must be an integer from 1 to 4, got 5"),
        (lambda: max_margin(5, 3, 0), "rank"),
        (lambda: max_margin(3, 3, 1), "no rank-1 matrix separates three classes"),
        (lambda: max_margin(5, 1, 2), "depth"),
        (lambda: max_margin(1, 3, 1), "num_classes"),
        (lambda: max_margin(5, 3, 2.0), "rank must be an integer"),
        (lambda: max_margin(5, 3, 2, restarts=0), "restarts"),
        (lambda: max_margin(5, 3, 2, starts=torch.eye(5).double()), r"starts\[0\] must have at least 2 dimensions"),
        (lambda: max_margin(5, 3, 2, starts=[torch.eye(4).double()]), r"starts must be matrices of shape \(5, 5\)"),
        (lambda: max_margin(5, 3, 2, starts=[torch.full((5, 5), torch.nan)]), r"starts\[0\] must be finite"),
        (lambda: stratum_curvature(torch.eye(4).double().expand(2, 4, 4), 3), "one square matrix"),
        (lambda: stratum_curvature(-torch.eye(4).double(), 3, 2), "positive margins"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(DufmError, match=words):
        call()


def test_along_depth_carries_the_solution_and_says_what_is_missing(monkeypatch):
    found = search.along_depth(5, 2, [3, 4], restarts=2, seed=0)
    assert [solution.restarts for solution in found] == [2, 3]
    row = search.as_row(found[1], 4)
    assert row["name"] == "polygon" and row["climbs"] == 3 and row["locally_optimal"] == 1
    assert row["margin_ratio"] == found[1].margin / closed_form_margin("nc", 5, 4)
    assert search.as_row(None, 4).keys() == row.keys() and search.as_row(None, 4)["name"] == ""
    ratio = [found[i].margin / closed_form_margin("polygon", 5, 3 + i) for i in (0, 1)]
    assert ratio == pytest.approx([1.0, 1.0], rel=1e-9)
    monkeypatch.setattr(search, "_best", lambda *arguments: None)
    assert search.along_depth(5, 2, [3], restarts=2) == [None]


def test_curvatures_of_ends_are_one_for_each_that_occurs():
    Z = torch.stack([pairs_and_singles(6, t) for t in (3, 0, 3)])
    found = end(Z, 3)
    curvatures = search.end_curvatures(found, 3)
    assert len(curvatures) == 2 and max(map(abs, curvatures)) < 1e-6
    cube = end(code_matrix(hypercube(8)).unsqueeze(0), 3)
    assert search.end_curvatures(cube, 3, [0]) == pytest.approx([stratum_curvature(cube.Z[0], 3, 3)], rel=1e-6)
    assert search.end_curvatures(cube, 3)[0] < -1e-2


def test_curvatures_of_an_end_without_batch_are_refused():
    found = dufm.end(dufm.orthoplex(4) @ dufm.orthoplex(4).mT, 4)
    for call in (search.end_curvatures, agreement.kinds):
        with pytest.raises(DufmError, match="must be of one batch dimension"):
            call(found, 4)
