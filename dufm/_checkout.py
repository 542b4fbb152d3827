"""The folders of the checkout, writes that leave no half file, and the notebook that is running now."""

import hashlib
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from dufm._checks import DufmError

__all__ = [
    "Run",
    "digest",
    "names",
    "out_dir",
    "package_digest",
    "published_figures",
    "published_records",
    "read_json",
    "root",
    "source_path",
    "write_atomic",
    "write_json",
]

LEDGER = Path("notebooks") / "claims.toml"


@dataclass
class Run:
    """The notebook that called ``notebook.start`` in this process."""

    name: str
    parameters: dict
    published: bool


running: Run | None = None


def root():
    """Folder of the checkout: ``DUFM_ROOT``, else where this package lies, else the folder you are in."""
    if os.environ.get("DUFM_ROOT"):
        candidates = [Path(os.environ["DUFM_ROOT"])]
    else:
        candidates = [Path(__file__).resolve().parent.parent, Path.cwd(), *Path.cwd().parents]
    for folder in candidates:
        if (folder / LEDGER).is_file():
            return folder.resolve()
    raise DufmError(
        f"no checkout found: {LEDGER} is missing from {candidates[0]}; run inside a checkout of dufm, "
        "or name one in the environment variable DUFM_ROOT"
    )


def out_dir():
    """Folder for whatever a notebook writes: ``DUFM_OUT``, else ``out`` in the checkout."""
    return Path(os.environ.get("DUFM_OUT") or root() / "out").resolve()


def refreshing():
    """Whether the maintainer's refresh is running: what it makes becomes the published version."""
    return os.environ.get("DUFM_REFRESH") == "1"


def published_records():
    """Path of the committed records; during a refresh, of those that will be committed."""
    return out_dir() / "records.json" if refreshing() else root() / "notebooks" / "records.json"


def published_figures():
    """Folder of the committed figures; during a refresh, of those that will be committed."""
    return out_dir() / "figures" if refreshing() else root() / "figures"


def names():
    """Names of all notebooks (``NN_name``), in order."""
    return sorted(path.stem for path in (root() / "notebooks").glob("[0-9][0-9]_*.py"))


def source_path(name):
    """Path of a notebook's source, ``notebooks/NN_name.py``."""
    path = root() / "notebooks" / f"{name}.py"
    if not path.is_file():
        raise DufmError(f"unknown notebook {name!r}; there are {', '.join(names())}")
    return path


def digest(*paths):
    """Hash of the contents of some files, first 16 hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return total.hexdigest()[:16]


def package_digest():
    """Hash of the source of this package."""
    return digest(*sorted(Path(__file__).parent.glob("*.py")))


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
