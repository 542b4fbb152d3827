"""What the arguments of one call must be together: shapes that fit, and tables with the columns that are read.

Two tables by ``room.function`` say it, in the words of the docstrings; :mod:`dufm._door` asks them after each argument
has passed its own check.  A new function that needs it gets a line here.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from dufm._checks import short
from dufm._error import DufmError

__all__ = ["COLUMNS", "ROWS", "SHAPES", "check_once", "together_of"]

#: Shapes: one letter is one number in the whole call, ``_`` any, ``...`` leading dimensions that broadcast; of a list
#: of factors it is the shape of their product, leading dimensions those of each factor.
SHAPES = {
    **dict.fromkeys(("agreement.code_condition", "agreement.constant_multipliers"), "W (K, r)"),
    "agreement.frame_spread": "W (K, r)",
    "alignment.balanced_to": "factors (n, _, _), log_norm (n)",
    "alignment.realigned": "factors (n, _, _), seeds (n)",
    "laws.early_singular_values": "t (...), s0 (...)",
    **dict.fromkeys(("laws.nc_perturbation_growth", "perturbation.family_growth"), "s (...), s0 (...)"),
    "minibatches.batch_descent": "factors (n, _, _), seeds (n)",
    "alignment.scaled_to": "balanced (n, _, _), log_norm (n)",
    "alignment.skewed_to": "balanced (n, _, _), log_norm (n), seeds (n)",
    **dict.fromkeys(("basin.distance_from_end", "basin.ends_of_four"), "starts (..., 3)"),
    **dict.fromkeys(("basin.greedy_basis", "basin.least_lag"), "s (F)"),
    "basin.late_ratio": "ratio (...), growth (...)",
    "choice.expected_ranks": "coefficients (c), numbers (n, i, c)",
    "class_sizes.sized_flow": "factors (..., K, K), sizes (K)",
    "class_sizes.sized_residual": "Z (B, K, K), sizes (..., K)",
    "codes.principal_points": "features (..., d, K)",
    "complement.block_values": "pull (..., K, K), Z (..., K, K), one dtype",
    **dict.fromkeys(("complement.critical_extra", "complement.turn_growth"), "P (K, K), E (K, K), one dtype"),
    "complement.extra_growth": "P (K, K), E (K, K), ratios (n), one dtype",
    "complement.force_ratio": "pull (..., K, K), P (K, K), E (K, K)",
    "complement.random_multipliers": "P (K, K)",
    **dict.fromkeys(("descent.sharpness", "flow.loss_scaled_descent"), "factors (K, N)"),
    "heads.images": "columns (p, n)",
    "heads.initial": "X (n, c, side, side)",
    "peers.path_error": "Z (..., K, N), reference (..., K, N)",
    **{f"peers.{name}": "factors (K, K)" for name in ("adam", "constant_steps", "dopri5", "kvaerno5", "log_loss")},
    **dict.fromkeys(("peers.loss_scaled", "peers.stiff", "cost.flow"), "factors (K, K)"),
    "perturbation.early_phase": "s0 (F)",
    "perturbation.imbalance_path": "x (n), b (n), s (m)",
    "rank_two.corner_gap": "W (K, 2)",
    "rank_two.least_product": "W (K, 2), Y (K, 2)",
    "rectified.network": "M (d, K), B (K, d), one dtype",
    "rectified.place_margin": "M (..., d, K), B (..., K, d), one dtype",
    "rectified.residual": "factors (K, K)",
    "soft_labels.critical_at_rank": "Z (K, K)",
    "soft_labels.time_to_escape": "value (...), force (...)",
    "unbalanced.shallow_path": "Z (K, K)",
    "weight_decay.factor_hessian": "factors (K, K)",
    **dict.fromkeys(("weight_decay.least_cost", "weight_decay.threshold"), "Z (K, K)"),
    "width.power_law": "scales (n), log_widths (n), errors (n)",
}

_CELL = "num_classes depth width scale"
_SPECTRA = "spectrum_0.9 spectrum_0.5 spectrum_0.1 spectrum_0.01"
_RUNS_OF_CHOICE = f"{_CELL} rank; {_SPECTRA}"
_NETWORK = "n_per_class batch_size depth width seed rank; dataset digest training"
#: Columns that are read of a table, or of one row of it: of numbers; of words; ``*keys``: those that the argument
#: ``keys`` names.
COLUMNS = {
    "choice.advantage.table": f"{_CELL} log_score; model",
    "choice.counted.runs": f"{_CELL} rank margin_ratio beta; error name",
    "choice.fit_models.runs": _RUNS_OF_CHOICE,
    "choice.models.runs": f"{_CELL}; {_SPECTRA}",
    "choice.scores.runs": _RUNS_OF_CHOICE,
    "descent.again.row": f"{_CELL} first lr starts; part",
    "descent.by_step.runs": "lr seed rises; name *keys",
    "learned.joined.fresh": _NETWORK,
    "learned.joined.known": _NETWORK,
    "minibatches.by_batch.runs": f"{_CELL} lr batch_size n_per_class seed; name reason",
    "optimizers.by_method.runs": f"{_CELL} step steps seed rank euclidean entry spectral; method name",
    "rectified.by_place.runs": f"{_CELL} place rank collapse cosine below seed residual; error",
    "search.end_curvatures.found": "; name margin_ratio decided Z rank",
    "shares.fourth_power.eight": "depth scale share error;",
    "unbalanced.beside_twins.runs": "num_classes handover seed rank; word kind",
    "weight_decay.again.row": f"{_CELL} decay first starts;",
    "weight_decay.by_decay.runs": f"{_CELL} decay first seed; name",
    "width.by_cell.runs": "rank; error name *keys",
    "width.check_ran.runs": "; error",
    "width.completed.cell": "decided networks mean_rank sd_rank;",
    "width.differing.cells": "mean_rank collapse decided; *keys",
    "width.differing.others": "mean_rank collapse decided; *keys",
    "width.half_widths.cells": "width collapse networks; *keys",
    "width.rank_change.first": "decided mean_rank sd_rank;",
    "width.rank_change.last": "decided mean_rank sd_rank;",
    "width.rank_error.cells": "decided sd_rank;",
}
#: Tables that must hold a row.
ROWS = {"choice.fit_models.runs", "choice.models.runs", "shares.fourth_power.eight"}

Arguments = Mapping[str, Any]


def together_of(function: Callable[..., Any]) -> list[Callable[[Arguments], None]]:
    """Checks of all arguments of a call, a mapping by name, as the tables have them."""
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    checks: list[Callable[[Arguments], None]] = []
    if name in SHAPES:
        text = SHAPES[name]
        wanted = [(part, sizes.split(", ")) for part, sizes in re.findall(r"(\w+) \(([^)]*)\)", text)]
        checks.append(functools.partial(_check_shapes, wanted, "one dtype" in text))
    for key, text in COLUMNS.items():
        if key.rpartition(".")[0] == name:
            numbers, words = (part.split() for part in text.split(";"))
            checks.append(functools.partial(_check_columns, key, numbers, words))
    return checks


# ---------------------------------------------------------------- shapes


def _are_factors(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Tensor)


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of a tensor, an array, a list of numbers or a number; of factors that of their product."""
    if _are_factors(value):
        return (*value[0].shape[:-2], value[-1].shape[-2], value[0].shape[-1])
    return tuple(value.shape) if isinstance(value, (Tensor, np.ndarray)) else np.shape(value)


def _check_shapes(wanted: list[tuple[str, list[str]]], one_dtype: bool, given: Arguments) -> None:
    known: dict[str, tuple[int, str]] = {}
    leading: tuple[int, ...] = ()
    first: Any = None
    for name, sizes in wanted:
        shape = _shape(given[name])
        own = [size for size in sizes if size != "..."]
        batch, last = shape[: len(shape) - len(own)], shape[len(shape) - len(own) :]
        fits = len(shape) >= len(own) and (not batch or len(own) < len(sizes))
        if fits and batch:
            pairs = zip(reversed(batch), reversed(leading), strict=False)
            fits = all(a == b or 1 in (a, b) for a, b in pairs)
            leading = max(leading, batch, key=len)
        for size, found in zip(own, last, strict=False):
            if size.isdigit():
                fits = fits and found == int(size)
            elif size != "_":
                fits = fits and known.setdefault(size, (found, name))[0] == found
        if not fits:
            others = ", ".join(f"{size} = {n} in {at}" for size, (n, at) in known.items() if at != name and size in own)
            what = "factors whose product is of shape" if _are_factors(given[name]) else "of shape"
            beside = f" with {others}" if others else ""
            raise DufmError(f"{name} must be {what} ({', '.join(sizes)}){beside}, got {shape}")
        dtype = getattr(given[name], "dtype", first)
        first = first or dtype
        if one_dtype and dtype != first:
            raise DufmError(f"{name} must have the dtype of {wanted[0][0]}, {first}, got {dtype}")


# ---------------------------------------------------------------- columns


def _check_columns(key: str, numbers: list[str], words: list[str], given: Arguments) -> None:
    name = key.rpartition(".")[2]
    table = given[name]
    keys = list(given["keys"]) if "*keys" in words else []
    if len(set(keys)) < len(keys):
        raise DufmError(f"keys must differ, got {short(keys)}")
    words = [word for word in words if word != "*keys"]
    is_table = hasattr(table, "columns")
    for column in [*numbers, *words, *keys]:
        if is_table:
            missing = list(table.columns).count(column) != 1
        else:
            missing = column not in table if isinstance(table, Mapping) else not hasattr(table, column)
        if missing:
            raise DufmError(f"{name} must have one column {column!r}, got {short(list(_columns(table)))}")
    if not is_table:
        return
    if key in ROWS and not len(table):
        raise DufmError(f"{name} must hold at least one row, got none")
    for column in numbers:
        if not _holds_numbers(table[column]):
            raise DufmError(f"{name} must hold numbers in column {column!r}, got {short(table[column].iloc[0])}")
    for column in words:
        if table[column].dtype.kind in "biuf" and table[column].notna().any():
            raise DufmError(f"{name} must hold words in column {column!r}, got {short(table[column].iloc[0])}")


def check_once(name: str, table: Any, keys: list[str]) -> None:
    """``DufmError`` where two rows have the same ``keys``: what is compared with one would be counted with both."""
    twice = table.duplicated(keys)
    if twice.any():
        found = ", ".join(map(str, table[twice][keys].iloc[0]))
        raise DufmError(f"{name} must hold one row to compare with for each {', '.join(keys)}, got two for {found}")


def _columns(table: Any) -> Any:
    if isinstance(table, Mapping):
        return table
    return getattr(table, "columns", getattr(table, "_fields", [type(table).__name__]))


def _holds_numbers(column: Any) -> bool:
    kind = column.dtype.kind
    return kind in "biuf" or (kind == "O" and not any(isinstance(value, str) for value in column))
