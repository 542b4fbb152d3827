"""The committed notebooks: pairs, executed, short, with figures that can be drawn again; each runs at small budgets."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import jupytext
import nbformat
import pytest
from conftest import ROOT

from dufm import claims, figures, notebook
from dufm.companion import files, parameters
from dufm.companion.build import pair_differs

SOURCES = sorted((ROOT / "notebooks").glob("**/[0-9][0-9]_*.py"))
NAMES = [path.stem for path in SOURCES]
each_notebook = pytest.mark.parametrize("name", NAMES)


def cells(name):
    made = nbformat.read(files.source_path(name).with_suffix(".ipynb"), as_version=4)
    return made.cells


def code(name):
    return [cell for cell in cells(name) if cell.cell_type == "code"]


def test_numbers_are_unique_and_every_notebook_has_its_part():
    assert NAMES[0] == "00_overview" and len({name[:2] for name in NAMES}) == len(NAMES)
    assert all(path.parent.name[0] == path.stem[0] for path in SOURCES[1:])
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("**/[0-9]*.ipynb")) == NAMES


def test_notebooks_lead_from_one_to_the_next_and_back_to_the_overview():
    found = [
        re.search(r"Before: \[[^]]*\]\(([^)]*)\).? After: \[[^]]*\]\(([^)]*)\)", cells(name)[0].source)
        for name in NAMES[1:]
    ]
    named = [[link.split("/")[-1].removesuffix(".ipynb") for link in each.groups()] for each in found]
    assert named == [list(pair) for pair in zip(NAMES, [*NAMES[2:], NAMES[0]], strict=False)]


@each_notebook
def test_source_and_notebook_are_a_pair_to_the_blank_line(name):
    assert pair_differs(name) is None


@each_notebook
def test_every_cell_has_run(name):
    """nbval never compares a cell that has not run."""
    counts = [cell.execution_count for cell in code(name)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code(name) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@each_notebook
def test_a_notebook_is_short_and_shows_its_picture_first(name):
    assert len(files.source_path(name).read_text(encoding="utf-8").splitlines()) <= 200
    if name != "00_overview":
        first = cells(name)[:3]
        assert first[0].source.startswith("# ") and "**Question.**" in first[0].source
        assert "figures.published(" in first[1].source and "image/png" in first[1].outputs[0]["data"]
        assert first[2].cell_type == "markdown" and "../../figures/" in first[2].source


@each_notebook
def test_cells_that_every_notebook_has(name):
    tagged = {}
    for cell in code(name):
        for tag in cell.metadata.get("tags", []):
            tagged.setdefault(tag, []).append(cell)
    assert len(tagged["parameters"]) == 1
    assert code(name)[-1] in tagged["nbval-ignore-output"]
    assert {"seed", "budget"} <= {parameter.name for parameter in parameters.declared(name)}
    found = claims.recorded_in([nbformat.v4.new_notebook(cells=cells(name))])
    mine = [claim.id for claim in claims.ledger().values() if claim.id[:2] == name[:2] and claim.status != "not_run"]
    assert sorted(found) == sorted(mine)
    assert not [id for id, verdict in found.items() if verdict.verdict in ("fails", "not applicable")]


def test_prose_is_at_least_two_fifths():
    """Characters of Markdown cells against all, over all notebooks."""
    kinds = [(cell.cell_type, len(cell.source)) for name in NAMES for cell in cells(name)]
    prose = sum(size for kind, size in kinds if kind == "markdown")
    assert prose / sum(size for _, size in kinds) >= 0.4


@each_notebook
def test_links_lead_somewhere(name):
    text = "\n".join(cell.source for cell in cells(name) if cell.cell_type == "markdown")
    targets = re.findall(r"\]\((?!https?:|#|attachment:|data:)([^)#\s]+)", text)
    assert not [target for target in targets if not (files.source_path(name).parent / target).exists()]


@each_notebook
def test_figures_are_complete_and_can_be_drawn_again(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DUFM_OUT", str(tmp_path))
    mine = sorted((ROOT / "figures").glob(f"{name[:2]}_*.py"))
    source = files.source_path(name).read_text(encoding="utf-8")
    assert {path.stem for path in mine} == set(re.findall(r'figures\.show\(\s*"(\w+)"', source))
    for path in mine:
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert about["notebook"] == name and about["alt"]
        assert about["data"] == files.digest(path.with_suffix(".csv"))
        assert about["script"] == files.digest(path), f"{path.name} has changed since its picture was drawn"
        figures.write(path.stem, {"alt": about["alt"], "notebook": name, "parameters": about["parameters"]})
        for kind in ("csv", "json", "pdf", "png"):
            assert (tmp_path / "figures" / f"{path.stem}.{kind}").exists() and path.with_suffix(f".{kind}").exists()


@each_notebook
def test_pictures_have_the_alt_text_of_their_figure(name):
    """The overview's too, which shows those of others: after a new text it has to run again."""
    shown = [output for cell in code(name) for output in cell.outputs if "dufm_figure" in output.get("metadata", {})]
    for output in shown:
        about = json.loads((ROOT / "figures" / f"{output.metadata.dufm_figure}.json").read_text(encoding="utf-8"))
        assert output["data"]["text/plain"] == about["alt"], about["figure"]


def test_every_figure_and_budget_has_its_notebook():
    numbers = {name[:2] for name in NAMES}
    assert {path.name[:2] for path in (ROOT / "figures").glob("*") if path.stem != "front"} <= numbers
    budgets = tomllib.loads((ROOT / "notebooks" / "budgets.toml").read_text(encoding="utf-8"))
    assert set(budgets) <= set(NAMES)
    for name in budgets:
        for budget in budgets[name]:
            assert parameters.budget_parameters(name, budget)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*_*/[0-9][0-9]_*.csv")), ids=lambda path: path.stem)
def test_tables_computed_once_know_their_origin(path):
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert len(notebook.committed(path.stem))
    by_notebook, by_bench = f"dufm reproduce {path.name[:2]}", "python tests/bench/"
    assert about["command"].startswith((by_notebook, by_bench)) and about["versions"]["torch"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The notebooks as Lab's server sees them, in a folder of their own where every .ipynb is an hour newer."""
    from jupytext import TextFileContentsManager
    from nbformat.sign import MemorySignatureStore, NotebookNotary

    folder = tmp_path_factory.mktemp("lab") / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder)
    for path in folder.glob("**/*.ipynb"):
        later = path.stat().st_mtime + 3600
        os.utime(path, (later, later))
    # Signatures in memory, and not in the home of whoever runs the tests.
    notary = NotebookNotary(data_dir=str(folder.parent), store_factory=MemorySignatureStore)
    return TextFileContentsManager(root_dir=str(folder), notary=notary)


@each_notebook
def test_lab_opens_it_and_saving_changes_nothing(name, lab):
    folder = ROOT / "notebooks"
    path = files.source_path(name).with_suffix(".ipynb").relative_to(folder)
    model = lab.get(path.as_posix())
    lab.save({key: model[key] for key in ("type", "format", "content")}, path.as_posix())
    for suffix in (".py", ".ipynb"):
        file = path.with_suffix(suffix)
        assert (type(folder)(lab.root_dir) / file).read_bytes() == (folder / file).read_bytes()


WITH_TABLES = sorted({file.name[:2] for file in (ROOT / "notebooks").glob("**/[0-9][0-9]_*.csv")})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed"), [(name, 1) for name in NAMES] + [(name, 0) for name in NAMES if name[:2] in WITH_TABLES]
)
def test_smoke(name, seed, tmp_path):
    """Plain papermill, from another folder, at the smoke budget: another seed, and the own where a table is kept."""
    command = [sys.executable, "-m", "papermill", str(files.source_path(name).with_suffix(".ipynb")), "out.ipynb"]
    changed = ("-p", "budget", "smoke", "-p", "seed", str(seed), "--no-progress-bar")
    environment = {**os.environ, "DUFM_OUT": str(tmp_path / "out"), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *changed], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = claims.recorded_in([nbformat.read(tmp_path / "out.ipynb", as_version=4)])
    assert all(verdict.verdict == "not applicable" for verdict in found.values())
    assert jupytext.read(tmp_path / "out.ipynb").metadata["papermill"]["exception"] is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "given"),
    [
        ("14", "width=2"),
        ("21", "depths=[12]"),
        ("23", "depths=[2, 12]"),
        ("25", "depth=12"),
        ("34", "depths=[2]"),
        ("42", "depth=3"),
        ("46", "scales=[1e-6]"),
        ("54", "classes=[3]"),
        ("64", "wider=[4]"),
        ("65", "classes=[6]"),
        ("71", "n_per_class=10"),
    ],
)
def test_an_end_of_a_range_at_which_a_notebook_stopped_once(number, given, tmp_path):
    command = [sys.executable, "-m", "dufm", "reproduce", number, "--budget", "smoke", "-p", given, "--jobs", "1"]
    settings = {"DUFM_ROOT": str(ROOT), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        env={**os.environ, **settings}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
