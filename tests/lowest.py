"""The lower end of every range in pyproject.toml, as constraints for pip: ``python tests/lowest.py > lowest.txt``."""

import re
import tomllib
from pathlib import Path

__all__ = ["constraints"]


def constraints(project):
    """One line ``name==version`` for each requirement ``name>=version…`` of a ``[project]`` table, its extras included.

    Raises ``ValueError`` for a requirement without a lower end, and for a name with two of them.
    """
    lowest = {}
    for requirement in sum(project["optional-dependencies"].values(), project["dependencies"]):
        found = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?>=([\w.]+)(?:[,;]|$)", requirement)
        if found is None:
            raise ValueError(f"{requirement!r} does not begin with name>=version")
        name, version = found.groups()
        if lowest.setdefault(name, version) != version:
            raise ValueError(f"{name} begins at {lowest[name]} in one list and at {version} in another")
    return [f"{name}=={version}" for name, version in sorted(lowest.items())]


if __name__ == "__main__":
    text = Path(__file__).resolve().parent.parent.joinpath("pyproject.toml").read_text(encoding="utf-8")
    print("\n".join(constraints(tomllib.loads(text)["project"])))
