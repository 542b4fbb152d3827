"""What a type checker sees of the package: its mark, the types it infers in a user's script, and two mistakes in it."""

import inspect
import re
import subprocess
import sys
import tomllib

from conftest import ROOT
from test_docstrings import DOCUMENTED

SCRIPT = """
import torch

import dufm

start = dufm.gaussian_init(3, 8, 4, seed=0, batch=2)
run = dufm.gradient_flow(start, record={"log_loss": [-10.0, -50.0]})
found = dufm.end(run, 3)
reveal_type(start)  # list[Tensor]
reveal_type(run.Z)  # Tensor
reveal_type(run.history)  # History | None
reveal_type(found.certificate.holds())  # Tensor
reveal_type(dufm.best(4, 3).margin_ratio)  # float
reveal_type(dufm.diagnose([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]], [0, 1, 0]).rank)  # int | None
reveal_type(dufm.escape_time(0.01, 4))  # float
reveal_type(dufm.escape_time(torch.ones(3), 4))  # Tensor
reveal_type(dufm.early_singular_values(torch.ones(3), 0.1, 4))  # Tensor
reveal_type(dufm.nc_metrics(dufm.polygon(5).mT, dufm.polygon(5)))  # dict[str, Tensor]
dufm.best("4", 3)  # error: Argument 1 to "best"
dufm.gradient_flow(run.Z)  # error: Argument 1 to "gradient_flow"
"""


def test_the_package_is_marked_as_typed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert (ROOT / "dufm" / "py.typed").is_file()
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["dufm"]


def test_every_public_function_has_all_its_types():
    bare = []
    for name, value in DOCUMENTED.items():
        if inspect.isfunction(value):
            signature = inspect.signature(value)
            kinds = [parameter.annotation for parameter in signature.parameters.values()]
            if inspect.Signature.empty in (*kinds, signature.return_annotation):
                bare.append(name)
    assert bare == []


def test_mypy_infers_the_types_of_a_users_script_and_finds_its_mistakes(tmp_path, monkeypatch):
    """The checkout stands on the search path; that an installed package is taken as typed is py.typed's work."""
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    # From the checkout, so that the cache of ``make lint`` serves: without it torch takes a quarter of a minute.
    said = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-color-output", str(tmp_path / "script.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    ).stdout
    lines = SCRIPT.splitlines()
    for number, line in enumerate(lines, start=1):
        if "  # error: " in line:
            assert f"script.py:{number}: {line.split('  # ')[1]}" in said, said
        elif "  # " in line:
            (found,) = re.findall(rf'script.py:{number}: note: Revealed type is "(.*)"', said)
            found = re.sub(r"[\w.]+\.(?=\w)|builtins\.", "", found)
            assert re.sub(r"Union\[(\w+), None\]", r"\1 | None", found) == line.split("  # ")[1]
    assert said.count("error:") == 2, said
