"""A convolutional body with a linear head: against loops, differences, homogeneity, and the least cost of a head."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from tolerances import LINALG, close

import dufm
from dufm import DufmError, balanced_init, data, heads


def small(depth, seed=0):
    """Four images of 5 × 5 in two channels, their labels, and a network for them."""
    X = torch.from_numpy(np.random.default_rng(seed).standard_normal((4, 2, 5, 5)))
    return X, torch.tensor([0, 3, 9, 3]), heads.initial(seed, depth, X)


def log_loss(weights, X, y):
    """By torch's own cross-entropy, small losses apart."""
    return float(torch.nn.functional.cross_entropy(heads.forward(weights, X)[-1].mT, y, reduction="sum").log())


def convolved(images, kernel):
    """3 × 3, stride 2, one row of zeros around, by loops."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    side = (images.shape[-1] + 1) // 2
    out = np.empty((len(images), len(kernel), side, side))
    for i in range(side):
        for j in range(side):
            patch = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
            out[:, :, i, j] = np.einsum("ncab,ocab->no", patch, kernel)
    return np.maximum(out, 0.0)


def test_the_forward_pass_is_that_of_loops():
    X, _, weights = small(2)
    A = X.numpy()
    for kernel in weights[:3]:
        A = convolved(A, kernel.numpy())
    features, hidden, logits = heads.forward(weights, X)
    F = A.reshape(len(A), -1).T
    close(features, torch.from_numpy(F), LINALG[torch.float64])
    close(hidden, torch.from_numpy(weights[3].numpy() @ F), LINALG[torch.float64])
    close(logits, torch.from_numpy(weights[4].numpy() @ weights[3].numpy() @ F), LINALG[torch.float64])


@pytest.mark.parametrize("depth", [1, 4])
def test_the_logits_are_homogeneous_of_degree_one_in_every_layer(depth):
    X, _, weights = small(depth)
    before = heads.forward(weights, X)[-1]
    assert len(weights) == 3 + depth
    for layer in range(len(weights)):
        scaled = [1.7 * weight if i == layer else weight for i, weight in enumerate(weights)]
        close(heads.forward(scaled, X)[-1], 1.7 * before, LINALG[torch.float64])
    with pytest.raises(DufmError, match="weights: an output leaves the range"):
        heads.forward([*weights[:-1], 1e308 * weights[-1]], 1e10 * X)


@pytest.mark.parametrize("depth", [1, 3])
def test_the_gradient_is_that_of_differences(depth):
    X, y, weights = small(depth)
    log_sum, slope = heads.gradient(weights, X, y)
    assert log_sum == pytest.approx(log_loss(weights, X, y), abs=1e-12)
    rng = np.random.default_rng(1)
    for layer, weight in enumerate(weights):
        turn = torch.from_numpy(rng.standard_normal(tuple(weight.shape)))
        ends = [[w + e * turn if i == layer else w for i, w in enumerate(weights)] for e in (1e-6, -1e-6)]
        differences = (log_loss(ends[0], X, y) - log_loss(ends[1], X, y)) / 2e-6
        assert -float((slope[layer] * turn).sum()) == pytest.approx(differences, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("depth", [2, 3, 6])
def test_no_head_is_cheaper_than_the_schatten_price_of_its_product(depth):
    rng = np.random.default_rng(depth)
    sizes = [12, *[11] * (depth - 1), 10]
    head = [torch.from_numpy(rng.standard_normal((b, a))) for a, b in zip(sizes, sizes[1:], strict=False)]
    assert heads.head_cost(head) > 1.0
    square = [torch.from_numpy(rng.standard_normal((10, 10))) for _ in range(depth)]
    assert heads.head_cost(dufm.cheapest_factors(square)) == pytest.approx(1.0, abs=1e-9)
    # r equal values at one Frobenius norm cost r^{1 − 1/h} as much as one.
    costs = []
    for rank in (1, 4):
        value = (1 / math.sqrt(rank)) ** (1 / depth)
        factor = torch.diag(torch.tensor([value] * rank + [0.0] * (10 - rank), dtype=torch.float64))
        assert heads.head_cost([factor] * depth) == pytest.approx(1.0, abs=1e-9)
        costs.append(depth * float(factor.square().sum()))
    assert costs[1] / costs[0] == pytest.approx(4 ** (1 - 1 / depth), rel=1e-12)


@pytest.mark.parametrize("seed", [0, 4, 6])
def test_where_the_least_norm_is_found_every_layer_has_one_norm_and_the_head_is_balanced(seed):
    """One ReLU layer, a head of two, three samples; SciPy minimises the norm and knows neither of KKT nor of Clarke."""
    rng, shapes = np.random.default_rng(seed), [(4, 2), (3, 4), (3, 3)]
    X, wrong = rng.standard_normal((2, 3)), ~np.eye(3, dtype=bool)
    cuts = np.cumsum([a * b for a, b in shapes])[:-1]

    def split(flat):
        return [part.reshape(shape) for part, shape in zip(np.split(flat, cuts), shapes, strict=True)]

    def spare(flat):
        W, first, second = split(flat)
        Z = second @ first @ np.maximum(W @ X, 0.0)
        return (np.diag(Z) - Z)[wrong] - 1.0

    found = 1.5 * rng.standard_normal(sum(a * b for a, b in shapes))
    for _ in range(2):  # by the processor's rounding a search may stop short, and goes on from there
        found = scipy.optimize.minimize(
            lambda flat: flat @ flat / 2,
            found,
            jac=lambda flat: flat,
            constraints={"type": "ineq", "fun": spare},
            method="SLSQP",
            options={"maxiter": 1000, "ftol": 1e-14},
        ).x
    assert spare(found).min() > -1e-9
    W, first, second = split(found)
    norms = [np.sum(part**2) for part in (W, first, second)]
    assert norms == pytest.approx([norms[0]] * 3, rel=1e-5)
    assert second.T @ second == pytest.approx(first @ first.T, abs=1e-5)
    assert heads.head_cost([torch.from_numpy(first), torch.from_numpy(second)]) == pytest.approx(1.0, abs=1e-6)


def test_networks_of_one_seed_share_their_body():
    X = torch.zeros(1, 3, 32, 32)
    one, six = heads.initial(3, 1, X), heads.initial(3, 6, X)
    assert all(torch.equal(a, b) for a, b in zip(one[:3], six[:3], strict=True))
    assert one[3].shape == (10, 1024) and [tuple(V.shape) for V in six[3:]][::5] == [(64, 1024), (10, 64)]
    assert not torch.equal(six[4], heads.initial(4, 6, X)[4])
    assert float(six[4].square().mean()) == pytest.approx(1 / 64, rel=0.1)


def test_the_task_reports_what_training_by_hand_finds():
    digest = data.fingerprint("digits")
    cell = {"n_per_class": 5, "batch_size": 20, "precision": "float64", "depth": 2}
    found = heads.trained([3, 4], dataset="digits", digest=digest, **cell)
    assert found["status"] == ["reached"] * 2
    X, y, held, held_y = data.split("digits", 5)
    X = heads.images(X)
    assert torch.equal(X[7, 0].flatten(), data.split("digits", 5)[0][:, 7])
    weights, log_loss_end, status, epochs = heads.train(heads.initial(4, 2, X), X, y, batch_size=20, seed=4)
    assert (status, epochs) == (found["status"][1], found["epochs"][1]) and log_loss_end <= math.log(1e-6)
    features, _, logits = heads.forward(weights, X)
    assert log_loss(weights, X, y) - math.log(50) == pytest.approx(log_loss_end, abs=1e-6)
    means = torch.stack([logits[:, y == k].mean(1) for k in range(10)], 1)
    share = torch.linalg.svdvals(means - means.mean(1, keepdim=True))
    share = share / share.sum()
    assert found["rank"][1] == found["layer_2"][1]
    assert found["rank"][1] == pytest.approx(float(torch.special.entr(share).sum().exp()), rel=1e-9)
    gaps = (logits.gather(0, y[None]) - logits).scatter(0, y[None], torch.inf).amin(0)
    assert found["least_margin"][1] == pytest.approx(float(gaps.min()), rel=1e-12)
    nc = dufm.nc_metrics(features, weights[4] @ weights[3], rank=9)
    for name in ("nc1", "trace_ratio", "nc2", "nc3"):
        assert found[name][1] == pytest.approx(float(nc[name]), rel=1e-6)
    guess = heads.forward(weights, heads.images(held))[-1].argmax(0)
    assert found["accuracy"][1] == float((guess == held_y).double().mean())
    with pytest.raises(DufmError, match="digest"):
        heads.trained([0], dataset="digits", digest="other", **cell)


def test_training_that_is_cut_short_says_so():
    X, y, weights = small(1)
    state, log_loss_end, status, epochs = heads.train(weights, X, y, batch_size=2, seed=0, max_epochs=2)
    assert (status, epochs) == ("max epochs", 2)
    assert log_loss_end == pytest.approx(log_loss(state, X, y) - math.log(4), abs=1e-12)


@pytest.mark.parametrize("y", [torch.tensor([0, 3, 10, 3]), torch.ones(4), torch.tensor([0, 3]), [0, 3, 9, 3], None])
def test_labels_that_are_none_are_refused(y):
    X, _, weights = small(1)
    with pytest.raises(DufmError, match="y must be an int64 tensor of 4 labels below 10"):
        heads.train(weights, X, y, batch_size=2, seed=0)


@pytest.mark.parametrize("layers", [2, 4, 8])
def test_a_balanced_head_of_rank_one_has_the_least_cost(layers):
    head = balanced_init(torch.outer(torch.arange(1.0, 7.0), torch.arange(2.0, 8.0)).double(), layers)
    assert heads.head_cost(head) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("head", [[], [torch.ones(3)], [torch.eye(3), torch.eye(4)], [torch.zeros(3, 3)]])
def test_a_head_without_a_cost_is_refused(head):
    with pytest.raises(DufmError, match="head must"):
        heads.head_cost(head)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_training_makes_its_own_gradients(mode):
    X, y, weights = small(1)
    with mode():
        heads.train(weights, X.clone(), y, batch_size=2, seed=0, max_epochs=1)
