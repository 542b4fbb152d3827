"""A small checkout to test the plumbing on: one notebook with a figure, an overview, two claims, no torch."""

import contextlib
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent
posix = pytest.mark.skipif(os.name == "nt", reason="ends processes by signals, or starts what Windows has not")
HEADER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

"""
STUB = (
    HEADER
    + """# %% [markdown]
# # Margins of the simplex

# %%
from dufm import figures

figures.published("27_stub")

# %% tags=["parameters"]
num_classes: int = 4  # number of classes K [2, 64]
depths: list[int] = [2, 3, 4]  # depths L [2, 16]
scale: float = 1.0  # factor, no unit [1e-6, 10]
pause: float = 0.0  # wait, seconds [0, 600]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
import time

from dufm import claims, notebook

p = notebook.start("27_stub", globals())
time.sleep(p.pause)

# %%
margins = [p.scale * (p.num_classes - 1) ** (-depth / 2) for depth in notebook.progress(p.depths)]
figures.store("27_stub", {"depth": p.depths, "margin": margins, "kind": ["nc"] * len(margins)})

# %% tags=["figure"]
figures.show("27_stub", alt="Margin against depth: it falls.")

# %% tags=["verdict"]
claims.check("27-margin", margins[0])
claims.check("27-residual", 1e-15)

# %% tags=["nbval-ignore-output"]
notebook.provenance(p)
"""
)
DRAWING = '''"""Margin against depth."""

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4)
    ax.plot(data["depth"], data["margin"], color=figures.PALETTE["nc"], marker=figures.MARKER["nc"])
    ax.set(xlabel="depth $L$", ylabel="margin")
    return fig
'''
OVERVIEW = (
    HEADER
    + """# %% [markdown]
# # Overview

# %% tags=["parameters"]
seed: int = 0  # seed of every random draw [0, 1000000]
budget: str = "default"  # how much to compute {smoke, default, full}

# %%
from dufm import claims, notebook

p = notebook.start("00_overview", globals())

# %% tags=["verdict"]
print(claims.counts(claims.recorded()))
"""
)
LEDGER = """
[[claim]]
id = "27-margin"
statement = "The margin of the simplex is a third."
source = "paper"
quantity = "margin at depth 2"
equals = 0.3333
within = 0.0001
status = "proved"

[[claim]]
id = "27-residual"
statement = "The residual vanishes."
source = "companion"
quantity = "residual"
below = 1e-8
status = "measured"
"""
BUDGETS = """
[27_stub.smoke]
depths = [2]
"""
REGIONS = ("claims", "totals", "parts")
README = "# Stub\n" + "".join(f"\n<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in REGIONS)
PARTS = """
[2_margin]
title = "Margins"
question = "Which?"
answer = "This."
figure = "27_stub"
"""
FILES = {
    "notebooks/00_overview.py": OVERVIEW,
    "notebooks/2_margin/27_stub.py": STUB,
    "notebooks/claims.toml": LEDGER,
    "notebooks/budgets.toml": BUDGETS,
    "notebooks/parts.toml": PARTS,
    "figures/27_stub.py": DRAWING,
    "README.md": README,
}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout in a folder with a space and a letter beyond ASCII in its name, taken for theirs by all processes."""
    folder = tmp_path / "a checkout, größer"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    shutil.copy(ROOT / "pyproject.toml", folder)
    monkeypatch.setenv("DUFM_ROOT", str(folder))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for variable in ("DUFM_OUT", "DUFM_REFRESH", "DUFM_DEVICE", "JUPYTER_PATH"):
        monkeypatch.delenv(variable, raising=False)
    return folder


@pytest.fixture
def run_dufm(tmp_path):
    """Run ``python -m MODULE ARGUMENTS`` in another folder; returns the completed process."""

    def run(*arguments, module="dufm", **environment):
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=300,
        )

    return run


@pytest.fixture
def replace(checkout):
    """Edit a file of the small checkout: replace a text that stands in it once."""

    def edit(name, old, new):
        path = checkout / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")

    return edit


@pytest.fixture
def contents(checkout):
    """What stands in the small checkout, apart from out/: a dict of path to bytes."""

    def read():
        files = (path for path in checkout.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {
            path.relative_to(checkout).as_posix(): path.read_bytes()
            for path in files
            if path.relative_to(checkout).parts[0] != "out"
        }

    return read


@contextlib.contextmanager
def mounted(folder, *options):
    """A file system of its own on ``folder``; only root mounts."""
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def bench(monkeypatch):
    """A module of ``tests/bench`` by its name."""
    monkeypatch.syspath_prepend(ROOT / "tests" / "bench")
    return importlib.import_module


@pytest.fixture(scope="session")
def site(tmp_path_factory, worker_id):
    """The built site, one for all workers; a warning of its tools is an error."""
    shared = tmp_path_factory.getbasetemp()
    folder = (shared if worker_id == "master" else shared.parent) / "site"
    with FileLock(f"{folder}.lock"):
        if not (folder / "built").is_file():
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            for step in (
                [ROOT / "docs" / "assemble.py", folder / "source"],
                ["-m", "sphinx", "-W", "--keep-going", "-q", "-c", ROOT / "docs", folder / "source", folder / "html"],
            ):
                command = [sys.executable, *map(str, step)]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
                assert done.returncode == 0, done.stdout + done.stderr
            (folder / "built").touch()
    return folder / "html"
