r"""Certificates for critical points of the margin problem of :mod:`dufm.margin`, and the polish that reaches them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dufm._checks import check_rank
from dufm._door import guard
from dufm._error import DufmError
from dufm._polish import cut, frames, least_multipliers, newton, pair_margins, pairs, slsqp, spread
from dufm._scaling import check_in_range, in_range
from dufm.metrics import final_rank
from dufm.model import balanced_init, chain_slopes

__all__ = [
    "Certificate",
    "Polished",
    "factor_residual",
    "kkt_certificate",
    "kkt_residual",
    "off_range_values",
    "polish",
]

ACTIVE_TOL = 1e-6
MAX_MARGINS = 2000
_BLOCK = 4e6  # margins² of the networks solved at once: some hundred MB


@dataclass(frozen=True)
class Certificate:
    """How nearly a matrix, centred, cut to ``rank`` and scaled to margin 1, is a KKT point; arrays of the batch shape.

    ``residual``: relative residual of stationarity; ``gap``: complementarity ``Σλ(margin − 1)/Σσ^p``;
    ``discarded``: ``(..., 2)``, what the cut threw away, ``σ_{r+1}/σ_1`` and ``σ_{r+1}/σ_r`` of the centred matrix, NaN
    where it has not the rank;
    ``active_tol``: margins up to ``1 + active_tol`` were called active; ``rank``;
    ``multipliers`` λ ``(..., K, N)``, class j against sample i, of least norm where they are not unique.
    A residual alone certifies nothing: read it with ``gap`` and ``discarded``.  KKT is not local optimality.

    Units: none.  Source: Lyu & Li (2020); this companion, notebook 21.

    >>> certificate = dufm.kkt_certificate(torch.eye(4).double(), 3)
    >>> print(certificate, certificate.holds().item(), certificate.rank.item())
    residual below 1e-10, gap below 1e-10 True 3
    """

    residual: torch.Tensor
    gap: torch.Tensor
    discarded: torch.Tensor
    active_tol: float
    rank: torch.Tensor
    multipliers: torch.Tensor

    def holds(self, tol: float = 1e-8) -> Tensor:
        """True where residual and gap are both below ``tol``."""
        return (self.residual < tol) & (self.gap.abs() < tol)

    def __str__(self) -> str:
        """Residual and gap, the largest of a batch; what rounding decides is "below 1e-10"."""
        largest = {"residual": float(self.residual.max()), "gap": float(self.gap.abs().max())}
        return ", ".join(f"{name} {x:.0e}" if x > 1e-10 else f"{name} below 1e-10" for name, x in largest.items())


def kkt_certificate(
    Z: Tensor, depth: int, rank: int | Tensor | None = None, *, active_tol: float = ACTIVE_TOL
) -> Certificate:
    r"""KKT certificate of the margin problem at depth L, on the stratum of exact rank r.

    ``Z``, less the mean of every column (margins do not see a common shift, ranks do), is cut to ``rank`` (default:
    :func:`dufm.final_rank`) and scaled to smallest margin 1, giving :math:`U_r\Sigma V_r^\top`.  Multipliers λ ≥ 0 on
    the active margins solve, in least squares,

    .. math:: \Lambda V_r = U_r\Sigma^{p-1},\quad \Lambda^\top U_r = V_r\Sigma^{p-1},\qquad
              \Lambda = \sum\lambda_{jc}(e_c - e_j)e_c^\top,\quad p = 2/L,

    which factor-level stationarity ``W_l = W_{>l}ᵀ Λ W_{<l}ᵀ`` reduces to.  Where they are not unique they are those of
    least norm.  The block of Λ off the range of Z never enters; :func:`off_range_values` reads it.  ``Z``:
    ``(..., K, N)``.  A matrix whose smallest margin is not positive after the cut, or that has not the rank, has
    residual and gap inf.

    Units: none.  Raises: ``DufmError`` for bad logits, a rank outside 1 … K − 1, or more than 2000 margins N(K − 1).
    Source: Lyu & Li (2020) for the KKT points; the reduction is derived in notebook 21.

    >>> square = dufm.polygon(4) @ dufm.polygon(4).mT
    >>> skew = square + torch.diag(torch.arange(4.0))
    >>> [dufm.kkt_certificate(Z, 4, rank=2).holds().item() for Z in (square, skew)]
    [True, False]
    """
    _check_size(Z)
    rank = final_rank(Z) if rank is None else check_rank(rank, Z)
    parts = _by_rank(lambda r, batch: _certify(r, batch, 2.0 / depth, active_tol), rank, Z)
    residual, gap, discarded, multipliers = (part.to(Z) for part in parts)
    return Certificate(residual, gap, discarded, active_tol, rank, multipliers)


def kkt_residual(Z: Tensor, depth: int, rank: int | Tensor | None = None) -> Tensor:
    """First number of :func:`kkt_certificate`; it says nothing about what was cut away.

    ``Z``: ``(..., K, N)``; shape ``(...)``.  Units: none.  Raises: ``DufmError`` as there.  Source: Lyu & Li (2020);
    this companion, notebook 21.

    >>> dufm.kkt_residual(torch.eye(4).double(), 3).item() < 1e-12
    True
    """
    return kkt_certificate(Z, depth, rank).residual


def factor_residual(Z: Tensor, depth: int, certificate: Certificate) -> Tensor:
    r"""Second route to a certificate: :math:`\max_l\|W_l - W_{>l}^\top\Lambda W_{<l}^\top\|_F/\|W_l\|_F`, ``(...)``.

    ``W_l`` are balanced factors of the certified matrix ``Z`` ``(..., K, N)`` itself, of smallest margin 1, neither
    centred nor cut here, Λ the multipliers of its ``certificate``.  Rounding noise in the discarded singular values
    enters balanced factors at its L-th root.  ``DufmError`` for a certificate of another shape.
    """
    _check_certificate(Z, certificate)
    factors = balanced_init(Z, depth)
    wrong, _, sample = pairs(*Z.shape[-2:])
    pull = spread(certificate.multipliers[..., wrong, sample], Z.shape[-2:])
    worst = Z.new_zeros(Z.shape[:-2])
    for factor, stationary in zip(factors, chain_slopes(factors, pull), strict=True):
        worst = torch.maximum(worst, torch.linalg.matrix_norm(factor - stationary) / torch.linalg.matrix_norm(factor))
    check_in_range("Z: the residual of a factor", worst)
    return worst


def _check_certificate(Z: Tensor, certificate: Certificate) -> None:
    if not isinstance(certificate, Certificate) or certificate.multipliers.shape != Z.shape:
        raise DufmError(f"certificate must be the kkt_certificate of Z, whose shape is {tuple(Z.shape)}")
    if certificate.multipliers.dtype != Z.dtype:
        raise DufmError(f"certificate must be that of Z, in {Z.dtype}, got {certificate.multipliers.dtype}")


def off_range_values(Z: Tensor, depth: int, certificate: Certificate) -> Tensor:
    r"""Singular values β of the multipliers' block off the range of a certified solution, ``(..., K − 1)``, descending.

    With :math:`U_r\Sigma V_r^\top` the centred Z of margin 1 cut to the certificate's rank, and ``p = 2/L``,

    .. math:: \beta = \sigma\Bigl[(I - J/K - U_rU_r^\top)\,\Lambda\,(I - V_rV_r^\top)\Bigr] \Big/
              \frac1r\sum_{i\le r}\sigma_i^{p-1} ,

    Λ from ``certificate.multipliers``: on the range Λ is :math:`\Sigma^{p-1}`, hence 1 for equal kept values.  Padded
    with zeros: only K − 1 − r can differ from 0.  Late, from three layers on, an aligned extra value ε < s beside equal
    kept values s that adds the same to all tight margins, and that a symmetry keeps apart, is discarded iff
    :math:`(\varepsilon/s)^{1-p} < 1/\beta`.  Where the multipliers are not unique neither is β; the certificate's are
    those of least norm.  NaN where the certificate does not hold.

    Units: none.  Raises: ``DufmError`` as :func:`kkt_certificate`, and for a certificate of another shape.  Source:
    this companion, notebook 28.

    >>> Z = dufm.orthoplex(6) @ dufm.orthoplex(6).mT
    >>> dufm.off_range_values(Z, 4, dufm.kkt_certificate(Z, 4))[:2]
    tensor([1.5000, 1.5000], dtype=torch.float64)
    """
    _check_certificate(Z, certificate)
    _check_size(Z)

    def values(rank: int, Z: Tensor, multipliers: Tensor) -> tuple[Tensor]:
        low, _, _ = cut(Z, rank)
        U, sigma, V = frames(low)
        wrong, _, sample = pairs(*Z.shape[-2:])
        corner = U[..., rank:].mT @ spread(multipliers[:, wrong, sample], Z.shape[-2:]) @ V[..., rank:]
        beta = torch.zeros_like(sigma)
        beta[:, : sigma.shape[-1] - rank] = torch.linalg.svdvals(corner)
        return (beta / (sigma[:, :rank] ** (2.0 / depth - 1.0)).mean(-1, keepdim=True),)

    (beta,) = _by_rank(values, certificate.rank, Z, certificate.multipliers)
    return torch.where(certificate.holds().unsqueeze(-1), beta.to(Z), torch.nan)


def _size(Z: Tensor) -> int:
    return (Z.shape[-2] - 1) * Z.shape[-1]


def _check_size(Z: Tensor) -> None:
    size = _size(Z)
    if size > MAX_MARGINS:
        raise DufmError(
            f"Z must have at most {MAX_MARGINS} margins, N(K − 1), since dense systems of twice that size are solved; "
            f"shape {tuple(Z.shape)} has {size}"
        )


def _by_rank(function: Callable[..., tuple[Tensor, ...]], ranks: Tensor, *batches: Tensor) -> list[Tensor]:
    """``function(r, *parts)`` on the networks of each rank r, in blocks, in float64 on the CPU; results together."""
    shape, size = ranks.shape, _size(batches[0])
    Z, *rest = (batch.detach().reshape(-1, *batch.shape[-2:]).cpu() for batch in batches)
    flat = [part.double() for part in (in_range(Z)[0], *rest)]
    ranks = ranks.reshape(-1).cpu()
    order, parts = [], []
    for rank in ranks.unique().tolist():
        for index in (ranks == rank).nonzero().squeeze(-1).split(max(1, int(_BLOCK / size**2))):
            order.append(index)
            parts.append(function(rank, *(batch[index] for batch in flat)))
    back = torch.cat(order).argsort()
    joined = [torch.cat(column)[back] for column in zip(*parts, strict=True)]
    return [column.reshape((*shape, *column.shape[1:])) for column in joined]


def _certify(rank: int, Z: Tensor, p: float, active_tol: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Residual, gap, discarded and multipliers of ``(B, K, N)``; inf, inf and zeros for what has no solution."""
    low, smallest, discarded = cut(Z, rank)
    residual = torch.full_like(smallest, torch.inf)
    gap, multipliers = residual.clone(), torch.zeros_like(Z)
    U, sigma, V = frames(low)
    good = smallest > 0
    if rank:
        good &= sigma[:, rank - 1] > Z.shape[-2] * torch.finfo(Z.dtype).eps * sigma[:, 0]
    if good.any():
        U, sigma, V = U[good, :, :rank], sigma[good, :rank], V[good, :, :rank]
        slack = pair_margins(low[good]) - 1.0
        solved, residual[good] = least_multipliers(U, sigma, V, slack <= active_tol, p)
        gap[good] = (solved * slack).sum(-1) / (sigma**p).sum(-1)
        wrong, _, sample = pairs(*Z.shape[-2:])
        multipliers[good.nonzero(), wrong, sample] = solved
    return residual, gap, discarded, multipliers


# ---------------------------------------------------------------- polish

DECIDED_TOL = 1e-8
DECIDED_MOVE = 0.1
# At rest at sharpness 1e4 the active margins exceed 1 by 1e-4 to 2e-3, at log ℒ = −200 by some percent.
_ACTIVE_LADDER = (3e-3, 3e-2, 0.2)
_SLSQP_TOL = 1e-5
_SLSQP_MARGINS = 240


@dataclass(frozen=True)
class Polished:
    """Solutions at fixed rank, one a network; arrays of the batch shape.

    ``Z`` ``(..., K, N)``, centred, of smallest margin 1 (NaN where the cut matrix separates nothing); ``certificate``
    of that matrix, its ``discarded`` that of the start; ``moved`` ``‖Z − Z_cut‖_F/‖Z_cut‖_F``; ``decided``: residual
    and gap below 1e-8 and moved by at most a tenth, else the run is *undecided*; ``fallback``: Newton's method
    certified nothing and SLSQP was called.  What nothing certified is the end of SLSQP, and NaN, moved inf, without it.

    Units: none.  Source: this companion, notebook 21.

    >>> solved = dufm.polish(torch.diag(torch.tensor([1.0, 1.01, 1.0, 1.0]).double()), 3)
    >>> solved.decided.item(), solved.moved.item() < 0.01, solved.fallback.item()
    (True, True, False)
    """

    Z: torch.Tensor
    certificate: Certificate
    moved: torch.Tensor
    decided: torch.Tensor
    fallback: torch.Tensor


def polish(Z: Tensor, depth: int, rank: int | Tensor | None = None, *, fallback: bool = True) -> Polished:
    r"""Solve the margin problem at fixed rank from a flow's end, to certificate accuracy.

    ``Z`` ``(..., K, N)``, less the mean of every column, is cut to ``rank`` (default: :func:`dufm.final_rank`) and
    scaled to margin 1.  Newton's method on the stationarity conditions, all networks of a rank at once, starts from
    three guesses of the active margins (up to 1.003, 1.03, 1.2); of what certifies the nearest is kept.  It goes to KKT
    points, as the flow does, not only to local minima.  Where it certifies nothing SciPy's SLSQP minimises over the
    factors of the cut, unless ``fallback`` is False or there are more than 240 margins (it takes seconds a network).  A
    polish is needed since at a finite loss the active margins of the flow differ, by ``log λ`` against the margin.
    Returns :class:`Polished`.

    Units: none.  Raises: ``DufmError`` as :func:`kkt_certificate`.  Source: this companion, notebook 21; SLSQP by
    SciPy.

    >>> solved = dufm.polish(torch.diag(torch.tensor([1.0, 1.01, 1.0, 1.0]).double()), 3)
    >>> torch.linalg.svdvals(solved.Z)[:3]
    tensor([1.0000, 1.0000, 1.0000], dtype=torch.float64)
    """
    _check_size(Z)
    ranks = final_rank(Z) if rank is None else check_rank(rank, Z)
    fallback = fallback and _size(Z) <= _SLSQP_MARGINS
    parts = _by_rank(lambda r, batch: _solve(r, batch, 2.0 / depth, fallback), ranks, Z)
    solution, moved, discarded = (part.to(Z) for part in parts[:3])
    # A run that separates nothing after the cut has no solution to certify; zeros keep it out of the SVD.
    certificate = replace(kkt_certificate(solution.nan_to_num(), depth, ranks.clamp(min=1)), discarded=discarded)
    decided = certificate.holds(DECIDED_TOL) & (moved <= DECIDED_MOVE)
    return Polished(solution, certificate, moved, decided, parts[3].to(Z.device))


def _solve(rank: int, Z: Tensor, p: float, fallback: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Nearest certified solutions, how far each is from the cut matrix, what was discarded, and where SLSQP ran."""
    start, smallest, discarded = cut(Z, rank)
    nearest, distance = torch.full_like(Z, torch.nan), torch.full_like(smallest, torch.inf)

    def offer(index: Tensor, candidates: Tensor) -> None:
        """Take what certifies and is nearer than what is held."""
        candidates, separates, _ = cut(candidates, rank)
        residual, gap, _, _ = _certify(rank, candidates, p, ACTIVE_TOL)
        moved = _distance(candidates, start[index])
        better = (separates > 0) & (residual < DECIDED_TOL) & (gap.abs() < DECIDED_TOL) & (moved < distance[index])
        nearest[index[better]], distance[index[better]] = candidates[better], moved[better]

    slack = pair_margins(start) - 1.0
    tried = torch.zeros_like(slack, dtype=torch.bool)
    for tolerance in _ACTIVE_LADDER:
        active = slack <= tolerance
        fresh = ((active != tried).any(-1) & (smallest > 0)).nonzero().squeeze(-1)
        tried = active
        if len(fresh):
            offer(fresh, newton(start[fresh], rank, p, active[fresh]))
    called = fallback & (smallest > 0) & distance.isinf()
    for index in called.nonzero():
        end, separates, _ = cut(slsqp(start[index.item()], rank, p).unsqueeze(0), rank)
        if separates > 0:
            offer(index, newton(end, rank, p, pair_margins(end) <= 1.0 + _SLSQP_TOL))
            if distance[index].isinf():
                nearest[index], distance[index] = end, _distance(end, start[index])
    return nearest, distance, discarded, called


def _distance(Z: Tensor, start: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(Z - start) / torch.linalg.matrix_norm(start)


guard(globals())
