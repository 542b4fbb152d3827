import os

import pytest

from dufm import DufmError, _checkout, notebook

DEFAULTS = {"num_classes": 4, "depths": [2, 3, 4], "scale": 1.0, "pause": 0.0, "seed": 0, "budget": "default"}


def test_declared(checkout):
    found = {parameter.name: parameter for parameter in notebook.declared("07_stub")}
    assert list(found) == list(DEFAULTS)
    assert found["num_classes"] == notebook.Parameter("num_classes", "int", 4, "number of classes K", (2.0, 64.0))
    assert found["depths"].accepted == (2.0, 16.0)
    assert found["scale"].accepted == (1e-6, 10.0)
    assert found["budget"].accepted == ["smoke", "default", "full"]
    assert notebook.title("07_stub") == "Margins of the simplex"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("num_classes = 4  # number of classes K [2, 64]", "declared as"),
        ("num_classes: int = 2 + 2  # number of classes K [2, 64]", "malformed|declared as"),
        ("num_classes: dict = {}  # number of classes", "has type dict"),
        ("num_classes: int = 4", "no meaning"),
        ("num_classes: int = 4  # number of classes K [5, 64]", r"in \[5, 64\]; got 4"),
        ("num_classes: int = 4.0  # number of classes K [2, 64]", "must be int"),
    ],
)
def test_a_wrong_declaration_is_refused(replace, line, message):
    replace("notebooks/07_stub.py", "num_classes: int = 4  # number of classes K [2, 64]", line)
    with pytest.raises((DufmError, ValueError), match=message):
        notebook.declared("07_stub")


def test_seed_and_budget_are_obligatory(replace):
    replace("notebooks/07_stub.py", "seed: int = 0  # seed of every random draw [0, 1000000]\n", "")
    with pytest.raises(DufmError, match="missing seed"):
        notebook.declared("07_stub")


@pytest.mark.parametrize(
    ("name", "given", "value"),
    [
        ("num_classes", "5", 5),
        ("depths", "[2, 5]", [2, 5]),
        ("depths", (2, 5), [2, 5]),
        ("depths", [], []),
        ("scale", "1e-3", 1e-3),
        ("scale", 2, 2.0),
        ("budget", "smoke", "smoke"),
    ],
)
def test_start_converts_what_papermill_passes(checkout, name, given, value):
    p = notebook.start("07_stub", {**DEFAULTS, name: given})
    assert getattr(p, name) == value
    assert type(getattr(p, name)) is type(value)
    assert not _checkout.running.published


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
        ("scale", float("nan")),
        ("scale", float("inf")),
        ("scale", "nan"),
        ("scale", 0),
        ("budget", "big"),
        ("budget", 1),
        ("seed", -1),
    ],
)
def test_start_refuses_and_names_what_is_accepted(checkout, name, given):
    with pytest.raises(DufmError, match=f"{name} must be (int|float|str|list)"):
        notebook.start("07_stub", {**DEFAULTS, name: given})


def test_start_refuses_what_papermill_only_warns_of(checkout):
    cells = ["", "num_classes: int = 4", "# Parameters\nnum_clases = 5\n"]
    with pytest.raises(DufmError, match="no parameter 'num_clases'; there are num_classes, depths"):
        notebook.start("07_stub", {**DEFAULTS, "num_clases": 5, "In": cells})
    assert notebook.start("07_stub", {**DEFAULTS, "In": ["# Parameters\nseed = 0\n"]}).seed == 0


def test_start_needs_the_parameters_cell(checkout):
    with pytest.raises(DufmError, match="seed is not set; run the parameters cell"):
        notebook.start("07_stub", {name: value for name, value in DEFAULTS.items() if name != "seed"})
    with pytest.raises(DufmError, match="unknown notebook '08_x'; there are 00_overview, 07_stub"):
        notebook.start("08_x", DEFAULTS)


def test_published_means_the_committed_parameters_even_if_the_source_is_edited(checkout, replace, monkeypatch):
    notebook.start("07_stub", DEFAULTS)
    assert _checkout.running.published  # nothing is committed yet: the defaults
    sections = {"07_stub": {"parameters": DEFAULTS, "published": True, "claims": {}}}
    _checkout.write_json(checkout / "notebooks" / "records.json", {"notebooks": sections})
    replace("notebooks/07_stub.py", "num_classes: int = 4", "num_classes: int = 5")
    notebook.start("07_stub", {**DEFAULTS, "num_classes": 5})
    assert not _checkout.running.published
    monkeypatch.setenv("DUFM_REFRESH", "1")
    notebook.start("07_stub", {**DEFAULTS, "num_classes": 5})
    assert _checkout.running.published
    with pytest.raises(DufmError, match="a refresh runs the defaults"):
        notebook.start("07_stub", DEFAULTS)


def test_root(checkout, monkeypatch, tmp_path):
    assert notebook.root() == checkout.resolve()
    assert notebook.out_dir() == checkout.resolve() / "out"
    monkeypatch.setenv("DUFM_OUT", str(tmp_path / "elsewhere"))
    assert notebook.out_dir() == tmp_path.resolve() / "elsewhere"
    monkeypatch.setenv("DUFM_ROOT", str(tmp_path))
    with pytest.raises(DufmError, match="no checkout found"):
        notebook.root()
    monkeypatch.delenv("DUFM_ROOT")
    monkeypatch.setattr(_checkout, "__file__", str(tmp_path / "site" / "dufm" / "_checkout.py"))
    monkeypatch.chdir(checkout / "notebooks")
    assert notebook.root() == checkout.resolve()


def test_device(monkeypatch):
    monkeypatch.setenv("DUFM_DEVICE", "cpu")
    assert notebook.device() == "cpu"
    monkeypatch.setenv("DUFM_DEVICE", "tpu")
    with pytest.raises(DufmError, match="auto, cpu or cuda"):
        notebook.device()


def test_progress_timings_and_provenance(checkout, monkeypatch, capsys):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    p = notebook.start("07_stub", DEFAULTS)
    assert list(notebook.progress(range(3), label="steps")) == [0, 1, 2]
    with notebook.timed("nothing"):
        pass
    assert (checkout / "out" / "timings.log").read_text().startswith("07_stub\tnothing\t0.0")
    notebook.provenance(p)
    out = capsys.readouterr().out
    assert "torch" in out and "num_classes=4" in out and "seed 0" in out and "device" in out


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "record"
    _checkout.write_atomic(path, "old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        _checkout.write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
