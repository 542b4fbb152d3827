"""Norms and normalised margins against NumPy and the closed forms."""

import numpy as np
import pytest
import torch
from known import CODES, RANK, dense, ladder, polygon, rotated, simplex
from tolerances import LINALG, close

from dufm import DufmError, closed_form_margin, normalized_margin, schatten
from dufm.margin import direct_sum_margin, ladder_margin
from dufm.metrics import centred

TOL = LINALG[torch.float64]


@pytest.mark.parametrize(("p", "order"), [(1.0, "nuc"), (2.0, "fro")])
def test_schatten_matches_numpy(p, order):
    for seed in range(3):
        Z = dense(4, 8, seed)
        close(schatten(Z, p), torch.tensor(np.linalg.norm(Z.numpy(), order)), TOL)


def test_schatten_of_known_singular_values():
    Z = torch.linalg.qr(dense(3, 3, 0))[0] @ torch.diag(torch.tensor([4.0, 1.0, 0.25], dtype=torch.float64))
    close(schatten(Z, 0.5), (2.0 + 1.0 + 0.5) ** 2, TOL)
    close(schatten(Z, 0.25), (2.0**0.5 + 1.0 + 0.5**0.5) ** 4, TOL)
    # Homogeneous of degree one at any size, and no batch or several.
    close(schatten(1e-200 * Z, 0.5) / 1e-200, 3.5**2, TOL)
    close(schatten(Z.expand(2, 5, 3, 3), 0.5), torch.full((2, 5), 3.5**2, dtype=torch.float64), TOL)


def test_schatten_ignores_rounding():
    Z = polygon(6)
    assert torch.linalg.svdvals(Z)[2] < 6 * torch.finfo(torch.float64).eps * 3
    # σ = (3, 3) and four values of 1e-16, which at p = 1/10 would add 4·0.025 each.
    close(schatten(Z, 0.1) / (3.0 * 2.0**10), 1.0, TOL)
    assert schatten(torch.zeros(3, 3, dtype=torch.float64), 0.5) == 0


@pytest.mark.parametrize("depth", [2, 3, 4, 7, 20])
@pytest.mark.parametrize(
    ("kind", "num_classes"),
    [(kind, k) for kind in CODES for k in (2, 3, 4, 5, 6, 8, 12, 16, 32)
     if not (kind == "polygon" and k < 3 or kind == "orthoplex" and (k < 4 or k % 2)
             or kind == "hypercube" and (k < 4 or k & (k - 1)))],
)
def test_closed_forms(kind, num_classes, depth):
    expected = closed_form_margin(kind, num_classes, depth)
    Z = rotated(CODES[kind](num_classes))
    close(normalized_margin(Z, depth) / expected, 1.0, TOL)
    # Invariant under scaling; (1 − μ)(r/K) r^{−L/2} for a unit tight frame of rank r and largest cosine μ.
    close(normalized_margin(1e3 * Z, depth) / expected, 1.0, TOL)
    unit = Z / Z[0, 0]
    cosine = (unit - 2 * torch.eye(num_classes)).max().item()
    rank = RANK[kind](num_classes)
    close((1 - cosine) * rank / num_classes * rank ** (-depth / 2) / expected, 1.0, TOL)


def test_normalized_margin_of_several_samples_and_of_mistakes():
    Z = simplex(3).repeat_interleave(2, 1)
    # Doubling the columns multiplies every singular value by √2.
    close(normalized_margin(Z, 3) * 2**0.5, closed_form_margin("nc", 3, 3), TOL)
    assert normalized_margin(-Z, 3) < 0
    assert normalized_margin(torch.zeros(3, 3, dtype=torch.float64), 3).isnan()
    assert normalized_margin(Z.float(), 3).dtype == torch.float32
    close(normalized_margin(Z.float(), 3), normalized_margin(Z, 3), LINALG[torch.float32])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("cube", 8, 3), "kind must be one of 'nc', 'polygon', 'orthoplex', 'hypercube', got 'cube'"),
        (("nc", 1, 3), "num_classes must be an integer >= 2, got 1"),
        (("nc", 4, 1), "depth must be an integer >= 2, got 1"),
        (("nc", True, 3), "num_classes must be an integer >= 2, got True"),
        (("polygon", 2, 3), "num_classes must be an integer >= 3, got 2: a polygon needs three vertices"),
        (("orthoplex", 5, 3), "num_classes must be even and at least 4 for the orthoplex, got 5"),
        (("orthoplex", 2, 3), "num_classes must be even and at least 4 for the orthoplex, got 2"),
        (("hypercube", 6, 3), "num_classes must be a power of two and at least 4 for the hypercube, got 6"),
        (("hypercube", 2, 3), "num_classes must be a power of two and at least 4 for the hypercube, got 2"),
    ],
)
def test_bad_codes(arguments, says):
    with pytest.raises(DufmError, match=says):
        closed_form_margin(*arguments)


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("sizes", [[2, 2, 3], [5, 2], [4, 4]])
def test_margin_of_a_direct_sum(sizes, depth):
    Z = torch.block_diag(*(k / (k - 1) * simplex(k) for k in sizes))
    close(normalized_margin(Z, depth) / direct_sum_margin(sizes, depth), 1.0, TOL)


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize(("num_classes", "pairs"), [(5, 0), (5, 1), (6, 2), (6, 3), (7, 3)])
def test_margin_of_the_ladder(num_classes, pairs, depth):
    Z = centred(ladder(num_classes, pairs))
    close(normalized_margin(Z, depth) / ladder_margin(num_classes, pairs, depth), 1.0, TOL)


def test_bad_ladders():
    with pytest.raises(DufmError, match="two simplices"):
        direct_sum_margin([4], 3)
    with pytest.raises(DufmError, match=r"sizes\[1\] must"):
        direct_sum_margin([4, 1], 3)
    with pytest.raises(DufmError, match="pairs must"):
        ladder_margin(5, 3, 3)
    with pytest.raises(DufmError, match="pairs must be an integer from 0 to 0, got 1: two classes"):
        ladder_margin(2, 1, 3)


@pytest.mark.parametrize(
    "call",
    [
        *(lambda kind=kind: closed_form_margin(kind, 4, 2500) for kind in ("nc", "polygon", "orthoplex", "hypercube")),
        lambda: direct_sum_margin([4, 4], 2500),
        lambda: ladder_margin(4, 1, 2500),
    ],
)
def test_a_margin_below_the_floats_is_refused(call):
    with pytest.raises(DufmError, match="depth: the margin leaves the floats, got 2500"):
        call()
