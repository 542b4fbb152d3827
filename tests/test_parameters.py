"""Parameters: declared, seen by papermill, checked, set by budgets; where a run writes."""

import types

import joblib
import papermill
import psutil
import pytest

from dufm import DufmError, notebook
from dufm.companion import files, parameters
from dufm.companion.build import source_notebook

DEFAULTS = {"num_classes": 4, "depths": [2, 3, 4], "scale": 1.0, "pause": 0.0, "seed": 0, "budget": "default"}


def test_declared(checkout):
    found = {parameter.name: parameter for parameter in parameters.declared("27_stub")}
    assert {name: parameter.default for name, parameter in found.items()} == DEFAULTS
    assert found["num_classes"] == parameters.Parameter("num_classes", "int", 4, "number of classes K", (2.0, 64.0))
    assert found["depths"].accepted == (2.0, 16.0)
    assert found["scale"].accepted == (1e-6, 10.0)
    assert found["budget"].accepted == ["smoke", "default", "full"]
    assert parameters.title("27_stub") == "Margins of the simplex"


def test_papermill_sees_what_is_declared(checkout, tmp_path):
    import nbformat

    nbformat.write(source_notebook("27_stub"), tmp_path / "made.ipynb")
    assert list(papermill.inspect_notebook(str(tmp_path / "made.ipynb"))) == list(DEFAULTS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_classes = 4  # number of classes K [2, 64]", "needs a type"),
        ("num_classes: dict = {}  # number of classes", "needs a type"),
        ("num_classes: int = 4", "needs a type"),
        ("num_classes: int = 4  # number of classes, K = 4 [2, 64]", "without a second `=`"),
        ("num_classes: int = 2 + 2  # number of classes K [2, 64]", "must be literals"),
        ("num_classes: int = 4  # number of classes K [5, 64]", r"in \[5, 64\]; got 4"),
        ("num_classes: int = int()  # number of classes K [2, 64]", "must be literals"),
        ("num_classes: int = 4  # number of classes K [a, b]", "must be literals"),
        ("num_classes: int = 4  # number of classes K [2]", "needs a type"),
        ("num_classes: int = 4  # number of classes K [2, 3, 64]", "needs a type"),
        ("num_classes: int = 4  # number of classes K [64, 2]", "finite and in order"),
        ("num_classes: int = 4  # number of classes K [2, inf]", "finite and in order"),
        ("num_classes: int = 4  # number of classes K [nan, 64]", "finite and in order"),
        ("num_classes: int = 4.0  # number of classes K [2, 64]", "must be int"),
    ],
)
def test_a_wrong_declaration_is_refused(replace, line, message, capfd):
    replace("notebooks/2_margin/27_stub.py", "num_classes: int = 4  # number of classes K [2, 64]", line)
    with pytest.raises(DufmError, match=message):
        parameters.declared("27_stub")


def test_seed_and_budget_are_obligatory(replace):
    replace("notebooks/2_margin/27_stub.py", "seed: int = 0  # seed of every random draw [0, 1000000]\n", "")
    with pytest.raises(DufmError, match="seed and budget; seed is missing"):
        parameters.declared("27_stub")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("num_classes", "5", 5),
        ("depths", "[2, 5]", [2, 5]),
        ("depths", (2, 5), [2, 5]),
        ("scale", "1e-3", 1e-3),
        ("scale", 2, 2.0),
    ],
)
def test_start_converts_what_papermill_passes(checkout, name, given, value):
    namespace = {**DEFAULTS, name: given}
    p = notebook.start("27_stub", namespace)
    assert getattr(p, name) == value
    assert type(getattr(p, name)) is type(value)
    assert not namespace["_dufm_run"].published


def test_a_list_may_need_several_values(replace):
    replace("notebooks/2_margin/27_stub.py", "# depths L [2, 16]", "# depths L, 2 or more [2, 16]")
    (depths,) = [parameter for parameter in parameters.declared("27_stub") if parameter.name == "depths"]
    assert parameters.typed(depths, "[2, 5]") == [2, 5]
    with pytest.raises(DufmError, match=r"depths must be list\[int\] of 2 or more such as .*; got \[5\]"):
        parameters.typed(depths, [5])


def test_a_list_may_need_a_value(replace):
    replace("notebooks/2_margin/27_stub.py", "# depths L [2, 16]", "# depths L, 3 among them [2, 16]")
    (depths,) = [parameter for parameter in parameters.declared("27_stub") if parameter.name == "depths"]
    assert parameters.typed(depths, "[3]") == [3]
    with pytest.raises(DufmError, match=r"depths must be list\[int\] with 3 such as .*; got \[5\]"):
        parameters.typed(depths, [5])


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("num_classes", 1),
        ("num_classes", 5.0),
        ("num_classes", "five"),
        ("num_classes", True),
        ("num_classes", None),
        ("depths", 3),
        ("depths", "3"),
        ("depths", [2, 99]),
        ("depths", [2, 2.5]),
        ("depths", "[2, three]"),
        ("depths", []),
        ("depths", "[]"),
        pytest.param("depths", "[" * 300, id="deep"),
        pytest.param("num_classes", "-" * 100_000 + "1", id="deeper"),
        pytest.param("scale", 10**400, id="beyond floats"),
        pytest.param("scale", "1" + "0" * 400, id="beyond floats, as text"),
        ("scale", float("nan")),
        ("scale", float("inf")),
        ("scale", "nan"),
        ("scale", 0),
        ("budget", "big"),
        ("budget", 1),
    ],
)
def test_start_refuses(checkout, name, given):
    with pytest.raises(DufmError, match=f"{name} must be"):
        notebook.start("27_stub", {**DEFAULTS, name: given})


def test_a_parameter_that_is_missing_or_unknown(checkout):
    with pytest.raises(DufmError, match="pause is not set"):
        notebook.start("27_stub", {name: value for name, value in DEFAULTS.items() if name != "pause"})
    injected = {**DEFAULTS, "depht": 3, "In": ["", '# Parameters\ndepht = 3\nbudget = "smoke"\n']}
    with pytest.raises(DufmError, match="no parameter 'depht'; did you mean depths"):
        notebook.start("27_stub", injected)


def test_a_budget_sets_what_still_has_its_default(checkout):
    assert notebook.start("27_stub", {**DEFAULTS, "budget": "smoke"}).depths == [2]
    assert notebook.start("27_stub", {**DEFAULTS, "budget": "smoke", "depths": [5]}).depths == [5]
    assert notebook.start("27_stub", {**DEFAULTS, "budget": "full"}).depths == [2, 3, 4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("depht = [2]", "no parameter 'depht'; did you mean depths"),
        ("depths = [1]", "depths must be"),
        ("[27_stub.smoky]\nseed = 1", "a budget 'smoky'; did you mean smoke"),
        ("[27_stub]\nfull = 3", "must be tables such as"),
    ],
)
def test_a_wrong_budget_is_refused(replace, line, message):
    replace("notebooks/budgets.toml", "depths = [2]", line)
    with pytest.raises(DufmError, match=message):
        parameters.budget_parameters("27_stub", "smoke")


def test_where_a_run_writes(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "running", lambda: None)
    assert files.out_dir() == checkout / "out"
    runs = [files.NotebookRun("27_stub", {"depth": depth}, False, None) for depth in (2, 3)]
    folders = []
    for run in runs:
        monkeypatch.setattr(files, "running", lambda run=run: run)
        folders.append(files.out_dir())
    assert len(set(folders)) == 2 and all(folder.parent == checkout / "out" for folder in folders)
    monkeypatch.setattr(files, "running", lambda: files.NotebookRun("27_stub", {}, False, str(tmp_path / "mine.ipynb")))
    assert files.out_dir() == tmp_path / "mine_files"
    monkeypatch.setenv("DUFM_OUT", str(tmp_path / "there"))
    assert files.out_dir() == tmp_path / "there"


def test_a_device_that_is_not_there(monkeypatch):
    monkeypatch.setenv("DUFM_DEVICE", "tpu")
    with pytest.raises(DufmError, match="auto, cpu or cuda"):
        notebook.device()


def test_jobs_are_what_the_container_has_room_for(monkeypatch, tmp_path):
    monkeypatch.setattr(files, "MEMORY_LIMIT", tmp_path / "memory.max")
    monkeypatch.delenv("DUFM_JOBS", raising=False)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 16)
    for limit, jobs in (("max", 16), (str(2 * 2**30), 2), (str(2**28), 1)):
        (tmp_path / "memory.max").write_text(limit)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(total=2**36))
        assert notebook.sweep_options()["jobs"] == jobs
    monkeypatch.setenv("DUFM_JOBS", "none")
    with pytest.raises(DufmError, match="DUFM_JOBS"):
        notebook.sweep_options()
