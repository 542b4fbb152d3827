"""Efficiency of products against closed forms, and the mean squares of random factors against theirs."""

import numpy as np
import pytest
import torch
from scipy.special import digamma
from tolerances import LINALG, close

from dufm import DufmError, balanced_init, gaussian_init, product, schatten
from dufm.propagation import FAMILIES, efficiency, haar_frames, rank_r_factors

TOL = LINALG[torch.float64]


def test_efficiency_of_known_products():
    rng = np.random.default_rng(0)
    u = torch.from_numpy(rng.standard_normal((5, 1)))
    close(efficiency([u @ u.mT] * 4), 1.0, TOL)
    # Each identity loses √5.
    close(efficiency([torch.eye(5, dtype=torch.float64)] * 4), 5 ** (-3 / 2), TOL)
    factors = gaussian_init(3, 7, 4, batch=6, seed=1)
    assert efficiency(factors).shape == (6,) and (efficiency(factors) < 1).all()
    close(efficiency([2.0 * W for W in factors]), efficiency(factors), TOL)


def test_frames_are_orthonormal_and_spread_evenly():
    Q = haar_frames(6, 2, 4000, np.random.default_rng(1))
    close(Q.mT @ Q, torch.eye(2, dtype=torch.float64).expand(4000, 2, 2), TOL)
    # The mean projection is r/d times the identity.
    close((Q @ Q.mT).mean(0), torch.eye(6, dtype=torch.float64) / 3, 0.03)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_factor_has_the_rank(family):
    factors = rank_r_factors(family, 3, 4, 8, 5, np.random.default_rng(2))
    assert len(factors) == 4 and all(W.shape == (5, 8, 8) for W in factors)
    for W in factors:
        sigma = torch.linalg.svdvals(W)
        assert (sigma[:, 2] > 1e-3).all() and (sigma[:, 3] < 1e-12).all()


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_the_law_of_balanced_factors(rank, depth):
    factors = rank_r_factors("balanced", rank, depth, 6, 3, np.random.default_rng(3))
    close(efficiency(factors), torch.full((3,), rank ** (-(depth - 1) / 2), dtype=torch.float64), TOL)


@pytest.mark.parametrize("rank", [1, 4])
def test_mean_squares_of_two_random_factors(rank):
    """Means of ``‖W_2W_1‖²`` over those of ``‖W_2‖²‖W_1‖²``: 1/r on a shared subspace, 1/d between turned ones."""
    for family, expected in (("shared", 1 / rank), ("turned", 1 / 8)):
        first, second = rank_r_factors(family, rank, 2, 8, 20_000, np.random.default_rng(4))
        product, one, other = ((W.square().sum((-2, -1))) for W in (second @ first, first, second))
        assert abs(product.mean() / (one.mean() * other.mean()) / expected - 1) < 0.06


@pytest.mark.parametrize("depth", [2, 4])
def test_turned_rank_one_factors_fluctuate_as_cosines_of_random_directions_do(depth):
    """E log e = (L − 1)/2 (ψ(1/2) − ψ(d/2)), and every further rank is more efficient than that."""
    logs = [efficiency(rank_r_factors("turned", r, depth, 8, 4000, np.random.default_rng(5))).log() for r in (1, 2, 4)]
    expected = (depth - 1) / 2 * (digamma(1 / 2) - digamma(8 / 2))
    assert abs(logs[0].mean() - expected) < 4 * logs[0].std() / 4000**0.5
    assert logs[0].mean() < logs[1].mean() < logs[2].mean()


def test_powers_lose_less_than_equal_values_and_no_factors_are_more_efficient_than_balanced_ones():
    rng = np.random.default_rng(6)
    for rank, depth in ((2, 3), (4, 6)):
        least = efficiency(rank_r_factors("powers", rank, depth, 9, 500, rng)).min()
        assert least > rank ** (-(depth - 1) / 2)
    for depth in (2, 3):
        factors = gaussian_init(depth, 2, 2, batch=3000, seed=2)
        Z = product(factors)
        share = efficiency(factors) * schatten(Z, 2 / depth) / torch.linalg.matrix_norm(Z)
        assert 0.9 < share.max() < 1
        close(efficiency(balanced_init(Z, depth)), torch.linalg.matrix_norm(Z) / schatten(Z, 2 / depth), TOL)


def test_the_same_seed_the_same_factors():
    draws = [rank_r_factors("turned", 2, 3, 5, 2, np.random.default_rng(7)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*draws, strict=True))


def test_refusals():
    rng = np.random.default_rng(0)
    with pytest.raises(DufmError, match="family must be one of balanced, powers, shared, turned, got 'twisted'"):
        rank_r_factors("twisted", 1, 2, 4, 1, rng)
    with pytest.raises(DufmError, match="rank must be an integer from 1 to 4, got 5"):
        rank_r_factors("shared", 5, 2, 4, 1, rng)
    with pytest.raises(DufmError, match="rank must be an integer from 1 to 4, got 5: no more directions"):
        haar_frames(4, 5, 1, rng)
    with pytest.raises(DufmError, match="depth must be an integer >= 2, got 1"):
        rank_r_factors("shared", 2, 1, 4, 1, rng)
    with pytest.raises(DufmError, match="factors must have no zero matrix"):
        efficiency([torch.eye(3, dtype=torch.float64), torch.zeros(3, 3, dtype=torch.float64)])
    with pytest.raises(DufmError, match="W_2 does not follow W_1"):
        efficiency([torch.eye(3, dtype=torch.float64), torch.eye(4, dtype=torch.float64)])
