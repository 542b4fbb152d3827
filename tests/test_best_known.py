"""The best solutions known: closed forms, searches made otherwise, theorems, the table against both; the command."""

import csv

import pandas
import pytest
import torch
from conftest import ROOT

import dufm
from dufm import DufmError, best, best_known, closed_form_margin, search
from dufm import __main__ as cli
from dufm.margin import ladder_margin

with open(ROOT / "dufm" / "best_known.csv", encoding="utf-8") as file:
    TABLE = {(int(row["num_classes"]), int(row["depth"])): row for row in csv.DictReader(file)}


def from_another_search():
    """Margin over collapse and rank of notebook 24's searches, rank by rank, each depth from the one before."""
    found = pandas.read_csv(ROOT / "notebooks" / "2_margin" / "24_phase.csv")
    return found.loc[found.groupby(["num_classes", "depth"])["margin_ratio"].idxmax()]


def test_the_table_is_whole_and_no_search_of_notebook_24_found_more_or_less():
    assert list(TABLE) == [(K, L) for K in range(4, 13) for L in range(3, 13)]
    for row in from_another_search().itertuples():
        found = best(row.num_classes, row.depth)
        assert found.margin_ratio == pytest.approx(row.margin_ratio, rel=1e-6)
        if row.num_classes > 3 and row.depth > 2:
            assert found.rank == row.rank
            assert found.source == ("table" if row.name.startswith("rank") else "closed form")


@pytest.mark.parametrize("case", list(TABLE), ids=lambda case: "-".join(map(str, case)))
def test_every_row_is_certified_anew_and_is_what_it_says(case):
    found, row = best(*case), TABLE[case]
    assert (str(found.rank), found.name) == (row["rank"], row["name"])
    assert found.margin_ratio == pytest.approx(float(row["margin_ratio"]), rel=1e-6)
    assert found.certificate.holds() and int(dufm.numerical_rank(found.Z, 1e-9)) == found.rank
    assert dufm.margins(found.Z).amin().item() == pytest.approx(1.0, abs=1e-9)
    sigma = torch.linalg.svdvals(found.Z)[: found.rank]
    assert found.margin == pytest.approx(float(sigma.pow(2 / case[1]).sum() ** (-case[1] / 2)), rel=1e-9)
    assert search.stratum_curvature(found.Z, case[1], found.rank) > -1e-6


@pytest.mark.parametrize("case", [(4, 3), (5, 4), (7, 4), (8, 5), (9, 3), (7, 12)])
def test_searches_of_one_rank_find_what_the_table_has(case):
    """Other seeds, one rank at a time: a second way to the same best."""
    K, L = case
    found = [dufm.max_margin(K, L, r, restarts=24, seed=7) for r in range(2, K)]
    winner = max(found, key=lambda solution: solution.margin)
    known = best(K, L)
    assert winner.rank == known.rank and winner.margin == pytest.approx(known.margin, rel=1e-9)


@pytest.mark.parametrize("case", [(6, 3), (7, 5), (5, 13), (8, 16)])
def test_the_batched_search_is_the_search_of_every_rank(case):
    found = search.best_rank(*case, seed=3)
    alone = dufm.max_margin(*case, found.rank, restarts=24, seed=3)
    assert found.margin == pytest.approx(alone.margin, rel=1e-10) and found.locally_optimal
    assert abs(found.agree - alone.agree) <= 1 and found.restarts == 24


def test_a_depth_whose_margins_leave_the_floats_is_named():
    with pytest.raises(DufmError, match="depth: the margin leaves the floats, got 2000"):
        best(4, 2000)


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5, 6, 8, 11, 20, 45])
def test_two_layers_collapse(num_classes):
    found = best(num_classes, 2)
    assert (found.name, found.rank, found.margin_ratio, found.source) == (
        "NC", num_classes - 1, pytest.approx(1.0, abs=1e-12), "theorem"
    )  # fmt: skip
    assert found.certificate.holds()
    if num_classes in (4, 5, 6):  # the search knows no theorem
        again = search.best_rank(num_classes, 2, restarts=8)
        assert again.rank == num_classes - 1 and again.margin == pytest.approx(found.margin, rel=1e-9)


@pytest.mark.parametrize("depth", [2, 3, 5, 9, 30])
def test_three_classes_collapse_at_every_depth(depth):
    found = best(3, depth)
    assert (found.name, found.rank, found.source) == ("NC", 2, "theorem")
    assert search.best_rank(3, depth, restarts=8).margin == pytest.approx(found.margin, rel=1e-9)


def test_the_turns_of_six_classes():
    """Collapse to depth 2, the octahedron to 5, the hexagon from 6: their closed margins cross there."""
    forms = {"NC": "nc", "orthoplex": "orthoplex", "polygon": "polygon"}
    for depth in range(2, 15):
        margins = {name: closed_form_margin(kind, 6, depth) for name, kind in forms.items()}
        winner = max(margins, key=margins.get)
        found = best(6, depth)
        assert winner == ("NC" if depth == 2 else "orthoplex" if depth < 6 else "polygon")
        assert found.name == winner and found.margin == pytest.approx(margins[winner], rel=1e-10)
    assert best(7, 3).margin == pytest.approx(ladder_margin(7, 3, 3), rel=1e-10)


def test_beyond_the_table_it_searches():
    found = best(5, 13)
    assert (found.name, found.rank, found.source) == ("polygon", 2, "closed form")
    assert found.margin == pytest.approx(closed_form_margin("polygon", 5, 13), rel=1e-10)
    best_known._table.cache_clear()


def test_without_a_row_the_search_finds_it_again(monkeypatch):
    known = best(7, 4)
    monkeypatch.setattr(best_known, "_table", dict)
    again = best(7, 4)
    assert (known.source, again.source) == ("table", "search") and again.rank == known.rank == 3
    assert again.margin == pytest.approx(known.margin, rel=1e-9)


def test_saving_writes_the_rows_again(tmp_path):
    best_known.save([7], [3, 4], restarts=8, path=tmp_path / "table.csv")
    with open(tmp_path / "table.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        kept = TABLE[7, int(row["depth"])]
        assert [row[key] for key in ("rank", "name", "margin_ratio")] == [
            kept[key] for key in ("rank", "name", "margin_ratio")
        ]
        assert len(row["entries"].split()) == len(kept["entries"].split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 3), "num_classes must be an integer >= 2, got 1"),
        ((46, 3), "of more than 45 classes none can be certified"),
        ((6, 1), "depth must be an integer >= 2, got 1"),
        ((6.0, 3), "num_classes must be an integer"),
        ((6, 3.0), "depth must be an integer"),
        ((True, 3), "num_classes"),
    ],
)
def test_refuses_in_one_line(arguments, message):
    with pytest.raises(DufmError, match=message) as caught:
        best(*arguments)
    assert "\n" not in str(caught.value)


def test_the_command_prints_the_table(capsys):
    assert cli.main(["best", "6", "3"]) == 0
    out = capsys.readouterr().out
    assert out == f"{best(6, 3)}\n" and "orthoplex" in out and "1.0758 of that of neural collapse" in out
    assert "residual below 1e-10, gap below 1e-10" in out and "something better may exist" in out
    assert cli.main(["best", "7", "4"]) == 0 and "none of those with a name" in capsys.readouterr().out
    assert cli.main(["best", "3", "9"]) == 0 and "something better" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["1", "3"], "num_classes must be an integer >= 2, got 1"),
        (["6", "1"], "depth must be an integer >= 2, got 1"),
        (["six", "3"], "argument K: invalid int value: 'six'"),
        (["6"], "the following arguments are required: L"),
        (["6", "2.5"], "argument L: invalid int value: '2.5'"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, message, capsys):
    assert cli.main(["best", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("dufm: ") and message in err and err.count("\n") == 1
