"""The committed notebooks: pairs, executed, with figures that can be drawn again; each runs under other parameters."""

import hashlib
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from conftest import ROOT

from dufm import _checkout, claims, figures, notebook
from dufm.reproduce import pair_differs

NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.py"))
each_notebook = pytest.mark.parametrize("name", NAMES)


def cells(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert NAMES[0] == "00_overview"
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == NAMES


@each_notebook
def test_source_and_notebook_are_a_pair(name):
    assert pair_differs(name) is None


def test_a_difference_is_seen(checkout):
    from dufm.reproduce import source_notebook

    path = checkout / "notebooks" / "07_stub.ipynb"
    assert pair_differs("07_stub") == "07_stub.ipynb is missing"
    nbformat.write(source_notebook("07_stub"), path)
    assert pair_differs("07_stub") is None
    path.write_text(path.read_text(encoding="utf-8").replace("Margins of", "Margin of"), encoding="utf-8")
    assert "differ" in pair_differs("07_stub")


@each_notebook
def test_every_cell_has_run(name):
    """nbval never compares a cell that has not run."""
    counts = [cell.execution_count for cell in cells(name)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in cells(name) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@each_notebook
def test_cells_that_every_notebook_has(name):
    tagged = {}
    for cell in cells(name):
        for tag in cell.metadata.get("tags", []):
            tagged.setdefault(tag, []).append(cell)
    assert len(tagged["parameters"]) == 1
    assert tagged["verdict"] and all(cell.outputs for cell in tagged["verdict"])
    assert cells(name)[-1] in tagged["nbval-ignore-output"]
    text = "".join(output.get("text", "") for cell in tagged["verdict"] for output in cell.outputs)
    mine = [claim.id for claim in claims.ledger().values() if claim.notebook == name and claim.status != "not_run"]
    assert [id for id in mine if f"{id}: " not in text] == []
    assert "not applicable" not in text


@each_notebook
def test_markdown_is_plain_and_titled(name):
    parts = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    assert parts[0].cell_type == "markdown" and re.match(r"# \S", parts[0].source)
    assert notebook.title(name) == parts[0].source.splitlines()[0][2:]


@each_notebook
def test_figures_are_complete_and_can_be_drawn_again(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DUFM_OUT", str(tmp_path))
    monkeypatch.setattr(_checkout, "running", None)
    source = (ROOT / "notebooks" / f"{name}.py").read_text(encoding="utf-8")
    count = figures.redraw(name)
    assert count == source.count("figures.save(") == len(list(tmp_path.glob("figures/*.png")))
    for path in tmp_path.glob("figures/*"):
        assert path.stem.startswith(name[:2])
        assert (ROOT / "figures" / path.name).is_file(), path.name
        if path.suffix == ".csv":
            assert path.read_bytes() == (ROOT / "figures" / path.name).read_bytes()


def test_numbers_computed_once_know_their_origin():
    about = json.loads((ROOT / "notebooks" / "10_wide.json").read_text(encoding="utf-8"))
    numbers = (ROOT / "notebooks" / "10_wide.csv").read_bytes()
    assert about["data"] == hashlib.sha256(numbers).hexdigest()
    assert about["command"].startswith("dufm reproduce 10 ") and about["versions"]["torch"]
    defaults = {parameter.name: parameter.default for parameter in notebook.declared("10_width")}
    changed = {name for name, value in defaults.items() if about["parameters"][name] != value}
    assert changed == set(re.findall(r"-p (\w+)=", about["command"]))


def test_every_committed_figure_knows_its_notebook_and_numbers():
    for path in (ROOT / "figures").glob("*"):
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert about["notebook"] in NAMES
        assert about["alt"] and about["data"] == _checkout.digest(path.with_suffix(".csv"))


def test_records_belong_to_the_ledger_and_pass():
    ledger, recorded = claims.ledger(), claims.records(ROOT / "notebooks" / "records.json")
    assert set(recorded) <= set(ledger)
    assert claims.failures(ROOT / "notebooks" / "records.json", NAMES) == []


@pytest.mark.slow
@each_notebook
def test_smoke(name, tmp_path):
    """Plain papermill, from another folder, at the smoke budget and with changed parameters."""
    changed = {"budget": "smoke", "seed": 1}
    for parameter in notebook.declared(name):
        if parameter.name == "num_classes":
            changed["num_classes"] = parameter.default + 1
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(ROOT / "notebooks" / f"{name}.ipynb"),
        "out.ipynb",
        "--no-progress-bar",
        *(text for pair in changed.items() for text in ("-p", *map(str, pair))),
    ]
    environment = {**os.environ, "DUFM_OUT": str(tmp_path / "out"), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    recorded = claims.records(tmp_path / "out" / "records.json")
    assert all(record["verdict"] == "not applicable" for record in recorded.values())
