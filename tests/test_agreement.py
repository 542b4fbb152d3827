"""Softmax codes beside depth's solutions: the condition by two routes, gaps found elsewhere, ends named."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from scipy.spatial.transform import Rotation

import dufm
from dufm import DufmError, closed_form_margin, kkt_certificate, normalized_margin
from dufm.agreement import (
    code_condition,
    compare,
    constant_multipliers,
    frame_spread,
    kinds,
    selected_code,
)
from dufm.codes import (
    antiprism,
    code_logits,
    code_matrix,
    name_of,
    orthoplex,
    pairs_and_singles,
    petersen,
    polygon,
    separators,
    truncated_tetrahedron,
)


def test_selected_codes():
    assert [
        str(name_of(code_logits(selected_code(*key, restarts=16)))) for key in ((5, 4), (7, 2), (7, 5), (8, 4))
    ] == [
        "NC",
        "polygon",
        "2 pairs, 3 single",
        "orthoplex",
    ]
    assert str(name_of(code_logits(selected_code(8, 3, restarts=16)))) == "antiprism"


@pytest.mark.parametrize("num_classes, rank", [(5, 2), (7, 4), (8, 3), (7, 3), (9, 4), (10, 4)])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_condition_and_certificate_accept_the_same_codes(num_classes, rank, depth):
    W = selected_code(num_classes, rank, restarts=32)
    certificate = kkt_certificate(code_logits(W), depth, rank).residual.item()
    assert (code_condition(W, depth) < 1e-7) == (certificate < 1e-7)
    assert (certificate < 1e-7) == ((num_classes, rank) not in {(7, 3), (9, 4)})


def test_condition_does_not_depend_on_the_frame():
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    W = selected_code(7, 3, restarts=16)
    assert code_condition(W, 4) > 0.01
    assert code_condition(W @ turn, 4) == pytest.approx(code_condition(W, 4), rel=1e-6)


@pytest.mark.parametrize("length", [1e-300, 1e-3, 1e3, 1e300])
def test_conditions_do_not_depend_on_the_length_of_the_vectors(length):
    W = selected_code(7, 3, restarts=16)
    assert constant_multipliers(W * length) == pytest.approx(constant_multipliers(W), rel=1e-6)
    assert code_condition(W * length, 4) == pytest.approx(code_condition(W, 4), rel=1e-6)
    assert frame_spread(W * length) == pytest.approx(frame_spread(W), rel=1e-6)
    with pytest.raises(DufmError, match="other than 0"):
        code_condition(0 * W, 4)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_condition_of_vectors_that_span_less_than_their_dimensions(depth):
    # Centring takes one dimension of the unit vectors; the antiprism and a code that solves nothing get one of zeros.
    assert code_condition(torch.eye(4, dtype=torch.float64), depth) < 1e-9
    for W in (antiprism(), selected_code(7, 3, restarts=16)):
        padded = torch.nn.functional.pad(W, (0, 1))
        assert code_condition(padded, depth) == pytest.approx(code_condition(W, depth), rel=1e-6, abs=1e-9)


def test_tight_frames_and_constant_multipliers():
    for W in (polygon(7), orthoplex(8), petersen()):
        assert frame_spread(W) < 1e-12 and constant_multipliers(W) < 1e-9
    assert frame_spread(antiprism()) > 0.1 and constant_multipliers(antiprism()) < 1e-9
    assert (
        frame_spread(orthoplex(6)[:5]) == pytest.approx(math.sqrt(2) - 1)
        and constant_multipliers(orthoplex(6)[:5]) > 0.1
    )


def test_transitive_and_irreducible_is_enough_for_a_code_and_does_not_make_one():
    # The best orbit of the octahedron's rotations, the snub cube, found without anything that knows of criticality.
    group = Rotation.create_group("O").as_matrix()
    others = [g for g in group if not np.allclose(g, np.eye(3))]

    def margin(x):
        w = x / np.linalg.norm(x)
        return -min(1.0 - w @ g @ w for g in others)

    starts = np.random.default_rng(0).standard_normal((20, 3))
    options = {"xatol": 1e-13, "fatol": 1e-15, "maxiter": 4000}
    best = min(
        (scipy.optimize.minimize(margin, x, method="Nelder-Mead", options=options) for x in starts), key=lambda r: r.fun
    )
    snub = torch.from_numpy(np.array([g @ best.x / np.linalg.norm(best.x) for g in group]))
    assert kkt_certificate(code_logits(snub), 3, 3, active_tol=1e-4).residual < 1e-5
    assert kkt_certificate(code_logits(snub), 10, 3, active_tol=1e-4).residual < 1e-5
    for ratio in (2.0, 4.0):  # as symmetric, but no maximum: H differs from W
        W = truncated_tetrahedron(ratio)
        assert frame_spread(W) < 1e-12 and (W * separators(W)[0]).sum(1).max() < 0.99
        assert kkt_certificate(code_logits(W), 3, 3).residual > 0.1
    assert kkt_certificate(code_logits(truncated_tetrahedron(3.0)), 3, 3).residual < 1e-9


def test_compare_finds_the_known_gaps():
    rows = compare(7, 3, [4, 3], restarts=16)
    assert [row.depth for row in rows] == [3, 4] and rows[1].code == "irregular"
    collapse = closed_form_margin("nc", 7, 4)
    assert rows[1].margin / collapse == pytest.approx(1.35895, abs=1e-5)
    assert rows[1].uncentred_margin / collapse == pytest.approx(1.35551, abs=1e-5)
    assert rows[1].code_margin / collapse == pytest.approx(1.35802, abs=1e-5)
    assert rows[1].excess == pytest.approx(0.00069, abs=1e-5) and rows[1].locally_optimal


def test_compare_selects_among_many_codes_without_a_start():
    (row,) = compare(7, 5, [4], restarts=16)
    # Two pairs and three single classes, by its closed form.
    assert row.margin == pytest.approx((2 * 2**0.5 + 2 + (4 / 7) ** 0.25) ** -2, rel=1e-9)
    assert abs(row.excess) < 1e-9 and row.code == "2 pairs, 3 single" and row.restarts == 16


def test_row_tells_the_shapes():
    polygons = compare(7, 2, [3], restarts=8)[0].row()
    assert polygons["angle_code"] == pytest.approx(360 / 7) == polygons["angle_features"]
    assert max(polygons["spread_classifier"], polygons["spread_features"]) < 1e-6
    assert polygons["sigma"] == polygons["sigma_code"] == "1.000 1.000" and polygons["code"] == "polygon"
    single = compare(5, 3, [4], restarts=8)[0].row()
    assert single["spread_classifier"] == pytest.approx(0.2083, abs=1e-4) and single["sigma"][-5:] == "0.447"
    assert single["over_collapse"] == pytest.approx(1.1232524, abs=1e-6)


def test_kinds_of_ends():
    best = compare(7, 3, [4], restarts=16)[0]
    lesser = dufm.polish(code_matrix(torch.cat([polygon(7)], -1)), 4, 2).Z
    known = [pairs_and_singles(7, 0), pairs_and_singles(7, 3), lesser, best.Z]
    found = kinds(dufm.end(torch.stack(known), 4), 4, restarts=16)
    assert list(found) == ["collapse", "orthoplex", "polygon", "better than the code"]
    cube = dufm.end(code_matrix(dufm.hypercube(8)).unsqueeze(0), 3)
    assert list(kinds(cube, 3, restarts=16)) == ["lesser critical point"]
    assert normalized_margin(cube.Z, 3) < normalized_margin(code_matrix(antiprism()), 3)
    astray = dufm.end(torch.zeros(1, 5, 5).double(), 3)
    assert list(kinds(astray, 3)) == ["undecided"]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: selected_code(5, 5), "rank must be an integer from 2 to 4, got 5"),
        (lambda: selected_code(2, 2), "num_classes"),
        (lambda: code_condition(polygon(5), 1), "depth"),
        (lambda: compare(5, 3, [1]), "depth"),
        (lambda: frame_spread(polygon(5) @ torch.tensor([[0.6, 0.8], [0.3, 0.4]]).double()), "span all 2 dimensions"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(DufmError, match=words):
        call()
