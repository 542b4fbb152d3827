"""One decided end beside every other way to it, its growth, and its share of the matmul peak.

Prints what notebook 93 and README show; with ``--write`` it writes their tables, ``notebooks/9_tools/93_*.csv`` with
where they come from, and README's.  One thread; methods one after another on each network, so that a ratio compares
neighbours in time.  ``pip install 'dufm[bench]'`` first.
"""

import argparse
import hashlib
import itertools
import math
import os
import platform
import time
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import pandas
import torch
from threadpoolctl import threadpool_limits
from torch.utils.flop_counter import FlopCounterMode

from dufm import cost, gradient_flow
from dufm.companion import files, notebook, pages
from dufm.companion.versions import versions

PAIRS, TOGETHER = 5, 64
SHAPES = [
    {"num_classes": 4, "depth": 3, "width": 16, "batch": 256},
    {"num_classes": 10, "depth": 4, "width": 64, "batch": 64},
    {"num_classes": 10, "depth": 3, "width": 256, "batch": 8},
]
# Methods that are followed over the widths, and these.
OVER_WIDTH = {name: [8, 16, 32] for name in ("dufm", "SciPy BDF", "SciPy LSODA", "LSODA, Jacobian")}


def methods():
    for pair in range(PAIRS):
        yield cost.ended(pair, TOGETHER)
        yield cost.ended(pair, 1)
        yield from cost.compared(pair, [*cost.METHODS])


def scaling():
    for seed, (axis, values) in itertools.product(range(PAIRS), cost.AXES.items()):
        for value in values:
            yield cost.grown(axis, value, seed)
        for method, values in OVER_WIDTH.items() if axis == "width" else ():
            for value in values:
                yield cost.followed(method, value, seed)


def flow_speed(seed, **shape):
    """Floating-point operations a processor second in the products of the flow to log ℒ = −200, and their number."""
    factors = cost.starts(seed, **shape)
    with FlopCounterMode(display=False) as counter:
        gradient_flow(factors, rtol=1e-3)
    began = time.process_time()
    gradient_flow(factors, rtol=1e-3)
    return counter.get_total_flops() / (time.process_time() - began), counter.get_total_flops()


def product_speed(left, right):
    """Operations a processor second of one product, over at least a fifth of a second."""
    operations, calls, began = 2 * math.prod(left.shape) * right.shape[-1], 0, time.process_time()
    while (took := time.process_time() - began) < 0.2:
        left @ right
        calls += 1
    return calls * operations / took


def peak():
    big = torch.randn(1024, 1024, dtype=torch.float64)
    for seed, shape in itertools.product(range(PAIRS), SHAPES):
        speed, operations = flow_speed(seed, **shape)
        W = torch.randn(shape["batch"], shape["width"], shape["width"], dtype=torch.float64)
        same = product_speed(W, W[..., : shape["num_classes"]].contiguous())
        yield *shape.values(), seed, operations, speed, same, product_speed(big, big)


TABLES = {
    "93_methods": (methods, ["pair", "method", "m", *cost.SPENT, "error", "end"]),
    "93_scaling": (scaling, ["axis", "value", "seed", *cost.SPENT]),
    "93_peak": (peak, ["num_classes", "depth", "width", "batch", "seed", "operations", "flow", "same", "big"]),
}


WAYS = {
    "decided end, 64 at once": "one of 64, to the certified end",
    "dufm": "one network alone",
    "LSODA, Jacobian": "SciPy's LSODA, Jacobian by hand",
    "SciPy BDF": "SciPy's BDF",
    "torchdiffeq dopri5": "torchdiffeq",
    "loss-scaled steps": "steps scaled by the loss",
    "constant steps": "constant steps",
}


def beside():
    """The ways to one end as a table for README, a column a way, from the table of notebook 93."""
    about = files.read_json(files.source_path(files.find("93")).parent / "93_methods.json", {})
    known = notebook.committed("93_methods").sort_values(["pair", "m"])
    last, error = known.groupby(["method", "pair"]).last(), known.groupby("method").error.max()
    ours, *others = WAYS
    first = last.loc[ours].processor
    times = [f"{1000 * first.median():.0f} ms"]
    for way in others:
        ratio, m = last.loc[way].processor / first, last.loc[way].m.median()
        spread = f"{ratio.median():.3g} times ({ratio.min():.3g} to {ratio.max():.3g})"
        times.append(spread if m == 1e4 else f"at 10,000 steps: −{m:.0f}")
    where = f"{about['machine']['processor']}, one thread, {about['date']}"
    rows = (
        [f"to log loss −10000; {where}", *WAYS.values()],
        ["---"] * (1 + len(WAYS)),
        ["processor time, median and range of five", *times],
        ["gradients", *(f"{last.loc[way].gradients.median():.0f}" for way in WAYS)],
        ["largest error of the path", "certified", *(f"{error[way]:.0e}" for way in others)],
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def machine():
    """Name and cores of the processor, as the system tells them."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {"processor": (names or [platform.processor()])[0], "cores": os.cpu_count(), "system": platform.system()}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="93_NAME", help="which of them; all if none is given")
    parser.add_argument("--write", action="store_true", help="write the tables that are committed, and README's")
    given = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)  # of NumPy and SciPy
    for name in given.tables or TABLES:
        rows, columns = TABLES[name]
        wall, processor, load = time.perf_counter(), time.process_time(), os.getloadavg()[0]
        table = pandas.DataFrame(rows(), columns=columns)
        print(table.to_string(index=False, float_format="{:.4g}".format), flush=True)
        text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        about = {
            "command": "python tests/bench/bench_cost.py --write",
            "machine": machine(),
            "date": datetime.now(UTC).date().isoformat(),
            "threads": 1,
            "seconds": {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor},
            "load": {"before": load, "after": os.getloadavg()[0]},
            "versions": {**versions(), **{name: metadata.version(name) for name in ("torchdiffeq", "diffrax", "jax")}},
            "data": hashlib.sha256(text.encode()).hexdigest(),
        }
        if given.write:
            folder = files.source_path(files.find(name)).parent
            files.write_atomic(folder / f"{name}.csv", text)
            files.write_json(folder / f"{name}.json", about)
    if given.write:
        readme = files.root() / "README.md"
        files.write_atomic(readme, pages.filled(readme.read_text(encoding="utf-8"), "cost", beside()))


if __name__ == "__main__":
    main()
