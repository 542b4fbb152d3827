"""A notebook's parameters: declared in one cell, read by papermill's inspection, checked, and set by budgets.

A declaration is ``name: type = literal  # meaning [low, high]``, or ``{choice, choice}``; bounds hold for each element
of a list, ``3 or more`` in its meaning for their number, and ``0.5 among them`` names one that it must have.
"""

import ast
import contextlib
import math
import re
from dataclasses import dataclass

from dufm._error import DufmError
from dufm.companion import files
from dufm.companion.words import did_you_mean

__all__ = ["Parameter", "budget_parameters", "declared", "title", "typed"]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
# No second `=`, even in the comment: papermill would see no parameter there.
DECLARATION = re.compile(
    r"(?P<name>\w+): (?P<type>[\w\[\]]+) = (?P<default>[^=#]+?) +# (?P<meaning>[^=\[\]{}]+?),?"
    r"(?: (?:\[(?P<low>[^\[\],]+), (?P<high>[^\[\],]+)\]|\{(?P<choices>[^{}]*)\}))?"
)
# What the meaning of a list says of its values.
LEAST, NEEDED = re.compile(r"\b(\d+) or more\b"), re.compile(r"(\S+) among them\b")
BUDGETS = ("smoke", "default", "full")
# What a text that is no literal, or nested too deep for one, raises.
NOT_LITERAL = (ValueError, SyntaxError, MemoryError, RecursionError)


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; ``accepted`` is a ``(low, high)`` range, a list of choices, or None."""

    name: str
    type: str
    default: object
    meaning: str
    accepted: tuple | list | None

    @property
    def least(self):
        """How many values there must be."""
        seen = "[" in self.type and LEAST.search(self.meaning)
        return int(seen[1]) if seen else 1

    @property
    def needed(self):
        """The value that must be among them, in a list."""
        seen = "[" in self.type and NEEDED.search(self.meaning)
        return [ast.literal_eval(seen[1])] if seen else []

    def describe(self):
        """The values accepted, in words."""
        kind, each = self.type, ""
        if "[" in self.type:
            number = f" of {self.least} or more" if self.least > 1 else ""
            needed = "".join(f" with {value}" for value in self.needed)
            kind, each = f"{self.type}{number}{needed} such as {self.default}", "each "
        if isinstance(self.accepted, tuple):
            low, high = (int(end) if end.is_integer() else end for end in self.accepted)
            return f"{kind}, {each}in [{low}, {high}]"
        if isinstance(self.accepted, list):
            return f"{kind}, {each}one of {', '.join(map(str, self.accepted))}"
        return kind


def _cells(name):
    return files.read_text(files.source_path(name)).split("\n# %%")


def title(name):
    """First heading of a notebook."""
    for line in "".join(_cells(name)[1:2]).splitlines():
        if line.startswith("# # "):
            return line[4:].strip()
    raise DufmError(f"{name}: the first cell must begin with a heading")


def declared(name):
    """Parameters a notebook declares: a list of :class:`Parameter`."""
    tagged = [cell for cell in _cells(name) if cell.split("\n")[0].strip() == 'tags=["parameters"]']
    if len(tagged) != 1:
        raise DufmError(f"{name}: expected one cell tagged parameters, found {len(tagged)}")
    found = [_declaration(name, line) for line in tagged[0].splitlines()[1:] if line.strip()]
    if missing := {"seed", "budget"} - {parameter.name for parameter in found}:
        raise DufmError(f"{name}: every notebook declares seed and budget; {', '.join(sorted(missing))} is missing")
    return found


def _declaration(notebook, line):
    seen = DECLARATION.fullmatch(line)
    if not seen or _element(seen["type"]) not in TYPES:
        raise DufmError(
            f"{notebook}: a parameter needs a type ({', '.join(TYPES)}, or a list of one), a literal and a meaning, "
            f"`name: type = literal  # meaning [low, high]` without a second `=`; got {line!r}"
        )
    name, kind = seen["name"], seen["type"]
    accepted: tuple | list | None = None
    try:
        default = ast.literal_eval(seen["default"])
        if seen["low"]:
            accepted = (float(seen["low"]), float(seen["high"]))
    except NOT_LITERAL:
        raise DufmError(f"{notebook}: the default and the bounds of {name} must be literals; got {line!r}") from None
    if accepted and not -math.inf < accepted[0] <= accepted[1] < math.inf:
        raise DufmError(f"{notebook}: the bounds of {name} must be finite and in order; got {line!r}")
    if seen["choices"]:
        accepted = [_typed(name, _element(kind), choice.strip()) for choice in seen["choices"].split(",")]
    parameter = Parameter(name, kind, default, seen["meaning"], accepted)
    typed(parameter, parameter.default)
    return parameter


def _element(kind):
    return kind[5:-1] if kind.startswith("list[") and kind.endswith("]") else kind


def _typed(name, kind, value):
    """``value`` as ``kind``; text is read as a literal, because that is how papermill passes lists and 1e-3."""
    if kind != "str" and isinstance(value, str):
        text = value.strip()
        value = {"true": True, "false": False}.get(text.lower(), text)
        with contextlib.suppress(*NOT_LITERAL):
            value = ast.literal_eval(text)
    if kind.startswith("list["):
        if not isinstance(value, (list, tuple)) or not value:
            raise DufmError(f"{name} must be a {kind} such as [1, 2], got {value!r}")
        return [_typed(name, _element(kind), element) for element in value]
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            value = float(value)
    if type(value) is not TYPES[kind]:
        raise DufmError(f"{name} must be {kind}, got {value!r}")
    return value


def typed(parameter, value):
    """``value`` as the parameter's type, or a ``DufmError`` that names what is accepted."""
    try:
        value = _typed(parameter.name, parameter.type, value)
        values = value if isinstance(value, list) else [value]
        good = len(values) >= parameter.least and set(parameter.needed).issubset(values)
        good = good and all(_accepts(parameter.accepted, x) for x in values)
    except DufmError:
        good = False
    if not good:
        raise DufmError(f"{parameter.name} must be {parameter.describe()}; got {value!r}") from None
    return value


def _accepts(accepted, value):
    if isinstance(accepted, tuple):
        return accepted[0] <= value <= accepted[1]
    if isinstance(accepted, list):
        return value in accepted
    return not isinstance(value, float) or math.isfinite(value)


def budget_parameters(name, budget):
    """The parameters that a budget other than ``default`` sets for a notebook, from ``notebooks/budgets.toml``."""
    found = files.read_toml(files.root() / "notebooks" / "budgets.toml").get(name, {})
    if not isinstance(found, dict) or not all(isinstance(values, dict) for values in found.values()):
        raise DufmError(f"budgets.toml: {name} must be tables such as [{name}.smoke], got {found!r}")
    unknown = [word for word in found if word not in BUDGETS]
    if unknown:
        raise DufmError(f"budgets.toml: {name} has a budget {unknown[0]!r}; {did_you_mean(unknown[0], BUDGETS)}")
    known = {parameter.name: parameter for parameter in declared(name)}
    values = found.get(budget, {})
    for word in values:
        if word not in known:
            raise DufmError(f"budgets.toml: {name} has no parameter {word!r}; {did_you_mean(word, list(known))}")
    return {word: typed(known[word], value) for word, value in values.items()}
