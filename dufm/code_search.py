r"""Multi-start search for softmax codes: K unit vectors in R^d, each as far as possible from the hull of the others."""

from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from dufm._climb import BETA, climb, random_codes, soft_margin
from dufm._door import guard
from dufm._error import DufmError
from dufm._nnls import nonnegative_least_squares
from dufm._polish import margin_slopes
from dufm.codes import one_vs_rest_margin, separators, smallest_angle
from dufm.metrics import margins

__all__ = ["SoftmaxCode", "softmax_code", "unit_norm_margins"]

STEPS = 600
LATE = 0.4
AGREE_TOL = 1e-4
RESIDUAL_TOL = 1e-8
ACTIVE_TOL = 1e-7
CANDIDATES = 8
POLISHES, POLISH_STEPS = 3, 200
GAIN = 0.02  # more than polishing has added to a climb's end
NEAR = 0.25


@dataclass(frozen=True)
class SoftmaxCode:
    """A softmax code.

    ``vectors`` ``(K, d)``, unit rows, float64; ``margin`` their one-vs-rest margin; ``angle`` the smallest angle in
    degrees; ``residual`` of the KKT conditions, complementarity included; ``agree`` of ``restarts`` climbs ended at
    this value within 1e-4.  A search finds good codes, it does not exclude better ones.

    Units: none, and degrees.  Source: Jiang et al. (2024).

    >>> code = dufm.softmax_code(4, 2, restarts=8)
    >>> round(code.angle, 2), code.residual < 1e-8
    (90.0, True)
    """

    vectors: torch.Tensor
    margin: float
    angle: float
    residual: float
    agree: int
    restarts: int


def softmax_code(num_classes: int, dim: int, *, restarts: int = 128, seed: int = 0) -> SoftmaxCode:
    r"""Softmax code: K unit vectors in R^d that maximise the one-vs-rest margin,

    .. math:: \max_{\|w_k\| = 1} \min_k \operatorname{dist}(w_k, \operatorname{conv}\{w_j : j \ne k\})
              = \max_{\|w_k\| = \|h_k\| = 1} \min_{j\ne k} \langle w_k - w_j, h_k\rangle .

    The search is for h = w, where the right-hand side is ``1 − cos θ`` of the smallest angle θ: a stationary spherical
    code is stationary for the softmax problem too, and climbs with h free have found no larger value.  Random codes
    climb in one batch, some from the middle of the smoothing schedule, since early smoothing leads all to the same few
    optima; SciPy's SLSQP takes the best distinct ends to KKT accuracy.  The value is K/(K − 1) for K ≤ d + 1 (simplex
    ETF) and 1 for d + 2 ≤ K ≤ 2d (orthoplex, for one), where the code is often not unique.  Returns
    :class:`SoftmaxCode`.

    Shapes: the code is ``(K, d)``.  Units: none.  Raises: ``DufmError`` for K < 2, d < 2, or where no restart reached a
    KKT residual of 1e-8.  Source: Jiang et al. (2024) for the definition, the search this companion's, notebook 32.

    >>> code = dufm.softmax_code(5, 3, restarts=8)
    >>> round(code.margin, 4), code.vectors.shape
    (1.0, torch.Size([5, 3]))
    """
    W = random_codes(restarts, num_classes, dim, seed)
    begin = torch.linspace(0.0, LATE, restarts, dtype=W.dtype)
    X = climb(torch.stack([W, W], 1), _unit, _tangent, steps=STEPS, begin=begin)  # A = C stays so: Z is symmetric
    value = soft_margin(X, BETA[1])[0]
    found = _best_code(X[:, 0], value)
    if found is None:
        raise DufmError(
            f"no restart reached a KKT residual of {RESIDUAL_TOL:g} for num_classes = {num_classes}, dim = {dim}, "
            f"restarts = {restarts}, seed = {seed}; ask for more restarts, or another seed"
        )
    vectors, best, residual = found
    agree = int(((value / best - 1.0).abs() < AGREE_TOL).sum())
    return SoftmaxCode(vectors, best, float(smallest_angle(vectors)), residual, agree, restarts)


def unit_norm_margins(num_classes: int, dim: int, *, networks: int = 64, seed: int = 0) -> Tensor:
    r"""Smallest margins :math:`\min_{j\ne k}\langle w_k - w_j, h_k\rangle` ``(networks,)`` that random networks reach
    when every row of the classifier and every feature is kept at length 1.

    Independent Gaussian directions for both ascend the soft margin while its sharpness grows, which is training with
    the inverse temperature raised; nothing ties h to w.  The last sharpness leaves a margin up to 1e-3 below its limit.
    ``DufmError``: K < 2, d < 2.
    """
    shape = networks, num_classes, dim
    W, H = climb(
        torch.stack([random_codes(*shape, 2 * seed), random_codes(*shape, 2 * seed + 1)], 1),
        _unit,
        _tangent,
        steps=STEPS,
    ).unbind(1)
    return margins(W @ H.mT).amin((-2, -1))


def _unit(X: Tensor) -> Tensor:
    return X / X.norm(dim=-1, keepdim=True)


def _tangent(X: Tensor, value: Tensor, push: Tensor, share: Tensor) -> Tensor:
    return push - (push * X).sum(-1, keepdim=True) * X


def _best_code(codes: Tensor, value: Tensor) -> tuple[Tensor, float, float] | None:
    """The best polished code of the best distinct ends, its margin and residual; None if none is a KKT point."""
    best, left = None, torch.ones(len(codes), dtype=torch.bool)
    for _ in range(CANDIDATES):
        if not left.any():
            break
        top = torch.where(left, value, -torch.inf).argmax()
        if best is not None and value[top] < best[1] * (1.0 - GAIN):
            break
        left[top] = False
        W, residual, polishes = codes[top].numpy(), np.inf, 0
        while residual >= RESIDUAL_TOL and polishes < POLISHES:  # it may stop short, and goes on from there
            W = _slsqp(W)
            residual, polishes = _code_residual(W), polishes + 1
        if residual < RESIDUAL_TOL:
            left &= (value / value[top] - 1.0).abs() > AGREE_TOL
            margin = float(one_vs_rest_margin(torch.from_numpy(W)))
            if best is None or margin > best[1]:
                best = torch.from_numpy(W), margin, residual
    return best


def _slsqp(W: np.ndarray) -> np.ndarray:
    """Local maximiser of the smallest angle from a climb's end: t under ``⟨w_i, w_j⟩ ≤ 1 − t``, in ``x = (W, t)``."""
    shape, cosine = W.shape, W @ W.T - 4.0 * np.tri(len(W))
    first, second = np.nonzero(cosine > cosine.max() - NEAR)
    count = np.arange(len(first))

    def slack(x: np.ndarray) -> np.ndarray:
        W = x[:-1].reshape(shape)
        return 1.0 - x[-1] - (W[first] * W[second]).sum(1)

    def slack_jacobian(x: np.ndarray) -> np.ndarray:
        W = x[:-1].reshape(shape)
        slope = np.zeros((len(first), *shape))
        slope[count, first], slope[count, second] = -W[second], -W[first]
        return np.hstack([slope.reshape(len(first), -1), np.full((len(first), 1), -1.0)])

    def length(x: np.ndarray) -> np.ndarray:
        return (x[:-1].reshape(shape) ** 2).sum(1) / 2.0 - 0.5

    def length_jacobian(x: np.ndarray) -> np.ndarray:
        return np.hstack([scipy.linalg.block_diag(*x[:-1].reshape(shape)), np.zeros((len(W), 1))])

    up = np.append(np.zeros(W.size), -1.0)
    solution = scipy.optimize.minimize(
        lambda x: -x[-1],
        np.append(W, 1.0 - cosine.max()),
        jac=lambda x: up,
        method="SLSQP",
        constraints=[
            {"type": "ineq", "fun": slack, "jac": slack_jacobian},
            {"type": "eq", "fun": length, "jac": length_jacobian},
        ],
        options={"ftol": 1e-16, "maxiter": POLISH_STEPS},
    )
    W = solution.x[:-1].reshape(shape)
    return W / np.linalg.norm(W, axis=1, keepdims=True)


def _code_residual(W: np.ndarray) -> float:
    """Residual of the KKT conditions for unit W and the best h: stationarity or complementarity, the larger."""
    H, distance = (part.numpy() for part in separators(torch.from_numpy(W)))
    margin = (W * H).sum(1)[None] - W @ H.T + 4.0 * np.eye(len(W))
    slack = margin - distance.min()
    wrong, true = np.nonzero(slack < ACTIVE_TOL)
    points = np.concatenate([W, H])
    slope = margin_slopes(W, H, wrong, true)  # less what would change the lengths
    slope -= (slope * points).sum(-1, keepdims=True) * points
    system = np.vstack([slope.reshape(len(wrong), -1).T, np.ones(len(wrong))])  # multipliers sum to 1
    multipliers, residual = nonnegative_least_squares(system, np.append(np.zeros(2 * W.size), 1.0))
    return max(float(residual), float(multipliers @ slack[wrong, true]))


guard(globals())
