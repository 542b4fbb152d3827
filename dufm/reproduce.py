"""``dufm reproduce``: run notebooks through papermill into an output folder, and judge their claims."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from dufm import _checkout, claims, notebook
from dufm._checks import DufmError

__all__ = ["pair_differs", "reproduce", "select", "source_notebook", "typed_parameters", "writable"]

# One interpreter a notebook. It ends when its parent does, killed or not: the parent holds its standard input.
CHILD = """
import json, os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
import papermill
source, target, parameters, folder = json.loads(sys.argv[1])
papermill.execute_notebook(source, target, parameters, kernel_name="python3", progress_bar=False, cwd=folder)
"""
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
JUPYTEXT = {"formats": "ipynb,py:percent", "notebook_metadata_filter": "kernelspec,-all"}
# Finished cells of the sweeps of a run that has not ended well, apart from those of a session in Lab.
CELLS = ".cells"
QUIET = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def source_notebook(name):
    """A notebook built from its source, without outputs: the same ids and metadata every time."""
    import jupytext

    made = jupytext.read(_checkout.source_path(name), fmt="py:percent")
    made.metadata = {"kernelspec": KERNEL, "jupytext": JUPYTEXT}
    made.nbformat, made.nbformat_minor = 4, 5
    for index, cell in enumerate(made.cells):
        cell.id = f"{name[:2]}-{index:03d}"
        tags = cell.metadata.get("tags")
        cell.metadata = {"tags": tags} if tags else {}
    return made


def pair_differs(name):
    """What distinguishes a notebook from its source, in a line; None if they are a pair."""
    import jupytext
    from jupytext.compare import NotebookDifference, compare_notebooks

    path = _checkout.source_path(name).with_suffix(".ipynb")
    if not path.is_file():
        return f"{path.name} is missing"
    try:
        compare_notebooks(
            jupytext.read(path),
            jupytext.read(path.with_suffix(".py"), fmt="py:percent"),
            fmt="py:percent",
            allow_expected_differences=True,
        )
    except NotebookDifference as error:
        return f"{path.name} and {name}.py differ: {' '.join(str(error).split())}"
    return None


def select(wanted):
    """Full names of the notebooks asked for by number or name, in order; all of them if none is."""
    known = _checkout.names()
    for token in wanted:
        if token not in known and token.zfill(2) not in [name[:2] for name in known]:
            raise DufmError(f"unknown notebook {token!r}; choose from {', '.join(known)}")
    return [name for name in known if not wanted or name in wanted or name[:2] in [token.zfill(2) for token in wanted]]


def typed_parameters(names, given):
    """The parameters ``{name: text}`` for each notebook, as the types it declares; each must be known to one."""
    declared = {name: {parameter.name: parameter for parameter in notebook.declared(name)} for name in names}
    known = sorted({key for parameters in declared.values() for key in parameters})
    for key in given:
        if key not in known:
            raise DufmError(f"unknown parameter {key!r}; choose from {', '.join(known)}")
    return {
        name: {key: notebook.check(parameters[key], text) for key, text in given.items() if key in parameters}
        for name, parameters in declared.items()
    }


def writable(out):
    """The output folder (None: the usual one), made if need be; refused if it holds committed files."""
    folder = Path(out).resolve() if out else _checkout.out_dir()
    root = _checkout.root()
    committed = [root / part for part in ("dufm", "figures", "notebooks", "tests")]
    if folder == root or any(folder.is_relative_to(part) for part in committed):
        raise DufmError(f"cannot write to {folder}: it holds committed files; choose another folder, such as out")
    try:
        for part in (folder, folder / "notebooks", folder / "figures"):
            part.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=part).close()
    except OSError as error:
        raise DufmError(f"cannot write to {folder} ({error.strerror}); choose another folder with --out") from None
    return folder


def reproduce(wanted, given, *, jobs, device, out, cluster=None):
    """Run the notebooks; returns 0 if every claim that should pass does, else 1. Prints as it goes.

    ``jobs`` processes in all: notebooks side by side, and what is left to the sweeps inside them; ``cluster``: the dask
    scheduler that takes those sweeps instead.
    """
    names = select(wanted)
    parameters = typed_parameters(names, given)
    claims.ledger()
    inside = max(1, jobs // len(names))
    os.environ.update(QUIET, DUFM_DEVICE=device, DUFM_ROOT=str(_checkout.root()), DUFM_JOBS=str(inside))
    for variable in ("DUFM_REFRESH", "DUFM_FIGURE_DATA", "DUFM_CLUSTER"):
        os.environ.pop(variable, None)
    notebook.device()
    if cluster is not None:
        from dufm import sweep

        with sweep.workers(cluster):  # refused now rather than in the middle of a notebook
            os.environ["DUFM_CLUSTER"] = cluster
    folder = writable(out)
    os.environ.update(DUFM_OUT=str(folder), DUFM_CELLS=str(folder / CELLS))
    try:
        with FileLock(folder / ".run.lock", timeout=0):
            return _run_all(names, parameters, jobs, folder)
    except Timeout:
        raise DufmError(f"another run writes to {folder}; wait for it, or choose another folder with --out") from None


def _run_all(names, parameters, jobs, out):
    _tidy(out)
    done = _checkout.read_json(out / "state.json", {})
    keys = {name: _key(name, parameters[name]) for name in names}
    print(f"running {', '.join(names)}, {min(jobs, len(names))} at a time, into {out}", flush=True)
    errors, children, began, interrupted = [], [], time.perf_counter(), threading.Event()

    def one(name):
        if done.get(name) == keys[name] and (out / "notebooks" / f"{name}.ipynb").exists():
            print(f"{name}  done before the interruption", flush=True)
            return
        if difference := pair_differs(name):
            print(f"{name}  note: {difference}; the source {name}.py runs", flush=True)
        start = time.perf_counter()
        error = _run_one(name, parameters[name], out, children)
        if interrupted.is_set():
            return
        print(f"{name}  {time.perf_counter() - start:.0f} s  {error or 'done'}", flush=True)
        if error:
            errors.append(name)
        else:
            done[name] = keys[name]
            _checkout.write_json(out / "state.json", dict(done))

    pool = ThreadPoolExecutor(jobs)
    try:
        list(pool.map(one, [name for name in names if name[:2] != "00"]))
        for name in names:  # the map of all others comes last
            if name[:2] == "00":
                one(name)
    except KeyboardInterrupt:
        interrupted.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for child in children:
            child.kill()
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    (out / "state.json").unlink(missing_ok=True)  # only an interrupted run is resumed
    if not errors:  # what a notebook with an error had finished serves the next run
        shutil.rmtree(out / CELLS, ignore_errors=True)
    return _judge(names, errors, out, time.perf_counter() - began)


def _tidy(out):
    """Remove what a killed run left half written."""
    for leftover in [*(out / "notebooks").glob(".[0-9]*"), *(out / "figures").glob(".[0-9]*"), *out.glob(".*.json.*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


def _key(name, parameters):
    source = _checkout.digest(_checkout.source_path(name), _checkout.root() / _checkout.LEDGER)
    return f"{_checkout.package_digest()} {source} {os.environ['DUFM_DEVICE']} {json.dumps(parameters, sort_keys=True)}"


def _run_one(name, parameters, out, children):
    """Run one notebook; returns what went wrong in a few words, or None."""
    import nbformat

    claims.forget(name)
    with tempfile.TemporaryDirectory(dir=out / "notebooks", prefix=f".{name}.") as scratch:
        source, target = Path(scratch) / "source.ipynb", Path(scratch) / f"{name}.ipynb"
        nbformat.write(source_notebook(name), source)
        arguments = json.dumps([str(source), str(target), parameters, str(out / "notebooks")])
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        with child.stdin, child.stderr:
            log = child.stderr.read()
        code = child.wait()
        if target.exists():
            os.replace(target, out / "notebooks" / f"{name}.ipynb")
    if code == 0:
        return None
    return _first_error(out / "notebooks" / f"{name}.ipynb") or (log.strip().splitlines() or [f"exit {code}"])[-1]


def _first_error(path):
    import nbformat

    if not path.exists():
        return None
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                return f"{output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}"
    return None


def _judge(names, errors, out, seconds):
    recorded = claims.records(out / "records.json")
    failed = claims.failures(out / "records.json", names)
    print(f"\n{claims.plain_table(names, recorded)}\n")
    print(f"{seconds:.0f} s. Figures are in {out / 'figures'}, executed notebooks in {out / 'notebooks'}.")
    if errors:
        print(f"Stopped with an error: {', '.join(errors)}.")
    if failed:
        print(f"Claims that should pass and do not: {', '.join(failed)}.")
    return 1 if errors or failed else 0
