r"""The deep unconstrained feature model: ``Z = W_L ⋯ W_2 W_1`` and ways to start it.

Factors are a list ``[W_1, …, W_L]``: features ``W_1`` of shape ``(..., d, N)``, hidden ``(..., d, d)``,
classifier ``W_L`` of shape ``(..., K, d)``; ``N = K·n_per_class``, columns class by class.
Depth ``L`` counts the features, so ``L = 2`` is the ordinary unconstrained feature model.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count, check_fits, check_logits
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range, common_power, in_range, times_power

__all__ = [
    "balanced_init",
    "cheapest_factors",
    "gaussian_init",
    "imbalance",
    "imbalance_drift",
    "orthogonal_init",
    "product",
    "split_at",
]


def product(factors: Sequence[Tensor]) -> Tensor:
    """Logits ``Z = W_L ⋯ W_1`` of shape ``(..., K, N)`` from ``[W_1, …, W_L]``.

    Shapes ``(..., d, N)``, ``(..., d, d)`` … ``(..., K, d)``; the leading dimensions are networks.

    Units: none.  Raises: ``DufmError`` for fewer than two factors, shapes, dtypes or devices that do not fit, or a
    product beyond the floats.  Source: this companion, notebook 11.

    >>> dufm.product([torch.eye(2), 3 * torch.eye(2)])
    tensor([[3., 0.],
            [0., 3.]])
    """
    Z = _wide_chain(factors)
    check_in_range("factors: the product", Z)
    return Z


def _wide_chain(factors: Sequence[Tensor]) -> Tensor:
    """The product where what stands between leaves the floats, inf only where it does itself; NaN is let through."""
    Z, total = in_range(factors[0])
    for factor in factors[1:]:
        factor, own = in_range(factor)
        Z, grown = in_range(factor @ Z)
        total = total + own + grown
    return times_power(Z, total)


def chain(factors: Sequence[Tensor]) -> Tensor:
    """The product, unchecked."""
    Z = factors[0]
    for factor in factors[1:]:
        Z = factor @ Z
    return Z


def check_slope(factors: Sequence[Tensor], back: Tensor) -> None:
    """``DufmError`` where a slope ``back`` in Z leaves all factors slopes below the floats: nothing would move."""
    ordinary = [in_range(W)[0] for W in factors]
    if any(a is not b for a, b in zip(ordinary, factors, strict=True)):
        lost = _moves(ordinary, back) & ~_moves(factors, back)
        if lost.any():
            raise DufmError(f"factors: the slope of the start is below the range of {back.dtype}")


def _moves(factors: Sequence[Tensor], back: Tensor) -> Tensor:
    return torch.stack([slope.ne(0).any(-1).any(-1) for slope in chain_slopes(factors, back)]).any(0)


def chain_slopes(factors: Sequence[Tensor], back: Tensor) -> Iterator[Tensor]:
    """Slopes ``W_{>l}ᵀ back W_{<l}ᵀ`` in the factors, of a slope ``back`` in their product; unchecked."""
    for layer in range(len(factors)):
        slope = back
        for left in reversed(factors[layer + 1 :]):
            slope = left.mT @ slope
        for right in factors[:layer]:
            slope = slope @ right.mT
        yield slope


def imbalance(factors: Sequence[Tensor]) -> list[Tensor]:
    r"""The conserved matrices :math:`D_l = W_{l+1}^\top W_{l+1} - W_l W_l^\top`, ``l = 1 … L−1``.

    Gradient flow keeps each ``(..., d, d)`` matrix constant, so their drift measures the integrator.  All zero means
    *balanced*.

    Units: those of W², none.  Raises: ``DufmError`` as :func:`product`, of these matrices.  Source: Arora, Cohen &
    Hazan (2018); this companion, notebook 12.

    >>> dufm.imbalance([2 * torch.eye(2), torch.eye(2)])
    [tensor([[-3.,  0.],
            [ 0., -3.]])]
    """
    found = _imbalance(factors)
    check_in_range("factors: an imbalance", *found)
    return found


def _imbalance(factors: Sequence[Tensor]) -> list[Tensor]:
    return [upper.mT @ upper - lower @ lower.mT for lower, upper in zip(factors[:-1], factors[1:], strict=True)]


def imbalance_drift(before: Sequence[Tensor], after: Sequence[Tensor]) -> Tensor:
    r"""Largest change of an imbalance, :math:`\max_l\|D_l' - D_l\|_F / \max_l\|W_l'\|_F^2`.

    ``before``: the factors at the start, D_l theirs; ``after``: factors later on, with any further dimensions in front,
    such as the levels of a record.  Shape of those and the batch; NaN where ``after`` is.

    Units: none.  Raises: ``DufmError`` for a ``before`` whose factors do not fit, or a drift beyond the floats.
    Source: this companion, notebook 12.

    >>> start = dufm.gaussian_init(3, 8, 4, seed=0)
    >>> run = dufm.gradient_flow(start, until_log_loss=-20.0, rtol=1e-5)
    >>> dufm.imbalance_drift(start, run.factors) < 1e-5
    tensor([True])
    """
    first = [(W.shape[-2:], W.dtype, W.device) for W in before]
    tails = {W.shape[:-2][W.ndim - before[0].ndim :] for W in after}
    if [(W.shape[-2:], W.dtype, W.device) for W in after] != first or tails != {before[0].shape[:-2]}:
        raise DufmError("after must hold the factors of before at a later time, of their shapes, dtype and device")
    e = common_power(after)
    before, after = ([times_power(W, -e) for W in factors] for factors in (before, after))
    early, late = _imbalance(before), _imbalance(after)
    change = [torch.linalg.matrix_norm(then - first) for then, first in zip(late, early, strict=True)]
    size = [W.square().sum((-2, -1)) for W in after]
    largest = torch.stack(change).amax(0)
    drift = torch.where(largest == 0, 0.0, largest / torch.stack(size).amax(0))
    check_in_range("before: the drift", *early, drift.nan_to_num(0.0, torch.inf))
    return drift


def split_at(factors: Sequence[Tensor], layer: int) -> tuple[Tensor, Tensor]:
    """The network cut after its layer l: features ``W_l ⋯ W_1`` and classifier ``W_L ⋯ W_{l+1}``, ``1 ≤ l ≤ L − 1``.

    Shapes ``(..., d, N)`` and ``(..., K, d)``, as :func:`dufm.nc_metrics` takes them; NaN is let through, for the
    levels of a record that were never reached.

    Units: none.  Raises: ``DufmError`` for a layer out of range, or products beyond the floats.  Source: this
    companion, notebook 13.

    >>> features, classifier = dufm.split_at(dufm.gaussian_init(3, 5, 4, seed=0), 2)
    >>> features.shape, classifier.shape
    (torch.Size([1, 5, 4]), torch.Size([1, 4, 5]))
    """
    layer = check_count("layer", layer, 1, len(factors) - 1, why="the last layer has no classifier above it")
    parts = _wide_chain(factors[:layer]), _wide_chain(factors[layer:])
    check_in_range("factors: a product", *(part.nan_to_num(0.0, torch.inf, -torch.inf) for part in parts))
    return parts


def gaussian_init(
    depth: int, width: int, num_classes: int, *, scale: float = 1.0, batch: int = 1, seed: int, n_per_class: int = 1
) -> list[Tensor]:
    """Fan-in Gaussian factors: entries of ``W_l`` are independent N(0, scale²/fan-in).

    Returns ``[W_1, …, W_L]``, float64, of shapes ``(batch, d, N)``, ``(batch, d, d)`` …, ``(batch, K, d)``.  The fan-in
    of ``W_1``, whose input is one-hot, is the number of samples ``N``.  Network ``i`` depends on ``seed`` and ``i``
    alone, not on ``batch``.

    Units: none.  Raises: ``DufmError`` for a count out of range or a scale that is not positive.  Source: the usual
    fan-in scaling; this companion, notebook 11.

    >>> [tuple(W.shape) for W in dufm.gaussian_init(3, 5, 4, seed=0, batch=2)]
    [(2, 5, 4), (2, 5, 5), (2, 4, 5)]
    """
    return fan_in_gaussian(_sizes(depth, width, num_classes, n_per_class), scale, batch, seed)


def fan_in_gaussian(sizes: Sequence[int], scale: float, batch: int, seed: int) -> list[Tensor]:
    """Matrices ``(batch, sizes[l], sizes[l − 1])`` of independent N(0, scale²/fan-in) entries; sizes unchecked."""
    factors = [draw * (scale / draw.shape[-1] ** 0.5) for draw in _normal(sizes, batch, seed)]
    check_in_range("scale: an entry", *factors)
    return factors


def orthogonal_init(
    depth: int, width: int, num_classes: int, *, scale: float = 1.0, batch: int = 1, seed: int, n_per_class: int = 1
) -> list[Tensor]:
    """Haar-distributed factors: ``W_l = scale·Q``, ``Q`` with orthonormal columns, or rows where it is wide.

    Shapes ``(batch, d, N)`` … ``(batch, K, d)`` and seeding as :func:`gaussian_init`.

    Units: none.  Raises: ``DufmError`` as :func:`gaussian_init`.  Source: Saxe, McClelland & Ganguli (2014).

    >>> W = dufm.orthogonal_init(3, 5, 4, seed=0, scale=2.0)[1]
    >>> torch.allclose(W @ W.mT, 4 * torch.eye(5).double())
    True
    """
    sizes = _sizes(depth, width, num_classes, n_per_class)
    return [scale * _haar(draw) for draw in _normal(sizes, batch, seed)]


def balanced_init(Z: Tensor, depth: int, width: int | None = None) -> list[Tensor]:
    r"""Balanced factors of a given product: ``W_l = Σ^{1/L}`` between the singular vectors of ``Z = U Σ Vᵀ``.

    Of all factorisations of ``Z`` these have the least :math:`\sum_l\|W_l\|_F^2 = L\sum_i\sigma_i^{2/L}`.  ``Z``:
    ``(..., K, N)``; ``width`` d defaults to ``K``.  Returns ``[W_1, …, W_L]``, ``(..., d, N)`` … ``(..., K, d)``.

    Units: none.  Raises: ``DufmError`` if ``width`` is below the rank of ``Z``.  Source: Arora, Cohen & Hazan (2018);
    this companion, notebook 12.

    >>> dufm.balanced_init(torch.diag(torch.tensor([8.0, 1.0])), 3)[1].round(decimals=4)
    tensor([[2., 0.],
            [0., 1.]])
    """
    num_classes, _ = check_logits(Z)
    width = num_classes if width is None else width
    check_fits("depth and width", Z.shape[:-2].numel(), depth, max(width, num_classes, Z.shape[-1]), width)
    Z, e = in_range(Z)
    U, sigma, Vh = torch.linalg.svd(Z, full_matrices=False)
    kept = min(width, num_classes)
    floor = num_classes * torch.finfo(Z.dtype).eps * sigma[..., :1]
    # A rounding-level singular value would come back as eps^(1/L), which is not small.
    sigma = torch.where(sigma > floor, sigma, 0.0)
    if (sigma[..., kept:] > 0).any():
        raise DufmError(
            f"width must be at least the rank of Z, got {width} for rank {int((sigma > floor).sum(-1).max())}"
        )
    root = sigma[..., :kept] ** (1.0 / depth) * torch.exp2(e[..., 0].to(Z) / depth)
    first = Z.new_zeros(*Z.shape[:-2], width, Z.shape[-1])
    hidden = Z.new_zeros(*Z.shape[:-2], width, width)
    last = Z.new_zeros(*Z.shape[:-2], num_classes, width)
    first[..., :kept, :] = root.unsqueeze(-1) * Vh[..., :kept, :]
    hidden.diagonal(dim1=-2, dim2=-1)[..., :kept] = root
    last[..., :kept] = U[..., :kept] * root.unsqueeze(-2)
    return [first, *(hidden.clone() for _ in range(depth - 2)), last]


@torch.inference_mode(False)
def cheapest_factors(factors: Sequence[Tensor]) -> list[Tensor]:
    r"""Factors of the same product found by search to have the least :math:`\sum_l\|W_l\|_F^2` within reach.

    LBFGS over ``W_l → e^{A_l} W_l e^{−A_{l−1}}``, ``A_0 = A_L = 0``, for the sum over the batch of the logarithms: it
    knows nothing of balance.  If all hidden widths equal the rank of the product, every factorisation is reached, up to
    reflections, which cost nothing.  Shapes as given.

    Units: none.  Raises: ``DufmError`` as :func:`product`.  Source: this companion, notebook 12.

    >>> factors = dufm.cheapest_factors(dufm.gaussian_init(2, 2, 2, seed=0))
    >>> cost, Z = sum(W.square().sum() for W in factors), dufm.product(factors)
    >>> (cost / torch.linalg.matrix_norm(Z, "nuc")).round(decimals=4)  # L = 2 times the nuclear norm
    tensor([2.], dtype=torch.float64)
    """
    e = common_power(factors)
    factors = [times_power(W.detach().clone(), -e) for W in factors]
    hidden = [torch.zeros_like(W @ W.mT, requires_grad=True) for W in factors[:-1]]
    search = torch.optim.LBFGS(
        hidden, max_iter=2000, tolerance_grad=1e-6, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def cost() -> Tensor:
        search.zero_grad()
        squares: Any = sum(W.square().sum((-2, -1)) for W in turned(factors, hidden))
        total = squares.log().sum()
        total.backward()
        return total

    search.step(cost)
    found = [times_power(W.detach(), e) for W in turned(factors, hidden)]
    check_in_range("factors: no least sum is within reach, a search", *found)
    return found


def turned(factors: Sequence[Tensor], generators: Sequence[Tensor]) -> list[Tensor]:
    """``W_l → e^{A_l} W_l e^{−A_{l−1}}``, A_0 = A_L = 0: factors of the same product, unchecked."""
    first, *rest = [torch.linalg.matrix_exp(A) @ W for A, W in zip(generators, factors, strict=False)] + [factors[-1]]
    return [first, *(W @ torch.linalg.matrix_exp(-A) for A, W in zip(generators, rest, strict=True))]


def _sizes(depth: int, width: int, num_classes: int, n_per_class: int) -> list[int]:
    return [num_classes * n_per_class, *[width] * (depth - 1), num_classes]


def _normal(sizes: Sequence[int], batch: int, seed: int) -> list[Tensor]:
    """Standard normal matrices; filled network by network, so a network's draw ignores the batch size."""
    counts = [rows * columns for columns, rows in zip(sizes[:-1], sizes[1:], strict=True)]
    check_fits("batch, depth and width", batch, sum(counts))
    numbers = torch.from_numpy(np.random.default_rng(seed).standard_normal((batch, sum(counts))))
    parts = zip(numbers.split(counts, 1), sizes[:-1], strict=True)
    return [part.unflatten(1, (-1, columns)) for part, columns in parts]


def _haar(draw: Tensor) -> Tensor:
    wide = draw.shape[-2] < draw.shape[-1]
    Q, R = torch.linalg.qr(draw.mT if wide else draw)
    # Signs of R's diagonal moved into Q: without it QR is not Haar-distributed.
    Q = Q * R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return Q.mT.contiguous() if wide else Q


guard(globals())
