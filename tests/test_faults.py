"""Damaged files, links that lead astray, folders that cannot be written: one line, and nothing published is touched."""

import ast
import errno
import json
import os
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT, mounted, posix
from filelock import FileLock

from dufm import DufmError, figures
from dufm import __main__ as cli
from dufm.companion import build, claims, files, reproduce

DAMAGES = (
    b"",
    b"\xff\xfe\x00\x01",
    b"null",
    b"[]",
    b"{",
    b"[" * 100_000,
    b'{"cells": 3}',
    b"a,b\n1\n1,2,3\n",
    b"9" * 5000,
)
READ = {
    "notebooks/claims.toml": ["claims"],
    "notebooks/2_margin/27_stub.ipynb": ["claims"],
    "notebooks/2_margin/27_stub.py": ["list", "27"],
    "notebooks/budgets.toml": ["reproduce", "--budget", "smoke"],
    "notebooks/times.csv": ["list"],
    "figures/27_stub.csv": ["figures"],
    "figures/27_stub.json": ["figures"],
}
# No budget is a file without any.
SOUND = [("notebooks/budgets.toml", b"")]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The commands set variables for the kernels they start: put them back."""
    for name in ("DUFM_OUT", "DUFM_DEVICE", "DUFM_JOBS", "JUPYTER_PATH", *build.QUIET):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def published(checkout):
    """The small checkout with the numbers of its figure committed, and where they come from."""
    table = checkout / "figures" / "27_stub.csv"
    table.write_text("depth,margin\n2,1\n3,0.5\n", encoding="utf-8")
    about = {"alt": "It falls.", "notebook": "27_stub", "parameters": {"seed": 0}, "data": files.digest(table)}
    files.write_json(table.with_suffix(".json"), about)
    return checkout


def one_line(capsys, arguments, code=2):
    """Run a command in this process: its one line on stderr."""
    assert cli.main(arguments) == code
    out, err = capsys.readouterr()
    assert err.startswith("dufm: ") and err.count("\n") == 1, err
    return err


# ---------------------------------------------------------------- damaged files


@pytest.mark.parametrize(
    ("name", "damage"), [(name, damage) for name in READ for damage in DAMAGES if (name, damage) not in SOUND]
)
def test_a_damaged_file_is_one_line_that_names_it(published, contents, capsys, name, damage):
    (published / name).write_bytes(damage)
    before = contents()
    said = one_line(capsys, READ[name])
    assert Path(name).stem in said
    assert contents() == before


@pytest.mark.parametrize("text", ["claim = 3", "[claim]\nid = 3", "claim = [3]", "", "x = 1"])
def test_a_ledger_of_another_form_is_one_line(checkout, capsys, text):
    (checkout / "notebooks" / "claims.toml").write_text(text, encoding="utf-8")
    assert "[[claim]] entries and nothing else" in one_line(capsys, ["reproduce"])


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_picture_on_a_first_screen_and_a_table_are_named_when_damaged(published, damage):
    (published / "figures" / "27_stub.png").write_bytes(damage)
    with pytest.raises(DufmError, match="27_stub.png is no picture"):
        figures.published("27_stub")
    (published / "figures" / "27_stub.json").write_bytes(damage)
    with pytest.raises(DufmError, match="27_stub.json"):
        figures.published("27_stub")


def test_numbers_that_their_provenance_does_not_describe_are_not_drawn(published, capsys):
    table = published / "figures" / "27_stub.csv"
    table.write_text(table.read_text().replace("0.5", "0.4"), encoding="utf-8")
    assert "is not the table that 27_stub.json describes" in one_line(capsys, ["figures", "27"])


def test_figures_drawn_again_keep_the_provenance_of_their_own_numbers(published, capsys):
    """Numbers of another run in out/ are not given the published parameters."""
    figures.store("27_stub", {"depth": [2], "margin": [7.0]})
    figures.write("27_stub", {"alt": "Mine.", "notebook": "27_stub", "parameters": {"seed": 3}})
    assert cli.main(["figures", "27"]) == 0
    about = json.loads((published / "out" / "figures" / "27_stub.json").read_text(encoding="utf-8"))
    assert (about["alt"], about["parameters"]) == ("Mine.", {"seed": 3})


def test_verdicts_that_are_none_are_refused():
    for record in (3, {"id": "27-margin"}):
        output = nbformat.v4.new_output("display_data", data={}, metadata={"dufm_claim": record})
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
        with pytest.raises(DufmError, match="keeps a verdict without"):
            claims.recorded_in([made])


# ---------------------------------------------------------------- where is written


def links(checkout):
    """Ways to lead the output into the checkout: the link or folder made, and the arguments."""
    (checkout / ".git").mkdir()
    (checkout / "out").mkdir()
    yield checkout / "out" / "figures", checkout / "figures", []
    yield checkout / "out" / "notebooks", checkout / "notebooks", []
    yield checkout / "out" / ".run.lock", checkout / "README.md", []
    yield checkout / "out" / files.CELLS, checkout / ".git", []
    yield checkout.parent / "beside", checkout / "figures", ["--out", str(checkout.parent / "beside")]
    yield None, None, ["--out", str(checkout / ".git" / "x")]
    yield None, None, ["--out", str(checkout / "notebooks" / "out")]
    yield None, None, ["--out", str(checkout / "new")]


@posix
@pytest.mark.parametrize("command", ["reproduce", "figures"])
def test_no_link_and_no_folder_leads_the_output_into_the_checkout(published, contents, capsys, command):
    for link, target, arguments in links(published):
        before = contents()
        if link:
            link.symlink_to(target)
        said = one_line(capsys, [command, "27", *arguments])
        assert "cannot write to" in said and "inside the checkout only out" in said
        if link:
            link.unlink()
        assert contents() == before


@posix
def test_links_in_a_circle_and_a_link_as_out(checkout, contents, capsys):
    before = contents()
    (checkout / "out").symlink_to(checkout / "out")
    assert "cannot write to" in one_line(capsys, ["reproduce"])
    (checkout / "out").unlink()
    (checkout / "out").symlink_to(checkout / "tests")
    assert "inside the checkout only out" in one_line(capsys, ["reproduce"])
    (checkout / "out").unlink()
    assert contents() == before


@posix
def test_a_notebook_run_by_hand_follows_no_link_either(published, contents):
    before = contents()
    (published / "out").mkdir()
    (published / "out" / "figures").symlink_to(published / "figures")
    with pytest.raises(DufmError, match="inside the checkout only out"):
        figures.store("27_stub", {"depth": [2]})
    assert contents() == before


def test_papermill_may_write_beside_its_output_inside_the_checkout(checkout, monkeypatch):
    run = files.NotebookRun("27_stub", {}, True, str(checkout / "mine.ipynb"))
    monkeypatch.setattr(files, "running", lambda: run)
    figures.store("27_stub", {"depth": [2]})
    assert (checkout / "mine_files" / "figures" / "27_stub.csv").is_file()


@posix
def test_the_tidy_up_removes_what_a_killed_run_was_writing_and_nothing_else(checkout):
    out = checkout / "out"
    theirs = ["notebooks/.2023_private/a", "figures/.1old.png", ".settings.json.bak", "cells/mine", ".x.dufm-part"]
    ours = ["notebooks/.27_stub.ipynb.abcd_123.dufm-part/made", "figures/.27_stub.png.abcdefgh.dufm-part"]
    for name in theirs + ours:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x", encoding="utf-8")
    (out / "notebooks" / ".link.abcdefgh.dufm-part").symlink_to(checkout / "figures")
    with reproduce.folder_for(None):
        assert all((out / name).exists() for name in theirs) and not any((out / name).exists() for name in ours)
        assert (out / "notebooks" / ".link.abcdefgh.dufm-part").is_symlink() and (checkout / "figures").is_dir()


def test_figures_wait_for_no_run_in_the_same_folder(published, capsys):
    (published / "out").mkdir()
    with FileLock(published / "out" / reproduce.LOCK):
        assert "another run writes to" in one_line(capsys, ["figures"])


@posix
def test_a_folder_that_is_read_only_is_one_line(checkout, capsys, tmp_path):
    if os.getuid():
        (tmp_path / "there").mkdir(mode=0o555)
        assert "cannot write to" in one_line(capsys, ["reproduce", "--out", str(tmp_path / "there")])
    else:  # who may write everywhere but here
        with mounted(tmp_path / "there", "-o", "ro") as folder:
            assert "Read-only file system" in one_line(capsys, ["reproduce", "--out", str(folder)])


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    files.write_atomic(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_atomic(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and (tmp_path / "a.json").read_text() == "old"


def test_no_notebooks_are_looked_for_in_the_folder_you_are_in(checkout, monkeypatch, tmp_path):
    monkeypatch.delenv("DUFM_ROOT")
    monkeypatch.setattr(files, "_PACKAGE", tmp_path / "site-packages" / "dufm")
    for folder in (checkout, checkout / "notebooks"):
        monkeypatch.chdir(folder)
        with pytest.raises(DufmError, match="no checkout found: git clone .* name its folder in DUFM_ROOT"):
            files.root()


# ---------------------------------------------------------------- nothing that runs a text


def sources():
    folders = ("dufm", "docs", "figures", "notebooks")
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def dangers(source):
    """Calls in a source that run a text, hand one to a shell, or unpickle: with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            loads = name.split(".")[0] in ("pickle", "cloudpickle", "dill", "marshal", "shelve")
            loads |= name in ("torch.load", "joblib.load", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load")
            loads |= options.get("allow_pickle", "False") != "False"
            runs = name in ("eval", "exec", "compile", "os.system", "os.popen", "subprocess.getoutput")
            runs |= options.get("shell", "False") != "False"
            if loads or runs:
                yield node.lineno, name


def test_no_text_of_a_file_is_run_and_nothing_is_unpickled():
    assert [(path.name, *found) for path in sources() for found in dangers(path.read_text(encoding="utf-8"))] == []
    for code in ("eval(x)", "os.system(x)", "subprocess.run(x, shell=True)", "np.load(x, allow_pickle=True)"):
        assert list(dangers(code)), code
