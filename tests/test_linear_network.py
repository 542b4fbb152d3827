"""The linear network by SciPy against the model's flow, against plain descent, and where its inputs are no frame."""

import numpy as np
import pytest
import torch
from tolerances import LINALG, SOLVER, close

from dufm import DufmError, gaussian_init, gradient_flow, log_loss, log_loss_residual, product
from dufm.linear_network import _loss, first_layer, linear_network_flow

TOL = LINALG[torch.float64]


def inputs(num_inputs, num_classes, stretch=1.0):
    draw = np.random.default_rng(3).standard_normal((num_inputs, num_classes))
    X = torch.from_numpy(np.linalg.qr(draw)[0])
    return X * torch.tensor([stretch] + [1.0] * (num_classes - 1), dtype=torch.float64)


def network(depth, width, num_classes, X):
    factors = [W[0] for W in gaussian_init(depth, width, num_classes, scale=0.8, seed=4)]
    beside = torch.from_numpy(np.random.default_rng(5).standard_normal((width, len(X))))
    return factors, [first_layer(factors[0], X, beside), *factors[1:]]


@pytest.mark.parametrize("stretch", [1.0, 3.0])
def test_first_layer_has_the_features_and_what_lies_beside(stretch):
    X = inputs(9, 4, stretch)
    factors, weights = network(3, 5, 4, X)
    close(weights[0] @ X, factors[0], TOL)
    other = first_layer(torch.zeros_like(factors[0]), X, weights[0])
    Q = inputs(9, 4)
    close(other, weights[0] - weights[0] @ Q @ Q.mT, TOL)


@pytest.mark.parametrize("size", [1.0, 30.0, 2000.0])
def test_its_loss_is_the_other_loss(size):
    Z = torch.from_numpy(size * (np.eye(5) + 0.2 * np.random.default_rng(6).standard_normal((5, 5))))
    ours, slope = _loss(Z.numpy())
    close(ours, log_loss(Z), TOL)
    close(torch.from_numpy(slope), log_loss_residual(Z), TOL)


@pytest.mark.parametrize(("depth", "num_classes"), [(2, 3), (3, 4), (4, 3)])
def test_on_orthonormal_inputs_it_is_the_model(depth, num_classes):
    X = inputs(10, num_classes)
    factors, weights = network(depth, 6, num_classes, X)
    log_times = [-2.0, 0.0, 3.0, 20.0, 60.0]
    linear = linear_network_flow(X, weights, log_times)
    model = gradient_flow(factors, rtol=1e-10, until_log_loss=-70.0, record={"log_time": log_times}).history
    for W, other in zip([linear[0] @ X, *linear[1:]], model.factors, strict=True):
        close(W, other, SOLVER[torch.float64])
    # What no input sees does not move.
    beside = torch.eye(10, dtype=torch.float64) - X @ X.mT
    close(linear[0] @ beside, (weights[0] @ beside).expand(5, -1, -1), TOL)


def test_the_last_level_may_lie_before_t_is_one():
    X = inputs(9, 4)
    factors, weights = network(3, 5, 4, X)
    model = gradient_flow(factors, rtol=1e-11, until_log_loss=-5.0, record={"log_time": [-5.0]}).history
    for W, own in zip(linear_network_flow(X, weights, [-5.0])[1:], model.factors[1:], strict=True):
        close(W, own, SOLVER[torch.float64])


def test_on_other_inputs_it_follows_descent_of_its_own_and_leaves_the_model():
    X = inputs(7, 3, stretch=3.0)
    factors, weights = network(3, 4, 3, X)
    end = linear_network_flow(X, weights, [0.0])
    W, rate = [matrix.clone() for matrix in weights], 1e-4
    for _ in range(round(1 / rate)):
        Z = product([W[0] @ X, *W[1:]])
        slope = log_loss(Z).exp() * log_loss_residual(Z)
        first = W[1].mT @ W[2].mT @ slope @ X.mT
        last = slope @ (W[1] @ W[0] @ X).mT
        W = [W[0] + rate * first, W[1] + rate * W[2].mT @ slope @ (W[0] @ X).mT, W[2] + rate * last]
    for matrix, descended in zip(end, W, strict=True):
        close(matrix[0], descended, 10 * rate)
    model = gradient_flow(factors, until_log_loss=-5.0, record={"log_time": [0.0]}).history
    assert (end[0] @ X - model.factors[0]).abs().max() > 0.1


def test_refusals():
    X = inputs(7, 3)
    _, weights = network(2, 4, 3, X)
    with pytest.raises(DufmError, match="log_times must increase"):
        linear_network_flow(X, weights, [1.0, 1.0])
    with pytest.raises(DufmError, match=r"log_times\[0\] must be a finite number"):
        linear_network_flow(X, weights, [torch.nan])
    with pytest.raises(DufmError, match="weights: W_2 does not follow W_1"):
        linear_network_flow(X, [weights[0], weights[1][:, :2]], [1.0])
    with pytest.raises(DufmError, match="one input a class"):
        linear_network_flow(torch.cat([X, X], 1), weights, [0.0])
    with pytest.raises(DufmError, match="X must be finite"):
        linear_network_flow(X * torch.nan, weights, [1.0])
    # At a saddle the loss stays and the steps of τ end.
    with pytest.raises(DufmError, match=r"log t = 20\.0 was not reached"):
        linear_network_flow(X, [torch.zeros_like(W) for W in weights], [20.0])
