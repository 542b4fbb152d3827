"""pyproject's ranges, requirements' pins and environment.yml say the same, and Binder would use the last."""

import contextlib
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from conftest import ROOT, posix
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec
from test_ci import PYTHONS

import dufm

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
LINES = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]
CONDA_NAMES = {"pytorch": "torch"}


def ranges(lists):
    return {canonicalize_name(r.name): r.specifier for r in (Requirement(line) for part in lists for line in part)}


NOTEBOOKS = ranges([PROJECT["dependencies"], PROJECT["optional-dependencies"]["notebooks"]])
EVERYTHING = {**NOTEBOOKS, **ranges([PROJECT["optional-dependencies"][extra] for extra in ("site", "test")])}


def test_every_requirement_is_pinned_inside_its_range():
    pins = {canonicalize_name(pin.name): str(pin.specifier) for pin in PINS}
    assert len(pins) == len(PINS)
    for name, allowed in EVERYTHING.items():
        assert pins[name].startswith("=="), name
        assert allowed.contains(pins[name][2:]), f"{name}{pins[name]} is outside {allowed}"


SYSTEMS = [("linux", "Linux", "posix"), ("win32", "Windows", "nt"), ("darwin", "Darwin", "posix")]
PLACES = [
    {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": platform,
        "platform_system": system,
        "os_name": name,
    }
    for python in PYTHONS
    for platform, system, name in SYSTEMS
]


def drifted():
    """Packages whose installed version is not the pinned one; the build of PyTorch does not count."""
    for pin in PINS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            here = Version(metadata.version(pin.name)).public
            if not pin.specifier.contains(here):
                yield f"{pin.name} {here}"


as_pinned = pytest.mark.skipif(any(drifted()), reason=f"not the pinned versions: {', '.join(drifted())[:80]}")


def needed(name, extras):
    """What a package asks for, at any Python and on any system that is promised; nothing where it is not installed."""
    with contextlib.suppress(metadata.PackageNotFoundError):
        for requirement in map(Requirement, metadata.requires(name) or []):
            places = ({**place, "extra": extra} for place in PLACES for extra in extras)
            if requirement.marker is None or any(map(requirement.marker.evaluate, places)):
                yield requirement


@as_pinned
def test_the_pins_are_complete_and_agree_with_each_other():
    """All that the installed packages ask for, from the direct ones on; a build of PyTorch chooses its own CUDA."""
    pins = {canonicalize_name(pin.name): pin for pin in PINS}
    waiting = [Requirement(name) for name in EVERYTHING]
    seen = set()
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if name.startswith(("nvidia-", "cuda-", "triton")):
            continue
        assert name in pins, f"{name} has no pin"
        version = str(pins[name].specifier)[2:]
        assert asked.specifier.contains(version), f"{name}=={version}, but {asked} is asked for"
        if (name, frozenset(asked.extras)) not in seen:
            seen.add((name, frozenset(asked.extras)))
            waiting += needed(name, {"", *asked.extras})
    here = {name for name, pin in pins.items() if pin.marker is None}
    assert here <= {name for name, _ in seen}, "a pin that nothing asks for"


@as_pinned
def test_every_pin_installs_on_the_first_python_that_is_promised():
    """A distribution's own Python is often a first release: Debian 12 has 3.11.2."""
    first = PROJECT["requires-python"].removeprefix(">=") + ".0"
    refused = {}
    for pin in PINS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            needs = metadata.metadata(pin.name).get("Requires-Python")
            if needs and not SpecifierSet(needs).contains(first):
                refused[pin.name] = needs
    assert not refused


def test_pins_are_plain():
    assert PINS[0].name == "torch"
    assert all(re.fullmatch(r"==[^+*,]+", str(pin.specifier)) and not pin.url for pin in PINS)
    assert not [line for line in LINES if line.startswith("-") or "://" in line or "file:" in line]


def test_environment_has_the_names_and_ranges_of_pyproject():
    assert ENVIRONMENT["channels"][0] == "conda-forge"
    conda = ENVIRONMENT["dependencies"]
    specs = {}
    for text in conda:
        spec = MatchSpec(text)
        name = re.match(r"[\w-]+", text)[0]
        specs[CONDA_NAMES.get(name, name)] = str(spec.version) if spec.version else None
        assert spec.build is None or (name, str(spec.build)) == ("pytorch", "cpu_generic*")
    assert re.fullmatch(r"=?3\.11(\.\*)?", specs.pop("python"))
    specs.pop("pip")
    assert {name: set(version.split(",")) for name, version in specs.items()} == {
        name: set(str(allowed).split(",")) for name, allowed in NOTEBOOKS.items()
    }


@posix
def test_binder_uses_environment_yml():
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert all(re.search(word, said) for word in (r"environment\.yml", "postBuild", "start"))
    assert all(os.access(ROOT / name, os.X_OK) for name in ("postBuild", "start"))
    assert "-e ." in (ROOT / "postBuild").read_text() and "DUFM_JOBS=1" in (ROOT / "start").read_text()
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()


def test_python_and_version_are_the_same_everywhere():
    assert PROJECT["requires-python"] == ">=3.11"
    assert dufm.__version__ == PROJECT["version"]
    assert f"version: {PROJECT['version']}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["requirements.txt", "environment.yml", "Makefile", "README.md", "pyproject.toml"])
def test_no_file_names_a_machine(name):
    assert not re.search(r"/home/|/tmp/|index-url \S*http|file://", (ROOT / name).read_text(encoding="utf-8"))
