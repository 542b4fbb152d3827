"""One notebook in an interpreter of its own, and the end of all that it has started.

As a script it runs a notebook by papermill.  Its kernel and the workers of its sweeps inherit a mark in their
environment, by which they are found when those between have died; a forked kernel shows that of the whole run.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time

__all__ = ["end", "start"]

MARK = "DUFM_RUN"


def start(source, target, parameters, folder, *, mark, log):
    """Run the notebook ``source`` in a process that no Ctrl-C of this terminal reaches; its stderr goes to ``log``."""
    arguments = json.dumps([str(source), str(target), parameters, str(folder)])
    with open(log, "wb") as said:
        return subprocess.Popen(
            [sys.executable, "-P", __file__, arguments],  # -P: no module from the folder you are in
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env={**os.environ, MARK: mark},
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def end(mark):
    """Kill all processes whose mark begins so, but for this one; returns when none is left, or after two seconds."""
    import psutil

    began, quiet = time.monotonic(), 0
    while quiet < 2 and (spent := time.monotonic() - began) < 2.0:  # between fork and exec a process has no environment
        found = [process for process in psutil.process_iter() if _carries(process, mark)]
        for process in found:
            with contextlib.suppress(psutil.Error):
                if spent > 1.0 or not _tidies_up(process):
                    process.kill()
        quiet = 0 if found else quiet + 1
        time.sleep(0.02)


def _tidies_up(process):
    """Whether it removes the semaphores and the shared memory of a sweep when its workers are dead, and then goes."""
    return any("resource_tracker" in word for word in process.cmdline())


def _carries(process, mark):
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        return process.pid != os.getpid() and process.environ().get(MARK, "").startswith(mark)
    return False


def _end_with_the_parent():
    while os.read(0, 1):  # the parent holds the other end, and writes nothing
        pass
    end(os.environ[MARK])
    os._exit(1)


def _main(source, target, parameters, folder):
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    # Where it can be imported, jsonschema spends a second on a grammar of addresses, which no notebook holds.
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    bar = {"disable": False, "mininterval": 0, "bar_format": "{n_fmt}/{total_fmt} "}
    _execute(source, target, parameters, kernel_name="python3", progress_bar=bar, cwd=folder)


def _execute(*arguments, **options):
    """Papermill, once more where no kernel came: its ports are chosen first, and others may take one before it does."""
    import papermill

    try:
        papermill.execute_notebook(*arguments, **options)
    except RuntimeError as error:
        if type(error) is not RuntimeError:  # it came, and died
            raise
        papermill.execute_notebook(*arguments, **options)


if __name__ == "__main__":
    _main(*json.loads(sys.argv[1]))
