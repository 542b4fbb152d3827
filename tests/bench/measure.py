"""What the benchmarks share: processor time, path errors, and times read off at equal error."""

import time

import numpy as np
import torch


def seconds(function):
    """Processor time of one call, and what it returned; with one thread the load of the machine matters little."""
    began = time.process_time()
    value = function()
    return time.process_time() - began, value


def direction(Z):
    """``Z/‖Z‖`` of tensors or arrays ``(..., K, N)``."""
    Z = torch.as_tensor(Z)
    return Z / torch.linalg.matrix_norm(Z, keepdim=True)


def error(Z, reference):
    """Distances of directions, whose norm is 1."""
    return torch.linalg.matrix_norm(direction(Z) - direction(reference))


def time_at(reached, points):
    """Time of a solver at an error, log–log between its (error, time) points; None below its smallest error.

    Above its largest it is the least time of all: nothing faster was measured, so a ratio is then no overstatement.
    """
    errors, times = (np.log([point[i] for point in sorted(points)]) for i in range(2))
    if np.log(reached) < errors[0]:
        return None
    if np.log(reached) > errors[-1]:
        return float(np.exp(times.min()))
    return float(np.exp(np.interp(np.log(reached), errors, times)))


def sizes(values):
    """Largest and median entry."""
    return float(values.max()), float(values.median())


def verdict(figure, target, less=False):
    """A figure beside its target."""
    met = "met" if (figure <= target) == less else "not met"
    return f"{figure:.3g} (target {'<=' if less else '>='} {target:g}: {met})"
