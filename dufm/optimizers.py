r"""Methods of training that descend in another norm: momentum, Adam, sign descent, orthogonalised steps (Muon).

With :math:`G = -\nabla\log\mathcal L` a method of short steps goes where :math:`\langle G, D\rangle` is largest among
all D of norm at most 1: descent in the Euclidean norm of all factors, sign descent in their largest entry, Muon
(Jordan et al. 2024) in the largest of their spectral norms.  The direction of the weights then tends to a critical
point of the margin problem of *that* norm (Tsilivis, Vardi & Kempe 2025), which :func:`alignment` certifies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import matrix_field
from dufm._scaling import check_in_range
from dufm._together import check_once
from dufm.ends import UNDECIDED, end, limit
from dufm.flow import gradient_flow
from dufm.groups import Group, check_spectrum
from dufm.margin import schatten
from dufm.metrics import centred, margins, numerical_rank
from dufm.model import chain
from dufm.spectral import spectral_init
from dufm.width import random_start

if TYPE_CHECKING:
    import pandas

__all__ = [
    "CELL",
    "METHODS",
    "NORMS",
    "alignment",
    "by_method",
    "flatness",
    "method_ends",
    "muon_increments",
    "train_by",
]

# ---------------------------------------------------------------- norms of all factors, and their duals


def _largest(factors: Sequence[Tensor], size: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([size(W) for W in factors]).amax(0)


def _summed(factors: Sequence[Tensor], size: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([size(W) for W in factors]).sum(0)


def _euclidean(factors: Sequence[Tensor]) -> Tensor:
    return _summed(factors, lambda W: W.square().sum((-2, -1))).sqrt()


#: The norm that a method descends in, and its dual.
#:
#: :meta hide-value:
NORMS = {
    "euclidean": (_euclidean, _euclidean),
    "entry": (
        lambda factors: _largest(factors, lambda W: W.abs().amax((-2, -1))),
        lambda factors: _summed(factors, lambda W: W.abs().sum((-2, -1))),
    ),
    "spectral": (
        lambda factors: _largest(factors, lambda W: torch.linalg.matrix_norm(W, 2)),
        lambda factors: _summed(factors, lambda W: torch.linalg.matrix_norm(W, "nuc")),
    ),
}


def _slopes(factors: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Log ℒ and −∂ log ℒ/∂W_l."""
    slopes = [torch.empty_like(W) for W in factors]
    return matrix_field(factors, slopes)[0], slopes


@torch.no_grad()
def alignment(factors: Sequence[Tensor], norm: str) -> Tensor:
    r""":math:`\langle G, W\rangle / (N(W)\,N_*(G))` of :math:`G = -\nabla\log\mathcal L`, at most 1; ``(...)``.

    ``norm`` N: "euclidean", "entry" (largest entry of all factors) or "spectral" (largest spectral norm of a factor),
    N_* its dual.  1 where W points along a direction of steepest descent: as ℒ → 0 that is the KKT condition of
    ``min N(W)`` under all margins ≥ 1, multipliers the softmax weights.  NaN where G vanishes.  ``DufmError`` for
    another norm or bad factors.
    """
    if norm not in NORMS:
        raise DufmError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    size, dual = NORMS[norm]
    slopes = _slopes(factors)[1]
    along = sum((G * W).sum((-2, -1)) for G, W in zip(slopes, factors, strict=True))
    return along / (size(factors) * dual(slopes))


# ---------------------------------------------------------------- methods

_AVERAGED = {"momentum": 0.9, "dampening": 0.9}
#: Name: the optimiser whose steps are taken, its keywords, the norm in which a step is measured.  torch.optim.Muon is
#: not used: it takes single matrices and orthogonalises them to a third in bfloat16.
#:
#: :meta hide-value:
METHODS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "descent": (torch.optim.SGD, {}, "euclidean"),
    "momentum": (torch.optim.SGD, _AVERAGED, "euclidean"),
    "Adam": (torch.optim.Adam, {"betas": (0.9, 0.9), "eps": 1e-100}, "entry"),
    "sign": (torch.optim.Adam, {"betas": (0.0, 0.0), "eps": 1e-100}, "entry"),
    "Muon": (torch.optim.SGD, _AVERAGED, "spectral"),
}


def _polar(step: Tensor, rank: int) -> Tensor:
    """The factor UVᵀ of a matrix of the given rank."""
    U, _, Vh = torch.linalg.svd(step, full_matrices=False)
    return U[..., :rank] @ Vh[..., :rank, :]


@torch.no_grad()
def train_by(
    factors: Sequence[Tensor], method: str, *, step: float = 2e-3, steps: int = 6000, sharpness: float = 100.0
) -> list[Tensor]:
    r"""Factors after ``steps`` short steps of a method of ``METHODS``, at constant sharpness once they are there.

    A step is ``step`` of the weights' own norm long.  The optimiser is given :math:`-\nabla\log\mathcal L` over its
    length, so that it remembers directions and not the larger losses they came with; Adam's ε is zero.  Where −log ℒ
    exceeds ``sharpness`` all factors are scaled back to it: as in :func:`dufm.limit` the direction then rests at the
    critical points, blurred by O(1/sharpness).  NaN: what left the floats, or has no slope.  ``DufmError`` for another
    method or bad factors.
    """
    if method not in METHODS:
        raise DufmError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    maker, keywords, norm = METHODS[method]
    size, depth, rank = NORMS[norm][0], len(factors), factors[-1].shape[-2] - 1
    factors = [W.clone() for W in factors]
    moved = [torch.zeros_like(W) for W in factors]
    optimizer = maker(moved, lr=1.0, **keywords)
    for _ in range(steps):
        log_loss, slopes = _slopes(factors)
        length = _euclidean(slopes)[..., None, None]
        for W, G in zip(moved, slopes, strict=True):
            W.zero_()
            W.grad = -G / length
        optimizer.step()
        turn = [_polar(W, rank) for W in moved] if norm == "spectral" else moved
        reach = step * size(factors)[..., None, None]
        back = ((sharpness / (-log_loss).clamp(min=sharpness)) ** (1 / depth))[..., None, None]
        factors = [(W + reach * D) * back for W, D in zip(factors, turn, strict=True)]
    return factors


@torch.no_grad()
def muon_increments(s0: Tensor, depth: int, group: Group, lr: float, steps: int) -> tuple[Tensor, np.ndarray]:
    r"""How unequally orthogonalised steps move the values of a spectral start, and where they end.

    ``steps`` steps ``W_l ← W_l + lr·UVᵀ``, UΣVᵀ minus the gradient, from :func:`dufm.spectral_init`, whose arguments
    ``s0`` ``(..., F)``, ``depth`` and ``group`` are.  Returns the largest difference of two increments of w_i over the
    largest w_i, ``(...)``, and the names of the ends to which :func:`train_by` leads from there.  ``DufmError`` as
    :func:`dufm.spectral_flow`.
    """
    chi = check_spectrum(s0, group)
    factors = spectral_init(s0, depth, chi)
    for _ in range(steps):
        slopes = _slopes(factors)[1]
        factors = [W + lr * _polar(G, chi.num_classes - 1) for W, G in zip(factors, slopes, strict=True)]
    w = chi.spectrum(chain(factors))[0] ** (1 / depth)
    gain = w - s0 ** (1 / depth)
    names = end(_scaled(train_by(factors, "Muon", step=0.05, steps=150)), depth).name
    unequal = (gain.amax(-1) - gain.amin(-1)) / w.amax(-1)
    check_in_range("lr: an increment", unequal)
    return unequal, names


def flatness(factors: Sequence[Tensor]) -> Tensor:
    r""":math:`\|Z\|_{S_{2/L}}` over its largest value at given widths and largest entry, at most 1; ``(...)``.

    By Hölder's inequality :math:`\|Z\|_{S_{2/L}} \le \prod_l\|W_l\|_F`, and no factor of n entries is longer than √n
    times its largest: 1 where the factors are balanced, and their entries all of one size.  ``DufmError`` for bad
    factors.
    """
    most = math.prod(W.shape[-2:].numel() for W in factors) ** 0.5
    share = schatten(chain(factors), 2 / len(factors)) / (most * NORMS["entry"][0](factors) ** len(factors))
    check_in_range("factors: the flatness", share)
    return share


_RESTED, _ALIGNED, _KEPT = 0.01, 0.98, 0.02
#: What makes a cell.
CELL = ["num_classes", "depth", "width", "scale", "method", "step", "steps"]


def method_ends(
    seeds: Sequence[int],
    num_classes: int,
    depth: int,
    width: int,
    scale: float,
    method: str,
    step: float = 2e-3,
    steps: int = 6000,
) -> dict[str, Any]:
    """Where a method ends from fan-in Gaussian starts, one network a seed: a task for ``sweep.run``.

    Followed by :func:`train_by`; "flow" is the flow to its limit.  Columns: ``name``, that of :func:`dufm.end` where
    that certifies, else "own" where the direction has rested (the last quarter of the steps turned the logits by less
    than 1%) and is aligned to 0.98 with steepest descent in the method's own norm, else "undecided"; ``rank`` of the
    centred logits, values below 2% of the largest dropped; ``turned``, that last turn; ``euclidean``, ``entry``,
    ``spectral``: :func:`alignment`; ``spectral_margin``: least margin over the spectral norm of the centred logits.
    These are NaN where the flow did not arrive.
    """
    factors = random_start("gaussian", depth, width, num_classes, scale=scale, seeds=seeds)
    if method == "flow":
        factors = limit(gradient_flow(factors, until_log_loss=-1000.0, rtol=1e-3), sharpness=1e3).factors
        early = Z = _scaled(factors)
    else:
        factors = train_by(factors, method, step=step, steps=steps - steps // 4)
        early = _scaled(factors)
        factors = train_by(factors, method, step=step, steps=steps // 4)
        Z = _scaled(factors)
    found = end(Z, depth)
    turned = torch.linalg.matrix_norm(Z - early) / torch.linalg.matrix_norm(Z)
    near = {norm: alignment(factors, norm) for norm in NORMS}
    own = near["euclidean" if method == "flow" else METHODS[method][2]]
    rests = (turned < _RESTED) & (margins(Z).amin((-2, -1)) > 0)
    names = np.where(found.decided, found.name, np.where(own > _ALIGNED, "own", UNDECIDED))
    return {
        "name": np.where(rests, names, UNDECIDED).astype(str),
        "rank": numerical_rank(Z, _KEPT),
        "turned": turned,
        **near,
        "spectral_margin": margins(Z).amin((-2, -1)) / torch.linalg.matrix_norm(Z, 2),
    }


def by_method(runs: pandas.DataFrame) -> pandas.DataFrame:
    """A row a cell of a table of :func:`method_ends`, a row a network: counts.

    ``networks``; ``full``, those of rank K − 1; ``collapsed``; ``elsewhere``, those whose name or rank is not that of
    the same start under the flow, where there is one; ``decided``; ``own`` and ``euclidean``: aligned to 0.98 with
    steepest descent in the method's own norm, and in the Euclidean one.
    """
    start = [*(name for name in CELL if name not in ("method", "step", "steps")), "seed"]
    check_once("runs", runs[runs.method == "flow"], start)
    flow = runs.loc[runs.method == "flow", [*start, "name", "rank"]]
    beside = runs.merge(flow, how="left", on=start, suffixes=("", "_flow"))
    norm = beside.method.map({"flow": "euclidean"} | {name: chosen[2] for name, chosen in METHODS.items()})
    counted = {
        "full": beside["rank"] == beside.num_classes - 1,
        "collapsed": beside.name == "NC",
        "elsewhere": beside.name_flow.notna()
        & ((beside.name != beside.name_flow) | (beside["rank"] != beside.rank_flow)),
        "decided": beside.name != UNDECIDED,
        "own": sum((norm == name) * beside[name] for name in NORMS) > _ALIGNED,
        "euclidean": beside.euclidean > _ALIGNED,
    }
    return beside[CELL].assign(networks=1, **counted).groupby(CELL, as_index=False).sum()


def _scaled(factors: Sequence[Tensor]) -> Tensor:
    """Centred logits of smallest margin 1, or as they are where the classes are not separated."""
    Z = centred(chain(factors))
    smallest = margins(Z).amin((-2, -1), keepdim=True)
    return Z / torch.where(smallest > 0, smallest, 1.0)


guard(globals())
