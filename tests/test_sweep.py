"""Sweeps: the table, the cache, kill −9 on the way, and a dask cluster that loses a worker."""

import functools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pandas
import pytest
import torch
from conftest import ROOT

import dufm
from dufm import DufmError, sweep

FACTOR = 2
GRID = {"depth": [2, 3, 4], "scale": [0.5, 1.0]}


def doubled(x):
    return FACTOR * x


def task(seeds, depth, scale):
    return {"value": [doubled(seed) * scale**depth for seed in seeds], "kind": "deep" if depth > 2 else "ufm"}


def flow(seeds, depth, width):
    """Real work: ends of a small batch, one network a seed."""
    factors = [dufm.gaussian_init(depth, width, 4, seed=seed) for seed in seeds]
    run = dufm.gradient_flow([torch.cat(parts) for parts in zip(*factors, strict=True)], until_log_loss=-20.0)
    return {"log_time": run.log_time, "rank": dufm.effective_rank(run.Z), "status": run.status, "threads": threads()}


def threads():
    return torch.get_num_threads()


def slow(seeds, cell, folder):
    time.sleep(0.4)
    with open(os.path.join(folder, f"ran-{cell}"), "a") as log:
        log.write(f"{os.getpid()} ")
    return {"value": [10 * cell + seed for seed in seeds]}


def ran(folder, cell):
    """The processes that ran a cell of ``slow``."""
    return [int(pid) for pid in (folder / f"ran-{cell}").read_text().split()]


def leaving(seeds, depth):
    sys.exit(3)


def failing(seeds, depth):
    if depth == 3:
        raise ValueError("three is refused")
    return {"value": depth}


# ---------------------------------------------------------------- the table


def test_a_row_a_cell_and_seed_in_the_order_of_the_grid():
    table = sweep.run(task, GRID, seeds=[5, 1])
    assert list(table.columns) == ["depth", "scale", "seed", "value", "kind", "error"]
    expected = [(L, s, seed, 2 * seed * s**L) for L in (2, 3, 4) for s in (0.5, 1.0) for seed in (5, 1)]
    assert list(table[["depth", "scale", "seed", "value"]].itertuples(index=False, name=None)) == expected
    assert (table["error"] == "").all() and set(table["kind"]) == {"ufm", "deep"}


def test_progress_ends_with_the_cells_a_second(capsys, monkeypatch):
    monkeypatch.setattr(sweep, "tqdm", functools.partial(sweep.tqdm, disable=False))
    sweep.run(failing, {"depth": [2, 4]}, seeds=[0])
    assert re.search(r"failing: 2 cells in [0-9.]+ s, [0-9.]+ a second", capsys.readouterr().out)


def test_cells_may_be_listed_and_cost_changes_only_the_order_of_work():
    cells = [{"depth": 2, "scale": 1.0}, {"depth": 4, "scale": 0.5}]
    table = sweep.run(task, cells, seeds=range(3), cost=lambda depth, scale: depth)
    whole = sweep.run(task, GRID, seeds=range(3))
    for cell, part in table.groupby(["depth", "scale"]):
        same = whole[(whole["depth"] == cell[0]) & (whole["scale"] == cell[1])]
        assert part["value"].tolist() == same["value"].tolist()


def test_processes_compute_what_one_process_does_on_one_thread_each():
    grid = {"depth": [2, 3], "width": [4, 6]}
    before = torch.get_num_threads()
    here = sweep.run(flow, grid, seeds=range(3))
    assert torch.get_num_threads() == before
    there = sweep.run(flow, grid, seeds=range(3), jobs=2)
    assert set(there["error"]) == {""}
    pandas.testing.assert_frame_equal(here, there, rtol=1e-9)
    assert set(here["threads"]) == {1}


def test_a_failed_cell_is_a_row_with_its_message_and_is_tried_again(tmp_path):
    table = sweep.run(failing, {"depth": [2, 3]}, seeds=[0, 1], cache_dir=tmp_path)
    assert table["error"].tolist() == ["", "", *["ValueError: three is refused"] * 2]
    assert table["value"].tolist()[:2] == [2, 2] and np.isnan(table["value"][2:]).all()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("result", [{"depth": 1}, {"seed": 1}, {"a": [1, 2, 3]}, {"a": [None, None]}, [1, 2]])
def test_a_result_that_is_no_set_of_columns_is_a_failure_of_the_cell(result):
    table = sweep.run(lambda seeds, depth: result, {"depth": [2]}, seeds=[0, 1])
    assert table["error"].str.startswith("DufmError: ").all()


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({}, "at least one cell"),
        ({"a": []}, "at least one cell"),
        ({"a": 3}, "list of values"),
        ({"a": "text"}, "list of values"),
        ([{"a": 1}, {"b": 1}], "same names"),
        (3, "dict of lists"),
        ("text", "dict of lists"),
        ([1, 2], "dict of lists"),
        ({"seed": [1]}, "cannot be the name"),
        ({"a": [float("nan")]}, "finite"),
        ({"a": [np.zeros(2)]}, "plain numbers"),
        ({"a": [1, 1]}, "stands twice"),
    ],
)
def test_bad_grids(grid, said):
    with pytest.raises(DufmError, match=said):
        sweep.run(task, grid, seeds=[0])


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [0.5], 5])
def test_bad_seeds(seeds):
    with pytest.raises(DufmError, match="seeds"):
        sweep.run(task, GRID, seeds=seeds)


def test_bad_task_jobs_and_backend():
    with pytest.raises(DufmError, match="task must be a function"):
        sweep.run(max, GRID, seeds=[0])
    with pytest.raises(DufmError, match="jobs"):
        sweep.run(task, GRID, seeds=[0], jobs=0)
    with pytest.raises(DufmError, match="scheduler that answers"):
        sweep.run(task, GRID, seeds=[0], backend="nonsense://nowhere")
    with pytest.raises(DufmError, match="backend"):
        sweep.run(task, GRID, seeds=[0], backend=None)


def test_a_cache_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(DufmError, match="cache_dir must be a folder"):
        sweep.run(task, GRID, seeds=[0], cache_dir=tmp_path / "cache")


def test_a_task_that_exits_is_a_failed_cell():
    table = sweep.run(leaving, {"depth": [2]}, seeds=[0])
    assert table["error"].tolist() == ["SystemExit: 3"]


def test_cells_may_name_their_parameters_in_any_order_and_hold_numpy_numbers():
    table = sweep.run(task, [{"depth": np.int64(2), "scale": 1.0}, {"scale": 0.5, "depth": 3}], seeds=[1])
    assert table[["depth", "scale", "value"]].to_numpy().tolist() == [[2, 1.0, 2.0], [3, 0.5, 0.25]]


# ---------------------------------------------------------------- the cache


def test_a_second_run_reads_and_computes_nothing(tmp_path):
    grid = {"cell": [0, 1, 2], "folder": [str(tmp_path)]}
    first = sweep.run(slow, grid, seeds=[0], cache_dir=tmp_path / "cache")
    again = sweep.run(slow, grid, seeds=[0], cache_dir=tmp_path / "cache")
    pandas.testing.assert_frame_equal(first, again)
    wider = sweep.run(slow, {**grid, "cell": [2, 3]}, seeds=[0], cache_dir=tmp_path / "cache")
    assert wider["value"].tolist() == [20, 30]
    assert [len(ran(tmp_path, i)) for i in range(4)] == [1] * 4


def test_the_fingerprint_sees_helpers_and_constants(monkeypatch):
    before = sweep.fingerprint(task)
    assert sweep.fingerprint(task) == before != sweep.fingerprint(flow)
    monkeypatch.setitem(globals(), "FACTOR", 3)
    assert sweep.fingerprint(task) != before
    monkeypatch.undo()
    assert sweep.fingerprint(task) == before
    monkeypatch.setitem(globals(), "doubled", threads)
    assert sweep.fingerprint(task) != before

    def closed(value):
        return sweep.fingerprint(lambda seeds, a: [value for _ in seeds])

    assert closed(1) == closed(1) != closed(2)
    assert sweep.fingerprint(lambda s: [1]) != sweep.fingerprint(lambda s: [2])


FILE = """
import functools
import torch

{helper}

class Kept:
    def get(self, x):
        return {factor} * x

kept, tensor = Kept(), torch.arange(3.0)

def task(seeds, a):
    return {{"value": [float({call}) + float(tensor.sum()) for seed in seeds]}}
"""
PLAIN = "def helper(x):\n    return {factor} * x"
REACHED = {
    "called": (PLAIN, "helper(a)"),
    "cached": ("@functools.lru_cache\n" + PLAIN, "helper(a)"),
    "partial": (PLAIN + "\nbound = functools.partial(helper)", "bound(a)"),
    "in a dict": (PLAIN + "\ntable = dict(h=helper)", "table['h'](a)"),
    "of a class": ("", "Kept().get(a)"),
    "of an instance": ("", "kept.get(a)"),
    "bound method": ("", "kept_get(a)"),
}


@pytest.mark.parametrize("way", REACHED)
def test_a_change_anywhere_in_the_file_is_seen_and_nothing_else(way, tmp_path):
    helper, call = REACHED[way]
    prints = []
    for factor in (1, 1, 100):  # each in a process of its own
        code = FILE.format(helper=helper.format(factor=factor), call=call, factor=factor)
        code = code.replace("kept, tensor", "kept_get = Kept().get\nkept, tensor")
        (tmp_path / "mine.py").write_text(code, encoding="utf-8")
        run = [sys.executable, "-B", "-c", "import mine; from dufm import sweep; print(sweep.fingerprint(mine.task))"]
        done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True)
        prints.append(done.stdout)
    assert prints[0] == prints[1] != prints[2]


def test_a_value_that_cannot_be_hashed_is_named():
    lock = threading.Lock()
    with pytest.raises(DufmError, match="no value to hash"):
        sweep.fingerprint(lambda seeds: lock)


def test_a_worker_with_another_task_is_refused(monkeypatch, tmp_path):
    """Workers import the task's file again: what this process changed in it since is not there."""
    monkeypatch.setitem(globals(), "FACTOR", 3)
    there = sweep.run(task, GRID, seeds=[1], jobs=2, cache_dir=tmp_path)
    assert there["error"].str.contains("another version").all() and not list(tmp_path.iterdir())


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from dufm import sweep
from test_sweep import slow
table = sweep.run(slow, {{"cell": list(range(10)), "folder": [{folder!r}]}}, seeds=[0, 1], jobs=2, cache_dir={cache!r})
table.to_csv({out!r}, index=False)
"""


def test_kill_9_loses_nothing_and_runs_no_finished_cell_twice(tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "table.csv"
    script = SCRIPT.format(tests=str(ROOT / "tests"), folder=str(tmp_path), cache=str(cache), out=str(out))
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    child = subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    finished = {path.name for path in cache.glob("[!.]*.json")}
    assert 3 <= len(finished) < 10 and not out.exists()
    begun = {path.name for path in tmp_path.glob("ran-*")}
    before = {path.name: path.stat().st_mtime_ns for path in cache.glob("[!.]*.json")}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)
    table = pandas.read_csv(out)
    assert table["value"].tolist() == [10 * cell + seed for cell in range(10) for seed in (0, 1)]
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in cache.glob("[!.]*.json")}.items()
    runs = [len(ran(tmp_path, i)) for i in range(10)]
    # A cell that was running when the kill came may run again; none of the finished ones does.
    assert sum(runs) - 10 == sum(count == 2 for count in runs) <= len(begun) - len(finished)


# ---------------------------------------------------------------- a cluster


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def cluster(tmp_path):
    """A scheduler and two workers, real processes on loopback: its address, and the workers."""
    address = f"tcp://127.0.0.1:{_free_port()}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}

    def start(*command):
        return subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    scheduler = start("distributed.cli.dask_scheduler", "--host", address, "--no-dashboard")
    own = ("--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(tmp_path))
    workers = [start("distributed.cli.dask_worker", address, *own) for _ in range(2)]
    yield address, workers
    for process in (*workers, scheduler):
        process.kill()
        process.wait()


def test_a_cluster_that_loses_a_worker_gives_the_same_table(cluster, tmp_path):
    address, workers = cluster
    victim = workers[0]
    grid = {"cell": list(range(8)), "folder": [str(tmp_path)]}
    local = sweep.run(slow, grid, seeds=[0, 1])
    for path in tmp_path.glob("ran-*"):
        path.unlink()

    def kill_on_the_way():
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("ran-*"))) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        victim.kill()

    killer = threading.Thread(target=kill_on_the_way)
    killer.start()
    table = sweep.run(slow, grid, seeds=[0, 1], backend=address, cache_dir=tmp_path / "cache")
    killer.join()
    assert victim.wait(10) == -signal.SIGKILL
    pandas.testing.assert_frame_equal(table, local)
    assert len(list((tmp_path / "cache").iterdir())) == 8
    assert {pid for cell in range(8) for pid in ran(tmp_path, cell)} == {worker.pid for worker in workers}


def test_reproduce_refuses_a_scheduler_that_does_not_answer(capsys, tmp_path):
    from dufm.__main__ import main

    address = f"tcp://127.0.0.1:{_free_port()}"
    assert main(["reproduce", "00", "--cluster", address, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"dufm: backend must be 'local' or a dask scheduler that answers, got .+\n", said)
