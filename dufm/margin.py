r"""The margin problem where unregularised flow ends: its norm, its value, and closed forms of both.

With depth L and ``p = 2/L`` the flow's limits are KKT points of

.. math:: \min \|Z\|_{S_p}^p = \sum_i \sigma_i^p \quad\text{subject to}\quad z_{cc} - z_{jc} \ge 1,\ j \ne c,

which is ``min Σ‖W_l‖²`` under the same constraints written for the product (Lyu & Li 2020; Ji & Telgarsky 2020).
"""

import math
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from dufm._checks import check_count, check_pairs
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range, in_range, times_power
from dufm.metrics import margins

__all__ = [
    "closed_form_margin",
    "direct_sum_margin",
    "ladder_margin",
    "normalized_margin",
    "schatten",
]


def schatten(Z: Tensor, p: float) -> Tensor:
    r"""Schatten quasi-norm :math:`\|Z\|_{S_p} = (\sum_i\sigma_i^p)^{1/p}`, ``p > 0``, shape ``(...)``.

    ``Z``: ``(..., K, N)``.  Singular values below ``K·eps·σ_1`` count as zero: for small p, rounding noise would
    dominate the sum.

    Units: those of Z, none.  Raises: ``DufmError`` for bad logits, a p that is not positive, or a norm beyond the
    floats, as at small p.  Source: the definition; this companion, notebook 12.

    >>> dufm.schatten(torch.eye(4), 2.0), dufm.schatten(torch.eye(4), 0.5)
    (tensor(2.), tensor(16.))
    """
    Z, e = in_range(Z)
    sigma = torch.linalg.svdvals(Z)
    top = sigma[..., :1]
    share = sigma / torch.where(top > 0, top, 1.0)
    share = torch.where(share > Z.shape[-2] * torch.finfo(Z.dtype).eps, share**p, 0.0)
    norm = times_power(top.squeeze(-1) * share.sum(-1) ** (1.0 / p), e[..., 0, 0])
    check_in_range(f"Z: its norm at p = {p:g}", norm)
    return norm


def normalized_margin(Z: Tensor, depth: int) -> Tensor:
    r"""Normalised margin :math:`\gamma_L(Z) = \min_{j\ne c}(z_{cc} - z_{jc})/\|Z\|_{S_{2/L}}`, shape ``(...)``.

    ``Z``: ``(..., K, N)``.  Invariant under scaling of ``Z``; the flow's limits are its critical points.  NaN for
    ``Z = 0``.

    Units: none.  Raises: ``DufmError`` for bad logits or a depth below 2.  Source: Lyu & Li (2020) for the factors; for
    the product this companion, notebook 21.

    >>> dufm.normalized_margin(torch.eye(4) - 1 / 4, 3)  # 3^(−3/2)
    tensor(0.1925)
    """
    Z = in_range(Z)[0]
    return margins(Z).amin((-2, -1)) / schatten(Z, 2.0 / depth)


def closed_form_margin(kind: str, num_classes: int, depth: int) -> float:
    r"""Normalised margin of a named code, for K classes at depth L.

    =============  =======================================================  ====================
    ``nc``         :math:`(K-1)^{-L/2}`                                     K ≥ 2
    ``polygon``    :math:`\frac2K(1-\cos\frac{2\pi}K)\,2^{-L/2}`            K ≥ 3, rank 2
    ``orthoplex``  :math:`\frac12(K/2)^{-L/2}`                              K ≥ 4 even, rank K/2
    ``hypercube``  :math:`\frac2K m^{-L/2}`                                 K = 2^m ≥ 4, rank m
    =============  =======================================================  ====================

    All are cases of :math:`(1-\mu)\frac rK r^{-L/2}` for a unit tight frame of rank r and largest cosine μ.

    Shape: one number.  Units: none.  Raises: ``DufmError`` for another kind, a K that the code does not have, or a
    margin below the floats.  Source: this companion, notebook 25.

    >>> round(dufm.closed_form_margin("nc", 4, 6), 4), round(dufm.closed_form_margin("orthoplex", 4, 6), 4)
    (0.037, 0.0625)
    """
    power = -depth / 2.0
    if kind == "nc":
        return _within_floats((num_classes - 1.0) ** power, depth)
    if kind == "polygon":
        check_count("num_classes", num_classes, 3, why="a polygon needs three vertices")
        return _within_floats(4.0 / num_classes * math.sin(math.pi / num_classes) ** 2 * 2.0**power, depth)
    if kind == "orthoplex":
        if num_classes < 4 or num_classes % 2:
            raise DufmError(f"num_classes must be even and at least 4 for the orthoplex, got {num_classes}")
        return _within_floats(0.5 * (num_classes / 2.0) ** power, depth)
    if kind == "hypercube":
        if num_classes < 4 or num_classes & (num_classes - 1):
            raise DufmError(f"num_classes must be a power of two and at least 4 for the hypercube, got {num_classes}")
        return _within_floats(2.0 / num_classes * math.log2(num_classes) ** power, depth)
    raise DufmError(f"kind must be one of 'nc', 'polygon', 'orthoplex', 'hypercube', got {kind!r}")


def _within_floats(margin: float, depth: int) -> float:
    if margin < sys.float_info.min:
        raise DufmError(f"depth: the margin leaves the floats, got {depth}")
    return margin


def direct_sum_margin(sizes: Sequence[int], depth: int) -> float:
    r"""Normalised margin of simplices of ``sizes`` k_i ≥ 2 in orthogonal subspaces.

    :math:`\gamma_L = \bigl(\sum_i(k_i - 1)(\frac{k_i}{k_i - 1})^p\bigr)^{-1/p}`, p = 2/L, for two simplices or
    more: between them the margin of a class is its own logit.  ``DufmError`` for fewer, a size below 2, or a
    margin below the floats.
    """
    p = 2.0 / depth
    if len(sizes) < 2:
        raise DufmError(f"sizes must name two simplices or more, got {sizes}: a single one is neural collapse")
    return _within_floats(sum((size - 1) * (size / (size - 1)) ** p for size in sizes) ** (-1.0 / p), depth)


def ladder_margin(num_classes: int, pairs: int, depth: int) -> float:
    r"""Normalised margin of t antipodal pairs and K − 2t single classes, :func:`dufm.codes.pairs_and_singles`.

    :math:`\gamma_L = (t\,2^p + K - 2t - 1 + (2t/K)^{p/2})^{-1/p}`, p = 2/L.  ``DufmError`` unless 0 ≤ t ≤ K/2, for a
    pair of two classes, which is neural collapse, and for a margin below the floats.
    """
    p = 2.0 / depth
    pairs = check_pairs(num_classes, pairs)
    last = (2.0 * pairs / num_classes) ** (p / 2.0)
    return _within_floats((pairs * 2.0**p + num_classes - 2 * pairs - 1 + last) ** (-1.0 / p), depth)


guard(globals())
