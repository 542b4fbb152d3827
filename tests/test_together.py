"""What the arguments of one call must be together: columns that are there, shapes that fit."""

import inspect
import re

import numpy as np
import pandas
import pytest
import tables
import torch
from test_door import FUNCTIONS, refusal

import dufm
from dufm import DufmError, _together, alignment, choice, complement, lazy, rectified, weight_decay, width

COLUMNS = [(key, column) for key in _together.COLUMNS for column in tables.read(key)]
#: pandas merges on the columns that two tables share, so that without one of these it joins what is not the same.
MERGED_WITHOUT = {("learned.joined.known", name) for name in ("n_per_class", "batch_size", "dataset", "digest")}


def function_of(key):
    return FUNCTIONS[key.rpartition(".")[0]]


def test_every_table_of_every_public_function_is_known():
    """A new function that takes a DataFrame fails here until its columns are in the door's table."""
    expected = {
        f"{name}.{parameter.name}"
        for name, function in FUNCTIONS.items()
        for parameter in inspect.signature(function).parameters.values()
        if str(parameter.annotation).rpartition(".")[2].strip("'>") in ("DataFrame", "Any")
        or re.search(r"Mapping\[str, (typing\.)?Any\]", str(parameter.annotation))
    }
    assert set(_together.COLUMNS) == set(tables.TABLES) == expected


@pytest.mark.parametrize("key", _together.COLUMNS)
def test_the_listed_columns_are_enough(key):
    table = tables.TABLES[key]
    if isinstance(table, pandas.DataFrame):
        assert set(table) == set(tables.read(key)), "the example holds what is listed and nothing else"
    function_of(key)(**tables.call(key, table))


@pytest.mark.parametrize("key, column", COLUMNS)
def test_a_missing_column_is_named_and_was_needed(key, column):
    """Behind the door the function fails without it."""
    function, given = function_of(key), tables.call(key, tables.without(tables.TABLES[key], column))
    message = refusal(lambda: function(**given))
    assert message.startswith(f"{key.rpartition('.')[2]} must have one column {column!r}")
    if (key, column) in MERGED_WITHOUT:
        return
    with pytest.raises((KeyError, AttributeError, DufmError), match=re.escape(column)):
        inspect.unwrap(function)(**given)


@pytest.mark.parametrize("key", [key for key, table in tables.TABLES.items() if isinstance(table, pandas.DataFrame)])
def test_words_for_numbers_and_numbers_for_words_are_named(key):
    numbers, words = (part.split() for part in _together.COLUMNS[key].split(";"))
    for column, value in [(name, "many") for name in numbers] + [(name, 1.5) for name in words if name != "*keys"]:
        table = tables.TABLES[key].assign(**{column: value})
        kind = "numbers" if value == "many" else "words"
        message = refusal(lambda table=table: function_of(key)(**tables.call(key, table)))
        assert f"must hold {kind} in column {column!r}" in message


@pytest.mark.parametrize("key", sorted(_together.ROWS))
def test_a_table_without_rows_is_refused_where_nothing_can_be_made_of_it(key):
    empty = tables.TABLES[key].iloc[:0]
    assert "must hold at least one row" in refusal(lambda: function_of(key)(**tables.call(key, empty)))
    with pytest.raises((IndexError, ValueError)):
        inspect.unwrap(function_of(key))(**tables.call(key, empty))


@pytest.mark.parametrize("name", _together.SHAPES)
def test_the_table_of_shapes_names_arguments_that_are_there(name):
    parameters = inspect.signature(FUNCTIONS[name]).parameters
    parts = re.findall(r"(\w+) \(([^)]*)\)", _together.SHAPES[name])
    assert parts and [part for part, _ in parts if part not in parameters] == []
    assert re.fullmatch(r"(\w+ \([\w., ]+\)(, )?)+(one dtype)?", _together.SHAPES[name])


E4, E3 = torch.eye(4, dtype=torch.float64), torch.eye(3, dtype=torch.float64)
F4 = dufm.gaussian_init(3, 5, 4, seed=0, batch=2)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: complement.force_ratio(E4, E4, E3), "E must be of shape (K, K) with K = 4 in pull, got (3, 3)"),
        (lambda: complement.force_ratio(E4, E4, E4[None]), "of shape (K, K) with K = 4 in pull, got (1, 4, 4)"),
        (lambda: complement.block_values(E4, E4.float(), 2), "Z must have the dtype of pull, torch.float64, got"),
        (lambda: rectified.residual(F4, 1), "factors must be factors whose product is of shape (K, K), got (2, 4, 4)"),
        (lambda: weight_decay.least_cost(E4.expand(2, 4, 4), 3, 0.1), "Z must be of shape (K, K), got (2, 4, 4)"),
        (lambda: dufm.ends.distance(E4.expand(2, 4, 4), E4.expand(3, 4, 4)), "solution must be of shape (..., K, N)"),
        (lambda: alignment.realigned(F4, "wide", 0.5, [1]), "seeds must be of shape (n) with n = 2 in factors"),
        (lambda: width.power_law([1.0, 2.0], [1.0, 2.0], [1.0]), "errors must be of shape (n) with n = 2 in scales"),
        (lambda: choice.expected_ranks(np.ones(3), np.ones((5, 2, 2))), "numbers must be of shape (n, i, c) with c"),
        (lambda: complement.turn_growth(E4, E4, 3, 0.1, 0.1, []), "growths must hold at least one item, got none"),
        (lambda: lazy.lazy_size(3, 4, 2, 1e160), "lazy_size: with these arguments a number leaves the floats"),
    ],
)  # fmt: skip
def test_what_does_not_fit_together_is_one_line(call, words):
    """Each raised RuntimeError, ValueError, TypeError, IndexError or OverflowError from within."""
    assert words in refusal(call)


def test_shapes_that_fit_pass():
    assert float(complement.force_ratio(E4.expand(3, 4, 4), E4, E4)[0]) == 1.0
    assert dufm.ends.distance(E4.expand(2, 1, 4, 4), E4.expand(3, 4, 4)).shape == (2, 3)
    with pytest.raises(TypeError, match="missing"):
        complement.force_ratio(E4, E4)
