"""Kept cells of a sweep: whatever stands in a file, the table is what a fresh run gives."""

import json
import warnings

import numpy as np
import pandas
import pytest

from dufm import DufmError, cells, sweep

CALLS = []
GRID = {"a": [1, 2], "b": [True, 1.0]}
BODY = [[{"a": 1, "b": 1.0}, {"value": [0.0, 0.0]}]]


def task(seeds, a, b):
    """Numbers and texts that a round trip could spoil."""
    CALLS.append((a, b))
    values = np.array([0.1, np.nan, -np.inf][:2]) * a
    return {
        "value": values,
        "tiny": 5e-324,
        "single": np.float32(0.1),
        "whole": 2**63 - 1,
        "text": "d\ud800 ü",
        "yes": b > 0,
    }


def run(folder):
    """The table, and the cells that were computed for it."""
    CALLS.clear()
    table = sweep.run(task, GRID, seeds=[3, 4], cache_dir=folder)
    return table, list(CALLS)


def only(folder):
    """The folder of the sweep, and its files but the last one made, and that one."""
    (inside,) = folder.iterdir()
    return inside, sorted(inside.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)[-1]


DAMAGE = {
    "cut": lambda whole: whole[: len(whole) // 2],
    "empty": lambda whole: b"",
    "not UTF-8": lambda whole: b"\xff\xfe" + whole,
    "one digit": lambda whole: whole.replace(b"0.2", b"0.3"),
    "list": lambda whole: b"[1, 2]",
    "number": lambda whole: b"3",
    "null": lambda whole: b"null",
    "nothing": lambda whole: b"{}",
    "deep": lambda whole: b"[" * 100_000,
    "digits": lambda whole: b'[[{}, {"value": ' + b"7" * 5000 + b"}]]",
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_said_once_and_computed_again(how, tmp_path):
    table, computed = run(tmp_path)
    assert len(computed) == 4
    folder, file = only(tmp_path)
    lost = len(json.loads(file.read_text()))
    file.write_bytes(DAMAGE[how](file.read_bytes()))
    with pytest.warns(UserWarning, match=r"1 damaged, now \*.damaged; their cells are computed again$") as said:
        again, computed = run(tmp_path)
    assert len(said) == 1 and len(computed) == lost
    pandas.testing.assert_frame_equal(again, table, check_exact=True)
    assert len(list(folder.glob("*.damaged"))) == 1
    third, computed = run(tmp_path)
    assert computed == []
    pandas.testing.assert_frame_equal(third, table, check_exact=True)


@pytest.mark.parametrize("how", ["folder", "link to nothing", "another sweep's"])
def test_what_is_no_file_of_this_sweep_is_not_believed(how, tmp_path):
    table, _ = run(tmp_path / "one")
    folder, file = only(tmp_path / "one")
    if how == "another sweep's":
        sweep.run(task, GRID, seeds=[0, 1], cache_dir=tmp_path / "two")
        other = only(tmp_path / "two")[1]
        (folder / other.name).write_bytes(other.read_bytes())
        lost = 0
    else:
        lost = len(json.loads(file.read_text()))
        file.unlink()
        file.mkdir() if how == "folder" else file.symlink_to(tmp_path / "nowhere")
    with pytest.warns(UserWarning, match="1 damaged"):
        again, computed = run(tmp_path / "one")
    assert len(computed) == lost
    pandas.testing.assert_frame_equal(again, table)


PLANTED = {
    "number": 3,
    "null": None,
    "text": ["ab"],
    "no cell": [[3, {"value": [0.0, 0.0]}]],
    "no columns": [[BODY[0][0], []]],
    "short": [[BODY[0][0], {"value": [0.0]}]],
    "nested": [[BODY[0][0], {"value": [[0.0], [0.0]]}]],
    "ragged": [[BODY[0][0], {"value": [[0.0], 0.0]}]],
    "nulls": [[BODY[0][0], {"value": [None, None]}]],
    "error": [[BODY[0][0], {"value": [0.0, 0.0], "error": "planted"}]],
    "parameter": [[BODY[0][0], {"value": [0.0, 0.0], "a": [7, 7]}]],
    "seed": [[BODY[0][0], {"seed": [7, 7]}]],
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_file_that_was_made_with_care_must_still_hold_columns_of_this_cell(what, tmp_path):
    cells.keep(cells.folder(tmp_path, "task", sweep._source(task), [3, 4]), PLANTED[what])
    with pytest.warns(UserWarning, match="1 damaged"):
        table, computed = run(tmp_path)
    assert len(computed) == 4 and (table["error"] == "").all() and set(table["whole"]) == {2**63 - 1}


@pytest.mark.parametrize("body", [b"[" * 100_000, b'[[{}, {"value": ' + b"7" * 5000 + b"}]]", b"\xff", b"not JSON"])
def test_what_no_parser_takes_is_damaged_under_any_name(body, tmp_path):
    folder = cells.folder(tmp_path, "task", sweep._source(task), [3, 4])
    (folder / f"{cells._name(folder, body)}.json").write_bytes(body)
    with pytest.warns(UserWarning, match="1 damaged"):
        assert len(run(tmp_path)[1]) == 4


def test_a_kept_table_is_the_fresh_one_to_the_bit_and_nothing_is_said(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh, kept = run(tmp_path)[0], run(tmp_path)[0]
    assert CALLS == [] and list(fresh.dtypes) == list(kept.dtypes)
    pandas.testing.assert_frame_equal(fresh, kept, check_exact=True)
    assert kept["tiny"][0] == 5e-324 and kept["single"][0] == float(np.float32(0.1))
    # A lone surrogate is spelled out: a column of PyArrow, which pandas takes where it is installed, cannot hold it.
    assert set(kept["text"]) == {"d\\ud800 ü"}


def test_a_pickle_in_the_folder_is_not_opened(tmp_path):
    import pickle

    run(tmp_path)
    folder, file = only(tmp_path)
    file.write_bytes(pickle.dumps(BODY))
    (folder / "output.pkl").write_bytes(b"cos\nabort\n(tR.")
    with pytest.warns(UserWarning, match="1 damaged"):
        run(tmp_path)


@pytest.mark.parametrize("wrong", [5, "a\0b", "FILE", "FILE/below"])
def test_a_cache_that_is_no_folder_is_refused(wrong, tmp_path):
    (tmp_path / "file").write_text("")
    wrong = wrong.replace("FILE", str(tmp_path / "file")) if isinstance(wrong, str) else wrong
    with pytest.raises(DufmError, match="cache_dir must be a folder"):
        sweep.run(task, GRID, seeds=[0], cache_dir=wrong)


def test_a_folder_that_goes_away_is_one_line(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cells.files, "write_atomic", full)
    with pytest.raises(DufmError, match="cells cannot be kept in .*No space left"):
        run(tmp_path)
