import json
import math

import numpy as np
import pytest
import torch

from dufm import DufmError, claims, notebook

DEFAULTS = {"num_classes": 4, "depths": [2, 3, 4], "scale": 1.0, "pause": 0.0, "seed": 0, "budget": "default"}


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("1 ± 0.1", [0.95, 1.05, 1.0], [1.2, 0.8, -1]),
        ("3 ± 0", [3], [3.0000001]),
        ("-2.5e-3 ± 1e-4", [-0.0025], [0.0025]),
        ("< 1e-8", [1e-9, -1], [1e-8, 1]),
        ("<= 2", [2], [2.1]),
        ("> 0.5", [0.6], [0.5]),
        (">= 0.5", [0.5], [0.4]),
        ("[0.9, 1.1]", [0.9, 1, 1.1], [0.89, 1.11]),
    ],
)
def test_expected_is_read_and_judged(text, inside, outside):
    expected = claims.parse(text)
    assert all(expected.holds(value) for value in inside)
    assert not any(expected.holds(value) for value in [*outside, math.nan])


@pytest.mark.parametrize(
    "text",
    ["1", "1±0.1", "1 +- 0.1", "about 1", "<1", "< x", "[1, 0]", "[1,2]", "1 ± -1", "", "1 ± 0.1 or so", "nan ± 1"],
)
def test_expected_outside_the_grammar_is_refused(text):
    with pytest.raises(DufmError, match="expected"):
        claims.parse(text)


def test_only_a_hypothesis_or_a_proof_may_be_a_rule_in_words():
    assert claims.parse("falls with depth", "hypothesis").kind == "words"
    assert claims.parse("holds for all K", "proved").kind == "words"
    with pytest.raises(DufmError, match="rule in words"):
        claims.parse("falls with depth", "measured")


@pytest.mark.parametrize(
    ("text", "value", "shown"),
    [
        ("< 1e-8", 3.7e-16, "below 1e-09"),
        ("< 1e-8", 0.0, "below 1e-09"),
        ("< 1e-8", 5.43219e-9, "5.432e-09"),
        ("<= -200", -201.23456, "-201.2"),
        ("0.978 ± 0.002", 0.97812345, "0.978"),
        ("1 ± 1e-8", 1 + 3e-15, "1.00000000"),
        ("0 ± 0.01", -1e-17, "0.00"),
        ("32 ± 0", 32, "32"),
        ("[-1, 1]", 2e-17, "0"),
        ("> 0.5", 0.123456, "0.1235"),
        ("< 1", math.nan, "nan"),
        ("< 1", math.inf, "inf"),
    ],
)
def test_roundoff_does_not_show(text, value, shown):
    assert claims.parse(text).show(value) == shown


def started(**changes):
    return notebook.start("07_stub", {**DEFAULTS, **changes})


def recorded(checkout):
    return json.loads((checkout / "out" / "records.json").read_text(encoding="utf-8"))["notebooks"]["07_stub"]


@pytest.mark.parametrize("value", [1 / 3, np.float64(1 / 3), np.array(1 / 3), torch.tensor(1 / 3)])
def test_check_prints_one_line_and_records(checkout, capsys, value):
    started()
    claims.check("stub.margin", value)
    assert capsys.readouterr().out == "stub.margin: 0.3333 | expected 0.3333 ± 0.0001 | PASS\n"
    assert recorded(checkout)["claims"] == {"stub.margin": {"value": 0.3333, "shown": "0.3333", "verdict": "PASS"}}


@pytest.mark.parametrize("value", [0.4, math.nan])
def test_a_failing_claim_is_printed_recorded_and_raised(checkout, capsys, value):
    started()
    with pytest.raises(claims.ClaimFailed, match="stub.margin"):
        claims.check("stub.margin", value)
    assert capsys.readouterr().out.endswith("FAIL\n")
    assert recorded(checkout)["claims"]["stub.margin"]["verdict"] == "FAIL"


@pytest.mark.parametrize("status", ["deviates", "not_run", "hypothesis"])
def test_other_claims_do_not_raise(replace, capsys, status):
    replace("notebooks/claims.toml", 'status = "proved"', f'status = "{status}"\noutcome = "it does not"')
    started()
    claims.check("stub.margin", 0.4)
    assert "FAIL" in capsys.readouterr().out


def test_a_hypothesis_in_words(replace, capsys):
    replace(
        "notebooks/claims.toml",
        '"0.3333 ± 0.0001"\nstatus = "proved"',
        '"falls with depth"\nstatus = "hypothesis"\noutcome = "it falls"',
    )
    started()
    claims.check("stub.margin", True)
    claims.check("stub.margin", 0.25)
    assert capsys.readouterr().out.splitlines() == [
        "stub.margin: yes | expected falls with depth | PASS",
        "stub.margin: 0.25 | expected falls with depth | REPORTED",
    ]
    assert "it falls" in claims.table()


@pytest.mark.parametrize("change", [{"budget": "smoke"}, {"num_classes": 5}, {"seed": 1}])
def test_other_parameters_are_not_applicable(checkout, capsys, change):
    started(**change)
    claims.check("stub.margin", 0.9)
    assert capsys.readouterr().out.endswith("| not applicable\n")
    assert claims.failures(checkout / "out" / "records.json", ["07_stub"]) == []


def test_starting_again_forgets_what_was_recorded(checkout):
    started()
    claims.check("stub.residual", 0)
    started()
    assert recorded(checkout)["claims"] == {}
    assert claims.failures(checkout / "out" / "records.json", ["07_stub"]) == ["stub.margin", "stub.residual"]


def test_refusals(checkout):
    with pytest.raises(DufmError, match="call dufm.notebook.start"):
        claims.check("stub.margin", 1)
    started()
    with pytest.raises(DufmError, match="did you mean stub.margin"):
        claims.check("stub.margins", 1)
    for value in ([1, 2], np.ones(3), torch.ones(2), "1", None, True):
        with pytest.raises(DufmError, match="stub.margin: value must be"):
            claims.check("stub.margin", value)
    notebook.start("00_overview", {"seed": 0, "budget": "default"})
    with pytest.raises(DufmError, match="belongs to 07_stub"):
        claims.check("stub.margin", 1)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('status = "proved"', 'status = "true"', "status must be one of proved"),
        ('source = "paper"', 'source = "book"', "source must be one of paper"),
        ('source = "paper"', 'source = "paper"\nnotebok = "x"', "unknown .*notebok"),
        ('quantity = "residual"', "", "missing .*quantity"),
        ('quantity = "residual"', "quantity = 3", "must be text"),
        ('id = "stub.residual"', 'id = "stub.margin"', "twice"),
        ('id = "stub.residual"', 'id = "stub residual"', "an id holds"),
        ('"< 1e-8"', '"small"', "none of"),
        ('status = "proved"', 'status = "hypothesis"', "outcome"),
        ('status = "proved"', "status = proved", "claims.toml"),
    ],
)
def test_a_wrong_ledger_is_refused(replace, old, new, message):
    replace("notebooks/claims.toml", old, new)
    with pytest.raises(DufmError, match=message):
        claims.ledger()


def test_a_claim_of_no_notebook_is_refused(checkout):
    (checkout / "notebooks" / "07_stub.py").rename(checkout / "notebooks" / "08_stub.py")
    with pytest.raises(DufmError, match="unknown notebook '07_stub'; there are 00_overview, 08_stub"):
        claims.ledger()


def test_tables(checkout):
    assert claims.summary() == "07_stub: 2 not run"
    started()
    claims.check("stub.margin", 1 / 3)
    now = claims.records(checkout / "out" / "records.json")
    assert "| 0.3333 | PASS | [07](notebooks/07_stub.ipynb) |" in claims.table(now, folder="notebooks/")
    plain = claims.plain_table(["07_stub"], now).splitlines()
    assert plain[1].split() == ["stub.margin", "0.3333", "±", "0.0001", "-", "0.3333", "PASS"]
    assert plain[2].endswith("not reached")


def test_the_ledger_of_this_project_is_in_order():
    assert all(claim.statement.endswith(".") for claim in claims.ledger().values())
