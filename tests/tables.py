"""A small valid table, or row, for every argument that the door knows the columns of, by ``room.function.argument``."""

import numpy as np
import pandas

import dufm
from dufm import _together, choice, minibatches, optimizers, width

CELL = {"num_classes": 4, "depth": 3, "width": 6, "scale": 1.0}
SPECTRA = {f"spectrum_{share:g}": "1.0000 0.6000 0.2000" for share in choice.LOSSES}
RUNS = pandas.DataFrame([{**CELL, **SPECTRA, "rank": 2 + i % 2} for i in range(6)])
ENDS = pandas.DataFrame(
    {
        "error": "", "name": ["NC", "NC", "orthoplex", "NC", "undecided", "NC"], "rank": [3, 3, 2, 3, 0, 3],
        "depth": 3, "width": [4, 4, 4, 8, 8, 8], "seed": range(6),
    }
)  # fmt: skip
KEYS = ["depth", "width"]
CELLS = width.by_cell(ENDS, KEYS)
NETWORKS = pandas.DataFrame(
    {
        "dataset": "digits", "digest": "0", "n_per_class": 60, "batch_size": 50, "training": "flow", "depth": 3,
        "width": 32, "seed": [0, 1], "rank": [9.0, 7.0],
    }
)  # fmt: skip
ROW = next(CELLS.itertuples())
SPECTRAL = {"num_classes": 4, "depth": 3, "width": 0, "scale": 0.5, "first": 0, "starts": 2}
STEPS = pandas.DataFrame(
    [
        {"part": "a", **SPECTRAL, "seed": seed, "lr": lr, "name": name, "rises": 0}
        for lr, name in ((0.0, "NC"), (0.5, "undecided"))
        for seed in (0, 1)
    ]
)
TABLES = {
    "choice.advantage.table": pandas.DataFrame(
        [{**CELL, "depth": L, "model": name, "log_score": -i} for L in (2, 3) for i, name in enumerate(("a", "b"))]
    ),
    "choice.counted.runs": pandas.DataFrame(
        {**CELL, "error": "", "name": ["NC", "rank 2"], "rank": [3, 2], "margin_ratio": [1.0, 0.9], "beta": [0.5, 0.1]}
    ),
    "choice.fit_models.runs": RUNS,
    "choice.models.runs": RUNS.drop(columns="rank"),
    "choice.scores.runs": RUNS,
    "descent.again.row": {"part": "a", **SPECTRAL, "lr": 0.5},
    "descent.by_step.runs": STEPS.drop(columns="starts"),
    "learned.joined.fresh": NETWORKS,
    "learned.joined.known": NETWORKS,
    "minibatches.by_batch.runs": pandas.DataFrame(
        [
            {**dict.fromkeys(minibatches.CELL, 4), "lr": lr, "seed": seed, "name": "NC", "reason": ""}
            for lr in (0.0, 0.5) for seed in (0, 1)
        ]
    ),
    "optimizers.by_method.runs": pandas.DataFrame(
        [
            {
                **dict.fromkeys(optimizers.CELL, 4), "method": method, "seed": seed, "name": "NC", "rank": 3,
                **dict.fromkeys(optimizers.NORMS, 0.99),
            }
            for method in ("flow", "Adam") for seed in (0, 1)
        ]
    ),
    "rectified.by_place.runs": pandas.DataFrame(
        {
            **CELL, "place": 1, "error": "", "rank": [3, 2, 0], "collapse": [0.01, 0.5, 0.5], "cosine": 0.01,
            "below": [3, 2, 0], "seed": range(3), "residual": 1e-9,
        }
    ),
    "search.end_curvatures.found": dufm.end(dufm.orthoplex(4).expand(2, 4, 2) @ dufm.orthoplex(4).mT, 4),
    "shares.fourth_power.eight": pandas.DataFrame(
        {"depth": 3, "scale": [1e-4, 1e-2], "share": [1e-3, 1e-2], "error": [1e-4, 1e-3]}
    ),
    "unbalanced.beside_twins.runs": pandas.DataFrame(
        {
            "num_classes": 4, "handover": 0.1, "kind": "shifted", "seed": 0,
            "word": ["ss", "sss", "sbs"], "rank": [3, 2, 3],
        }
    ),
    "weight_decay.again.row": {**SPECTRAL, "decay": 0.01},
    "weight_decay.by_decay.runs": pandas.DataFrame(
        [{**SPECTRAL, "decay": decay, "seed": seed, "name": "NC"} for decay in (0.0, 0.1) for seed in (0, 1)]
    ).drop(columns="starts"),
    "width.by_cell.runs": ENDS.drop(columns="seed"),
    "width.check_ran.runs": ENDS[["error"]],
    "width.completed.cell": ROW,
    "width.differing.cells": CELLS[[*KEYS, "mean_rank", "collapse", "decided"]],
    "width.differing.others": CELLS[[*KEYS, "mean_rank", "collapse", "decided"]],
    "width.half_widths.cells": pandas.DataFrame(
        {"depth": 3, "scale": 1.0, "width": [4, 8, 16], "collapse": [2, 10, 19], "networks": 20}
    ),
    "width.rank_change.first": ROW,
    "width.rank_change.last": ROW,
    "width.rank_error.cells": CELLS[["decided", "sd_rank"]],
}  # fmt: skip
#: The other arguments of those functions.
BESIDE = {
    "choice.advantage": {"model": "a", "other": "b", "draws": 50},
    "choice.scores": {"coefficients": {"law 0.5": np.zeros(2)}},
    "search.end_curvatures": {"depth": 4},
    "shares.fourth_power": {"fitted": (1e-4,)},
    "width.by_cell": {"keys": KEYS},
    "width.completed": {"rank": 2},
    "width.differing": {"keys": KEYS},
    "width.half_widths": {"keys": ["depth", "scale"]},
}


def call(key, table):
    """Arguments of the function of ``key`` with its table replaced."""
    name = key.rpartition(".")[0]
    others = {at: TABLES[at] for at in TABLES if at.rpartition(".")[0] == name} | {key: table}
    return {at.rpartition(".")[2]: part for at, part in others.items()} | BESIDE.get(name, {})


def read(key):
    """The columns that the door's table says are read, those of ``keys`` included."""
    names = _together.COLUMNS[key].replace(";", " ").split()
    keys = BESIDE.get(key.rpartition(".")[0], {}).get("keys", ["part", *SPECTRAL][:-1] if "*keys" in names else [])
    return [name for name in names if name != "*keys"] + [name for name in keys if name not in names]


def without(table, column):
    """A table, a mapping or an object without a column."""
    if isinstance(table, dict):
        return {name: value for name, value in table.items() if name != column}
    if isinstance(table, pandas.DataFrame):
        return table.drop(columns=column)
    names = getattr(table, "_fields", None) or vars(table)
    return Bare({name: getattr(table, name) for name in names if name != column})


class Bare:
    """Attributes, as of a row."""

    def __init__(self, values):
        vars(self).update(values)

    def _replace(self, **values):
        return Bare(vars(self) | values)
