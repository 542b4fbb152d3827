"""Multi-start search against a loop of SciPy's SLSQP from the same starts, and a softmax code.

``OMP_NUM_THREADS=1 python tests/bench/bench_search.py``; seconds of processor time, one thread.
"""

import time

import numpy as np
import scipy.optimize
import torch

from dufm import softmax_code
from dufm.margin import normalized_margin
from dufm.search import RANK_TOL, _starts, max_margin

CELLS = [(6, 3, 3), (8, 3, 4), (8, 6, 3), (9, 4, 3), (10, 3, 5), (10, 10, 3)]  # K, L, r
RESTARTS = 128


def slsqp(X, depth):
    """γ reached by SLSQP on the two factors: Σσ^p and a balance term, under margins ≥ 1."""
    (K, r), p = X.shape[1:], 2.0 / depth
    own = np.eye(K, dtype=bool)
    wrong, true = np.nonzero(~own)
    count = np.arange(len(wrong))

    def cost(x):
        A, C = x.reshape(2, K, r)
        U, sigma, Vh = np.linalg.svd(A @ C.T)
        U, sigma, Vh = U[:, :r], np.maximum(sigma[:r], 1e-12), Vh[:r]
        pressure = p * (U * sigma ** (p - 1)) @ Vh
        skew = A.T @ A - C.T @ C
        slope = np.stack([pressure @ C + A @ skew, pressure.T @ A - C @ skew])
        return (sigma**p).sum() + 0.25 * (skew**2).sum(), slope.ravel()

    def slack(x):
        A, C = x.reshape(2, K, r)
        return ((A[true] - A[wrong]) * C[true]).sum(1) - 1.0

    def slack_jacobian(x):
        A, C = x.reshape(2, K, r)
        slope = np.zeros((len(wrong), 2, K, r))
        slope[count, 0, true] = C[true]
        slope[count, 0, wrong] = -C[true]
        slope[count, 1, true] = A[true] - A[wrong]
        return slope.reshape(len(wrong), -1)

    smallest = (slack(X.ravel()) + 1.0).min()
    start = X / np.sqrt(smallest) if smallest > 0 else X
    solved = scipy.optimize.minimize(
        cost,
        start.ravel(),
        jac=True,
        method="SLSQP",
        constraints={"type": "ineq", "fun": slack, "jac": slack_jacobian},
        options={"ftol": 1e-12, "maxiter": 300},
    )
    A, C = solved.x.reshape(2, K, r)
    sigma = np.linalg.svd(A @ C.T)[1] if np.isfinite(solved.x).all() else np.zeros(K)
    if sigma[r - 1] <= RANK_TOL * sigma[0]:  # it left the stratum
        return -np.inf
    return float(normalized_margin(torch.from_numpy(A @ C.T), depth))


def main():
    torch.set_num_threads(1)
    max_margin(4, 3, 2)  # warm up
    print(f"{RESTARTS} restarts\n K  L  r   search                SLSQP loop            time ratio")
    for K, depth, rank in CELLS:
        began = time.process_time()
        found = max_margin(K, depth, rank, restarts=RESTARTS)
        search = time.process_time() - began
        starts = _starts(K, rank, RESTARTS, 0, None)[0].numpy()
        began = time.process_time()
        loop = max(slsqp(X, depth) for X in starts)
        seconds = time.process_time() - began
        print(
            f"{K:2} {depth:2} {rank:2}   {found.margin:.8f} {search:6.2f} s   "
            f"{loop:.8f} {seconds:6.2f} s   {seconds / search:6.1f}"
        )
    began = time.process_time()
    code = softmax_code(12, 3)
    print(
        f"softmax_code(12, 3): {time.process_time() - began:.2f} s, "
        f"residual {code.residual:.1e}, angle {code.angle:.6f}°"
    )


if __name__ == "__main__":
    main()
