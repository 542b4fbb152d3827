"""One batched call of the flow for 64 networks against 64 runs one after another with plain autograd; run as a script.

Both follow −∇ log ℒ to the same loss with the same embedded pair and tolerance, from the same factors.  The
plain run is what one would write first: a list of parameters, a log-domain loss, ``torch.autograd.grad``, one step
size.  Nothing of ``dufm``'s own stepping or gradient is in it.  Their ends must agree, or the times are not compared.
The plain run is timed on some of the networks and its time multiplied; processor time.
"""

import argparse
import statistics
import time

import torch

import dufm
from dufm import peers

# Bogacki & Shampine (1989): stage rows, and the weights of the error estimate.
ROWS = ((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9))
ERROR = (-5 / 72, 1 / 12, 1 / 9, -1 / 8)


def slope(factors):
    factors = [W.requires_grad_() for W in factors]
    value = peers.log_loss(factors)
    return value.item(), [-g for g in torch.autograd.grad(value, factors)]


def norm(parts):
    return float(sum(part.detach().square().sum() for part in parts)) ** 0.5


def moved(factors, slopes, weights, h):
    with torch.no_grad():
        return [
            W + h * sum(w * part for w, part in zip(weights, parts, strict=False) if w)
            for W, *parts in zip(factors, *slopes, strict=True)
        ]


def plain(factors, until, rtol):
    """One network to ``log ℒ = until``; the step that would pass the level is shortened onto it."""
    value, first = slope(factors)
    h = 1e-2 * norm(factors) / norm(first)
    while value > until + 1e-6:
        slopes = [first]
        for row in ROWS:
            new = moved(factors, slopes, row, h)
            reached, last = slope(new)
            slopes.append(last)
        error = h * norm(sum(w * s for w, s in zip(ERROR, parts, strict=True)) for parts in zip(*slopes, strict=True))
        error /= rtol * norm(new)
        if error <= 1.0 and reached < until - 1e-6:
            h *= (value - until) / (value - reached)
            continue
        if error <= 1.0:
            factors, first, value = new, last, reached
        h *= min(5.0, max(0.2, 0.9 * max(error, 1e-9) ** (-1 / 3)))
    with torch.no_grad():
        return dufm.product(factors)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", type=int, default=64)
    parser.add_argument("--loop", type=int, default=8, help="networks that the plain run is timed on")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depths", type=int, nargs="+", default=[3, 4, 6])
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--until", type=float, default=-200.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    where = f"K = {args.classes}, d = {args.width}, to log loss {args.until:g}, {args.device}, one thread"
    print(f"{args.networks} networks, {where}")
    for depth in args.depths:
        start = [
            W.to(args.device) for W in dufm.gaussian_init(depth, args.width, args.classes, batch=args.networks, seed=0)
        ]
        batched, looped = [], []
        for _ in range(args.repeats):  # alternating, so that both see the same machine
            began = time.process_time()
            ends = dufm.gradient_flow(start, until_log_loss=args.until).Z
            batched.append(time.process_time() - began)
            began = time.process_time()
            each = torch.stack([plain([W[i].clone() for W in start], args.until, 1e-4) for i in range(args.loop)])
            looped.append((time.process_time() - began) * args.networks / args.loop)
        ends = ends[: args.loop]
        apart = ((ends - each).flatten(1).norm(dim=1) / ends.flatten(1).norm(dim=1)).quantile(0.9)
        if apart > 1e-2:
            raise SystemExit(f"L = {depth}: the ends differ by {apart:.1e}; times not compared")
        fast, slow = statistics.median(batched), statistics.median(looped)
        print(
            f"  L = {depth}: batched {fast:.2f} s ({args.networks / fast:.0f} networks a second), one after another "
            f"{slow:.2f} s, {slow / fast:.1f} times less; ends within {apart:.0e} (90% of the networks)"
        )


if __name__ == "__main__":
    main()
