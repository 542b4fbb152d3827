"""What every notebook calls: its parameters, checked; progress; committed tables; provenance; where sweeps run."""

import ast
import hashlib
import os
import platform
import types

from tqdm import tqdm

from dufm._error import DufmError
from dufm.companion import files
from dufm.companion.parameters import budget_parameters, declared, typed
from dufm.companion.versions import versions
from dufm.companion.words import did_you_mean

__all__ = ["committed", "device", "progress", "provenance", "start", "sweep_options"]


def start(name, namespace):
    """Check the parameters of notebook ``name`` and return them as a namespace ``p``.

    ``namespace`` is the notebook's ``globals()``. Text that papermill passed for a list or a number is converted; a
    budget sets the parameters that still have their defaults. ``DufmError`` for a wrong type, a value out of range
    and a name that the notebook does not declare. The process computes on one thread from here on.
    """
    _one_thread()
    parameters = declared(name)
    known = {parameter.name: parameter for parameter in parameters}
    output = None
    for injected, value in _injected(namespace).items():
        if injected == "PAPERMILL_OUTPUT_PATH":
            output = value
        elif injected not in known and not injected.startswith("PAPERMILL_"):
            raise DufmError(f"{name} has no parameter {injected!r}; {did_you_mean(injected, list(known))}")
    values = {}
    for parameter in parameters:
        if parameter.name not in namespace:
            raise DufmError(f"{name}: {parameter.name} is not set; run the parameters cell first")
        values[parameter.name] = typed(parameter, namespace[parameter.name])
    for word, value in budget_parameters(name, values["budget"]).items():
        if values[word] == known[word].default:
            values[word] = value
    defaults = {parameter.name: parameter.default for parameter in parameters}
    if files.refreshing() and values != defaults:
        raise DufmError(f"{name}: a refresh runs the defaults, got {values}")
    namespace["_dufm_run"] = files.NotebookRun(name, values, values == _published_parameters(name, defaults), output)
    return types.SimpleNamespace(**values)


def _one_thread():
    """The committed outputs were made on one thread; small matrices gain nothing from more, and busy cores lose."""
    import torch
    from threadpoolctl import threadpool_limits

    torch.set_num_threads(1)
    threadpool_limits(1)


def _published_parameters(name, defaults):
    """What the committed outputs were made with: in Lab, editing the notebook edits its source too."""
    if not files.refreshing():
        for path in sorted((files.root() / "figures").glob(f"{name[:2]}_*.json")):
            about = files.read_json(path)
            if "parameters" not in about:
                raise DufmError(f"{path} is damaged: it lacks parameters")
            return about["parameters"]
    return defaults


def _injected(namespace):
    """Names and values assigned by the cell that papermill inserts."""
    cells = [cell for cell in namespace.get("In", []) if cell.startswith("# Parameters\n")]
    nodes = ast.parse(cells[-1]).body if cells else []
    names = [
        target.id
        for node in nodes
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return {name: namespace.get(name) for name in names}


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

    ``DUFM_JOBS`` processes (default: as this container has room), or the dask scheduler ``DUFM_CLUSTER``; cells are
    kept in the output folder, so that an interrupted notebook goes on.  They compute on the CPU, whatever the device.
    """
    text = os.environ.get("DUFM_JOBS") or str(files.processes())
    if not text.isdigit() or int(text) < 1:
        raise DufmError(f"DUFM_JOBS must be a whole number, 1 or more, got {text!r}")
    return {
        "jobs": int(text),
        "cache_dir": os.environ.get("DUFM_CELLS") or files.spared(files.out_dir() / files.CELLS),
        "backend": os.environ.get("DUFM_CLUSTER") or "local",
    }


def progress(iterable, label=""):
    """``iterable`` with a progress bar once it has taken five seconds; ``TQDM_DISABLE=1`` turns it off."""
    return tqdm(iterable, desc=label, leave=False, delay=5)


def committed(name):
    """A table computed once and committed beside its notebook as ``NN_word.csv``, as a DataFrame.

    ``NN_word.json`` holds the command that made it and the SHA-256 of the table; ``DufmError`` if they do not agree.
    """
    import pandas

    folder = files.source_path(files.find(name)).parent
    content = files.read_text(folder / f"{name}.csv").encode()  # line ends as an editor on Windows leaves them, too
    if hashlib.sha256(content).hexdigest() != files.read_json(folder / f"{name}.json").get("data"):
        raise DufmError(f"{name}.csv is not the table that {name}.json describes")
    return pandas.read_csv(folder / f"{name}.csv")


def provenance(p):
    """Print versions, parameters and device: the last cell, tagged ``nbval-ignore-output``."""
    print("python", platform.python_version(), *(f"{name} {version}" for name, version in versions().items()))
    print("parameters", ", ".join(f"{name}={value!r}" for name, value in vars(p).items()))
    print("device", device())
