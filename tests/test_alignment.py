"""Starts of the same logits: what is kept, what is spent, and the slowest rate by a second route."""

import numpy as np
import pytest
import sympy
import torch
from tolerances import LINALG, close

from dufm import DufmError, balanced_init, efficiency, gaussian_init, imbalance, product, schatten
from dufm.alignment import KINDS, balanced_to, realigned, realigned_ends, scaled_to, skewed_to, slowest_rate

TOL = LINALG[torch.float64]
SEEDS = range(5)


def networks(depth=3, width=9, num_classes=4):
    return gaussian_init(depth, width, num_classes, scale=0.8, batch=len(SEEDS), seed=3)


def squared(factors):
    return sum(W.square().sum((-2, -1)) for W in factors)


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_logits_stay_and_the_norm_is_the_one_asked_for(kind, depth):
    gaussian = networks(depth)
    Z = product(gaussian)
    balanced = balanced_init(Z, depth)
    most = sum(torch.linalg.matrix_norm(W).log() for W in gaussian) / depth
    least = 0.5 * (squared(balanced) / depth).log()
    for excess in (0.0, 0.3, 1.0):
        factors = realigned(gaussian, kind, excess, SEEDS)
        close(product(factors), Z, 1e-9)
        close(0.5 * (squared(factors) / depth).log(), excess * most + (1 - excess) * least, 1e-5)


def test_scaled_factors_are_as_efficient_as_balanced_and_the_others_as_inefficient_as_gaussian_ones():
    gaussian = networks()
    best = torch.linalg.matrix_norm(product(gaussian)) / schatten(product(gaussian), 2 / 3)
    close(efficiency(realigned(gaussian, "scaled", 1.0, SEEDS)), best, TOL)
    for kind in ("wide", "skewed"):
        close(efficiency(realigned(gaussian, kind, 1.0, SEEDS)), efficiency(gaussian), 1e-5)


def test_a_skew_depends_on_its_seed_alone():
    gaussian = networks()
    whole = realigned(gaussian, "skewed", 0.5, SEEDS)
    alone = realigned([W[2:3] for W in gaussian], "skewed", 0.5, [2])
    for a, b in zip(alone, whole, strict=True):
        close(a[0], b[2], TOL)


def test_the_balancing_path_loses_twice_the_squared_imbalance():
    """Symbolically for two layers: d/ds Σ‖W‖² = −2‖D‖² along W_1' = D W_1, W_2' = −W_2 D, and (W_2 W_1)' = 0."""
    W1, W2 = (sympy.Matrix(2, 2, sympy.symbols(f"{name}:4", real=True)) for name in ("a", "b"))
    D = W2.T * W2 - W1 * W1.T
    change = 2 * ((D * W1).T * W1 - (W2 * D).T * W2).trace()
    assert sympy.expand(change + 2 * (D * D.T).trace()) == 0
    assert sympy.expand(W2 * (D * W1) - (W2 * D) * W1) == sympy.zeros(2, 2)


def test_the_way_to_balance_ends_there_and_refuses_what_lies_beyond():
    gaussian = networks(3, 4)
    least = (squared(balanced_init(product(gaussian), 3)) / 3).log() / 2
    near = balanced_to(gaussian, least + 1e-4)
    size = torch.linalg.matrix_norm(imbalance(gaussian)[0])
    assert (torch.linalg.matrix_norm(imbalance(near)[0]) < 0.1 * size).all()
    with pytest.raises(DufmError, match="log_norm was not reached: 5 of 5 networks stop above"):
        balanced_to(gaussian, least - 0.1)


@pytest.mark.parametrize("away", [-1.0, 30.0])
def test_a_norm_out_of_reach_is_refused(away):
    balanced = balanced_init(product(networks()), 3)
    log_norm = (squared(balanced) / 3).log() / 2 + away
    for call in (lambda: scaled_to(balanced, log_norm), lambda: skewed_to(balanced, log_norm, SEEDS)):
        with pytest.raises(DufmError, match="log_norm was not reached: 5 of 5 networks"):
            call()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_balance_itself_is_within_reach_in_both_precisions(dtype):
    balanced = balanced_init(product(networks()).to(dtype), 3)
    log_norm = (squared(balanced) / 3).log() / 2
    for factors in (scaled_to(balanced, log_norm), skewed_to(balanced, log_norm + 1e-9, SEEDS)):
        close((squared(factors) / 3).log() / 2, log_norm, 1e-5)


def test_slowest_rate_is_the_least_of_many_and_exact_for_diagonal_factors():
    factors = [W[0] for W in networks()]
    least = slowest_rate(factors)
    above, below, A, B = torch.eye(4).double(), torch.eye(4).double(), [], []
    for lower, upper in zip(factors, factors[::-1], strict=True):
        A.insert(0, above @ above.mT)
        B.append(below.mT @ below)
        above, below = above @ upper, lower @ below
    rng = np.random.default_rng(0)
    E = torch.from_numpy(rng.standard_normal((20_000, 4, 4)))
    E = E - E.mean(-2, keepdim=True)
    answered = sum((E * (a @ E @ b)).sum((-2, -1)) for a, b in zip(A, B, strict=True)) / E.square().sum((-2, -1))
    assert (answered >= least).all() and answered.min() < 6 * least
    # Balanced, symmetric and with the constant vector in the kernel: L σ^{2 − 2/L} of the smallest pair.
    s = 0.7 * (torch.eye(4).double() - 0.25)
    close(slowest_rate(balanced_init(s, 3)), torch.tensor(0.7 ** (4 / 3)).double(), 1e-6)


def test_ends_of_a_cell():
    columns = realigned_ends(range(3), 4, 3, 6, 0.8, "skewed", 1.0, first=7)
    assert set(columns) == {"log_efficiency", "log_rate", "rank"} and set(columns["rank"].tolist()) <= {2, 3}
    again = realigned_ends([8], 4, 3, 6, 0.8, "skewed", 1.0)
    close(again["log_rate"][0], columns["log_rate"][1], TOL)
    assert again["rank"][0] == columns["rank"][1]


def test_refusals():
    with pytest.raises(DufmError, match="kind must be one of wide, skewed, scaled, got 'turned'"):
        realigned(networks(), "turned", 0.5, SEEDS)
    with pytest.raises(DufmError, match=r"excess must be a number from 0 to 1, got 1\.5"):
        realigned(networks(), "wide", 1.5, SEEDS)


def test_skewed_factors_in_single_precision():
    factors = [W.float() for W in gaussian_init(3, 4, 4, seed=0, batch=2)]
    assert all(W.dtype == torch.float32 for W in realigned(factors, "skewed", 0.5, [0, 1]))
