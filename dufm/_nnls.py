"""Non-negative least squares that is checked: SciPy's can stop early on degenerate systems, mostly without a word."""

import numpy as np
import scipy

__all__ = ["nonnegative_least_squares"]


def nonnegative_least_squares(system: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """``argmin_{x ≥ 0} ‖system·x − target‖`` and that norm; falls back to bounded-variable least squares.

    Lawson & Hanson (1974, chapter 23); the check is that the slope is at most 0, and 0 where x is positive, the
    fallback Stark & Parker (1995).
    """
    if not system.shape[1]:  # of which SciPy's frees its memory twice, and the process aborts
        return np.zeros(0), float(np.linalg.norm(target))
    try:
        x = scipy.optimize.nnls(system, target, maxiter=5000)[0]
        slope = system.T @ (target - system @ x)
        wrong = np.where(x > 0, np.abs(slope), slope).max()
    except RuntimeError:  # it did not end
        wrong = np.inf
    if wrong > 1e-9 * np.linalg.norm(system) * np.linalg.norm(target):
        x = scipy.optimize.lsq_linear(system, target, bounds=(0, np.inf), method="bvls", tol=1e-14).x
    return x, float(np.linalg.norm(system @ x - target))
