"""Intervals, and numbers in words: what a notebook says about a share, a mean, or a number at rounding level."""

import math

import numpy as np
from scipy.stats import binomtest, spearmanr, t

from dufm._error import DufmError
from dufm.companion.words import number

__all__ = ["below", "falling", "mean", "mean_interval", "paired", "share", "unpaired", "wilson", "within_slope"]


def wilson(hits, total):
    """95% interval ``(low, high)`` of Wilson (1927) for ``hits`` of ``total`` runs; NaN of none, meeting no claim."""
    if not 0 <= hits <= total:
        raise DufmError(f"hits must be between 0 and total, got {hits} of {total}")
    if not total:
        return math.nan, math.nan
    interval = binomtest(int(hits), int(total)).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def share(hits, total, digits=2):
    """``hits`` of ``total`` as a share with its interval, ``0.53 [0.36, 0.69]``."""
    low, high = wilson(hits, total)
    middle = hits / total if total else math.nan
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def paired(gained, lost, total):
    """95% interval ``(low, high)`` of Agresti & Min (2005) for the change of a share.

    The same ``total`` runs before and after; numbers or arrays.  Half a run is added to each cell of the table.
    """
    n, gain, loss = np.asarray(total) + 2, np.asarray(gained) + 0.5, np.asarray(lost) + 0.5
    half = 1.959964 * np.sqrt(gain + loss - (gain - loss) ** 2 / n) / n
    return (gain - loss) / n - half, (gain - loss) / n + half


def unpaired(hits, totals):
    """95% interval ``(low, high)`` of Newcombe (1998) for the first less the second of two shares of other runs each.

    ``hits``, ``totals``: two numbers each.  The ends of the two intervals of :func:`wilson`, combined in squares.
    """
    (low, high), (other_low, other_high) = map(wilson, hits, totals)
    first, second = (hit / total for hit, total in zip(hits, totals, strict=True))
    down, up = math.hypot(first - low, other_high - second), math.hypot(high - first, second - other_low)
    return first - second - down, first - second + up


def mean_interval(values):
    r"""Mean and 95% interval ``(mean, low, high)``, :math:`\bar x \pm t_{n-1}\,s/\sqrt n` (Student 1908).

    What there is not, the ends for one value and all three for none, is NaN, which meets no claim.
    """
    values = np.asarray(values, dtype=float).ravel()
    if not np.isfinite(values).all():
        raise DufmError(f"values must be finite numbers, got {values}")
    middle = float(values.mean()) if values.size else math.nan
    if values.size < 2:
        return middle, math.nan, math.nan
    half = float(t.ppf(0.975, values.size - 1) * values.std(ddof=1) / math.sqrt(values.size))
    return middle, middle - half, middle + half


def mean(values, digits=2):
    """The mean of ``values`` with its interval, ``8.25 [8.17, 8.32]``; no negative zero."""
    middle, low, high = (round(x, digits) + 0.0 for x in mean_interval(values))
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def falling(x, y):
    """Spearman's correlation of y with x and the probability of one as low by chance; NaN where x or y is constant."""
    if min(len(np.unique(x)), len(np.unique(y))) < 2:
        return math.nan, math.nan
    return tuple(float(found) for found in spearmanr(x, y, alternative="less"))


def within_slope(x, y, groups):
    """Slope of y on x with a constant of its own for every group, and both ends of its 95% interval.

    ``groups``: a label a row.  Least squares; the error allows any dependence inside a group and none between groups.
    ``x`` ``(n,)`` or ``(n, p)``; three numbers, or three arrays of p.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    member = np.unique(np.asarray(groups), return_inverse=True)[1]
    share = np.eye(member.max() + 1)[member]
    parts = (x.reshape(len(y), -1), y[:, None])
    columns, y = (part - share @ (share.T @ part / share.sum(0)[:, None]) for part in parts)
    inverse = np.linalg.inv(columns.T @ columns)
    found = inverse @ columns.T @ y
    scores = inverse @ (columns * (y - columns @ found)).T @ share
    half = 1.96 * np.sqrt((scores**2).sum(1))
    return tuple(part.reshape(x.shape[1:]) for part in (found[:, 0], found[:, 0] - half, found[:, 0] + half))


def below(value, bound):
    """``"below 1e-9"`` where ``|value| < bound``, else the value with two digits: rounding noise is no number."""
    return f"below {number(bound)}" if abs(float(value)) < bound else f"{float(value):.2g}"
