"""Methods in other norms: duals by their definition, orthogonalised steps by their law, margins by Hölder's bound."""

import pytest
import sympy
import torch

import dufm
from dufm import optimizers


@pytest.mark.parametrize("norm", sorted(optimizers.NORMS))
def test_a_dual_norm_is_the_largest_product(norm):
    """No direction beats the dual, and the direction of steepest descent attains it."""
    size, dual = optimizers.NORMS[norm]
    draw = torch.Generator().manual_seed(0)
    G = [torch.randn(4, 3, generator=draw).double(), torch.randn(2, 4, generator=draw).double()]
    best = {
        "euclidean": G,
        "entry": [g.sign() for g in G],
        "spectral": [optimizers._polar(g, 4) for g in G],
    }[norm]
    others = [[torch.randn(*g.shape, generator=draw).double() for g in G] for _ in range(200)]
    values = [sum((g * d).sum() for g, d in zip(G, D, strict=True)) / size(D) for D in (best, *others)]
    assert float(values[0]) == pytest.approx(float(dual(G)), rel=1e-12) and max(values[1:]) < dual(G)


def test_alignment_is_one_at_collapse_in_the_spectral_norm_alone():
    Z = 200 * (torch.eye(5, dtype=torch.float64) - 0.2)
    factors = dufm.balanced_init(Z, 3)
    assert float(optimizers.alignment(factors, "spectral")) == pytest.approx(1.0, abs=1e-9)
    assert float(optimizers.alignment(factors, "euclidean")) == pytest.approx(1.0, abs=1e-9)
    assert float(optimizers.alignment(factors, "entry")) < 0.9
    leaves = [W.clone().requires_grad_() for W in factors]
    assert torch.equal(optimizers.alignment(leaves, "entry"), optimizers.alignment(factors, "entry"))


def test_the_square_is_critical_in_the_spectral_norm_too_and_a_lesser_code_is_not():
    near = {name: dufm.balanced_init(200 * Z, 3) for name, Z in dufm.codes.named(4).items()}
    assert float(optimizers.alignment(near["orthoplex"], "spectral")) == pytest.approx(1.0, abs=1e-9)
    assert float(optimizers.alignment(near["1 pair, 2 single"], "spectral")) < 0.9


def test_sign_and_adam_are_the_methods_they_say():
    factors = dufm.gaussian_init(3, 5, 4, scale=0.7, seed=3)
    slopes = optimizers._slopes(factors)[1]
    size = optimizers.NORMS["entry"][0](factors)
    after = optimizers.train_by(factors, "sign", step=0.01, steps=1)
    expected = [W + 0.01 * size[:, None, None] * G.sign() for W, G in zip(factors, slopes, strict=True)]
    assert all(torch.allclose(a, b, rtol=0, atol=1e-15) for a, b in zip(after, expected, strict=True))


def test_momentum_of_short_steps_is_the_flow():
    """At equal loss, the distance from the flow's path halves with the step."""
    factors, far = dufm.gaussian_init(3, 6, 4, scale=0.7, seed=1), []
    for step in (2e-3, 1e-3):
        Z = dufm.product(optimizers.train_by(factors, "momentum", step=step, steps=int(1.0 / step)))
        flow = dufm.gradient_flow(factors, until_log_loss=float(dufm.log_loss(Z)), rtol=1e-7).Z
        far.append(float(torch.linalg.matrix_norm(Z - flow) / torch.linalg.matrix_norm(flow)))
    assert far[0] < 0.1 and 0.4 < far[1] / far[0] < 0.6


def test_orthogonalised_steps_add_the_same_to_every_value():
    s = torch.tensor([[0.5, 0.2, 0.01, 0.3, 0.1, 0.05, 0.4]], dtype=torch.float64)
    uneven, names = optimizers.muon_increments(s, 3, "hadamard", 0.3, 2)
    assert uneven.max() < 1e-9 and (names == "NC").all()


def test_sign_matrices_attain_the_bound_at_the_square():
    """Entries ±1, four classes, even depth: the square's margin is K d^{L−1} γ_L, which no factors exceed."""
    d, L = 6, 4
    half = torch.ones(d // 2, 1, dtype=torch.float64)
    code = torch.tensor([[1, 1], [1, -1], [-1, -1], [-1, 1]], dtype=torch.float64)
    turn = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64)
    wide = torch.kron(torch.eye(2, dtype=torch.float64), half)
    factors = [wide @ code.T, wide @ turn @ wide.T, wide @ turn @ wide.T, code @ wide.T]
    assert all((W.abs() == 1).all() for W in factors)
    Z = dufm.product(factors)
    margin = float(dufm.margins(Z).min())
    assert margin == pytest.approx(4 * d ** (L - 1) * dufm.closed_form_margin("orthoplex", 4, L), rel=1e-12)
    assert optimizers.flatness(factors) == pytest.approx(1.0, rel=1e-12)
    others = dufm.gaussian_init(L, d, 4, seed=0, batch=50)
    assert (optimizers.flatness(others) < 1).all()


def test_the_dual_matrix_of_collapse_symbolically():
    """⟨KI − J, Z⟩ is the sum of all margins, and the nuclear norm of KI − J is K(K − 1)."""
    K = 4
    Z = sympy.Matrix(K, K, lambda i, j: sympy.Symbol(f"z{i}{j}"))
    dual = K * sympy.eye(K) - sympy.ones(K, K)
    total = sum(Z[c, c] - Z[j, c] for c in range(K) for j in range(K) if j != c)
    assert sympy.simplify((dual.T * Z).trace() - total) == 0
    assert dual.eigenvals() == {0: 1, K: K - 1}
