r"""Newton's method for the margin problem on matrices of exact rank r, in a batch; multipliers; SciPy's SLSQP.

A neighbour of :math:`Z = U\Sigma V^\top` of the same rank has, in full frames :math:`(U, U_\perp)` of the centred
columns and :math:`(V, V_\perp)` of the samples, the blocks :math:`\Sigma + M,\ Q;\ P,\ P\Sigma^{-1}Q`.  With
:math:`\varphi(\sigma) = \sigma^p/p` and multipliers Λ, the Lagrangian is to second order

.. math:: \sum_i\varphi'_iM_{ii} - \langle\Lambda, \text{blocks}\rangle
          + \tfrac12\sum_{ij}\Bigl[\tfrac{\varphi'_i - \varphi'_j}{\sigma_i - \sigma_j}\bigl(\tfrac{M_{ij} + M_{ji}}2
          \bigr)^2 + \tfrac{\varphi'_i + \varphi'_j}{\sigma_i + \sigma_j}\bigl(\tfrac{M_{ij} - M_{ji}}2\bigr)^2\Bigr]
          + \sum_i\tfrac{\varphi'_i}{2\sigma_i}\bigl(|P_i|^2 + |Q_i|^2\bigr) :

no differences, no gauge of a factorisation to fix.  Arrays ``(B, ...)``; margins and multipliers ``(B, (K − 1)N)`` in
the order of :func:`pairs`; one rank a call.
"""

from collections.abc import Sequence

import numpy as np
import scipy
import torch
from torch import Tensor

from dufm._nnls import nonnegative_least_squares

__all__ = [
    "cut",
    "frames",
    "least_multipliers",
    "margin_slopes",
    "newton",
    "pair_margins",
    "pairs",
    "slsqp",
    "spread",
]

NEWTON_STEPS = 12
CONVERGED = 1e-12
REACH = 0.3  # longest step, against ‖Z‖
PROXIMAL = 1e-9
FLOOR = 1e-9  # of σ/σ_1, where a step has left the stratum
PIVOTS = 12
RIDGE = 1e-7
REFINEMENTS = 6
NEGATIVE = 1e-9


def pairs(num_classes: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """Wrong class, true class and sample of every margin."""
    true = torch.arange(num_classes).repeat_interleave(columns // num_classes)
    wrong, sample = (torch.arange(num_classes).unsqueeze(-1) != true).nonzero().T
    return wrong, true[sample], sample


def pair_margins(Z: Tensor) -> Tensor:
    """Margins of ``(B, K, N)``; also, of the slope in Z, the slope in the multipliers."""
    wrong, true, sample = pairs(*Z.shape[-2:])
    return Z[..., true, sample] - Z[..., wrong, sample]


def spread(multipliers: Tensor, shape: Sequence[int]) -> Tensor:
    """``Λ = Σλ_ji (e_c − e_j) e_iᵀ``, the adjoint of :func:`pair_margins`."""
    wrong, true, sample = pairs(*shape)
    pull = multipliers.new_zeros(*multipliers.shape[:-1], *shape)
    pull[..., wrong, sample] = -multipliers
    pull[..., true, sample] = -pull.sum(-2)[..., sample]
    return pull


def margin_slopes(
    A: np.ndarray, B: np.ndarray, wrong: np.ndarray, true: np.ndarray, sample: np.ndarray | None = None
) -> np.ndarray:
    r"""Slopes of the margins :math:`\langle a_c - a_j, b_i\rangle` of ``Z = A Bᵀ`` in both factors, one row a margin.

    ``A`` ``(K, r)``, ``B`` ``(N, r)``, NumPy; ``wrong`` j, ``true`` c and ``sample`` i (default c) index ``(n,)``
    margins.  ``(n, K + N, r)``: :math:`b_i` at row c, :math:`-b_i` at row j, :math:`a_c - a_j` at row K + i, else 0.
    """
    sample = true if sample is None else sample
    count = np.arange(len(wrong))
    slopes = np.zeros((len(wrong), len(A) + len(B), A.shape[1]))
    slopes[count, true] = B[sample]
    slopes[count, wrong] = -B[sample]
    slopes[count, len(A) + sample] = A[true] - A[wrong]
    return slopes


def frames(Z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Full frames of Z, centred: ``U (B, K, K − 1)``, singular values ``(B, K − 1)``, ``V (B, N, N)``."""
    num_classes = Z.shape[-2]
    ones = torch.ones(num_classes, 1, dtype=Z.dtype)
    # Centred vectors from the start: the SVD alone would mix the constant one into the null space.
    basis = torch.linalg.qr(torch.cat([ones, torch.eye(num_classes, dtype=Z.dtype)[:, 1:]], 1))[0][:, 1:]
    U, sigma, Vh = torch.linalg.svd(basis.mT @ Z)
    return basis @ U, sigma, Vh.mT


def cut(Z: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """Z centred, cut to ``rank`` and scaled to smallest margin 1; that margin before; the pair of discarded ratios."""
    U, sigma, V = frames(Z)
    low = (U[..., :rank] * sigma[:, None, :rank]) @ V[..., :rank].mT
    smallest = pair_margins(low).amin(-1)
    kept = sigma[:, [0, rank - 1]] if rank else torch.zeros_like(sigma[:, :1]).expand(-1, 2)
    dropped = torch.cat([sigma, torch.zeros_like(sigma[:, :1])], 1)[:, rank : rank + 1]
    noise = Z.shape[-2] * torch.finfo(Z.dtype).eps * sigma[:, :1]
    discarded = torch.where(kept[:, 1:] > noise, dropped / kept, torch.nan)
    return low / torch.where(smallest > 0, smallest, 1.0).view(-1, 1, 1), smallest, discarded


def _compress(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Indices ``(B, n)`` with the true entries of ``mask`` first, n the most of any row; which of them are true."""
    width = max(1, int(mask.sum(-1).max()))
    order = mask.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :width]
    return order, mask.gather(1, order)


# ---------------------------------------------------------------- multipliers


def least_multipliers(U: Tensor, sigma: Tensor, V: Tensor, active: Tensor, p: float) -> tuple[Tensor, Tensor]:
    r"""Multipliers λ ≥ 0 on ``active``, least squares of ``ΛV = UΣ^{p−1}, ΛᵀU = VΣ^{p−1}``; the relative residual.

    Block principal pivoting (Portugal, Júdice & Vicente 1994) on the normal equations with a vanishing ridge, which
    picks the solution of least norm.  Where that cycles, SciPy with the ridge says which are positive; where even so
    the optimality conditions fail, SciPy's solution without it stands, which need not be of least norm.
    """
    shape = U.shape[-2], V.shape[-2]
    wrong, true, sample = pairs(*shape)
    order, live = _compress(active)
    steep = sigma.unsqueeze(-2) ** (p - 1.0)
    raised = (torch.eye(shape[0], dtype=U.dtype)[true] - torch.eye(shape[0], dtype=U.dtype)[wrong])[order]
    seen = torch.eye(shape[1], dtype=U.dtype)[sample][order]
    rows, columns = raised @ U, seen @ V
    gram = (raised @ raised.mT) * (columns @ columns.mT) + (seen @ seen.mT) * (rows @ rows.mT)
    size = gram.diagonal(dim1=-2, dim2=-1).amax(-1, keepdim=True)

    def misfit(x: Tensor) -> tuple[Tensor, Tensor]:
        pull = spread(torch.zeros(active.shape, dtype=U.dtype).scatter(1, order, x), shape)
        return U * steep - pull @ V, V * steep - pull.mT @ U

    def slope(x: Tensor) -> Tensor:
        left, right = misfit(x)
        return pair_margins(left @ V.mT + U @ right.mT).gather(1, order) * live

    def factor(free: Tensor) -> tuple[Tensor, Tensor]:
        inside = free.to(U.dtype)
        system = gram * inside.unsqueeze(-1) * inside.unsqueeze(-2)
        system.diagonal(dim1=-2, dim2=-1).add_(size * (1.0 + RIDGE - inside))
        return inside, torch.linalg.cholesky_ex(system)[0]

    def solve(inside: Tensor, lower: Tensor, right: Tensor) -> Tensor:
        return torch.cholesky_solve((right * inside).unsqueeze(-1), lower).squeeze(-1)

    target = (2.0 * sigma ** (2.0 * (p - 1.0))).sum(-1).sqrt()
    width = (gram.diagonal(dim1=-2, dim2=-1) * live).sum(-1).sqrt()

    def finish(free: Tensor) -> tuple[Tensor, Tensor]:
        """Least-norm solution on ``free`` and whether it is the optimum: the conditions that SciPy's has to meet."""
        system = factor(free)
        x = solve(*system, up)
        for _ in range(REFINEMENTS):
            x = x + solve(*system, slope(x))  # takes the ridge out again
        x = x.clamp(min=0.0) * live
        uphill = slope(x)
        return x, torch.where(x > 0, uphill.abs(), uphill).amax(-1) <= NEGATIVE * width * target

    def scipy_solution(i: int, ridge: float | Tensor) -> Tensor:
        system = torch.cat([raised[i, :, :, None] * columns[i, :, None], seen[i, :, :, None] * rows[i, :, None]], 1)
        system = system[live[i]].flatten(1).T
        wish = torch.cat([U[i] * steep[i], V[i] * steep[i]]).flatten()
        system = torch.cat([system, ridge * torch.eye(system.shape[1], dtype=U.dtype)])
        wish = torch.cat([wish, wish.new_zeros(system.shape[1])])
        solved = nonnegative_least_squares(system.numpy(), wish.numpy())[0]
        return torch.zeros_like(up[i]).masked_scatter(live[i], torch.from_numpy(solved).to(up))

    up = slope(torch.zeros(order.shape, dtype=U.dtype))
    free = live.clone()
    for _ in range(PIVOTS):
        x = solve(*factor(free), up)
        left = up - (gram @ x.unsqueeze(-1)).squeeze(-1)
        wanted = live & ~free & (left > NEGATIVE * up.abs().amax(-1, keepdim=True))
        refused = free & (x < -NEGATIVE * x.abs().amax(-1, keepdim=True))
        if not (wanted | refused).any():
            break
        free = (free & ~refused) | wanted
    x, optimal = finish(free)
    if not optimal.all():
        for i in (~optimal).nonzero().squeeze(-1).tolist():
            free[i] = scipy_solution(i, (RIDGE * size[i]).sqrt()) > 0
        x, optimal = finish(free)
    for i in (~optimal).nonzero().squeeze(-1).tolist():
        x[i] = scipy_solution(i, 0.0)
    left, right = misfit(x)
    residual = (left.square().sum((-2, -1)) + right.square().sum((-2, -1))).sqrt() / target
    return torch.zeros(active.shape, dtype=U.dtype).scatter(1, order, x), residual


# ---------------------------------------------------------------- Newton


def newton(Z: Tensor, rank: int, p: float, active: Tensor) -> Tensor:
    """Newton's method on stationarity and on ``margin = 1`` over ``active``, from Z of smallest margin 1.

    A margin whose multiplier turns negative is let go, one that falls below 1 is taken in.  Both blocks of the system
    carry a small proximal term, since redundant margins and flat directions leave it singular.  Promises nothing: the
    caller certifies what it returns.
    """
    Z, active = Z.clone(), active.clone()
    going = torch.arange(len(Z))
    for _ in range(NEWTON_STEPS):
        Z[going], active[going], length = _newton_step(Z[going], rank, p, active[going])
        going = going[~(length < CONVERGED)]
        if not len(going):
            break
    return Z


def _newton_step(Z: Tensor, rank: int, p: float, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The next matrix, the next active margins, and the length of the step before it is cut to ``REACH``."""
    shape = Z.shape[-2:]
    wrong, true, sample = pairs(*shape)
    U, sigma, V = frames(Z)
    unit = sigma[:, :1]
    sigma = (sigma / unit)[:, :rank].clamp(min=FLOOR)
    slack = pair_margins((U[..., :rank] * sigma.unsqueeze(-2)) @ V[..., :rank].mT) - 1.0 / unit
    multipliers = least_multipliers(U[..., :rank], sigma, V[..., :rank], active, p)[0]
    hessian, slope, tangent = _lagrangian(U, sigma, V, spread(multipliers, shape), p)
    order, live = _compress(active)
    network = torch.arange(len(Z)).unsqueeze(-1)
    rows, columns = U[network, true[order]] - U[network, wrong[order]], V[network, sample[order]]
    slopes = (rows.unsqueeze(-1) * columns.unsqueeze(-2))[..., tangent] * live.unsqueeze(-1)
    change, pressed = _saddle(hessian, slope, slopes, slack.gather(1, order), multipliers.gather(1, order), live)
    length = torch.linalg.vector_norm(change, dim=-1)
    reach = REACH * torch.linalg.vector_norm(sigma, dim=-1)
    change = change * (reach / length.clamp(min=CONVERGED)).clamp(max=1.0).unsqueeze(-1)
    change = torch.where(length.isfinite().unsqueeze(-1), change, 0.0)
    Z = unit.unsqueeze(-1) * U @ _blocks(sigma, change, tangent) @ V.mT
    pressed = torch.zeros_like(slack).scatter(1, order, pressed)
    # Of redundant margins the step may press one negatively that the multipliers of least norm do not.
    kept = active & ((pressed > -NEGATIVE * pressed.amax(-1, keepdim=True)) | (multipliers > 0))
    return Z, kept | ((pair_margins(Z) - 1.0) / unit < -NEGATIVE), length


def _lagrangian(U: Tensor, sigma: Tensor, V: Tensor, pull: Tensor, p: float) -> tuple[Tensor, Tensor, Tensor]:
    """Hessian and slope of the module's formula on the tangent entries of a ``(K − 1, N)`` matrix, and their mask."""
    batch, rank = sigma.shape
    rows, columns = U.shape[-1], V.shape[-1]
    first = sigma ** (p - 1.0)
    s, t, f, g = sigma.unsqueeze(-1), sigma.unsqueeze(-2), first.unsqueeze(-1), first.unsqueeze(-2)
    middle, gap = (s + t) / 2.0, s - t
    near = gap.abs() < 1e-5 * middle  # there the derivative is the more exact of the two
    even = torch.where(near, (p - 1.0) * middle ** (p - 2.0), (f - g) / torch.where(near, 1.0, gap))
    odd = (f + g) / (s + t)
    i, j = torch.arange(rank).unsqueeze(-1), torch.arange(rank)
    below, right = torch.arange(rank, rows).unsqueeze(-1), torch.arange(rank, columns)
    hessian = torch.zeros(batch, rows, columns, rows, columns, dtype=U.dtype)
    hessian[:, i, j, i, j] = (even + odd) / 2.0
    hessian[:, i, j, j, i] += (even - odd) / 2.0
    hessian[:, below, j, below, j] = (first / sigma).unsqueeze(-2)
    hessian[:, i, right, i, right] = (first / sigma).unsqueeze(-1)
    corner = U[..., rank:].mT @ pull @ V[..., rank:]
    below = below.unsqueeze(-1)
    cross = -corner.unsqueeze(-2) / sigma.view(batch, 1, rank, 1)
    hessian[:, below, i, i, right] = cross
    hessian[:, i, right, below, i] = cross
    slope = torch.zeros(batch, rows, columns, dtype=U.dtype)
    slope[:, j, j] = first
    tangent = torch.zeros(rows, columns, dtype=torch.bool)
    tangent[:rank] = tangent[:, :rank] = True
    inside = tangent.flatten()
    return hessian.flatten(3).flatten(1, 2)[:, inside][:, :, inside], slope[:, tangent], tangent


def _saddle(
    hessian: Tensor, slope: Tensor, slopes: Tensor, slack: Tensor, multipliers: Tensor, live: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve ``H dx − Jᵀλ = −slope, J dx = −slack`` for ``(dx, λ)``, with proximal terms around ``(0, multipliers)``."""
    size = slope.shape[-1]
    hold = torch.where(live, PROXIMAL, 1.0)
    upper = torch.cat([hessian + PROXIMAL * torch.eye(size, dtype=slope.dtype), -slopes.mT], -1)
    lower = torch.cat([-slopes, -torch.diag_embed(hold)], -1)
    right = torch.cat([-slope, torch.where(live, slack - hold * multipliers, 0.0)], -1)
    solved = torch.linalg.solve_ex(torch.cat([upper, lower], -2), right)[0]
    return solved[:, :size], solved[:, size:]


def _blocks(sigma: Tensor, change: Tensor, tangent: Tensor) -> Tensor:
    """The neighbour ``Σ + M, Q; P, PΣ⁻¹Q``."""
    rank = sigma.shape[-1]
    blocks = torch.zeros(len(sigma), *tangent.shape, dtype=sigma.dtype)
    blocks[:, tangent] = change
    blocks[:, rank:, rank:] = blocks[:, rank:, :rank] / sigma.unsqueeze(-2) @ blocks[:, :rank, rank:]
    blocks[:, :rank, :rank] += torch.diag_embed(sigma)
    return blocks


# ---------------------------------------------------------------- SLSQP


def slsqp(Z: Tensor, rank: int, p: float) -> Tensor:
    """Local minimiser of ``Σσ^p`` under margins ≥ 1 over the factors of one matrix of smallest margin 1, by SciPy."""
    U, sigma, Vh = np.linalg.svd(Z.numpy(), full_matrices=False)
    root = np.sqrt(sigma[:rank])
    A, B = U[:, :rank] * root, Vh[:rank].T * root
    wrong, true, sample = (index.numpy() for index in pairs(*Z.shape))

    def unpack(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = x.reshape(-1, rank)
        return rows[: len(Z)], rows[len(Z) :]

    def cost(x: np.ndarray) -> tuple[float, np.ndarray]:
        A, B = unpack(x)
        U, sigma, Vh = np.linalg.svd(A @ B.T, full_matrices=False)
        # The floor keeps the slope finite where the search passes a matrix of lower rank.
        U, sigma, Vh = U[:, :rank], np.maximum(sigma[:rank], 1e-12 * sigma[0]), Vh[:rank]
        slope = p * (U * sigma ** (p - 1)) @ Vh
        # The balance term fixes the gauge A → AG, B → BG⁻ᵀ and vanishes at the solution.
        skew = A.T @ A - B.T @ B
        value = (sigma**p).sum() + 0.25 * (skew**2).sum()
        return value, np.concatenate([slope @ B + A @ skew, slope.T @ A - B @ skew]).ravel()

    def slack(x: np.ndarray) -> np.ndarray:
        A, B = unpack(x)
        return ((A[true] - A[wrong]) * B[sample]).sum(1) - 1.0

    def slack_jacobian(x: np.ndarray) -> np.ndarray:
        return margin_slopes(*unpack(x), wrong, true, sample).reshape(len(wrong), -1)

    start = np.concatenate([A, B]).ravel()
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
    A, B = unpack(x)
    return torch.from_numpy(A @ B.T)
