"""README, LEDGER.md and the guides: in step with the notebooks, short, their links and examples good."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

from dufm import DufmError, claims
from dufm.companion import pages

GUIDES = ("README.md", "INSTALL.md", "CONTRIBUTING.md", "LEDGER.md")
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in GUIDES}


def test_the_generated_pages_are_in_step():
    assert pages.readme() == TEXT["README.md"] and pages.ledger_page() == TEXT["LEDGER.md"], "run make pages"


def test_readme_is_short_and_shows_only_the_papers_claims():
    assert len(TEXT["README.md"].splitlines()) <= 120
    for claim in claims.ledger().values():
        statement = claim.statement.replace("|", "\\|")
        assert statement in TEXT["LEDGER.md"]
        assert (statement in TEXT["README.md"]) == (claim.source == "paper")


@pytest.mark.parametrize("name", GUIDES)
def test_links_lead_somewhere(name):
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT[name])
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_readme_needs_its_marks(replace):
    replace("README.md", "<!-- claims:end -->", "")
    with pytest.raises(DufmError, match="claims:end"):
        pages.readme()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["README.md", "INSTALL.md"])
def test_the_examples_run(name, tmp_path):
    *modules, code = re.findall(r"```python\n(.*?)```", TEXT[name], re.DOTALL)
    for module in modules:
        (tmp_path / module.splitlines()[0].removeprefix("# ")).write_text(module, encoding="utf-8")
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
