r"""Logits of rank 2: the least product of their singular values, and the depth from which no higher rank is cheaper.

:math:`\sum\sigma_i^p \ge 2(\sigma_1\sigma_2)^{p/2}` with equality at equal values: at rank 2 whoever has the least
product at margin 1, and equal values, is best at every depth.
"""

import math

import numpy as np
import pandas
import torch
from scipy.optimize import brentq, minimize

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._polish import margin_slopes
from dufm._scaling import check_in_range
from dufm.codes import code_matrix, polygon, separators

__all__ = [
    "corner_descents",
    "corner_gap",
    "image_bound",
    "least_product",
    "polygon_value",
    "product_runs",
    "rank_two_depth",
]


def polygon_value(num_classes: int) -> float:
    r"""The two singular values :math:`s = K/(4\sin^2(\pi/K))` of the regular polygon at margin 1.

    ``DufmError`` for fewer than three classes.
    """
    return check_count("num_classes", num_classes, 3) / (4.0 * math.sin(math.pi / num_classes) ** 2)


def rank_two_depth(num_classes: int) -> float:
    r"""A depth from which on some matrix of rank 2 has the largest normalised margin of all, a float.

    The root L of :math:`2(s^p - 1)\bigl(\sqrt2\,s/(s - 1)\bigr)^p = 1`, p = 2/L, s of :func:`polygon_value`; 2 for
    K = 3, where s = 1.
    """
    s = polygon_value(num_classes)
    if num_classes == 3:
        return 2.0
    return brentq(lambda L: (s ** (2 / L) - 1) * (math.sqrt(2) * s / (s - 1)) ** (2 / L) - 0.5, 1.0, 1e6)


def image_bound(ratio: float, angle: float) -> float:
    r"""Lower bound on :math:`\sigma_1\sigma_2` at margin 1 for three classes, from the shape of the logits.

    :math:`\tfrac12\sum_c d_c^{-2}`, with :math:`d_c` the distances of each vertex from the opposite side in the regular
    triangle of side √2 after a stretch by :math:`\sqrt{\sigma_1/\sigma_2}` along ``angle`` and a shrinking across it.
    ``DufmError`` for a ratio that is not positive, and where the bound leaves the floats.
    """
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    sides = torch.tensor([[0.0, 1.0], [0.75**0.5, 0.5], [0.75**0.5, -0.5]], dtype=torch.float64) @ turn
    # From the squared sides and the area, which stays: the corners of a long triangle have no digits of its heights.
    a, b, c = (2 * sides.square() @ torch.tensor([ratio, 1 / ratio], dtype=torch.float64)).sort().values
    bound = torch.where(c > a + b, 1 / a + 1 / b + c / 3, (a + b + c) / 3) / 2
    check_in_range("ratio: the bound", bound)
    return float(bound)


def least_product(W: np.ndarray, Y: np.ndarray) -> np.ndarray:
    r"""Descend :math:`\log\sigma_1\sigma_2` of logits ``W Yᵀ`` under all margins ≥ 1, by quadratic programs.

    ``W``, ``Y``: ``(K, 2)`` arrays of positive margins :math:`\langle w_c - w_j, y_c\rangle`.  Returns centred logits
    ``(K, K)`` of smallest margin 1: feasible, so that their product bounds the least one from above; NaN where the
    last step has a margin of 0 or less.  Kraft (1988), as in SciPy, begun a second time where it stopped.
    """
    wrong, true = np.nonzero(~np.eye(len(W), dtype=bool))
    if len(W) < 3 or ((W[true] - W[wrong]) * Y[true]).sum(1).min() <= 0:
        raise DufmError("W and Y must be of three or more classes with positive margins")

    def gaps(x: np.ndarray) -> np.ndarray:
        W, Y = x.reshape(2, -1, 2)
        return ((W[true] - W[wrong]) * Y[true]).sum(1) - 1.0

    def slopes(x: np.ndarray) -> np.ndarray:
        W, Y = x.reshape(2, -1, 2)
        return margin_slopes(W, Y, wrong, true).reshape(len(wrong), -1)

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        W, Y = x.reshape(2, -1, 2)
        pull = [X @ np.linalg.inv(X.T @ X) for X in (W - W.mean(0), Y)]
        value = sum(np.linalg.slogdet(X.T @ X)[1] for X in (W - W.mean(0), Y)) / 2.0
        return value, np.stack([pull[0] - pull[0].mean(0), pull[1]]).ravel()

    margins = {"type": "ineq", "fun": gaps, "jac": slopes}
    for _ in range(2):
        U, sigma, Vh = np.linalg.svd((W - W.mean(0)) @ Y.T)
        x = np.stack([U[:, :2], Vh[:2].T]) * np.sqrt(sigma[:2])
        x /= np.sqrt(1.0 + gaps(x.ravel()).min())
        options = {"maxiter": 1000, "ftol": 1e-14}
        x = minimize(cost, x.ravel(), jac=True, constraints=margins, method="SLSQP", options=options).x
        smallest = 1.0 + gaps(x).min()
        W, Y = x.reshape(2, -1, 2)
        if smallest <= 0:
            return np.full((len(W), len(W)), np.nan)
    return (W - W.mean(0)) @ Y.T / smallest


def _start(num_classes: int, stretch: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a random convex polygon, stretched, and features: the shortest for them, made longer at random."""
    while True:
        edges = rng.standard_normal((num_classes, 2)) * rng.uniform(0.1, 1.0, (num_classes, 1)) ** 2
        edges -= edges.mean(0)
        W = np.cumsum(edges[np.argsort(np.arctan2(*edges.T))], 0) @ np.linalg.qr(rng.standard_normal((2, 2)))[0]
        W = torch.from_numpy(W * np.array([stretch, 1.0 / stretch]))
        H, distance = separators(W)
        if distance.min() > 1e-4 * distance.max():
            longer = np.exp(rng.exponential(0.5, (num_classes, 1)))
            return W.numpy(), longer * (H / distance[:, None]).numpy()


def _shape(Z: np.ndarray, unit: float) -> tuple[float, float]:
    """Ratio of the first two singular values, and their product over ``unit``; NaN of NaN."""
    sigma = np.linalg.svd(Z, compute_uv=False) if np.isfinite(Z).all() else np.full(2, np.nan)
    return sigma[0] / sigma[1], sigma[0] * sigma[1] / unit


def _sorted_margins(Z: np.ndarray) -> np.ndarray:
    return np.sort(np.diag(Z) - Z, axis=None)


def product_runs(num_classes: int, runs: int, *, most_stretch: float = 30.0, seed: int = 0) -> pandas.DataFrame:
    r"""Descents of :func:`least_product` from convex polygons of every shape, a DataFrame with a row a run.

    Polygons with edges of random directions and lengths, stretched by 1 … ``most_stretch`` along a random axis and
    shrunk across it; features of random lengths, none too short for margin 1.

    Columns: ``start_ratio`` and ``ratio``, :math:`\sigma_1/\sigma_2` before and after; ``start_product`` and
    ``product``, :math:`\sigma_1\sigma_2` at margin 1 over that of the regular polygon; ``away``, relative distance of
    the end's sorted margins from those of the regular polygon, however its classes are numbered.  NaN: no end.
    ``DufmError`` for fewer than three classes, or no run.
    """
    best = _sorted_margins(code_matrix(polygon(num_classes)).numpy())
    rng = np.random.default_rng(seed)
    rows = []
    for stretch in most_stretch ** rng.uniform(0, 1, runs):
        W, Y = _start(check_count("num_classes", num_classes, 3), stretch, rng)
        start, end = (W - W.mean(0)) @ Y.T, least_product(W, Y)
        shapes = [x for Z in (start, end) for x in _shape(Z, polygon_value(num_classes) ** 2)]
        rows.append((*shapes, np.linalg.norm(_sorted_margins(end) - best) / np.linalg.norm(best)))
    return pandas.DataFrame(rows, columns=["start_ratio", "start_product", "ratio", "product", "away"])


def corner_gap(W: np.ndarray) -> float:
    r"""The inequality on corners of a convex polygon that notebook 29 leaves open: left side less right side.

    ``W``: ``(K, 2)`` corners in counterclockwise order, of mean 0 after centring.  The line from :math:`w_c` through 0
    meets the chord of its neighbours at :math:`\xi_cw_c`; returned is
    :math:`\frac1K\sum_c\operatorname{artanh}\xi_c - \log\cot(\pi/K)`, 0 for the regular polygon, a float; inf where
    the corners are not in convex position.
    """
    W = W - W.mean(0)
    after, before = np.roll(W, -1, 0), np.roll(W, 1, 0)
    beside = _wedge(before, W) + _wedge(W, after)
    across = _wedge(before, after)
    if _wedge(W, after).min() <= 0 or (beside - across).min() <= 0 or (beside + across).min() <= 0:
        return math.inf
    # A star polygon turns left at every corner too, but goes round more than once.
    if np.arctan2(_wedge(W, after), (W * after).sum(1)).sum() > 3 * math.pi:
        return math.inf
    return float(np.arctanh(across / beside).mean() + math.log(math.tan(math.pi / len(W))))


def _wedge(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def corner_descents(num_classes: int, runs: int, *, seed: int = 0) -> pandas.DataFrame:
    """:func:`corner_gap` before and after descents (Broyden, Fletcher, Goldfarb & Shanno) from random convex polygons.

    A DataFrame with columns ``start`` and ``end``, a row a run.  ``DufmError`` for fewer than three classes, or no run.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(runs):
        W = _start(check_count("num_classes", num_classes, 3), 1.0, rng)[0]
        W = W if _wedge(W, np.roll(W, -1, 0)).sum() > 0 else W[::-1]
        with np.errstate(invalid="ignore"):  # a step out of the convex polygons has no finite slope
            found = minimize(lambda x: min(corner_gap(x.reshape(-1, 2)), 1e6), W.ravel(), options={"gtol": 1e-8})
        rows.append((corner_gap(W), found.fun))
    return pandas.DataFrame(rows, columns=["start", "end"])


guard(globals())
