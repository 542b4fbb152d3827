"""Factors: products, the conserved imbalance, and the three ways to start."""

import math

import numpy as np
import pytest
import torch
from tolerances import LINALG, ROUNDING, SOLVER, close, relative

import dufm
from dufm import (
    DufmError,
    balanced_init,
    cheapest_factors,
    gaussian_init,
    imbalance,
    imbalance_drift,
    orthogonal_init,
    product,
    split_at,
)

TOL = LINALG[torch.float64]


def norm_squared(factors):
    return sum(factor.square().sum((-2, -1)) for factor in factors)


@pytest.mark.parametrize("depth", [2, 3, 5])
@pytest.mark.parametrize("n_per_class", [1, 3])
def test_product_matches_numpy(depth, n_per_class):
    factors = gaussian_init(depth, 7, 4, batch=3, seed=1, n_per_class=n_per_class)
    Z = product(factors)
    assert Z.shape == (3, 4, 4 * n_per_class)
    for i in range(3):
        expected = np.linalg.multi_dot([factor[i].numpy() for factor in reversed(factors)])
        close(Z[i], torch.from_numpy(expected), TOL)
    without_batch = product([factor[1] for factor in factors])
    close(without_batch, Z[1], ROUNDING[torch.float64])


def test_imbalance_matches_its_definition():
    factors = gaussian_init(4, 6, 3, batch=2, seed=2)
    parts = imbalance(factors)
    assert [part.shape for part in parts] == [(2, 6, 6)] * 3
    for l, part in enumerate(parts):
        for i in range(2):
            upper, lower = factors[l + 1][i].numpy(), factors[l][i].numpy()
            close(part[i], torch.from_numpy(upper.T @ upper - lower @ lower.T), TOL)


@pytest.mark.parametrize("init", [gaussian_init, orthogonal_init])
def test_a_network_depends_on_its_seed_and_index_alone(init):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    small, large = init(3, 8, 4, batch=3, seed=7), init(3, 8, 4, batch=11, seed=7)
    for a, b in zip(small, large, strict=True):
        assert a.dtype == torch.float64
        close(a, b[:3], ROUNDING[torch.float64])
        assert not torch.equal(b[0], b[1])
    other = init(3, 8, 4, batch=3, seed=8)
    assert not torch.equal(small[0], other[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_gaussian_variances_are_scale_squared_over_fan_in():
    depth, width, num_classes, n_per_class, scale, batch = 4, 24, 5, 2, 0.7, 200
    factors = gaussian_init(depth, width, num_classes, scale=scale, batch=batch, seed=3, n_per_class=n_per_class)
    fan_in = [num_classes * n_per_class, width, width, width]
    shapes = [(width, 10), (width, width), (width, width), (num_classes, width)]
    for factor, columns, shape in zip(factors, fan_in, shapes, strict=True):
        assert factor.shape == (batch, *shape)
        samples = factor.flatten() * columns**0.5 / scale
        count = samples.numel()
        # Five standard errors of a mean and of a variance of a standard normal.
        assert abs(samples.mean().item()) < 5 / count**0.5
        assert abs(samples.var().item() - 1) < 5 * (2 / count) ** 0.5
        assert abs((samples**4).mean().item() - 3) < 5 * (96 / count) ** 0.5


def test_orthogonal_factors():
    scale, batch = 0.6, 4000
    factors = orthogonal_init(3, 5, 3, scale=scale, batch=batch, seed=4)
    for factor in factors:
        rows, columns = factor.shape[-2:]
        gram = factor.mT @ factor if rows >= columns else factor @ factor.mT
        close(gram / scale**2, torch.eye(min(rows, columns), dtype=torch.float64).expand_as(gram), TOL)
        # Haar: every entry has mean 0 and variance 1/max(rows, columns); QR alone fixes the sign of the first.
        entry = factor[:, 0, 0] / scale
        assert abs(entry.mean().item()) < 5 * (1 / max(rows, columns) / batch) ** 0.5
        assert abs(entry.square().mean().item() - 1 / max(rows, columns)) < 5 * (2 / batch) ** 0.5 / max(rows, columns)


def logits(num_classes, rank, n_per_class=1, batch=(), seed=5):
    generator = torch.Generator().manual_seed(seed)
    left = torch.randn(*batch, num_classes, rank, generator=generator, dtype=torch.float64)
    right = torch.randn(*batch, rank, num_classes * n_per_class, generator=generator, dtype=torch.float64)
    return left @ right


@pytest.mark.parametrize("depth", [2, 3, 6])
@pytest.mark.parametrize(("rank", "width", "n_per_class"), [(4, None, 1), (2, 2, 1), (2, 9, 3), (3, 4, 2)])
def test_balanced_factors(depth, rank, width, n_per_class):
    Z = logits(4, rank, n_per_class, batch=(2, 3))
    factors = balanced_init(Z, depth, width)
    assert len(factors) == depth and factors[0].shape[-2] == (width or 4)
    close(product(factors), Z, TOL)
    for part in imbalance(factors):
        close(part, torch.zeros_like(part), TOL)
    # Of all factorisations, the least norm: L Σ σ^{2/L}.
    sigma = torch.linalg.svdvals(Z)[..., :rank]
    close(norm_squared(factors), depth * (sigma ** (2 / depth)).sum(-1), TOL)
    # Another factorisation of the same product is larger.
    skewed = [2.0 * factors[0], *factors[1:-1], factors[-1] / 2.0]
    close(product(skewed), Z, TOL)
    assert (norm_squared(skewed) > norm_squared(factors)).all()


@pytest.mark.parametrize("depth", [2, 3])
def test_a_search_finds_nothing_cheaper_than_balance(depth):
    drawn = gaussian_init(depth, 3, 3, batch=5, seed=6)
    found = cheapest_factors(drawn)
    close(product(found), product(drawn), TOL)
    assert (norm_squared(drawn) > 1.05 * norm_squared(found)).all()
    close(norm_squared(found), norm_squared(balanced_init(product(drawn), depth)), SOLVER[torch.float64])


def test_balanced_factors_of_zero():
    factors = balanced_init(torch.zeros(3, 3, dtype=torch.float64), 4)
    assert all((factor == 0).all() for factor in factors)


def test_float32_stays_float32():
    factors = balanced_init(logits(4, 4).float(), 3)
    assert {factor.dtype for factor in factors} == {torch.float32}
    assert relative(product(factors), logits(4, 4).float()) < LINALG[torch.float32]


def test_width_below_the_rank():
    with pytest.raises(DufmError, match="width must be at least the rank of Z, got 2 for rank 3"):
        balanced_init(logits(4, 3), 3, 2)


@pytest.mark.parametrize("init", [gaussian_init, orthogonal_init])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"depth": 1}, "depth must be an integer >= 2, got 1: depth 2 is the ordinary UFM"),
        ({"depth": 2.5}, "depth must be an integer >= 2, got 2.5"),
        ({"depth": True}, "depth must be an integer >= 2, got True"),
        ({"width": 0}, "width must be an integer >= 1, got 0"),
        ({"num_classes": 1}, "num_classes must be an integer >= 2, got 1"),
        ({"batch": 0}, "batch must be an integer >= 1, got 0"),
        ({"n_per_class": 0}, "n_per_class must be an integer >= 1, got 0"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": None}, "seed must be an integer >= 0, got None"),
        ({"scale": 0.0}, "scale must be a finite positive number, got 0.0"),
        ({"scale": math.nan}, "scale must be a finite positive number, got nan"),
        ({"scale": math.inf}, "scale must be a finite positive number, got inf"),
        ({"scale": True}, "scale must be a finite positive number, got True"),
    ],
)
def test_bad_counts(init, change, says):
    arguments = {"depth": 3, "width": 8, "num_classes": 4, "seed": 0} | change
    depth, width, num_classes = (arguments.pop(name) for name in ("depth", "width", "num_classes"))
    with pytest.raises(DufmError, match=says):
        init(depth, width, num_classes, **arguments)


def wrong_factors():
    good = [factor[0] for factor in gaussian_init(3, 8, 4, seed=0)]
    broken = [factor.clone() for factor in good]
    broken[1][0, 0] = math.nan
    infinite = [factor.clone() for factor in good]
    infinite[2][0, 0] = -math.inf
    empty = gaussian_init(3, 8, 4, seed=0)
    return [
        pytest.param(broken, "factors: W_2 must be finite", id="nan"),
        pytest.param(infinite, "factors: W_3 must be finite", id="inf"),
        pytest.param(good[:1], "factors: depth must be at least 2 .* got 1", id="depth 1"),
        pytest.param([], "factors: depth must be at least 2 .* got 0", id="depth 0"),
        pytest.param([good[0], good[0], good[2]], r"factors: W_2 does not follow W_1; shapes are", id="inner"),
        pytest.param([good[0], good[1].expand(2, 8, 8), good[2]], "factors: W_2 does not follow W_1", id="batch"),
        pytest.param([good[0], good[1].float(), good[2]], "factors: W_2 is torch.float32 on cpu, W_1", id="dtype"),
        pytest.param([good[0], good[1].long(), good[2]], "factors: W_2 must have a floating dtype", id="integer"),
        pytest.param([good[0], good[1] > 0, good[2]], "factors: W_2 must have a floating dtype", id="bool"),
        pytest.param([factor[:0] for factor in empty], r"factors: W_1 must not be empty", id="empty batch"),
        pytest.param([good[0][:, :1], good[1], good[2][:1]], "factors: W_L needs K >= 2 rows", id="one class"),
        pytest.param([good[0][:, :3], good[1], good[2]], "factors: W_L needs K >= 2 rows .* multiple", id="columns"),
        pytest.param([good[0], None, good[2]], "factors: W_2 must be a torch tensor, got NoneType", id="none"),
    ]


@pytest.mark.parametrize("function", [product, imbalance])
@pytest.mark.parametrize(("factors", "says"), wrong_factors())
def test_bad_factors(function, factors, says):
    with pytest.raises(DufmError, match=says):
        function(factors)


def test_bad_logits_for_balanced_factors():
    with pytest.raises(DufmError, match="depth must be an integer >= 2, got 1"):
        balanced_init(logits(4, 3), 1)
    with pytest.raises(DufmError, match="Z must be finite"):
        balanced_init(logits(4, 3) * math.nan, 3)
    with pytest.raises(DufmError, match="width must be an integer >= 1, got 0"):
        balanced_init(logits(4, 3), 3, 0)


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_split_multiplies_to_the_whole(layer):
    factors = gaussian_init(4, 6, 3, batch=2, seed=1, n_per_class=2)
    features, classifier = split_at(factors, layer)
    assert features.shape == (2, 6, 6) and classifier.shape == (2, 3, 6)
    close(classifier @ features, product(factors), TOL)
    expected = factors[0] if layer == 1 else product([*factors[:layer]])
    assert torch.equal(features, expected)


def test_split_refuses_the_last_layer():
    factors = gaussian_init(3, 6, 3, seed=1)
    with pytest.raises(DufmError, match="layer must be an integer from 1 to 2, got 3: the last layer"):
        split_at(factors, 3)


def test_imbalance_drift_of_a_known_change():
    before = balanced_init(logits(4, 4, batch=(2,)), 3)
    close(imbalance_drift(before, before), torch.zeros(2, dtype=torch.float64), TOL)
    # W_2 twice as large: both imbalances change by 3 W_2ᵀW_2, and it is the largest factor.
    after = torch.stack([torch.stack([W, factor * W]) for W, factor in zip(before, (1.0, 2.0, 1.0), strict=True)])
    gram = torch.linalg.matrix_norm(before[1].mT @ before[1])
    expected = 3 * gram / (4 * before[1].square().sum((-2, -1)))
    drift = imbalance_drift(before, list(after))
    assert drift.shape == (2, 2)
    close(drift[0], torch.zeros(2, dtype=torch.float64), TOL)
    close(drift[1], expected, TOL)
    # A level that was never reached.
    assert imbalance_drift(before, [W * torch.nan for W in before]).isnan().all()
    # A start whose imbalance, in units of a later state, is beyond the floats.
    with pytest.raises(DufmError, match="before: the drift leaves the range"):
        imbalance_drift([W * 1e200 for W in before], before)


def test_cheapest_factors_are_searched_in_inference_mode():
    with torch.inference_mode():
        found = dufm.cheapest_factors(dufm.gaussian_init(2, 2, 2, seed=0))
    assert torch.equal(found[0], dufm.cheapest_factors(dufm.gaussian_init(2, 2, 2, seed=0))[0])
