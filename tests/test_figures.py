"""Figures: the numbers beside the picture, the same bytes twice, a style that no user's setting changes."""

import base64
import itertools
import json

import matplotlib
import numpy as np
import pandas
import pytest

from dufm import DufmError, figures
from dufm.companion import files

TABLE = {"depth": [2, 3], "margin": [1.0, -0.0], "kind": ["nc", "low rank"], "sure": [True, False]}


@pytest.fixture
def stored(checkout):
    figures.store("27_stub", TABLE)
    return checkout / "out" / "figures"


def test_the_numbers_come_back(stored):
    assert (stored / "27_stub.csv").read_text() == "depth,margin,kind,sure\n2,1,nc,1\n3,0,low rank,0\n"
    data = figures.stored("27_stub")
    assert data["depth"].tolist() == [2, 3] and data["kind"].tolist() == ["nc", "low rank"]
    figures.store("27_stub", pandas.DataFrame({"x": [0.1, np.nan], "name": ["", "a"]}))
    data = figures.stored("27_stub")
    assert np.isnan(data["x"][1]) and data["name"].tolist() == ["", "a"]


@pytest.mark.parametrize("table", [{}, {"x": []}, {"x": [1], "y": [1, 2]}, {"x": [1j]}, {"x": [[1, 2], 3]}])
def test_tables_that_are_refused(checkout, table):
    with pytest.raises(DufmError, match="table must hold"):
        figures.store("27_stub", table)


@pytest.mark.parametrize("name", ["stub", "27-stub", "27_Stub", "7_stub"])
def test_names_that_are_refused(checkout, name):
    with pytest.raises(DufmError, match="name must be"):
        figures.store(name, TABLE)


def test_show_writes_the_same_bytes_whatever_the_user_has_set(stored, monkeypatch):
    figures.show("27_stub", alt="It falls.")
    kinds = ("pdf", "png", "json")
    first = [(stored / f"27_stub.{kind}").read_bytes() for kind in kinds]
    with matplotlib.rc_context({"axes.grid": True, "font.size": 20, "text.usetex": True}):
        figures.show("27_stub", alt="It falls.")
        assert matplotlib.rcParams["font.size"] == 20
    assert first == [(stored / f"27_stub.{kind}").read_bytes() for kind in kinds]
    about = json.loads(first[2])
    assert about["alt"] == "It falls." and about["notebook"] == "27_stub"
    assert about["data"] == files.digest(stored / "27_stub.csv")


def test_descents_that_fail_are_no_ends():
    """Three of the 20,000 that 27 has at ``budget = "full"``."""
    data = {key: column.copy() for key, column in figures.stored("27_triangles").items()}
    ends = np.flatnonzero(data["what"] == "end")
    data["ratio"][ends[0]] = data["product"][ends[0]] = np.nan
    with figures.style():
        drawn = figures.draw("27_triangles", data)
    assert f"{len(ends) - 1} of {len(ends)} descents" in "".join(text.get_text() for text in drawn.axes[0].texts)


def test_what_is_missing_is_named(checkout):
    with pytest.raises(DufmError, match="run its notebook first"):
        figures.show("27_stub", alt="It falls.")
    figures.store("27_other", TABLE)
    with pytest.raises(DufmError, match="no script figures/27_other.py"):
        figures.show("27_other", alt="It falls.")
    for alt in ("", " ", None):
        with pytest.raises(DufmError, match="alt must say"):
            figures.show("27_stub", alt=alt)


def test_the_alt_text_reaches_the_page(stored):
    page = figures.write("27_stub", {"alt": "a < b", "notebook": "27_stub", "parameters": None})
    shown = figures.bundle(page, "a < b & c")
    assert shown["text/plain"] == "a < b & c" and '<img alt="a &lt; b &amp; c"' in shown["text/html"]
    assert base64.b64decode(shown["image/png"]) == page and page in base64.b64decode(
        shown["text/html"].split("base64,")[1].split('"')[0]
    )


def test_depths_differ_in_grey_too():
    styles = [figures.depth_style(depth) for depth in range(2, 11)]
    looks = [(style["marker"], style["linestyle"]) for style in styles]
    assert len(set(looks)) == len(looks)
    assert all(near["marker"] != far["marker"] for near, far in itertools.pairwise(styles))
    with pytest.raises(DufmError, match="at least 2"):
        figures.depth_color(1)
    with pytest.raises(DufmError, match="width must be"):
        figures.subplots(width=5.0)
