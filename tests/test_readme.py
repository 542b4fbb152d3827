import re
import subprocess
import sys

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


@pytest.mark.slow
@pytest.mark.parametrize("code", [c for c in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "dask" not in c])
def test_the_examples_run(code, tmp_path):
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    done = subprocess.run([sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_claim_is_in_the_table():
    assert all(claim.statement.replace("|", "\\|") in TEXT for claim in claims.ledger().values())


def test_readme_needs_its_marks(replace):
    replace("README.md", "<!-- claims:end -->", "")
    with pytest.raises(DufmError, match="claims:end"):
        maintain.readme()
