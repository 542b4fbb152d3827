"""What the benchmarks share: processor time, and a figure beside its target."""

import time


def seconds(function):
    """Processor time of one call, and what it returned; with one thread the load of the machine matters little."""
    began = time.process_time()
    value = function()
    return time.process_time() - began, value


def verdict(figure, target, less=False):
    """A figure beside its target."""
    met = "met" if (figure <= target) == less else "not met"
    return f"{figure:.3g} (target {'<=' if less else '>='} {target:g}: {met})"
