"""The growth of the flow's steps with the target; run as a script.  What the flow costs beside other solvers is
bench_cost.py.
"""

import math
import time
from unittest.mock import patch

import torch
from measure import verdict

import dufm
from dufm import _factors

DEPTH, WIDTH, SCALE = 3, 16, 0.5


def starts(num_classes, batch):
    return dufm.gaussian_init(DEPTH, WIDTH, num_classes, scale=SCALE, batch=batch, seed=0)


def explicit_only():
    """No implicit step pays."""
    return patch.object(_factors, "_price", lambda *shapes: math.inf)


def mean_steps(factors, m, rtol):
    """Mean accepted steps and mean field evaluations of a network to −m."""
    evaluations, plain = 0, _factors.FactorModel.field

    def counted(model, state, out):
        nonlocal evaluations
        evaluations += len(state)
        return plain(model, state, out)

    with patch.object(_factors.FactorModel, "field", counted):
        run = dufm.gradient_flow(factors, until_log_loss=-m, rtol=rtol)
    assert (run.status == "reached").all(), run.status
    return run.steps.double().mean().item(), evaluations / len(run.steps)


def slope(points):
    x, y = (torch.tensor([point[i] for point in points], dtype=torch.float64).log() for i in range(2))
    x -= x.mean()
    return ((x * y).sum() / (x * x).sum()).item()


def growth_of_steps():
    print("mean steps (field evaluations) of a network to m = −log ℒ, L = 3, d = 16, rtol 1e-3")
    print(" " * 22 + "".join(f"{m:>11.0e}" for m in (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)) + "   slope of the steps")
    for num_classes, batch, resting in ((4, 32, True), (6, 24, True), (6, 24, False)):
        factors = starts(num_classes, batch)
        if resting:
            # At rest before m = 10⁸: the direction stands still at a growth u below log(10⁸/10⁴).
            found = dufm.limit(dufm.gradient_flow(factors, rtol=1e-3))
            rows = (torch.from_numpy(found.status == "rests") & (found.growth < math.log(1e4))).nonzero().squeeze(-1)
            factors = [factor[rows] for factor in factors]
        points, cells = [], ""
        for m in (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8):
            steps, evaluations = mean_steps(factors, m, 1e-3)
            points.append((m, steps, evaluations))
            cells += f"{steps:6.0f} ({evaluations:.0f})".rjust(11)
        name = f"K = {num_classes}, {len(factors[0])} {'that rest' if resting else 'all'}"
        law = verdict(slope(points), 0.25, less=True) if resting else f"{slope(points):.2g}"
        print(f"  {name:20s}{cells}   {law}", flush=True)
    with explicit_only():
        points = [(m, *mean_steps(starts(4, 16), m, 1e-4)) for m in (200.0, 600.0, 2000.0)]
    print("  explicit steps alone, K = 4, rtol 1e-4: "
          + ", ".join(f"{steps:.0f} to {m:g}" for m, steps, _ in points) + f"; slope {slope(points):.2f}")


def main():
    torch.set_num_threads(1)
    began = time.perf_counter()
    with torch.no_grad():
        growth_of_steps()
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
