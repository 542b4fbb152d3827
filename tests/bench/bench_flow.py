"""The flow against torchdiffeq, the growth of its steps, and its share of the matmul peak; run as a script.

Ratios within one run, one thread, processor time.  A path error is that of Z/‖Z‖ at equal log ℒ against explicit
Dormand–Prince steps at rtol 1e-10.  torchdiffeq follows the same field, −∇ log ℒ in τ, one network at a time, to its
own τ of the target.  At each level its error is that of the accepted step before, carried on to the level at rtol 1e-9.
"""

import math
import statistics
import time
from unittest.mock import patch

import torch
from measure import error, seconds, sizes, time_at, verdict
from torch.utils.flop_counter import FlopCounterMode
from torchdiffeq import odeint, odeint_event

import dufm
from dufm import flow

NUM_CLASSES, DEPTH, WIDTH, SCALE, BATCH, TARGET = 4, 3, 16, 0.5, 256, -200.0
LEVELS = [1.0, 0.0, -1.0, -3.0, -10.0, -30.0, -100.0, TARGET]
RTOLS = [1e-3, 3e-4, 1e-4, 1e-5]
# Looser, dopri5 steps beyond the blow-up of τ.
THEIR_RTOLS = [1e-3, 3e-4, 1e-4, 1e-5]
SAMPLE = list(range(0, BATCH, BATCH // 8))
ROUNDS = 3


def starts(num_classes=NUM_CLASSES, depth=DEPTH, width=WIDTH, batch=BATCH):
    return dufm.gaussian_init(depth, width, num_classes, scale=SCALE, batch=batch, seed=0)


def explicit_only():
    """No implicit step pays."""
    return patch.object(flow, "_price", lambda *shapes: math.inf)


# ---------------------------------------------------------------- torchdiffeq


class Field(torch.nn.Module):
    """The field of one network as torchdiffeq wants it; ``kept`` are the states before its accepted steps."""

    def __init__(self, model):
        super().__init__()
        self.model, self.kept, self.evaluations = model, [], 0

    def forward(self, tau, state):
        self.evaluations += 1
        out = torch.empty_like(state.unsqueeze(0))
        self.model.field(state.unsqueeze(0), out)
        return out[0]

    def callback_accept_step(self, tau, state, step):
        self.kept.append(state)

    def log_loss(self, state):
        return dufm.log_loss(flow.chain(self.model.split(state.reshape(-1, state.shape[-1]))))


def options(start, rtol):
    return {"rtol": rtol, "atol": rtol * start.square().mean().sqrt().item(), "method": "dopri5"}


def their_path(model, start, rtol):
    """τ at the target, and the last states before each level."""
    field = Field(model)
    tau, _ = odeint_event(
        field, start, torch.zeros((), dtype=start.dtype),
        event_fn=lambda tau, state: field.log_loss(state)[0] - TARGET, **options(start, rtol),
    )
    states = torch.stack(field.kept)
    last = (field.log_loss(states) > torch.tensor(LEVELS).unsqueeze(-1)).sum(-1) - 1
    return tau, states[last]


def their_run(model, start, tau, rtol):
    field = Field(model)
    odeint(field, start, torch.stack([torch.zeros_like(tau), tau]), **options(start, rtol))
    return field.evaluations


# ---------------------------------------------------------------- the parts


def against_torchdiffeq():
    factors = starts()
    model = flow.FactorModel(factors)
    flat = model.flatten(factors)[SAMPLE]
    print(f"(a) {BATCH} networks, K = {NUM_CLASSES}, L = {DEPTH}, d = {WIDTH}, scale {SCALE}, to log ℒ = {TARGET:g}; "
          f"torchdiffeq's dopri5 on {len(SAMPLE)} of them")
    with explicit_only():
        reference = dufm.gradient_flow(factors, rtol=1e-10, record={"log_loss": LEVELS}).history.Z
    ours = {rtol: dufm.gradient_flow(factors, rtol=rtol, record={"log_loss": LEVELS}).history.Z for rtol in RTOLS}
    theirs, ends = {}, {}
    for rtol in THEIR_RTOLS:
        paths = [their_path(model, start, rtol) for start in flat]
        ends[rtol] = [tau for tau, _ in paths]
        with explicit_only():
            theirs[rtol] = torch.stack([
                dufm.gradient_flow(model.split(before), until_log_loss=level, rtol=1e-9).Z
                for level, before in zip(LEVELS, torch.stack([states for _, states in paths], 1), strict=True)
            ])
    times, evaluations = {}, {}
    for _ in range(ROUNDS):  # alternating, so that both see the same machine
        for rtol in RTOLS:
            took, run = seconds(lambda rtol=rtol: dufm.gradient_flow(factors, rtol=rtol))
            times.setdefault(("dufm", rtol), []).append(took / BATCH)
            evaluations["dufm", rtol] = f"{run.steps.double().mean():.0f} steps"
        for rtol in THEIR_RTOLS:
            took, counts = seconds(
                lambda rtol=rtol: [their_run(model, x, tau, rtol) for x, tau in zip(flat, ends[rtol], strict=True)]
            )
            times.setdefault(("dopri5", rtol), []).append(took / len(SAMPLE))
            evaluations["dopri5", rtol] = f"{statistics.mean(counts):.0f} evaluations"
    found = {("dufm", rtol): error(ours[rtol], reference) for rtol in RTOLS}
    found |= {("dopri5", rtol): error(theirs[rtol], reference[:, SAMPLE]) for rtol in THEIR_RTOLS}
    print("                 ms/network  (slowest)   error: max   median   of the sample: max   median")
    for key, took in times.items():
        whole = sizes(found[key])
        part = sizes(found[key][:, SAMPLE]) if key[0] == "dufm" else whole
        print(f"  {key[0]:6s} {key[1]:7.0e} {1e3 * min(took):10.2f} {1e3 * max(took):10.2f} "
              f"{whole[0]:13.1e} {whole[1]:8.1e} {part[0]:18.1e} {part[1]:8.1e}   {evaluations[key]}")
    for which, measure in enumerate(("max", "median")):
        print(f"  ratio at equal {measure} error (target 300; range over the rounds):", end="")
        for rtol in RTOLS:
            reached = sizes(found["dufm", rtol][:, SAMPLE])[which]

            def ratio(pick, rtol=rtol, reached=reached, which=which):
                slow = time_at(reached, [(sizes(found["dopri5", r])[which], pick(times["dopri5", r]))
                                         for r in THEIR_RTOLS])
                return slow / pick(times["dufm", rtol]) if slow else math.nan

            each = [ratio(lambda took, i=i: took[i]) for i in range(ROUNDS)]
            print(f"  {rtol:.0e}: {ratio(min):.0f} ({min(each):.0f}–{max(each):.0f})", end="")
        print(flush=True)


def mean_steps(factors, m, rtol):
    """Mean accepted steps and mean field evaluations of a network to −m."""
    evaluations, plain = 0, flow.FactorModel.field

    def counted(model, state, out):
        nonlocal evaluations
        evaluations += len(state)
        return plain(model, state, out)

    with patch.object(flow.FactorModel, "field", counted):
        run = dufm.gradient_flow(factors, until_log_loss=-m, rtol=rtol)
    assert (run.status == "reached").all(), run.status
    return run.steps.double().mean().item(), evaluations / len(run.steps)


def slope(points):
    x, y = (torch.tensor([point[i] for point in points], dtype=torch.float64).log() for i in range(2))
    x -= x.mean()
    return ((x * y).sum() / (x * x).sum()).item()


def growth_of_steps():
    print("\n(c) mean steps (field evaluations) of a network to m = −log ℒ, L = 3, d = 16, rtol 1e-3")
    print("          " + "".join(f"{m:>11.0e}" for m in (1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8)) + "   slope of the steps")
    for num_classes, batch, resting in ((4, 32, True), (6, 24, True), (6, 24, False)):
        factors = starts(num_classes, batch=batch)
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
        print(f"  {name:16s}{cells[4:]}   {law}", flush=True)
    with explicit_only():
        points = [(m, *mean_steps(starts(batch=16), m, 1e-4)) for m in (200.0, 600.0, 2000.0)]
    print("  explicit steps alone, K = 4, rtol 1e-4: "
          + ", ".join(f"{steps:.0f} to {m:g}" for m, steps, _ in points) + f"; slope {slope(points):.2f}")


def share_of_peak():
    print("\n(e) matrix products of the flow against torch.mm of 1024² float64, 8 networks, K = 10, d = 256, to −200")
    left, right = torch.randn(2, 1024, 1024, dtype=torch.float64)
    for depth in (3, 4):
        factors = starts(10, depth, 256, 8)
        with FlopCounterMode(display=False) as counter:
            run = dufm.gradient_flow(factors, rtol=1e-3)
        peaks, shares = [], []
        for _ in range(ROUNDS):
            peaks.append(2 * 1024**3 / min(seconds(lambda: left @ right)[0] for _ in range(3)))
            shares.append(counter.get_total_flops() / seconds(lambda f=factors: dufm.gradient_flow(f, rtol=1e-3))[0])
        print(f"  L = {depth}: {run.steps.double().mean():.0f} steps, "
              f"{max(shares) / 1e9:.2f} of {max(peaks) / 1e9:.1f} GFlop/s, share {max(shares) / max(peaks):.2f} "
              f"({min(s / p for s, p in zip(shares, peaks, strict=True)):.2f}–"
              f"{max(s / p for s, p in zip(shares, peaks, strict=True)):.2f} over the rounds)", flush=True)


def main():
    torch.set_num_threads(1)
    began = time.perf_counter()
    with torch.no_grad():
        against_torchdiffeq()
        growth_of_steps()
        share_of_peak()
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
