"""A grid of parameters to a tidy table: batched inside a cell, cells side by side, cached, resumable.

A task computes one cell for all its seeds in one call::

    def ends(seeds, depth, width):
        ...                                     # one batch over the seeds
        return {"rank": ranks, "log_loss": losses}   # a number or a text a seed

    table = sweep.run(ends, {"depth": [2, 3, 4], "width": [4, 8]}, seeds=range(32), jobs=2, cache_dir="cells")

The table is a pandas DataFrame: scikit-learn's OpenML reader needs pandas anyway, and readers know it.
Imported by name (``from dufm import sweep``): ``import dufm`` loads neither pandas nor joblib.
"""

import contextlib
import dis
import functools
import hashlib
import inspect
import itertools
import json
import math
import os
import types
from collections.abc import Iterable
from pathlib import Path

import joblib
import numpy as np
import pandas
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from dufm import _checkout
from dufm._checks import DufmError, check_count

__all__ = ["fingerprint", "run", "workers"]

RESERVED = ("seed", "seeds", "error")
# Of the code that is loaded: the files may change under a session that goes on.
_PACKAGE = _checkout.package_digest()


def run(task, grid, *, seeds, jobs=1, cache_dir=None, backend="local", cost=None):
    """Compute every cell of a grid and return one table, a row a cell and seed.

    ``task``: a function ``task(seeds, **cell)`` that returns a dict of columns, each one number or text a seed, or
    one for all of them.  ``grid``: ``{name: values}``, whose product is taken, or a list of cells ``{name: value}``
    with the same names.  ``seeds``: distinct whole numbers, all of which go into each call.

    ``jobs``: worker processes (1: none, all in this process); every call computes on one thread wherever it runs.
    ``backend``: ``"local"``, or the address of a dask scheduler, ``"tcp://scheduler:8786"``, whose workers, however
    many, take the calls; they need the same ``dufm`` and one thread each (``dask worker --nthreads 1``), and the extra
    ``dufm[cluster]`` here.  A local process that dies ends the run with joblib's error; a worker is replaced.
    ``cache_dir``: folder in which a finished cell is kept by the one that computed it (by this process too, if that was
    a machine with another disk), under its parameters, seeds and :func:`fingerprint`.  A run that was killed
    goes on from there and computes no finished cell again; a cell that failed is tried again.
    ``cost``: relative time of a cell, ``cost(**cell)``; dear cells start first and the time left is weighted by it.

    Columns: the cell's parameters, ``seed``, the task's columns, and ``error``, empty or the message of a cell that
    failed, its other columns NaN.  Rows are in the order of the grid.  ``DufmError`` for a grid or seeds that are not
    as above, a task that is no function, or a scheduler that does not answer.
    """
    cells, seeds = _cells(grid), _seeds(seeds)
    jobs = check_count("jobs", jobs, 1)
    source = fingerprint(task)
    paths = [None] * len(cells)
    if cache_dir is not None:
        folder = Path(cache_dir).resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DufmError(f"cache_dir must be a folder, got {cache_dir!r}: {error}") from None
        paths = [folder / f"{_key(source, cell, seeds)}.json" for cell in cells]
    found = {i: _checkout.read_json(path, None) for i, path in enumerate(paths) if path and path.is_file()}
    weights = [1.0 if cost is None else float(cost(**cell)) for cell in cells]
    waiting = sorted((i for i in range(len(cells)) if i not in found), key=lambda i: -weights[i])
    calls = (joblib.delayed(_compute)(i, task, cells[i], seeds, paths[i], source, os.getpid()) for i in waiting)
    bar = tqdm(
        total=sum(weights),
        initial=sum(weights[i] for i in found),
        leave=False,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| [{elapsed}, {remaining} left]",
    )
    with bar, workers(backend):
        bar.set_description_str(f"{task.__name__}, {len(found)} of {len(cells)} cells")
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        for i, columns in parallel(calls) if waiting else ():
            if paths[i] and not paths[i].is_file() and "error" not in columns:
                _checkout.write_atomic(paths[i], json.dumps(columns))
            found[i] = columns
            bar.set_description_str(f"{task.__name__}, {len(found)} of {len(cells)} cells", refresh=False)
            bar.update(weights[i])
        if waiting and not bar.disable:
            done, seconds = len(waiting), bar.format_dict["elapsed"]
            bar.write(f"{task.__name__}: {done} cells in {seconds:.1f} s, {done / seconds:.2f} a second")
    return _table(cells, seeds, [found[i] for i in range(len(cells))])


def fingerprint(task):
    """Hash of dufm's source and of the task as it is loaded: its code, what it calls in the same file, what it reads.

    Constants, defaults and closures count by value, containers of functions, partials, bound methods and classes of the
    same file with their code; functions and classes of other files count by name.
    """
    if not inspect.isfunction(task):
        raise DufmError(f"task must be a function task(seeds, **cell), got {task!r}")
    parts = [_PACKAGE, torch.__version__]
    _describe(task, task.__module__, parts, set())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _describe(value, module, parts, seen):
    """Append what decides how ``value`` behaves; objects in ``seen`` are under way or done."""
    if id(value) in seen:
        return
    own = getattr(value, "__module__", None) == module
    wrapped = getattr(value, "__wrapped__", None)  # by functools.lru_cache and the like
    if inspect.isfunction(value) and own:
        seen.add(id(value))
        inside = _describe_code(value.__code__, parts)
        reads = {name: value.__globals__[name] for name in inside if name in value.__globals__}
        closure = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        reads |= {name: cell.cell_contents for name, cell in closure}
        inner = [*sorted(reads.items()), *enumerate(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).items()]
    elif inspect.isclass(value) and own:
        seen.add(id(value))
        inner = [item for item in sorted(vars(value).items()) if not item[0].startswith("__") or callable(item[1])]
    elif inspect.ismethod(value):
        inner = [("self", value.__self__), ("function", value.__func__)]
    elif wrapped is not None:
        inner = [("wrapped", wrapped)]
    elif isinstance(value, (types.ModuleType, type)) or inspect.isroutine(value):
        inner = []
        parts.append(f"{getattr(value, '__module__', '')} {getattr(value, '__name__', '')}")
    elif isinstance(value, property):
        inner = [("get", value.fget), ("set", value.fset)]
    elif isinstance(value, functools.partial):
        inner = [("function", value.func), ("arguments", value.args), ("keywords", value.keywords)]
    elif isinstance(value, (list, tuple, set, frozenset, dict)):
        seen.add(id(value))
        parts.append(f"{type(value).__name__} of {len(value)}")
        ordered = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        inner = value.items() if isinstance(value, dict) else enumerate(ordered)
    elif isinstance(value, torch.Tensor):
        inner = [("tensor", value.detach().cpu().numpy())]
    else:
        inner = [("class", type(value))] if type(value).__module__ == module else []
        try:
            parts.append(joblib.hash(value))
        except Exception as error:  # whatever pickling raises
            raise DufmError(f"the task reads {value!r}, which has no value to hash: {error}") from None
    for name, item in inner:
        parts.append(f"{name}:")
        _describe(item, module, parts, seen)


def _describe_code(code, parts):
    """Append bytecode and constants, those of inner functions included; the global names it looks up."""
    parts.append(f"{code.co_code.hex()} {code.co_names} {code.co_varnames}")
    names = {step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _describe_code(constant, parts)
        else:
            parts.append(repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant))
    return names


def _key(source, cell, seeds):
    return hashlib.sha256(json.dumps([source, cell, seeds], sort_keys=True).encode()).hexdigest()[:24]


def _cells(grid):
    if isinstance(grid, dict):
        try:
            columns = {name: list(values) for name, values in grid.items() if not isinstance(values, str)}
        except TypeError:
            columns = {}
        if len(columns) < len(grid):
            raise DufmError(f"grid must give a list of values for every name, got {grid!r}")
        cells = [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())]
    elif isinstance(grid, (list, tuple)) and all(isinstance(cell, dict) for cell in grid):
        cells = [{name: cell[name] for name in grid[0]} if set(cell) == set(grid[0]) else cell for cell in grid]
    else:
        raise DufmError(f"grid must be a dict of lists, or a list of cells that are dicts, got {grid!r}")
    if not cells or not cells[0] or any(list(cell) != list(cells[0]) for cell in cells):
        raise DufmError(f"grid must hold at least one cell, every cell with the same names, got {grid!r}")
    for name in cells[0]:
        if not isinstance(name, str) or name in RESERVED:
            raise DufmError(f"grid: {name!r} cannot be the name of a parameter; {', '.join(RESERVED)} are taken")
    cells = [{k: v.item() if isinstance(v, np.generic) else v for k, v in cell.items()} for cell in cells]
    for name, value in (item for cell in cells for item in cell.items()):
        plain = value is None or isinstance(value, (bool, int, float, str))
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise DufmError(f"grid: {name} must be plain numbers or texts, finite, got {value!r}")
    if len({json.dumps(cell) for cell in cells}) < len(cells):
        raise DufmError("grid: a cell stands twice")
    return cells


def _seeds(seeds):
    if not isinstance(seeds, Iterable):
        raise DufmError(f"seeds must be distinct whole numbers, got {seeds!r}")
    seeds = [check_count("seeds: each", seed, 0) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise DufmError(f"seeds must be distinct whole numbers, at least one, got {seeds}")
    return seeds


@contextlib.contextmanager
def workers(backend):
    """Where joblib's calls run until the end of the block; ``backend`` as in :func:`run`."""
    if backend == "local":
        yield
        return
    if not isinstance(backend, str):
        raise DufmError(f"backend must be 'local' or the address of a dask scheduler, got {backend!r}")
    try:
        from distributed import Client
    except ImportError:
        raise DufmError(f"backend {backend!r} needs dask: pip install 'dufm[cluster]'") from None
    try:
        client = Client(backend, timeout=10, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise DufmError(f"backend must be 'local' or a dask scheduler that answers, got {backend!r}: {error}") from None
    with client, joblib.parallel_config(backend="dask", client=client, wait_for_workers_timeout=60):
        yield


def _compute(index, task, cell, seeds, path, source, caller):
    """One cell, in whatever process: its columns, or its error."""
    try:
        if os.getpid() != caller and fingerprint(task) != source:
            raise DufmError("this worker has another version of dufm or of the task than the process that called")
        with _one_thread():
            columns = _columns(task(list(seeds), **cell), cell, len(seeds))
    except (Exception, SystemExit) as error:
        return index, {"error": f"{type(error).__name__}: {error}"}
    if path and path.parent.is_dir():
        _checkout.write_atomic(path, json.dumps(columns))
    return index, columns


@contextlib.contextmanager
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _columns(result, cell, count):
    if not isinstance(result, dict):
        raise DufmError(f"the task must return a dict of columns, got {type(result).__name__}")
    columns = {}
    for name, values in result.items():
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        if name in RESERVED or name in cell or array.shape not in ((), (count,)) or array.dtype.kind not in "bifuU":
            raise DufmError(
                f"column {name!r} must be new and hold {count} numbers or texts, or one; "
                f"got shape {array.shape} of {array.dtype}"
            )
        columns[name] = np.broadcast_to(array, (count,)).tolist()
    return columns


def _table(cells, seeds, results):
    rows = []
    for cell, columns in zip(cells, results, strict=True):
        error = columns.get("error", "")
        for i, seed in enumerate(seeds):
            own = {} if error else {name: values[i] for name, values in columns.items()}
            rows.append({**cell, "seed": seed, **own, "error": error})
    table = pandas.DataFrame(rows)
    return table[[*(name for name in table.columns if name != "error"), "error"]]
