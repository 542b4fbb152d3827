"""Workers that die, leave, are too few or have other code: here and on a dask cluster, real processes on loopback."""

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import dask
import distributed
import pandas
import psutil
import pytest
from conftest import ROOT, posix

from dufm import DufmError, cells, pools, sweep

# ---------------------------------------------------------------- processes


def mortal(seeds, a, folder):
    """Cell 1 kills its process at the first try, cell 2 at each; the others say who computed them."""
    tried = any(name.startswith(f"{a}-") for name in os.listdir(folder))
    if a == 2 or (a == 1 and not tried):
        open(os.path.join(folder, f"{a}-{time.monotonic_ns()}"), "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": [a * seed for seed in seeds]}


@posix
@pytest.mark.filterwarnings("ignore:resource_tracker")
def test_a_cell_whose_process_dies_is_tried_again_and_the_others_finish(tmp_path):
    (tmp_path / "tries").mkdir()
    grid = {"a": list(range(6)), "folder": [str(tmp_path / "tries")]}
    table = sweep.run(mortal, grid, seeds=[1, 2], jobs=2, cache_dir=tmp_path / "cache")
    assert table["value"].dropna().tolist() == [0, 0, 1, 2, 3, 6, 4, 8, 5, 10]
    failed = table[table["error"] != ""]
    assert set(failed["a"]) == {2} and failed["error"].str.match("TerminatedWorkerError: .+SIGKILL").all()
    tried = [name[0] for name in os.listdir(tmp_path / "tries")]
    assert tried.count("1") == 1 and 2 <= tried.count("2") <= 3  # the first of them perhaps in a batch with others


def named(seeds, a, wait):
    time.sleep(wait)
    return {"pid": os.getpid()}


def children():
    """Child processes that live, but for the book-keepers of multiprocessing."""
    found = set()
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie counts as gone
            if "resource_tracker" not in " ".join(child.cmdline()):
                found.add(child.pid)
    return found


@pytest.fixture
def interruptible():
    """Ctrl-C as at a prompt: what a shell starts in the background is born deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@posix
def test_processes_serve_the_next_sweep_and_end_when_one_is_interrupted(interruptible):
    first, second = (sweep.run(named, {"a": [1, 2], "wait": [0.0]}, seeds=[0], jobs=2) for _ in range(2))
    pids = set(first["pid"]) | set(second["pid"])
    assert os.getpid() not in pids and pids <= children() and len(pids) <= 2
    threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        sweep.run(named, {"a": [1, 2], "wait": [60.0]}, seeds=[0], jobs=2)
    deadline = time.monotonic() + 2
    while children() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not children()


# ---------------------------------------------------------------- a cluster


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def cluster(folder, workers):
    """A scheduler and so many workers: its address, its process, theirs."""
    address = f"tcp://127.0.0.1:{_free_port()}"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    quiet = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    own = ["--nthreads", "1", "--no-dashboard", "--no-nanny", "--local-directory", str(folder)]
    commands = [["scheduler", "--host", address, "--no-dashboard"], *[["worker", address, *own]] * workers]
    started = [
        subprocess.Popen([sys.executable, "-m", f"distributed.cli.dask_{name}", *rest], **quiet)
        for name, *rest in commands
    ]
    try:
        with distributed.Client(address, timeout=60, set_as_default=False) as client:
            if workers:
                client.wait_for_workers(workers, timeout=60)
        yield address, started[0], started[1:]
    finally:
        for process in started:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def one_worker(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster"), 1) as (address, _, (worker,)):
        yield address, worker


def slow(seeds, cell, folder):
    time.sleep(0.3)
    with open(os.path.join(folder, f"ran-{cell}-{os.getpid()}"), "w"):
        return {"value": [10 * cell + seed for seed in seeds]}


def grid(folder, count=8):
    return {"cell": list(range(count)), "folder": [str(folder)]}


def ran(folder):
    """The processes that ran cells of ``slow``."""
    return {int(path.name.rsplit("-", 1)[1]) for path in folder.glob("ran-*")}


def when(folder, count, act):
    """A thread that acts once so many cells have run."""

    def watch():
        deadline = time.monotonic() + 60
        while len(list(folder.glob("ran-*"))) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def same_as_here(table, folder, count=8):
    pandas.testing.assert_frame_equal(table, sweep.run(slow, grid(folder, count), seeds=[0, 1]))


@posix
def test_one_worker_thread_computes_and_not_the_caller(one_worker, tmp_path):
    address, worker = one_worker
    table = sweep.run(slow, grid(tmp_path, 2), seeds=[0, 1], backend=address)
    assert ran(tmp_path) == {worker.pid}
    same_as_here(table, tmp_path, 2)


@posix
def test_a_worker_with_other_code_is_refused(one_worker, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep, "_PACKAGE", "another")
    with pytest.raises(DufmError, match="another version of dufm or of the task"):
        sweep.run(slow, grid(tmp_path), seeds=[0], backend=one_worker[0], cache_dir=tmp_path / "cache")
    assert not ran(tmp_path) and not list(tmp_path.rglob("*.json"))


@posix
def test_a_worker_without_the_module_is_one_line(one_worker, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def task(seeds, a):\n    return {'value': a}\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here

    said = "^task stopped, finished cells stay in cache_dir: ModuleNotFoundError: No module named 'only_here'$"
    with pytest.raises(DufmError, match=said):
        sweep.run(only_here.task, {"a": [1, 2]}, seeds=[0], backend=one_worker[0])


class Wire:
    """A line to the scheduler that can be held, so that nothing passes, and cut."""

    def __init__(self, address):
        self.target = address.removeprefix("tcp://").split(":")
        self.passes = threading.Event()
        self.passes.set()
        self.ends = [socket.create_server(("127.0.0.1", 0))]
        self.address = f"tcp://127.0.0.1:{self.ends[0].getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.ends[0].accept()
                far = socket.create_connection((self.target[0], int(self.target[1])))
                self.ends += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.pump, args=pair, daemon=True).start()

    def pump(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self.passes.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def hold(self, seconds):
        self.passes.clear()
        time.sleep(seconds)
        self.passes.set()

    def cut(self):
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@posix
def test_a_network_that_is_gone_for_ten_seconds_changes_nothing(one_worker, tmp_path):
    wire = Wire(one_worker[0])
    holder = when(tmp_path, 2, lambda: wire.hold(10))
    began = time.monotonic()
    table = sweep.run(slow, grid(tmp_path), seeds=[0, 1], backend=wire.address)
    assert time.monotonic() - began > 10
    holder.join()
    wire.cut()
    same_as_here(table, tmp_path)


def ends_in_one_line_and_keeps_what_is_done(address, act, folder):
    """The sweep, while ``act`` takes its scheduler away; then the same call without a cluster."""
    acted, logged = [], []
    handler = logging.Handler()
    handler.emit = logged.append
    log = logging.getLogger("distributed.client")
    log.addHandler(handler)
    actor = when(folder, 3, lambda: (act(), acted.append(time.monotonic())))
    with pytest.raises(DufmError) as caught:
        sweep.run(slow, grid(folder, 40), seeds=[0, 1], backend=address, cache_dir=folder / "cache")
    actor.join()
    log.removeHandler(handler)
    assert time.monotonic() - acted[0] < 15 and not logged
    said = str(caught.value)
    known = f"(slow stopped|the dask scheduler {address} is gone), finished cells stay in cache_dir: "
    assert re.match(known, said) and "\n" not in said
    done = len(cells.load(next((folder / "cache").iterdir()), lambda columns, cell: columns))
    before = len(list(folder.glob("ran-*")))
    assert before >= done >= 2 and before - done <= 2
    count = done + 2
    table = sweep.run(slow, grid(folder, count), seeds=[0, 1], cache_dir=folder / "cache")
    assert table["value"].tolist() == [10 * cell + seed for cell in range(count) for seed in (0, 1)]
    assert len(list(folder.glob(f"ran-*-{os.getpid()}"))) == 2


@posix
def test_a_line_that_is_cut(one_worker, tmp_path):
    wire = Wire(one_worker[0])
    ends_in_one_line_and_keeps_what_is_done(wire.address, wire.cut, tmp_path)


@posix
def test_a_cluster_that_loses_a_worker_and_then_its_scheduler(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with cluster(tmp_path, 2) as (address, scheduler, workers):
        killer = when(first, 3, workers[0].kill)
        table = sweep.run(slow, grid(first), seeds=[0, 1], backend=address, cache_dir=first / "cache")
        killer.join()
        assert workers[0].wait(10) == -signal.SIGKILL
        assert ran(first) <= {worker.pid for worker in workers}
        same_as_here(table, first)
        ends_in_one_line_and_keeps_what_is_done(address, scheduler.kill, second)


@posix
def test_a_scheduler_without_a_worker_is_one_line_and_soon(tmp_path, monkeypatch):
    assert pools.PATIENCE == 10
    monkeypatch.setattr(pools, "PATIENCE", 5)
    with cluster(tmp_path, 0) as (address, _, _):
        with pytest.raises(DufmError, match=f"^the dask scheduler {address} has had no worker for 5 s: start one$"):
            sweep.run(slow, grid(tmp_path), seeds=[0], backend=address)


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
def test_a_line_that_dask_is_not_set_up_for_is_refused_at_once(scheme, tmp_path):
    """Plain where encryption is required, encrypted where there is no certificate."""
    settings = {"distributed.comm.require-encryption": True, "distributed.comm.tls.ca-file": None}
    with dask.config.set(settings), pytest.raises(DufmError, match="does not fit dask's configuration"):
        sweep.run(slow, grid(tmp_path), seeds=[0], backend=f"{scheme}://127.0.0.1:{_free_port()}")


def test_reproduce_refuses_a_scheduler_that_does_not_answer(checkout, capsys, tmp_path, monkeypatch):
    from dufm.__main__ import main

    monkeypatch.setattr(pools, "PATIENCE", 1)
    address = f"tcp://127.0.0.1:{_free_port()}"
    assert main(["reproduce", "00", "--cluster", address, "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"dufm: backend must be 'local' or a dask scheduler that answers, got .+\n", said)
