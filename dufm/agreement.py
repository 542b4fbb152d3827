r"""The softmax code of K classes in r dimensions beside the best solution of the depth problem at rank r.

The code maximises the smallest margin of unit vectors, the depth problem that of Z at given
:math:`\sum_i\sigma_i^{2/L}`.  Here: their margins compared, the conditions under which they coincide, and which of the
two an end of training is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._nnls import nonnegative_least_squares
from dufm._polish import margin_slopes
from dufm._scaling import in_range
from dufm.code_search import softmax_code
from dufm.codes import code_logits, name_of, orthoplex, polygon, separators, simplex_etf, smallest_angle
from dufm.ends import End
from dufm.margin import closed_form_margin, normalized_margin
from dufm.search import max_margin

__all__ = [
    "CODES",
    "Comparison",
    "code_condition",
    "compare",
    "constant_multipliers",
    "frame_spread",
    "kinds",
    "selected_code",
]

SAME = 1e-6  # relative difference of margins below which two solutions count as one
_TIGHT = 1e-6
CODES = ("polygon", "orthoplex", "other softmax code")  #: kinds of low-rank ends that are softmax codes


def selected_code(num_classes: int, rank: int, *, restarts: int = 128, seed: int = 0) -> Tensor:
    """The softmax code ``(K, r)`` to compare: where there are many, that which depth selects.

    The simplex for r = K − 1; the polygon for r = 2; for r + 2 ≤ K ≤ 2r, where any code of one-vs-rest margin 1 is a
    softmax code, the orthoplex with 2r − K vertices missing; else the best that :func:`dufm.softmax_code` finds.
    ``DufmError`` for a rank outside 2 … K − 1.
    """
    num_classes = check_count("num_classes", num_classes, 3)
    rank = check_count("rank", rank, 2, num_classes - 1)
    if rank == num_classes - 1:
        return simplex_etf(num_classes)
    if num_classes <= 2 * rank:
        return orthoplex(2 * rank)[:num_classes]
    if rank == 2:
        return polygon(num_classes)
    return softmax_code(num_classes, rank, restarts=restarts, seed=seed).vectors


@dataclass(frozen=True)
class Comparison:
    """The best solution found at K, r and L beside the code of :func:`selected_code`.

    ``code``: its name; ``margin``: normalised margin of the solution, ``code_margin`` of the code's centred logits,
    ``uncentred_margin`` of its logits as they are; ``agree`` of ``restarts`` climbs ended at this solution;
    ``locally_optimal`` on its rank stratum; ``Z`` ``(K, K)``: the solution, of smallest margin 1; ``W`` ``(K, r)``: the
    code.
    """

    num_classes: int
    rank: int
    depth: int
    code: str
    margin: float
    code_margin: float
    uncentred_margin: float
    agree: int
    restarts: int
    locally_optimal: bool
    Z: torch.Tensor
    W: torch.Tensor

    @property
    def excess(self) -> float:
        """By how much the solution's margin exceeds the code's, relative."""
        return self.margin / self.code_margin - 1.0

    def row(self) -> dict[str, Any]:
        r"""Dict of the numbers above and of the shapes of both, for a table; what may vanish to nine digits.

        ``over_collapse``: margin over that of neural collapse; of the balanced factors :math:`U\Sigma^{1/2}`,
        :math:`V\Sigma^{1/2}` of Z the spread of their rows' lengths (largest over smallest, less 1) and the smallest
        angle of the features, in degrees; the code's angle; σ/σ_1 of both, as text.
        """
        U, sigma, Vh = torch.linalg.svd(self.Z)
        factors = [X[:, : self.rank] * sigma[: self.rank].sqrt() for X in (U, Vh.T)]
        spread = [round(float(n.max() / n.min() - 1.0), 9) for n in (X.norm(dim=1) for X in factors)]
        numbers = {key: value for key, value in vars(self).items() if not isinstance(value, torch.Tensor)}
        return numbers | {
            "locally_optimal": int(self.locally_optimal),
            "excess": round(self.excess, 9),
            "over_collapse": self.margin / closed_form_margin("nc", self.num_classes, self.depth),
            "angle_code": float(smallest_angle(self.W)),
            "angle_features": float(smallest_angle(factors[1])),
            "spread_classifier": spread[0],
            "spread_features": spread[1],
            "sigma_code": _profile(torch.linalg.svdvals(code_logits(self.W)), self.rank),
            "sigma": _profile(sigma, self.rank),
        }


def compare(
    num_classes: int, rank: int, depths: Iterable[int], *, restarts: int = 64, seed: int = 0
) -> list[Comparison]:
    """Search the depth problem at exact rank r, depth by depth, beside the softmax code: a list of :class:`Comparison`.

    Every search starts from ``restarts`` random codes, from what was found at the depth before, and from the code
    itself where that is unique, so that its margin is not below the code's.  Errors as :func:`dufm.max_margin`.
    """
    W = selected_code(num_classes, rank, restarts=2 * restarts, seed=seed)
    Z_code, uncentred = code_logits(W), W @ separators(W)[0].mT
    unique = not rank + 2 <= num_classes < 2 * rank
    found: list[Comparison] = []
    before: list[Tensor] = []
    for depth in sorted(depths):
        starts = [Z_code] * unique + before
        best = max_margin(num_classes, depth, rank, restarts=restarts, seed=seed, starts=starts)
        code_margin, uncentred_margin = (float(normalized_margin(Z, depth)) for Z in (Z_code, uncentred))
        name = str(name_of(Z_code))
        found.append(
            Comparison(
                num_classes, rank, depth, "irregular" if name == f"rank {rank}" else name,
                best.margin, code_margin, uncentred_margin,
                best.agree, best.restarts, best.locally_optimal, best.Z, W,
            )
        )  # fmt: skip
        before = [best.Z]
    return found


def _profile(sigma: Tensor, rank: int) -> str:
    return " ".join(f"{x:.3f}" for x in sigma[:rank] / sigma[0])


# ---------------------------------------------------------------- the conditions of the two problems


def frame_spread(W: Tensor) -> float:
    """Largest over smallest singular value of a code ``(K, r)``, less 1: 0 for a tight frame, ``WᵀW = (K/r) I``.

    ``DufmError`` for vectors that do not span all r dimensions, up to rounding.
    """
    sigma = torch.linalg.svdvals(in_range(W.detach())[0])
    if len(sigma) < W.shape[1] or not sigma[-1] > len(W) * torch.finfo(W.dtype).eps * sigma[0]:
        raise DufmError(f"W must hold vectors that span all {W.shape[1]} dimensions")
    return float(sigma[0] / sigma[-1] - 1.0)


def constant_multipliers(W: Tensor) -> float:
    r"""Relative residual of a code's own conditions with equal multipliers, :math:`\Lambda H=W,\ \Lambda^\top W=H`.

    ``W`` ``(K, r)``, H its separators, :math:`\Lambda = \sum\lambda_{jc}(e_c - e_j)e_c^\top` with λ ≥ 0 on the smallest
    margins, the best by non-negative least squares; the common factor of the right-hand sides is free through λ.
    The length of the vectors is that of a code, 1 in the mean, whatever W has.  ``DufmError`` for a W of zeros.
    """
    w, H, wrong, true = _code(W)
    return _fit(w, H, w, H, wrong, true)


def code_condition(W: Tensor, depth: int) -> float:
    r"""Relative residual of the depth problem's stationarity, written for a code's vectors; 0 where the code solves it.

    With :math:`A = (I - J/K)W`, :math:`B = H`, :math:`R = A^\top A`, :math:`S = B^\top B`, p = 2/L:

    .. math:: \Lambda B = A(SR)^{p/2-1}S,\qquad \Lambda^\top A = B(RS)^{p/2-1}R ,

    Λ as in :func:`constant_multipliers`, powers on the range where R or S is singular.  The same statement as
    :func:`dufm.kkt_certificate`, without its singular vectors; derived in notebook 34.  A float; ``DufmError`` for a
    depth below 2.
    """
    w, H, wrong, true = _code(W)
    A = w - w.mean(0)
    root_R, root_S = _root(A), _root(H)
    # A(SR)^q S = N(NᵀN)^q S^{1/2} with N = AS^{1/2}.
    right_A, right_B = (_power(X @ root, 2.0 / depth - 1.0) @ root for X, root in ((A, root_S), (H, root_R)))
    return _fit(A, H, right_A, right_B, wrong, true)


def _root(X: np.ndarray) -> np.ndarray:
    """``(XᵀX)^{1/2}``."""
    _, sigma, Vh = np.linalg.svd(X, full_matrices=False)
    return (Vh.T * sigma) @ Vh


def _power(N: np.ndarray, power: float) -> np.ndarray:
    """``N(NᵀN)^{(power − 1)/2}``, on the range of N."""
    U, sigma, Vh = np.linalg.svd(N, full_matrices=False)
    kept = sigma > len(N) * np.finfo(float).eps * sigma[0]
    return (U[:, kept] * sigma[kept] ** power) @ Vh[kept]


def _code(W: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vectors of mean length 1, separators and the pairs of smallest margin, in NumPy."""
    W = in_range(W.detach())[0]
    length = W.norm(dim=1).mean()
    if not length > 0:
        raise DufmError("W must hold vectors other than 0")
    W = W / length
    H, distance = separators(W)
    margin = (W * H).sum(1) - W @ H.T + 9.0 * torch.eye(len(W))
    wrong, true = np.nonzero((margin < distance.min() + _TIGHT).numpy())
    return W.numpy(), H.numpy(), wrong, true


def _fit(
    A: np.ndarray, B: np.ndarray, right_A: np.ndarray, right_B: np.ndarray, wrong: np.ndarray, true: np.ndarray
) -> float:
    """Relative residual of ``ΛB = right_A``, ``ΛᵀA = right_B`` over λ ≥ 0 on the pairs ``wrong``, ``true``."""
    system = margin_slopes(A, B, wrong, true).reshape(len(wrong), -1).T
    target = np.concatenate([right_A, right_B]).ravel()
    return nonnegative_least_squares(system, target)[1] / float(np.linalg.norm(target))


# ---------------------------------------------------------------- ends of training


def kinds(end: End, depth: int, *, restarts: int = 64, seed: int = 0) -> np.ndarray:
    """What each end of training ``(B,)`` is, by its margin to 1e-6, an array of words.

    ``end``: :class:`dufm.End` of a batch.  "collapse", "polygon", "orthoplex" (with vertices missing too) and "other
    softmax code" have the margin of the softmax code of their rank; "better than the code" at least that of the best
    solution :func:`compare` finds at that rank; "lesser critical point" a smaller one; "undecided" ends have none.
    """
    if end.Z.ndim != 3:
        raise DufmError(f"end must be of one batch dimension, got Z of shape {tuple(end.Z.shape)}")
    num_classes = end.Z.shape[-2]
    margin, decided, ranks = normalized_margin(end.Z.nan_to_num(), depth).cpu(), end.decided.cpu(), end.rank.cpu()
    found = np.full(len(margin), "undecided", dtype=object)
    for rank in ranks[decided].unique().tolist():
        here = decided & (ranks == rank)
        code = code_logits(selected_code(num_classes, rank, restarts=2 * restarts, seed=seed))
        is_code = (margin / normalized_margin(code, depth) - 1.0).abs() < SAME
        found[(here & is_code).numpy()] = _kind_of_code(num_classes, rank)
        left = here & ~is_code
        if left.any():
            best = compare(num_classes, rank, [depth], restarts=restarts, seed=seed)[0].margin
            found[left.numpy()] = "lesser critical point"
            found[(left & (margin > best * (1.0 - SAME))).numpy()] = "better than the code"
    return found


def _kind_of_code(num_classes: int, rank: int) -> str:
    if rank == num_classes - 1:
        return "collapse"
    if rank == 2 and num_classes > 4:
        return "polygon"
    return "orthoplex" if num_classes <= 2 * rank else "other softmax code"


guard(globals())
