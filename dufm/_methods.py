"""The coefficients of the methods, float64: two explicit pairs and one Rosenbrock–W method."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

__all__ = ["BS32", "DP54", "ROS34PW2", "Pair"]


@dataclass(frozen=True)
class Pair:
    """Explicit first-same-as-last pair: stage rows, error weights, order of the error estimate.

    ``middle``: weights of the state half-way through a step, one order below the pair's own.
    """

    rows: list[torch.Tensor]
    error: torch.Tensor
    order: int
    middle: torch.Tensor | None = None


def _pair(
    rows: Sequence[Sequence[float]], error: Sequence[float], order: int, middle: Sequence[float] | None = None
) -> Pair:
    half = None if middle is None else _numbers(middle)
    return Pair([_numbers(row) for row in rows], _numbers(error), order, half)


def _numbers(values: Sequence[float] | np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, device="cpu")


# Bogacki & Shampine (1989), order 3(2).
BS32 = _pair(
    rows=((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
    order=2,
)
# Dormand & Prince (1980), order 5(4); the middle is Shampine's (1986).
DP54 = _pair(
    rows=(
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    error=(71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    order=4,
    middle=(
        6025192743 / 60171106304,
        0,
        51252292925 / 130801643196,
        -2691868925 / 90256659456,
        187940372067 / 3189068634112,
        -1776094331 / 39487288512,
        11237099 / 470086768,
    ),
)


@dataclass(frozen=True)
class RosenbrockW:
    """Coefficients in the variables ``u_i = h Σ_j γ_ij k_j``, in which no product with the matrix remains.

    ``couple``: times γ.
    """

    gamma: float
    stage: torch.Tensor
    couple: torch.Tensor
    end: torch.Tensor
    error: torch.Tensor


def _rosenbrock_w(alpha: np.ndarray, gamma: np.ndarray, weights: np.ndarray, embedded: np.ndarray) -> RosenbrockW:
    inverse = np.linalg.inv(gamma)
    couple = np.diag(1 / np.diag(gamma)) - inverse
    given = alpha @ inverse, couple * gamma[0, 0], weights @ inverse, (weights - embedded) @ inverse
    return RosenbrockW(gamma[0, 0], *map(_numbers, given))


_G = 4.3586652150845900e-01
# ROS34PW2, order 3(2), stiffly accurate (Rang & Angermann 2005).
ROS34PW2 = _rosenbrock_w(
    alpha=np.array(
        [
            [0, 0, 0, 0],
            [8.7173304301691801e-01, 0, 0, 0],
            [8.4457060015369423e-01, -1.1299064236484185e-01, 0, 0],
            [0, 0, 1, 0],
        ]
    ),
    gamma=np.array(
        [
            [_G, 0, 0, 0],
            [-8.7173304301691801e-01, _G, 0, 0],
            [-9.0338057013044082e-01, 5.4180672388095326e-02, _G, 0],
            [2.4212380706095346e-01, -1.2232505839045147e00, 5.4526025533510214e-01, _G],
        ]
    ),
    weights=np.array([2.4212380706095346e-01, -1.2232505839045147e00, 1.5452602553351020e00, _G]),
    embedded=np.array([3.7810903145819369e-01, -9.6042292212423178e-02, 0.5, 2.1793326075422950e-01]),
)
