r"""Label noise: features shared by samples of several labels, a share ε of them wrong.

Class c's feature carries its own label with probability 1 − ε and each other one with ε/(K − 1): column c of Y.  The
loss is the cross-entropy, and less its infimum

.. math:: \mathcal L = \sum_c\mathrm{KL}(y_c\,\|\,p_c),\qquad -\partial\mathcal L/\partial Z = Y - P,

which is attained, at every depth by the same logits: centred, :math:`s^*C` with :func:`collapse_size`.
"""

import math
from collections.abc import Sequence

import numpy as np
import scipy.optimize
import torch
from torch import Tensor

from dufm._checks import check_count, check_factors, check_rank
from dufm._door import guard
from dufm._error import DufmError
from dufm._factors import FactorModel
from dufm._scaling import check_in_range
from dufm._stepping import Record
from dufm.flow import Trajectory, follow_factors
from dufm.metrics import centred, numerical_rank

__all__ = [
    "collapse_size",
    "critical_at_rank",
    "noisy_flow",
    "noisy_labels",
    "square",
    "square_force",
    "time_to_escape",
]


class NoisyModel(FactorModel):
    """Factors under the loss of the module; what weighs a pair is the probability of the wrong class."""

    def __init__(self, factors: Sequence[Tensor], noise: float) -> None:
        super().__init__(factors)
        self.price = math.inf  # the second derivative is not that of a log-sum: no implicit steps
        self.labels = noisy_labels(self.shapes[-1][0], noise).to(factors[0])

    def evaluate(self, Z: Tensor) -> tuple[Tensor, Tensor]:
        """Log ℒ and −∂ log ℒ/∂Z; ℒ is a small difference of numbers of order 1."""
        log_p = Z.log_softmax(-2)
        loss = (self.labels * (self.labels.log() - log_p)).sum((-2, -1)).clamp(min=1e-300)
        return loss.log(), (self.labels - log_p.exp()) / loss[..., None, None]

    def rounding(self, log_loss: Tensor) -> Tensor:
        """That of the numbers of order 1."""
        return super().rounding(log_loss) + 64 * torch.finfo(log_loss.dtype).eps * torch.exp(-log_loss)

    def field(self, flat: Tensor, out: Tensor) -> tuple[Tensor, Tensor]:
        """As in :class:`FactorModel`."""
        log_loss, _ = super().field(flat, out)
        return log_loss, torch.exp(self.gaps(flat)).masked_fill_(self.own.flatten(), 0.0)


def noisy_labels(num_classes: int, noise: float) -> Tensor:
    """Y ``(K, K)``; ``DufmError`` unless 0 < noise < 1 − 1/K."""
    if not 0 < noise < 1 - 1 / num_classes:
        raise DufmError(f"noise must lie between 0 and 1 − 1/K, got {noise!r} for K = {num_classes}")
    wrong = noise / (num_classes - 1)
    return torch.eye(num_classes, dtype=torch.float64) * (1 - noise - wrong) + wrong


def collapse_size(num_classes: int, noise: float) -> float:
    r"""The s* of the minimum :math:`s^*C`: :math:`\log\frac{(1-\varepsilon)(K-1)}\varepsilon`."""
    Y = noisy_labels(num_classes, noise)
    size = (Y[0, 0] / Y[1, 0]).log()
    check_in_range("noise: the size", size)
    return float(size)


def noisy_flow(
    factors: Sequence[Tensor],
    noise: float,
    *,
    until_log_loss: float = -20.0,
    rtol: float = 1e-4,
    max_steps: int = 50_000,
    record: Record = None,
) -> Trajectory:
    """Flow of the loss, a :class:`dufm.Trajectory`; arguments as in :func:`dufm.gradient_flow`, one column a class.

    ``DufmError`` for bad factors or noise, more columns, or an ``until_log_loss`` below log(64 eps): −31.88 in
    float64, −11.78 in float32; the loss is a difference of numbers of order 1.
    """
    n_per_class = check_factors(factors)[1]
    if n_per_class != 1:
        raise DufmError(f"factors must have one feature a class, got {n_per_class}")
    least = math.log(64 * torch.finfo(factors[0].dtype).eps)
    if until_log_loss < least:
        raise DufmError(f"until_log_loss must be at least {least:.4g} in {factors[0].dtype}, got {until_log_loss:g}")
    control = {"until_log_loss": until_log_loss, "rtol": rtol, "max_steps": max_steps, "record": record}
    return follow_factors(NoisyModel(factors, noise), factors, **control)


def critical_at_rank(Z: Tensor, noise: float, rank: int) -> Tensor:
    r"""The critical point of the loss on centred logits :math:`AB^\top` of ``rank`` near ``Z`` ``(K, K)``, by SciPy.

    Least squares of :math:`(Y - P)B` and :math:`A^\top(Y - P)`, where descent of the loss has no more digits.
    ``DufmError`` for a rank outside 1 … K − 1, and where there is none of that rank within half the spectral norm of
    ``Z``.
    """
    rank, num_classes, Z = int(check_rank(rank, Z)), len(Z), Z.detach()
    Y, Z = noisy_labels(num_classes, noise), centred(Z).double()
    U, sigma, Vh = torch.linalg.svd(Z)
    first = torch.stack([U[:, :rank], Vh[:rank].T]) * sigma[:rank].sqrt()

    def logits(x: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        A, B = torch.from_numpy(x).reshape(first.shape)
        return A, B, centred(A) @ B.T

    def slopes(x: np.ndarray) -> np.ndarray:
        A, B, Z = logits(x)
        left = Y - Z.softmax(-2)
        return torch.cat([left @ B, left.T @ A]).flatten().numpy()

    found = scipy.optimize.least_squares(slopes, first.flatten().numpy(), xtol=1e-15, ftol=1e-15, gtol=1e-15)
    end = logits(found.x)[2]
    far = torch.linalg.matrix_norm(end - Z, 2) > sigma[0] / 2
    moving = np.abs(slopes(found.x)).max() > 1e-8 * float(torch.linalg.matrix_norm(end, 2)) ** 0.5
    if far or moving or numerical_rank(end, 1e-6) != rank:
        raise DufmError(f"Z must be near a critical point of rank {rank}, but the search ends away from it")
    return end


def square(noise: float) -> Tensor:
    r"""The critical logits of rank 2 of four classes ``(4, 4)``: two bits, each right with probability (1 + m)/2.

    :math:`Z = \frac s4(\chi_1\chi_1^\top + \chi_2\chi_2^\top)`, :math:`s = 2\log\frac{1+m}{1-m}`,
    :math:`m = 1 - 4\varepsilon/3`.  ``DufmError`` unless 0 < noise < 3/4.
    """
    m = float(noisy_labels(4, noise)[0] @ torch.tensor([1.0, -1.0, 0.0, 0.0], dtype=torch.float64))
    bits = torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1]], dtype=torch.float64)
    return 2 * math.log((1 + m) / (1 - m)) / 4 * bits.mT @ bits


def square_force(noise: float) -> float:
    r"""What the square leaves over for the third character: :math:`g = m(1-m)`, the singular value of Y − P there.

    ``DufmError`` unless 0 < noise < 3/4.
    """
    noisy_labels(4, noise)  # refuses what the square does
    m = 1 - 4 * noise / 3
    return m * (1 - m)


def time_to_escape(value: float | np.ndarray, depth: int, force: float | np.ndarray) -> np.ndarray:
    r"""Time :math:`\varsigma^{-q}/((L-2)g)`, q = 1 − 2/L, in which an extra value grows from ``value`` to infinity.

    Of the flow :math:`\dot\varsigma = L\varsigma^{2-2/L}g` at constant force g, depth L ≥ 3; arrays broadcast.
    ``DufmError`` for a depth below 3, and for what is not positive.
    """
    depth = check_count("depth", depth, 3)
    if not ((np.asarray(value) > 0).all() and (np.asarray(force) > 0).all()):
        raise DufmError("value and force must be positive")
    return np.asarray(value) ** (2 / depth - 1) / ((depth - 2) * force)


guard(globals())
