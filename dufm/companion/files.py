"""The folders of the checkout and of a run, notebooks by name, and writes that leave no half file."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from dufm._error import DufmError

__all__ = [
    "CELLS",
    "NotebookRun",
    "digest",
    "find",
    "names",
    "out_dir",
    "package_digest",
    "processes",
    "read_json",
    "read_text",
    "read_toml",
    "refreshing",
    "remove_parts",
    "root",
    "running",
    "scratch",
    "shell",
    "source_path",
    "spared",
    "write_atomic",
    "write_json",
]

MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
_PACKAGE = Path(__file__).resolve().parent.parent
#: Folder in the output folder for the cells of sweeps: removed when a run has ended well, so named like no other.
CELLS = "dufm-cells"
# What is being written has a name that nobody else gives.
_PART = ".dufm-part"


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
    """Folder of the checkout: ``DUFM_ROOT``, else the one in which this package lies; what is found there is run."""
    named = os.environ.get("DUFM_ROOT")
    folder = Path(named) if named else _PACKAGE.parent
    if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
        return folder.resolve()
    if named:
        raise DufmError(f"no checkout found: DUFM_ROOT is {named}, which has no notebooks")
    address = metadata.metadata("dufm")["Project-URL"].removeprefix("Repository, ")
    raise DufmError(f"no checkout found: git clone {address}, then name its folder in DUFM_ROOT")


def refreshing():
    """Whether the maintainer's refresh is running: what it makes becomes the published version."""
    return os.environ.get("DUFM_REFRESH") == "1"


def out_dir():
    """Folder for what a notebook writes: ``DUFM_OUT``; else beside papermill's output, where it injects that path;
    else ``out`` in the checkout, in a folder of its own for parameters that are not the published ones.
    """
    run = running()
    if os.environ.get("DUFM_OUT"):
        return spared(os.environ["DUFM_OUT"])
    if run and run.output_notebook:
        return spared(_beside(run))
    if run is None or run.published:
        return spared(root() / "out")
    values = json.dumps(run.parameters, sort_keys=True)
    return spared(root() / "out" / f"{run.name[:2]}-{hashlib.sha256(values.encode()).hexdigest()[:8]}")


def _beside(run):
    path = Path(run.output_notebook).resolve()
    return path.with_name(f"{path.stem}_files")


def spared(path):
    """``path`` with its links followed; ``DufmError`` if it leads into the checkout elsewhere than into ``out``, or
    than beside papermill's output.
    """
    try:
        real = Path(path).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise DufmError(f"cannot write to {path}: {error}") from None
    checkout, run = root(), running()
    free = [checkout / "out", *([_beside(run)] if run and run.output_notebook else [])]
    if real.is_relative_to(checkout) and not any(real.is_relative_to(folder) for folder in free):
        leads = "" if Path(path) == real else f", which leads to {real}"
        raise DufmError(f"cannot write to {path}{leads}: inside the checkout only out is written to")
    return real


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
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes private files
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # its folder may have gone
        raise


def scratch(path):
    """A folder beside ``path`` for what is on its way there, until the end of the block."""
    return tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)


def remove_parts(folder):
    """Remove what a killed run was writing in ``folder``, and nothing else."""
    for left in folder.glob(f".*{_PART}"):
        if re.fullmatch(rf"\..+\.\w{{8}}{re.escape(_PART)}", left.name) and not left.is_symlink():
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def read_text(path):
    """The text of a file; ``DufmError`` that names the file if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DufmError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DufmError(f"{path} cannot be read: {error}") from None


def read_toml(path):
    """The content of a TOML file; ``DufmError`` that names the file if it is none."""
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DufmError(f"{path} is no TOML: {error}") from None


def write_json(path, value):
    """Write JSON in a stable form."""
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path, default=...):
    """The object in a JSON file; ``default``, if one is given, where there is no file; ``DufmError`` if damaged."""
    if default is not ... and not Path(path).exists():
        return default
    text = read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DufmError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict):
        raise DufmError(f"{path} is damaged: it holds no object but {type(content).__name__}")
    return content
