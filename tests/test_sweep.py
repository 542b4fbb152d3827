"""Sweeps: the table, what is kept of it, and kill −9 on the way."""

import asyncio
import functools
import json
import os
import random
import subprocess
import sys
import time

import numpy as np
import pandas
import psutil
import pytest
import torch
from conftest import ROOT, posix

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


ARRAY, MEMO = np.arange(6.0)[::3], {}


def strided(seeds, a):
    MEMO[a] = float(ARRAY.sum())
    return {"value": a * MEMO[a]}


def slow(seeds, cell, folder):
    time.sleep(0.4)
    with open(os.path.join(folder, f"ran-{cell}"), "a") as log:
        log.write(f"{os.getpid()} ")
    return {"value": [10 * cell + seed for seed in seeds]}


def ended(seeds, depth, scale):
    return {"name": ["NC" if seed < depth else "other" for seed in seeds]}


def test_cells_of_a_table_run_again_and_are_compared():
    """Every second of six cells, two seeds each; one of their rows is changed, one is dropped, one is not looked at."""
    known = sweep.run(ended, GRID, seeds=range(3, 7))
    at = known.reset_index().groupby(["depth", "seed"])["index"].apply(list)
    options = {"every": 2, "networks": 2}
    assert sweep.run_again(ended, known, ["depth", "scale"], **options) == (6, 6, 0)
    known.loc[at[2, 3][0], "name"] = "polygon"
    known.loc[at[2, 4][1], "name"] = "polygon"  # in the second cell
    assert sweep.run_again(ended, known, ["depth", "scale"], **options) == (6, 6, 1)
    assert sweep.run_again(ended, known.drop(at[3, 4][0]), ["depth", "scale"], **options) == (6, 5, 1)


def ran(folder, cell):
    """The processes that ran a cell of ``slow``."""
    return [int(pid) for pid in (folder / f"ran-{cell}").read_text().split()]


def kept(folder):
    """The cells in a cache."""
    return [cell for path in folder.rglob("*.json") for cell, _ in json.loads(path.read_text())]


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
    assert kept(tmp_path) == [{"depth": 2}]


WRONG = [{"depth": 1}, {"seed": 1}, {"a": [1, 2, 3]}, {"a": [None, None]}, [1, 2]]


def returning(seeds, depth):
    return WRONG[depth]


@pytest.mark.parametrize("depth", range(len(WRONG)))
def test_a_result_that_is_no_set_of_columns_is_a_failure_of_the_cell(depth):
    table = sweep.run(returning, {"depth": [depth]}, seeds=[0, 1])
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
        ({"a": ["\ud800"]}, "plain numbers or texts"),
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
    for wrong in (max, lambda seeds, depth, scale: {"value": 1}, functools.partial(task)):
        with pytest.raises(DufmError, match="task must be a function"):
            sweep.run(wrong, GRID, seeds=[0])
    with pytest.raises(DufmError, match="jobs"):
        sweep.run(task, GRID, seeds=[0], jobs=0)
    for backend in ("nonsense", "nonsense://nowhere", None, "tcp://host", "tcp://127.0.0.1:99999"):
        with pytest.raises(DufmError, match="backend must be"):
            sweep.run(task, GRID, seeds=[0], backend=backend)


def test_a_cache_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(DufmError, match="cache_dir must be a folder"):
        sweep.run(task, GRID, seeds=[0], cache_dir=tmp_path / "cache")


def test_a_task_that_exits_is_a_failed_cell():
    table = sweep.run(leaving, {"depth": [2]}, seeds=[0])
    assert table["error"].tolist() == ["SystemExit: 3"]


class Mute(Exception):
    def __str__(self):
        raise RuntimeError


RAISED = {
    "GeneratorExit": (GeneratorExit("left"), "GeneratorExit: left"),
    "CancelledError": (asyncio.CancelledError(), "CancelledError:"),
    "surrogate": (ValueError("a\ud800b"), "ValueError: a\\ud800b"),
    "lines": (ValueError("one\n  two\r\nthree"), "ValueError: one two three"),
    "mute": (Mute(), "Mute: (its message cannot be read)"),
}


def raising(seeds, kind):
    raise RAISED[kind][0]


def test_whatever_a_task_raises_is_one_line_that_any_file_can_hold(tmp_path):
    table = sweep.run(raising, {"kind": list(RAISED)}, seeds=[0])
    assert table["error"].tolist() == [said for _, said in RAISED.values()]
    table.to_csv(tmp_path / "table.csv", encoding="utf-8")


def interrupted(seeds, a):
    raise KeyboardInterrupt


def test_an_interruption_is_no_failure_of_a_cell():
    with pytest.raises(KeyboardInterrupt):
        sweep.run(interrupted, {"a": [1]}, seeds=[0])


def tiny(seeds, a):
    return {"value": a}


def test_a_thousand_tiny_cells_cost_less_than_half_a_millisecond_each(tmp_path):
    grid = {"a": list(range(1000))}
    sweep.run(tiny, {"a": [0]}, seeds=[0])
    for options in ({}, {"cache_dir": tmp_path}):
        began = time.process_time()
        table = sweep.run(tiny, grid, seeds=[0], **options)
        assert time.process_time() - began < 0.5
        assert table["value"].tolist() == grid["a"]
    assert len(kept(tmp_path)) == 1000 and len(list(tmp_path.rglob("*.json"))) < 50


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


HELPER = "FACTOR = 1\n\n\ndef task(seeds, a):\n    return {'value': [FACTOR * a for seed in seeds]}\n"
ONCE = """
import sys
sys.path.insert(0, {folder!r})
import mine
from dufm import sweep
print(sweep.run(mine.task, {{"a": [2]}}, seeds=[0], cache_dir={cache!r})["value"][0])
"""


def test_a_change_in_the_tasks_module_is_seen(tmp_path):
    """Each run in a process of its own, the second with what the first has kept."""
    prints = []
    for text in (HELPER, HELPER, HELPER.replace("FACTOR = 1", "FACTOR = 9")):
        (tmp_path / "mine.py").write_text(text, encoding="utf-8")
        code = ONCE.format(folder=str(tmp_path), cache=str(tmp_path / "cache"))
        done = subprocess.run([sys.executable, "-B", "-c", code], capture_output=True, text=True, check=True)
        prints.append(int(done.stdout))
        assert len(kept(tmp_path / "cache")) == (1 if len(prints) < 3 else 2)
    assert prints == [2, 2, 18]


def test_a_change_in_dufm_is_seen(tmp_path, monkeypatch):
    grid = {"cell": [0], "folder": [str(tmp_path)]}
    for digest in ("one", "two", "two"):
        monkeypatch.setattr(sweep, "_PACKAGE", digest)
        sweep.run(slow, grid, seeds=[0], cache_dir=tmp_path / "cache")
    assert len(ran(tmp_path, 0)) == 2


def test_a_worker_with_another_package_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sweep, "_PACKAGE", "another")
    with pytest.raises(DufmError, match="^task stopped, .+ another version of dufm or of the task"):
        sweep.run(task, {"depth": [2], "scale": [1.0]}, seeds=[1], jobs=2, cache_dir=tmp_path)
    assert kept(tmp_path) == []


def test_strided_and_memoised_tasks_run_in_workers():
    """What a worker imports again need not look alike in memory."""
    strided(seeds=[0], a=1)
    table = sweep.run(strided, {"a": [2]}, seeds=[0, 1], jobs=2)
    assert table["value"].tolist() == [6.0, 6.0] and (table["error"] == "").all()


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from dufm import sweep
from test_sweep import slow
sweep.run(slow, {grid!r}, seeds=[0, 1], jobs={jobs}, cache_dir={cache!r})
"""


def grid_of(folder, count):
    return {"cell": list(range(count)), "folder": [str(folder)]}


def start(folder, count, jobs):
    """A process that sweeps over so many cells of ``slow`` with a cache in ``folder``."""
    text = SCRIPT.format(tests=str(ROOT / "tests"), grid=grid_of(folder, count), jobs=jobs, cache=str(folder / "cache"))
    environment = {**os.environ, "TQDM_DISABLE": "1"}
    return subprocess.Popen([sys.executable, "-c", text], env=environment, start_new_session=True)


def go_on(folder, count):
    """The table of the same sweep, from what is in its cache on, in this process."""
    return sweep.run(slow, grid_of(folder, count), seeds=[0, 1], cache_dir=folder / "cache")


def ends(pids, seconds):
    """Whether these processes end in so many seconds; one that nobody has waited for yet has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        alive = [psutil.Process(pid).status() for pid in pids if psutil.pid_exists(pid)]
        if set(alive) <= {psutil.STATUS_ZOMBIE}:
            return True
        time.sleep(0.05)
    return False


@posix
def test_kill_9_loses_nothing_and_runs_no_finished_cell_twice(tmp_path):
    """The caller alone is killed: its workers end by themselves."""
    child = start(tmp_path, 10, jobs=2)
    deadline = time.monotonic() + 60
    while len(kept(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    workers = {pid for path in tmp_path.glob("ran-*") for pid in ran(tmp_path, path.name[4:])}
    assert child.pid not in workers and ends(workers, 3)
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}
    assert 3 <= len(finished) < 10
    begun = {path.name for path in tmp_path.glob("ran-*")}
    table = go_on(tmp_path, 10)
    assert table["value"].tolist() == [10 * cell + seed for cell in range(10) for seed in (0, 1)]
    assert finished.items() <= {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.json")}.items()
    runs = [len(ran(tmp_path, i)) for i in range(10)]
    # A cell that was running when the kill came may run again; none of the finished ones does.
    assert sum(runs) - 10 == sum(count == 2 for count in runs) <= len(begun) - len(finished)


def killed_at_random(folder, kills, jobs, seed):
    """The table of a sweep of six cells that is killed so many times, a moment after a cell has begun or before any."""
    draw = random.Random(seed)
    for begun in sorted(draw.randrange(7) for _ in range(kills)):
        child = start(folder, 6, jobs)
        while len(list(folder.glob("ran-*"))) < begun and child.poll() is None:
            time.sleep(0.02)
        time.sleep(draw.uniform(0.0, 0.5 if begun else 2.0))
        child.kill()
        child.wait()
    return go_on(folder, 6)


@posix
def test_three_kills_at_random_moments_leave_the_table_as_it_is(tmp_path):
    expected = sweep.run(slow, grid_of(tmp_path, 6), seeds=[0, 1])
    for path in tmp_path.glob("ran-*"):
        path.unlink()
    pandas.testing.assert_frame_equal(killed_at_random(tmp_path, kills=3, jobs=1, seed=1), expected)


@posix
@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_a_kill_at_a_random_moment_leaves_the_table_as_it_is(seed, tmp_path):
    expected = sweep.run(slow, grid_of(tmp_path, 6), seeds=[0, 1])
    for path in tmp_path.glob("ran-*"):
        path.unlink()
    pandas.testing.assert_frame_equal(killed_at_random(tmp_path, kills=1, jobs=2, seed=seed), expected)
