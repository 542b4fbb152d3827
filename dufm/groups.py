r"""Characters of finite abelian groups, and the matrices that they diagonalise."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dufm._checks import check_count, check_fits, check_tensor, short
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range, in_range, times_power

__all__ = ["Characters", "characters", "check_spectrum"]


@dataclass(frozen=True)
class Characters:
    """The nontrivial characters of a finite abelian group, conjugates tied; F of them are free.

    ``orders``: of the cyclic factors; ``labels``: exponents ``(k_1, k_2, …)`` of a representative of each free
    character, ``χ(a) = exp(2πi Σ k_j a_j / n_j)``; ``multiplicity`` ``(F,)``: 1 for a real character, 2 for a conjugate
    pair; ``table`` ``(F, K)``: ``Re χ_i(a)``, elements a in the order of mixed-radix counting; ``basis``
    ``(K, K)``: orthonormal columns, the constant first, then one for each real character, a cosine and
    a sine for each pair; ``owner`` ``(K − 1,)``: the free character of each later column.

    Units: none.  Source: the characters of a finite abelian group; this companion, notebook 42.

    >>> chi = dufm.characters("cyclic", 5)
    >>> chi.num_free, chi.least_rank, chi.spectrum(torch.eye(5))[0].round(decimals=4)
    (2, 2, tensor([1., 1.]))
    """

    orders: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    multiplicity: torch.Tensor
    table: torch.Tensor
    basis: torch.Tensor
    owner: torch.Tensor

    @property
    def num_classes(self) -> int:
        """Order K of the group."""
        return self.table.shape[1]

    @property
    def num_free(self) -> int:
        """Number F of free singular values: K − 1 for Hadamard, ⌊K/2⌋ for a cyclic group."""
        return len(self.labels)

    @property
    def rates(self) -> Tensor:
        """``(F, K − 1)``: margin against the class ``a`` away, per unit of s_i: ``m_i (1 − Re χ_i(a))/K``."""
        return self.multiplicity.unsqueeze(-1) * (1 - self.table[:, 1:]) / self.num_classes

    @property
    def least_rank(self) -> int:
        """Smallest rank of group logits that separate all classes.

        Any positive spectrum on a set of characters separates iff no ``a ≠ 0`` has ``χ(a) = 1`` for all of them, that
        is, iff they generate the dual group; a conjugate pair adds 2 to the rank.
        """
        apart = (self.table[:, 1:] < 1 - 1e-9).numpy()
        ranks = self.multiplicity.long().tolist()
        least, size = sum(ranks), 1
        while size < least:  # a set has at least its size for a rank
            sets = itertools.combinations(range(len(ranks)), size)
            least = min([least, *(sum(ranks[i] for i in s) for s in sets if apart[list(s)].any(0).all())])
            size += 1
        return least

    def at_margin_one(self, s: Tensor) -> Tensor:
        """Spectra ``(..., F)`` scaled to smallest margin 1; ``DufmError`` where one is not positive."""
        self._check_length(s)
        s = in_range(s, -1)[0]
        smallest = (s @ self.rates.to(s)).amin(-1, keepdim=True)
        if (smallest <= 0).any():
            raise DufmError("s must separate the classes: its smallest margin is not positive")
        scaled = s / smallest
        check_in_range("s: a value at margin 1", scaled)
        return scaled

    def logits(self, s: Tensor) -> Tensor:
        """Logits ``(..., K, K)`` of a spectrum ``s`` ``(..., F)``: symmetric, rows and columns sum to zero."""
        self._check_length(s)
        basis = self.basis[:, 1:].to(s)
        return (basis * s[..., self.owner.to(s.device)].unsqueeze(-2)) @ basis.mT

    def _check_length(self, s: Tensor) -> None:
        if s.ndim < 1 or s.shape[-1] != self.num_free:
            raise DufmError(f"s must have shape (..., {self.num_free}), got {tuple(s.shape)}")

    def spectrum(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrum ``(..., F)`` of logits ``Z`` ``(..., K, K)``, and ``‖off‖_F/‖Z‖_F`` of all it does not explain.

        ``DufmError`` if Z is not K × K, or if its spectrum is not real: an antisymmetric part inside a pair of
        conjugate characters of more than 1e-6 of the norm.
        """
        K = self.num_classes
        if Z.shape[-2:] != (K, K):
            raise DufmError(f"Z must have shape (..., {K}, {K}), got {tuple(Z.shape)}")
        Z, e = in_range(Z)
        basis = self.basis[:, 1:].to(Z)
        inner = basis.mT @ Z @ basis
        size = torch.linalg.matrix_norm(Z)
        pair = (self.owner[:-1] == self.owner[1:]).nonzero().squeeze(-1)
        turned = (inner[..., pair, pair + 1] - inner[..., pair + 1, pair]).abs() / 2
        if (turned > 1e-6 * size.unsqueeze(-1)).any():
            raise DufmError(
                f"Z must have a real spectrum for the group of orders {self.orders}: between conjugate characters "
                "it is antisymmetric, and their phase would turn along the flow; symmetrise Z"
            )
        one_hot = torch.nn.functional.one_hot(self.owner, self.num_free).to(Z)
        s = inner.diagonal(dim1=-2, dim2=-1) @ one_hot / self.multiplicity.to(Z)
        off = torch.linalg.matrix_norm(Z - self.logits(s))
        return times_power(s, e[..., 0]), torch.where(size > 0, off / size, 0.0)


# "hadamard", the orders of cyclic factors, or what :func:`characters` makes of them.
Group = str | tuple[int, ...] | list[int] | Characters


def characters(group: Group, num_classes: int | None = None) -> Characters:
    r"""Characters of a finite abelian group of K elements, conjugates tied.

    ``group``: ``"hadamard"`` with ``num_classes`` = 2^m; ``"cyclic"`` with any ``num_classes``; or the orders of cyclic
    factors, ``(3, 3)`` for (Z/3)², whose product is K.  Hadamard is ``(2, …, 2)``: character i is :math:`\chi_i(a) =
    (-1)^{\langle i, a\rangle}`, i and a read as bit vectors.  Returns :class:`Characters`, and one that it is given
    unchanged.

    Units: none.  Raises: ``DufmError`` for an unknown group, a K that is no power of two, an order below 2.  Source:
    this companion, notebook 42.

    >>> dufm.characters("hadamard", 4).labels
    ((0, 1), (1, 0), (1, 1))
    >>> dufm.characters((2, 3)).multiplicity
    tensor([2., 1., 2.], dtype=torch.float64)
    """
    if isinstance(group, Characters):
        return group
    if isinstance(group, str) and group == "hadamard":
        K = check_count("num_classes", num_classes, 2)
        if K & (K - 1):
            raise DufmError(f"num_classes must be a power of two for group 'hadamard', got {K}; 'cyclic' takes any")
        orders = (2,) * (K.bit_length() - 1)
    elif isinstance(group, str) and group == "cyclic":
        orders = (check_count("num_classes", num_classes, 2),)
    elif isinstance(group, (tuple, list)) and len(group):
        orders = tuple(check_count("group: an order", order, 2) for order in group)
        if num_classes not in (None, math.prod(orders)):
            raise DufmError(f"num_classes must be {math.prod(orders)} for orders {orders}, got {num_classes}")
    else:
        raise DufmError(f"group must be 'hadamard', 'cyclic', or a tuple of orders such as (2, 6), got {short(group)}")
    check_fits("group: its tables", 16, math.prod(orders), math.prod(orders))
    sizes = np.array(orders)
    elements = np.indices(orders).reshape(len(orders), -1).T
    conjugate = np.ravel_multi_index(tuple((-elements % sizes).T), orders)
    free = [i for i in range(1, len(elements)) if i <= conjugate[i]]
    # Whole turns are taken out in integers.
    common = math.lcm(*orders)
    turns = elements[free] * (common // sizes) @ elements.T % common
    cosine, sine = np.cos(2 * math.pi * turns / common), np.sin(2 * math.pi * turns / common)
    paired = conjugate[free] != free
    K = len(elements)
    columns, owner = [np.full(K, K**-0.5)], []
    for index, pair in enumerate(paired):
        waves = [cosine[index], sine[index]] if pair else [cosine[index]]
        columns += [wave * math.sqrt(len(waves) / K) for wave in waves]
        owner += [index] * len(waves)
    return Characters(
        orders,
        tuple(tuple(label) for label in elements[free].tolist()),
        torch.from_numpy(1.0 + paired),
        torch.from_numpy(cosine),
        torch.from_numpy(np.stack(columns, 1)),
        torch.tensor(owner),
    )


def check_spectrum(s: Tensor, group: Group, name: str = "s0") -> Characters:
    """Characters of ``group`` for a spectrum ``s`` ``(..., F)``; ``DufmError`` where either is refused."""
    check_tensor(name, s, min_dim=1)
    if isinstance(group, str) and group == "cyclic":
        raise DufmError("group 'cyclic' needs its order: pass characters('cyclic', K), or (K,)")
    chi = characters(group, s.shape[-1] + 1 if isinstance(group, str) else None)
    if s.shape[-1] != chi.num_free:
        raise DufmError(
            f"{name} must have {chi.num_free} entries, one for each free character of the group of orders {chi.orders} "
            f"(conjugates tied, the trivial one left out), got shape {tuple(s.shape)}"
        )
    if not (s > 0).all():
        raise DufmError(f"{name} must be positive: a zero never grows; the smallest is {s.min():g}")
    return chi


guard(globals())
