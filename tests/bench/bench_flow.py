"""Time of the flow against its path error, and against torchdiffeq's dopri5 on the same field; run as a script.

256 networks, K = 4, L = 3, d = 16, scale 0.5, to log ℒ = −200.  The path error is the relative error of Z/‖Z‖ at
equal log t, on a fixed list of log t up to the end, against a run at rtol 1e-10: maximum and median over networks
and levels.  ``dufm`` carries the whole batch; torchdiffeq follows the same field, −∇ log ℒ in the same clock τ, one
network at a time, for a sample of the same networks, from 0 to the τ at which that network's log ℒ is −200.  It is
not asked for log t: its accepted steps are kept in a second run that is not timed, and log t is found from them
afterwards, so that it pays for the path alone.  The ratio is read off both error–time curves at equal error.

Writes bench_flow.csv and bench_flow.png to out/bench.
"""

import csv
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch
from torchdiffeq import odeint, odeint_event

import dufm
from dufm import flow

NUM_CLASSES, DEPTH, WIDTH, SCALE, BATCH, TARGET = 4, 3, 16, 0.5, 256, -200.0
SHAPES = [(WIDTH, NUM_CLASSES), (WIDTH, WIDTH), (NUM_CLASSES, WIDTH)]
# From where the path first bends to a thousandth before the end (log t = 192.85 to 193.02).
LOG_TIMES = [-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 40.0, 80.0, 120.0,
             160.0, 190.0, 192.8]
BEYOND = -204.0
RTOLS = [1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 1e-6]
DEFAULT = 1e-4
SAMPLE = list(range(0, BATCH, BATCH // 8))
THEIR_RTOLS = [1e-3, 3e-4, 1e-4, 3e-5, 1e-5]
THREADS = [1, 2]
OUT = Path(__file__).resolve().parents[2] / "out" / "bench"


def field(state, out):
    """−∇ log ℒ of flat states: the field of gradient_flow, written into ``out``; returns log ℒ."""
    return flow._matrix_field(flow._split(state, SHAPES), flow._split(out, SHAPES))


def direction(Z):
    return Z / torch.linalg.matrix_norm(Z, keepdim=True)


def logits(states):
    return flow.chain(flow._split(states, SHAPES))


def best_time(function, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


# ---------------------------------------------------------------- dufm


def our_path(factors, rtol):
    run = dufm.gradient_flow(factors, until_log_loss=BEYOND, rtol=rtol, record={"log_time": LOG_TIMES})
    assert (run.status == "reached").all() and run.history.log_loss.isfinite().all()
    return run.history.Z


# ---------------------------------------------------------------- torchdiffeq


class Field(torch.nn.Module):
    """The field as torchdiffeq wants it; ``starts`` keeps the beginnings of accepted steps when asked."""

    def __init__(self, keep=False):
        super().__init__()
        self.starts = [] if keep else None
        self.evaluations = 0

    def forward(self, tau, state):
        self.evaluations += 1
        out = torch.empty_like(state)
        field(state, out)
        return out

    def callback_accept_step(self, tau, state, step):
        if self.starts is not None:
            self.starts.append((state, step))


def follow(function, start, end, rtol):
    """State at τ = ``end``; the absolute tolerance is that relative one of the mean entry at the start."""
    atol = rtol * start.square().mean().sqrt().item()
    return odeint(function, start, torch.stack([torch.zeros_like(end), end]), rtol=rtol, atol=atol, method="dopri5")[-1]


def end_of(start):
    """τ at which log ℒ is −200."""
    def event(tau, state):
        return dufm.log_loss(logits(state)) - TARGET

    tau = torch.zeros((), dtype=start.dtype)
    atol = 1e-7 * start.square().mean().sqrt().item()
    return odeint_event(Field(), start, tau, event_fn=event, rtol=1e-7, atol=atol, method="dopri5")[0].detach()


def dopri_step(start, h):
    """Steps of dopri5 from flat states (batch, n): new states, and the path of log ℒ that gives log t."""
    pair = flow._DP54
    slopes = start.new_empty(len(pair.rows) + 1, *start.shape)
    log_loss = field(start, slopes[0])
    column = h.unsqueeze(-1)

    def combine(weights):
        return torch.einsum("s,sbn->bn", start.new_tensor(weights), slopes[: len(weights)])

    for stage, row in enumerate(pair.rows, start=1):
        new = start + column * combine(row)
        new_log_loss = field(new, slopes[stage])
    path = flow._Hermite(log_loss, slopes[0].norm(dim=1), new_log_loss, slopes[-1].norm(dim=1), h)
    middle = torch.empty_like(start)
    path.bend(field(start + column * combine(pair.middle), middle), middle.norm(dim=1))
    return new, path


def their_path(start, end, rtol):
    """Z at the list of log t along torchdiffeq's accepted steps: the step before each is taken again, shorter."""
    kept = Field(keep=True)
    follow(kept, start, 1.02 * end, rtol)
    states, h = torch.stack([state for state, _ in kept.starts]), torch.stack([step for _, step in kept.starts])
    new, path = dopri_step(states, h)
    # The same method: our step ends where theirs did.
    assert torch.allclose(new[:-1], states[1:], rtol=1e-10, atol=1e-10)
    log_time = torch.full((len(h) + 1,), -torch.inf, dtype=h.dtype)
    for step in range(len(h)):
        log_time[step + 1] = path[step : step + 1].log_time(log_time[step : step + 1])[0]
    goal = torch.tensor(LOG_TIMES, dtype=h.dtype)
    assert log_time[-1] > goal[-1]
    index = torch.searchsorted(log_time, goal) - 1
    path, before, states = path[index], log_time[index], states[index]
    length = path.h * path.locate("log_time", goal, before)
    for _ in range(3):
        new, part = dopri_step(states, length)
        reached = part.log_time(before)
        rate = length * torch.exp(-part.end - reached)
        length = length * (1 - (reached - goal) / rate).clamp(0.5, 1.5)
    return logits(dopri_step(states, length)[0])


# ---------------------------------------------------------------- memory and import


def peak_memory(target):
    """Peak resident memory in MiB of a fresh process that runs the batch to ``target``, and its steps."""
    code = (
        "import resource, sys, dufm, torch; torch.set_num_threads(1);"
        f"factors = dufm.gaussian_init({DEPTH}, {WIDTH}, {NUM_CLASSES}, scale={SCALE}, batch={BATCH}, seed=0);"
        f"run = dufm.gradient_flow(factors, until_log_loss={target});"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, int(run.steps.max()))"
    )
    memory, steps = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    return float(memory), int(steps)


def import_time():
    return best_time(lambda: subprocess.run([sys.executable, "-c", "import dufm"], check=True), 3)


# ---------------------------------------------------------------- report


def time_at(error, rows, threads, measure):
    """Time per network at which a curve has this error: log–log interpolation, None outside the curve."""
    points = sorted((row[measure], row["seconds"]) for row in rows if row["threads"] == threads)
    errors, seconds = (np.log([point[i] for point in points]) for i in range(2))
    if not errors[0] <= np.log(error) <= errors[-1]:
        return None
    return float(np.exp(np.interp(np.log(error), errors, seconds)))


def main():
    began = time.perf_counter()
    factors = dufm.gaussian_init(DEPTH, WIDTH, NUM_CLASSES, scale=SCALE, batch=BATCH, seed=0)
    flat = torch.cat([factor.flatten(1) for factor in factors], 1)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}, "
          f"Python {platform.python_version()}")
    print(f"{BATCH} networks, K = {NUM_CLASSES}, L = {DEPTH}, d = {WIDTH}, scale {SCALE}, to log ℒ = {TARGET:g}")

    torch.set_num_threads(max(THREADS))
    reference = direction(our_path(factors, 1e-10))
    tighter = direction(our_path(factors, 1e-11))
    own = torch.linalg.matrix_norm(tighter - reference).max().item()
    print(f"reference at rtol 1e-10; it differs from rtol 1e-11 by at most {own:.1e}\n")

    print(f"dufm.gradient_flow, the batch at once (default rtol {DEFAULT:g} marked)")
    print("  rtol     threads  ms/network  steps   error: max   median   max on sample   median on sample")
    ours = []
    for rtol in RTOLS:
        torch.set_num_threads(max(THREADS))
        error = torch.linalg.matrix_norm(direction(our_path(factors, rtol)) - reference)
        for threads in THREADS:
            torch.set_num_threads(threads)
            run = dufm.gradient_flow(factors, until_log_loss=TARGET, rtol=rtol)
            seconds = best_time(lambda rtol=rtol: dufm.gradient_flow(factors, rtol=rtol), 5) / BATCH
            row = {
                "solver": "dufm", "rtol": rtol, "threads": threads, "seconds": seconds,
                "max": error.max().item(), "median": error.median().item(),
                "sample_max": error[:, SAMPLE].max().item(), "sample_median": error[:, SAMPLE].median().item(),
            }
            ours.append(row)
            print(f"{'*' if rtol == DEFAULT else ' '} {rtol:.0e}  {threads:6d}  {1e3 * seconds:10.3f}  "
                  f"{run.steps.double().mean():5.0f}  {row['max']:11.1e}  {row['median']:.1e}  "
                  f"{row['sample_max']:13.1e}  {row['sample_median']:16.1e}", flush=True)

    print(f"\ntorchdiffeq dopri5, one network at a time ({len(SAMPLE)} of the {BATCH})")
    print("  rtol     threads  ms/network  evaluations  max on sample   median on sample   log ℒ at the end")
    torch.set_num_threads(1)
    with torch.no_grad():
        ends = [end_of(flat[i]) for i in SAMPLE]
        theirs = []
        for rtol in THEIR_RTOLS:
            torch.set_num_threads(1)
            paths = torch.stack([their_path(flat[i], end, rtol) for i, end in zip(SAMPLE, ends, strict=True)], 1)
            error = torch.linalg.matrix_norm(direction(paths) - reference[:, SAMPLE])
            for threads in THREADS:
                torch.set_num_threads(threads)
                total, evaluations, reached = 0.0, 0, []
                for i, end in zip(SAMPLE, ends, strict=True):
                    function = Field()
                    start = time.perf_counter()
                    state = follow(function, flat[i], end, rtol)
                    total += time.perf_counter() - start
                    evaluations += function.evaluations
                    reached.append(dufm.log_loss(logits(state)).item())
                row = {
                    "solver": "torchdiffeq", "rtol": rtol, "threads": threads, "seconds": total / len(SAMPLE),
                    "max": None, "median": None,
                    "sample_max": error.max().item(), "sample_median": error.median().item(),
                }
                theirs.append(row)
                print(f"  {rtol:.0e}  {threads:6d}  {1e3 * row['seconds']:10.1f}  {evaluations / len(SAMPLE):11.0f}"
                      f"  {row['sample_max']:13.1e}  {row['sample_median']:17.1e}"
                      f"   {min(reached):.1f} to {max(reached):.1f}", flush=True)

    print("\nat equal error, on the same networks (torchdiffeq at the better of its thread counts)")
    for measure in ("sample_max", "sample_median"):
        default = next(row for row in ours if row["rtol"] == DEFAULT)
        for error in (default[measure], default[measure] / 10):
            slow = [t for n in THREADS if (t := time_at(error, theirs, n, measure)) is not None]
            for threads in THREADS:
                fast = time_at(error, ours, threads, measure)
                if slow and fast:
                    print(f"  {measure.replace('sample_', ''):6s} error {error:.1e}, dufm on {threads} thread(s): "
                          f"{1e3 * fast:.2f} ms against {1e3 * min(slow):.0f} ms, ratio {min(slow) / fast:.0f}")
                else:
                    print(f"  {measure.replace('sample_', ''):6s} error {error:.1e}: outside a curve")

    near, far = peak_memory(TARGET), peak_memory(10 * TARGET)
    print(f"\npeak memory {near[0]:.0f} MiB in {near[1]} steps to {TARGET:g}, "
          f"{far[0]:.0f} MiB in {far[1]} steps to {10 * TARGET:g}")
    print(f"import dufm: {import_time():.2f} s; this process peaked at "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    save(ours, theirs)
    print(f"out/bench/bench_flow.png and .csv written; {time.perf_counter() - began:.0f} s in all")


def save(ours, theirs):
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / "bench_flow.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(ours[0]))
        writer.writeheader()
        writer.writerows(ours + theirs)
    fig, ax = plt.subplots(figsize=(3.4, 2.6), layout="constrained")
    for rows, name, color in ((ours, "dufm", "#004488"), (theirs, "torchdiffeq dopri5", "#e69f00")):
        for threads, style in zip(THREADS, ("-o", "--s"), strict=True):
            points = sorted((row["sample_max"], 1e3 * row["seconds"]) for row in rows if row["threads"] == threads)
            ax.loglog(*zip(*points, strict=True), style, color=color, markersize=4,
                      label=f"{name}, {threads} thread{'s' if threads > 1 else ''}")
    ax.set(xlabel="path error (largest)", ylabel="time per network (ms)")
    ax.legend(fontsize=7, frameon=False)
    fig.savefig(OUT / "bench_flow.png", dpi=200)
    plt.close(fig)


if __name__ == "__main__":
    main()
