"""Small deviations from collapse: the families as projections, their laws by finite differences and by the flow."""

import math

import numpy as np
import pytest
import sympy
import torch

import dufm
from dufm import perturbation
from dufm.perturbation import FAMILIES


def ray(K):
    return torch.eye(K, dtype=torch.float64) - 1 / K


# ---------------------------------------------------------------- the families


@pytest.mark.parametrize("K", [3, 4, 7])
def test_projections_split_all_directions(K):
    basis = torch.eye(K * K, dtype=torch.float64).reshape(-1, K, K)
    parts = perturbation.project(basis)
    maps = parts.reshape(4, K * K, K * K)
    sizes = [K * (K - 3) / 2, (K - 1) * (K - 2) / 2, K - 1, 2 * (K - 1)]
    assert torch.allclose(maps.diagonal(dim1=1, dim2=2).sum(-1), torch.tensor(sizes, dtype=torch.float64))
    for i in range(4):
        for j in range(4):
            expected = maps[i] if i == j else torch.zeros_like(maps[i])
            assert torch.allclose(maps[i] @ maps[j], expected, atol=1e-13)
    left = basis - parts.sum(0)
    u = torch.full((K, K), 1 / K, dtype=torch.float64)
    along = (left * ray(K)).sum((-2, -1))[:, None, None] * ray(K) / (K - 1) + left.mean((-2, -1), keepdim=True) * K * u
    assert torch.allclose(left, along, atol=1e-13)


def test_random_directions_are_what_they_are_called():
    K = 6
    even, odd, shift, tilt = parts = perturbation.random_directions(K, 3)
    assert torch.allclose(torch.linalg.matrix_norm(parts), torch.ones(4, dtype=torch.float64))
    assert torch.allclose(even, even.mT) and float(even.diagonal().abs().max()) < 1e-14
    assert torch.allclose(odd, -odd.mT) and float((odd.sum(0)).abs().max()) < 1e-14
    assert torch.allclose(shift, shift[:1].expand(K, K)) and abs(float(shift.sum())) < 1e-14
    x, b = perturbation.imbalance_coordinates(tilt)
    C = ray(K)
    assert torch.allclose(C @ torch.diag(x) @ C + torch.outer(b, torch.full_like(b, K**-0.5)), tilt)
    assert not torch.equal(parts, perturbation.random_directions(K, 4))
    assert not perturbation.random_directions(3, 0)[0].any() and perturbation.random_directions(3, 0)[1].any()


# ---------------------------------------------------------------- the laws


def speed(Z, depth):
    """dZ/dt of balanced factors, from the singular values of Z: no factors, no integrator."""
    U, sigma, Vh = torch.linalg.svd(Z)
    sigma = torch.where(sigma > 1e-9 * sigma[0], sigma, 0.0)
    residual = torch.eye(len(Z)) - torch.softmax(Z, 0)
    powers = [sigma ** (2 * l / depth) for l in range(depth)]
    weights = sum(torch.outer(powers[depth - 1 - l], powers[l]) for l in range(depth))
    return U @ (weights * (U.mT @ residual @ Vh.mT)) @ Vh


@pytest.mark.parametrize(("K", "depth", "s"), [(4, 2, 1.5), (5, 3, 0.4), (5, 6, 6.0), (3, 4, 2.0)])
def test_laws_are_the_derivative_of_the_field(K, depth, s):
    """d/ds of E along the ray, by central differences of dZ/dt, against the laws' own derivative."""
    C, step = ray(K), 1e-5
    rate = float((speed(s * C, depth) * C).sum()) / (K - 1)
    for family, E in zip(FAMILIES, perturbation.random_directions(K, 1), strict=True):
        if not E.any():
            continue
        change = (speed(s * C + step * E, depth) - speed(s * C - step * E, depth)) / (2 * step) / rate
        near = np.array([s * (1 - 1e-4), s, s * (1 + 1e-4)])
        if family == "imbalance":
            x, b = (part.numpy() for part in perturbation.imbalance_coordinates(E))
            paths = perturbation.imbalance_path(x, b, near[1:], K, depth)
            expected = [(path[1] - path[0]) / (near[2] - near[1]) for path in paths]
            found = perturbation.imbalance_coordinates(change)
            assert all(np.allclose(a, e, atol=2e-3 * abs(e).max()) for a, e in zip(found, expected, strict=True))
            assert float((change - perturbation.project(change)[3]).abs().max()) < 1e-6
        else:
            grown = [x / s * perturbation.family_growth(family, float(x), s, K, depth) for x in near]
            expected = (grown[2] - grown[0]) / (near[2] - near[0])
            assert torch.allclose(change, expected * E, atol=1e-6)


def test_peak_of_imbalance_by_another_solver():
    """Depth 2 amplifies nothing; elsewhere Euler's product of small maps gives the same peak."""
    assert perturbation.imbalance_peak(5, 2) == pytest.approx(1.0)
    K, L, s0 = 4, 3, 0.1
    s = np.geomspace(s0, 6 * K, 40_001)
    weight = np.diag([math.sqrt(1 - 2 / K), 1.0])
    whole, peak = np.eye(2), 1.0
    for now, step in zip(s[:-1], np.diff(s), strict=True):
        rho = math.expm1(now) / (math.exp(now) + K - 1)
        pull = np.array([[1 + rho * (K - 2), rho * K**0.5], [rho * (K - 2) / K**0.5 / L, (1 + rho) / L]]) / K
        whole = whole + step * (np.diag([2 - 2 / L, 1 - 1 / L]) / now - pull) @ whole
        peak = max(peak, np.linalg.norm(weight @ whole @ np.linalg.inv(weight), 2) * s0 / (now + step))
    assert perturbation.imbalance_peak(K, L, s0=s0) == pytest.approx(peak, rel=2e-3)


# ---------------------------------------------------------------- the flow


@pytest.mark.parametrize(("K", "depth"), [(3, 3), (4, 3), (5, 2)])
def test_networks_follow_the_laws(K, depth):
    found = perturbation.measured_families(K, depth, seed=2)
    names = [name for name in FAMILIES if K > 3 or name != "symmetric"]
    assert list(dict.fromkeys(found["family"])) == names and found["deviation"].max() < 1e-4
    assert np.allclose(found["growth"], found["law"], rtol=1e-4)
    assert found["growth"][found["family"] == "antisymmetric"].max() <= 1 + 1e-9


def test_repulsion_peaks_at_the_turning_point():
    found = perturbation.measured_repulsion(8, 4, levels=40, seed=1)
    assert np.abs(found["growth"] / found["law"] - 1).max() < 1e-6
    assert found["peak"] == pytest.approx(dufm.turning_point(8, 4), rel=1e-3)
    assert math.isnan(perturbation.measured_repulsion(4, 2, levels=12)["peak"])


@pytest.mark.parametrize("depth", [2, 4])
def test_early_phase(depth):
    s0 = 1e-4 * torch.tensor([0.5, 1.0, 0.7], dtype=torch.float64)
    found = perturbation.early_phase(s0, depth, [0.1, 0.5])
    assert found["deviation"].max() < 1e-2 and 0.1 < found["used"].max() < 1
    assert np.allclose(found["largest"], found["law_largest"], rtol=1e-2)


@pytest.mark.parametrize("group", ["hadamard", (2, 6)])
def test_forces_are_the_spectrum_of_the_residual(group):
    chi = dufm.characters(group, 8 if group == "hadamard" else None)
    generator = torch.Generator().manual_seed(0)
    s = 30 * torch.rand(4, chi.num_free, generator=generator, dtype=torch.float64) + 0.1
    Z = chi.logits(s)
    expected = chi.spectrum(dufm.log_loss_residual(Z))[0] * dufm.log_loss(Z).exp().unsqueeze(-1)
    assert torch.allclose(perturbation.forces(s, group), expected, rtol=1e-9)
    assert torch.allclose(perturbation.forces(1e-12 * s, group), torch.ones_like(s))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: perturbation.project(torch.eye(2)), "K at least 3"),
        (lambda: perturbation.project(torch.ones(3, 6)), "shape"),
        (lambda: perturbation.random_directions(2, 0), "num_classes must be"),
        (lambda: perturbation.family_growth("imbalance", 1.0, 0.5, 4, 3), "family must be one of"),
        (lambda: perturbation.imbalance_path([1.0], [0.0], [1.0, 0.5], 4, 3), "s must be increasing"),
        (lambda: perturbation.imbalance_path([1.0], [0.0], [1.0, 1e300], 4, 3), "s must span at most 100000"),
        (lambda: perturbation.imbalance_peak(4, 3, s0=0.0), "s0 must be"),
        (lambda: perturbation.measured_repulsion(4, 3, levels=5), "levels must be"),
        (lambda: perturbation.measured_families(2, 3), "num_classes must be"),
        (lambda: perturbation.early_phase(torch.ones(3, dtype=torch.float64), 1, [0.5]), "depth must be"),
        (lambda: perturbation.early_phase(torch.ones(3, dtype=torch.float64), 2, [0.5]), "s0 must have its largest"),
        (lambda: perturbation.early_phase(0.1 * torch.ones(3), 3, [-0.1, 0.5]), "shares must be positive"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(ValueError, match=words):
        call()


# ---------------------------------------------------------------- symbolic steps of the proofs in 52 and 54


@pytest.mark.parametrize("K", [3, 4])
def test_the_softmax_changes_by_one_formula(K):
    """54, step 2: δP = p_1 [CE + ρKC Diag(d)], d the diagonal of CE, for any E: SymPy's derivative of the softmax."""
    s, eps = sympy.symbols("s epsilon", positive=True)
    C = sympy.eye(K) - sympy.ones(K) / K
    E = sympy.Matrix(K, K, sympy.symbols(f"e:{K * K}"))
    weights = (s * C + eps * E).applyfunc(sympy.exp)
    P = sympy.Matrix(K, K, lambda j, c: weights[j, c] / sum(weights[:, c]))
    p1, rho = 1 / (sympy.exp(s) + K - 1), (sympy.exp(s) - 1) / (sympy.exp(s) + K - 1)
    expected = p1 * (C * E + rho * K * C * sympy.diag(*(C * E).diagonal()))
    assert sympy.simplify(P.diff(eps).subs(eps, 0) - expected) == sympy.zeros(K)


def test_class_imbalance_is_closed_under_the_softmax():
    """54, step 6, at K = 3: for E = C Diag(x) C + buᵀ the change of P has x + ρ((K−2)x + √K b) and the like for b."""
    K, s = 3, sympy.symbols("s", positive=True)
    C, u = sympy.eye(K) - sympy.ones(K) / K, sympy.ones(K, 1) / sympy.sqrt(K)
    (x1, x2, b1, b2), rho = sympy.symbols("x1 x2 b1 b2"), (sympy.exp(s) - 1) / (sympy.exp(s) + K - 1)
    x, b = sympy.Matrix([x1, x2, -x1 - x2]), sympy.Matrix([b1, b2, -b1 - b2])
    E = C * sympy.diag(*x) * C + b * u.T
    change = E + rho * K * C * sympy.diag(*E.diagonal())
    new_x = x + rho * ((K - 2) * x + sympy.sqrt(K) * b)
    new_b = b + rho * ((K - 2) * x / sympy.sqrt(K) + b)
    assert sympy.simplify(change - C * sympy.diag(*new_x) * C - new_b * u.T) == sympy.zeros(K)


def test_half_of_eight_classes_at_depth_two():
    """52: f = hχ_i + h'χ + h''χχ_i on the half H gives the two cosh, and their bound."""
    h, a, b = sympy.symbols("h a b", positive=True)
    signs = [(i, k) for i in (1, -1) for k in (1, -1)]
    total = sum(i * sympy.exp(h * i + a * k + b * k * i) for i, k in signs)
    expected = 2 * sympy.exp(h) * sympy.cosh(a + b) - 2 * sympy.exp(-h) * sympy.cosh(a - b)
    assert sympy.simplify((total - expected).rewrite(sympy.exp)) == 0
    least = sympy.exp(h) - sympy.exp(-h) * sympy.cosh(2 * h)
    assert sympy.simplify((least - (sympy.exp(h) - sympy.exp(-3 * h)) / 2).rewrite(sympy.exp)) == 0


@pytest.mark.parametrize("K", [16, 64])
def test_largest_gains_at_depth_two_once_the_others_are_separated(K):
    """52: S(1/2 − 4/K) > r + log(K − 2) is enough; at eight classes no S is."""
    for classes, gains in ((K, True), (8, False)):
        chi = dufm.characters("hadamard", classes).table[:, 1]
        S, r = (1.0 + math.log(classes - 2)) / (0.5 - 4 / K) + 0.1, 1.0
        s = torch.where(chi > 0, S, r).double()
        leader, laggard = int((chi < 0).nonzero()[0]), int((chi > 0).nonzero()[0])
        s[leader], s[laggard] = S + 1e-3, r - 1e-3
        g = perturbation.forces(s, "hadamard")
        assert bool(g[leader] > g[laggard]) is gains


@pytest.mark.parametrize("K", [4, 8, 16])
def test_forces_differ_from_one_by_at_most_a_tanh(K):
    """51 and 59: |g_i − 1| ≤ tanh of the mean of what is not constant on cosets; reached with f = ±m on the halves."""
    s = torch.from_numpy(np.random.default_rng(K).exponential(1.0, (500, K - 1)) * np.geomspace(1e-3, 10, 500)[:, None])
    off = (perturbation.forces(s, "hadamard") - 1).abs()
    assert (off <= torch.tanh(s.sum(-1, keepdim=True) / K)).all()
    s[:, 0] = 50.0  # character 1 has left: the others are 1 + O(their own mean) still
    off = (perturbation.forces(s, "hadamard")[:, 1:] - 1).abs()
    assert (off <= torch.tanh(s[:, 1:].sum(-1, keepdim=True) / K)).all()
    alone = torch.full((K - 1,), 1e-12, dtype=torch.float64)
    alone[0] = 2.0
    assert float(perturbation.forces(alone, "hadamard")[0]) == pytest.approx(1 - math.tanh(2.0 / K))


def test_imbalance_grows_to_its_peak_in_a_network():
    peak = perturbation.imbalance_peak(3, 4, s0=0.1)
    assert peak > 1.5 and perturbation.measured_imbalance(3, 4, s0=0.1) == pytest.approx(peak, rel=1e-3)


def test_an_early_phase_takes_a_start_with_a_graph():
    s0 = torch.tensor([0.1, 0.1, 0.01], dtype=torch.float64, requires_grad=True)
    found, plain = (perturbation.early_phase(s, 4, [0.5]) for s in (s0, s0.detach()))
    assert found["largest"] == plain["largest"]
