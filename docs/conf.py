"""Settings of the site, and what is done to a page while it is made."""

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
from dufm.companion import files, maintain  # noqa: E402

REPOSITORY = maintain.address()

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
nitpick_ignore_regex = [("py:.*", r"(?!dufm\.)\w+\..*")]  # the references of other packages are not at hand

nb_execution_mode = "off"
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "dollarmath", "substitution"]
myst_substitutions = {"binder": f"[Binder]({maintain.binder('notebooks/00_overview.ipynb')})"}
myst_dmath_double_inline = True
myst_heading_anchors = 3

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True  # as the source writes them: no path of the machine
add_module_names = False

bibtex_bibfiles = ["references.bib"]
bibtex_cite_id = "cite-{key}"

html_theme = "sphinx_book_theme"
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_favicon = "icon.svg"
html_domain_indices = False
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
    """Before a page is read: paths are those of the site; a notebook gets what :func:`_notebook` does."""
    if re.match(r"notebooks/(.*/)?\d\d_", docname):
        content[0] = _notebook(docname, content[0])
    else:
        content[0] = content[0].replace("](README.md)", "](index.md)").replace("](docs/", "](")


def _notebook(docname, text):
    """Number and links at the head of a notebook, there alone; pictures from figures/ with their alt text."""
    name = docname.rsplit("/", 1)[-1]
    made = json.loads(text)
    title, rest = "".join(made["cells"][0]["source"]).removeprefix("# ").split("\n", 1)
    up, run = "../" * docname.count("/"), maintain.run_here(name)
    links = (
        f"{{.dufm-links}}\n{run.strip(' .')} · {{download}}`notebook <{name}.ipynb>` · {{download}}`source <{name}.py>`"
    )
    made["cells"][0]["source"] = f"# {name[:2]} · {title}\n\n{links}\n{rest.removesuffix(run)}"
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
    domain, home = env.get_domain("py"), assemble.home(name)
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, contnode)


def _mentions(docname, text):
    """``(start, end, page, anchor)`` of the works that a text cites and of the notebooks that a docstring names."""
    works = citations.works()
    for start, end, work in citations.cited(text):
        if work in works and docname != "bibliography":
            yield start, end, "bibliography", f"#cite-{works[work]}"
    for found in re.finditer(
        r"notebooks?\s\d\d\b(?:(?:,| to| and)\s\d\d\b)*", text if docname.startswith("api/") else ""
    ):
        for number in re.finditer(r"\d\d", found[0]):
            path = files.source_path(files.find(number[0])).relative_to(files.root()).with_suffix("").as_posix()
            yield found.start() + number.start(), found.start() + number.end(), path, ""


def link_mentions(app, doctree, docname):
    """Names and year of a work lead to the bibliography, the numbers of notebooks in docstrings to the notebooks."""
    for text in list(doctree.findall(nodes.Text)):
        plain, last, parts = text.astext(), 0, []
        if isinstance(text.parent, (nodes.literal, nodes.literal_block, nodes.reference, nodes.title, nodes.math)):
            continue
        for start, end, page, anchor in sorted(_mentions(docname, plain)):
            target = app.builder.get_relative_uri(docname, page) + anchor
            link = nodes.reference("", plain[start:end], refuri=target, internal=True)
            parts, last = [*parts, nodes.Text(plain[last:start]), link], end
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(plain[last:])])


def setup(app):
    """Connect what is done to pages and names."""
    app.connect("source-read", edit_page)
    app.connect("missing-reference", find_public)
    app.connect("doctree-resolved", link_mentions)
