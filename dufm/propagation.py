r"""How much norm a product of matrices keeps: :math:`\|W_L\cdots W_1\|_F / \prod_l\|W_l\|_F`, by rank and depth.

Four families of factors of rank r: *balanced* ones of r equal singular values, for which it is exactly
:math:`r^{-(L-1)/2}`; *powers* of one positive semidefinite matrix; Gaussian factors that act on one *shared* subspace;
Gaussian factors each between subspaces *turned* at random.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count, check_fits
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import in_range
from dufm.model import balanced_init, chain

__all__ = ["FAMILIES", "efficiency", "haar_frames", "rank_r_factors"]

#: Kinds of factors that :func:`rank_r_factors` draws.
FAMILIES = ("balanced", "powers", "shared", "turned")


def efficiency(factors: Sequence[Tensor]) -> Tensor:
    """``‖W_L ⋯ W_1‖_F / Π‖W_l‖_F``, shape ``(...)``: 1 is the most that any factors reach, and rank one reaches it.

    ``factors``: ``[W_1, …, W_L]``, any leading dimensions.

    Units: none.  Raises: ``DufmError`` for shapes that do not follow one another, or a factor that is zero.  Source:
    this companion, notebook 15.

    >>> dufm.efficiency([torch.eye(4)] * 3)  # 4^(−(L − 1)/2)
    tensor(0.2500)
    """
    scaled = [in_range(W)[0] for W in factors]
    if not all(W.abs().amax((-2, -1)).all() for W in scaled):
        raise DufmError("factors must have no zero matrix, which has no norm to keep")
    return torch.linalg.matrix_norm(chain([W / torch.linalg.matrix_norm(W)[..., None, None] for W in scaled]))


def haar_frames(dimension: int, rank: int, draws: int, rng: np.random.Generator) -> Tensor:
    """Orthonormal frames ``(draws, dimension, rank)`` of subspaces drawn uniformly, by QR of Gaussian matrices.

    ``rng``: a NumPy generator.

    Units: none.  Raises: ``DufmError`` for a rank above the dimension.  Source: this companion, notebook 15.

    >>> Q = dufm.haar_frames(5, 2, 3, np.random.default_rng(0))
    >>> Q.shape, torch.allclose(Q.mT @ Q, torch.eye(2).double())
    (torch.Size([3, 5, 2]), True)
    """
    check_count("rank", rank, 1, dimension, why="no more directions are orthonormal")
    return torch.linalg.qr(_normal(rng, draws, dimension, rank)).Q


def rank_r_factors(
    family: str, rank: int, depth: int, dimension: int, draws: int, rng: np.random.Generator
) -> list[Tensor]:
    r"""Factors ``[W_1, …, W_L]``, each ``(draws, dimension, dimension)`` of rank r, of one of the four ``FAMILIES``.

    With Q, Q' frames and G an r × r Gaussian matrix, all from the NumPy generator ``rng``: *balanced*, :math:`W_L\cdots
    W_1 = QQ'^\top` (:func:`dufm.balanced_init`); *powers*, every :math:`W_l = AA^\top` with one Gaussian A of r
    columns; *shared*, :math:`W_l = QG_lQ^\top`; *turned*, :math:`W_l = Q_lG_lQ_l'^\top`.

    Units: none.  Raises: ``DufmError`` for another family, a rank above the dimension, or a count out of range.
    Source: this companion, notebook 15.

    >>> factors = dufm.rank_r_factors("balanced", 4, 3, 6, 1, np.random.default_rng(0))
    >>> dufm.efficiency(factors)
    tensor([0.2500], dtype=torch.float64)
    """
    if family not in FAMILIES:
        raise DufmError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    check_count("rank", rank, 1, dimension)

    def frames() -> Tensor:
        return haar_frames(dimension, rank, draws, rng)

    if family == "balanced":
        return balanced_init(frames() @ frames().mT, depth, dimension)
    if family == "powers":
        A = _normal(rng, draws, dimension, rank)
        return [A @ A.mT] * depth
    if family == "shared":
        Q = frames()
        return [Q @ G @ Q.mT for G in _normal(rng, depth, draws, rank, rank)]
    return [frames() @ G @ frames().mT for G in _normal(rng, depth, draws, rank, rank)]


def _normal(rng: np.random.Generator, *shape: int) -> Tensor:
    check_fits("draws, dimension and rank", *shape)
    return torch.from_numpy(rng.standard_normal(shape))


guard(globals())
