import re
import shutil

import pytest
from conftest import ROOT

from dufm import DufmError
from dufm.companion import maintain

ADDRESS = re.compile(r"(?:github\.com/|mybinder\.org/v2/gh/)([A-Za-z0-9-]+/[\w.-]*\w)")


@pytest.fixture
def linked(checkout):
    for name in maintain.LINKED:
        shutil.copy(ROOT / name, checkout / name)
    return checkout


def places(folder):
    return {name: set(ADDRESS.findall((folder / name).read_text(encoding="utf-8"))) for name in maintain.LINKED}


def test_the_public_address_is_the_same_everywhere():
    addresses = places(ROOT)
    assert set().union(*addresses.values()) == {maintain.address()}
    assert all(addresses.values())


def test_no_other_file_has_it():
    files = [*ROOT.glob("dufm/**/*.py"), *ROOT.glob("notebooks/**/*.py"), *ROOT.glob("*.yml"), ROOT / "Makefile"]
    assert not [path.name for path in files if f"/{maintain.address()}" in path.read_text(encoding="utf-8")]


def test_links_writes_all_places_and_back(linked):
    before = {name: (linked / name).read_bytes() for name in maintain.LINKED}
    maintain.set_links("someone/deep-codes.v2")
    assert maintain.address() == "someone/deep-codes.v2"
    assert all(found == {"someone/deep-codes.v2"} for found in places(linked).values())
    maintain.set_links(places(ROOT)["pyproject.toml"].pop())
    assert before == {name: (linked / name).read_bytes() for name in maintain.LINKED}


@pytest.mark.parametrize("repository", ["", "owner", "a/b/c", "https://github.com/a/b", "a b/c"])
def test_no_other_form(linked, repository):
    with pytest.raises(DufmError, match="OWNER/REPO"):
        maintain.set_links(repository)
