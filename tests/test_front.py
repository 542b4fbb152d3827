"""The moving picture of the front page: small enough, whole, drawn from its table, and the table from the flow."""

import importlib.util
import json

import matplotlib
import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from dufm import figures
from dufm.companion import files

PATH = ROOT / "figures" / "front.py"
ABOUT = json.loads(PATH.with_suffix(".json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def front():
    spec = importlib.util.spec_from_file_location("front", PATH)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


@pytest.fixture(scope="module")
def data(front):
    return front.stored(PATH)


def test_the_film_is_small_and_whole_and_has_a_still(front):
    assert PATH.with_suffix(".gif").stat().st_size <= 2_000_000
    with Image.open(PATH.with_suffix(".gif")) as film, Image.open(PATH.with_suffix(".png")) as still:
        assert film.n_frames == len(front.script()) and film.info["loop"] == 0
        assert film.size == still.size and film.width >= 830
        film.seek(film.n_frames - 1)
        assert np.array_equal(np.asarray(film.convert("RGB")), np.asarray(still.convert("RGB")))


def test_what_is_committed_was_made_by_the_script_as_it_is(front):
    assert ABOUT["script"] == files.digest(PATH) and ABOUT["data"] == files.digest(PATH.with_suffix(".csv"))
    assert ABOUT["parameters"] == front.RUN and ABOUT["alt"] == front.ALT


@pytest.mark.skipif(matplotlib.__version__ != ABOUT["versions"]["matplotlib"], reason="another Matplotlib's pixels")
@pytest.mark.parametrize("frame", [0, 60, 129])
def test_a_frame_is_the_picture_of_its_moment(front, data, frame):
    with figures.style():
        drawn = np.asarray(front.picture(data, *front.script()[frame]), dtype=float)
    with Image.open(PATH.with_suffix(".gif")) as film:
        film.seek(frame)
        shown = np.asarray(film.convert("RGB"), dtype=float)
    other = np.abs(shown - drawn).max(-1)
    assert other.mean() < 1.5 and (other > 60).mean() < 1e-3  # few colours, no other lines


def test_the_table_is_the_flow_and_its_last_moment_the_certified_end(front, data):
    Z = front.starts()[front.RUN["shown"]]
    chosen = [0, 40, 60, 75, front.MOMENTS - 1]
    marks = [front.levels()[moment] for moment in chosen]
    paths = [front.train(Z, depth, marks) for depth in front.RUN["depths"]]
    axes = front.directions(paths)
    assert torch.allclose(axes @ axes.mT, torch.eye(5, dtype=torch.float64), atol=1e-12)
    for depth, path in zip(front.RUN["depths"], paths, strict=True):
        here = data["depth"] == depth
        places = np.column_stack([data[f"x{i}"][here] for i in range(1, 6)]).reshape(front.MOMENTS, -1, 5)[chosen]
        new = front.places(path, axes).numpy()
        grams = [X @ X.swapaxes(-1, -2) for X in (places, new)]
        assert np.abs(grams[0] - grams[1]).max() < 1e-3  # turns of the axes between equal values are free
        assert np.allclose(data["log_loss"][here].reshape(front.MOMENTS, -1)[chosen, 0], marks, rtol=1e-5)
        end = front.ends(Z, depth)
        assert bool(end.decided) and str(end.name) == data["end"][here][0] and int(end.rank) == data["rank"][here][0]
        X = front.places(end.Z, axes).numpy()
        assert np.abs(X @ X.T - grams[0][-1]).max() < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 4, 6])
def test_so_many_starts_end_like_the_one_shown(front, data, depth):
    here = data["depth"] == depth
    end = front.ends(front.starts(), depth)
    assert int((end.decided.numpy() & (end.name == data["end"][here][0])).sum()) == data["alike"][here][0]
