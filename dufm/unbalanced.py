r"""Unbalanced starts: how many of the layers are small is the depth that the logits feel first.

Layers of width K with :math:`W_{l+1}^\top W_{l+1} - W_lW_l^\top = (a_{l+1} - a_l)I`, least a 0, have the singular
values :math:`(y_i + a_l)^{1/2}` with :math:`\prod_l(y_i + a_l) = \sigma_i(Z)^2`, and the flow keeps that.  Of the L
layers k are *small*, a = 0, and the others *big*, :math:`a = h^{2/L}`.  Far below the handover size h the logits move
as if the network had depth k, far above as if it had depth L.  A start is written as a word, features first: "sbb".
"""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas
import scipy.integrate
import scipy.special
import torch
from torch import Tensor

from dufm._checks import check_logits, short
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range
from dufm._together import check_once
from dufm.ends import End, end, limit
from dufm.flow import gradient_flow
from dufm.model import balanced_init, chain
from dufm.width import random_start

__all__ = [
    "KINDS",
    "beside_twins",
    "certified_end",
    "shallow_path",
    "shifted_init",
    "stretched_init",
    "unbalanced_ends",
]

_NEWTON, _SHARPNESS = 30, 1e3


def _shifts(word: str, handover: float) -> list[float]:
    """The a_l of a word of letters s and b."""
    if len(word) < 2 or set(word) - {"s", "b"} or "s" not in word:
        raise DufmError(f"word must hold a letter s or b for each of two or more layers, at least one s, got {word!r}")
    return [handover ** (2 / len(word)) if letter == "b" else 0.0 for letter in word]


def _root(sigma: Tensor, shifts: Sequence[float]) -> Tensor:
    """The y ≥ 0 with Π_l (y + a_l) = σ²: Newton for log y, where it is convex, from above; 0 where σ is rounding."""
    noise = sigma.shape[-1] * torch.finfo(sigma.dtype).eps * sigma[..., :1]
    target = 2 * sigma.clamp(min=torch.finfo(sigma.dtype).tiny).log()
    y = (target / len(shifts)).exp()
    for _ in range(_NEWTON):
        above = sum((y + a).log() for a in shifts) - target
        y = y * (-above / sum(y / (y + a) for a in shifts)).exp()
    return torch.where(sigma > noise, y, 0.0)


def shifted_init(Z: Tensor, word: str, handover: float) -> list[Tensor]:
    r"""Factors of ``Z`` ``(..., K, K)`` with imbalances :math:`(a_{l+1} - a_l)I`, a_l from ``word`` and ``handover``.

    Without a "b" these are balanced factors.  ``DufmError`` for another word, a handover that is not positive, logits
    that are not square, or a factor beyond the floats.
    """
    if check_logits(Z)[1] != 1:
        raise DufmError(f"Z must be square, one sample a class, got {tuple(Z.shape)}")
    shifts = _shifts(word, handover)
    U, sigma, Vh = torch.linalg.svd(Z)
    root = _root(sigma, shifts)
    first, *hidden, last = [torch.diag_embed((root + a).sqrt()) for a in shifts]
    factors = [first @ Vh, *hidden, U @ last]
    check_in_range("Z: a factor", *factors)
    return factors


def stretched_init(Z: Tensor, word: str, handover: float) -> list[Tensor]:
    """Balanced factors of ``Z``, the big layers times one number and the small ones times another.

    The product stays, and big layers have the norm that they have in :func:`shifted_init`.  ``DufmError`` as there.
    """
    shifted, balanced = shifted_init(Z, word, handover), balanced_init(Z, len(word))
    big = word.count("b")
    if not big:
        return balanced
    norms = [torch.linalg.matrix_norm(factors[word.index("b")]) for factors in (shifted, balanced)]
    log_c = (norms[0] / norms[1]).log()[..., None, None]
    powers = {"b": log_c, "s": -log_c * big / (len(word) - big)}
    factors = [W * powers[letter].exp() for W, letter in zip(balanced, word, strict=True)]
    check_in_range("Z: a factor", *factors)
    return factors


#: Kinds of big layers, by name.
#:
#: :meta hide-value:
KINDS = {"shifted": shifted_init, "stretched": stretched_init}


def shallow_path(Z: Tensor, small: int, times: Sequence[float]) -> np.ndarray:
    r"""Logits of one balanced network of depth ``small`` ≥ 1 at ``times``, from :math:`Z` ``(K, K)`` at time 0.

    :math:`\dot Z = \sum_{j\le k}(ZZ^\top)^{(k-j)/k}(I-P)(Z^\top Z)^{(j-1)/k}` by SciPy; at k = 1 the linear model.
    An array ``(times, K, K)``.  ``DufmError`` for times that do not increase from 0 or more.
    """
    num_classes, Z = len(Z), Z.detach()
    if any(late <= early for early, late in itertools.pairwise(times)) or times[0] < 0 or times[-1] == 0:
        raise DufmError(f"times must increase, from 0 or more, got {short(times)}")

    def velocity(_: Any, z: np.ndarray) -> np.ndarray:
        U, sigma, Vh = np.linalg.svd(z.reshape(Z.shape))
        force = U.T @ (np.eye(num_classes) - scipy.special.softmax(z.reshape(Z.shape), 0)) @ Vh.T
        root = sigma ** (2 / small)
        gain = sum(np.outer(root ** (small - j), root ** (j - 1)) for j in range(1, small + 1))
        return (U @ (gain * force) @ Vh).ravel()

    start, last = np.asarray(Z).ravel(), times[-1]
    run = scipy.integrate.solve_ivp(velocity, (0, last), start, "DOP853", t_eval=times, rtol=1e-11, atol=1e-13)
    return run.y.T.reshape(-1, num_classes, num_classes)


def certified_end(factors: Sequence[Tensor]) -> End:
    """:func:`dufm.end` of starts of which some layers are far smaller than others.

    The flow is followed with local errors of 1e-7 down to log ℒ = −20, as layers of a hundredth of the norm count, and
    from there to its limit.
    """
    near = gradient_flow(factors, until_log_loss=-20.0, rtol=1e-7)
    run = gradient_flow(near.factors, until_log_loss=-_SHARPNESS, rtol=1e-3)
    return end(limit(run, sharpness=_SHARPNESS), len(factors))


def unbalanced_ends(
    seeds: Sequence[int], num_classes: int, word: str, handover: float, kind: str = "shifted", scale: float = 1.0
) -> dict[str, np.ndarray]:
    """Certified rank from unbalanced factors of Gaussian logits, entries N(0, scale²/K), one a seed: for ``sweep.run``.

    ``kind``: one of ``KINDS``.  Column ``rank`` of :func:`dufm.end`, 0 where it is undecided.  The logits depend on the
    seed, ``num_classes`` and ``scale`` alone.  ``DufmError`` for another kind, or as :func:`shifted_init`.
    """
    if kind not in KINDS:
        raise DufmError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    Z = chain(random_start("limit", 2, num_classes, num_classes, scale=scale**0.5, seeds=seeds))
    found = certified_end(KINDS[kind](Z, word, handover))
    return {"rank": torch.where(found.decided, found.rank, 0).numpy()}


def beside_twins(runs: pandas.DataFrame) -> pandas.DataFrame:
    """Counts by cell of a table of :func:`unbalanced_ends`, each network beside balanced ones of the same logits.

    ``runs``: a row a network of ``num_classes``, ``word``, ``handover``, ``kind``, ``seed`` and ``rank``; words without
    a "b" are the twins.  Columns ``num_classes``, ``depth``, ``small``, ``kind``, ``handover``, ``networks``, and of
    these ``collapse``, ``undecided``, ``as_small`` and ``as_deep``: those at the rank of the twin of depth ``small``,
    which is collapse for one small layer, and of that of full depth.  ``DufmError`` where a twin is missing.
    """
    rows = runs.assign(depth=runs.word.str.len(), small=runs.word.str.count("s"))
    check_once("runs", rows[rows.small == rows.depth], ["num_classes", "seed", "depth"])
    twins = rows[rows.small == rows.depth].set_index(["num_classes", "seed", "depth"])["rank"]

    def twin(depth: pandas.Series) -> np.ndarray:
        found = twins.reindex(pandas.MultiIndex.from_arrays([rows.num_classes, rows.seed, depth])).to_numpy()
        found = np.where(depth == 1, rows.num_classes - 1, found)
        if np.isnan(found).any():
            raise DufmError(f"runs must hold balanced twins of depths {sorted(set(depth[np.isnan(found)]))}")
        return found

    decided = rows["rank"] > 0
    flags = {
        "collapse": rows["rank"] == rows.num_classes - 1,
        "undecided": ~decided,
        "as_small": decided & (rows["rank"] == twin(rows.small)),
        "as_deep": decided & (rows["rank"] == twin(rows.depth)),
    }
    cell = ["num_classes", "depth", "small", "kind", "handover"]
    return rows[cell].assign(networks=1, **flags).groupby(cell, as_index=False).sum()


guard(globals())
