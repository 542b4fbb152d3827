"""Weight decay: the threshold of collapse, the flow to rest, and the steps of the proof."""

import math

import numpy as np
import pandas
import pytest
import sympy
import torch
from scipy.integrate import solve_ivp

import dufm
from dufm import codes, perturbation, weight_decay
from dufm._error import DufmError
from dufm.model import chain


def _at_collapse(K, L, s, width=None):
    return dufm.balanced_init(s * (torch.eye(K, dtype=torch.float64) - 1 / K), L, width)


def _decay(K, L, s):
    return K * s ** (1 - 2 / L) / (math.exp(s) + K - 1)


@pytest.mark.parametrize("K, L, above", [(4, 3, 0.3), (5, 4, -0.3), (4, 2, 0.5)])
def test_spectrum_of_the_hessian_at_collapse(K, L, above):
    """Whole spectrum of the automatic Hessian: least eigenvalue, its multiplicity, and a kernel of turns only."""
    q, width = 1 - 2 / L, K + 1
    s = K * q + above
    values = torch.linalg.eigvalsh(weight_decay.factor_hessian(_at_collapse(K, L, s, width), _decay(K, L, s)))
    family = L * (s / K - q)
    assert int((values - family).abs().lt(1e-9).sum()) >= K * (K - 3) // 2
    assert float(values[0]) == pytest.approx(min(0.0, family), abs=1e-9)
    rest = width - (K - 1)
    turns = (L - 1) * (width * (width - 1) // 2 - rest * (rest - 1) // 2)
    assert int(values.abs().lt(1e-9).sum()) == turns


def test_collapse_is_stationary_where_the_formula_says():
    K, L, s = 5, 3, 4.0
    factors = [W.requires_grad_() for W in _at_collapse(K, L, s)]
    Z = chain(factors)
    loss = -torch.log_softmax(Z, 0).diagonal().sum() + _decay(K, L, s) / 2 * sum(W.square().sum() for W in factors)
    assert all(g.abs().max() < 1e-12 for g in torch.autograd.grad(loss, factors))
    scale, cost = weight_decay.least_cost(torch.eye(K, dtype=torch.float64) - 1 / K, L, _decay(K, L, s))
    assert scale == pytest.approx(s, rel=1e-5)
    assert cost == pytest.approx(loss.item(), rel=1e-10)


def test_algebra_of_the_threshold():
    """Steps 2, 4 and 6 in symbols: scales, the square of the symmetric part, and the slope of λ."""
    s, K, L = sympy.symbols("s K L", positive=True)
    q, eps = 1 - 2 / L, 1 / (sympy.exp(s) + K - 1)
    w, g = s ** (1 / L), K * eps
    decay = K * s**q * eps
    assert sympy.simplify(g * w ** (L - 2) / decay) == 1
    assert sympy.simplify(w ** (2 * L - 2) * eps / decay - s / K) == 0
    assert sympy.simplify(sympy.diff(sympy.log(decay), s) - (q / s - sympy.exp(s) * eps)) == 0
    S = sympy.symbols("S1:4")
    mean = sum(S) / 3
    squares = 2 * sum(x**2 for x in S) - sum(S) ** 2
    assert sympy.expand(squares - 2 * sum((x - mean) ** 2 for x in S) + 9 * (1 - sympy.Rational(2, 3)) * mean**2) == 0


def test_curvature_of_the_loss_is_at_least_that_of_the_least_probability():
    K, s = 5, 1.3
    P = torch.softmax(s * torch.eye(K, dtype=torch.float64), 0)
    draw = np.random.default_rng(0)
    for E in torch.from_numpy(draw.standard_normal((20, K, K))):
        bound = P.min() * (E - E.mean(0)).square().sum()
        assert ((P * E**2).sum(0) - (P * E).sum(0) ** 2).sum() > bound
    even = perturbation.random_directions(K, 0)[0]
    assert float(((P * even**2).sum(0) - (P * even).sum(0) ** 2).sum()) == pytest.approx(float(P.min()), rel=1e-12)


@pytest.mark.parametrize("K, L", [(4, 2), (5, 6)])
def test_threshold_finds_the_formula(K, L):
    known = weight_decay.critical_decay(K, L)
    # At L = 2 the minimum is not lost to a saddle but shrinks to zero.
    if L == 2:
        assert known == 1.0
    else:
        assert weight_decay.threshold(codes.named(K)["NC"], L, known / 10) == pytest.approx(known, rel=1e-4)


def test_the_rung_persists_below_its_threshold_only():
    rung = codes.pairs_and_singles(6, 2)
    assert 1e-3 < weight_decay.threshold(rung, 3, 1e-5, precision=1e-2) < 1e-2
    with pytest.raises(DufmError, match="low must be a decay with a minimum"):
        weight_decay.threshold(rung, 3, 0.1)


def test_flow_is_that_of_scipy():
    """One network beside LSODA; both rest in the same logits."""
    decay, start = 0.05, dufm.gaussian_init(3, 5, 4, batch=3, seed=1)
    run = weight_decay.decayed_flow(start, decay, rtol=1e-7)
    shapes = [W.shape[1:] for W in start]
    sizes = [math.prod(shape) for shape in shapes]

    def field(_, x):
        W = [part.reshape(shape) for part, shape in zip(np.split(x, np.cumsum(sizes)[:-1]), shapes, strict=True)]
        Z = W[2] @ W[1] @ W[0]
        P = np.exp(Z) / np.exp(Z).sum(0)
        G = np.eye(4) - P
        slopes = [(W[2] @ W[1]).T @ G, W[2].T @ G @ W[0].T, G @ (W[1] @ W[0]).T]
        return np.concatenate([slope.ravel() for slope in slopes]) - decay * x

    begin = np.concatenate([W[1].numpy().ravel() for W in start])
    x = solve_ivp(field, (0, 20 / decay), begin, "LSODA", rtol=1e-8, atol=1e-10).y[:, -1]
    W = [part.reshape(shape) for part, shape in zip(np.split(x, np.cumsum(sizes)[:-1]), shapes, strict=True)]
    assert run.status.tolist() == ["rests"] * 3
    assert np.abs(run.Z[1].numpy() - W[2] @ W[1] @ W[0]).max() < 1e-5
    assert max(D.abs().max() for D in dufm.imbalance(run.factors)) < 1e-6


def test_small_starts_go_to_zero():
    run = weight_decay.decayed_flow(dufm.gaussian_init(3, 4, 4, scale=0.05, batch=2, seed=0), 0.5)
    assert run.status.tolist() == ["zero"] * 2
    cut_short = weight_decay.decayed_flow(dufm.gaussian_init(3, 4, 4, batch=1, seed=0), 0.01, max_steps=3)
    assert cut_short.status[0] == "still moving"


@pytest.mark.parametrize("depth", [2, 3])
def test_factors_of_zeros_are_at_zero(depth):
    start = dufm.gaussian_init(depth, 4, 4, scale=0.05, batch=2, seed=0)
    beside = [W * torch.tensor([0.0, 1.0])[:, None, None] for W in start]
    run = weight_decay.decayed_flow(beside, 0.5)
    assert (run.status[0], run.steps[0], run.residual[0]) == ("zero", 0, 0.0)
    alone = weight_decay.decayed_flow([W[1:] for W in start], 0.5)
    assert run.status[1] == alone.status[0] and run.residual.isfinite().all()


def test_names_at_rest():
    found = weight_decay.decay_ends(range(8), 6, 3, 16, 0.5, 1e-3)["name"]
    assert set(found) <= {"NC", "orthoplex", weight_decay.RUNG} and weight_decay.RUNG in found
    assert set(weight_decay.decay_ends(range(4), 4, 6, 0, 1.0, 0.6)["name"]) <= {"orthoplex", "rank 1: 1"}


def test_counts_compare_with_the_same_start_without_decay():
    names = ["NC", "orthoplex", "NC", "NC"]
    runs = pandas.DataFrame({"seed": [0, 1, 0, 1], "name": names, "decay": [0.0, 0.0, 0.1, 0.1]})
    runs = runs.assign(num_classes=4, depth=3, width=0, scale=1.0, first=0)
    table = weight_decay.by_decay(runs)
    assert table.collapse.tolist() == [1, 2] and table.moved.tolist() == [0, 1] and table.starts.tolist() == [2, 2]
    assert weight_decay.by_decay(runs[runs.decay > 0]).moved.item() == 0
