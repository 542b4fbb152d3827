r"""Descent with minibatches, and where it ends.

A step of size η adds :math:`\eta\,\frac NB` times minus the gradient of the part of ℒ that belongs to B of the N
samples, an unbiased estimate of −η∇ℒ.  In every epoch each sample is taken once; the mean over all orders follows, to
O(η²), the flow of

.. math:: \mathcal L + \tfrac\eta4\,\operatorname{mean}_B\bigl\|\tfrac NB\nabla\mathcal L_B\bigr\|^2

(Smith et al. 2021), whose second term is :func:`batch_term`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import matrix_field, values_below
from dufm._scaling import check_in_range
from dufm._together import check_once
from dufm.descent import HANDOVER, spectral_ends, spectral_starts
from dufm.ends import UNDECIDED, end, limit
from dufm.flow import gradient_flow
from dufm.groups import Group, characters, check_spectrum
from dufm.loss import evaluate
from dufm.model import chain, gaussian_init
from dufm.spectral import spectral_init

__all__ = ["CELL", "batch_descent", "batch_ends", "batch_flow", "batch_shifts", "batch_term", "by_batch"]


def _batch_slopes(factors: Sequence[Tensor], mark: Tensor) -> tuple[Tensor, list[Tensor]]:
    r"""Log ℒ, and minus the gradient of the part of ℒ of the samples with ``mark`` ``(..., N)`` (weights), a list."""

    def marked(Z: Tensor) -> tuple[Tensor, Tensor]:
        log_loss, residual = evaluate(Z)
        return log_loss, residual * (mark.unsqueeze(-2) * log_loss.exp()[..., None, None])

    slopes = [torch.empty_like(W) for W in factors]
    return matrix_field(factors, slopes, marked)[0], slopes


@torch.no_grad()
def batch_descent(
    factors: Sequence[Tensor],
    lr: float,
    batch_size: int,
    *,
    seeds: Sequence[int],
    replacement: bool = False,
    until_log_loss: float = HANDOVER,
    max_steps: int = 20_000,
) -> tuple[list[Tensor], Tensor]:
    r"""Descent with minibatches until log ℒ of all samples is ``until_log_loss`` at the end of an epoch.

    ``factors``: one network a seed of ``seeds``, which draws its batches; in every epoch each sample once, or
    ``replacement``.  A step is ``lr`` times the unbiased estimate of −∇ℒ from ``batch_size`` samples.  Returns factors
    and log ℒ; a network that diverges (NaN) or is late is returned as it is.  ``DufmError`` for bad factors, or a batch
    size that does not divide the number of samples.
    """
    samples = factors[0].shape[-1]
    if samples % check_count("batch_size", batch_size, 1, samples):
        raise DufmError(f"batch_size must divide the number of samples, {samples}, got {batch_size}")
    draws = [np.random.default_rng([seed, 81]) for seed in seeds]
    factors, per_epoch = [W.clone() for W in factors], samples // batch_size
    reached = evaluate(values_below(factors)[-1])[0]
    for _ in range(max_steps // per_epoch):
        rows = (reached.isfinite() & (reached > until_log_loss)).nonzero().squeeze(-1)
        if not len(rows):
            break
        part = [W[rows] for W in factors]
        drawn = [
            draws[i].integers(samples, size=samples) if replacement else draws[i].permutation(samples)
            for i in rows.tolist()
        ]
        order = torch.from_numpy(np.stack(drawn)).unflatten(1, (per_epoch, batch_size))
        for batch in order.unbind(1):
            mark = torch.zeros(len(rows), samples, dtype=part[0].dtype)
            mark.scatter_add_(1, batch, torch.full_like(mark[:, :batch_size], lr * per_epoch))
            for W, slope in zip(part, _batch_slopes(part, mark)[1], strict=True):
                W += slope
        for W, new in zip(factors, part, strict=True):
            W[rows] = new
        reached[rows] = evaluate(values_below(part)[-1])[0]
    return factors, reached


def _sizes(each: Any, together: Any, samples: int, batch_size: int) -> Any:
    """Mean of ‖(N/b) Σ_{i ∈ B} g_i‖² over batches B of b of N samples, from Σ‖g_i‖² and ‖Σ g_i‖²."""
    own = (samples - batch_size) * each + (batch_size - 1) * together
    return own * samples / (batch_size * max(samples - 1, 1))


def _square(slopes: Iterable[Tensor]) -> Any:
    return sum(slope.square().sum((-2, -1)) for slope in slopes)


@torch.no_grad()
def batch_term(factors: Sequence[Tensor], batch_size: int) -> Tensor:
    r"""Mean of :math:`\|\frac NB\nabla\mathcal L_B\|^2` over all batches of ``batch_size`` samples, ``(...)``.

    ``batch_size`` N gives ‖∇ℒ‖².  ``DufmError`` for bad factors or a batch size out of range.
    """
    samples = factors[0].shape[-1]
    batch_size = check_count("batch_size", batch_size, 1, samples)
    each = [_batch_slopes(factors, mark)[1] for mark in torch.eye(samples).to(factors[0])]
    together = _square([sum(parts) for parts in zip(*each, strict=True)])
    check_in_range("factors: a squared slope", together)
    return _sizes(sum(map(_square, each)), together, samples, batch_size)


# Relative length of a step of batch_flow, and by how much its log loss may miss the one it goes to.
_GROWTH, _LANDED = 0.01, 1e-6


def batch_flow(
    s0: Tensor, depth: int, group: Group, lr: float, batch_size: int, *, until_log_loss: float = HANDOVER
) -> Tensor:
    r"""Spectra ``(..., F)`` at log ℒ = ``until_log_loss`` along the flow of ``ℒ + lr/4`` :func:`batch_term`.

    One sample a class, factors of :func:`dufm.spectral_init`: the term does not change where the group acts, so its
    flow keeps the characters, and with :math:`T_k = \sum_im_iw_i^{2k}`, :math:`G_k = \sum_im_iw_i^{2k}g_i^2`

    .. math:: \sum_c\|\nabla\mathcal L_c\|^2 = G_{L-1} + \tfrac1K\sum_{l=2}^LG_{L-l}T_{l-1},\quad
              \|\nabla\mathcal L\|^2 = L\,G_{L-1}.

    Classical Runge–Kutta steps of 1% of the state each.  ``DufmError`` as :func:`dufm.spectral_flow`; also where the
    loss does not fall that far.
    """
    chi = check_spectrum(s0, group)
    K, multiplicity, rates = chi.num_classes, chi.multiplicity.to(s0), chi.rates.to(s0)

    def field(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w = w.detach().requires_grad_()
        with torch.enable_grad():
            s = w**depth
            loss = K * (-s @ rates).exp().sum(-1).log1p()
            g = -torch.autograd.grad(loss.sum(), s, create_graph=True)[0] / multiplicity
            G = [(multiplicity * w ** (2 * k) * g**2).sum(-1) for k in range(depth)]
            T = [(multiplicity * w ** (2 * k)).sum(-1) for k in range(depth)]
            each = G[-1] + sum(G[depth - layer] * T[layer - 1] for layer in range(2, depth + 1)) / K
            whole = loss + lr / 4 * _sizes(each, depth * G[-1], K, batch_size)
            slope = -torch.autograd.grad(whole.sum(), w, retain_graph=True)[0] / (depth * multiplicity)
            steepness = torch.autograd.grad(loss.sum(), w)[0]
        return loss.detach().log(), slope, -(steepness * slope).sum(-1, keepdim=True) / loss.detach().unsqueeze(-1)

    w = s0.reshape(-1, chi.num_free) ** (1 / depth)
    rows = torch.arange(len(w))
    for _ in range(5000):
        now, first, fall = field(w[rows])
        going = now > until_log_loss + _LANDED
        rows, first, left = rows[going], first[going], ((now - until_log_loss).unsqueeze(-1) / fall)[going]
        if not len(rows):
            check_in_range("lr: the flow", w)
            return (w**depth).reshape(s0.shape)
        u = w[rows]
        h = torch.minimum(left, _GROWTH * u.norm(dim=-1, keepdim=True) / first.norm(dim=-1, keepdim=True))
        second = field(u + h / 2 * first)[1]
        third = field(u + h / 2 * second)[1]
        w[rows] = u + h / 6 * (first + 2 * second + 2 * third + field(u + h * third)[1])
    raise DufmError(f"{len(rows)} of {len(w)} starts do not reach log loss {until_log_loss:g}: lower lr")


def batch_shifts(
    seeds: Sequence[int], num_classes: int, depth: int, scale: float, lr: float, batch_size: int
) -> dict[str, Tensor]:
    """Change of log(s_min/s_max) at the handover against the flow, ``foretold`` by :func:`batch_flow` and ``found``.

    One Hadamard start a seed, s_min and s_max its least and largest value: a task for ``sweep.run``.  ``found`` is NaN
    where descent diverges.
    """
    s0, group = spectral_starts(seeds, num_classes, scale), characters("hadamard", num_classes)
    run = batch_descent(spectral_init(s0, depth, group), lr, batch_size, seeds=seeds)[0]
    flow, foretold = (batch_flow(s0, depth, group, rate, batch_size) for rate in (0.0, lr))
    found = group.spectrum(chain(run))[0]

    def ratio(s: Tensor) -> Tensor:
        ends = torch.stack([s0.argmin(-1), s0.argmax(-1)], -1)
        return torch.gather(s, -1, ends).log().diff(dim=-1).squeeze(-1).neg()

    return {"foretold": ratio(foretold) - ratio(flow), "found": ratio(found) - ratio(flow)}


_LATE = "loss not reached"


def batch_ends(
    seeds: Sequence[int],
    num_classes: int,
    depth: int,
    width: int,
    scale: float,
    lr: float,
    batch_size: int,
    n_per_class: int = 1,
    replacement: bool = False,
) -> dict[str, Any]:
    """Where descent with minibatches ends, one start a seed: a task for ``sweep.run``.

    ``width`` 0: Hadamard spectra whose directions are uniform on the simplex, of mean ``scale``, as full matrices;
    else fan-in Gaussian starts.  ``lr`` 0 is the flow, and what minibatches have brought to the handover of
    :mod:`dufm.descent` goes on with it.  Columns ``name`` and ``reason`` of :func:`dufm.end`; where spectra are kept,
    by flow and full batches, those of :func:`dufm.descent.spectral_ends`.
    """
    if not width and (not lr or batch_size == num_classes):
        return {"name": spectral_ends(seeds, num_classes, depth, scale, lr)["name"], "reason": ""}
    if width:
        each = [gaussian_init(depth, width, num_classes, scale=scale, seed=i, n_per_class=n_per_class) for i in seeds]
        factors = [torch.cat(parts) for parts in zip(*each, strict=True)]
    else:
        factors = spectral_init(spectral_starts(seeds, num_classes, scale), depth, "hadamard")
    name, reason = (np.full(len(seeds), text, dtype=object) for text in (UNDECIDED, _LATE))
    there = np.arange(len(seeds))
    if lr:
        factors, reached = batch_descent(factors, lr, batch_size, seeds=seeds, replacement=replacement)
        there = np.flatnonzero(reached <= HANDOVER)
    if len(there):
        found = end(limit(gradient_flow([W[there] for W in factors], until_log_loss=-1000.0, rtol=1e-3)), depth)
        name[there], reason[there] = found.name, found.reason
    return {"name": name.astype(str), "reason": reason.astype(str)}


#: What makes a cell.
CELL = ["num_classes", "depth", "width", "scale", "lr", "batch_size", "n_per_class"]


def by_batch(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Counts of a table of :func:`batch_ends`, a row a cell: each start beside itself under the flow, lr = 0.

    ``starts``, ``collapse``, ``gained`` and ``lost`` (those that collapse here and not under the flow, and the
    reverse; a start without a row of the flow is in neither), ``diverged`` (those that do not get to the handover).
    """
    start = ["num_classes", "depth", "width", "scale", "n_per_class", "seed"]
    check_once("runs", runs[runs.lr == 0], start)
    flow = runs.loc[runs.lr == 0, [*start, "name"]]
    beside = runs.merge(flow, how="left", on=start, suffixes=("", "_flow"))
    here, there, known = beside.name == "NC", beside.name_flow == "NC", beside.name_flow.notna()
    counted = {"collapse": here, "gained": known & here & ~there, "lost": ~here & there}
    counted["diverged"] = beside.reason == _LATE
    return beside[CELL].assign(starts=1, **counted).groupby(CELL, as_index=False).sum()


guard(globals())
