"""Small and big layers: the equation of the logits by a second route, its symbols, and the twins."""

import numpy as np
import pandas
import pytest
import scipy.optimize
import sympy
import torch
from tolerances import LINALG, close

from dufm import DufmError, balanced_init, gradient_flow, imbalance, product, schatten
from dufm.lazy import layer_products
from dufm.unbalanced import beside_twins, shallow_path, shifted_init, stretched_init, unbalanced_ends

TOL = LINALG[torch.float64]
WORDS = ["sb", "bs", "sbb", "sbsb", "bssss"]


def logits(num_classes=4, batch=3, seed=5):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, num_classes, num_classes)))


@pytest.mark.parametrize("word", WORDS)
def test_a_shifted_start_has_the_product_and_the_imbalance_asked_for(word):
    factors, h = shifted_init(logits(), word, 30.0), 30.0
    close(product(factors), logits(), 1e-9)
    a = [h ** (2 / len(word)) * (letter == "b") for letter in word]
    for D, step in zip(imbalance(factors), np.diff(a), strict=True):
        close(D, step * torch.eye(4, dtype=D.dtype).expand(3, 4, 4), 1e-9)


def test_without_a_big_layer_it_costs_what_balanced_factors_do():
    factors = shifted_init(logits(), "sss", 7.0)
    close(sum(W.square().sum((-2, -1)) for W in factors), 3 * schatten(logits(), 2 / 3) ** (2 / 3), 1e-9)
    close(torch.stack(imbalance(factors)), torch.zeros(2, 3, 4, 4, dtype=torch.float64), 1e-9)


@pytest.mark.parametrize("word", WORDS)
def test_the_velocity_is_the_divided_difference_whatever_the_order(word):
    """Against the products around every layer; the root by SciPy's brentq."""
    h, Z = 3.0, logits(5, 1)
    shifts = [h ** (2 / len(word)) * (letter == "b") for letter in word]
    A, B = layer_products(shifted_init(Z, word, h))
    force = torch.eye(5, dtype=Z.dtype) - torch.softmax(Z, -2)
    whole = sum(a @ force @ b for a, b in zip(A, B, strict=True))[0]
    force = force[0]
    U, sigma, Vh = np.linalg.svd(Z[0].numpy())

    def p(y):
        return np.prod([y + a for a in shifts], axis=0)

    y = np.array([scipy.optimize.brentq(lambda y, x=x: p(y) - x**2, 0, 100, xtol=1e-15) for x in sigma])
    gap = y[:, None] - y + np.eye(5)
    slope = sum(np.prod([y + a for a in shifts[:l] + shifts[l + 1 :]], axis=0) for l in range(len(shifts)))
    gain = (sigma[:, None] ** 2 - sigma**2) / gap + np.diag(slope)
    close(whole, torch.from_numpy(U @ (gain * (U.T @ force.numpy() @ Vh.T)) @ Vh), 1e-8)


def test_big_layers_of_stretched_starts_have_the_norms_of_shifted_ones():
    Z, word = logits(), "bsbs"
    shifted, stretched, balanced = shifted_init(Z, word, 50.0), stretched_init(Z, word, 50.0), balanced_init(Z, 4)
    close(product(stretched), Z, 1e-9)
    for layer in (0, 2):
        close(torch.linalg.matrix_norm(stretched[layer]), torch.linalg.matrix_norm(shifted[layer]), 1e-9)
    for W, B in zip(stretched, balanced, strict=True):
        ratio = torch.linalg.matrix_norm(W) / torch.linalg.matrix_norm(B)
        close(W, ratio[:, None, None] * B, 1e-9)
    close(product(stretched_init(Z, "sss", 50.0)), Z, 1e-9)


@pytest.mark.parametrize("small", [2, 3])
def test_the_shallow_path_is_that_of_a_balanced_network(small):
    Z, times = logits(batch=1)[0], np.array([0.5, 4.0])
    record = {"log_time": np.log(times).tolist()}
    Z_flow = gradient_flow(balanced_init(Z, small), until_log_loss=-50.0, rtol=1e-10, record=record).history.Z
    close(Z_flow, torch.from_numpy(shallow_path(Z, small, times)), 1e-6)


def test_the_shallow_path_of_one_layer_is_the_linear_model():
    """Conserved column sums, and small steps of descent."""
    Z, eye = logits(3, 1)[0], torch.eye(3, dtype=torch.float64)
    found = torch.from_numpy(shallow_path(Z, 1, np.array([1.0, 2.0])))
    close(found.sum(-2), Z.sum(0).expand(2, 3), 1e-8)
    for _ in range(20000):
        Z = Z + 1e-4 * (eye - torch.softmax(Z, 0))
    close(found[1], Z, 1e-4)


def test_logits_depend_on_the_seed_alone_and_kinds_are_checked():
    both = unbalanced_ends([3, 4], 4, "sbb", 10.0)["rank"]
    assert both[1] == unbalanced_ends([4], 4, "sbb", 10.0)["rank"][0]
    for word, h, kind in (("bbb", 1.0, "shifted"), ("s", 1.0, "shifted"), ("sxb", 1.0, "shifted"), ("sb", 1.0, "wide")):
        with pytest.raises(DufmError):
            unbalanced_ends([0], 4, word, h, kind)
    with pytest.raises(DufmError):
        shifted_init(logits(), "sb", 0.0)
    with pytest.raises(DufmError):
        shifted_init(torch.ones(4, 8, dtype=torch.float64), "sb", 1.0)


def test_networks_are_counted_beside_their_own_twins():
    ranks = {"ss": [3, 3, 3], "sss": [3, 2, 2], "ssb": [3, 3, 0], "sbb": [3, 3, 2]}
    rows = [(4, word, 1.0, "shifted", seed, rank) for word in ranks for seed, rank in enumerate(ranks[word])]
    runs = pandas.DataFrame(rows, columns=["num_classes", "word", "handover", "kind", "seed", "rank"])
    found = beside_twins(runs).set_index(["depth", "small"])[["collapse", "undecided", "as_small", "as_deep"]]
    assert found.loc[3, 2].tolist() == [2, 1, 2, 1]
    assert found.loc[3, 1].tolist() == [2, 0, 2, 2]
    assert found.loc[3, 3].tolist() == [1, 0, 3, 3]
    with pytest.raises(DufmError):
        beside_twins(runs[runs.word != "ss"])


# ---------------------------------------------------------------- the symbols of notebook 84


def test_the_sum_over_layers_telescopes():
    y, x, *a = sympy.symbols("y x a:4")
    for L in (2, 3, 4):
        whole = sum(sympy.prod(y + b for b in a[l + 1 : L]) * sympy.prod(x + b for b in a[:l]) for l in range(L))
        assert sympy.expand((y - x) * whole - sympy.prod(y + b for b in a[:L]) + sympy.prod(x + b for b in a[:L])) == 0


@pytest.mark.parametrize(("k", "L"), [(1, 3), (2, 5), (3, 4)])
def test_the_small_parameter_is_h_to_the_minus_two_over_k(k, L):
    """p(y) in rescaled variables, and the factor between t and τ; h = b^{kL/2} with a = b^k."""
    b, x = sympy.symbols("b x", positive=True)
    a, y, eps = b**k, x / b ** (L - k), b ** (-L)
    reduced = x**k * (1 + eps * x) ** (L - k)
    assert sympy.simplify(y**k * (y + a) ** (L - k) - reduced) == 0
    # Γ = dp/dy and τ = h^{2(L − k)/(kL)} t = b^{L − k} t
    assert sympy.simplify(sympy.diff(reduced, x) / sympy.diff(y, x) / b ** (L - k) - sympy.diff(reduced, x)) == 0
    assert sympy.simplify((b ** sympy.Rational(k * L, 2)) ** sympy.Rational(-2, k) - eps) == 0


def test_the_rate_never_grows_faster_than_at_balance():
    """(L − 1) p'² − L p p'' is a sum of squares, so 2 p p''/p'² ≤ 2 − 2/L."""
    y, *a = sympy.symbols("y a:4")
    for L in (2, 3, 4):
        p = sympy.prod(y + b for b in a[:L])
        squares = sum((p / (y + a[l]) - p / (y + a[m])) ** 2 for m in range(L) for l in range(m))
        assert sympy.simplify((L - 1) * sympy.diff(p, y) ** 2 - L * p * sympy.diff(p, y, 2) - squares) == 0


def test_the_forces_of_four_classes():
    """g_z/g_y = A(B + M)/(B(A + M)) from softmax of the character sum, and its bound e^{−v/5} on (0, 1]."""
    s = sympy.symbols("z m y", real=True)
    table = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
    weight = [sympy.exp(sum(x * chi for x, chi in zip(s, row, strict=True)) / 4) for row in table]
    g = [sum(w * (1 - row[i]) for w, row in zip(weight, table, strict=True)) for i in range(3)]
    A, M, B = (sympy.exp(-x / 2) for x in s)
    assert sympy.simplify(g[0] / g[2] - A * (B + M) / (B * (A + M))) == 0
    v = np.linspace(1e-6, 1, 1001)
    assert (np.log((1 + np.exp(-v / 2)) / 2) < -v / 5).all()


@pytest.mark.parametrize("depth", [6, 20])
def test_rounding_in_the_logits_is_no_layer(depth):
    assert torch.linalg.svdvals(shifted_init(torch.eye(4).double() - 0.25, "s" * depth, 1.0)[1])[-1] == 0


def test_tiny_logits_have_their_own_factors():
    Z = 1e-140 * (torch.eye(4).double() - 0.25)
    close(1e140 * product(shifted_init(Z, "sb", 1.0)), 1e140 * Z, LINALG[torch.float64])
    low = torch.diag(torch.tensor([2.0, 1.0, 0.0]))
    close(product(shifted_init(low, "sb", 1.0)), low, LINALG[torch.float32])
