r"""What a KKT point leaves out: extra singular values beside it, the force on them, and turns into their block.

The multipliers of a KKT point ``Z = UΣVᵀ`` of smallest margin 1 are :math:`\Lambda = U\Sigma^{p-1}V^\top + N` with
``N`` off the range of Z.  For balanced factors every singular value obeys

.. math:: \dot\sigma_i = L\,\sigma_i^{1+q}\,u_i^\top G v_i,\qquad G = -\partial\mathcal L/\partial Z,\quad q = 1 - 2/L,

so that an extra value ε whose force stays β times that of the kept values s, as it does late where ε adds the same to
all tight margins and a symmetry keeps it apart, keeps :math:`\varepsilon^{-q} - \beta s^{-q}`: from three layers on
it is discarded iff :math:`(\varepsilon/s)^q < 1/\beta`.  What is measured here follows full networks, which are told
neither β nor a law.  Kept and extra directions are ``P`` and ``E``: matrices whose singular values are 1 and 0.
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from dufm._checks import check_count
from dufm._door import guard
from dufm._error import DufmError
from dufm._scaling import check_in_range
from dufm._stepping import recorded
from dufm.basin import only_change
from dufm.codes import orthoplex
from dufm.flow import gradient_flow
from dufm.groups import characters
from dufm.loss import log_loss
from dufm.metrics import centred
from dufm.model import balanced_init

__all__ = [
    "block_values",
    "critical_extra",
    "cube_extra",
    "cube_turn",
    "extra_growth",
    "force_ratio",
    "orthoplex_extra",
    "random_multipliers",
    "turn_growth",
]


# ---------------------------------------------------------------- directions


def orthoplex_extra(num_classes: int) -> tuple[Tensor, Tensor]:
    """``P`` of the orthoplex and the ``E`` of all it leaves out, which adds as much to every tight margin."""
    W = orthoplex(num_classes)
    P = W @ W.mT / 2
    return P, centred(torch.eye(num_classes, dtype=P.dtype)) - P


def cube_extra(num_classes: int, bits: int) -> tuple[Tensor, Tensor]:
    """``P`` of the hypercube and the ``E`` of all characters of ``bits`` ≥ 2 ones, likewise; K = 2^m.

    ``(K, K)``; ``DufmError`` for another K, or bits out of range.
    """
    chi = characters("hadamard", num_classes)
    ones = _ones(num_classes)
    if not 2 <= check_count("bits", bits, 2) <= ones.max():
        raise DufmError(f"bits must be at most log2 of num_classes, {int(ones.max())}, got {bits}")
    return chi.logits((ones == 1).double()), chi.logits((ones == bits).double())


def cube_turn(num_classes: int) -> tuple[Tensor, Tensor]:
    """``P`` of the hypercube and the first-order turn ``E`` of it that changes no tight margin, ``‖E‖_F = ‖P‖_F``.

    ``E = Σ_k x_k(χ_k χ̄_kᵀ + χ̄_k χ_kᵀ)`` with χ_k of the one bit k, χ̄_k of all the others, and x = (1, −1, 0, …).
    ``(K, K)``; ``DufmError`` for K below 8.
    """
    chi = characters("hadamard", num_classes)
    if num_classes < 8:
        raise DufmError(f"num_classes must be at least 8: the square has no such turn, got {num_classes}")
    E = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    for x, bit in ((1.0, 1), (-1.0, 2)):
        one, rest = chi.basis[:, bit], chi.basis[:, (num_classes - 1) ^ bit]
        E += x * (torch.outer(one, rest) + torch.outer(rest, one))
    P = chi.logits((_ones(num_classes) == 1).double())
    return P, E * torch.linalg.matrix_norm(P) / torch.linalg.matrix_norm(E)


def _ones(num_classes: int) -> Tensor:
    return torch.tensor([i.bit_count() for i in range(1, num_classes)])


# ---------------------------------------------------------------- forces


def force_ratio(pull: Tensor, P: Tensor, E: Tensor) -> Tensor:
    r"""Force on the extra values over that on the kept ones, :math:`\frac{\langle E,\Lambda\rangle}{\|E\|^2} \Big/
    \frac{\langle P,\Lambda\rangle}{\|P\|^2}`, for Λ = ``pull`` ``(..., K, K)``.
    """
    ratio = _coordinate(pull, E) / _coordinate(pull, P)
    check_in_range("pull: the ratio of its forces", ratio)
    return ratio


def block_values(pull: Tensor, Z: Tensor, rank: int) -> Tensor:
    r"""Singular values β of a Λ = ``pull`` off the range of ``Z``, over its mean value on the range.

    ``(..., K − 1)``, descending, padded with zeros; the range is that of the ``rank`` largest singular values of the
    centred ``Z`` ``(..., K, K)``.  With ``pull`` :math:`= -\partial\log\mathcal L/\partial Z`
    (:func:`dufm.log_loss_residual`) they are the β that a flow sees; :func:`dufm.off_range_values` reads them off a
    certificate's multipliers.  ``DufmError`` for bad logits or a rank outside 1 … K − 1.
    """
    rank = check_count("rank", rank, 1, Z.shape[-1] - 1, "K − 1")
    U, _, Vh = torch.linalg.svd(centred(Z))
    U, V = U[..., :rank], Vh[..., :rank, :].mT
    kept = ((U.mT @ pull) * V.mT).sum((-2, -1)) / rank
    if (kept == 0).any():
        raise DufmError("pull must have a force on the range of Z, but its mean there is 0")
    off = pull - U @ (U.mT @ pull)
    off = off - off @ V @ V.mT
    return torch.linalg.svdvals(off)[..., :-1] / kept.unsqueeze(-1)


def random_multipliers(P: Tensor, count: int, seed: int) -> Tensor:
    r"""Multipliers of a KKT point of equal values, ``Λ`` ``(count, K, K)`` of value 1 on its range.

    Linear programs of random costs over all λ ≥ 0 on the tight margins of ``P = UVᵀ`` with ``ΛV = U``, ``ΛᵀU = V``:
    corners of the set, so that where it is one point all are the same.  ``DufmError`` where there is none.
    """
    K, P = len(P), P.detach().double()
    gaps = P.diagonal() - P + torch.diag(torch.full((K,), torch.inf, dtype=P.dtype))
    wrong, true = (gaps <= gaps.min() * (1 + 1e-9)).nonzero().T
    if not len(wrong):
        raise DufmError(f"P must have positive margins, the smallest is {float(gaps.min()):g}")
    eye = torch.eye(K, dtype=P.dtype)
    raised = (eye[true] - eye[wrong]).unsqueeze(-1) * eye[true].unsqueeze(-2)
    system = torch.cat([(raised @ P.mT @ P).flatten(1), (P @ P.mT @ raised).flatten(1)], 1).mT.numpy()
    wanted = torch.cat([P.flatten(), P.flatten()]).numpy()
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        solved = scipy.optimize.linprog(rng.standard_normal(len(wrong)) + 3.0, A_eq=system, b_eq=wanted)
        if not solved.success:
            raise DufmError(f"P must be a KKT point of equal values: {solved.message}")
        found.append(torch.tensordot(torch.from_numpy(solved.x), raised, 1))
    return torch.stack(found)


def _coordinate(Z: Tensor, E: Tensor) -> Tensor:
    return (Z * E).sum((-2, -1)) / E.square().sum()


def _check_directions(P: Tensor, E: Tensor) -> None:
    if not (P.square().sum() > 0 and E.square().sum() > 0):
        raise DufmError("P and E must not be zero, nor their squares underflow")


# ---------------------------------------------------------------- what networks do


def critical_extra(P: Tensor, E: Tensor, depth: int, size: float, *, rounds: int = 3) -> float:
    """Ratio ε/s above which an extra value is not discarded by a balanced network, known to ``1/24^rounds``.

    Networks start at ``size (P + ratio E)``; the extra value is discarded if ε/s falls between two later losses.
    ``DufmError``: a depth below 3, a size not positive, or if the answer changes twice between 0 and 1.
    """
    check_count("depth", depth, 3)

    def discarded(ratio: Tensor) -> Tensor:
        s, extra = extra_growth(P, E, depth, size, ratio[0], (1.5, 3.0))
        early, late = extra / s
        return ((late < early) & (late < 0.999)).unsqueeze(0)

    return float(only_change(discarded, torch.zeros(1), torch.ones(1), rounds))


def extra_growth(
    P: Tensor, E: Tensor, depth: int, size: float, ratios: Sequence[float] | Tensor, growths: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Kept value s and extra value ε of networks from ``size (P + ratio E)``, each ``(levels, ratios)``.

    Full balanced networks, one a ratio, are recorded where log ℒ is ``growths`` > 1 times the least at the starts.
    """
    ratios = torch.as_tensor(ratios, dtype=P.dtype)
    _check_directions(P, E)
    Z = _flow(size * (P + ratios[:, None, None] * E), depth, growths)
    return _coordinate(Z, P), _coordinate(Z, E)


def turn_growth(
    P: Tensor, E: Tensor, depth: int, size: float, angle: float, growths: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Kept value s and angle of a network from P turned by a small ``angle`` along E, each ``(levels,)``.

    The start is ``R P Rᵀ``, ``R = exp(angle·A)``, with ``[A, P] = E``; the angle is the part along E over s.
    """
    _check_directions(P, E)
    A = E @ P - P @ E
    R = torch.linalg.matrix_exp(angle * A)
    Z = _flow(size * R @ P @ R.mT, depth, growths)
    s = _coordinate(Z, P)
    return s, _coordinate(Z, E) / s


def _flow(Z: Tensor, depth: int, growths: Sequence[float]) -> Tensor:
    """Logits of balanced networks from ``Z``, recorded at log ℒ of ``growths`` > 1 times the least of the starts."""
    begin = float(log_loss(Z).min())
    levels = [begin * growth for growth in growths]
    run = gradient_flow(balanced_init(Z, depth), rtol=1e-8, until_log_loss=levels[-1], record={"log_loss": levels})
    Z = recorded(run.history).Z
    if Z.isnan().any():
        raise DufmError(f"the flow did not reach log loss {levels[-1]:g}: {set(run.status.ravel().tolist())}")
    return Z


guard(globals())
