"""The ledger: its entries, its verdicts, what the executed notebooks keep of them."""

import math

import nbformat
import numpy as np
import pytest
import torch

from dufm import DufmError, claims
from dufm.companion import files


def claim(**entry):
    base = {"id": "27-x", "statement": "S.", "source": "paper", "quantity": "q", "status": "measured"}
    return claims._claim({**base, **entry}, {"27"})


@pytest.mark.parametrize(
    ("expectation", "inside", "outside"),
    [
        ({"equals": 0.5, "within": 0.1}, [0.4, 0.5, 0.6], [0.39, 0.61]),
        ({"equals": 0, "within": 0}, [0], [1, -1]),
        ({"below": 1e-8}, [0, -1, 9e-9], [1e-8, 1]),
        ({"above": 2}, [2.1], [2, 1]),
        ({"between": [1, 2]}, [1, 1.5, 2], [0.9, 2.1]),
    ],
)
def test_expectations(checkout, expectation, inside, outside):
    found = claim(**expectation)
    assert all(found.meets(value) for value in inside)
    assert not any(found.meets(value) for value in [*outside, math.nan, math.inf, -math.inf])


@pytest.mark.parametrize(
    ("expectation", "value", "text"),
    [
        ({"equals": 0.3333, "within": 0.0001}, 1 / 3, "0.3333"),
        ({"equals": 0.0, "within": 0.01}, -0.001, "0.00"),
        ({"equals": 3, "within": 0}, 3, "3"),
        ({"below": 1e-8}, 1e-15, "below 1e-9"),
        ({"below": 1e-8}, 5e-9, "5e-09"),
        ({"between": [0, 1]}, 1e-17, "0"),
        ({"above": -1e-6}, -1.2e-11, "above -1e-7"),
        ({"above": -1e-6}, -5e-7, "-5e-07"),
        ({"above": 0}, -0.0, "0"),
        ({"above": 1}, math.inf, "inf"),
    ],
)
def test_values_are_rounded_so_that_machines_agree(checkout, expectation, value, text):
    assert claim(**expectation).show(value) == text


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"id": "x"}, "an id is"),
        ({"id": "99-x"}, "no notebook has the number '99'"),
        ({"status": "true"}, "status must be one of"),
        ({"source": "me"}, "source must be one of"),
        ({"status": "hypothesis"}, "carries its outcome"),
        ({"status": "deviates"}, "carries its outcome"),
        ({"statement": ""}, "missing"),
        ({"extra": 1}, "unknown"),
        ({"above": 3}, "one of equals"),
        ({"within": 3}, "one of equals"),
        ({"below": None}, "one of equals"),
        ({"below": "3"}, "finite numbers"),
        ({"below": math.inf}, "finite numbers"),
        ({"below": True}, "finite numbers"),
        ({"below": 10**400}, "finite numbers"),
        ({"statement": 3}, "statement must be text"),
        ({"outcome": ["so"]}, "outcome must be text"),
        ({"id": ["27-x"]}, "an id is"),
        ({"pinned": "no"}, "pinned must be true or false"),
    ],
)
def test_entries_that_are_refused(checkout, entry, message):
    entry = {"below": 1.0, **entry}
    with pytest.raises(DufmError, match=message):
        claim(**{key: value for key, value in entry.items() if value is not None})


@pytest.mark.parametrize("expectation", [{"between": [2, 1]}, {"between": 3}, {"equals": 1, "within": -1}])
def test_intervals_that_are_none(checkout, expectation):
    with pytest.raises(DufmError, match="finite numbers in order"):
        claim(**expectation)


def test_the_ledger_refuses_an_id_twice_and_broken_toml(checkout, replace):
    assert list(claims.ledger()) == ["27-margin", "27-residual"]
    replace("notebooks/claims.toml", 'id = "27-residual"', 'id = "27-margin"')
    with pytest.raises(DufmError, match="stands twice"):
        claims.ledger()
    (checkout / "notebooks" / "claims.toml").write_text("[[claim", encoding="utf-8")
    with pytest.raises(DufmError, match="claims.toml"):
        claims.ledger()


@pytest.mark.parametrize(
    ("status", "value", "verdict"),
    [
        ("proved", 0, "holds"),
        ("measured", 2, "fails"),
        ("hypothesis", 0, "holds"),
        ("hypothesis", 2, "refuted"),
        ("deviates", 2, "deviates"),
        ("deviates", 0, "holds"),
    ],
)
def test_verdicts_in_a_readers_words(checkout, status, value, verdict):
    assert claim(below=1, status=status, outcome="So it was.").judge(value) == verdict


@pytest.mark.parametrize("value", [1 / 3, np.float32(1 / 3), np.array(1 / 3), torch.tensor([1 / 3])])
def test_check_prints_statement_value_expectation_and_verdict(checkout, capsys, value):
    claims.check("27-margin", value)
    said = capsys.readouterr().out
    assert said.startswith("27-margin holds: The margin of the simplex is a third.")
    assert "margin at depth 2: 0.3333 (expected 0.3333 ± 0.0001); proved" in said


def test_check_raises_for_what_should_hold_and_refuses_what_is_no_number(checkout, capsys):
    with pytest.raises(claims.ClaimFailed, match="27-margin: margin at depth 2 is 0.5000, expected 0.3333 ± 0.0001"):
        claims.check("27-margin", 0.5)
    assert "27-margin fails" in capsys.readouterr().out
    for value in ([1, 2], "a third", None, torch.ones(2), 10**400):
        with pytest.raises(DufmError, match="one number"):
            claims.check("27-margin", value)
    with pytest.raises(DufmError, match="did you mean 27-margin"):
        claims.check("27-margins", 1)


def test_other_parameters_make_a_claim_not_applicable(checkout, capsys, monkeypatch):
    monkeypatch.setattr(files, "running", lambda: files.NotebookRun("27_stub", {}, False, None))
    claims.check("27-margin", 0.5)
    claims.check("27-margin", math.nan)
    other, none = capsys.readouterr().out.strip().split("27-margin not applicable")[1:]
    assert "0.5000 (expected 0.3333 ± 0.0001); proved at the published parameters" in other
    assert "margin at depth 2: none (expected" in none
    monkeypatch.setattr(files, "running", lambda: files.NotebookRun("00_overview", {}, True, None))
    with pytest.raises(DufmError, match="belongs to 27_stub, but 00_overview is running"):
        claims.check("27-margin", 0.5)


def test_the_executed_notebook_is_the_record(checkout):
    record = {"id": "27-margin", "shown": "0.3333", "verdict": "holds"}
    output = nbformat.v4.new_output("display_data", data={"text/plain": ""}, metadata={"dufm_claim": record})
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=[output])])
    nbformat.write(made, checkout / "notebooks" / "2_margin" / "27_stub.ipynb")
    found = claims.recorded()
    assert found == {"27-margin": claims.Verdict("0.3333", "holds")}
    assert claims.failures(found, ["27_stub"]) == ["27-residual"] and claims.failures(found, ["00_overview"]) == []
    elsewhere = {"27-margin": claims.Verdict("0.5", "not applicable")}
    assert claims.failures(elsewhere, ["27_stub"]) == []  # other parameters check other claims
    assert claims.counts(found) == "1 not run, 1 holds"
    table = claims.table(found, claims.ledger().values(), folder="n/")
    assert "| The margin of the simplex is a third. | margin at depth 2: 0.3333 (expected 0.3333 ± 0.0001) |" in table
    assert "not run (measured) | [27-residual](n/2_margin/27_stub.ipynb) |" in table
