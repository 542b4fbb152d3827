r"""What networks have learned from images: the ranks of their layers, and the code that their classes form.

:func:`trained` is a task for ``sweep.run``.  The code its classes form is
:func:`dufm.codes.class_code` of its centred class-mean logits.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor

from dufm import data, networks
from dufm._door import guard
from dufm._error import DufmError
from dufm.codes import class_code, one_vs_rest_margin
from dufm.diagnosis import diagnose
from dufm.metrics import effective_rank, nc_metrics

__all__ = ["initial_weights", "joined", "random_margins", "trained"]

_CELL = ("dataset", "digest", "n_per_class", "batch_size")
_NETWORK = ("training", "depth", "width", "seed")
_METRICS = ("nc1", "trace_ratio", "nc2", "nc3")


def trained(
    seeds: Sequence[int],
    *,
    dataset: str,
    digest: str,
    depth: int,
    width: int,
    training: str = "flow",
    n_per_class: int = 60,
    batch_size: int = 50,
    scale: float = networks.HE_SCALE,
    relu_layers: int | None = None,
    centred: bool = True,
    log_loss_end: float = networks.LOG_LOSS_END,
    max_steps: int = 2000,
    precision: str = "float64",
) -> dict[str, Any]:
    r"""Train a network a seed on images until the log of its mean loss is ``log_loss_end``, and measure its end.

    ``dataset`` is a name of ``data.NAMES`` and ``digest`` its ``data.fingerprint``; images are those of ``data.split``.
    ``training``: "flow" on all data, or "minibatch" descent, ``batch_size`` images at a time (``networks.train``,
    for ``relu_layers`` and ``max_steps`` too), in ``precision`` "float64" or "float32"; what is measured afterwards is
    in float64.  Starts as in :func:`initial_weights`.

    Columns, one entry a seed: ``status``; ``log_loss``; effective ``rank`` of the centred class-mean logits, and
    ``start_rank`` before training; and, NaN unless the status is "reached": ``accuracy`` on images not trained on;
    ``layer_0`` … ``layer_L``, effective rank of the class means of the images and after each layer; ``nc1``,
    ``trace_ratio``, ``nc2``, ``nc3`` (``nc_metrics`` at rank K − 1) of the last hidden layer; ``margin_2`` …
    ``margin_{K−1}``, the one-vs-rest margin of the class code of that rank; ``code``, the named code nearest to the
    class-mean logits, ``distance`` from it, and ``certified``, the rank of the certified solution within 10% of them,
    0 where there is none (:func:`dufm.diagnose`).
    ``DufmError`` for data of another digest, a training or a precision that is neither, or what ``networks`` refuses.
    """
    if training not in ("flow", "minibatch"):
        raise DufmError(f"training must be 'flow' or 'minibatch', got {training!r}")
    if precision not in ("float32", "float64"):
        raise DufmError(f"precision must be 'float32' or 'float64', got {precision!r}")
    if data.fingerprint(dataset) != digest:
        raise DufmError(f"dataset {dataset!r} is not the one of digest {digest!r}")
    X, y, held, held_y = data.split(dataset, n_per_class, centred=centred)
    starts = [initial_weights(seed, depth, width, len(X), scale) for seed in seeds]
    weights = [torch.cat(layer) for layer in zip(*starts, strict=True)]
    dtype = getattr(torch, precision)
    run = networks.train(
        [weight.to(dtype) for weight in weights],
        X.to(dtype),
        y,
        relu_layers=relu_layers,
        batch_size=min(batch_size, len(y)) if training == "minibatch" else None,
        seed=_derived(0, depth, width, 1),
        until_log_loss=log_loss_end,
        max_steps=max_steps,
    )
    found: dict[str, Any] = {"status": run.status, "log_loss": run.log_loss}
    trained = [weight.double() for weight in run.weights]
    for name, state in (("start_rank", weights), ("rank", trained)):
        found[name] = effective_rank(networks.class_means(networks.forward(state, X, relu_layers)[-1], y))
    done = torch.from_numpy(run.status == "reached")
    if done.any():
        ended = [weight[done] for weight in trained]
        logits = networks.forward(ended, X, relu_layers)[-1]
        seen = [diagnose(Z.mT, y, depth=depth) for Z in logits]
        measured = _measured(ended, X, y, held, held_y, relu_layers) | {
            "distance": torch.tensor([one.distance for one in seen], dtype=X.dtype),
            "certified": torch.tensor([one.rank or 0 for one in seen], dtype=X.dtype),
        }
        for name, values in measured.items():
            found[name] = torch.full(done.shape, math.nan, dtype=X.dtype).masked_scatter(done, values)
        found["code"] = np.full(len(done), "", dtype="<U16")
        found["code"][run.status == "reached"] = [one.name for one in seen]
    return found


def joined(known: pandas.DataFrame, fresh: pandas.DataFrame) -> tuple[pandas.DataFrame, float]:
    """Two tables of :func:`trained` as one, and their largest difference in ``rank`` where both have a network.

    Of ``known`` those rows stay whose data and batches are those of ``fresh`` (columns ``dataset``, ``digest``,
    ``n_per_class``, ``batch_size``); a network (``training``, ``depth``, ``width``, ``seed``) in both is taken from
    ``fresh``.  Returns the DataFrame and the difference, NaN without a common network.
    """
    known = known.merge(fresh[[*_CELL]].drop_duplicates())
    both = fresh.merge(known, on=[*_CELL, *_NETWORK], suffixes=("", "_known"))
    table = pandas.concat([known, fresh]).drop_duplicates([*_CELL, *_NETWORK], keep="last")
    return table.sort_values([*_NETWORK], ignore_index=True), float((both["rank"] - both["rank_known"]).abs().max())


def initial_weights(seed: int, depth: int, width: int, features: int, scale: float = networks.HE_SCALE) -> list[Tensor]:
    """``networks.he_init`` of one network for ten classes, drawn from the seed, the depth and the width together.

    So the networks of one seed are independent from one depth or width to the next, and the same up to ``scale`` in all
    experiments at one depth and width.
    """
    return networks.he_init(depth, width, features, 10, scale=scale, seed=_derived(seed, depth, width))


def random_margins(num_classes: int, dim: int, count: int, *, seed: int) -> Tensor:
    """One-vs-rest margins ``(count,)`` of codes of ``num_classes`` vectors drawn uniformly from the sphere in R^dim."""
    W = np.random.default_rng([seed, dim]).standard_normal((count, num_classes, dim))
    return one_vs_rest_margin(torch.from_numpy(W / np.linalg.norm(W, axis=-1, keepdims=True)))


def _measured(
    weights: Sequence[Tensor], X: Tensor, y: Tensor, held: Tensor, held_y: Tensor, relu_layers: int | None
) -> dict[str, Tensor]:
    outputs = networks.forward(weights, X, relu_layers)
    Z = networks.class_means(outputs[-1], y)
    accuracy = torch.full(Z.shape[:1], math.nan, dtype=X.dtype)
    if len(held_y):
        accuracy = (networks.forward(weights, held, relu_layers)[-1].argmax(1) == held_y).to(X).mean(1)
    nc = nc_metrics(outputs[-2], weights[-1], rank=Z.shape[-1] - 1)
    layers = [networks.layer_ranks(A, y).expand(len(Z)) for A in (X, *outputs)]
    margins = {f"margin_{r}": one_vs_rest_margin(class_code(Z, r)) for r in range(2, Z.shape[-1])}
    return {
        "accuracy": accuracy,
        **{f"layer_{index}": ranks for index, ranks in enumerate(layers)},
        **{name: nc[name] for name in _METRICS},
        **margins,
    }


def _derived(*numbers: int) -> int:
    """A seed made of several numbers: one differs, all that is drawn does."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


guard(globals())
