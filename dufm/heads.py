r"""A small convolutional body with a deep linear head: ``Z = V_h ⋯ V_1 F(X)``, ``F`` three convolutions with ReLUs.

No layer has a bias, so the logits are homogeneous in the weights: of degree 1 in every layer, 3 + h in all.  A network
is a list of weights, three kernels ``(out, in, 3, 3)`` and then ``V_1, …, V_h``; every convolution has stride 2, and
what it leaves of an image is flattened to the features.  The head's hidden layers have 64 units.

Imported by name (``from dufm import heads``).
"""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm import data
from dufm._checks import short
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range
from dufm.diagnosis import diagnose
from dufm.loss import log_sum_and_residual, true_class
from dufm.metrics import effective_rank, significant_values
from dufm.networks import LOG_LOSS_END, class_means, layer_ranks

__all__ = ["forward", "head_cost", "images", "initial", "train", "trained"]

CHANNELS = (8, 32, 64)
HEAD_WIDTH = 64
_NUM_CLASSES = 10
_AT_ONCE = 500  # images through the convolutions in one call
_FIRST_MOVE = 0.2  # length of the first epoch as a share of the weights' norm, were its gradients all alike
_MOMENTUM, _RISE, _GROW, _SHRINK = 0.9, 0.05, 1.1, 0.5


def images(columns: Tensor, precision: str = "float64") -> Tensor:
    """Images ``(n, channels, side, side)`` of the columns that ``data.split`` gives, float32 or float64.

    ``DufmError`` for another precision, or columns of no square image.
    """
    channels = 3 if len(columns) == 3072 else 1
    side = math.isqrt(len(columns) // channels)
    if channels * side**2 != len(columns) or precision not in ("float64", "float32"):
        raise DufmError(
            f"columns must hold the pixels of a square, and precision be float64 or float32, got {len(columns)} and "
            f"{precision!r}"
        )
    shaped = columns.mT.reshape(-1, channels, side, side).to(getattr(torch, precision))
    check_in_range("columns: a pixel", shaped)
    return shaped.contiguous(memory_format=torch.channels_last)


def initial(seed: int, depth: int, X: Tensor) -> list[Tensor]:
    """Weights of a network with ``depth`` head layers for images ``X`` ``(n, channels, side, side)``, in their dtype.

    Gaussian, of variance 2/fan-in in the kernels, before ReLUs, and 1/fan-in in the head.  The kernels depend on the
    seed alone, so that networks of one seed and other depths start from the same body.  ``DufmError`` for a depth below
    1.
    """
    before, side = X.shape[1:3]
    rng = np.random.default_rng(seed)
    weights = []
    for channels in CHANNELS:
        weights.append(rng.standard_normal((channels, before, 3, 3)) * math.sqrt(2 / (9 * before)))
        before, side = channels, -(-side // 2)
    rng = np.random.default_rng([seed, depth])
    sizes = [before * side**2, *[HEAD_WIDTH] * (depth - 1), _NUM_CLASSES]
    weights += [rng.standard_normal((b, a)) / math.sqrt(a) for a, b in zip(sizes, sizes[1:], strict=False)]
    return [torch.from_numpy(weight).to(X) for weight in weights]


def forward(weights: Sequence[Tensor], X: Tensor) -> list[Tensor]:
    """Outputs ``[F, A_1, …, A_h]``, columns samples: the features, and what follows each layer of the head.

    ``DufmError`` for weights that do not follow one another from images ``X`` ``(n, channels, side, side)`` on.
    """
    _check_weights(weights, X)
    outputs = [torch.cat([_features(weights, part) for part in X.split(_AT_ONCE)]).mT]
    for V in weights[len(CHANNELS) :]:
        outputs.append(V @ outputs[-1])
    check_in_range("weights: an output", *outputs)
    return outputs


def _check_weights(weights: Sequence[Tensor], X: Tensor) -> None:
    kernels, head = weights[: len(CHANNELS)], weights[len(CHANNELS) :]
    fits = X.ndim == 4 and bool(head) and all(W.dtype == X.dtype for W in weights)
    if fits:
        before, *size = X.shape[1:]
        for kernel in kernels:
            fits = fits and kernel.ndim == 4 and tuple(kernel.shape[1:]) == (before, 3, 3)
            before, size = len(kernel), [-(-side // 2) for side in size]
        before *= math.prod(size)
        for V in head:
            fits = fits and V.ndim == 2 and V.shape[1] == before
            before = len(V)
    if not fits:
        shapes = [tuple(W.shape) for W in weights]
        raise DufmError(
            f"weights must be {len(CHANNELS)} kernels (b, a, 3, 3) and a head that follow one another, of the dtype of "
            f"X (n, channels, side, side), got {short(shapes)} and {X.dtype} {tuple(X.shape)}"
        )


def _features(weights: Sequence[Tensor], X: Tensor) -> Tensor:
    for kernel in weights[: len(CHANNELS)]:
        X = torch.nn.functional.conv2d(X, kernel, stride=2, padding=1).relu()
    return X.flatten(1)


def head_cost(head: Sequence[Tensor]) -> float:
    r"""``Σ‖V_l‖²`` of the head's factors over the least for their product, :math:`h\sum_i\sigma_i^{2/h}`; from 1 up."""
    shapes = [tuple(V.shape) for V in head]
    fits = bool(head) and all(len(shape) == 2 for shape in shapes) and len({V.dtype for V in head}) == 1
    if not fits or any(above[1] != below[0] for below, above in itertools.pairwise(shapes)):
        raise DufmError(f"head must be matrices of one dtype that follow one another, got {short(shapes)}")
    product = torch.linalg.multi_dot(head[::-1]) if len(head) > 1 else head[0]
    least = len(head) * (significant_values(product) ** (2 / len(head))).sum()
    if not least > 0:
        raise DufmError("head must have a product other than 0")
    return float(sum(V.square().sum() for V in head) / least)


@torch.inference_mode(False)
def train(
    weights: Sequence[Tensor],
    X: Tensor,
    y: Tensor,
    *,
    batch_size: int,
    seed: int,
    until_log_loss: float = LOG_LOSS_END,
    max_epochs: int = 400,
) -> tuple[list[Tensor], float, str, int]:
    r"""Minibatch descent until the log of the mean loss is ``until_log_loss``: weights, log loss, status, epochs tried.

    The velocity is nine tenths of the last one and a tenth of 1/ℒ times the batch's share of −∇ℒ, ℒ the loss on all
    data at the start of the epoch; the weights move by h times the velocity.  An epoch after which log ℒ has risen by
    more than 0.05 is undone, h halved and the velocity 0, else h grows by a tenth; one in which a batch alone comes to
    carry twice ℒ is undone at once.  Status "reached" or "max epochs".  ``DufmError`` as :func:`forward`, and for
    labels ``y`` ``(n,)`` that are no int64 tensor of classes.
    """
    weights, X = [weight.detach() for weight in weights], X.detach()
    _check_weights(weights, X)
    classes = len(weights[-1])
    fits = isinstance(y, Tensor) and (y.dtype, y.shape, y.device) == (torch.int64, X.shape[:1], X.device)
    if not fits or not ((y >= 0) & (y < classes)).all():
        raise DufmError(f"y must be an int64 tensor of {len(X)} labels below {classes}, one an image, got {short(y)}")
    log_samples = math.log(len(y))
    state, rest = [weight.clone() for weight in weights], [torch.zeros_like(weight) for weight in weights]
    velocity = rest
    rng = np.random.default_rng(seed)
    log_loss, h, epochs = _log_sum(state, X, y) - log_samples, 0.0, 0
    while log_loss > until_log_loss and epochs < max_epochs:
        epochs += 1
        new, speed = ([part.clone() for part in parts] for parts in (state, velocity))
        for batch in torch.from_numpy(rng.permutation(len(y))).split(batch_size):
            log_sum, slope = gradient(new, X[batch], y[batch])
            share = math.exp(min(log_sum - log_samples - log_loss, 1.0))
            if not share <= 2.0:
                break
            h = h or _FIRST_MOVE * _norm(new) / _norm(slope)
            for weight, v, part in zip(new, speed, slope, strict=True):
                v.mul_(_MOMENTUM).add_(part, alpha=(1.0 - _MOMENTUM) * share)
                weight.add_(v, alpha=h)
        after = _log_sum(new, X, y) - log_samples if share <= 2.0 else math.nan
        kept = after <= log_loss + _RISE
        h *= _GROW if kept else _SHRINK
        state, log_loss, velocity = (new, after, speed) if kept else (state, log_loss, rest)
    return state, log_loss, "reached" if log_loss <= until_log_loss else "max epochs", epochs


def gradient(weights: Sequence[Tensor], X: Tensor, y: Tensor) -> tuple[float, tuple[Tensor, ...]]:
    """Log of the summed loss of the samples, and minus its gradient in every weight."""
    leaves = [weight.requires_grad_() for weight in weights]
    logits = forward(leaves, X)[-1]
    log_sum, residual = log_sum_and_residual(logits.detach(), true_class(y, len(logits), logits.dtype))
    slope = torch.autograd.grad(logits, leaves, residual)
    for weight in weights:
        weight.requires_grad_(False)
    return float(log_sum), slope


def _log_sum(weights: Sequence[Tensor], X: Tensor, y: Tensor) -> float:
    logits = forward(weights, X)[-1]
    return float(log_sum_and_residual(logits, true_class(y, len(logits), logits.dtype))[0])


def _norm(parts: Iterable[Tensor]) -> float:
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


def trained(
    seeds: Sequence[int], *, dataset: str, digest: str, n_per_class: int, batch_size: int, precision: str, depth: int
) -> dict[str, list[Any]]:
    """Train a network a seed with ``depth`` head layers, and measure its end; a task for ``sweep.run``.

    ``precision``: "float32" or "float64", which also keeps rounding from turning a run.

    Columns: ``status``, ``epochs``, ``log_loss``; effective ``rank`` of the centred class-mean logits, ``start_rank``
    before training; ``layer_0`` … ``layer_h`` the same of the features and after each head layer; :func:`head_cost`;
    ``accuracy`` on images not trained on; and from :func:`dufm.diagnose` at depth h + 1, the features being one factor
    more: least and median margin, ``decided``, the nearest code's ``name`` and ``distance``, ``margin_ratio``, and
    NC1, its trace ratio, NC2, NC3 of the features, the head's product being the classifier.  ``DufmError`` for data of
    another digest.
    """
    if data.fingerprint(dataset) != digest:
        raise DufmError(f"dataset {dataset!r} is not the one of digest {digest!r}")
    X, y, held, held_y = data.split(dataset, n_per_class)
    X, held = images(X, precision), images(held, precision)
    rows = [_measured(seed, depth, X, y, held, held_y, batch_size) for seed in seeds]
    return {name: [row[name] for row in rows] for name in rows[0]}


def _measured(
    seed: int, depth: int, X: Tensor, y: Tensor, held: Tensor, held_y: Tensor, batch_size: int
) -> dict[str, Any]:
    start = initial(seed, depth, X)
    weights, log_loss, status, epochs = train(start, X, y, batch_size=batch_size, seed=seed)
    outputs = [A.double() for A in forward(weights, X)]
    head = [V.double() for V in weights[len(CHANNELS) :]]
    product = torch.linalg.multi_dot(head[::-1]) if depth > 1 else head[0]
    found = diagnose(outputs[-1].mT, y, depth=depth + 1, features=outputs[0].mT, classifier=product)
    return {
        "status": status,
        "epochs": epochs,
        "log_loss": log_loss,
        "start_rank": float(effective_rank(class_means(forward(start, X)[-1], y))),
        "rank": float(layer_ranks(outputs[-1], y)),
        **{f"layer_{layer}": float(layer_ranks(A, y)) for layer, A in enumerate(outputs)},
        "head_cost": head_cost(head),
        "accuracy": float((forward(weights, held)[-1].argmax(0) == held_y).double().mean()),
        "least_margin": found.margins[0],
        "median_margin": found.margins[1],
        "decided": found.decided,
        "name": found.name,
        "distance": found.distance,
        "margin_ratio": found.margin_ratio,
        **{name: found.nc[name] for name in ("nc1", "trace_ratio", "nc2", "nc3")},
    }


guard(globals())
