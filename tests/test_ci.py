"""The workflow: actions pinned by hash, read permission, time enough, every Python and platform that is promised."""

import re

import pytest
import yaml
from conftest import ROOT

TEXT = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load(TEXT)
JOBS = WORKFLOW["jobs"]
PYTHONS = ["3.11", "3.12", "3.13", "3.14"]


def test_every_action_is_pinned_by_hash_with_its_version():
    used = re.findall(r"uses:\s*(.*)", TEXT)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action) for action in used)
    assert len({action.split("@")[0] for action in used}) == len(set(used)), "one action at two versions"


def test_it_may_only_read():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not [name for name, job in JOBS.items() if "permissions" in job]
    checkouts = [step for job in JOBS.values() for step in job["steps"] if "checkout@" in step.get("uses", "")]
    assert len(checkouts) == len(JOBS)
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@pytest.mark.parametrize("job", JOBS.values(), ids=list(JOBS))
def test_every_job_ends_and_the_long_ones_may(job):
    """The whole suite takes 35 to 50 minutes on two cores."""
    assert job["timeout-minutes"] <= 120
    if any(".ci/run" in step.get("run", "") for step in job["steps"]):
        assert job["timeout-minutes"] >= 75


def test_every_promised_platform_is_tried():
    assert JOBS["test"]["strategy"]["matrix"]["python"] == PYTHONS
    assert JOBS["test"]["steps"][-1]["run"] == ".ci/run"
    others = JOBS["platforms"]["strategy"]["matrix"]
    assert others["os"] == ["windows-latest", "macos-latest"] and others["python"] == [PYTHONS[0], PYTHONS[-1]]
    assert [job["runs-on"] for job in JOBS.values()].count("ubuntu-latest") == len(JOBS) - 1


def test_the_pins_are_audited():
    """Exactly the file that is installed, every pin of it: without ``--no-deps`` pip would choose others."""
    commands = [step["run"] for step in JOBS["audit"]["steps"] if "run" in step]
    assert re.fullmatch(r"python -m pip install pip-audit==[\d.]+", commands[0])
    assert commands[1:] == ["python -m pip_audit --strict --disable-pip --no-deps -r requirements.txt"]


def test_nothing_is_installed_unpinned():
    """Beside the package itself an install names a pin or a file of pins."""
    for command in re.findall(r"pip install (.*)", TEXT):
        assert re.search(r"-[rc] \w+\.txt|grep '\^torch==' \w+\.txt|==[\d.]+$|--no-deps --no-build-isolation", command)


def test_pins_and_actions_are_renewed():
    found = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text(encoding="utf-8"))["updates"]
    assert {update["package-ecosystem"] for update in found} == {"pip", "github-actions"}
