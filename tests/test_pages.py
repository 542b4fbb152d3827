"""README, LEDGER.md and the guides: in step with the notebooks, short, their links and examples good."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT

from dufm import DufmError, claims
from dufm.companion import files, pages
from dufm.companion.build import outputs, read_notebook

GUIDES = ("README.md", "INSTALL.md", "CONTRIBUTING.md", "LEDGER.md")
TEXT = {name: (ROOT / name).read_text(encoding="utf-8") for name in GUIDES}


def test_the_generated_pages_are_in_step():
    assert pages.readme() == TEXT["README.md"] and pages.ledger_page() == TEXT["LEDGER.md"], "run make pages"


def published(name):
    """What the cells of an executed notebook gave, as Markdown: ``(text, metadata)`` of each output that is some."""
    made = read_notebook(files.source_path(name).with_suffix(".ipynb"))
    shown = (output for _, output in outputs(made) if "text/markdown" in output.get("data", {}))
    return [(output["data"]["text/markdown"], output["metadata"]) for output in shown]


def test_the_overview_shows_the_titles_and_minutes_of_today():
    """Either comes from another file, and no run of 00 is needed to see that it moved."""
    lists = [text for text, _ in published("00_overview") if text.startswith("- [")]
    assert lists == [links for *_, links in pages.overview()], "refresh 00"


def test_the_notebooks_show_the_claims_as_the_ledger_states_them():
    entries, seen = claims.ledger(), set()
    for name in files.names():
        for text, metadata in published(name):
            if "dufm_claim" in metadata:
                claim = entries[metadata["dufm_claim"]["id"]]
                seen.add(claim.id)
                for part in (claim.statement, claim.outcome, claim.expected, claim.status.replace("_", " ")):
                    assert part in text, f"refresh {name[:2]}: {claim.id} changed"
    assert seen == {claim.id for claim in entries.values() if claim.status != "not_run"}


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
