"""Peak memory and processor seconds of notebooks at their defaults: ``python tests/bench/memory.py [NN ...]``.

Binder gives one core and one to two gigabytes. Fails where a notebook needs more than 1 GB or 90 s of one core.
"""

import os
import subprocess
import sys
import tempfile

from dufm.companion import files
from dufm.companion.build import QUIET
from dufm.companion.reproduce import select

__all__ = ["cost"]

SECONDS, MEGABYTES = 90, 1000


def cost(name):
    """``(processor seconds, peak resident MB)`` of papermill on one notebook and the kernel it starts; POSIX only.

    The peak is that of the larger of the two processes, as the operating system counted it when they ended.
    """
    notebook = files.source_path(name).with_suffix(".ipynb")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, **QUIET, "DUFM_OUT": folder, "DUFM_JOBS": "1", "DUFM_ROOT": str(files.root())}
        command = [sys.executable, "-m", "papermill", str(notebook), "out.ipynb", "-k", "python3", "--no-progress-bar"]
        child = subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
        _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{name} stopped with exit code {os.waitstatus_to_exitcode(status)}")
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6


def main(wanted):
    """Print a line for each notebook; 1 if one needs too much."""
    beyond = 0
    for name in select(wanted):
        seconds, megabytes = cost(name)
        above = seconds > SECONDS or megabytes > MEGABYTES
        beyond += above
        print(f"{seconds:6.0f} s {megabytes:6.0f} MB  {name}{'  too much' if above else ''}", flush=True)
    return 1 if beyond else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
