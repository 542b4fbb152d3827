import re
import shutil

import nbformat
import pytest
from conftest import ROOT

from dufm import DufmError
from dufm.companion import files, maintain
from dufm.companion.build import pair_differs

ADDRESS = re.compile(r"(?:github\.com/|google\.com/github/|mybinder\.org/v2/gh/)([A-Za-z0-9-]+/[\w.-]*\w)")
NOTEBOOKS = [path.stem for path in sorted((ROOT / "notebooks").glob("**/[0-9][0-9]_*.py"))]


@pytest.fixture
def linked(checkout):
    for name in maintain.LINKED:
        shutil.copy(ROOT / name, checkout / name)
    folder = checkout / "notebooks" / "5_dynamics"
    folder.mkdir()
    for kind in ("py", "ipynb"):
        shutil.copy(ROOT / "notebooks" / "5_dynamics" / f"57_critical_deviation.{kind}", folder)
    return checkout


def places(folder):
    return {name: set(ADDRESS.findall((folder / name).read_text(encoding="utf-8"))) for name in maintain.LINKED}


def test_the_public_address_is_the_same_everywhere():
    addresses = places(ROOT)
    assert set().union(*addresses.values()) == {maintain.address()}
    assert all(addresses.values())


def test_no_other_file_has_it():
    files = [*ROOT.glob("dufm/**/*.py"), *ROOT.glob("figures/*.py"), *ROOT.glob("*.yml"), ROOT / "Makefile"]
    assert not [path.name for path in files if f"/{maintain.address()}" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_notebook_says_where_to_run_it(name):
    """At the end of its first cell and nowhere else; where it is missing: make links."""
    text = files.source_path(name).read_text(encoding="utf-8")
    assert text.split("\n\n# %%")[1].endswith(maintain.run_here(name))
    assert len(ADDRESS.findall(text)) == 3


def test_links_writes_all_places_and_back(linked, contents):
    maintain.set_links()
    before = contents()
    maintain.set_links("someone/deep-codes.v2")
    assert maintain.address() == "someone/deep-codes.v2"
    assert all(found == {"someone/deep-codes.v2"} for found in places(linked).values())
    for name in files.names():
        found = ADDRESS.findall(files.source_path(name).read_text(encoding="utf-8"))
        assert found == ["someone/deep-codes.v2"] * 3
    assert "urlpath=lab/tree/notebooks/5_dynamics/57_critical_deviation.ipynb)" in maintain.run_here(files.find("57"))
    maintain.set_links(places(ROOT)["pyproject.toml"].pop())
    assert contents() == before


def test_links_keep_a_pair_and_its_outputs(linked):
    path = linked / "notebooks" / "5_dynamics" / "57_critical_deviation.ipynb"
    before = nbformat.read(path, as_version=4)
    maintain.set_links("someone/deep-codes.v2")
    assert pair_differs("57_critical_deviation") is None
    after = nbformat.read(path, as_version=4)
    assert "someone/deep-codes.v2" in after.cells[0].source
    assert after.cells[1:] == before.cells[1:] and after.metadata == before.metadata


@pytest.mark.parametrize("repository", ["", "owner", "a/b/c", "https://github.com/a/b", "a b/c"])
def test_no_other_form(linked, repository):
    with pytest.raises(DufmError, match="OWNER/REPO"):
        maintain.set_links(repository)
