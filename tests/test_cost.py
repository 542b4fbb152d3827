"""What is counted, and that counting changes nothing."""

import math

import torch
from conftest import ROOT
from tolerances import close

import dufm
from dufm import cost, notebook, pages, peers

SMALL = {"num_classes": 4, "depth": 3, "width": 6, "batch": 3}


def test_counting_changes_no_end():
    found, gradients = cost.decided(cost.starts(1, **SMALL))
    same = dufm.end(cost.starts(1, **SMALL), 3)
    assert found.name.tolist() == same.name.tolist() and torch.equal(found.Z, same.Z)
    alone = sum(cost.decided([W[i : i + 1] for W in cost.starts(1, **SMALL)])[1] for i in range(3))
    # A batch ends when its last network has landed on the target: the others take its repeated landings too.
    assert alone <= gradients <= alone + 3 * 4 * 12


def test_explicit_steps_are_counted_as_they_are():
    """Three gradients a step of Bogacki and Shampine and one at the start; no implicit step before a loss of 1."""
    factors = [W[0] for W in cost.starts(1, **SMALL)]
    run = dufm.gradient_flow(factors, until_log_loss=-0.5, rtol=1e-3)
    _, meter = cost.flow(factors, [0.5])
    landings = 2 * 12  # on the level and on the target, each by a dozen steps at most
    assert 1 + 3 * int(run.steps) <= meter.marks[0, 0] <= 1 + 3 * (int(run.steps) + landings)


def test_a_table_has_a_row_a_level_and_the_end_of_each_method(monkeypatch):
    monkeypatch.setattr(cost, "LEVELS", [1.0, 3.0, 60.0])
    monkeypatch.setitem(cost.METHODS, "short", lambda factors, levels: peers.constant_steps(factors, levels, steps=100))
    rows = cost.compared(0, ["dufm", "short"])
    ours, short = ([row for row in rows if row[1] == name] for name in ("dufm", "short"))
    assert [row[2] for row in ours] == [1.0, 3.0, 60.0] and max(row[6] for row in ours) < 0.01
    assert [row[2] for row in short[:2]] == [1.0, 3.0] and 3.0 < short[2][2] < 60.0 and math.isnan(short[2][6])
    assert short[2][3] == 100 and [row[7] for row in rows if row[7]] == [ours[-1][7], short[-1][7]]


def test_a_cost_is_a_networks():
    one, many = cost.grown("batch", 1, 0), cost.grown("batch", 4, 0)
    assert one[:2] == ("batch", 1) and 0.5 < one[3] / many[3] < 2
    near, far = cost.grown("m", 1e2, 0), cost.grown("m", 1e4, 0)
    assert near[3] < far[3] < cost.grown("batch", 16, 0)[3]
    assert cost.ended(0, 2)[7] == "2 of 2"


def test_operations_of_the_flow_are_those_of_its_products(bench):
    bench_cost = bench("bench_cost")
    speed, operations = bench_cost.flow_speed(0, **SMALL)
    _, meter = cost.flow([W[0] for W in cost.starts(0, **SMALL)], [200.0])
    forward = 2 * 6 * 4 * 6 + 2 * 6 * 4 * 4
    assert speed > 0 and operations > 3 * meter.marks[0, 0] * forward
    square = torch.eye(64, dtype=torch.float64)
    close(math.log10(bench_cost.product_speed(square, square)), 10, 0.2)


def test_readme_has_the_table_of_what_was_measured(bench):
    bench_cost = bench("bench_cost")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert pages.filled(text, "cost", bench_cost.beside()) == text
    known = notebook.committed("93_methods").query("method == 'LSODA, Jacobian' and m == 1e4")
    assert f"| {known.gradients.median():.0f} |" in bench_cost.beside()
