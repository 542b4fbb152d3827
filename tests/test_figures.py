import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from dufm import DufmError, _checkout, figures


@pytest.fixture
def drawn(checkout):
    figures.store("07_line", {"x": [1, 2, 3], "y": np.array([0.1, 0.2, 1 / 3])})

    def draw(alt="A line that rises."):
        data = figures.load("07_line")
        fig, ax = figures.subplots(width=3.4)
        ax.plot(data["x"], data["y"], color=figures.PALETTE["nc"])
        ax.set(xlabel="time", ylabel="height")
        figures.save(fig, "07_line", alt=alt)

    return draw


def test_numbers_survive(checkout):
    columns = {"n": [1, 2], "x": torch.tensor([0.1, float("nan")]), "kind": ["nc", "cube, sharp"], "on": [True, False]}
    figures.store("07_x", columns)
    text = (checkout / "out" / "figures" / "07_x.csv").read_text()
    assert text == 'n,x,kind,on\n1,0.1,nc,1\n2,nan,"cube, sharp",0\n'
    data = figures.load("07_x")
    assert data["n"].dtype.kind == "i"
    np.testing.assert_allclose(data["x"], [0.1, np.nan], rtol=1e-7)
    assert list(data["kind"]) == ["nc", "cube, sharp"]


@pytest.mark.parametrize("columns", [{}, {"x": []}, {"x": [1], "y": [1, 2]}, {"x": np.ones((2, 2))}])
def test_columns_that_are_no_table_are_refused(checkout, columns):
    with pytest.raises(DufmError, match="columns"):
        figures.store("07_x", columns)


@pytest.mark.parametrize("name", ["x", "../07_x", "07_X", "07"])
def test_names(checkout, name):
    with pytest.raises(DufmError, match="notebook's number"):
        figures.store(name, {"x": [1]})


def test_load_looks_in_out_then_in_the_committed_figures(checkout, monkeypatch, tmp_path):
    with pytest.raises(DufmError, match="no numbers for figure '07_x'"):
        figures.load("07_x")
    for folder, value in (("figures", 1), ("out/figures", 2)):
        _checkout.write_atomic(checkout / folder / "07_x.csv", f"x\n{value}\n")
        assert figures.load("07_x")["x"] == [value]
    monkeypatch.setenv("DUFM_FIGURE_DATA", str(checkout / "figures"))
    assert figures.load("07_x")["x"] == [1]


def test_save_writes_the_same_bytes_twice(checkout, drawn):
    folder = checkout / "out" / "figures"
    drawn()
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(first) == {"07_line.csv", "07_line.json", "07_line.pdf", "07_line.png"}
    drawn()
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}
    about = json.loads(first["07_line.json"])
    assert about["alt"] == "A line that rises."
    assert about["data"] == _checkout.digest(folder / "07_line.csv")
    assert "torch" in about["versions"]


@pytest.mark.parametrize("alt", ["", "  ", None])
def test_alt_is_obligatory(drawn, alt):
    with pytest.raises(DufmError, match="alt must say"):
        drawn(alt)


def test_numbers_are_obligatory(checkout):
    fig, _ = figures.subplots()
    with pytest.raises(DufmError, match="no numbers"):
        figures.save(fig, "07_none", alt="Nothing.")


def test_style():
    fig, axes = figures.subplots(2, 2, width=7.0, height=4.0, sharex=True)
    assert axes.shape == (2, 2)
    assert tuple(fig.get_size_inches()) == (7.0, 4.0)
    with pytest.raises(DufmError, match="3.4"):
        figures.subplots(width=5)
    assert set(figures.PALETTE) == set(figures.LINESTYLE) == set(figures.MARKER)
    with pytest.raises(DufmError, match="depth"):
        figures.depth_color(1)


def test_colours_differ_in_grey():
    def lightness(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    grey = sorted(lightness(colour) for colour in figures.PALETTE.values())
    assert min(np.diff(grey)) > 0.02
    depths = [sum(figures.depth_color(depth)[:3]) for depth in range(2, 17)]
    assert all(np.diff(depths) > 0)


def test_import_dufm_is_light():
    heavy = "{'matplotlib', 'papermill', 'sklearn', 'jupytext', 'IPython'}"
    code = f"import sys, dufm, dufm.__main__; sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
