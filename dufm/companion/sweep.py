"""A grid of parameters to a tidy table: batched inside a cell, cells side by side, cached, resumable.

A task is a function of a module that computes one cell for all its seeds in one call::

    def ends(seeds, depth, width):
        ...                                          # one batch over the seeds
        return {"rank": ranks, "log_loss": losses}   # a number or a text a seed

    table = sweep.run(ends, {"depth": [2, 3, 4], "width": [4, 8]}, seeds=range(32), jobs=2, cache_dir="cells")
"""

import contextlib
import inspect
import itertools
import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas
import torch
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from dufm._checks import DufmError, check_count
from dufm.companion import files

__all__ = ["run", "run_again", "workers"]

RESERVED = ("seed", "seeds", "error")
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
    ``dufm[cluster]`` here.  ``cache_dir``: folder of a ``joblib.Memory`` in which whoever computes a cell keeps it,
    under the task's name and module source, the cell, the seeds, and the digest of the whole package: a run that was
    killed goes on from there; a cell that failed is tried again.  ``cost``: relative time of a cell, ``cost(**cell)``;
    dear cells start first and the time left is weighted by it.

    Columns: the cell's parameters, ``seed``, the task's columns, and ``error``, empty or the message of a cell that
    failed, its other columns NaN.  Rows are in the order of the grid.  ``DufmError`` for a grid or seeds that are not
    as above, a task that no worker could import, or a scheduler that does not answer.
    """
    cells, seeds = _cells(grid), _seeds(seeds)
    jobs = check_count("jobs", jobs, 1)
    source = _source(task)
    folder = _folder(cache_dir)
    weights = [1.0 if cost is None else float(cost(**cell)) for cell in cells]
    order = sorted(range(len(cells)), key=lambda i: -weights[i])
    found = {}
    form = "{desc}: {percentage:3.0f}%|{bar}| [{elapsed}, {remaining} left]"
    bar = tqdm(total=sum(weights), desc=task.__name__, leave=False, delay=5, bar_format=form)
    with bar, workers(backend):
        parallel = joblib.Parallel(n_jobs=jobs, batch_size=1, return_as="generator_unordered")
        for i, columns in parallel(joblib.delayed(_compute)(i, task, cells[i], seeds, folder, source) for i in order):
            found[i] = columns
            bar.set_description_str(f"{task.__name__}, {len(found)} of {len(cells)} cells", refresh=False)
            bar.update(weights[i])
    return _table(cells, seeds, [found[i] for i in range(len(cells))])


def run_again(task, known, cell, *, every, networks, **options):
    """Run every ``every``-th cell of a table again: runs, how many of them are in the table, how many end elsewhere.

    ``known``: what :func:`run` once made of ``task``, with the columns ``cell`` of a cell and a column ``name``, the
    end; of its seeds the first ``networks`` from the smallest on.  ``options`` as in :func:`run`.
    """
    cells = known[cell].drop_duplicates().to_dict("records")[::every]
    first = int(known["seed"].min())
    here = run(task, cells, seeds=range(first, first + networks), **options)
    both = here.merge(known, on=[*cell, "seed"], suffixes=("", "_known"))
    return len(here), len(both), int((both["name"] != both["name_known"]).sum())


def _source(task):
    """What decides a task besides this package: its name and the source of its module."""
    module: Any = sys.modules.get(getattr(task, "__module__", ""))
    found = inspect.isfunction(task) and getattr(module, task.__qualname__, None) is task
    if not found or module.__name__ == "__main__":
        raise DufmError(f"task must be a function of a module that workers can import, got {task!r}")
    return f"{_PACKAGE} {torch.__version__} {task.__module__}.{task.__qualname__} {files.digest(module.__file__)}"


def _folder(cache_dir):
    if cache_dir is None:
        return None
    folder = Path(cache_dir).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DufmError(f"cache_dir must be a folder, got {cache_dir!r}: {error}") from None
    return str(folder)


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


@contextlib.contextmanager
def workers(backend):
    """Where joblib's calls run until the end of the block; ``backend`` as in :func:`run`."""
    if backend == "local":
        yield
        return
    if not re.fullmatch(r"(tcp|tls)://.+:\d{1,5}", str(backend)):
        raise DufmError(f"backend must be 'local' or the address of a dask scheduler, tcp://host:8786, got {backend!r}")
    try:
        from distributed import Client
    except ImportError:
        raise DufmError(f"backend {backend!r} needs dask: pip install 'dufm[cluster]'") from None
    try:
        client = Client(backend, timeout=10, set_as_default=False)
    except (OSError, OverflowError, ValueError) as error:
        raise DufmError(f"backend must be 'local' or a dask scheduler that answers, got {backend!r}: {error}") from None
    with client, joblib.parallel_config(backend="dask", client=client, wait_for_workers_timeout=60):
        yield


def _compute(index, task, cell, seeds, folder, source):
    """One cell, in whatever process: its columns, or its error."""
    try:
        if _source(task) != source:
            raise DufmError("this worker has another version of dufm or of the task than the process that called")
        kept = folder if folder and Path(folder).is_dir() else None
        cached = joblib.Memory(kept, verbose=0).cache(_columns, ignore=["task"])
        return index, cached(task, source, cell, seeds)
    except (Exception, SystemExit) as error:
        return index, {"error": f"{type(error).__name__}: {error}"}


def _columns(task, source, cell, seeds):
    with _one_thread():
        result = task(list(seeds), **cell)
    if not isinstance(result, dict):
        raise DufmError(f"the task must return a dict of columns, got {type(result).__name__}")
    columns = {}
    for name, values in result.items():
        array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        fits = array.shape in ((), (len(seeds),)) and array.dtype.kind in "bifuU"
        if name in RESERVED or name in cell or not fits:
            raise DufmError(
                f"column {name!r} must be new and hold {len(seeds)} numbers or texts, or one; "
                f"got shape {array.shape} of {array.dtype}"
            )
        columns[name] = np.broadcast_to(array, (len(seeds),)).tolist()
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
