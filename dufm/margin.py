r"""The margin problem where unregularised flow ends, and certificates for its solutions.

With depth L and ``p = 2/L`` the flow's limits are KKT points of

.. math:: \min \|Z\|_{S_p}^p = \sum_i \sigma_i^p \quad\text{subject to}\quad z_{cc} - z_{jc} \ge 1,\ j \ne c,

which is ``min Σ‖W_l‖²`` under the same constraints written for the product (Lyu & Li 2020; Ji & Telgarsky 2020).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
import torch

from dufm._checks import DufmError, check_count, check_finite_positive, check_logits, check_rank
from dufm._nnls import nonnegative_least_squares
from dufm.metrics import final_rank, margins

__all__ = [
    "Certificate",
    "Polished",
    "closed_form_margin",
    "kkt_certificate",
    "kkt_residual",
    "normalized_margin",
    "polish",
    "schatten",
]

ACTIVE_TOL = 1e-6


def schatten(Z, p):
    r"""Schatten quasi-norm :math:`\|Z\|_{S_p} = (\sum_i\sigma_i^p)^{1/p}`, ``p > 0``, shape ``(...)``.

    Singular values below ``K·eps·σ_1`` count as zero: for small p, rounding noise would dominate the sum.
    """
    check_logits(Z)
    check_finite_positive("p", p)
    sigma = torch.linalg.svdvals(Z)
    top = sigma[..., :1]
    share = sigma / torch.where(top > 0, top, 1.0)
    share = torch.where(share > Z.shape[-2] * torch.finfo(Z.dtype).eps, share**p, 0.0)
    return top.squeeze(-1) * share.sum(-1) ** (1.0 / p)


def normalized_margin(Z, depth):
    r"""Normalised margin :math:`\gamma_L(Z) = \min_{j\ne c}(z_{cc} - z_{jc})/\|Z\|_{S_{2/L}}`, shape ``(...)``.

    Invariant under scaling of ``Z``; the flow's limits are its critical points.  NaN for ``Z = 0``.
    """
    depth = check_count("depth", depth, 2)
    check_logits(Z)
    return margins(Z).amin((-2, -1)) / schatten(Z, 2.0 / depth)


def closed_form_margin(kind, num_classes, depth):
    r"""Normalised margin of a named code, for K classes at depth L.

    ===========  =======================================================  ====================
    ``nc``       :math:`(K-1)^{-L/2}`                                     K ≥ 2
    ``polygon``  :math:`\frac2K(1-\cos\frac{2\pi}K)\,2^{-L/2}`            K ≥ 3, rank 2
    ``orthoplex``  :math:`\frac12(K/2)^{-L/2}`                            K ≥ 4 even, rank K/2
    ``hypercube``  :math:`\frac2K m^{-L/2}`                               K = 2^m ≥ 4, rank m
    ===========  =======================================================  ====================

    All are cases of :math:`(1-\mu)\frac rK r^{-L/2}` for a unit tight frame of rank r and largest cosine μ.
    ``DufmError`` for another kind or a K that the code does not have.
    """
    num_classes = check_count("num_classes", num_classes, 2)
    depth = check_count("depth", depth, 2)
    power = -depth / 2.0
    if kind == "nc":
        return (num_classes - 1.0) ** power
    if kind == "polygon":
        check_count("num_classes", num_classes, 3, why="a polygon needs three vertices")
        return 4.0 / num_classes * math.sin(math.pi / num_classes) ** 2 * 2.0**power
    if kind == "orthoplex":
        if num_classes < 4 or num_classes % 2:
            raise DufmError(f"num_classes must be even and at least 4 for the orthoplex, got {num_classes}")
        return 0.5 * (num_classes / 2.0) ** power
    if kind == "hypercube":
        if num_classes < 4 or num_classes & (num_classes - 1):
            raise DufmError(f"num_classes must be a power of two and at least 4 for the hypercube, got {num_classes}")
        return 2.0 / num_classes * math.log2(num_classes) ** power
    raise DufmError(f"kind must be one of 'nc', 'polygon', 'orthoplex', 'hypercube', got {kind!r}")


# ---------------------------------------------------------------- certificate


@dataclass(frozen=True)
class Certificate:
    """How nearly a matrix, cut to ``rank`` and scaled to margin 1, is a KKT point; arrays of the batch shape.

    ``residual``: relative residual of stationarity; ``gap``: complementarity ``Σλ(margin − 1)/Σσ^p``;
    ``discarded``: ``(..., 2)``, what the cut threw away, ``σ_{r+1}/σ_1`` and ``σ_{r+1}/σ_r``;
    ``active_tol``: margins up to ``1 + active_tol`` were called active; ``rank``;
    ``multipliers`` λ ``(..., K, N)``, class j against sample i.
    A residual alone certifies nothing: read it with ``gap`` and ``discarded``.  KKT is not local optimality.
    """

    residual: torch.Tensor
    gap: torch.Tensor
    discarded: torch.Tensor
    active_tol: float
    rank: torch.Tensor
    multipliers: torch.Tensor

    def holds(self, tol=1e-8):
        """True where residual and gap are both below ``tol``."""
        return (self.residual < tol) & (self.gap.abs() < tol)


def kkt_certificate(Z, depth, rank=None, *, active_tol=ACTIVE_TOL):
    r"""KKT certificate of the margin problem at depth L, on the stratum of exact rank r.

    ``Z`` is cut to ``rank`` (default: :func:`dufm.final_rank`) and scaled to smallest margin 1, giving
    :math:`U_r\Sigma V_r^\top`.  Multipliers λ ≥ 0 on the active margins solve, in least squares,

    .. math:: \Lambda V_r = U_r\Sigma^{p-1},\quad \Lambda^\top U_r = V_r\Sigma^{p-1},\qquad
              \Lambda = \sum\lambda_{jc}(e_c - e_j)e_c^\top,\quad p = 2/L,

    which factor-level stationarity ``W_l = W_{>l}ᵀ Λ W_{<l}ᵀ`` reduces to.  The block of Λ off the range of Z
    never enters.  ``Z``: ``(..., K, N)``.  A matrix whose smallest margin is not positive after the cut has
    residual and gap inf.  Source: Lyu & Li (2020) for the KKT points; the reduction is derived in notebook 03.
    ``DufmError`` for a rank outside 1 … K − 1.
    """
    depth = check_count("depth", depth, 2)
    num_classes, _ = check_logits(Z)
    check_finite_positive("active_tol", active_tol)
    rank = final_rank(Z) if rank is None else check_rank(rank, Z)
    flat = Z.detach().reshape(-1, *Z.shape[-2:]).cpu().double().numpy()
    ranks = rank.reshape(-1).cpu().numpy()
    parts = [_certify(matrix, depth, int(r), active_tol) for matrix, r in zip(flat, ranks, strict=True)]
    shape = Z.shape[:-2]
    stacked = [Z.new_tensor(np.array(column)) for column in zip(*parts, strict=True)]
    residual, gap, discarded, multipliers = (column.reshape((*shape, *column.shape[1:])) for column in stacked)
    return Certificate(residual, gap, discarded, active_tol, rank, multipliers)


def kkt_residual(Z, depth, rank=None):
    """First number of :func:`kkt_certificate`; it says nothing about what was cut away."""
    return kkt_certificate(Z, depth, rank).residual


def _cut(Z, rank):
    """``U, σ, Vᵀ`` of Z cut to ``rank`` and scaled to smallest margin 1 (None if it has none), and what was cut."""
    U, sigma, Vh = np.linalg.svd(Z, full_matrices=False)
    dropped = sigma[rank]
    discarded = (
        np.array([dropped / sigma[0], dropped / sigma[rank - 1]]) if rank and sigma[rank - 1] else np.full(2, np.nan)
    )
    U, sigma, Vh = U[:, :rank], sigma[:rank], Vh[:rank]
    smallest = _margins((U * sigma) @ Vh).min()
    return (U, sigma / smallest, Vh) if smallest > 0 else None, discarded


def _certify(Z, depth, rank, active_tol):
    multipliers = np.zeros(Z.shape)
    factors, discarded = _cut(Z, rank)
    if factors is None:
        return np.inf, np.inf, discarded, multipliers
    U, sigma, Vh = factors
    slack = _margins((U * sigma) @ Vh) - 1.0
    wrong, sample = np.nonzero(slack <= active_tol)
    true = _true_class(Z.shape)[sample]
    p = 2.0 / depth
    # Column (j, i): Λ = (e_c − e_j) e_iᵀ, so ΛV = (e_c − e_j) V_i and ΛᵀU = e_i (U_c − U_j).
    count = np.arange(len(wrong))
    left = np.zeros((Z.shape[0], rank, len(wrong)))
    left[true, :, count] += Vh.T[sample]
    left[wrong, :, count] -= Vh.T[sample]
    right = np.zeros((Z.shape[1], rank, len(wrong)))
    right[sample, :, count] = U[true] - U[wrong]
    system = np.concatenate([left.reshape(-1, len(wrong)), right.reshape(-1, len(wrong))])
    target = np.concatenate([(U * sigma ** (p - 1)).ravel(), (Vh.T * sigma ** (p - 1)).ravel()])
    solution, residual = nonnegative_least_squares(system, target)
    multipliers[wrong, sample] = solution
    gap = float(solution @ slack[wrong, sample]) / float((sigma**p).sum())
    return residual / np.linalg.norm(target), gap, discarded, multipliers


def _true_class(shape):
    return np.repeat(np.arange(shape[0]), shape[1] // shape[0])


def _margins(Z):
    """Margins as :func:`dufm.margins`, of one NumPy matrix."""
    true, columns = _true_class(Z.shape), np.arange(Z.shape[1])
    gap = Z[true, columns] - Z
    gap[true, columns] = np.inf
    return gap


# ---------------------------------------------------------------- polish

DECIDED_TOL = 1e-8
DECIDED_MOVE = 0.1
_NEWTON_STEPS = 2


@dataclass(frozen=True)
class Polished:
    """Solutions at fixed rank, one a network; arrays of the batch shape.

    ``Z`` ``(..., K, N)`` of smallest margin 1 (NaN where the cut matrix separates nothing); ``certificate`` of
    that matrix, its ``discarded`` that of the start; ``moved`` ``‖Z − Z_cut‖_F/‖Z_cut‖_F``; ``decided``: residual and
    gap below 1e-8 and moved by at most a tenth, else the run is *undecided*.
    """

    Z: torch.Tensor
    certificate: Certificate
    moved: torch.Tensor
    decided: torch.Tensor


def polish(Z, depth, rank=None):
    r"""Solve the margin problem at fixed rank from a flow's end, to certificate accuracy.

    ``Z`` ``(..., K, N)`` is cut to ``rank`` (default: :func:`dufm.final_rank`) and scaled to margin 1; SciPy's
    SLSQP then minimises ``Σσ^{2/L}`` over the two factors of the cut, and Newton's method on the stationarity
    conditions takes the last digits.  The flow's own residual falls only like (log t)^{−1/L}: a polish is needed.
    Returns :class:`Polished`; errors as :func:`kkt_certificate`.
    """
    depth = check_count("depth", depth, 2)
    check_logits(Z)
    ranks = final_rank(Z) if rank is None else check_rank(rank, Z)
    flat = Z.detach().reshape(-1, *Z.shape[-2:]).cpu().double().numpy()
    solved, moved, discarded = [], [], []
    for matrix, r in zip(flat, ranks.reshape(-1).tolist(), strict=True):
        factors, dropped = _cut(matrix, r)
        discarded.append(dropped)
        if factors is None:
            solved.append(np.full_like(matrix, np.nan))
            moved.append(np.inf)
            continue
        U, sigma, Vh = factors
        start = (U * sigma) @ Vh
        end = _solve(U * np.sqrt(sigma), np.sqrt(sigma)[:, None] * Vh, 2.0 / depth)
        smallest = _margins(end).min()
        solved.append(end / smallest if smallest > 0 else np.full_like(end, np.nan))
        moved.append(np.linalg.norm(solved[-1] - start) / np.linalg.norm(start) if smallest > 0 else np.inf)
    solution = Z.new_tensor(np.array(solved)).reshape(Z.shape)
    moved = Z.new_tensor(moved).reshape(Z.shape[:-2])
    # A run that separates nothing after the cut has no solution to certify; zeros keep it out of the SVD.
    certificate = kkt_certificate(solution.nan_to_num(), depth, ranks)
    certificate = replace(certificate, discarded=Z.new_tensor(np.array(discarded)).reshape((*Z.shape[:-2], 2)))
    decided = certificate.holds(DECIDED_TOL) & (moved <= DECIDED_MOVE)
    return Polished(solution, certificate, moved, decided)


def _solve(A, B, p):
    """Local minimiser of Σσ(AB)^p under margins ≥ 1, from the factors A (K, r) and B (r, N)."""
    rows, rank = A.shape
    columns = B.shape[1]
    true = _true_class((rows, columns))
    wrong, sample = np.nonzero(np.arange(rows)[:, None] != true)

    def unpack(x):
        return x[: rows * rank].reshape(rows, rank), x[rows * rank :].reshape(rank, columns)

    def cost(x):
        A, B = unpack(x)
        U, sigma, Vh = np.linalg.svd(A @ B, full_matrices=False)
        # The floor keeps the slope finite where the search passes a matrix of lower rank.
        U, sigma, Vh = U[:, :rank], np.maximum(sigma[:rank], 1e-12 * sigma[0]), Vh[:rank]
        slope = p * (U * sigma ** (p - 1)) @ Vh
        # The balance term fixes the gauge A → AG, B → G⁻¹B and vanishes at the solution.
        skew = A.T @ A - B @ B.T
        value = (sigma**p).sum() + 0.25 * (skew**2).sum()
        return value, np.concatenate([(slope @ B.T + A @ skew).ravel(), (A.T @ slope - skew @ B).ravel()])

    def slack(x):
        A, B = unpack(x)
        Z = A @ B
        return Z[true[sample], sample] - Z[wrong, sample] - 1.0

    count = np.arange(len(wrong))

    def slack_jacobian(x):
        A, B = unpack(x)
        by_A = np.zeros((len(wrong), rows, rank))
        by_B = np.zeros((len(wrong), rank, columns))
        by_A[count, true[sample]] += B.T[sample]
        by_A[count, wrong] -= B.T[sample]
        by_B[count, :, sample] = A[true[sample]] - A[wrong]
        return np.concatenate([by_A.reshape(len(wrong), -1), by_B.reshape(len(wrong), -1)], axis=1)

    start = np.concatenate([A.ravel(), B.ravel()])
    # Without a box the concave cost can throw the line search to another solution, or to infinity.
    box = 0.5 * np.abs(start).max()
    x = scipy.optimize.minimize(
        cost,
        start,
        jac=True,
        method="SLSQP",
        bounds=scipy.optimize.Bounds(start - box, start + box),
        constraints={"type": "ineq", "fun": slack, "jac": slack_jacobian},
        options={"ftol": 1e-15, "maxiter": 150},
    ).x
    active = slack(x) < 1e-5
    multipliers = np.linalg.lstsq(slack_jacobian(x)[active].T, cost(x)[1], rcond=None)[0]

    def conditions(x, multipliers):
        return np.concatenate([cost(x)[1] - slack_jacobian(x)[active].T @ multipliers, slack(x)[active]])

    for _ in range(_NEWTON_STEPS):
        # A differenced Hessian: exact to ~1e-9, which Newton only feels as a linear rate of that size.
        step = 1e-6 * np.abs(x).max()
        hessian = [
            conditions(x + step * e, multipliers) - conditions(x - step * e, multipliers) for e in np.eye(len(x))
        ]
        lagrange = np.vstack([-slack_jacobian(x)[active].T, np.zeros((active.sum(), active.sum()))])
        system = np.hstack([np.array(hessian).T / (2 * step), lagrange])
        # Least squares: the orthogonal gauge and redundant constraints leave null directions.
        change = np.linalg.lstsq(system, -conditions(x, multipliers), rcond=1e-9)[0]
        trial = x + change[: len(x)], multipliers + change[len(x) :]
        if not np.linalg.norm(conditions(*trial)) < np.linalg.norm(conditions(x, multipliers)):
            break
        x, multipliers = trial
    A, B = unpack(x)
    return A @ B
