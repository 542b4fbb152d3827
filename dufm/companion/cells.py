"""Finished cells of a sweep, kept in a folder as plain JSON: nothing that is read here can run.

A file holds a few cells, ``[[cell, columns], …]``, and is named by the hash of its content and of its folder's name: a
file that its name does not fit is damaged.  Who may write to the folder can still plant numbers under a name that fits.
"""

import hashlib
import json
import warnings
from pathlib import Path

from dufm._error import DufmError
from dufm.companion import files

__all__ = ["folder", "keep", "key", "load"]


def folder(cache_dir, task, *decides):
    """The folder below ``cache_dir``, made if need be, for the cells of a task under what else decides its results."""
    own = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    try:
        path = Path(cache_dir).resolve() / f"{task}-{own}"
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        raise DufmError(f"cache_dir must be a folder, got {cache_dir!r}: {error}") from None
    return path


def key(cell):
    """Text that tells cells apart, 1 from 1.0 and from True too."""
    return json.dumps(cell, sort_keys=True)


def keep(path, pairs):
    """Write cells ``[(cell, columns), …]`` into one file, whole or not at all."""
    body = json.dumps(pairs).encode()
    try:
        files.write_atomic(path / f"{_name(path, body)}.json", body)
    except OSError as error:
        raise DufmError(f"cache_dir: cells cannot be kept in {path}: {error}") from None


def load(path, check):
    """Columns by :func:`key` of every kept cell.  ``check(columns, cell)`` returns columns, or raises ``ValueError``.

    A file that is not whole is renamed to ``….damaged`` and not believed; one warning says how many there were.
    """
    found, damaged = {}, 0
    for file in sorted(path.glob("*.json")):
        try:
            body = file.read_bytes() if file.is_file() else b""
            if _name(path, body) != file.stem:
                raise ValueError("not what was written")
            found.update({key(cell): check(columns, cell) for cell, columns in json.loads(body)})
        except (OSError, ValueError, TypeError, RecursionError):
            damaged += 1
            _set_aside(file)
    if damaged:
        warnings.warn(f"{path}: {damaged} damaged, now *.damaged; their cells are computed again", stacklevel=3)
    return found


def _set_aside(file):
    try:
        file.replace(file.with_suffix(".damaged"))
    except OSError as error:
        raise DufmError(f"cache_dir: {file} is damaged and in the way: {error}") from None


def _name(path, body):
    return hashlib.sha256(path.name.encode() + body).hexdigest()[:32]
