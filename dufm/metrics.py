r"""What a matrix of logits has become: ranks, margins, and the neural-collapse metrics."""

import torch

from dufm._checks import DufmError, check_logits, check_rank, check_tensor

__all__ = [
    "effective_rank",
    "final_rank",
    "margins",
    "nc_metrics",
    "numerical_rank",
    "rank_ratio",
    "stable_rank",
]


def effective_rank(Z):
    r"""Effective rank :math:`\exp(-\sum_i p_i\log p_i)`, :math:`p_i = \sigma_i/\sum_j\sigma_j`, shape ``(...)``.

    Roy & Vetterli (2007).  1 for a rank-one matrix, r for r equal singular values; 0 for the zero matrix.
    """
    check_logits(Z)
    sigma = torch.linalg.svdvals(Z)
    share = sigma / sigma.sum(-1, keepdim=True).clamp(min=torch.finfo(Z.dtype).tiny)
    return torch.where(sigma[..., 0] > 0, torch.exp(torch.special.entr(share).sum(-1)), 0.0)


def stable_rank(Z):
    r"""Stable rank :math:`\|Z\|_F^2/\|Z\|_2^2`, shape ``(...)``; 0 for the zero matrix."""
    check_logits(Z)
    square = torch.linalg.svdvals(Z).square()
    return square.sum(-1) / square[..., 0].clamp(min=torch.finfo(Z.dtype).tiny)


def numerical_rank(Z, rtol=None):
    """Number of singular values above ``rtol·σ_1``, shape ``(...)``; ``rtol`` defaults to ``K·eps``."""
    check_logits(Z)
    sigma = torch.linalg.svdvals(Z)
    floor = _floor(Z) if rtol is None else rtol
    return (sigma > floor * sigma[..., :1]).sum(-1)


def final_rank(Z):
    r"""The rank a finite-loss matrix is heading for: ``r ≤ K − 1`` with the widest gap ``σ_r/σ_{r+1}``.

    Singular values that the flow discards stay finite and shrink only against ``σ_1``, so a threshold on
    ``σ`` would read the loss, not the limit.  Values below ``K·eps·σ_1`` count as zero; the first of
    them closes the gap.  Shape ``(...)``, int64; 0 for the zero matrix.  Meant at margin ≥ 200; see
    :func:`rank_ratio` for how clear the gap is.
    """
    return _gap(Z)[0]


def rank_ratio(Z):
    """``σ_{r+1}/σ_r`` at ``r = final_rank(Z)``: how much was discarded against what was kept, shape ``(...)``."""
    return _gap(Z)[1]


def _gap(Z):
    num_classes, _ = check_logits(Z)
    sigma = torch.linalg.svdvals(Z)
    sigma = torch.where(sigma > _floor(Z) * sigma[..., :1], sigma, 0.0)
    kept, dropped = sigma[..., :-1], sigma[..., 1:]
    # 0/0 past the last nonzero value is no gap.
    ratio = torch.where(kept > 0, dropped / kept, torch.inf)
    best, index = ratio.min(-1)
    return torch.where(sigma[..., 0] > 0, index + 1, 0), torch.where(sigma[..., 0] > 0, best, 0.0)


def _floor(Z):
    return Z.shape[-2] * torch.finfo(Z.dtype).eps


def margins(Z):
    r"""Margins ``z_cc − z_jc`` of every sample against every class, shape ``(..., K, N)``.

    The true class holds ``+inf``, so ``margins(Z).amin((-2, -1))`` is the smallest margin.
    """
    num_classes, n_per_class = check_logits(Z)
    rows = torch.arange(num_classes, device=Z.device).repeat_interleave(n_per_class)
    columns = torch.arange(Z.shape[-1], device=Z.device)
    gap = Z[..., rows, columns].unsqueeze(-2) - Z
    gap[..., rows, columns] = torch.inf
    return gap


def nc_metrics(features, classifier, rank=None):
    r"""Neural-collapse metrics NC1, NC2, NC3 of one layer (Papyan, Han & Donoho 2020).

    ``features``: ``(..., d, N)`` columns class by class; ``classifier``: ``(..., K, d)``, everything that
    follows.  With centred class means ``M`` (d × K), within- and between-class covariances ``Σ_W, Σ_B``:

    * ``nc1`` = :math:`\operatorname{Tr}(\Sigma_W\Sigma_B^{+})/K`, the pseudo-inverse taken at ``rank``
      (default: ``final_rank`` of the logits; pass K − 1 for the plain one);
    * ``trace_ratio`` = ``Tr Σ_W / Tr Σ_B``, which also sees directions that the classifier ignores;
    * ``nc2`` = distance of ``MᵀM/‖·‖_F`` from the simplex ETF's Gram matrix ``C/√(K−1)``, ``C = I − J/K``;
    * ``nc3`` = :math:`\|A/\|A\|_F - M^\top/\|M\|_F\|_F` with ``A`` the classifier, its column means removed.

    Returns a dict of tensors of shape ``(...)``, with the ``rank`` used.  ``DufmError`` on bad shapes.
    """
    check_tensor("features", features)
    check_tensor("classifier", classifier)
    if (*classifier.shape[:-2], classifier.shape[-1]) != features.shape[:-1] or classifier.dtype != features.dtype:
        raise DufmError(
            "classifier and features must have shapes (..., K, d) and (..., d, N) and one dtype, got "
            f"{tuple(classifier.shape)} {classifier.dtype} and {tuple(features.shape)} {features.dtype}"
        )
    logits = classifier @ features
    num_classes, n_per_class = check_logits(logits, "classifier @ features")
    rank = final_rank(logits) if rank is None else check_rank(rank, logits)
    grouped = features.unflatten(-1, (num_classes, n_per_class))
    means = grouped.mean(-1)
    within = (grouped - means.unsqueeze(-1)).flatten(-2) / features.shape[-1] ** 0.5
    centred = means - means.mean(-1, keepdim=True)
    between = centred / num_classes**0.5
    U, sigma, _ = torch.linalg.svd(between, full_matrices=False)
    kept = torch.arange(sigma.shape[-1], device=sigma.device) < rank.unsqueeze(-1)
    spread = (U.mT @ within).square().sum(-1)
    nc1 = torch.where(kept, spread / sigma.square(), 0.0).sum(-1) / num_classes
    simplex = torch.eye(num_classes, dtype=features.dtype, device=features.device) - 1.0 / num_classes
    gram = centred.mT @ centred
    rows = classifier - classifier.mean(-2, keepdim=True)
    return {
        "nc1": nc1,
        "trace_ratio": within.square().sum((-2, -1)) / between.square().sum((-2, -1)),
        "nc2": torch.linalg.matrix_norm(_unit(gram) - _unit(simplex)),
        "nc3": torch.linalg.matrix_norm(_unit(rows) - _unit(centred.mT)),
        "rank": rank,
    }


def _unit(matrix):
    return matrix / torch.linalg.matrix_norm(matrix, keepdim=True)
