"""The house: rooms in the order of the package docstring, each importing only what stands before it; none long."""

import ast
import re
import subprocess
import sys

import pytest
from conftest import ROOT

import dufm

ROOMS = [name for line in re.findall(r"^    (\S.*?)  ", dufm.__doc__, re.MULTILINE) for name in line.split(", ")]
FILES = sorted(path for path in (ROOT / "dufm").glob("*.py") if not path.stem.startswith("__"))


def imports(path):
    """Names of the rooms that a file imports, private ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "dufm":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dufm."):
            yield node.module.removeprefix("dufm.")


def test_no_room_hides_a_public_name():
    """``import dufm.polygon`` would put the room where the function is looked for."""
    assert not {path.stem for path in (ROOT / "dufm").glob("**/*.py")} & set(dufm.__all__)


def test_the_docstring_names_every_room():
    assert sorted(ROOMS) == [path.stem for path in FILES if not path.stem.startswith("_")]
    assert all(getattr(dufm, room) for room in ROOMS if not callable(getattr(dufm, room)))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_rooms_before_it(room):
    found = {name for name in imports(ROOT / "dufm" / f"{room}.py") if not name.startswith("_")}
    assert found <= set(ROOMS[: ROOMS.index(room)])


@pytest.mark.parametrize("path", [*FILES, *(ROOT / "dufm" / "companion").glob("*.py")], ids=lambda path: path.stem)
def test_no_file_is_long(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 350


def test_the_science_and_the_companion_do_not_import_each_other():
    for path in FILES:
        assert not [name for name in imports(path) if name.startswith("companion")], path.name
    for path in (ROOT / "dufm" / "companion").glob("*.py"):
        assert {name for name in imports(path) if not name.startswith("companion")} <= {"_checks", "_error"}, path.name


SLOW = ["scipy.optimize", "scipy.integrate", "scipy.linalg", "pandas", "matplotlib", "papermill", "joblib"]


@pytest.mark.parametrize(
    "code, slow",
    [
        ("import dufm; dufm.polygon", SLOW),
        ("import dufm", ["torch", "numpy", *SLOW]),
        ("import dufm.__main__; from dufm.companion import claims, pages, reproduce", ["torch", "numpy", *SLOW]),
    ],
)
def test_what_is_slow_to_load_waits_until_it_is_used(code, slow):
    """A command begins with little: dufm list draws nothing and computes nothing."""
    code = f"import sys; {code}; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
