"""A grid of parameters to a tidy table: batched inside a cell, cells side by side, cached, resumable.

A task is a function of a module that computes one cell for all its seeds in one call::

    def ends(seeds, depth, width):
        ...                                          # one batch over the seeds
        return {"rank": ranks, "log_loss": losses}   # a number or a text a seed

    table = sweep.run(ends, {"depth": [2, 3, 4], "width": [4, 8]}, seeds=range(32), jobs=2, cache_dir="cells")
"""

import contextlib
import functools
import importlib
import inspect
import itertools
import math
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import numpy as np
import pandas
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from dufm._checks import check_count
from dufm._error import DufmError
from dufm.companion import cells as kept
from dufm.companion import files
from dufm.companion.pools import died, workers

__all__ = ["run", "run_again"]

RESERVED = ("seed", "seeds", "error")
# A worker begins no other cell of a batch after this many seconds; a batch has this many cells at most.
MOMENT, LARGEST = 0.2, 32
# Of the code that is loaded: the files may change under a session that goes on.
_PACKAGE = files.package_digest()


def run(task, grid, *, seeds, jobs=1, cache_dir=None, backend="local", cost=None):
    """Compute every cell of a grid and return one table, a row a cell and seed.

    ``task``: a function of an imported module, ``task(seeds, **cell)``, that returns a dict of columns, each one number
    or text a seed, or one for all of them.  ``grid``: ``{name: values}``, whose product is taken, or a list of cells
    ``{name: value}`` with the same names.  ``seeds``: distinct whole numbers, all of which go into each call.

    ``jobs``: worker processes (1: none, all in this process); every call computes on one thread wherever it runs.
    ``backend``: ``"local"``, or the address of a dask scheduler, ``"tcp://scheduler:8786"``, whose workers take the
    calls; they need the same ``dufm`` and one thread each (``dask worker --nthreads 1``), and the extra
    ``dufm[cluster]`` here; see ``pools.workers`` on trust.  ``cache_dir``: folder in which finished cells are kept,
    as JSON, under the task's name, a digest of its module's source, of the whole package and of the seeds: a run that
    was killed goes on from there; a cell that failed is tried again, and so is one whose file is damaged.  ``cost``:
    relative time of a cell, ``cost(**cell)``; dear cells start first and the time left is weighted by it.

    Columns: the cell's parameters, ``seed``, the task's columns, and ``error``, empty or the message of a cell that
    failed, its other columns NaN.  Rows are in the order of the grid.  A cell whose process dies is tried once more,
    and then has failed.  ``DufmError`` for a grid or seeds that are not as above, a task that no worker could import, a
    scheduler that does not answer or has no worker, workers with other code; what is finished by then is kept.
    """
    cells, seeds = _cells(grid), _seeds(seeds)
    jobs = check_count("jobs", jobs, 1)
    source = _source(task)
    weights = [1.0 if cost is None else float(cost(**cell)) for cell in cells]
    known, folder = {}, None
    if cache_dir is not None:
        folder = kept.folder(cache_dir, task.__name__, source, seeds)
        known = kept.load(folder, functools.partial(_checked, count=len(seeds)))
    found = {i: known[text] for i, text in enumerate(map(kept.key, cells)) if text in known}
    waiting = sorted(set(range(len(cells))) - set(found), key=lambda i: -weights[i])
    form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}, {remaining} left]"
    bar = tqdm(total=sum(weights), desc=task.__name__, leave=False, delay=5, bar_format=form)
    bar.update(sum(weights[i] for i in found))
    with bar, workers(backend, jobs, source) as (submit, width):
        for results in _results(task, cells, waiting, seeds, source, submit, width):
            found.update(results)
            whole = [(cells[i], columns) for i, columns in results if "error" not in columns]
            if folder and whole:
                kept.keep(folder, whole)
            bar.set_description_str(f"{task.__name__}, {len(found)} of {len(cells)} cells", refresh=False)
            bar.update(sum(weights[i] for i, _ in results))
    return _table(cells, seeds, [found[i] for i in range(len(cells))])


def run_again(task, known, cell, *, every, networks, **options):
    """Run every ``every``-th cell of a table again: runs, how many of them are in the table, how many end elsewhere.

    ``known``: what :func:`run` once made of ``task``, with the columns ``cell`` of a cell and a column ``name``, the
    end; of its seeds the first ``networks`` from the smallest on.  ``options`` as in :func:`run`.
    """
    cells = known[cell].drop_duplicates().to_dict("records")[:: check_count("every", every, 1)]
    first = int(known["seed"].min())
    here = run(task, cells, seeds=range(first, first + check_count("networks", networks, 1)), **options)
    both = here.merge(known, on=[*cell, "seed"], suffixes=("", "_known"))
    return len(here), len(both), int((both["name"] != both["name_known"]).sum())


def _source(task):
    """What decides a task besides its arguments: this package, its name and the source of its module."""
    module: Any = sys.modules.get(getattr(task, "__module__", ""))
    found = inspect.isfunction(task) and getattr(module, task.__qualname__, None) is task
    if not found or module.__name__ == "__main__" or not getattr(module, "__file__", None):
        raise DufmError(f"task must be a function of a module that workers can import, got {task!r}")
    return f"{_PACKAGE} {torch.__version__} {task.__module__}.{task.__qualname__} {_loaded(task)}"


@functools.cache
def _loaded(task):
    """Digest of the module of a task, once: who edits it under a sweep does not change what the sweep has loaded."""
    return files.digest(sys.modules[task.__module__].__file__)


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
        plain = value is None or isinstance(value, (bool, int, float)) or _is_text(value)
        if not plain or (isinstance(value, float) and not math.isfinite(value)):
            raise DufmError(f"grid: {name} must be plain numbers or texts, finite, got {value!r}")
    if len({repr(cell) for cell in cells}) < len(cells):
        raise DufmError("grid: a cell stands twice")
    return cells


def _seeds(seeds):
    if not isinstance(seeds, Iterable):
        raise DufmError(f"seeds must be distinct whole numbers, got {seeds!r}")
    seeds = [check_count("seeds: each", seed, 0) for seed in seeds]
    if not seeds or len(set(seeds)) < len(seeds):
        raise DufmError(f"seeds must be distinct whole numbers, at least one, got {seeds}")
    return seeds


def _results(task, cells, waiting, seeds, source, submit, width):
    """Yield ``[(index, columns), …]`` as batches come back, each of as many cells as take a moment."""
    waiting, size = deque(waiting), 1
    flying: dict[Future, list[int]] = {}
    deaths: Counter[int] = Counter()
    while waiting or flying:
        at_once = width()
        while waiting and len(flying) < at_once:
            most = min(size, LARGEST, len(waiting) // (2 * at_once))
            batch = [waiting.popleft()]
            while len(batch) < most and not deaths[batch[0]] and not deaths[waiting[0]]:
                batch.append(waiting.popleft())
            arguments = (task.__module__, task.__qualname__, source, [cells[i] for i in batch], seeds)
            flying[submit(_batch, *arguments)] = batch
        done, _ = wait(flying, timeout=1, return_when=FIRST_COMPLETED)
        ready: list[tuple[int, dict]] = []
        stopped = None
        for future in done:
            batch, error = flying.pop(future), future.exception()
            if error is None:
                columns, quick = future.result()
                size = 2 * len(columns) if quick else 1
                waiting.extendleft(reversed(batch[len(columns) :]))
                ready += zip(batch, columns, strict=False)
            elif died(error):
                deaths.update(batch)
                if len(batch) == 1 and deaths[batch[0]] > 1:
                    ready.append((batch[0], {"error": _said(error)}))
                else:
                    waiting.extendleft(reversed(batch))
            else:
                stopped = error
        if ready:
            yield ready
        if stopped is not None:
            raise DufmError(f"{task.__name__} stopped, finished cells stay in cache_dir: {_said(stopped)}")


def _batch(module, name, source, cells, seeds):
    """In whatever process: columns or error of each cell that was begun in a moment, and whether they took less."""
    task = getattr(importlib.import_module(module), name)
    if _source(task) != source:
        raise DufmError("a worker has another version of dufm or of the task than the process that called")
    until = time.monotonic() + MOMENT
    results = []
    with _one_thread():
        for cell in cells:
            results.append(_columns(task, cell, seeds))
            if time.monotonic() > until:
                break
    return results, time.monotonic() < until


def _columns(task, cell, seeds):
    try:
        return _checked(task(list(seeds), **cell), cell, len(seeds))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit and GeneratorExit too
        return {"error": _said(error)}


def _said(error):
    """An error in one line that any file can hold."""
    try:
        text = str(error)
    except Exception:
        text = "(its message cannot be read)"
    return _in_utf8(" ".join(f"{type(error).__name__}: {text}".split()))


def _is_text(value):
    return isinstance(value, str) and _in_utf8(value) == value


def _in_utf8(text):
    """A text as any file or table can hold it: lone surrogates are spelled out."""
    return text.encode(errors="backslashreplace").decode()


def _checked(result, cell, count):
    """The columns of a cell as lists, or the refusal of them."""
    if not isinstance(result, dict):
        raise DufmError(f"the task must return a dict of columns, got {type(result).__name__}")
    columns = {}
    for name, values in result.items():
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        fits = array.shape in ((), (count,)) and array.dtype.kind in "bifuU"
        if not isinstance(name, str) or name in RESERVED or name in cell or not fits:
            raise DufmError(
                f"column {name!r} must be new and hold {count} numbers or texts, or one; "
                f"got shape {array.shape} of {array.dtype}"
            )
        plain = array.astype(float) if array.dtype.kind == "f" else array
        values = np.broadcast_to(plain, (count,)).tolist()
        columns[_in_utf8(name)] = [_in_utf8(text) for text in values] if array.dtype.kind == "U" else values
    return columns


@contextlib.contextmanager
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _table(cells, seeds, results):
    rows = []
    for cell, columns in zip(cells, results, strict=True):
        error = columns.get("error", "")
        for i, seed in enumerate(seeds):
            own = {} if error else {name: values[i] for name, values in columns.items()}
            rows.append({**cell, "seed": seed, **own, "error": error})
    table = pandas.DataFrame(rows)
    return table[[*(name for name in table.columns if name != "error"), "error"]]
