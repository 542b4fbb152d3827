"""Networks on data: gradients against autograd, both ways to train, the deep linear limit, and failures as values."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import dufm
from dufm import DufmError, networks

SIZES = (7, 12, 5)


def blobs(seed=0, features=6, sizes=SIZES):
    """Three clouds of unequal size, far enough apart to be learned."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(sizes)), sizes)
    X = 2.0 * rng.standard_normal((len(sizes), features))[y] + 0.5 * rng.standard_normal((len(y), features))
    order = rng.permutation(len(y))
    return torch.from_numpy(X[order].T.copy()), torch.from_numpy(y[order])


def plain_loss(weights, X, y, relu_layers):
    """Mean cross-entropy of one network, by torch's own functions."""
    A = X.T
    for layer, W in enumerate(weights):
        A = torch.nn.functional.linear(A, W)
        A = torch.relu(A) if layer < relu_layers else A
    return cross_entropy(A, y)


def network(weights, i):
    return [W[i] for W in weights]


# ---------------------------------------------------------------- start, outputs, gradient


def test_he_init_has_fan_in_variance_and_ignores_the_batch_size():
    weights = networks.he_init(3, 200, 50, 10, scale=0.7, batch=3, seed=4)
    assert [tuple(W.shape) for W in weights] == [(3, 200, 50), (3, 200, 200), (3, 10, 200)]
    for W in weights:
        assert float(W.std()) * W.shape[-1] ** 0.5 == pytest.approx(0.7, rel=0.03)
    alone = networks.he_init(3, 200, 50, 10, scale=0.7, seed=4)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(alone, weights, strict=True))
    default = networks.he_init(3, 200, 50, 10, seed=4)
    assert all(torch.allclose(a, 2**0.5 / 0.7 * b) for a, b in zip(default, alone, strict=True))


@pytest.mark.parametrize("relu_layers", [None, 0, 2])
def test_logits_are_homogeneous_of_the_depth(relu_layers):
    X, _ = blobs()
    weights = networks.he_init(4, 8, 6, 3, batch=2, seed=0)
    outputs = networks.forward(weights, X, relu_layers)
    assert [tuple(A.shape) for A in outputs] == [(2, 8, 24)] * 3 + [(2, 3, 24)]
    doubled = networks.forward([2.0 * W for W in weights], X, relu_layers)
    assert torch.allclose(doubled[-1], 16.0 * outputs[-1], rtol=1e-14)
    counted = [layer for layer, A in enumerate(outputs) if float(A.min()) >= 0.0]
    assert counted == list(range(3 if relu_layers is None else relu_layers))


@pytest.mark.parametrize("relu_layers", [0, 1, 3])
def test_the_gradient_is_that_of_autograd(relu_layers):
    X, y = blobs()
    weights = networks.he_init(4, 8, 6, 3, batch=3, seed=1)
    marks = networks.true_class(y, 3, X.dtype)
    log_sum, slope = networks._gradient(weights, X, marks, relu_layers)
    for i in range(3):
        leaves = [W.clone().requires_grad_() for W in network(weights, i)]
        loss = plain_loss(leaves, X, y, relu_layers).log()
        loss.backward()
        assert float(log_sum[i]) - math.log(24) == pytest.approx(loss.item(), rel=1e-12)
        for mine, leaf in zip(network(slope, i), leaves, strict=True):
            assert torch.allclose(mine, -leaf.grad, rtol=1e-10, atol=1e-13)


def test_class_means_of_unequal_classes():
    X, y = blobs()
    outputs = torch.stack([X, 3.0 * X])
    means = networks.class_means(outputs, y)
    by_hand = torch.stack([X[:, y == k].mean(1) for k in range(3)], 1)
    by_hand = by_hand - by_hand.mean(1, keepdim=True)
    assert means.shape == (2, 6, 3)
    assert torch.allclose(means[0], by_hand, atol=1e-14) and torch.allclose(means[1], 3.0 * by_hand, atol=1e-14)


@pytest.mark.parametrize("width", [1, 2, 6])
def test_layer_ranks_of_layers_narrower_and_wider_than_the_classes(width):
    _, y = blobs()
    outputs = torch.randn(2, width, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    outputs[1] = 0.0
    sigma = np.linalg.svd(networks.class_means(outputs, y)[0].numpy(), compute_uv=False)
    share = sigma[sigma > 1e-12] / sigma.sum()
    ranks = networks.layer_ranks(outputs, y).tolist()
    assert ranks == pytest.approx([math.exp(-(share * np.log(share)).sum()), 0.0], abs=1e-12)
    assert ranks[0] <= min(width, 2) + 1e-12


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("batch_size", [None, 24, 5, 1])
@pytest.mark.parametrize("relu_layers", [None, 0, 1])
def test_training_reaches_a_loss_of_1e_6_on_unequal_classes(batch_size, relu_layers):
    X, y = blobs()
    start = networks.he_init(3, 12, 6, 3, batch=2, seed=0)
    kept = [W.clone() for W in start]
    run = networks.train(start, X, y, relu_layers=relu_layers, batch_size=batch_size, max_steps=4000)
    assert run.status.tolist() == ["reached"] * 2
    assert all(torch.equal(a, b) for a, b in zip(start, kept, strict=True))
    for i in range(2):
        loss = float(plain_loss(network(run.weights, i), X, y, 2 if relu_layers is None else relu_layers))
        assert loss < 1e-6
        # torch's loss is right to 1e-16, and may be as small as 1e-11.
        assert math.log(loss) == pytest.approx(float(run.log_loss[i]), abs=1e-4)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_batch_of_networks_is_one_network_after_the_other(batch_size):
    X, y = blobs()
    options = {"batch_size": batch_size, "until_log_loss": -5.0, "seed": 3}
    weights = networks.he_init(3, 8, 6, 3, batch=3, seed=2)
    together = networks.train(weights, X, y, **options)
    for i in range(3):
        alone = networks.train([W[i : i + 1] for W in weights], X, y, **options)
        assert int(alone.steps[0]) == int(together.steps[i])
        assert float(alone.log_loss[0]) == pytest.approx(float(together.log_loss[i]), rel=1e-8)
        for a, b in zip(alone.weights, together.weights, strict=True):
            assert torch.allclose(a[0], b[i], rtol=1e-8, atol=1e-10)


def plain_gradient(weights, X, y):
    """Loss of one network with all its ReLUs, and its gradient, by autograd."""
    leaves = [W.clone().requires_grad_() for W in weights]
    loss = plain_loss(leaves, X, y, len(leaves) - 1)
    loss.backward()
    return loss.item(), [leaf.grad for leaf in leaves]


def flat(weights):
    return torch.cat([W.flatten() for W in weights])


def test_one_epoch_of_one_batch_is_a_step_of_descent():
    """The first step goes 1% of the weights' norm downhill."""
    X, y = blobs()
    weights = networks.he_init(3, 8, 6, 3, seed=2)
    run = networks.train(weights, X, y, batch_size=24, max_steps=1)
    assert int(run.steps[0]) == 1
    before = network(weights, 0)
    downhill = -flat(plain_gradient(before, X, y)[1])
    moved = flat(network(run.weights, 0)) - flat(before)
    assert torch.allclose(moved, 0.01 * flat(before).norm() * downhill / downhill.norm(), rtol=1e-9, atol=1e-12)


def test_an_epoch_of_minibatches_is_the_loop_written_by_hand():
    """Batches of 5 of 24 samples, the last of 4; h is such that the first step on all data would go 1% of the norm."""
    X, y = blobs()
    weights = networks.he_init(3, 8, 6, 3, seed=2)
    run = networks.train(weights, X, y, batch_size=5, seed=7, max_steps=1)
    assert int(run.steps[0]) == 1
    mine = network(weights, 0)
    loss, slope = plain_gradient(mine, X, y)
    # h/ℒ, where h is 1% of the norm of the weights over that of the gradient of log ℒ.
    rate = 0.01 * flat(mine).norm() / (flat(slope).norm() / loss) / loss
    for batch in torch.from_numpy(np.random.default_rng(7).permutation(24)).split(5):
        _, slope = plain_gradient(mine, X[:, batch], y[batch])
        mine = [W - rate * len(batch) / 24 * g for W, g in zip(mine, slope, strict=True)]
    assert torch.allclose(flat(network(run.weights, 0)), flat(mine), rtol=1e-9, atol=1e-12)


def test_minibatches_depend_on_their_seed_alone():
    X, y = blobs()
    weights = networks.he_init(3, 8, 6, 3, seed=2)
    ends = [networks.train(weights, X, y, batch_size=5, seed=s, until_log_loss=-3.0).weights[0] for s in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1]) and not torch.equal(ends[0], ends[2])


@pytest.mark.parametrize("stages", [3, 5, 16])
def test_a_step_is_the_stability_polynomial_of_its_stages(stages):
    """On y' = −λy: 1 − b + b P_s(1 + w z) with the Legendre polynomial P_s, bounded by 1 up to (s² + s − 2)/2."""
    limit = (stages**2 + stages - 2) / 2
    rates = torch.linspace(0.0, limit, 40, dtype=torch.float64)

    def decay(y):
        return y, -rates * y

    y = torch.ones(1, 40, dtype=torch.float64)
    end = networks._legendre_step(decay, y, decay(y)[1], torch.ones(1, 1, dtype=torch.float64), stages)[0]
    b = limit / (stages * (stages + 1))
    wanted = 1 - b + b * np.polynomial.legendre.Legendre.basis(stages)(1 - 2 * rates.numpy() / limit)
    np.testing.assert_allclose(end[0].numpy(), wanted, atol=1e-12)
    assert np.abs(wanted).max() <= 1.0 + 1e-12


@pytest.mark.parametrize("length", [0.1, 10.0, 100.0])
def test_the_stages_suffice_for_the_stiffest_direction(length):
    """Against the largest eigenvalue of a known Hessian: enough, once the power method has turned, and no more."""
    rates = torch.tensor([1.0, 0.3, 0.1, 0.01], dtype=torch.float64)

    def decay(y):
        return y, -rates * y

    start = torch.ones(1, 4, dtype=torch.float64)
    stiffest = g = decay(start)[1]
    for _ in range(8):
        stages, stiffest = networks._stages(decay, start, g, torch.full((1, 1), length, dtype=torch.float64), stiffest)
    assert (stages**2 + stages - 2) / 2 >= length
    assert stages == 5 or ((stages - 1) ** 2 + stages - 3) / 2 < 1.31 * length


def test_far_below_the_smallest_float():
    """exp(−2000) is zero in float64: the loss lives by its logarithm."""
    X, y = blobs()
    weights = networks.he_init(3, 8, 6, 3, batch=2, seed=0)
    run = networks.train(weights, X, y, relu_layers=0, until_log_loss=-2000.0)
    assert run.status.tolist() == ["reached"] * 2
    for i in range(2):
        Z = networks.forward(run.weights, X, 0)[-1][i]
        wrong = (Z - Z[y, torch.arange(24)])[~torch.nn.functional.one_hot(y, 3).T.bool()]
        assert float(wrong.max()) < -745.0
        assert float(torch.logsumexp(wrong, 0)) - math.log(24) == pytest.approx(float(run.log_loss[i]), rel=1e-12)


def test_a_linear_network_on_orthonormal_inputs_ends_where_the_flow_of_the_deep_ufm_does():
    """W_1 X are the features of the model; its loss is a sum over the classes, K times the mean."""
    K = 4
    X = torch.from_numpy(np.linalg.qr(np.random.default_rng(5).standard_normal((6, 6)))[0][:, :K].copy())
    weights = networks.he_init(3, 8, 6, K, scale=1.0, batch=3, seed=1)
    mine = networks.train(weights, X, torch.arange(K), relu_layers=0, until_log_loss=-20.0)
    for i in range(3):
        start, end = network(weights, i), network(mine.weights, i)
        # A step may carry past the mark: compare where it did end.
        there = float(mine.log_loss[i]) + math.log(K)
        flow = dufm.gradient_flow([start[0] @ X, *start[1:]], until_log_loss=there, rtol=1e-8)
        for a, b in zip([end[0] @ X, *end[1:]], flow.factors, strict=True):
            assert float((a - b).norm() / b.norm()) < 0.01


# ---------------------------------------------------------------- failures are values


def test_a_dead_network_stalls_and_leaves_the_others_alone():
    X, y = blobs()
    X = X.abs()
    weights = networks.he_init(3, 8, 6, 3, batch=2, seed=0)
    weights[0][1] = -weights[0][1].abs()
    for batch_size in (None, 5):
        run = networks.train(weights, X, y, batch_size=batch_size, until_log_loss=-0.5, max_steps=300)
        assert run.status.tolist() == ["reached", "stalled: zero gradient"]
        assert float(run.log_loss[1]) == pytest.approx(math.log(math.log(3)))
        assert all(torch.equal(a[1], b[1]) for a, b in zip(run.weights, weights, strict=True))
        assert run.steps[1] == 0


def test_slopes_whose_squares_underflow_are_no_end():
    X, y = blobs()
    weights = [W * 1e-84 for W in networks.he_init(3, 8, 6, 3, batch=2, seed=0)]
    run = networks.train(weights, X, y, max_steps=6)
    assert (run.status == "max steps").all() and (run.steps > 0).all()
    assert all(W.isfinite().all() for W in run.weights)


@pytest.mark.parametrize("batch_size", [None, 5])
def test_two_labels_for_one_input_cannot_be_learned(batch_size):
    X, y = blobs()
    first, second = int((y == 0).nonzero()[0]), int((y == 1).nonzero()[0])
    X[:, first] = X[:, second]
    run = networks.train(networks.he_init(3, 12, 6, 3, seed=0), X, y, batch_size=batch_size, max_steps=150)
    assert run.status[0] in ("max steps", "precision exhausted")
    # The two samples cost at least log 2 each.
    assert math.log(2 * math.log(2) / 24) < float(run.log_loss[0]) < math.log(math.log(3))


def test_nothing_to_do():
    X, y = blobs()
    weights = networks.he_init(2, 8, 6, 3, seed=0)
    run = networks.train(weights, X, y, until_log_loss=50.0)
    assert run.status.tolist() == ["reached"] and run.steps.tolist() == [0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"X": torch.zeros(24, dtype=torch.float64)}, "X must have at least 2 dimensions"),
        ({"X": torch.zeros(1, 6, 24, dtype=torch.float64)}, r"X must have shape \(features, n\)"),
        ({"X": torch.full((6, 24), math.nan, dtype=torch.float64)}, "X must be finite"),
        ({"X": torch.zeros(5, 24, dtype=torch.float64)}, "W_1 must have shape"),
        ({"X": torch.zeros(6, 24)}, "W_1 is torch.float64"),
        ({"weights": networks.he_init(2, 8, 6, 3, seed=0)[:1]}, "depth must be at least 2"),
        ({"weights": networks.he_init(2, 8, 6, 4, seed=0)}, "as many classes as W_L has rows, 4, got 3"),
        ({"weights": [torch.zeros(8, 6, dtype=torch.float64)] * 2}, "W_1 must have at least 3 dimensions"),
        ({"weights": [W[:, :, :6] for W in networks.he_init(2, 8, 6, 3, seed=0)]}, "W_2 must have shape"),
        ({"y": torch.zeros(24)}, "y must be an int64 tensor of 24 labels"),
        ({"y": [0] * 24}, "y must be an int64 tensor"),
        ({"y": torch.zeros(23, dtype=torch.int64)}, "y must be an int64 tensor of 24 labels"),
        ({"y": torch.arange(24) % 2 * 2}, "y must hold the labels 0 to K - 1"),
        ({"y": torch.zeros(24, dtype=torch.int64)}, "y must hold the labels"),
        ({"batch_size": 25}, "batch_size must be an integer from 1 to 24"),
        ({"batch_size": 0}, "batch_size"),
        ({"relu_layers": 2}, "relu_layers must be an integer from 0 to 1"),
        ({"until_log_loss": -math.inf}, "until_log_loss must be a finite number"),
        ({"max_steps": 0}, "max_steps"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input(change, said):
    X, y = blobs()
    arguments = {"weights": networks.he_init(2, 8, 6, 3, seed=0), "X": X, "y": y, **change}
    with pytest.raises(DufmError, match=said):
        networks.train(**arguments)


@pytest.mark.parametrize(("name", "value"), [("depth", 1), ("width", 0), ("num_classes", 1), ("scale", 0.0)])
def test_bad_starts(name, value):
    with pytest.raises(DufmError, match=name):
        networks.he_init(**{"depth": 3, "width": 4, "features": 5, "num_classes": 3, "seed": 0, name: value})


def test_weights_in_any_layout_are_trained_alike():
    X, y = torch.randn(6, 30, generator=torch.Generator().manual_seed(0)).double(), torch.arange(30) % 3
    first, last = networks.he_init(2, 5, 6, 3, batch=2, seed=0)
    layouts = (first, first.mT.contiguous().mT, torch.cat([first, first], -1)[..., :6])
    runs = [networks.train([W, last], X, y, batch_size=10, max_steps=5) for W in layouts]
    for run in runs:
        assert not torch.equal(run.weights[0], first) and torch.equal(run.weights[0], runs[0].weights[0])
