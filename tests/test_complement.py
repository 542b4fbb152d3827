"""What a KKT point leaves out: symbolic steps of the law, directions against the field, networks against the law."""

import itertools

import numpy as np
import pytest
import sympy
import torch

import dufm
from dufm import DufmError, basin, codes, complement
from dufm.metrics import centred

EXTRAS = {
    "orthoplex": complement.orthoplex_extra(6),
    "two bits": complement.cube_extra(8, 2),
    "three bits": complement.cube_extra(8, 3),
}


# ---------------------------------------------------------------- symbolic steps


def test_the_law_solves_the_race():
    """dε/ds = β(ε/s)^{1+q}, as x = ε/s: dx/d log g = βx^{1+q} − x, and its fixed point."""
    g, start, beta, q = sympy.symbols("g x0 beta q", positive=True)
    y = sympy.Symbol("y", positive=True)  # x^(−q)
    x = y ** (-1 / q)
    assert sympy.simplify(sympy.diff(x, y) * q * (y - beta) - (beta * x * y**-1 - x)) == 0
    assert sympy.powdenest(x**q) == 1 / y
    law = beta + (start**-q - beta) * g**q
    assert sympy.simplify(g * sympy.diff(law, g) - q * (law - beta)) == 0 and law.subs(g, 1) == start**-q
    two = start * g ** (beta - 1)
    assert sympy.simplify(g * sympy.diff(two, g) / two - (beta - 1)) == 0


def test_exponents_of_turns():
    L, beta = sympy.symbols("L beta", positive=True)
    rates = sympy.Matrix([[L - 1, beta], [beta, L - 1]]).eigenvals()
    expected = {sympy.expand((beta - 1) / L), sympy.expand(-(beta + 1) / L)}
    assert {sympy.expand(rate / L - 1) for rate in rates} == expected


def test_the_twist_of_the_cube():
    """Margins of the prism at height h² = cos φ/2, its cost by singular values, and the cost's second derivative."""
    phi, p = sympy.symbols("phi p", positive=True)
    h2 = sympy.cos(phi) / 2
    turns = [(sympy.pi * k / 2 + turn, face) for turn, face in ((phi, 1), (0, -1)) for k in range(4)]
    corners = [(sympy.cos(angle), sympy.sin(angle), face) for angle, face in turns]

    def inner(a, b):
        return a[0] * b[0] + a[1] * b[1] + a[2] * b[2] * h2

    first = corners[0]
    gaps = [sympy.trigsimp(inner(first, first) - inner(first, other)) for other in corners[1:]]
    assert sorted(sympy.simplify(gap - 1) == 0 for gap in gaps) == [False] * 4 + [True] * 3
    gram = sympy.Matrix(3, 3, lambda i, j: sum(w[i] * w[j] for w in corners))
    assert sympy.simplify(gram - sympy.diag(4, 4, 8)) == sympy.zeros(3, 3)  # times h² in the last
    cost = 4 * (2 + sympy.cos(phi) ** p) ** (1 / p)
    assert sympy.simplify(sympy.diff(cost, phi, 2).subs(phi, 0) + 4 * 3 ** (1 / p - 1)) == 0


@pytest.mark.parametrize("depth", [3, 6])
def test_of_all_small_turns_only_the_twist_leaves_the_cube(depth):
    """All first-order deviations of rank 3 that change no tight margin: rates in the metric of their mobilities."""
    ones = [bin(i).count("1") for i in range(8)]
    growing = 0
    for d in range(1, 8):
        modes = [(i, i ^ d) for i in range(8) if ones[i] == 1 or ones[i ^ d] == 1]
        inside = [ones[i] == 1 and ones[j] == 1 for i, j in modes]
        margins = np.array([[float(i >> bit & 1) for i, _ in modes] for bit in range(3)])
        mobility = np.where(inside, depth, 1.0)
        rate = np.zeros((len(modes), len(modes)))
        for a, (i, j) in enumerate(modes):
            b = modes.index((j, i))
            if inside[a]:  # equal values split like s^q, turns within the range by −1 − 1/L … 0
                rate[a, a] += (1 - 2 / depth) / 2 - 0.5
                rate[a, b] += (1 - 2 / depth) / 2 + 0.5
            else:
                beta = ones[j] if ones[i] == 1 else ones[i]
                rate[a, a] -= 1 / depth
                rate[a, b] += beta / depth
        free = np.linalg.svd(margins)[2][np.linalg.matrix_rank(margins) :].T
        metric = np.diag(1 / mobility)
        reduced = np.linalg.solve(free.T @ metric @ free, free.T @ metric @ rate @ free)
        found = np.linalg.eigvals(reduced)
        assert np.abs(found.imag).max() < 1e-12
        growing += int((found.real > 1e-12).sum())
        if d == 7:
            assert np.allclose(np.sort(found.real)[-2:], 1 / depth)
    assert growing == 2


# ---------------------------------------------------------------- directions and forces


@pytest.mark.parametrize("name", EXTRAS)
def test_extras_are_off_the_range_and_neutral(name):
    P, E = EXTRAS[name]
    assert float((P @ E).abs().max()) < 1e-14
    for M in (P, E):
        values = torch.linalg.svdvals(M)
        assert torch.allclose(values, values.round(), atol=1e-13)
    tight = (P.diagonal() - P + 9 * torch.eye(len(P), dtype=P.dtype)) < float(dufm.metrics.margins(P).min()) + 1e-9
    added = (E.diagonal() - E)[tight]
    assert float(added.max() - added.min()) < 1e-14


@pytest.mark.parametrize(("name", "beta"), [("orthoplex", 1.5), ("two bits", 2.0), ("three bits", 3.0)])
def test_force_ratio_does_not_depend_on_the_multipliers(name, beta):
    P, E = EXTRAS[name]
    pulls = complement.random_multipliers(P, 5, 3)
    assert torch.allclose(complement.force_ratio(pulls, P, E), torch.full((5,), beta, dtype=P.dtype))
    assert abs(float(complement.force_ratio(dufm.log_loss_residual(300 * P), P, E)) - beta) < 1e-10


def test_multipliers_solve_the_equations_and_the_orthoplex_has_many():
    P, _ = complement.orthoplex_extra(6)
    pulls = complement.random_multipliers(P, 20, 0)
    assert torch.allclose(pulls @ P, P @ P.mT, atol=1e-9) and torch.allclose(P @ pulls, P @ P, atol=1e-9)
    assert float((pulls - torch.diag_embed(pulls.diagonal(dim1=-2, dim2=-1))).max()) < 1e-9
    top = complement.block_values(pulls, P, 3)[:, 0]
    assert float(top.min()) > 3**0.5 - 1e-6 and float(top.max()) > 2.1
    U, _, Vh = torch.linalg.svd(centred(codes.code_matrix(codes.antiprism())))
    with pytest.raises(DufmError, match="KKT point of equal values"):
        complement.random_multipliers(U[:, :3] @ Vh[:3], 1, 0)


def test_block_values_of_a_certificate_are_its_off_range_values():
    Z = codes.code_matrix(dufm.hypercube(8))
    certificate = dufm.kkt_certificate(Z, 4, 3)
    pull = torch.diag(certificate.multipliers.sum(0)) - certificate.multipliers
    assert torch.allclose(complement.block_values(pull, Z, 3), dufm.off_range_values(Z, 4, certificate), atol=1e-7)


@pytest.mark.parametrize("K", [8, 16])
def test_the_turn_changes_no_tight_margin(K):
    P, E = complement.cube_turn(K)
    tight = (P.diagonal() - P + 9 * torch.eye(K, dtype=P.dtype)) < float(dufm.metrics.margins(P).min()) + 1e-9
    assert float((E.diagonal() - E)[tight].abs().max()) < 1e-14
    A = E @ P - P @ E
    assert torch.allclose(A, -A.mT, atol=1e-14) and torch.allclose(A @ P - P @ A, E, atol=1e-14)


def test_speed_of_a_turn_is_that_of_the_balanced_field():
    """dZ/dt from powers of ZZᵀ at a slightly turned cube, with the pull held, against (L − 1 + β) g s^q."""
    P, E = complement.cube_turn(8)
    pull = complement.random_multipliers(P, 1, 0)[0]
    s, step, depth = 3.0, 1e-6, 4

    def field(sign):
        R = torch.linalg.matrix_exp(sign * step * (E @ P - P @ E))
        U, sigma, Vh = torch.linalg.svd(s * R @ P @ R.mT)
        sigma = torch.where(sigma > 1e-9, sigma, 0.0)
        powers = [sigma ** (2 * l / depth) for l in range(depth)]
        weights = sum(torch.outer(powers[depth - 1 - l], powers[l]) for l in range(depth))
        return U @ (weights * (U.mT @ pull @ Vh.mT)) @ Vh

    change = (field(1) - field(-1)) / (2 * step)
    grown = float((change * E).sum() / (E * E).sum()) / s
    assert abs(grown / ((depth - 1 + 2) * s ** (1 - 2 / depth)) - 1) < 1e-6


# ---------------------------------------------------------------- networks


@pytest.mark.parametrize(("name", "depth"), list(itertools.product(EXTRAS, [2, 3])))
def test_networks_keep_the_law(name, depth):
    P, E = EXTRAS[name]
    beta = float(complement.force_ratio(complement.random_multipliers(P, 1, 0)[0], P, E))
    s, extra = complement.extra_growth(P, E, depth, 100.0, [0.02, 0.1], [1.5, 3.0])
    law = basin.late_ratio((extra / s)[0], s[1] / s[0], depth, beta)
    assert torch.allclose((extra / s)[1], law, rtol=1e-4)


def test_networks_change_over_at_the_separatrix():
    ratio = complement.critical_extra(*EXTRAS["orthoplex"], 4, 100.0, rounds=2)
    assert abs(ratio - dufm.late_separatrix(4, 1.5)) < 24**-2


def test_one_direction_of_several_is_discarded_at_every_ratio():
    """It adds unequal amounts to the tight margins, so that β does not decide, though it is 3/2 here, too."""
    P, _ = complement.orthoplex_extra(6)
    axes = dufm.orthoplex(6).abs()
    v = (axes[:, 0] - axes[:, 1]) / 2
    assert torch.allclose(dufm.off_range_values(2 * P, 3, dufm.kkt_certificate(2 * P, 3))[:2], v.new_tensor(1.5))
    for depth, ratio in ((3, 0.5), (3, 0.9), (5, 0.6), (5, 0.9)):
        assert ratio > dufm.late_separatrix(depth, 1.5)
        start = dufm.balanced_init(100 * (P + ratio * v.outer(v)), depth)
        assert dufm.end(start, depth).name == ["orthoplex"]


def test_turns_grow_like_the_power():
    s, angle = complement.turn_growth(*complement.cube_turn(8), 3, 100.0, 1e-4, [1.5, 6.0])
    assert abs(float((angle[1] / angle[0]).log() / (s[1] / s[0]).log()) - 1 / 3) < 1e-4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: complement.cube_extra(8, 4), "bits must be at most"),
        (lambda: complement.cube_turn(4), "at least 8"),
        (lambda: complement.critical_extra(*EXTRAS["orthoplex"], 2, 100.0), "depth must be"),
        (lambda: complement.critical_extra(*EXTRAS["orthoplex"], 3, -1.0), "size must be"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(DufmError, match=message):
        call()


def test_the_bound_needs_the_nuclear_norm():
    """Σβ ≥ ‖Z‖_* − r for every choice of multipliers; equality where Z is symmetric and N is positive."""
    Z = centred(codes.code_matrix(dufm.hypercube(8)))
    U, sigma, Vh = torch.linalg.svd(Z)
    pull = complement.random_multipliers(U[:, :3] @ Vh[:3], 1, 0)
    assert abs(float(complement.block_values(pull, Z, 3).sum() - (sigma.sum() - 3))) < 1e-6
