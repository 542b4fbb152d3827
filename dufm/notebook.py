"""What every notebook shares: its parameters, checked; progress; provenance; where its output goes.

A notebook declares its parameters in one cell tagged ``parameters``, one a line::

    num_classes: int = 4             # number of classes K [2, 64]
    depths: list[int] = [2, 3, 4]    # depths L, features included [2, 32]
    budget: str = "default"          # how much to compute {smoke, default, full}

The comment is read by the machine: it ends in the accepted range, per element for a list, or in the choices.
"""

import ast
import contextlib
import io
import math
import os
import platform
import re
import time
import tokenize
import types
from dataclasses import dataclass
from importlib import metadata

from tqdm import tqdm

from dufm import _checkout, claims
from dufm._checkout import names, out_dir, root, source_path
from dufm._checks import DufmError

__all__ = [
    "Parameter",
    "check",
    "declared",
    "device",
    "names",
    "out_dir",
    "progress",
    "provenance",
    "root",
    "source_path",
    "start",
    "sweep_options",
    "timed",
    "title",
]

TYPES = {"int": int, "float": float, "str": str, "bool": bool}
BOUNDS = re.compile(r"(?P<meaning>.*?)\s*(?:\[(?P<range>[^\[\]]*)\]|\{(?P<choices>[^{}]*)\})\s*$")


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; ``accepted`` is a ``(low, high)`` range, a list of choices, or None."""

    name: str
    type: str
    default: object
    meaning: str
    accepted: tuple | list | None

    def describe(self):
        """The values accepted, in words."""
        kind, each = (f"{self.type} such as {self.default}", "each ") if "[" in self.type else (self.type, "")
        if isinstance(self.accepted, tuple):
            low, high = (int(end) if end.is_integer() else end for end in self.accepted)
            return f"{kind}, {each}in [{low}, {high}]"
        if isinstance(self.accepted, list):
            return f"{kind}, {each}one of {', '.join(map(str, self.accepted))}"
        return kind


def title(name):
    """First heading of a notebook."""
    found = re.search(r"^# # (.+)$", source_path(name).read_text(encoding="utf-8"), re.MULTILINE)
    return found.group(1).strip() if found else name


def declared(name):
    """Parameters a notebook declares, read from its source: a list of :class:`Parameter`."""
    text = source_path(name).read_text(encoding="utf-8")
    cells = re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
    tagged = [cell for cell in cells if re.match(r'# %%.*tags=\[[^\]]*"parameters"', cell)]
    if len(tagged) != 1:
        raise DufmError(f"{name}: expected one cell tagged parameters, found {len(tagged)}")
    found = [_declaration(name, node, _comments(tagged[0])) for node in ast.parse(tagged[0]).body]
    missing = {"seed", "budget"} - {parameter.name for parameter in found}
    if missing:
        raise DufmError(f"{name}: every notebook declares seed and budget; missing {', '.join(sorted(missing))}")
    return found


def _comments(code):
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _declaration(notebook, node, comments):
    form = f"{notebook}: a parameter is declared as `name: type = literal  # meaning, unit [low, high]`"
    if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value):
        raise DufmError(f"{form}; got `{ast.unparse(node)}`")
    name, kind = node.target.id, ast.unparse(node.annotation)
    if _element(kind) not in TYPES:
        raise DufmError(f"{form}, with type {', '.join(TYPES)} or a list of one; {name} has type {kind}")
    comment = comments.get(node.end_lineno, "")
    bounds = BOUNDS.match(comment)
    accepted = None
    if bounds and bounds["range"] is not None:
        accepted = tuple(float(end) for end in bounds["range"].split(","))
    elif bounds:
        accepted = [_typed(name, _element(kind), choice.strip()) for choice in bounds["choices"].split(",")]
    meaning = (bounds["meaning"] if bounds else comment).rstrip(" ,")
    if not meaning:
        raise DufmError(f"{form}; {name} has no meaning")
    parameter = Parameter(name, kind, ast.literal_eval(node.value), meaning, accepted)
    check(parameter, parameter.default)
    return parameter


def _element(kind):
    return kind[5:-1] if kind.startswith("list[") and kind.endswith("]") else kind


def _typed(name, kind, value):
    """``value`` as ``kind``; text is read as a literal, because that is how papermill passes lists and 1e-3."""
    if kind != "str" and isinstance(value, str):
        text = value.strip()
        value = {"true": True, "false": False}.get(text.lower(), text)
        with contextlib.suppress(ValueError, SyntaxError):
            value = ast.literal_eval(text)
    if kind.startswith("list["):
        if not isinstance(value, (list, tuple)):
            raise DufmError(f"{name} must be a {kind} such as [1, 2], got {value!r}")
        return [_typed(name, _element(kind), element) for element in value]
    if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not TYPES[kind]:
        raise DufmError(f"{name} must be {kind}, got {value!r}")
    return value


def check(parameter, value):
    """``value`` as the parameter's type, or a ``ValueError`` that names what is accepted."""
    try:
        value = _typed(parameter.name, parameter.type, value)
        good = all(_accepts(parameter.accepted, x) for x in (value if isinstance(value, list) else [value]))
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


def start(name, namespace):
    """Check the parameters of notebook ``name`` and return them as a namespace ``p``.

    ``namespace`` is the notebook's ``globals()``. Text that papermill passed for a list or a number is
    converted; a wrong type, a value out of range and a name that the notebook does not declare each raise
    a ``ValueError`` that says what is accepted. The process computes on one thread from here on.
    """
    _one_thread()
    parameters = declared(name)
    known = [parameter.name for parameter in parameters]
    for injected in _injected(namespace):
        if injected not in known:
            raise DufmError(f"{name} has no parameter {injected!r}; there are {', '.join(known)}")
    values = {}
    for parameter in parameters:
        if parameter.name not in namespace:
            raise DufmError(f"{name}: {parameter.name} is not set; run the parameters cell first")
        values[parameter.name] = check(parameter, namespace[parameter.name])
    defaults = {parameter.name: parameter.default for parameter in parameters}
    if _checkout.refreshing() and values != defaults:
        raise DufmError(f"{name}: a refresh runs the defaults, got {values}")
    _checkout.running = _checkout.Run(name, values, published=values == _published_parameters(name, defaults))
    claims.begin()
    return types.SimpleNamespace(**values)


def _one_thread():
    """The committed outputs were made on one thread; small matrices gain nothing from more, and busy cores lose."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def _published_parameters(name, defaults):
    """What the committed outputs were made with: in Lab, editing the notebook edits its source too."""
    if _checkout.refreshing():
        return defaults
    records = _checkout.read_json(_checkout.published_records(), {"notebooks": {}})
    return records["notebooks"].get(name, {"parameters": defaults})["parameters"]


def _injected(namespace):
    """Names assigned by the cell that papermill inserts."""
    cells = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    nodes = ast.parse(cells[-1]).body if cells else []
    return [target.id for node in nodes if isinstance(node, ast.Assign) for target in node.targets]


def device():
    """Torch device to compute on: ``DUFM_DEVICE`` (auto, cpu or cuda); auto takes cuda where there is one."""
    import torch

    wanted = os.environ.get("DUFM_DEVICE", "auto")
    if wanted not in ("auto", "cpu", "cuda"):
        raise DufmError(f"DUFM_DEVICE must be auto, cpu or cuda, got {wanted!r}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise DufmError("device cuda was asked for, but torch sees no CUDA device; use auto or cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def sweep_options():
    """Where a notebook's sweeps run, as arguments to ``sweep.run``.

    ``DUFM_JOBS`` processes (default: one a core; one alone on a GPU, where a batch is one call), or the dask scheduler
    ``DUFM_CLUSTER``; cells are kept in the output folder, so that an interrupted notebook goes on.
    """
    text = os.environ.get("DUFM_JOBS") or str(os.cpu_count() or 1)
    if not text.isdigit() or int(text) < 1:
        raise DufmError(f"DUFM_JOBS must be a whole number, 1 or more, got {text!r}")
    return {
        "jobs": 1 if device() == "cuda" else int(text),
        "cache_dir": os.environ.get("DUFM_CELLS") or out_dir() / "cells",
        "backend": os.environ.get("DUFM_CLUSTER") or "local",
    }


def progress(iterable, total=None, label=""):
    """``iterable`` with a progress bar; ``TQDM_DISABLE=1`` turns it off."""
    return tqdm(iterable, total=total, desc=label, leave=False)


@contextlib.contextmanager
def timed(label):
    """Append the seconds a block took to ``timings.log`` in the output folder, which is never committed."""
    began = time.perf_counter()
    yield
    name = _checkout.running.name if _checkout.running else "-"
    out_dir().mkdir(parents=True, exist_ok=True)
    with open(out_dir() / "timings.log", "a", encoding="utf-8") as log:
        log.write(f"{name}\t{label}\t{time.perf_counter() - began:.2f} s\n")


def versions():
    """Versions that decide the numbers, without the suffix that names a build."""
    packages = ("torch", "numpy", "scipy", "matplotlib")
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package).split("+")[0]
    return found


def provenance(p):
    """Print versions, parameters and device: the last cell, tagged ``nbval-ignore-output``."""
    print("python", platform.python_version(), *(f"{name} {version}" for name, version in versions().items()))
    print("parameters", ", ".join(f"{name}={value!r}" for name, value in vars(p).items()))
    print("device", device(), "| budget", p.budget, "| seed", p.seed)
