r"""Bias-free homogeneous networks on real data: ``Z = W_L φ(W_{L-1} ⋯ φ(W_1 X))``, φ the ReLU or the identity.

Weights are a list ``[W_1, …, W_L]`` of shapes ``(batch, d_l, d_{l-1})``, one network an entry of the batch; the data
``X`` ``(features, n)`` with labels ``y`` ``(n,)`` in 0 … K − 1 are shared.  Depth L counts weight matrices, the first
included.  Without biases the logits are homogeneous of degree L in the weights.

Training lowers the same log-domain cross-entropy as the rest of the package, here the *mean over samples*, since real
classes differ in size; with equal sizes that is 1/K of the sum of class means.

Imported by name (``from dufm import networks``).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count, check_tensor
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range, in_range, norm
from dufm.loss import Marks, log_sum_and_residual, true_class
from dufm.metrics import effective_rank
from dufm.model import fan_in_gaussian

__all__ = ["Trained", "class_means", "forward", "he_init", "layer_ranks", "train"]

HE_SCALE = math.sqrt(2.0)
LOG_LOSS_END = math.log(1e-6)
_LEAST_STAGES, _MOST_STAGES = 5, 32
# The power method sees the stiffest direction from below.
_STIFFER = 1.3
# Local error of a step of the flow, relative to the norm of all weights of a network.
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

    weights: list[Tensor]
    log_loss: torch.Tensor
    status: np.ndarray
    steps: torch.Tensor


def he_init(
    depth: int, width: int, features: int, num_classes: int, *, scale: float = HE_SCALE, batch: int = 1, seed: int
) -> list[Tensor]:
    """Fan-in Gaussian weights: entries of ``W_l`` are independent N(0, scale²/fan-in).

    The default scale √2 keeps the size of the outputs from layer to layer under ReLUs (He et al. 2015).  Returns
    ``[W_1, …, W_L]`` in float64 with leading dimension ``batch``; network ``i`` depends on ``seed`` and ``i`` alone.
    ``DufmError`` for a count out of range (depth from 2, classes from 2) or a scale that is not positive.
    """
    sizes = [features, *[width] * (depth - 1), num_classes]
    return fan_in_gaussian(sizes, scale, batch, seed)


def forward(weights: Sequence[Tensor], X: Tensor, relu_layers: int | None = None) -> list[Tensor]:
    """Outputs ``[A_1, …, A_L]`` of all layers, ``(batch, d_l, n)``; ``A_L`` are the logits.

    ``relu_layers``: how many layers, counted from the first, end in a ReLU; default all but the last.  0 is a linear
    network, in between the last layers are linear.  ``DufmError`` for shapes that do not follow one another, NaN,
    outputs beyond the floats, or a number of layers outside 0 … L − 1.
    """
    relu_layers = _check_network(weights, X, relu_layers)
    outputs = _layers(weights, X, relu_layers)[1:]
    check_in_range("weights: an output", *outputs)
    return outputs


def class_means(outputs: Tensor, y: Tensor) -> Tensor:
    """Means of the columns of ``outputs`` ``(..., d, n)`` class by class, ``(..., d, K)``, less their common mean.

    ``y``: labels ``(n,)``, every class 0 … K − 1 at least once.  ``DufmError`` if they do not fit.
    """
    check_tensor("outputs", outputs)
    num_classes = _check_labels(y, outputs.shape[-1])
    members = torch.nn.functional.one_hot(y, num_classes).to(outputs)
    means = outputs @ (members / members.sum(0))
    return means - means.mean(-1, keepdim=True)


def layer_ranks(outputs: Tensor, y: Tensor) -> Tensor:
    """Effective rank of the :func:`class_means` of one layer, ``(...)``: at most K − 1, whatever the layer's width.

    ``outputs`` ``(..., d, n)``, ``y`` ``(n,)``; errors as there.  0 where a layer is dead.
    """
    # R of a QR decomposition has the same singular values, and K columns make it square once K rows of zeros follow.
    check_tensor("outputs", outputs)
    means = class_means(in_range(outputs)[0], y)
    return effective_rank(torch.linalg.qr(torch.nn.functional.pad(means, (0, 0, 0, means.shape[-1]))).R)


def train(
    weights: Sequence[Tensor], X: Tensor, y: Tensor, *, relu_layers: int | None = None, batch_size: int | None = None,
    seed: int = 0, until_log_loss: float = LOG_LOSS_END, max_steps: int = 2000,
) -> Trained:  # fmt: skip
    r"""Train every network until the log of its mean loss falls to ``until_log_loss`` (default: loss 1e-6).

    ``batch_size=None``: gradient flow on all the data, along −∇ log ℒ, the path of the flow in another time.  Steps
    are Runge–Kutta–Legendre ones of second order (Meyer, Balsara & Aslam 2014): s stages are stable for steps as long
    as (s² + s − 2)/4 explicit Euler steps, and s, from 5 to 32, is what the stiffest network of the batch needs, by
    one step of the power method on the Hessian.  A step counts if its error estimate is below 3e-3 of the weights'
    norm and the loss has not risen; each network has its own step.

    ``batch_size`` from 1 to n: stochastic gradient descent.  An epoch goes through all the data in random batches,
    drawn from ``seed`` and shared by the networks, each of which moves by h/ℒ times its batch's share of −∇ℒ, with ℒ
    the loss on all data at the start of the epoch.  An epoch after which ℒ has risen is undone and h halved, else h
    grows by a fifth.  ``batch_size=n`` is descent with one step an epoch.

    ``weights`` as from :func:`he_init`, ``X`` ``(features, n)``, ``y`` integer labels, ``relu_layers`` as in
    :func:`forward`; ``max_steps`` counts steps or epochs tried.  Returns :class:`Trained`; that a network did not get
    there is its ``status``, not an error.  ``DufmError`` for bad shapes, NaN, labels that are not 0 … K − 1 each at
    least once, a batch size out of range, or a start whose loss or slope is beyond the floats.
    """
    relu_layers = _check_network(weights, X, relu_layers)
    samples = X.shape[1]
    if _check_labels(y, samples) != weights[-1].shape[-2]:
        raise DufmError(f"y must hold as many classes as W_L has rows, {weights[-1].shape[-2]}, got {int(y.max()) + 1}")
    if batch_size is not None:
        batch_size = check_count("batch_size", batch_size, 1, samples, why="the data have no more samples")
    rng = np.random.default_rng(seed)
    marks = true_class(y, weights[-1].shape[-2], X.dtype)
    log_sum, slopes = _gradient(weights, X, marks, relu_layers)
    check_in_range("weights: the loss of the start, or its slope,", log_sum, _size(slopes))
    if batch_size is None:
        return _flow(weights, X, marks, relu_layers, until_log_loss, max_steps)
    return _descend(weights, X, y, marks, relu_layers, batch_size, rng, until_log_loss, max_steps)


def _flow(
    weights: Sequence[Tensor], X: Tensor, marks: Marks, relu_layers: int, until_log_loss: float, max_steps: int
) -> Trained:
    """Gradient flow on all the data, of flat states."""
    shapes = [tuple(weight.shape[1:]) for weight in weights]
    sizes = [rows * columns for rows, columns in shapes]

    def split(flat: Tensor) -> list[Tensor]:
        return [part.view(-1, *shape) for part, shape in zip(flat.split(sizes, 1), shapes, strict=True)]

    def gradient(flat: Tensor) -> tuple[Tensor, Tensor]:
        """Log of the mean loss, and minus its gradient."""
        log_sum, slope = _gradient(split(flat), X, marks, relu_layers)
        return log_sum - math.log(X.shape[1]), torch.cat([part.flatten(1) for part in slope], 1)

    state = torch.cat([weight.flatten(1) for weight in weights], 1)
    log_loss, slope = gradient(state)
    stiffest = slope.clone()
    step = _FIRST_STEP * norm(state) / norm(slope)
    steps = torch.zeros_like(log_loss, dtype=torch.int64)
    status = np.full(len(state), "max steps", dtype="<U32")
    for _ in range(max_steps):
        running = _settle(status, log_loss <= until_log_loss, (slope == 0).all(1))
        if not len(running):
            break
        start, g, h, before = state[running], slope[running], step[running].unsqueeze(1), log_loss[running]
        stages, stiffest[running] = _stages(gradient, start, g, h, stiffest[running])
        new, after, new_g = _legendre_step(gradient, start, g, h, stages)
        error = norm(0.8 * (start - new) + 0.4 * h * (g + new_g)) / (_RTOL * norm(new))
        error = torch.where(error.isfinite(), error, torch.inf)
        accepted = (error <= 1.0) & (after <= before)
        kept = running[accepted]
        state[kept], slope[kept], log_loss[kept] = new[accepted], new_g[accepted], after[accepted]
        steps[kept] += 1
        factor = (0.8 * error.clamp(min=1e-12) ** (-1 / 3)).clamp(0.2, 2.0)
        step[running] *= torch.where((error <= 1.0) & ~accepted, 0.5, factor)
        tiny = step[running] * norm(g) <= torch.finfo(X.dtype).eps * norm(start)
        status[running[tiny & ~accepted].cpu().numpy()] = "precision exhausted"
    _settle(status, log_loss <= until_log_loss, (slope == 0).all(1))
    return Trained(split(state), log_loss, status, steps)


def _stages(
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, g: Tensor, h: Tensor, stiffest: Tensor
) -> tuple[int, Tensor]:
    """Stages that the steps ``h`` need, and the stiffest directions after one more step of the power method."""
    probe = 1e-3 * (norm(start) / norm(stiffest)).unsqueeze(1) * stiffest
    turned = gradient(start + probe)[1] - g
    longest = float((_STIFFER * h.squeeze(1) * norm(turned) / norm(probe)).nan_to_num(0.0).max())
    stages = math.ceil(math.sqrt(2.25 + 2.0 * longest) - 0.5)
    known = (turned.isfinite().all(1) & (turned != 0).any(1)).unsqueeze(1)
    return min(max(stages, _LEAST_STAGES), _MOST_STAGES), torch.where(known, turned, g)


def _descend(
    weights: Sequence[Tensor], X: Tensor, y: Tensor, marks: Marks, relu_layers: int, batch_size: int,
    rng: np.random.Generator, until_log_loss: float, max_steps: int,
) -> Trained:  # fmt: skip
    """Minibatch descent; layer by layer, so that a step changes the weights in place."""
    num_classes, samples = weights[-1].shape[-2], X.shape[1]
    rows = X.mT.contiguous()

    def log_mean(weights: Sequence[Tensor]) -> Tensor:
        return log_sum_and_residual(_layers(weights, X, relu_layers)[-1], marks)[0] - math.log(samples)

    state = [weight.clone(memory_format=torch.contiguous_format) for weight in weights]
    log_sum, slope = _gradient(state, X, marks, relu_layers)
    log_loss = log_sum - math.log(samples)
    step = _FIRST_STEP * _size(state) / _size(slope)
    still = _size(slope) == 0
    steps = torch.zeros_like(log_loss, dtype=torch.int64)
    status = np.full(len(step), "max steps", dtype="<U32")
    for _ in range(max_steps):
        running = _settle(status, log_loss <= until_log_loss, still)
        if not len(running):
            break
        start = [weight[running] for weight in state]
        rate = step[running] / log_loss[running].exp() / samples
        new = [weight.clone() for weight in start]
        for batch in torch.from_numpy(rng.permutation(samples)).to(X.device).split(batch_size):
            _move(new, rows[batch].mT, true_class(y[batch], num_classes, X.dtype), relu_layers, rate)
        after = log_mean(new)
        accepted = after <= log_loss[running]
        moved = _size([one - other for one, other in zip(new, start, strict=True)])
        still[running] = moved == 0
        kept = running[accepted]
        for weight, changed in zip(state, new, strict=True):
            weight[kept] = changed[accepted]
        log_loss[kept] = after[accepted]
        steps[kept] += 1
        step[running] *= torch.where(accepted, _EPOCH_GROW, _EPOCH_SHRINK)
        tiny = moved <= torch.finfo(X.dtype).eps * _size(start)
        status[running[tiny & ~accepted].cpu().numpy()] = "precision exhausted"
    _settle(status, log_loss <= until_log_loss, still)
    return Trained(state, log_loss, status, steps)


def _size(layers: Iterable[Tensor]) -> Tensor:
    """Norm of all entries of each network."""
    return torch.stack([layer.square().sum((1, 2)) for layer in layers]).sum(0).sqrt()


def _move(weights: Sequence[Tensor], X: Tensor, marks: Marks, relu_layers: int, rate: Tensor) -> None:
    """One step of descent on the summed loss of ``X``, in place; ``rate`` ``(batch,)``."""
    outputs = _layers(weights, X, relu_layers)
    log_sum, residual = log_sum_and_residual(outputs[-1], marks)
    for layer, back in _backwards(weights, outputs, (rate * log_sum.exp())[:, None, None] * residual, relu_layers):
        if layer:
            weights[layer].baddbmm_(back, outputs[layer].mT)
        else:  # one product for all the networks, which share the data
            weights[0].flatten(0, 1).addmm_(back.flatten(0, 1), X.mT)


def _settle(status: np.ndarray, reached: Tensor, flat: Tensor) -> Tensor:
    """Write down which of the networks still under way have ended; the indices of the others."""
    under_way = status == "max steps"
    status[under_way & flat.cpu().numpy()] = "stalled: zero gradient"
    status[under_way & reached.cpu().numpy()] = "reached"
    return torch.from_numpy(np.flatnonzero(status == "max steps")).to(reached.device)


def _legendre_step(
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]], start: Tensor, slope: Tensor, h: Tensor, s: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One step ``h`` ``(batch, 1)`` of ``s`` stages from ``start``; its end, and value and slope there."""
    b = [1 / 3] * 3 + [(j * j + j - 2) / (2 * j * (j + 1)) for j in range(3, s + 1)]
    unit = 4 / (s * s + s - 2)
    older, newer = start, start + (b[1] * unit) * h * slope
    for j in range(2, s + 1):
        inner = gradient(newer)[1]
        mu, nu = (2 * j - 1) / j * b[j] / b[j - 1], -(j - 1) / j * b[j] / b[j - 2]
        push = (mu * unit) * h * (inner - (1 - b[j - 1]) * slope)
        older, newer = newer, mu * newer + nu * older + (1 - mu - nu) * start + push
    return newer, *gradient(newer)


def _layers(weights: Sequence[Tensor], X: Tensor, relu_layers: int) -> list[Tensor]:
    outputs = [X]
    for layer, weight in enumerate(weights):
        output = weight @ outputs[-1]
        outputs.append(output.clamp_(min=0.0) if layer < relu_layers else output)
    return outputs


@torch.no_grad()
def _gradient(weights: Sequence[Tensor], X: Tensor, marks: Marks, relu_layers: int) -> tuple[Tensor, list[Tensor]]:
    """Log of the summed loss, and minus its gradient, by backpropagation of the residual."""
    outputs = _layers(weights, X, relu_layers)
    log_sum, residual = log_sum_and_residual(outputs[-1], marks)
    slope: list[Any] = [None] * len(weights)
    for layer, back in _backwards(weights, outputs, residual, relu_layers):
        slope[layer] = back @ outputs[layer].mT
    return log_sum, slope


def _backwards(
    weights: Sequence[Tensor], outputs: Sequence[Tensor], back: Tensor, relu_layers: int
) -> Iterator[tuple[int, Tensor]]:
    """Layers from the last to the first with minus the gradient in their outputs; a layer given may be changed."""
    for layer in reversed(range(len(weights))):
        below: Any = weights[layer].mT @ back if layer else None
        if 0 < layer <= relu_layers:
            below = torch.ops.aten.threshold_backward(below, outputs[layer], 0)
        yield layer, back
        back = below


def _check_network(weights: Sequence[Tensor], X: Tensor, relu_layers: int | None) -> int:
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


def _check_labels(y: Tensor, samples: int) -> int:
    """Number of classes of labels ``y``."""
    if not isinstance(y, torch.Tensor) or y.dtype != torch.int64 or y.shape != (samples,):
        got = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, torch.Tensor) else type(y).__name__
        raise DufmError(f"y must be an int64 tensor of {samples} labels, one a sample of X, got {got}")
    found = torch.unique(y).tolist()
    if found != list(range(len(found))) or len(found) < 2:
        raise DufmError(f"y must hold the labels 0 to K - 1, each at least once, got {found[:20]}")
    return len(found)


guard(globals())
