"""Notebooks that end badly, kills and Ctrl-C at any moment: one line, no process left, the result of a quiet run."""

import contextlib
import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import HEADER, mounted, posix

from dufm import __main__ as cli
from dufm.companion import build, child, files, reproduce, warm

PLAIN = (
    HEADER
    + """# %% [markdown]
# # A notebook that needs no torch

# %% tags=["parameters"]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
"""
)
# Of the real checkout: seconds each, the last one with a sweep on two workers.
QUICK = ("15", "16")
SWEEP = "import joblib, time\njoblib.Parallel(2)(joblib.delayed(time.sleep)(600) for _ in range(2))\n"


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    """The commands set variables for the kernels they start: put them back; what a killed one leaves goes with us."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for name in ("DUFM_OUT", "DUFM_DEVICE", "DUFM_JOBS", "JUPYTER_PATH", *build.QUIET):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def add(checkout, name, code):
    (checkout / "notebooks" / "2_margin" / f"{name}.py").write_text(PLAIN + code, encoding="utf-8")


# ---------------------------------------------------------------- notebooks that end badly


@posix
@pytest.mark.slow
def test_a_notebook_that_fails_is_one_line_and_the_others_go_on(checkout, capsys, monkeypatch):
    """Left by ``sys.exit(0)``, dead with its workers alive, never started, half written; and one is well."""
    add(checkout, "28_leaves", "import sys\nsys.exit(0)\n")
    add(checkout, "29_dies", f"import os, threading\nthreading.Timer(4, os._exit, [0]).start()\n{SWEEP}")
    add(checkout, "31_never", "1 + 1\n")
    add(checkout, "32_half", "1 + 1\n")
    add(checkout, "33_well", "1 + 1\n")
    (checkout / "notebooks" / "2_margin" / "33_well.ipynb").write_text("{", encoding="utf-8")
    out = checkout / "out"
    old = nbformat.v4.new_output("error", ename="OldError", evalue="of the first run")
    for name in ("31_never", "32_half"):
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[old])])
        files.write_atomic(out / "notebooks" / f"{name}.ipynb", nbformat.writes(made))
    files.write_atomic(out / "state.json", b"")
    start = child.start

    def interfere(source, target, *arguments, **options):
        if target.stem == "31_never":
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        if target.stem == "32_half":
            target.write_text('{"cells": [', encoding="utf-8")
            source.unlink()
        return start(source, target, *arguments, **options)

    monkeypatch.setattr(child, "start", interfere)
    numbers = ["28", "29", "31", "32", "33"]
    assert cli.main(["reproduce", *numbers, "--jobs", "3"]) == 1
    said, err = capsys.readouterr()
    assert err == ""
    assert "state.json is damaged" in said and "OldError" not in said
    stopped = dict(re.findall(r"^(\d\d)_\w+ stopped: (.*)", said, re.MULTILINE))
    assert sorted(stopped) == ["28", "29", "31", "32"], said
    assert stopped["28"].startswith("SystemExit: 0") and "DeadKernelError" in stopped["29"]
    assert "temporarily unavailable" in stopped["31"] and "No such file" in stopped["32"]
    assert "33_well.ipynb is damaged" in said and "no claims to judge" in said
    left = {path.name for path in (out / "notebooks").iterdir()}
    assert {"28_leaves.ipynb", "33_well.ipynb"} <= left and not {"31_never.ipynb", "32_half.ipynb"} & left
    assert not processes_of(out)


@pytest.mark.skipif(not warm.AVAILABLE, reason="kernels are forked on Linux alone")
@pytest.mark.slow
def test_a_server_of_kernels_that_is_killed_costs_the_notebooks_that_run(checkout, capsys):
    add(checkout, "28_kills", "import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(60)\n")
    add(checkout, "29_well", "import os, psutil\nassert 'ipykernel' in ' '.join(psutil.Process().cmdline())\n")
    assert cli.main(["reproduce", "28", "29", "--jobs", "1"]) == 1
    said, err = capsys.readouterr()
    assert err == "" and re.findall(r"^(\d\d)_\w+ stopped: (.*)", said, re.MULTILINE)[0][0] == "28", said
    assert "29_well stopped" not in said and "DeadKernelError" in said
    assert not processes_of(checkout / "out")


@posix
@pytest.mark.slow
def test_a_full_disk_publishes_nothing_that_is_cut_off(checkout, run_dufm, tmp_path):
    add(checkout, "28_big", "for _ in range(40):\n    print('x' * 10_000)\n")
    add(checkout, "29_small", "1 + 1\n")
    with mounted(tmp_path / "full", "-o", "size=300k") as folder:
        done = run_dufm("reproduce", "28", "29", "--jobs", "1", "--out", str(folder))
        assert (done.returncode, done.stderr) == (1, "")
        assert re.search(r"^28_big stopped: .*No space left on device", done.stdout, re.MULTILINE), done.stdout
        assert "29_small  " in done.stdout and "29_small stopped" not in done.stdout
        left = sorted((folder / "notebooks").iterdir())
        assert [path.name for path in left] == ["29_small.ipynb"] and build.read_notebook(left[0])


@posix
@pytest.mark.slow
def test_a_folder_that_disappears_is_one_line(checkout, contents, run_dufm, tmp_path):
    """Run from a folder whose modules are not taken for those that it needs."""
    (tmp_path / "papermill.py").write_text("raise SystemExit('taken from the folder you are in')", encoding="utf-8")
    add(checkout, "28_removes", "import os, shutil\nshutil.rmtree(os.environ['DUFM_OUT'])\n")
    before = contents()
    done = run_dufm("reproduce", "28")
    assert done.returncode in (1, 2) and "Traceback" not in done.stdout + done.stderr
    assert "No such file" in done.stdout + done.stderr
    assert contents() == before


# ---------------------------------------------------------------- kills


def processes_of(out):
    """Processes that were started to write into ``out``, and that are not dead."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("DUFM_OUT") == str(out) and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process.pid, " ".join(process.cmdline())))
    return found


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def started(*arguments):
    """``dufm`` in a process where Ctrl-C is not ignored, as it is in the background of a shell."""
    return subprocess.Popen(
        [sys.executable, "-m", "dufm", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Its output waits until Python ends, wherever the tests run.
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def left_two_seconds_later(out):
    """What still runs when two seconds have passed since a command was stopped."""
    with contextlib.suppress(AssertionError):
        wait_for(lambda: not processes_of(out), 2)
    return processes_of(out)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("how", ["^C twice", "kill -9"])
def test_the_workers_of_a_sweep_end_with_the_command(checkout, tmp_path, how):
    add(checkout, "28_sweeps", SWEEP)
    out = tmp_path / "there"
    with started("reproduce", "28", "--out", str(out)) as run:
        wait_for(lambda: sum("popen_loky" in command for _, command in processes_of(out)) >= 2, 60)
        pids = [pid for pid, _ in processes_of(out)]
        if how == "kill -9":
            run.kill()
        else:
            run.send_signal(signal.SIGINT)
            time.sleep(0.02)
            run.send_signal(signal.SIGINT)
        assert left_two_seconds_later(out) == []
        _, err = run.communicate(timeout=60)
    if how == "^C twice":
        assert (run.returncode, err) == (130, "dufm: interrupted; the same command goes on from here\n")
    assert not list((out / "notebooks").glob("*.ipynb"))
    assert not [path for pid in pids for path in Path("/dev/shm").glob(f"*[-_]{pid}[-_]*")]


@posix
def test_an_interruption_when_all_is_said_changes_nothing(checkout):
    with started("claims") as run:
        run.stdout.read(1)  # written when Python ends, which takes a while with torch
        run.send_signal(signal.SIGINT)
        assert (run.stderr.read(), run.wait(60)) == ("", 0)


def result(out):
    """What a run has made, without times: outputs of the notebooks, bytes of the figures."""
    made = {}
    for path in sorted((out / "notebooks").iterdir()):
        cells = build.read_notebook(path).cells
        compared = (cell for cell in cells if "nbval-ignore-output" not in cell.metadata.get("tags", []))
        made[path.name] = [cell.get("outputs") for cell in compared]
    return made | {path.name: path.read_bytes() for path in sorted((out / "figures").iterdir())}


def stopped_at(out, seconds, sent, *arguments):
    """Send a signal to ``dufm reproduce`` after so many seconds; what it said on stderr, and its exit code."""
    with started("reproduce", *arguments, "--out", str(out)) as run:
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(seconds)
        run.send_signal(sent)
        assert left_two_seconds_later(out) == []
        _, err = run.communicate(timeout=60)
    return err, run.returncode


@posix
@pytest.mark.slow
def test_three_kills_at_random_leave_the_result_of_a_run_undisturbed(checkout, tmp_path):
    """A kill before the first notebook has ended, in the second, and anywhere."""
    draw, out, clean = random.Random(14), tmp_path / "killed", tmp_path / "clean"
    for name in ("28_first", "29_second"):
        add(checkout, name, f"print('{name}')\n")
    began = time.monotonic()
    assert cli.main(["reproduce", "28", "29", "--jobs", "1", "--out", str(clean)]) == 0
    whole = time.monotonic() - began
    for low, high in ((0.3, 0.6), (0.6, 1.0), (0.0, 1.0)):
        stopped_at(out, draw.uniform(low, high) * whole, signal.SIGKILL, "28", "29", "--jobs", "1")
    assert cli.main(["reproduce", "28", "29", "--jobs", "1", "--out", str(out)]) == 0
    assert result(out) == result(clean) and len(result(out)) == 2
    assert not [path for path in out.rglob(".*") if path.name != reproduce.LOCK]


@posix
@pytest.mark.soak
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "^C"])
def test_twenty_stops_at_random_give_twenty_equal_results(tmp_path, run_dufm, sent):
    """Quick notebooks of the real checkout, one with a sweep; each run is stopped once and then goes on to its end."""
    draw, clean, arguments = random.Random(int(sent)), tmp_path / "clean", (*QUICK, "--budget", "smoke", "--jobs", "4")
    began = time.monotonic()
    assert run_dufm("reproduce", *arguments, "--out", str(clean)).returncode == 0
    whole = time.monotonic() - began
    for trial in range(20):
        out, moment = tmp_path / str(trial), draw.uniform(0.0, 1.0) * whole
        err, code = stopped_at(out, moment, sent, *arguments)
        if sent == signal.SIGINT and code != 0 and moment > 1.0:  # before, Python itself was starting
            assert (err, code) == ("dufm: interrupted; the same command goes on from here\n", 130)
        assert run_dufm("reproduce", *arguments, "--out", str(out)).returncode == 0
        assert result(out) == result(clean), f"stop {trial}"
