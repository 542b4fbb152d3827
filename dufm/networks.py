r"""Bias-free homogeneous networks on real data: ``Z = W_L φ(W_{L-1} ⋯ φ(W_1 X))``, φ the ReLU or the identity.

Weights are a list ``[W_1, …, W_L]`` of shapes ``(batch, d_l, d_{l-1})``, one network an entry of the batch; the data
``X`` ``(features, n)`` with labels ``y`` ``(n,)`` in 0 … K − 1 are shared.  Depth L counts weight matrices, the first
included.  Without biases the logits are homogeneous of degree L in the weights.

Training lowers the same log-domain cross-entropy as the rest of the package, here the *mean over samples*, since real
classes differ in size; with equal sizes that is 1/K of the sum of class means.

Imported by name (``from dufm import networks``).
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from dufm._checks import DufmError, check_count, check_finite, check_tensor
from dufm._steps import norm
from dufm.loss import log_sum_and_residual, true_class
from dufm.metrics import effective_rank
from dufm.model import fan_in_gaussian

__all__ = ["Trained", "class_means", "forward", "he_init", "layer_ranks", "train"]

HE_SCALE = math.sqrt(2.0)
LOG_LOSS_END = math.log(1e-6)
_STAGES = 16
# Local error of a step of the flow, relative to the norm of all weights of a network.  Three times as much costs as
# many gradients, but its steps touch the stability limit and amplify rounding a billionfold in deep networks.
_RTOL = 3e-3
_FIRST_STEP = 1e-2
_EPOCH_GROW, _EPOCH_SHRINK = 1.2, 0.5


@dataclass(frozen=True)
class Trained:
    """End of training, one entry a network.

    ``weights``; ``log_loss`` log of the mean loss; ``status``, a NumPy array of sentences: "reached", "stalled: zero
    gradient" (all units of a layer dead), "precision exhausted" (steps below rounding), "max steps"; ``steps``
    accepted steps, for minibatches epochs.
    """

    weights: list
    log_loss: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor


def he_init(depth, width, features, num_classes, *, scale=HE_SCALE, batch=1, seed):
    """Fan-in Gaussian weights: entries of ``W_l`` are independent N(0, scale²/fan-in).

    The default scale √2 keeps the size of the outputs from layer to layer under ReLUs (He et al. 2015).  Returns
    ``[W_1, …, W_L]`` in float64 with leading dimension ``batch``; network ``i`` depends on ``seed`` and ``i`` alone.
    ``DufmError`` for a count out of range (depth from 2, classes from 2) or a scale that is not positive.
    """
    depth = check_count("depth", depth, 2, why="depth counts weight matrices")
    width = check_count("width", width, 1)
    sizes = [check_count("features", features, 1), *[width] * (depth - 1), check_count("num_classes", num_classes, 2)]
    return fan_in_gaussian(sizes, scale, batch, seed)


def forward(weights, X, relu_layers=None):
    """Outputs ``[A_1, …, A_L]`` of all layers, ``(batch, d_l, n)``; ``A_L`` are the logits.

    ``relu_layers``: how many layers, counted from the first, end in a ReLU; default all but the last.  0 is a linear
    network, in between the last layers are linear.  ``DufmError`` for shapes that do not follow one another, NaN, or
    a number of layers outside 0 … L − 1.
    """
    relu_layers = _check_network(weights, X, relu_layers)
    return _layers(weights, X, relu_layers)[1:]


def class_means(outputs, y):
    """Means of the columns of ``outputs`` ``(..., d, n)`` class by class, ``(..., d, K)``, less their common mean.

    ``y``: labels ``(n,)``, every class 0 … K − 1 at least once.  ``DufmError`` if they do not fit.
    """
    check_tensor("outputs", outputs)
    num_classes = _check_labels(y, outputs.shape[-1])
    members = torch.nn.functional.one_hot(y, num_classes).to(outputs)
    means = outputs @ (members / members.sum(0))
    return means - means.mean(-1, keepdim=True)


def layer_ranks(outputs, y):
    """Effective rank of the :func:`class_means` of one layer, ``(...)``: at most K − 1, whatever the layer's width.

    ``outputs`` ``(..., d, n)``, ``y`` ``(n,)``; errors as there.  0 where a layer is dead.
    """
    # R of a QR decomposition has the same singular values, and K columns make it square once K rows of zeros follow.
    means = class_means(outputs, y)
    return effective_rank(torch.linalg.qr(torch.nn.functional.pad(means, (0, 0, 0, means.shape[-1]))).R)


def train(weights, X, y, *, relu_layers=None, batch_size=None, seed=0, until_log_loss=LOG_LOSS_END, max_steps=2000):
    r"""Train every network until the log of its mean loss falls to ``until_log_loss`` (default: loss 1e-6).

    ``batch_size=None``: gradient flow on all the data, along −∇ log ℒ, the path of the flow in another time.  Steps
    are Runge–Kutta–Legendre ones of second order with 16 stages (Meyer, Balsara & Aslam 2014), stable for steps as
    long as 67 explicit Euler steps: this flow is stiff.  A step counts if its error estimate is below 3e-3 of the
    weights' norm and the loss has not risen; each network has its own step.

    ``batch_size`` from 1 to n: stochastic gradient descent.  An epoch goes through all the data in random batches,
    drawn from ``seed`` and shared by the networks, each of which moves by h/ℒ times its batch's share of −∇ℒ, with ℒ
    the loss on all data at the start of the epoch.  An epoch after which ℒ has risen is undone and h halved, else h
    grows by a fifth.  ``batch_size=n`` is descent with one step an epoch.

    ``weights`` as from :func:`he_init`, ``X`` ``(features, n)``, ``y`` integer labels, ``relu_layers`` as in
    :func:`forward`; ``max_steps`` counts steps or epochs tried.  Returns :class:`Trained`; that a network did not get
    there is its ``status``, not an error.  ``DufmError`` for bad shapes, NaN, labels that are not 0 … K − 1 each at
    least once, a batch size out of range.
    """
    relu_layers = _check_network(weights, X, relu_layers)
    samples = X.shape[1]
    if _check_labels(y, samples) != weights[-1].shape[-2]:
        raise DufmError(f"y must hold as many classes as W_L has rows, {weights[-1].shape[-2]}, got {int(y.max()) + 1}")
    check_finite("until_log_loss", until_log_loss)
    max_steps = check_count("max_steps", max_steps, 1)
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size, 1, samples, why="the data have no more samples")
    rng = np.random.default_rng(check_count("seed", seed, 0))
    shapes = [tuple(weight.shape[1:]) for weight in weights]
    sizes = [rows * columns for rows, columns in shapes]
    num_classes = shapes[-1][0]

    def split(flat):
        return [part.view(-1, *shape) for part, shape in zip(flat.split(sizes, 1), shapes, strict=True)]

    def gradient(flat, X, marks):
        """Log of the mean loss on ``X``, and minus its gradient."""
        log_sum, slope = _gradient(split(flat), X, marks, relu_layers)
        return log_sum - math.log(X.shape[1]), torch.cat([part.flatten(1) for part in slope], 1)

    def on_all(flat):
        return gradient(flat, X, marks)

    state = torch.cat([weight.flatten(1) for weight in weights], 1)
    marks = true_class(y, num_classes, X.dtype)
    log_loss, slope = on_all(state)
    step = _FIRST_STEP * norm(state) / norm(slope)
    steps = torch.zeros_like(log_loss, dtype=torch.int64)
    status = np.full(len(state), "max steps", dtype="<U32")

    for _ in range(max_steps):
        _settle(status, log_loss <= until_log_loss, (slope == 0).all(1))
        running = torch.from_numpy(np.flatnonzero(status == "max steps")).to(X.device)
        if not len(running):
            break
        start, g, h, before = state[running], slope[running], step[running].unsqueeze(1), log_loss[running]
        if batch_size is None:
            trial = _flow_trial(on_all, start, g, h, before)
        else:
            batches = torch.from_numpy(rng.permutation(samples)).to(X.device).split(batch_size)
            trial = _epoch_trial(gradient, on_all, start, h, before, X, y, num_classes, batches)
        new, after, new_g, accepted, factor = trial
        kept = running[accepted]
        state[kept], slope[kept], log_loss[kept] = new[accepted], new_g[accepted], after[accepted]
        steps[kept] += 1
        step[running] *= factor
        tiny = step[running] * norm(g) <= torch.finfo(X.dtype).eps * norm(start)
        status[running[tiny & ~accepted].cpu().numpy()] = "precision exhausted"
    _settle(status, log_loss <= until_log_loss, (slope == 0).all(1))
    return Trained(split(state), log_loss, status, steps)


def _flow_trial(on_all, start, g, h, before):
    """A step of the flow: its end, log loss and slope there, whether it counts, and the factor for the next step."""
    new, after, new_g = _legendre_step(on_all, start, g, h)
    error = norm(0.8 * (start - new) + 0.4 * h * (g + new_g)) / (_RTOL * norm(new))
    error = torch.where(error.isfinite(), error, torch.inf)
    accepted = (error <= 1.0) & (after <= before)
    factor = (0.8 * error.clamp(min=1e-12) ** (-1 / 3)).clamp(0.2, 2.0)
    return new, after, new_g, accepted, torch.where((error <= 1.0) & ~accepted, 0.5, factor)


def _epoch_trial(gradient, on_all, start, h, before, X, y, num_classes, batches):
    """An epoch of minibatch descent; returns as :func:`_flow_trial`."""
    new = start
    for batch in batches:
        log_part, g_part = gradient(new, X[:, batch], true_class(y[batch], num_classes, X.dtype))
        weight = torch.exp(log_part - before + math.log(len(batch) / X.shape[1]))
        new = new + h * weight.unsqueeze(1) * g_part
    after, new_g = on_all(new)
    accepted = after <= before
    return new, after, new_g, accepted, torch.where(accepted, _EPOCH_GROW, _EPOCH_SHRINK)


def _settle(status, reached, flat):
    """Write down which of the networks still under way have ended."""
    under_way = status == "max steps"
    status[under_way & flat.cpu().numpy()] = "stalled: zero gradient"
    status[under_way & reached.cpu().numpy()] = "reached"


def _legendre_step(gradient, start, slope, h):
    """One step ``h`` ``(batch, 1)`` from ``start``; its end, and value and slope there."""
    s = _STAGES
    b = [1 / 3] * 3 + [(j * j + j - 2) / (2 * j * (j + 1)) for j in range(3, s + 1)]
    unit = 4 / (s * s + s - 2)
    older, newer = start, start + (b[1] * unit) * h * slope
    for j in range(2, s + 1):
        inner = gradient(newer)[1]
        mu, nu = (2 * j - 1) / j * b[j] / b[j - 1], -(j - 1) / j * b[j] / b[j - 2]
        push = (mu * unit) * h * (inner - (1 - b[j - 1]) * slope)
        older, newer = newer, mu * newer + nu * older + (1 - mu - nu) * start + push
    return newer, *gradient(newer)


def _layers(weights, X, relu_layers):
    outputs = [X]
    for layer, weight in enumerate(weights):
        output = weight @ outputs[-1]
        outputs.append(output.clamp_(min=0.0) if layer < relu_layers else output)
    return outputs


@torch.no_grad()
def _gradient(weights, X, marks, relu_layers):
    """Log of the summed loss, and minus its gradient, by backpropagation of the residual."""
    outputs = _layers(weights, X, relu_layers)
    log_sum, back = log_sum_and_residual(outputs[-1], marks)
    slope = [None] * len(weights)
    for layer in reversed(range(len(weights))):
        slope[layer] = back @ outputs[layer].mT
        if layer:
            back = weights[layer].mT @ back
            if layer <= relu_layers:
                back.mul_(outputs[layer] > 0)
    return log_sum, slope


def _check_network(weights, X, relu_layers):
    check_tensor("X", X)
    if X.ndim != 2:
        raise DufmError(f"X must have shape (features, n), got {tuple(X.shape)}")
    weights = list(weights)
    if len(weights) < 2:
        raise DufmError(f"weights: depth must be at least 2, got {len(weights)} matrices")
    before = X.shape[0]
    for index, weight in enumerate(weights, start=1):
        check_tensor(f"weights: W_{index}", weight, min_dim=3)
        if weight.shape[-1] != before or weight.ndim != 3 or len(weight) != len(weights[0]):
            shapes = [tuple(weight.shape) for weight in weights]
            raise DufmError(
                f"weights: W_{index} must have shape ({len(weights[0])}, d, {before}) to follow what is before it; "
                f"X has shape {tuple(X.shape)}, the weights {shapes}"
            )
        if weight.dtype != X.dtype or weight.device != X.device:
            raise DufmError(f"weights: W_{index} is {weight.dtype} on {weight.device}, X {X.dtype} on {X.device}")
        before = weight.shape[-2]
    most = len(weights) - 1
    return most if relu_layers is None else check_count("relu_layers", relu_layers, 0, most, why="logits have no ReLU")


def _check_labels(y, samples):
    """Number of classes of labels ``y``."""
    if not isinstance(y, torch.Tensor) or y.dtype != torch.int64 or y.shape != (samples,):
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, torch.Tensor) else type(y).__name__
        raise DufmError(f"y must be an int64 tensor of {samples} labels, one a sample of X, got {got}")
    found = torch.unique(y).tolist()
    if found != list(range(len(found))) or len(found) < 2:
        raise DufmError(f"y must hold the labels 0 to K - 1, each at least once, got {found[:20]}")
    return len(found)
