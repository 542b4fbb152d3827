"""``dufm reproduce``: run notebooks through papermill into an output folder, and judge their claims."""

import contextlib
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
import uuid
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from filelock import FileLock, Timeout

from dufm._error import DufmError
from dufm.companion import child, claims, files, notebook, warm
from dufm.companion.build import QUIET, outputs, own_kernel, pair_differs, read_notebook, source_notebook
from dufm.companion.parameters import budget_parameters, declared, typed
from dufm.companion.words import did_you_mean

__all__ = ["folder_for", "reproduce", "select", "typed_parameters"]

LOCK = ".run.lock"


def select(wanted):
    """Full names of the notebooks asked for by number or name, in order; all of them if none is."""
    known = files.names()
    numbers = [name[:2] for name in known]
    for token in wanted:
        if token not in known and token.zfill(2) not in numbers:
            raise DufmError(f"unknown notebook {token!r}; {did_you_mean(token, known)}")
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


@contextlib.contextmanager
def folder_for(out):
    """The output folder (None: the usual one), made if need be, which no other command writes to until the block ends.

    ``DufmError`` if it, or a link in it, leads to committed files; if it cannot be written; if it is taken.
    """
    folder = files.spared(out) if out else files.out_dir()
    parts = [folder / part for part in ("", "notebooks", "figures")]
    for part in (*parts, folder / files.CELLS, folder / LOCK):
        files.spared(part)
    try:
        for part in parts:
            part.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=part).close()
    except OSError as error:
        raise DufmError(f"cannot write to {folder} ({error.strerror}); choose another folder with --out") from None
    try:
        with FileLock(folder / LOCK, timeout=0):
            for part in parts:
                files.remove_parts(part)
            yield folder
    except Timeout:
        raise DufmError(f"another run writes to {folder}; wait for it, or choose another folder with --out") from None
    except BrokenPipeError:  # not the folder, but whoever reads what is printed
        raise
    except (OSError, NotImplementedError) as error:
        raise DufmError(f"cannot run in {folder}: {error}") from None


def reproduce(wanted, given, *, jobs, device, out, cluster=None):
    """Run the notebooks; returns 0 if every claim that should hold does, else 1. Prints as it goes.

    ``jobs`` processes in all: notebooks side by side, and what is left to the sweeps inside them; ``cluster``: the dask
    scheduler that takes those sweeps instead.
    """
    names = select(wanted)
    parameters = typed_parameters(names, given)
    claims.ledger()
    for name, chosen in parameters.items():
        if "budget" in chosen:  # refused now rather than in each notebook
            budget_parameters(name, chosen["budget"])
    inside = max(1, jobs // len(names))
    os.environ.update(QUIET, DUFM_DEVICE=device, DUFM_ROOT=str(files.root()), DUFM_JOBS=str(inside))
    for variable in ("DUFM_REFRESH", "DUFM_CLUSTER"):
        os.environ.pop(variable, None)
    if device == "cuda":
        notebook.device()  # refused now, and loads torch
    if cluster is not None:
        from dufm.companion import pools

        with pools.workers(cluster):  # refused now rather than in the middle of a notebook
            os.environ["DUFM_CLUSTER"] = cluster
    with folder_for(out) as folder, tempfile.TemporaryDirectory(prefix="dufm-", ignore_cleanup_errors=True) as own:
        os.environ["DUFM_OUT"] = str(folder)
        runner = _Runner(folder, parameters, Path(own))
        with warm.serving(own, runner.mark) as command:
            own_kernel(own, command)
            return runner.run(names, jobs)


class _Runner:
    """The notebooks of one command: what runs, what is done, what an interrupted run had finished before."""

    def __init__(self, folder, parameters, logs):
        self.folder, self.parameters, self.logs = folder, parameters, logs
        self.done, self.errors, self.cells, self.made = {}, {}, {}, set()
        self.mark, self.interrupted = uuid.uuid4().hex, threading.Event()
        self.starting, self.noting, self.screen = threading.Lock(), threading.Lock(), threading.Lock()

    def run(self, names, jobs):
        began = time.perf_counter()
        self.say(f"running {len(names)} of {len(files.names())} notebooks, {min(jobs, len(names))} at a time")
        try:
            self.done = files.read_json(self.folder / "state.json", {})
        except DufmError as error:
            self.say(f"note: {error}; what an interrupted run had finished runs again")
        pool = ThreadPoolExecutor(jobs)
        try:
            waiting = {pool.submit(self.one, name) for name in names}
            while waiting:  # half a second at a time: Windows hears Ctrl-C only in between
                ended, waiting = wait(waiting, timeout=0.5, return_when=FIRST_EXCEPTION)
                for thread in ended:
                    thread.result()
            return self.judge(names, time.perf_counter() - began)
        except BaseException:
            with self.starting:
                self.interrupted.set()
            self.clear()
            pool.shutdown(wait=False, cancel_futures=True)
            child.end(self.mark)
            raise
        finally:
            pool.shutdown()

    def one(self, name):
        start = time.perf_counter()
        try:
            if self.done.get(name) == self.key(name):
                self.made.add(name)
                self.say(f"{name}  done before the interruption")
                return
            target = self.folder / "notebooks" / f"{name}.ipynb"
            target.unlink(missing_ok=True)
            if difference := pair_differs(name):
                self.say(f"{name}  note: {difference}; the source runs")
            self.say(f"{name}  started")
            error = self.execute(name, target)
            if not error and not self.interrupted.is_set():
                self.note(name)
        except Exception as stopped:  # whatever it is, the other notebooks go on
            error = f"{type(stopped).__name__}: {stopped}".splitlines()[0]
        self.cells.pop(name, None)
        if self.interrupted.is_set():
            return
        if error:
            self.errors[name] = error
        self.say(f"{name}  {time.perf_counter() - start:.0f} s  {error or 'done'}")

    def key(self, name):
        """What a finished notebook was made from, and a digest of what it made."""
        source = files.digest(files.source_path(name))
        parameters = json.dumps(self.parameters[name], sort_keys=True)
        found = [self.folder / "notebooks" / f"{name}.ipynb", *sorted((self.folder / "figures").glob(f"{name[:2]}_*"))]
        made = files.digest(*(path for path in found if path.is_file()))
        return f"{files.package_digest()} {source} {os.environ['DUFM_DEVICE']} {parameters} {made}"

    def note(self, name):
        """Keep that a notebook is done, for the run after an interruption."""
        with self.noting:
            self.done[name] = self.key(name)
            files.write_json(self.folder / "state.json", self.done)

    def execute(self, name, target):
        """Run one notebook and publish what can be read of it; returns what went wrong in a few words, or None."""
        import nbformat

        log, mark = self.logs / f"{name}.log", f"{self.mark} {name}"
        with files.scratch(target) as scratch:
            source, made = Path(scratch) / "source.ipynb", Path(scratch) / target.name
            nbformat.write(source_notebook(name), source)
            with self.starting:
                if self.interrupted.is_set():
                    return None
                process = child.start(source, made, self.parameters[name], target.parent, mark=mark, log=log)
            said = self.follow(name, process, log)
            child.end(mark)  # a kernel that died, or that was killed, leaves the workers of its sweeps
            if self.interrupted.is_set():
                return None
            failed = (said.strip().splitlines() or [f"exit {process.returncode}"])[-1] if process.returncode else None
            try:
                executed = read_notebook(made)
            except DufmError as error:
                return failed or str(error)
            files.write_atomic(target, made.read_bytes())
            self.made.add(name)
        return _first_error(executed) or failed

    def follow(self, name, process, log):
        """Show how many cells have run, on a terminal, until the child ends; returns what else it said."""
        text = ""
        with process, open(log, "rb") as said:
            while process.returncode is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
                text = (text + said.read().decode(errors="replace"))[-8000:]
                counted = re.findall(r"(\d+)/(\d+) ", text)
                if counted:
                    self.cells[name] = "/".join(counted[-1])
                    self.status()
        return re.sub(r"\r?\d+/\d+ ", "", text)

    def say(self, line):
        """A line for good, above the status line of a terminal."""
        with self.screen:
            print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)
        self.status()

    def clear(self):
        """Take the status line away."""
        if sys.stdout.isatty():
            print("\r\033[K", end="", flush=True)

    def status(self):
        if sys.stdout.isatty() and self.cells and not self.interrupted.is_set():
            running = ", ".join(f"{name[:2]} cell {count}" for name, count in sorted(self.cells.items()))
            with self.screen:
                print(f"\r\033[K{running[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)

    def judge(self, names, seconds):
        """The closing table: failures first, then what holds in one line; 1 if something failed."""
        records = claims.recorded(self.folder / "notebooks", self.made)
        numbers = {name[:2] for name in names}
        known = [claim for claim in claims.ledger().values() if claim.id[:2] in numbers]
        failed = claims.failures(records, names)
        width = max(40, shutil.get_terminal_size().columns)
        print(f"\n{closing(known, records, failed, self.errors, width)}")
        print(f"{seconds:.0f} s; figures in {self.folder / 'figures'}, notebooks in {self.folder / 'notebooks'}")
        (self.folder / "state.json").unlink(missing_ok=True)  # only an interrupted run is resumed
        if not self.errors:  # what a notebook with an error had finished serves the next run
            shutil.rmtree(self.folder / files.CELLS, ignore_errors=True)
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
    lines.append(f"{len(rows)} claims: {claims.counts(records, known)}" if rows else "no claims to judge")
    return "\n".join(textwrap.fill(line, width, subsequent_indent="    ") for line in lines)


def _first_error(executed):
    for _, output in outputs(executed):
        if output.output_type == "error":  # sys.exit(0) too, after which papermill is content
            return f"{output.ename}: {output.evalue.splitlines()[0] if output.evalue else ''}"
    return None
