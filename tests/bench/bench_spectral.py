"""The batched singular-value flow against a loop of SciPy's LSODA over the starts, at the same measured error.

LSODA follows the same path in log s with −log ℒ as its clock, so it ends exactly at the level, one start at a time.
The error is that of s/‖s‖ at that level against a run at rtol 1e-11, its 90% quantile over the starts.
LSODA is timed on some of the starts and its time multiplied.  Before it, one panel of the basin: starts that are
uniform on the simplex, at K = 4, to −200 and to their decided end.  One thread, processor time.
"""

import argparse
import math
import time

import numpy as np
import torch
from measure import seconds, verdict
from scipy.integrate import solve_ivp

from dufm import spectral_end
from dufm.groups import characters
from dufm.spectral import spectral_flow


def lsoda(s0, depth, chi, until, rtol):
    """End spectrum of one start; the clock is log ℒ itself, so the run ends exactly at the level."""
    rates = chi.rates.numpy()
    log_classes = math.log(chi.num_classes)

    def parts(log_s):
        s = np.exp(log_s)
        gaps = -(s @ rates)
        top = gaps.max()
        weights = np.exp(gaps - top)
        total = weights.sum()
        ell = top + math.log(total)
        softplus = math.log1p(math.exp(ell)) if ell > -37 else math.exp(max(ell, -700))
        slope = 1 / (1 + math.exp(-ell)) / softplus if ell > -37 else 1.0
        pull = rates @ (weights / total) * slope
        return s, (math.log(softplus) if ell > -37 else ell) + log_classes, pull

    def field(_, log_s):
        s, _, pull = parts(log_s)
        gain = s ** (1 - 2 / depth) * pull
        # d log s/d(−log ℒ): the level is the clock.
        return gain / (s * pull * gain).sum()

    start = parts(np.log(s0))[1]
    run = solve_ivp(field, (0, start - until), np.log(s0), "LSODA", t_eval=[start - until], rtol=rtol, atol=rtol)
    return np.exp(run.y[:, -1]), run.nfev


def unit(s):
    return s / np.linalg.norm(s, axis=-1, keepdims=True)


def error(s, reference):
    return float(np.quantile(np.linalg.norm(unit(s) - unit(reference), axis=-1), 0.9))


def panel(chi, depth, count=20_000, scale=0.1):
    """Seconds of a basin panel, by its flow to −200 and by its decided end."""
    starts = torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(3), count) * 3 * scale)
    print(f"(d) {count} starts, K = 4, L = {depth}, mean singular value {scale:g}")
    flown = [seconds(lambda: spectral_flow(starts, depth, chi))[0] for _ in range(3)]
    ended = [seconds(lambda: spectral_end(starts, depth, chi)) for _ in range(3)]
    times, end = [took for took, _ in ended], ended[0][1]
    print(f"  spectral_flow to −200: {min(flown):.2f} to {max(flown):.2f} s")
    print(f"  seconds of spectral_end: {verdict(min(times), 2.0, less=True)}, slowest {max(times):.2f}; "
          f"{end.decided.double().mean():.4%} decided")
    for reason, many in zip(*np.unique(end.reason[~end.decided.numpy()], return_counts=True), strict=True):
        print(f"    {many} undecided: {reason}")
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--starts", type=int, default=10_000)
    parser.add_argument("--loop", type=int, default=200, help="starts on which LSODA is timed")
    parser.add_argument("--depth", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1e-2)
    parser.add_argument("--until", type=float, default=-200.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    chi = characters("hadamard", 4)
    direction = np.random.default_rng(0).dirichlet(np.ones(3), args.starts) * 3 * args.scale
    s0 = torch.from_numpy(direction)

    panel(chi, args.depth)
    some = s0[: args.loop]
    reference = spectral_flow(some, args.depth, chi, until_log_loss=args.until, rtol=1e-11).s.numpy()
    print(f"{args.starts} starts, K = 4, L = {args.depth}; LSODA timed on {args.loop} of them")
    curve = {"batched": [], "LSODA": []}
    for rtol in (1e-3, 1e-4, 1e-5, 1e-6, 1e-8):
        began = time.process_time()
        end = spectral_flow(s0, args.depth, chi, until_log_loss=args.until, rtol=rtol).s.numpy()
        seconds = time.process_time() - began
        curve["batched"].append((error(end[: args.loop], reference), seconds))
        print(f"  batched rtol {rtol:.0e}: {seconds:8.2f} s   error {curve['batched'][-1][0]:.1e}")
    for rtol in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8):
        began = time.process_time()
        found = [lsoda(row, args.depth, chi, args.until, rtol) for row in some.numpy()]
        seconds = (time.process_time() - began) * args.starts / args.loop
        curve["LSODA"].append((error(np.array([s for s, _ in found]), reference), seconds))
        mean = np.mean([n for _, n in found])
        reached = curve["LSODA"][-1][0]
        print(f"  LSODA   rtol {rtol:.0e}: {seconds:8.2f} s   error {reached:.1e}   {mean:.0f} evaluations")

    print("\nat equal measured error (LSODA's time interpolated between its tolerances)")
    errors, seconds = (np.log([point[i] for point in curve["LSODA"]])[::-1] for i in (0, 1))
    order = np.argsort(errors)
    for reached, took in curve["batched"]:
        if errors.min() <= math.log(reached) <= errors.max():
            other = math.exp(np.interp(math.log(reached), errors[order], seconds[order]))
            print(f"  error {reached:.1e}: {took:.2f} s against {other:.1f} s, {other / took:.0f} times less")


if __name__ == "__main__":
    main()
