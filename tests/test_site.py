"""The site, built once with every warning an error: links, notebooks, pictures, names, citations."""

import importlib
import re
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT

import dufm
from dufm.companion import files, maintain

sys.path.insert(0, str(ROOT / "docs"))

import assemble  # noqa: E402
import citations  # noqa: E402

NOTEBOOKS = [files.source_path(name).relative_to(ROOT).with_suffix("").as_posix() for name in files.names()]
ROOMS = [f"dufm.{name}" for names, _ in assemble.rooms() for name in names]
SHARED = [f"dufm.companion.{path.stem}" for path in (ROOT / "dufm" / "companion").glob("[a-z]*.py")]
LOADED = {
    "script": "src",
    "img": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "audio": "src",
    "video": "src",
}


class Page(HTMLParser):
    """The elements of a page with their attributes, its ids, and what is read as text: no code, no formula."""

    def __init__(self, path):
        super().__init__()
        self.elements, self.ids, self.text, self._silent = [], set(), [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append((tag, attrs))
        self.ids.update(filter(None, [attrs.get("id"), attrs.get("name") if tag == "a" else None]))
        if tag in ("script", "style", "code", "pre", "dt") or "math" in (attrs.get("class") or "").split():
            self._silent.append(tag)

    def handle_endtag(self, tag):
        if self._silent and self._silent[-1] == tag:
            self._silent.pop()

    def handle_data(self, data):
        if not self._silent:
            self.text.append(data)

    def links(self, *words):
        """Targets of the links that have one of these classes."""
        found = [attrs for tag, attrs in self.elements if tag == "a" and "href" in attrs]
        return [attrs["href"] for attrs in found if set(words) & set((attrs.get("class") or "").split())]


@pytest.fixture(scope="module")
def pages(site):
    names = [path.relative_to(site).as_posix() for path in site.rglob("*.html") if "_static" not in path.parts]
    return {name: Page(site / name) for name in names}


def sources():
    """What a reader of the checkout sees, with comments and docstrings joined to running text."""
    paths = [path for folder in ("dufm", "notebooks", "figures") for path in (ROOT / folder).rglob("*.py")]
    for path in [*paths, *ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "notebooks" / "claims.toml"]:
        yield path, re.sub(r"\n\s*#?:? ?", "\n", path.read_text(encoding="utf-8"))


def test_every_citation_is_in_the_bibliography_and_every_entry_is_cited():
    works = citations.works()
    cited = {work: path.name for path, text in sources() for _, _, work in citations.cited(text)}
    assert not {work: name for work, name in cited.items() if work not in works}
    assert set(works.values()) == {works[work] for work in cited}


def test_arxiv_numbers_are_in_the_bibliography():
    entries = (ROOT / "docs" / "references.bib").read_text(encoding="utf-8")
    numbers = {number for _, text in sources() for number in re.findall(r"\b\d{4}\.\d{5}\b", text) if "arXiv" in text}
    assert numbers and all(number in entries for number in numbers)


@pytest.mark.parametrize(
    ("text", "work"),
    [
        ("(Lyu & Li 2020; x)", "Lyu, Li 2020"),
        ("of Jiang et al.\n(ICML 2024)", "Jiang et al. 2024"),
        ("C. Garrod, J. P. Keating, C. Thrampoulidis, ICML 2026, [", "Garrod, Keating, Thrampoulidis 2026"),
        ("Schütte & van der Waerden 1951", "Schütte, van der Waerden 1951"),
        ("by Shampine's (1986)", "Shampine 1986"),
    ],
)
def test_a_citation_is_recognised(text, work):
    assert [found for _, _, found in citations.cited(text)] == [work]


def test_what_is_no_citation_is_left_alone():
    assert not list(citations.cited("K = 2000 runs; from L 1990 on; ICML 2026; version 2020"))


def test_the_glossary_has_the_words_of_readme():
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## Words")[1].split("\n## ")[0]
    words = [row.split(" | ")[0].strip("| ") for row in table.splitlines() if row.startswith("| ")][1:]
    glossary = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8").splitlines()
    assert len(words) > 8 and set(words) <= set(glossary)


@pytest.mark.slow
def test_there_is_a_page_for_everything(pages):
    wanted = ["index", "gallery", "LEDGER", "glossary", "bibliography", "INSTALL", "CONTRIBUTING", "CHANGELOG"]
    wanted += [*NOTEBOOKS, "notebooks/answers", "search", "genindex"]
    wanted += [f"api/{name}" for name in ("index", *ROOMS, *SHARED)]
    assert {f"{name}.html" for name in wanted} <= set(pages)


@pytest.mark.slow
def test_no_link_is_broken(site, pages):
    broken = []
    for name, page in pages.items():
        for tag, attrs in page.elements:
            for target in filter(None, (attrs.get("href"), attrs.get("src"))):
                parts = urlsplit(target)
                if parts.scheme or tag == "base":
                    continue
                path = (site / name).parent / unquote(parts.path) if parts.path else site / name
                path = path.resolve()
                inside = pages.get(path.relative_to(site).as_posix()) if path.is_relative_to(site) else None
                if not path.is_file() or (inside and parts.fragment and unquote(parts.fragment) not in inside.ids):
                    broken.append((name, target))
    assert not broken


@pytest.mark.slow
def test_nothing_is_loaded_from_elsewhere(site, pages):
    outside = [
        (name, tag, attrs)
        for name, page in pages.items()
        for tag, attrs in page.elements
        if tag in LOADED and urlsplit(attrs.get(LOADED[tag]) or "").netloc
    ]
    assert not outside
    styles = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.css")}
    assert styles and not [path for path, text in styles.items() if re.search(r"(url\(|@import)\W*(https?:)?//", text)]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_its_links(site, pages, name):
    page = pages[f"{name}.html"]
    targets = [attrs["href"] for tag, attrs in page.elements if tag == "a" and "href" in attrs]
    assert targets.count(maintain.binder(f"{name}.ipynb")) == 1
    for kind, target in zip((".ipynb", ".py"), page.links("download"), strict=False):
        assert ((site / name).parent / target).read_bytes() == (ROOT / f"{name}{kind}").read_bytes()
    assert len(page.links("download")) >= 2
    assert page.links("left-prev") and page.links("right-next")


@pytest.mark.slow
def test_notebooks_follow_one_another(site, pages):
    order, name = ["index.html"], "index.html"
    while found := pages[name].links("right-next"):
        name = ((site / name).parent / found[0]).resolve().relative_to(site).as_posix()
        order.append(name)
    assert len(set(order)) == len(order)
    assert [name for name in order if name.removesuffix(".html") in NOTEBOOKS] == [f"{name}.html" for name in NOTEBOOKS]


@pytest.mark.slow
def test_every_picture_has_an_alternative_text(pages):
    pictures = [(name, attrs) for name, page in pages.items() for tag, attrs in page.elements if tag == "img"]
    assert len(pictures) > 2 * len(NOTEBOOKS)
    assert not [(name, attrs) for name, attrs in pictures if len(attrs.get("alt") or "") < 10]


@pytest.mark.slow
def test_the_gallery_has_every_figure(pages):
    shown = " ".join(attrs["src"] for tag, attrs in pages["gallery.html"].elements if tag == "img")
    names = [path.stem for path in (ROOT / "figures").glob("[0-9]*.png")]
    assert names and all(f"{name}.png" in shown for name in names)
    text = " ".join("".join(pages["gallery.html"].text).split())
    assert "Singular values of the logits along training." in text  # a caption, from notebook 11


@pytest.mark.slow
def test_every_public_name_is_documented(pages):
    linked = {target.split("#")[-1] for target in pages["api/index.html"].links("reference")}
    assert not {assemble.home(name) for name in dufm.__all__} - linked
    for room in [*ROOMS, *SHARED]:
        ids = pages[f"api/{room}.html"].ids
        assert not [name for name in importlib.import_module(room).__all__ if f"{room}.{name}" not in ids], room


@pytest.mark.slow
def test_text_is_rendered(pages):
    raw = re.compile(r"\$|\]\(|:\w+:`|``|\*\*")
    left = {name: raw.findall("".join(page.text)) for name, page in pages.items() if not name.startswith("_modules")}
    assert not {name: found for name, found in left.items() if found}


@pytest.mark.slow
def test_no_page_names_this_machine(site):
    assert not [path for path in site.rglob("*.html") if str(ROOT) in path.read_text(encoding="utf-8")]


@pytest.mark.slow
def test_citations_lead_to_the_bibliography(pages):
    linked = {target for target in pages["notebooks/7_networks/71_rank_and_depth.html"].links("reference")}
    assert "../../bibliography.html#cite-roy2007" in linked
    assert "../bibliography.html#cite-roy2007" in pages["api/dufm.metrics.html"].links("reference")
    assert "../notebooks/2_margin/25_collapse_is_beaten.html" in pages["api/dufm.margin.html"].links("reference")
    assert {f"cite-{key}" for key in citations.works().values()} <= pages["bibliography.html"].ids


@pytest.mark.slow
def test_the_site_can_be_searched(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "softmax" in index and "notebooks/5_dynamics/57_critical_deviation" in index
