"""The door of every public function: what each argument may be, by its type and its name, before the body runs.

A room ends in ``guard(globals())``.  Types are read from the annotations (:func:`check_of`), ranges of numbers are
given by the argument's name (``INTEGERS``, ``FLOATS``), exceptions of a function or a room by ``function.name`` or
``room.name``, and what is left to the function in ``OWN``.  The body then checks only what depends on two arguments, or
on what it computes.  Numbers pass as Python's ``int`` and ``float``, sequences as lists, tensors as they are.  What
public functions call of each other is behind the door already, and is not checked again.
"""

import contextlib
import functools
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dufm._checks import (
    check_count,
    check_each,
    check_factors,
    check_finite_positive,
    check_logits,
    check_number,
    check_tensor,
    short,
)
from dufm._error import DufmError, needs
from dufm._together import together_of

__all__ = ["FILLED", "FLOATS", "INTEGERS", "OWN", "WITHIN_FLOATS", "alternatives", "check_of", "guard", "passed"]

Check = Callable[[str, Any], Any]

_MANY = 10**9

#: Least and largest value of an integer, and why, by the name of the argument; in a sequence, of each.
INTEGERS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("batch", "batch_size", "count", "draws", "each", "features", "n_per_class"), (1, _MANY)),
    **dict.fromkeys(("max_epochs", "max_steps", "networks", "restarts", "runs"), (1, _MANY)),
    **dict.fromkeys(("starts", "steps"), (1, _MANY)),
    **dict.fromkeys(("first", "held", "pair", "pairs", "place", "record", "relu_layers", "shown"), (0, _MANY)),
    **dict.fromkeys(("layer", "levels", "rank", "size", "small", "width"), (1, 1_000_000)),
    **dict.fromkeys(("classes", "dim", "dimension", "num_classes", "sizes"), (2, 16_384)),
    **dict.fromkeys(("rounds", "side"), (1, 1000)),
    **dict.fromkeys(("minibatches.width", "weight_decay.width"), (0, 1_000_000, "0 is a spectral start")),
    "bits": (1, 14),
    **dict.fromkeys(("depth", "depths", "max_depth"), (2, 10_000, "depth 2 is the ordinary UFM")),
    "heads.depth": (1, 10_000),
    "kind_of.rank": (0, 16_384),
    "networks.depth": (2, 10_000, "depth counts weight matrices"),
    **dict.fromkeys(("seed", "seeds", "which"), (0, None)),
    "m": (2, 4),
}

_FINITE, _POSITIVE = check_number, check_finite_positive


def _between(low: float, high: float) -> Check:
    return lambda name, value: check_number(name, value, low, high)


#: What a floating number must be, by the name of the argument; a sequence of them: each.
FLOATS: dict[str, Check] = {
    **dict.fromkeys(("active_tol", "beta", "decay", "epsilon", "fitted", "force", "handover", "low", "lr"), _POSITIVE),
    **dict.fromkeys(("p", "precision", "ratio", "s", "s0", "scale", "scales", "sharpness", "size", "sizes"), _POSITIVE),
    **dict.fromkeys(("step", "tol", "until_growth", "value", "widths"), _POSITIVE),
    **dict.fromkeys(("angle", "angles", "b", "errors", "growth", "growths", "label", "levels", "log_loss"), _FINITE),
    **dict.fromkeys(("log_loss_end", "log_losses", "log_times", "log_widths", "margin", "margin_ratio"), _FINITE),
    **dict.fromkeys(("m", "off", "power", "ratios", "shares", "times", "turn", "until_log_loss", "x", "_"), _FINITE),
    **dict.fromkeys(("collapse", "networks", "t"), _between(0.0, 1e308)),
    **dict.fromkeys(("excess", "noise", "numerical_rank.rtol"), _between(0.0, 1.0)),
    # Without steps they are those of the flow.
    **dict.fromkeys(("descent.lr", "minibatches.lr"), _between(0.0, 1e308)),
    **dict.fromkeys(("spectral_descent.lr", "batch_descent.lr"), _POSITIVE),
    "depth": _between(2.0, 1e4),
    "lazy_law.size": _between(0.0, 1e100),  # whose square over that of the scale is a float
    "lazy_law.scale": _between(1e-15, 1e15),
    **dict.fromkeys((f"measured_{what}.size" for what in ("families", "imbalance", "repulsion")), _between(1e-15, 1.0)),
    "descent.handover": _FINITE,
    "decay_ends.decay": _between(0.0, 1e308),
    "rtol": _between(1e-13, 0.1),
    "most_stretch": _between(1.0, 1e6),
}

#: Arguments that their function alone can check, by name or by function and name: labels, ranks of a batch, a group,
#: tables; or arrays in which NaN has a meaning.
OWN = {
    "group", "labels", "lags", "logits", "record", "y", "balanced.X", "code_distance.Z", "code_distance.code",
    "descend.stages", "diagnose.classifier", "diagnose.features", "distance.Z", "distance.solution",
    "kkt_certificate.rank", "kkt_residual.rank", "name_of.Z", "named_by_growth.earlier", "named_by_growth.later",
    "named_by_growth.orbits", "nc_metrics.rank", "orbit_of.decided", "orbit_of.spectra", "orbit_of_values.sigma",
    "polish.rank",
}  # fmt: skip

#: Sequences that hold at least one item; others may be empty.
FILLED = {
    "critical_labels.scales", "growths", "keys", "levels", "log_losses", "log_times", "ratios", "seeds", "sizes",
    "spectra", "spectrum", "stages", "times",
}  # fmt: skip

#: Functions on NumPy's numbers in which what leaves the floats is refused; elsewhere PyTorch's results are checked.
WITHIN_FLOATS = {
    "code_condition", "constant_multipliers", "corner_gap", "critical_at_rank", "imbalance_path", "imbalance_peak",
    "lazy_law", "least_product", "measured_families", "measured_imbalance", "named_by_growth", "orbit_of",
    "orbit_of_values", "power_law", "random_start", "rectified.residual", "shallow_path", "spectral_start",
    "spectral_starts", "stiff", "time_to_escape", "unbalanced_ends",
}  # fmt: skip


def guard(room: dict[str, Any]) -> None:
    """Put the public functions of a room, and the public methods of its classes, behind the door."""
    for name in room["__all__"]:
        value = room[name]
        if getattr(value, "__module__", None) == room["__name__"] and inspect.isfunction(value):
            room[name] = _behind_door(value)
        elif getattr(value, "__module__", None) == room["__name__"] and inspect.isclass(value):
            for part, method in vars(value).copy().items():
                if not part.startswith("_") and inspect.isfunction(method):
                    setattr(value, part, _behind_door(method))


class _Inside(threading.local):
    now = False


_inside = _Inside()
# Of PyTorch, which has no class of its own for memory on the CPU, and of NumPy.
_TOO_LARGE = re.compile("allocate memory|out of memory|size calculation overflow|array is too big|Maximum allowed dim")
# Of what is asked for an inverse or an eigenvalue of what is not finite.
_NOT_FINITE = re.compile("to converge|not converge|infs or NaNs|inf, nan|without overflow|math domain|math range")
_PLAIN = contextlib.nullcontext()


def _behind_door(function: Callable[..., Any]) -> Callable[..., Any]:
    checks: list[tuple[str, Check]] = []
    defaults: dict[str, Any] = {}
    together: list[Callable[[dict[str, Any]], None]] = []
    room = function.__module__.rpartition(".")[2]
    screened = bool(WITHIN_FLOATS.intersection((function.__name__, f"{room}.{function.__name__}")))

    @functools.wraps(function)
    def door(*args: Any, **kwargs: Any) -> Any:
        if _inside.now:
            return function(*args, **kwargs)
        if not checks:
            checks.extend(_checks_of(function))
            together.extend(together_of(function))
            defaults.update((p.name, p.default) for p in inspect.signature(function).parameters.values())
        given = [check(name, value) for (name, check), value in zip(checks, args, strict=False)]
        named = dict(checks) if kwargs else {}
        kwargs = {name: named.get(name, named.get("**", passed))(name, value) for name, value in kwargs.items()}
        if together and len(args) <= len(checks) and kwargs.keys() <= defaults.keys():
            all_given = {**defaults, **dict(zip(defaults, given, strict=False)), **kwargs}
            if not any(value is inspect.Parameter.empty for value in all_given.values()):
                for fit in together:
                    fit(all_given)
        _inside.now = True
        try:
            with np.errstate(over="raise", divide="raise", invalid="raise") if screened else _PLAIN:
                return function(*given, *args[len(given) :], **kwargs)
        except DufmError:
            raise
        except ModuleNotFoundError as error:
            raise needs(f"dufm.{room}", error) from None
        except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
            if isinstance(error, MemoryError) or _TOO_LARGE.search(str(error)):
                raise DufmError(f"{function.__name__}: these arguments need more memory than there is") from error
            if isinstance(error, ArithmeticError) or _NOT_FINITE.search(str(error)):
                raise DufmError(f"{function.__name__}: with these arguments a number leaves the floats") from error
            raise
        finally:
            _inside.now = False

    return door


def _checks_of(function: Callable[..., Any]) -> list[tuple[str, Check]]:
    parameters = inspect.signature(function).parameters.values()
    return [
        ("**" if parameter.kind is parameter.VAR_KEYWORD else parameter.name, check_of(function, parameter))
        for parameter in parameters
    ]


def alternatives(annotation: Any) -> list[str]:
    """The types of a union in words, without modules and None: ``["Tensor", "Sequence[float]"]``."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    parts, brackets = [""], 0
    for sign in re.sub(r"[\w.]+\.(?=\w)", "", text):
        brackets += (sign == "[") - (sign == "]")
        if sign == "|" and not brackets:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip() != "None"]


def check_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Check:
    """The check of one argument; ``KeyError`` where the tables do not know its type or its name."""
    name, annotation = parameter.name, parameter.annotation
    room = function.__module__.rpartition(".")[2]
    keys = [f"{function.__name__}.{name}", f"{room}.{name}", name]
    if OWN.intersection(keys) or annotation is inspect.Parameter.empty:
        return passed
    kinds = alternatives(annotation)
    # A tensor can be iterated over, and everything is tried as a number: so they come first and last.
    kinds.sort(key=lambda kind: (kind in ("int", "float"), kind != "Tensor"))
    checks = [_check_of_kind(kind, keys, inspect.unwrap(function).__globals__) for kind in kinds]
    optional = parameter.default is None or str(annotation).endswith("| None")
    if len(checks) == 1 and not optional:
        return checks[0][1]

    def check(name: str, value: Any) -> Any:
        if optional and value is None:
            return None
        for is_one, check in checks:
            if is_one(value) or len(checks) == 1:
                return check(name, value)
        raise DufmError(f"{name} must be of type {' or '.join(kinds)}, got {short(value)}")

    return check


def _check_of_kind(kind: str, keys: list[str], namespace: dict[str, Any]) -> tuple[Callable[[Any], bool], Check]:
    """Whether a value is meant as this type, and the check."""
    if kind == "int":
        return _always, _integer(*_entry(INTEGERS, keys))
    if kind == "float":
        return _always, _entry(FLOATS, keys)
    if kind == "Tensor":
        return _is(Tensor), _logits if keys[-1] == "Z" else _tensor
    if kind == "ndarray":
        return _is_array, _array
    if kind == "bool":
        return _is((bool, np.bool_)), _of((bool, np.bool_), "True or False")
    if several := re.fullmatch(r"(?:Sequence|Iterable|list|tuple)\[(\w+)(?:, \.\.\.)?\]", kind):
        if several[1] == "Tensor" and keys[-1] in ("after", "balanced", "before", "factors"):
            # Levels of a record that were never reached are NaN.
            return _is(Iterable), _factors(finite=not {"after", "split_at.factors"}.intersection(keys))
        return _is(Iterable), _each(_check_of_kind(several[1], keys, namespace)[1], bool(FILLED.intersection(keys)))
    if kind == "DataFrame":
        return _always, _table
    if kind == "Any":
        return _always, passed
    if kind == "str" and keys[-1] == "device":
        return _is(str), _device
    what = kind.partition("[")[0]
    wanted = {"str": str, "Generator": np.random.Generator, **namespace}[what]
    return _is(wanted), _of(wanted, {"str": "a text"}.get(what, f"a {what}"))


def _entry(table: dict[str, Any], keys: list[str]) -> Any:
    for key in keys:
        if key in table:
            return table[key]
    raise KeyError(f"{keys[0]} stands in no table of dufm/_door.py")


def _is(kind: type | tuple[type, ...]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _always(_: Any) -> bool:
    return True


def passed(_: str, value: Any) -> Any:
    return value


def _of(kind: type | tuple[type, ...], words: str) -> Check:
    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise DufmError(f"{name} must be {words}, got {short(value)}")
        return value

    return check


def _integer(low: int, high: int | None, why: str = "") -> Check:
    def check(name: str, value: Any) -> int:
        value = check_count(name, value, low, why=why)
        return value if high is None or value <= high else check_count(name, value, low, high)

    return check


def _logits(name: str, value: Any) -> Tensor:
    check_logits(value, name)
    return value


def _tensor(name: str, value: Any) -> Tensor:
    check_tensor(name, value, min_dim=0)
    return value


def _is_array(value: Any) -> bool:
    """An array of NumPy, or a column of pandas."""
    return hasattr(value, "__array__") and not isinstance(value, Tensor) and getattr(value, "ndim", 0) > 0


def _array(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value) if _is_array(value) else np.empty(0)
    if array.dtype.kind not in "iuf" or not (len(array) and array.shape[-1]):
        raise DufmError(f"{name} must be an array of numbers, not empty, got {short(value)}")
    if not np.isfinite(array).all():
        raise DufmError(f"{name} must be finite, but it holds NaN or inf")
    return array


def _each(check: Check, filled: bool) -> Check:
    def several(name: str, value: Any) -> list[Any]:
        found = check_each(name, value, check)
        if filled and not found:
            raise DufmError(f"{name} must hold at least one item, got none")
        return found

    return several


def _factors(finite: bool) -> Check:
    def check(name: str, value: Any) -> list[Tensor]:
        factors = check_each(name, value, passed)
        check_factors(factors, name, finite=finite)
        return factors

    return check


def _device(name: str, value: Any) -> str:
    try:
        device = torch.device(str(value))
        there = device.type == "cpu" or device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()
    except RuntimeError:
        there = False
    if not there:
        raise DufmError(f"{name} must be cpu, or cuda where there is one, got {short(value)}")
    return value


def _table(name: str, value: Any) -> Any:
    pandas = sys.modules.get("pandas")
    return _of(pandas.DataFrame if pandas else (), "a pandas DataFrame")(name, value)
