"""``dufm reproduce``: run notebooks through papermill into an output folder, and judge their claims."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout

from dufm._checks import DufmError
from dufm.companion import claims, files, notebook
from dufm.companion.build import QUIET, outputs, own_kernel, pair_differs, source_notebook
from dufm.companion.parameters import declared, typed
from dufm.companion.words import did_you_mean

__all__ = ["reproduce", "select", "typed_parameters", "writable"]

# One interpreter a notebook. It ends when its parent does, killed or not: the parent holds its standard input.
CHILD = """
import json, os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
sys.modules["rfc3987_syntax"] = None  # jsonschema would spend a second on a grammar of addresses; no notebook has any
import papermill
source, target, parameters, folder = json.loads(sys.argv[1])
bar = {"disable": False, "mininterval": 0, "bar_format": "{n_fmt}/{total_fmt} "}
papermill.execute_notebook(source, target, parameters, kernel_name="python3", progress_bar=bar, cwd=folder)
"""


def select(wanted):
    """Full names of the notebooks asked for by number or name, in order; all of them if none is."""
    known = files.names()
    words = [*known, *(name[:2] for name in known)]
    for token in wanted:
        if token not in known and token.zfill(2) not in words:
            raise DufmError(f"unknown notebook {token!r}; {did_you_mean(token, words)}")
    return [name for name in known if not wanted or name in wanted or name[:2] in [token.zfill(2) for token in wanted]]


def typed_parameters(names, given):
    """The parameters ``{name: text}`` for each notebook, as the types it declares; each must be known to one."""
    parameters = {name: {parameter.name: parameter for parameter in declared(name)} for name in names}
    known = sorted({key for each in parameters.values() for key in each})
    for key in given:
        if key not in known:
            raise DufmError(f"unknown parameter {key!r}; {did_you_mean(key, known)}")
    return {
        name: {key: typed(each[key], text) for key, text in given.items() if key in each}
        for name, each in parameters.items()
    }


def writable(out):
    """The output folder (None: the usual one), made if need be; refused if it holds committed files."""
    folder, root = Path(out).resolve() if out else files.out_dir(), files.root()
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
    """Run the notebooks; returns 0 if every claim that should hold does, else 1. Prints as it goes.

    ``jobs`` processes in all: notebooks side by side, and what is left to the sweeps inside them; ``cluster``: the dask
    scheduler that takes those sweeps instead.
    """
    names = select(wanted)
    parameters = typed_parameters(names, given)
    claims.ledger()
    inside = max(1, jobs // len(names))
    os.environ.update(QUIET, DUFM_DEVICE=device, DUFM_ROOT=str(files.root()), DUFM_JOBS=str(inside))
    for variable in ("DUFM_REFRESH", "DUFM_CLUSTER"):
        os.environ.pop(variable, None)
    notebook.device()
    if cluster is not None:
        from dufm.companion import sweep

        with sweep.workers(cluster):  # refused now rather than in the middle of a notebook
            os.environ["DUFM_CLUSTER"] = cluster
    folder = writable(out)
    os.environ["DUFM_OUT"] = str(folder)
    try:
        with FileLock(folder / ".run.lock", timeout=0), tempfile.TemporaryDirectory() as kernel:
            own_kernel(kernel)
            return _Runner(folder, parameters).run(names, jobs)
    except Timeout:
        raise DufmError(f"another run writes to {folder}; wait for it, or choose another folder with --out") from None
    except (OSError, NotImplementedError) as error:
        raise DufmError(f"cannot run in {folder}: {error}") from None


class _Runner:
    """The notebooks of one command: what runs, what is done, what an interrupted run had finished before."""

    def __init__(self, folder, parameters):
        self.folder, self.parameters = folder, parameters
        self.done = files.read_json(folder / "state.json", {})
        self.errors, self.children, self.cells = {}, [], {}
        self.interrupted, self.screen = threading.Event(), threading.Lock()

    def run(self, names, jobs):
        for left in (self.folder / "notebooks").glob(".[0-9]*"):  # by a run that was killed
            shutil.rmtree(left)
        began = time.perf_counter()
        self.say(f"running {len(names)} of {len(files.names())} notebooks, {min(jobs, len(names))} at a time")
        pool = ThreadPoolExecutor(jobs)
        try:
            list(pool.map(self.one, names))
        except KeyboardInterrupt:
            self.interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for child in self.children:
                child.kill()
            print("interrupted; the same command goes on from here", file=sys.stderr)
            return 130
        (self.folder / "state.json").unlink(missing_ok=True)  # only an interrupted run is resumed
        if not self.errors:  # what a notebook with an error had finished serves the next run
            shutil.rmtree(self.folder / "cells", ignore_errors=True)
        return self.judge(names, time.perf_counter() - began)

    def one(self, name):
        key = _key(name, self.parameters[name])
        if self.done.get(name) == key and (self.folder / "notebooks" / f"{name}.ipynb").exists():
            self.say(f"{name}  done before the interruption")
            return
        if difference := pair_differs(name):
            self.say(f"{name}  note: {difference}; the source runs")
        self.say(f"{name}  started")
        start = time.perf_counter()
        error = self.execute(name)
        self.cells.pop(name, None)
        if self.interrupted.is_set():
            return
        self.say(f"{name}  {time.perf_counter() - start:.0f} s  {error or 'done'}")
        if error:
            self.errors[name] = error
        else:
            self.done[name] = key
            files.write_json(self.folder / "state.json", dict(self.done))

    def execute(self, name):
        """Run one notebook; returns what went wrong in a few words, or None."""
        import nbformat

        target = self.folder / "notebooks" / f"{name}.ipynb"
        target.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}.") as scratch:
            source, made = Path(scratch) / "source.ipynb", Path(scratch) / f"{name}.ipynb"
            nbformat.write(source_notebook(name), source)
            arguments = json.dumps([str(source), str(made), self.parameters[name], str(target.parent)])
            child = subprocess.Popen(
                [sys.executable, "-c", CHILD, arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            self.children.append(child)
            log = self.follow(name, child)
            code = child.wait()
            if made.exists():
                os.replace(made, target)
        if code == 0:
            return None
        return _first_error(target) or (log.strip().splitlines() or [f"exit {code}"])[-1]

    def follow(self, name, child):
        """Read what the child says, and show how many cells have run on a terminal."""
        log = ""
        with child.stdin, child.stderr:
            while chunk := child.stderr.read1(4096):
                log = (log + chunk.decode(errors="replace"))[-8000:]
                counted = re.findall(r"(\d+)/(\d+) ", log)
                if counted:
                    self.cells[name] = "/".join(counted[-1])
                    self.status()
        return re.sub(r"\r?\d+/\d+ ", "", log)

    def say(self, line):
        """A line for good, above the status line of a terminal."""
        with self.screen:
            print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)
        self.status()

    def status(self):
        if sys.stdout.isatty() and self.cells:
            running = ", ".join(f"{name[:2]} cell {count}" for name, count in sorted(self.cells.items()))
            with self.screen:
                print(f"\r\033[K{running[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)

    def judge(self, names, seconds):
        """The closing table: failures first, then what holds in one line; 1 if something failed."""
        records = claims.recorded(self.folder / "notebooks")
        numbers = {name[:2] for name in names}
        known = [claim for claim in claims.ledger().values() if claim.id[:2] in numbers]
        failed = claims.failures(records, names)
        width = max(40, shutil.get_terminal_size().columns)
        print(f"\n{closing(known, records, failed, self.errors, width)}")
        print(f"{seconds:.0f} s; figures in {self.folder / 'figures'}, notebooks in {self.folder / 'notebooks'}")
        return 1 if self.errors or failed else 0


def closing(known, records, failed, errors, width):
    """What a run found, for a terminal ``width`` columns wide: errors and failures first, one line of counts last."""
    lines = [f"{name} stopped: {error}" for name, error in sorted(errors.items())]
    order = {"fails": 0, "refuted": 1, "deviates": 2, "holds": 4}
    rows = []
    for claim in known:
        record = records.get(claim.id)
        verdict = record.verdict if record else "not run" if claim.status == "not_run" else "not reached"
        rows.append((0 if claim.id in failed else order.get(verdict, 3), claim, record, verdict))
    for rank, claim, record, verdict in sorted(rows, key=lambda row: (row[0], row[1].id)):
        if rank < 3:
            found = claim.found(record) if record else ""
            lines.append(f"{claim.id} {verdict}: {claim.statement} {found}")
    if any(verdict == "not applicable" for *_, verdict in rows):
        lines.append("not applicable: the parameters are not the published ones, for which the expectation was set")
    lines.append(f"{len(rows)} claims: {claims.counts(records, known)}")
    return "\n".join(textwrap.fill(line, width, subsequent_indent="    ") for line in lines)


def _key(name, parameters):
    source = files.digest(files.source_path(name))
    return f"{files.package_digest()} {source} {os.environ['DUFM_DEVICE']} {json.dumps(parameters, sort_keys=True)}"


def _first_error(path):
    import nbformat

    if not path.exists():
        return None
    for _, output in outputs(nbformat.read(path, as_version=4)):
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}"
    return None
