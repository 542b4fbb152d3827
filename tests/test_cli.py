"""The command line and the maintainer's steps, on a small checkout."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import posix
from filelock import FileLock

import dufm
from dufm import __main__ as cli
from dufm import claims
from dufm.companion import maintain, reproduce

ERRORS = [
    (["reproduce", "27_stubs"], "unknown notebook '27_stubs'; did you mean 27_stub?"),
    (["reproduce", "-p", "num_clases=5"], "unknown parameter 'num_clases'; did you mean num_classes?"),
    (["reproduce", "00", "-p", "num_classes=5"], "unknown parameter 'num_classes'; choose from budget, seed"),
    (["reproduce", "27", "-p", "num_classes=five"], "num_classes must be int, in [2, 64]; got 'five'"),
    (["reproduce", "27", "-p", "num_classes=1"], "num_classes must be int, in [2, 64]; got 1"),
    (["reproduce", "27", "-p", "depths=3"], "depths must be list[int] such as [2, 3, 4], each in [2, 16]; got '3'"),
    (["reproduce", "--budget", "big"], "budget must be str, one of smoke, default, full; got 'big'"),
    (["reproduce", "--budget", "smoke", "-p", "budget=full"], "budget is given twice"),
    (["reproduce", "-p", "seed"], "expected name=value, got 'seed'"),
    (["reproduce", "--jobs", "0"], "must be a whole number, 1 or more, got '0'"),
    (["reproduce", "--device", "tpu"], "invalid choice: 'tpu'"),
    (["reproduce", "--out", f"{__file__}/x"], f"cannot write to {__file__}"),
    (["reproduce", "--cluster", "nonsense"], "backend must be 'local' or the address of a dask scheduler"),
    (["figures", "72"], "unknown notebook '72'; choose from 00_overview, 27_stub"),
    (["reproduse"], "unknown command 'reproduse'; did you mean reproduce?"),
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The commands set variables for the kernels they start: put them back."""
    names = ("DUFM_OUT", "DUFM_ROOT", "DUFM_DEVICE", "DUFM_JOBS", "JUPYTER_PATH")
    for name in (*names, "TQDM_DISABLE", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    for name in names:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("arguments", "message"), ERRORS)
def test_bad_arguments_are_one_line(checkout, contents, capsys, arguments, message):
    before = contents()
    began = time.monotonic()
    assert cli.main(arguments) == 2
    assert time.monotonic() - began < 10
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("dufm: ") and err.count("\n") == 1 and message in err
    assert contents() == before


@pytest.mark.parametrize("folder", [".", "notebooks", "figures/new", "README.md"])
def test_committed_files_are_never_the_output(checkout, contents, capsys, folder):
    before = contents()
    assert cli.main(["reproduce", "--out", str(checkout / folder)]) == 2
    assert "cannot write to" in capsys.readouterr().err
    assert contents() == before


def test_no_argument_and_version_answer(checkout, capsys):
    assert cli.main([]) == 0
    assert "reproduce" in capsys.readouterr().out
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out == f"dufm {dufm.__version__}\n"


def test_list_and_claims(checkout, capsys):
    (checkout / "notebooks" / "times.csv").write_text("notebook,seconds\n27_stub,90\n", encoding="utf-8")
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert "  1.5 min  27_stub: Margins of the simplex" in out and "num_classes" not in out
    assert cli.main(["list", "27"]) == 0
    assert "num_classes = 4: number of classes K (int, in [2, 64])" in capsys.readouterr().out
    assert cli.main(["claims"]) == 0
    assert "residual: expected below 1e-8, not run" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_any_terminal_can_show_it(checkout, replace, run_dufm, encoding):
    replace("notebooks/2_margin/27_stub.py", "Margins of the simplex", "Margins γ ± δ of the simplex")
    for command in ("list", "claims"):
        done = run_dufm(command, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
        assert done.returncode == 0 and done.stderr == ""


def test_failures_come_first_and_lines_are_wrapped(checkout):
    known = list(claims.ledger().values())
    records = {"27-margin": claims.Verdict("0.5", "fails"), "27-residual": claims.Verdict("below 1e-9", "holds")}
    text = reproduce.closing(known, records, ["27-margin"], {"31_x": "ValueError: bad"}, 60)
    assert text.splitlines()[0] == "31_x stopped: ValueError: bad"
    assert text.splitlines()[1].startswith("27-margin fails: The margin of the simplex")
    assert text.splitlines()[-1] == "2 claims: 1 fails, 1 holds"
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.slow
def test_refresh_then_reproduce(checkout, contents, run_dufm):
    """The maintainer's refresh twice, the same bytes; then a reader's runs, which leave the checkout alone."""
    done = run_dufm("notebooks", module="dufm.companion.maintain")
    assert done.returncode == 0, done.stderr
    first = contents()
    assert {"figures/27_stub.png", "notebooks/2_margin/27_stub.ipynb", "notebooks/times.csv"} <= set(first)
    executed = json.loads(first["notebooks/2_margin/27_stub.ipynb"])
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 2 and pictures[0]["data"] == pictures[1]["data"]
    assert run_dufm("pages", module="dufm.companion.maintain").returncode == 0
    assert "0.3333 (expected 0.3333 ± 0.0001) | holds (proved)" in contents()["README.md"].decode()
    assert "All 2 claims: 2 holds" in contents()["README.md"].decode()
    assert "The residual vanishes." in contents()["LEDGER.md"].decode()
    first = contents()
    assert run_dufm("notebooks", "27", module="dufm.companion.maintain").returncode == 0
    again = contents()
    assert {name for name in first if again[name] != first[name]} <= {"notebooks/times.csv"}

    first = again
    done = run_dufm("reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "" and "27_stub  started" in done.stdout and "2 claims: 2 holds" in done.stdout
    assert (checkout / "out" / "figures" / "27_stub.png").read_bytes() == first["figures/27_stub.png"]
    assert not (checkout / "out" / "state.json").exists()

    done = run_dufm("reproduce", "27", "--budget", "smoke", "--out", "elsewhere")
    assert done.returncode == 0 and "2 claims: 2 not applicable" in done.stdout, done.stdout
    assert "not the published ones" in done.stdout
    assert contents() == first

    done = run_dufm("figures", "27", "--out", str(checkout / "out" / "drawn"))
    assert done.stdout.startswith("1 figures drawn"), done.stderr
    drawn = checkout / "out" / "drawn" / "figures"
    kinds = ("pdf", "png", "csv", "json")
    assert all((drawn / f"27_stub.{kind}").read_bytes() == first[f"figures/27_stub.{kind}"] for kind in kinds)


@pytest.mark.slow
def test_a_failing_claim_fails_the_run_and_the_refresh(checkout, contents, replace, run_dufm):
    replace("notebooks/claims.toml", "equals = 0.3333", "equals = 0.25")
    before = contents()
    done = run_dufm("reproduce", "27")
    assert done.returncode == 1 and done.stderr == ""
    assert "27_stub stopped: ClaimFailed: 27-margin" in done.stdout and "27-margin fails" in done.stdout
    done = run_dufm("notebooks", "27", module="dufm.companion.maintain")
    assert done.returncode != 0
    assert contents() == before


@posix
@pytest.mark.slow
def test_another_python3_kernel_does_not_run(checkout, run_dufm, tmp_path):
    foreign = tmp_path / "data" / "kernels" / "python3"
    foreign.mkdir(parents=True)
    kernel = {"argv": ["/bin/false", "{connection_file}"], "display_name": "Python 3", "language": "python"}
    (foreign / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
    done = run_dufm("reproduce", "27", JUPYTER_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 0, done.stdout


@posix
@pytest.mark.slow
def test_killed_it_resumes_and_finished_it_recomputes(checkout, run_dufm, tmp_path):
    source = checkout / "notebooks" / "2_margin" / "27_stub.py"
    slow = source.with_name("28_slow.py")
    text = source.read_text(encoding="utf-8").replace("27_stub", "28_slow")
    slow.write_text(text.replace("pause: float = 0.0", "pause: float = 600.0"), encoding="utf-8")
    command = [sys.executable, "-m", "dufm", "reproduce", "--jobs", "1"]
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=env) as run:
        while "27_stub" not in (line := run.stdout.readline()) or "done" not in line:
            assert line
        time.sleep(1)
        os.kill(run.pid, signal.SIGKILL)
    assert "27_stub" in json.loads((checkout / "out" / "state.json").read_text())
    slow.write_text(text.split("# %%\nmargins")[0], encoding="utf-8")
    done = run_dufm("reproduce")
    assert done.returncode == 0, done.stdout
    assert "27_stub  done before the interruption" in done.stdout
    assert not list((checkout / "out" / "notebooks").glob(".*"))
    assert "before the interruption" not in run_dufm("reproduce", "27").stdout


def test_two_runs_do_not_share_a_folder(checkout, capsys):
    (checkout / "out").mkdir()
    with FileLock(checkout / "out" / ".run.lock"):
        assert cli.main(["reproduce"]) == 2
    assert "another run writes to" in capsys.readouterr().err


def test_maintain_refuses(checkout, capsys):
    for arguments in ([], ["links", ""], ["links", "nonsense"], ["notebooks", "72"]):
        assert maintain.main(arguments) == 2
        assert capsys.readouterr().err.startswith("dufm.companion.maintain: ")
