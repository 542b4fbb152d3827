"""What other platforms bring, imitated: Windows line ends, consoles that show few characters, no home to write to."""

import io
import sys

import pandas
import pytest
from conftest import ROOT

from dufm import __main__ as cli
from dufm import claims, notebook
from dufm.companion import files, pages, parameters

COMMANDS = (["list"], ["list", "57", "31"], ["claims"], ["best", "6", "3"], ["--help"], ["list", "γ"], ["list", "--π"])


@pytest.fixture
def windows(checkout):
    """The small checkout with every line end as an editor on Windows leaves it."""
    for path in checkout.rglob("*"):
        if path.suffix in (".py", ".toml", ".md", ".csv", ".json"):
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    return checkout


def test_git_gives_every_platform_the_same_line_ends():
    assert "* text=auto eol=lf" in (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()


def test_windows_line_ends_change_no_command(windows, capsys):
    assert cli.main(["list", "27"]) == 0
    assert "num_classes = 4: number of classes K (int, in [2, 64])" in capsys.readouterr().out
    assert [claim.id for claim in claims.ledger().values()] == ["27-margin", "27-residual"]
    assert parameters.budget_parameters("27_stub", "smoke") == {"depths": [2]}
    assert "<!-- totals:begin -->\nAll 2 claims" in pages.readme()


def test_windows_line_ends_in_a_table_leave_it_the_same_table(checkout, monkeypatch):
    monkeypatch.setenv("DUFM_ROOT", str(ROOT))
    expected, folder = notebook.committed("58_eight"), checkout / "notebooks" / "5_dynamics"
    folder.mkdir()
    for name in ("58_eight.csv", "58_eight.json", "58_share.py"):
        text = (files.source_path("58_share").parent / name).read_bytes()
        (folder / name).write_bytes(text.replace(b"\n", b"\r\n"))
    monkeypatch.setenv("DUFM_ROOT", str(checkout))
    pandas.testing.assert_frame_equal(notebook.committed("58_eight"), expected)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_any_console_shows_the_notebooks_and_the_ledger(monkeypatch, encoding, arguments):
    """What the console has no character for is a question mark, in messages too."""
    monkeypatch.setenv("DUFM_ROOT", str(ROOT))
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    if arguments == ["--help"]:
        with pytest.raises(SystemExit):
            cli.main(arguments)
    else:
        cli.main(arguments)
    assert (out if not arguments[-1].endswith(("γ", "π")) else err).tell() > 0


@pytest.mark.slow
def test_windows_line_ends_and_no_home_to_write_to(windows, run_dufm, tmp_path):
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    nowhere = str(tmp_path / "file" / "home")
    done = run_dufm("reproduce", "27", HOME=nowhere, USERPROFILE=nowhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 claims: 2 holds" in done.stdout

