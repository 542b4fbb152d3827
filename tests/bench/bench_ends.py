"""Seconds of the limit of a run, and of the polish of runs that rest; run as a script.  One thread, processor time."""

import time

import numpy as np
import torch
from measure import seconds, verdict

import dufm

DEPTH, WIDTH, SCALE, BATCH = 3, 16, 0.5, 32
TARGETS = {6: 1.0, 10: 5.0}
ROUNDS = 3


def main():
    torch.set_num_threads(1)
    began = time.perf_counter()
    print(f"(f) {BATCH} networks, L = {DEPTH}, d = {WIDTH}, scale {SCALE}: flow to −200, limit, polish of what rests")
    for num_classes, target in TARGETS.items():
        factors = dufm.gaussian_init(DEPTH, WIDTH, num_classes, scale=SCALE, batch=BATCH, seed=0)
        flown, run = seconds(lambda factors=factors: dufm.gradient_flow(factors, rtol=1e-3))
        took, found = seconds(lambda run=run: dufm.limit(run))
        rested = found.Z[torch.from_numpy(found.status == "rests")]
        times = [seconds(lambda Z=rested: dufm.polish(Z, DEPTH, fallback=False)) for _ in range(ROUNDS)]
        polished = times[0][1]
        names, counts = np.unique(found.status, return_counts=True)
        print(f"  K = {num_classes:2}: flow {1e3 * flown / BATCH:.0f} ms, limit {1e3 * took / BATCH:.0f} ms a network "
              f"({', '.join(f'{n} {name}' for name, n in zip(names, counts, strict=True))})")
        spent = [took for took, _ in times]
        print(f"          seconds of the polish of {len(rested)}: {verdict(min(spent), target, less=True)}, "
              f"slowest {max(spent):.3g}; {polished.decided.double().mean():.0%} decided", flush=True)
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
