r"""What a matrix of logits has become: ranks, margins, and the neural-collapse metrics."""

import torch
from torch import Tensor

from dufm._checks import check_logits, check_rank, check_tensor
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range, in_range

__all__ = [
    "effective_rank",
    "final_rank",
    "margins",
    "nc_metrics",
    "numerical_rank",
    "rank_ratio",
]


# Measured on 360 ends, K = 4 … 8, L = 2 … 8, log ℒ from -200 to -2000: where a polish certifies one, neighbouring kept
# singular values lie at most a factor of 2 apart, and the first discarded one mostly more than 5 below the last kept.
_GAP = 3.0


def centred(Z: Tensor) -> Tensor:
    """``CZ``, ``C = I − J/K``: each column of ``Z`` ``(..., K, N)`` less its mean over the classes; unchecked."""
    return Z - Z.mean(-2, keepdim=True)


def effective_rank(Z: Tensor) -> Tensor:
    r"""Effective rank :math:`\exp(-\sum_i p_i\log p_i)`, :math:`p_i = \sigma_i/\sum_j\sigma_j`, shape ``(...)``.

    ``Z``: ``(..., K, N)``.  1 for a rank-one matrix, r for r equal singular values; 0 for the zero matrix.  Of Z as it
    stands, common shifts of a sample's logits included.

    Units: none.  Raises: ``DufmError`` for bad logits.  Source: Roy & Vetterli (2007).

    >>> dufm.effective_rank(torch.diag(torch.tensor([2.0, 1.0, 1.0, 0.0])))
    tensor(2.8284)
    """
    sigma = torch.linalg.svdvals(in_range(Z)[0])
    share = sigma / sigma.sum(-1, keepdim=True).clamp(min=torch.finfo(Z.dtype).tiny)
    return torch.where(sigma[..., 0] > 0, torch.exp(torch.special.entr(share).sum(-1)), 0.0)


def numerical_rank(Z: Tensor, rtol: float | None = None) -> Tensor:
    """Number of singular values of ``Z`` above ``rtol·σ_1``, shape ``(...)``.

    ``Z``: ``(..., K, N)``; ``rtol`` defaults to ``K·eps``, eps of the dtype.  Common shifts count: see
    :func:`final_rank`.

    Units: none.  Raises: ``DufmError`` for bad logits.  Source: the usual rule of linear algebra.

    >>> dufm.numerical_rank(dufm.polygon(5) @ dufm.polygon(5).mT)
    tensor(2)
    """
    sigma = torch.linalg.svdvals(in_range(Z)[0])
    floor = _floor(Z) if rtol is None else rtol
    return (sigma > floor * sigma[..., :1]).sum(-1)


def final_rank(Z: Tensor) -> Tensor:
    r"""The rank a finite-loss matrix seems to be heading for: a quick look at ``σ_1 ≥ … ≥ σ_{K−1}`` of ``CZ``.

    Adding ``1bᵀ`` to ``Z`` (one number to a sample's logits) changes no margin and no gradient, so the rank is that of
    the centred matrix ``CZ``, whose ``σ_K = 0`` always.  The rule: **the first r with** ``σ_{r+1} < σ_r/3``, hence
    ``K − 1`` where no earlier value falls so far.  Values below ``K·eps·‖Z‖_F`` are rounding and count as zero, so that
    a network of width d has rank at most d.

    Singular values that the flow discards stay finite and shrink only like ``1/log(1/ℒ)`` against ``σ_1``: a threshold
    on ``σ_r/σ_1`` would read the loss, not the limit, and what lies beyond the first gap is frozen at values that tell
    nothing.  **A heuristic**: a run in transit, or a solution whose own singular values lie a factor of 3 apart, is
    misread.  What a run ends in is decided by polishing every cut, not here.  Meant at margin ≥ 200; see
    :func:`rank_ratio` for how clear the gap is.

    ``Z``: ``(..., K, N)``.  Shape ``(...)``, int64; 0 where ``CZ`` is zero.

    Units: none.  Raises: ``DufmError`` for bad logits.  Source: this companion, notebook 23.

    >>> dufm.final_rank(torch.diag(torch.tensor([4.0, 2.0, 0.1, 0.1])))
    tensor(2)
    """
    return _gap(Z)[0]


def rank_ratio(Z: Tensor) -> Tensor:
    """``σ_{r+1}/σ_r`` of ``CZ`` at ``r = final_rank(Z)``: what was discarded against what was kept, shape ``(...)``.

    ``Z``: ``(..., K, N)``.  Below 1/3; 0 where nothing but zeros was discarded, at ``r = K − 1`` above all, and where
    ``CZ`` is zero.

    Units: none.  Raises: ``DufmError`` for bad logits.  Source: this companion, notebook 23.

    >>> dufm.rank_ratio(torch.diag(torch.tensor([4.0, 2.0, 0.1, 0.1])))
    tensor(0.0623)
    """
    return _gap(Z)[1]


def _gap(Z: Tensor) -> tuple[Tensor, Tensor]:
    Z = in_range(Z)[0]
    # Z itself sets the floor: its entries were rounded before they were centred.
    floor = _floor(Z) * torch.linalg.matrix_norm(Z).unsqueeze(-1)
    sigma = torch.linalg.svdvals(centred(Z))[..., :-1]
    sigma = torch.where(sigma > floor, sigma, 0.0)
    following = torch.nn.functional.pad(sigma[..., 1:], (0, 1))
    rank = 1 + (_GAP * following >= sigma).cumprod(-1).sum(-1)
    nonzero = sigma[..., 0] > 0
    rank = torch.where(nonzero, rank, 0)
    at = (rank - 1).clamp(min=0).unsqueeze(-1)
    ratio = following.gather(-1, at) / sigma.gather(-1, at)
    return rank, torch.where(nonzero, ratio.squeeze(-1), 0.0)


def significant_values(X: Tensor) -> Tensor:
    """Singular values of a matrix of any shape, 0 where they are rounding: a root of those would count."""
    sigma = torch.linalg.svdvals(X)
    noise = max(1e-14, max(X.shape[-2:]) * torch.finfo(X.dtype).eps)
    return torch.where(sigma > noise * sigma[..., :1], sigma, 0.0)


def _floor(Z: Tensor) -> float:
    return Z.shape[-2] * torch.finfo(Z.dtype).eps


def margins(Z: Tensor) -> Tensor:
    r"""Margins ``z_cc − z_jc`` of every sample against every class, shape ``(..., K, N)``.

    ``Z``: ``(..., K, N)``.  The true class holds ``+inf``, so ``margins(Z).amin((-2, -1))`` is the smallest margin.

    Units: those of Z, none.  Raises: ``DufmError`` for bad logits, or margins beyond the floats.  Source: the
    definition.

    >>> dufm.margins(torch.tensor([[2.0, 0.5], [1.0, 3.0]]))
    tensor([[   inf, 2.5000],
            [1.0000,    inf]])
    """
    num_classes, n_per_class = check_logits(Z)
    rows = torch.arange(num_classes, device=Z.device).repeat_interleave(n_per_class)
    columns = torch.arange(Z.shape[-1], device=Z.device)
    gap = Z[..., rows, columns].unsqueeze(-2) - Z
    check_in_range("Z: a margin", gap)
    gap[..., rows, columns] = torch.inf
    return gap


def nc_metrics(features: Tensor, classifier: Tensor, rank: int | Tensor | None = None) -> dict[str, Tensor]:
    r"""Neural-collapse metrics NC1, NC2, NC3 of one layer.

    ``features``: ``(..., d, N)`` columns class by class; ``classifier``: ``(..., K, d)``, everything that follows.
    With centred class means ``M`` (d × K), within- and between-class covariances ``Σ_W, Σ_B``:

    * ``nc1`` = :math:`\operatorname{Tr}(\Sigma_W\Sigma_B^{+})/K`, the pseudo-inverse taken at ``rank``
      (default: ``final_rank`` of the logits; pass K − 1 for the plain one) and blind to directions in which the
      class means differ by less than rounding, ``K·eps`` of the features' root mean square;
    * ``trace_ratio`` = ``Tr Σ_W / Tr Σ_B``, which also sees directions that the classifier ignores;
    * ``nc2`` = distance of ``MᵀM/‖·‖_F`` from the simplex ETF's Gram matrix ``C/√(K−1)``, ``C = I − J/K``;
    * ``nc3`` = :math:`\|A/\|A\|_F - M^\top/\|M\|_F\|_F` with ``A`` the classifier, its column means removed.

    NaN where a metric is undefined, member by member of a batch: all four where the class means are equal to rounding
    (constant features), ``nc3`` where the rows of the classifier are (a zero classifier), and then ``nc1`` too unless
    ``rank`` is given, for such logits have rank 0.

    Returns a dict of tensors of shape ``(...)``, with the ``rank`` used.

    Units: none.  Raises: ``DufmError`` for bad shapes or another dtype.  Source: Papyan, Han & Donoho (2020); at low
    rank this companion, notebook 14.

    >>> pentagon = dufm.polygon(5)
    >>> {name: round(float(x), 4) for name, x in dufm.nc_metrics(pentagon.mT, pentagon).items()}
    {'nc1': 0.0, 'trace_ratio': 0.0, 'nc2': 0.7654, 'nc3': 0.0, 'rank': 2.0}
    """
    check_tensor("features", features)
    check_tensor("classifier", classifier)
    if (*classifier.shape[:-2], classifier.shape[-1]) != features.shape[:-1] or classifier.dtype != features.dtype:
        raise DufmError(
            "classifier and features must have shapes (..., K, d) and (..., d, N) and one dtype, got "
            f"{tuple(classifier.shape)} {classifier.dtype} and {tuple(features.shape)} {features.dtype}"
        )
    # No metric depends on either scale.
    features, classifier = in_range(features)[0], in_range(classifier)[0]
    logits = classifier @ features
    num_classes, n_per_class = check_logits(logits, "classifier @ features")
    rank = final_rank(logits) if rank is None else check_rank(rank, logits)
    grouped = features.unflatten(-1, (num_classes, n_per_class))
    means = grouped.mean(-1)
    within = (grouped - means.unsqueeze(-1)).flatten(-2) / features.shape[-1] ** 0.5
    means = centred(means.mT).mT
    between = means / num_classes**0.5
    U, sigma, _ = torch.linalg.svd(between, full_matrices=False)
    floor = _floor(logits) * torch.linalg.matrix_norm(features) / features.shape[-1] ** 0.5
    large = sigma > floor.unsqueeze(-1)
    kept = large & (torch.arange(sigma.shape[-1], device=sigma.device) < rank.unsqueeze(-1))
    spread = (U.mT @ within).square().sum(-1)
    nc1 = torch.where(kept, spread / sigma.square(), 0.0).sum(-1) / num_classes
    trace_ratio = within.square().sum((-2, -1)) / between.square().sum((-2, -1))
    simplex = torch.eye(num_classes, dtype=features.dtype, device=features.device) - 1.0 / num_classes
    rows = centred(classifier)
    apart = torch.linalg.matrix_norm(rows) > _floor(logits) * torch.linalg.matrix_norm(classifier)
    means = _unit(means, large[..., 0])
    return {
        "nc1": torch.where(kept[..., 0], nc1, torch.nan),
        "trace_ratio": torch.where(large[..., 0], trace_ratio, torch.nan),
        "nc2": torch.linalg.matrix_norm(_unit(means.mT @ means) - _unit(simplex)),
        "nc3": torch.linalg.matrix_norm(_unit(rows, apart) - means.mT),
        "rank": rank,
    }


def _unit(matrix: Tensor, defined: bool | Tensor = True) -> Tensor:
    """``matrix/‖matrix‖_F``, NaN where it is not ``defined``."""
    norm = torch.linalg.matrix_norm(matrix)
    return matrix / torch.where(torch.as_tensor(defined, device=norm.device), norm, torch.nan)[..., None, None]


guard(globals())
