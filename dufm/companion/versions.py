"""The versions that decide the numbers."""

import contextlib
from importlib import metadata

__all__ = ["versions"]


def versions():
    """Versions of the packages that decide the numbers, without the suffix that names a build."""
    found = {}
    for package in ("torch", "numpy", "scipy", "matplotlib"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package).split("+")[0]
    return found
