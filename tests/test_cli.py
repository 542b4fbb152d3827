import json
import os
import signal
import subprocess
import sys
import time

import pytest

from dufm import __main__ as cli
from dufm import maintain

ERRORS = [
    (["reproduce", "42"], "unknown notebook '42'; choose from 00_overview, 07_stub"),
    (["reproduce", "-p", "num_clases=5"], "unknown parameter 'num_clases'; choose from budget, depths, num_classes"),
    (["reproduce", "00", "-p", "num_classes=5"], "unknown parameter 'num_classes'; choose from budget, seed"),
    (["reproduce", "07", "-p", "num_classes=five"], "num_classes must be int, in [2, 64]; got 'five'"),
    (["reproduce", "07", "-p", "num_classes=1"], "num_classes must be int, in [2, 64]; got 1"),
    (["reproduce", "07", "-p", "depths=3"], "depths must be list[int] such as [2, 3, 4], each in [2, 16]; got '3'"),
    (["reproduce", "--budget", "big"], "budget must be str, one of smoke, default, full; got 'big'"),
    (["reproduce", "--budget", "smoke", "-p", "budget=full"], "budget is given twice"),
    (["reproduce", "-p", "seed"], "expected name=value, got 'seed'"),
    (["reproduce", "--jobs", "0"], "must be a whole number, 1 or more, got '0'"),
    (["reproduce", "--device", "tpu"], "invalid choice: 'tpu'"),
    (["reproduce", "--out", "/dev/null/x"], "cannot write to /dev/null/x"),
    (["figures", "42"], "unknown notebook '42'"),
    (["frobnicate"], "invalid choice: 'frobnicate'"),
    ([], "required: command"),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The commands set variables for the kernels they start: put them back."""
    for name in ("DUFM_OUT", "DUFM_ROOT", "DUFM_DEVICE", "TQDM_DISABLE", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in ("DUFM_OUT", "DUFM_ROOT", "DUFM_DEVICE"):
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_bad_arguments_are_one_line(checkout, contents, capsys, arguments, message):
    before = contents()
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dufm: ") and err.count("\n") == 1 and message in err
    assert contents() == before
    assert not (checkout / "out" / "records.json").exists()


@pytest.mark.parametrize("folder", [".", "notebooks", "figures/new", "README.md"])
def test_committed_files_are_never_the_output(checkout, contents, capsys, folder):
    before = contents()
    assert cli.main(["reproduce", "--out", str(checkout / folder)]) == 2
    assert "cannot write to" in capsys.readouterr().err
    assert contents() == before


def test_list_and_claims(checkout, capsys):
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "07_stub: Margins of the simplex" in out
    assert "num_classes = 4: number of classes K (int, in [2, 64])" in out
    assert cli.main(["claims"]) == 0
    assert "stub.residual  < 1e-8" in capsys.readouterr().out


@pytest.mark.slow
def test_refresh_then_reproduce(checkout, contents, run_dufm):
    """The maintainer's refresh twice, the same bytes; then a reader's runs, which leave the checkout alone."""
    done = run_dufm("notebooks", module="dufm.maintain")
    assert done.returncode == 0, done.stderr
    first = contents()
    assert {"figures/07_stub.png", "notebooks/07_stub.ipynb", "notebooks/records.json"} <= set(first)
    assert "| 0.3333 | PASS |" in first["README.md"].decode()
    assert "07_stub: 2 PASS" in first["notebooks/00_overview.ipynb"].decode()  # the map ran last
    assert run_dufm("notebooks", "07", module="dufm.maintain").returncode == 0
    assert contents() == first

    done = run_dufm("reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[1].startswith("07_stub  ") and lines[2].startswith("00_overview  ")
    assert "stub.margin    0.3333 ± 0.0001  0.3333       0.3333       PASS" in done.stdout
    assert (checkout / "out" / "figures" / "07_stub.png").read_bytes() == first["figures/07_stub.png"]
    assert not (checkout / "out" / "state.json").exists()

    done = run_dufm("reproduce", "7", "--budget", "smoke", "-p", "depths=[2,5]", "--out", "elsewhere")
    assert done.returncode == 0 and "not applicable" in done.stdout, done.stdout
    assert contents() == first

    done = run_dufm("figures", "7", "--out", str(checkout / "out" / "drawn"))
    assert done.stdout.startswith("1 figures drawn"), done.stderr
    drawn = checkout / "out" / "drawn" / "figures"
    assert all(
        (drawn / f"07_stub.{kind}").read_bytes() == first[f"figures/07_stub.{kind}"]
        for kind in ("pdf", "png", "csv", "json")
    )


@pytest.mark.slow
def test_a_failing_claim_fails_the_run_and_the_refresh(checkout, contents, replace, run_dufm):
    replace("notebooks/claims.toml", "0.3333 ± 0.0001", "0.25 ± 0.0001")
    before = contents()
    done = run_dufm("reproduce", "07")
    assert done.returncode == 1
    assert "ClaimFailed: stub.margin" in done.stdout and "FAIL" in done.stdout and done.stderr == ""
    done = run_dufm("notebooks", module="dufm.maintain")
    assert done.returncode != 0
    assert contents() == before


@pytest.mark.slow
def test_killed_it_resumes_and_finished_it_recomputes(checkout, run_dufm, tmp_path):
    (checkout / "notebooks" / "08_slow.py").write_text(
        (checkout / "notebooks" / "07_stub.py")
        .read_text()
        .replace("07_stub", "08_slow")
        .replace("pause: float = 0.0", "pause: float = 600.0"),
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "dufm", "reproduce", "--jobs", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as run:
        while "07_stub" not in (line := run.stdout.readline()) or "done" not in line:
            assert line
        time.sleep(1)
        os.kill(run.pid, signal.SIGKILL)
    assert list(json.loads((checkout / "out" / "state.json").read_text())) == ["07_stub"]
    path = checkout / "notebooks" / "08_slow.py"
    path.write_text(path.read_text().replace("600.0", "0.0").split('# %% tags=["verdict"]')[0], encoding="utf-8")
    done = run_dufm("reproduce")
    assert done.returncode == 0, done.stdout
    assert "07_stub  done before the interruption" in done.stdout
    assert not list((checkout / "out" / "notebooks").glob(".*"))
    assert "before the interruption" not in run_dufm("reproduce", "07").stdout


def test_two_runs_do_not_share_a_folder(checkout, capsys):
    from filelock import FileLock

    (checkout / "out").mkdir()
    with FileLock(checkout / "out" / ".run.lock"):
        assert cli.main(["reproduce"]) == 2
    assert "another run writes to" in capsys.readouterr().err


def test_maintain_refuses(checkout, capsys):
    for arguments in ([], ["links"], ["links", "nonsense"], ["notebooks", "42"]):
        assert maintain.main(arguments) == 2
        assert capsys.readouterr().err.startswith("dufm.maintain: ")
