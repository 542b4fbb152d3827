"""The package as it is installed: wheel and sdist, in an environment with nothing but what the wheel asks for."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from importlib import metadata

import pytest
from conftest import ROOT
from lowest import constraints
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "dufm").rglob("*.*") if path.suffix != ".pyc"}
WITHOUT_NETWORK = ("--no-index", "--disable-pip-version-check", "-q")
NOT_COPIED = shutil.ignore_patterns(".*", "out", "build", "dist", "*.egg-info", "__pycache__", "shared")
USE = """
import sys
import torch, dufm
factors = dufm.gaussian_init(3, 3, 4, batch=2, seed=0)
end = dufm.end(dufm.gradient_flow(factors, until_log_loss=-1e4), depth=3)
labels = torch.arange(4).repeat(2)
print(end.decided.all().item(), dufm.diagnose(50 * torch.eye(4)[labels], labels).name, dufm.__file__)
"""


def bare():
    """The variables of this process without a home and without those that point at the checkout."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "DUFM", "HOME"))}


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=bare())
    assert done.returncode == 0, done.stdout + done.stderr


def closure(requirements):
    """Names of the distributions that the requirements bring, as installed here."""
    found, left = set(), [(Requirement(text), "") for text in requirements]
    while left:
        requirement, extra = left.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for wanted in {"", *requirement.extras}:  # a CUDA build of PyTorch asks for cuda-toolkit[cudart, ...]
            if (requirement.name, wanted) not in found:
                found.add((requirement.name, wanted))
                left += [(Requirement(text), wanted) for text in metadata.distribution(requirement.name).requires or ()]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    source, made = (tmp_path_factory.mktemp(name) for name in ("source", "sdist"))
    shutil.copytree(ROOT, source, ignore=NOT_COPIED, dirs_exist_ok=True)
    code = f"from setuptools import build_meta; build_meta.build_sdist({str(made)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return made / f"dufm-{PROJECT['version']}.tar.gz"


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Built from the sdist, so that nothing in it is missing."""
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", *WITHOUT_NETWORK, "--no-build-isolation", "--no-deps", "-w", str(folder), str(sdist))
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Python of a new environment: the wheel, and links to what it asks for, which satisfies pip."""
    folder = tmp_path_factory.mktemp("an environment with ö")
    venv.create(folder)
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    for name in closure(PROJECT["dependencies"]):
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}
        for top in tops:
            if not os.path.lexists(os.path.join(site, top)):
                os.symlink(distribution.locate_file(top), os.path.join(site, top))
    pip("--python", str(python), "install", *WITHOUT_NETWORK, str(wheel))
    return python


@pytest.fixture
def outside(installed, tmp_path):
    """Run a command of that environment in another folder."""

    def run(*command, **variables):
        program = [installed.with_name(command[0]), *command[1:]]
        environment = bare() | variables
        return subprocess.run(program, capture_output=True, text=True, timeout=300, cwd=tmp_path, env=environment)

    return run


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == MODULES and "dufm/best_known.csv" in names


def test_the_sdist_holds_what_builds_it_and_no_notebook(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    described = {"pyproject.toml", "README.md", "INSTALL.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"}
    assert MODULES | described <= names
    assert not [name for name in names if name.startswith(("notebooks", "figures", "tests"))]
    assert sdist.stat().st_size < 1e6


def test_it_brings_the_science(outside, installed):
    done = outside("python", "-c", USE)
    assert done.returncode == 0, done.stderr
    decided, name, place = done.stdout.strip().split(" ", 2)
    assert (decided, name) == ("True", "NC") and place.startswith(str(installed.parent.parent))
    done = outside("dufm", "best", "6", "3")
    assert done.returncode == 0 and "code          orthoplex" in done.stdout, done.stderr


@pytest.mark.parametrize("command", ["reproduce", "list", "claims", "figures"])
def test_a_command_on_notebooks_says_where_a_checkout_is(outside, tmp_path, command):
    done = outside("dufm", command)
    address = PROJECT["urls"]["Repository"]
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dufm: no checkout found") and done.stderr.count("\n") == 1
    assert f"git clone {address}" in done.stderr
    assert not list(tmp_path.iterdir())


def test_it_runs_no_notebook_of_the_folder_you_are_in(outside, checkout, tmp_path):
    shutil.copytree(checkout, tmp_path, dirs_exist_ok=True)
    done = outside("dufm", "reproduce")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("dufm: no checkout found")


def test_in_a_checkout_it_says_what_is_missing(outside, checkout):
    for command in (["reproduce"], ["figures", "27"]):
        done = outside("dufm", *command, DUFM_ROOT=str(checkout))
        assert done.returncode == 2
        assert "pip install 'dufm[notebooks]'" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("use", "missing"),
    [
        ("dufm.figures", "dufm.figures needs matplotlib"),
        ("dufm.sweep", "dufm.sweep needs pandas"),
        ("dufm.choice", "dufm.choice needs pandas"),
        ("dufm.data.split('digits', 3)", "dufm.data needs sklearn"),
    ],
)
def test_a_room_that_needs_the_notebooks_packages_says_what_brings_them(outside, use, missing):
    done = outside("python", "-c", f"import dufm; {use}")
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {missing}: pip install 'dufm[notebooks]'"


def test_the_lower_ends_are_one_line_each():
    extras = {"a": ["py-x[a]>=1", "x>=1.5,<3"]}
    lines = constraints({"dependencies": ["torch>=2.6,<3"], "optional-dependencies": extras})
    assert lines == ["py-x==1", "torch==2.6", "x==1.5"]
    with pytest.raises(ValueError, match="does not begin"):
        constraints({"dependencies": ["torch"], "optional-dependencies": {}})
    with pytest.raises(ValueError, match="x begins at 1 in one list and at 2"):
        constraints({"dependencies": ["x>=1"], "optional-dependencies": {"a": ["x>=2"]}})


def test_every_lower_end_is_below_its_pin():
    pins = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line[:1].isalpha()]
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    for line in constraints(PROJECT):
        name, version = line.split("==")
        assert name == "diffrax" or Version(version) <= Version(pinned[canonicalize_name(name)])
