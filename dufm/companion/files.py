"""The folders of the checkout and of a run, notebooks by name, and writes that leave no half file."""

import contextlib
import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dufm._checks import DufmError

__all__ = [
    "NotebookRun",
    "digest",
    "find",
    "names",
    "out_dir",
    "package_digest",
    "processes",
    "read_json",
    "refreshing",
    "root",
    "running",
    "shell",
    "source_path",
    "write_atomic",
    "write_json",
]

MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
_PACKAGE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class NotebookRun:
    """The notebook that a kernel runs: ``published`` where the parameters are those of the committed outputs."""

    name: str
    parameters: dict
    published: bool
    output_notebook: str | None


def shell():
    """The IPython shell of this kernel; None outside one."""
    with contextlib.suppress(ImportError):
        from IPython import get_ipython

        return get_ipython()
    return None


def running():
    """The :class:`NotebookRun` that ``notebook.start`` left in this kernel's namespace; None outside a notebook."""
    here = shell()
    return here.user_ns.get("_dufm_run") if here else None


def root():
    """Folder of the checkout: ``DUFM_ROOT``, else where this package lies, else the folder you are in or one above."""
    named = os.environ.get("DUFM_ROOT")
    for folder in [Path(named)] if named else [_PACKAGE.parent, Path.cwd(), *Path.cwd().parents]:
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder.resolve()
    if named:
        raise DufmError(f"no checkout found: DUFM_ROOT is {named}, which has no notebooks")
    address = metadata.metadata("dufm")["Project-URL"].removeprefix("Repository, ")
    raise DufmError(f"no checkout found: git clone {address}, then run this inside it, or name it in DUFM_ROOT")


def refreshing():
    """Whether the maintainer's refresh is running: what it makes becomes the published version."""
    return os.environ.get("DUFM_REFRESH") == "1"


def out_dir():
    """Folder for what a notebook writes: ``DUFM_OUT``; else beside papermill's output, where it injects that path;
    else ``out`` in the checkout, in a folder of its own for parameters that are not the published ones.
    """
    run = running()
    if os.environ.get("DUFM_OUT"):
        return Path(os.environ["DUFM_OUT"]).resolve()
    if run and run.output_notebook:
        path = Path(run.output_notebook).resolve()
        return path.with_name(f"{path.stem}_files")
    if run is None or run.published:
        return root() / "out"
    values = json.dumps(run.parameters, sort_keys=True)
    return root() / "out" / f"{run.name[:2]}-{hashlib.sha256(values.encode()).hexdigest()[:8]}"


def names():
    """Names of all notebooks (``NN_name``), in order."""
    return sorted(path.stem for path in (root() / "notebooks").glob("**/[0-9][0-9]_*.py"))


def source_path(name):
    """Path of a notebook's source, ``notebooks/N_part/NN_name.py``."""
    found = sorted((root() / "notebooks").glob(f"**/{name}.py"))
    if not found:
        raise DufmError(f"unknown notebook {name!r}; there are {', '.join(names())}")
    return found[0]


def find(number):
    """Name of the notebook with this number (``NN``), which its figures and claims begin with."""
    for name in names():
        if name[:2] == number[:2]:
            return name
    raise DufmError(f"no notebook has the number {number[:2]!r}; there are {', '.join(names())}")


def digest(*paths):
    """Hash of the contents of some files, first 16 hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return total.hexdigest()[:16]


def package_digest():
    """Hash of the source of this package."""
    return digest(*sorted(_PACKAGE.glob("**/*.py")))


def processes():
    """How many processes this container has room for: its cores, and 0.8 GiB of its memory for each."""
    import joblib
    import psutil

    memory = psutil.virtual_memory().total
    with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
        memory = min(memory, int(MEMORY_LIMIT.read_text()))
    return max(1, min(joblib.cpu_count(), int(memory / (0.8 * 2**30))))


def write_atomic(path, data):
    """Write bytes or text so that a reader, or a killed run, sees the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def write_json(path, value):
    """Write JSON in a stable form."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path, default):
    """Read JSON, or return ``default`` if there is no such file."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return default
