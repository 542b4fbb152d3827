"""Where a sweep's calls run: in this process, in processes of their own, or on a dask cluster."""

import contextlib
import logging
import os
import re
import signal
import threading
import time
from concurrent.futures import BrokenExecutor, Future

import psutil
from joblib.externals.loky import ProcessPoolExecutor

from dufm._error import DufmError

__all__ = ["died", "workers"]

# Seconds that a scheduler, or its first worker, may take to answer; that an idle process waits for the next sweep.
PATIENCE, IDLE = 10, 60
# Processes that wait, each with the code it has loaded.
_idle: list[tuple[str, ProcessPoolExecutor]] = []


def workers(backend, jobs=1, code=""):
    """A block with workers: ``submit(function, *arguments)`` returns a future, ``width()`` is how many run at once.

    ``backend``, ``jobs``: as in ``sweep.run``.  ``code``: names what the workers will have loaded; processes that an
    earlier block left serve again under the same name only.  Left by an error or by Ctrl-C, the block ends them.
    A dask scheduler and its workers exchange pickles and run whatever they are sent, by whoever reaches them: use
    ``tcp://`` on a network you trust, else ``tls://`` with the certificates that dask's configuration names.
    ``DufmError`` for a backend that is neither, a scheduler that does not answer, or has no worker for ten seconds.
    """
    if backend != "local":
        return _cluster(backend)
    return contextlib.nullcontext((_here, lambda: 1)) if jobs == 1 else _processes(jobs, code)


def died(error):
    """Whether a future's error says that the process which computed it is gone."""
    # By name: dask is an extra.
    return isinstance(error, BrokenExecutor) or type(error).__name__ == "KilledWorker"


def _here(function, *arguments):
    future: Future = Future()
    future.set_result(function(*arguments))
    return future


@contextlib.contextmanager
def _processes(jobs, code):
    """One executor a process: a process that dies takes no other call with it."""
    pool: list[ProcessPoolExecutor] = []
    busy: dict[int, Future] = {}
    while _idle:
        known, executor = _idle.pop()
        if known == code and len(pool) < jobs:
            pool.append(executor)
        else:
            executor.shutdown(wait=False, kill_workers=True)
    pool += [_process() for _ in range(jobs - len(pool))]

    def submit(function, *arguments):
        place = next(place for place in range(jobs) if place not in busy or busy[place].done())
        try:
            busy[place] = pool[place].submit(function, *arguments)
        except BrokenExecutor:  # its process died in an earlier call, or idle
            pool[place].shutdown(kill_workers=True)
            pool[place] = _process()
            busy[place] = pool[place].submit(function, *arguments)
        return busy[place]

    try:
        yield submit, lambda: jobs
    except BaseException:
        for executor in pool:
            executor.shutdown(wait=False, kill_workers=True)
        raise
    _idle.extend((code, executor) for executor in pool)


def _process():
    return ProcessPoolExecutor(1, timeout=IDLE, initializer=_begin, initargs=(os.getpid(),))


def _begin(parent):
    """In a new process: Ctrl-C is for the parent to answer, and when the parent is gone there is nobody to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent):
    # On Windows a process keeps the number of a parent that is gone.
    while psutil.pid_exists(parent) if os.name == "nt" else os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


@contextlib.contextmanager
def _cluster(backend):
    if not re.fullmatch(r"(tcp|tls)://.+:\d{1,5}", str(backend)):
        raise DufmError(f"backend must be 'local' or the address of a dask scheduler, tcp://host:8786, got {backend!r}")
    try:
        from distributed import Client, Security
    except ImportError:
        raise DufmError(f"backend {backend!r} needs dask: pip install 'dufm[cluster]'") from None
    try:
        known = Security().get_connection_args("client")
        fits = known["ssl_context"] if backend.startswith("tls") else not known["require_encryption"]
        client = Client(backend, timeout=PATIENCE, set_as_default=False) if fits else None
    except (OSError, OverflowError, ValueError) as error:
        raise DufmError(f"backend must be 'local' or a dask scheduler that answers, got {backend!r}: {error}") from None
    if client is None:
        raise DufmError(f"backend {backend!r} does not fit dask's configuration: see distributed.comm.tls there")

    def width():
        until = time.monotonic() + PATIENCE
        try:
            while not (threads := sum(client.nthreads().values())):
                if time.monotonic() > until:
                    raise DufmError(f"the dask scheduler {backend} has had no worker for {PATIENCE} s: start one")
                time.sleep(0.2)
        except OSError as error:
            said = " ".join(str(error).split())
            raise DufmError(f"the dask scheduler {backend} is gone, finished cells stay in cache_dir: {said}") from None
        return threads

    def submit(function, *arguments):
        outcome: Future = Future()

        def settle(future):
            try:
                outcome.set_result(future.result())
            except BaseException as error:
                outcome.set_exception(error)

        client.submit(function, *arguments, pure=False).add_done_callback(settle)
        return outcome

    log = logging.getLogger("distributed.client")
    level = log.level
    log.setLevel(logging.CRITICAL)  # of a lost scheduler it prints a traceback; here one line says so
    try:
        with client:
            width()
            yield submit, width
    finally:
        log.setLevel(level)
