"""Settings of the site, and what is done to a page while it is made."""

import importlib
import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import assemble  # noqa: E402
import citations  # noqa: E402
from docutils import nodes  # noqa: E402

import dufm  # noqa: E402
from dufm.companion import maintain  # noqa: E402

REPOSITORY = maintain.address()
BINDER = f"https://mybinder.org/v2/gh/{REPOSITORY}/HEAD?urlpath=lab/tree/"
COLAB = f"https://colab.research.google.com/github/{REPOSITORY}/blob/HEAD/"

project = "dufm"
author = copyright = "the dufm authors"
release = dufm.__version__
html_title = "Deep unconstrained feature models"
language = "en"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["README.md"]
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(torch|numpy|pandas|matplotlib|nbformat|pathlib|collections)\..*")]

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "dollarmath", "substitution"]
myst_substitutions = {"binder": f"[Binder]({BINDER}notebooks/00_overview.ipynb)"}
myst_dmath_double_inline = True
myst_heading_anchors = 3

autosummary_generate = False
autodoc_member_order = "bysource"
add_module_names = False

bibtex_bibfiles = ["references.bib"]
bibtex_cite_id = "cite-{key}"

html_theme = "sphinx_book_theme"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_favicon = "icon.svg"
html_copy_source = False
html_show_sourcelink = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "repository_url": f"https://github.com/{REPOSITORY}",
    "use_repository_button": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],
}


def edit_page(app, docname, content):
    """Before a page is read: the front page stands for README; a notebook gets what :func:`_notebook` does."""
    if re.match(r"notebooks/(.*/)?\d\d_", docname):
        content[0] = _notebook(docname, content[0])
    else:
        content[0] = content[0].replace("](README.md)", "](index.md)")


def _notebook(docname, text):
    """Number and links at the head of a notebook; pictures from figures/ with their alt text."""
    name = docname.rsplit("/", 1)[-1]
    made = json.loads(text)
    title, rest = "".join(made["cells"][0]["source"]).removeprefix("# ").split("\n", 1)
    up = "../" * docname.count("/")
    links = (
        f"{{.dufm-links}}\n[Binder]({BINDER}{docname}.ipynb) · [Colab]({COLAB}{docname}.ipynb) · "
        f"{{download}}`notebook <{name}.ipynb>` · {{download}}`source <{name}.py>`"
    )
    made["cells"][0]["source"] = f"# {name[:2]} · {title}\n\n{links}\n{rest}"
    for cell in made["cells"]:
        shown = [output for output in cell.get("outputs", []) if "dufm_figure" in output.get("metadata", {})]
        for output in shown:
            alt = output["data"]["text/plain"]
            picture = f"{up}figures/{output['metadata']['dufm_figure']}.png"
            output["data"] = {"text/markdown": f"```{{image}} {picture}\n:alt: {''.join(alt)}\n```"}
        if shown:
            first = "figures.published(" in "".join(cell["source"])
            cell["metadata"].setdefault("tags", []).append("remove-input" if first else "hide-input")
    return json.dumps(made)


def find_public(app, env, node, contnode):
    """``dufm.name`` is what the room says that shows it."""
    name = node["reftarget"].removeprefix("dufm.")
    if node.get("refdomain") != "py" or name not in dufm.__all__:
        return None
    domain, target = env.get_domain("py"), getattr(dufm, name)
    rooms = [importlib.import_module(f"dufm.{room}") for names, _ in assemble.rooms() for room in names]
    shown = [f"{room.__name__}.{name}" for room in rooms if getattr(room, name, None) is target]
    found = [place for place in [f"dufm.{name}", *shown] if place in domain.objects]
    return found and domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, contnode)


def link_citations(app, doctree, docname):
    """Names and year of a work lead to its entry in the bibliography."""
    works = citations.works() if docname != "bibliography" else {}
    here = app.builder.get_relative_uri(docname, "bibliography")
    for text in list(doctree.findall(nodes.Text)):
        plain, last, parts = text.astext(), 0, []
        if isinstance(text.parent, (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.math)):
            continue
        for start, end, work in citations.cited(plain):
            if work in works:
                entry = nodes.reference("", plain[start:end], refuri=f"{here}#cite-{works[work]}", internal=True)
                parts, last = [*parts, nodes.Text(plain[last:start]), entry], end
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(plain[last:])])


def setup(app):
    """Connect what is done to pages and names."""
    app.connect("source-read", edit_page)
    app.connect("missing-reference", find_public)
    app.connect("doctree-resolved", link_citations)
