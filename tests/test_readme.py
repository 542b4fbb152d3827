import re

import pytest
from conftest import ROOT

from dufm import DufmError, claims, maintain

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_generated_tables_are_in_step():
    assert maintain.readme() == TEXT, "README.md is out of step with the ledger and the records: run make notebooks"


def test_links_to_files_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT)
    assert targets
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_every_claim_is_in_the_table():
    assert all(claim.statement.replace("|", "\\|") in TEXT for claim in claims.ledger().values())


def test_readme_needs_its_marks(replace):
    replace("README.md", "<!-- claims:end -->", "")
    with pytest.raises(DufmError, match="claims:end"):
        maintain.readme()
