"""Gather the sources of the site in one folder: what is committed, and the pages that are made from it.

``python docs/assemble.py FOLDER``.  Links in the checkout are relative; the folder repeats its layout, so they hold.
Made here: a page for each part, the gallery of all figures, the pages of the API.
"""

import importlib
import re
import shutil
import sys
from pathlib import Path

import dufm
from dufm import DufmError
from dufm.companion import files, pages
from dufm.companion.parameters import title

__all__ = ["api_pages", "assemble", "caption", "gallery", "home", "part_pages", "rooms"]

PAGES = ("CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "INSTALL.md", "LEDGER.md", "README.md")
LINK = re.compile(r"\]\((?!https?:)([^)]+)\)")
DRAWN = "[Drawn by](../../figures/"
API = """\
The package
===========

What ``import dufm`` gives, such as ``dufm.best``. Each name leads to the room that holds it.

.. autosummary::
   :nosignatures:

   {names}

.. autoexception:: dufm.DufmError

Rooms
-----

Ground floor first; each imports only from those before it. They are attributes after ``import dufm``, as in
``dufm.networks``.

.. list-table::
   :widths: 30 70

{rooms}

What the notebooks share
------------------------

Not needed for the science. ``from dufm import figures`` and the others are short for ``dufm.companion.figures``.

.. list-table::
   :widths: 30 70

{companion}

.. toctree::
   :hidden:

   {toctree}
"""


def assemble(folder):
    """Write the sources of the site into ``folder``, which is made anew."""
    root, folder = files.root(), Path(folder)
    if folder.exists():
        shutil.rmtree(folder)
    shutil.copytree(root / "docs", folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for part in ("notebooks", "figures"):
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.toml"))
    for name in PAGES:
        shutil.copy2(root / name, folder)
    for name, text in {**part_pages(), **gallery(), **api_pages()}.items():
        files.write_atomic(folder / name, text)


def part_pages():
    """A page for each part: its question and answer, its picture, its notebooks in order."""
    made = {}
    for (folder, _, names), (heading, question, answer, figure, links) in zip(
        pages.by_part(), pages.overview(), strict=True
    ):
        toctree = "\n".join(f"{name.replace('_', ' ')} <{name}>" for name in names)
        made[f"notebooks/{folder}/index.md"] = (
            f"# {heading}\n\n**{question}** {answer}\n\n{_picture(figure, '../../')}\n\n"
            f"{links.replace(f']({folder}/', '](')}\n\n```{{toctree}}\n:hidden:\n\n{toctree}\n```\n"
        )
    return made


def _picture(name, up):
    about = files.read_json(files.root() / "figures" / f"{name}.json", None)
    return f"```{{image}} {up}figures/{name}.png\n:alt: {about['alt']}\n:loading: lazy\n```"


def caption(name):
    """The caption of a figure, Markdown: the paragraph of its notebook that ends in the link to its script."""
    text = files.source_path(files.find(name)).read_text(encoding="utf-8")
    cells = [cell for cell in text.split("\n# %%") if cell.startswith(" [markdown]")]
    blocks = [block for cell in cells for block in re.sub(r"^# ?", "", cell, flags=re.MULTILINE).split("\n\n")]
    found = [block for block in blocks if f"{DRAWN}{name}.py)" in block]
    if len(found) != 1:
        raise DufmError(f"figure {name} must have one caption, a paragraph that ends in {DRAWN}{name}.py)")
    return found[0].split(DRAWN)[0].removeprefix(" [markdown]").strip().strip("*").strip()


def gallery():
    """The page of all figures by part, each with its caption, its notebook and its files."""
    lines = ["# All figures", "Each picture is drawn by a script from a table of numbers. Both stand below it."]
    titles = {folder: entry["title"] for folder, entry, _ in pages.by_part()}
    part = None
    for name in sorted(path.stem for path in (files.root() / "figures").glob("[0-9]*.json")):
        path = files.source_path(files.find(name)).relative_to(files.root())
        if path.parent.name != part:
            part = path.parent.name
            lines.append(f"## {titles[part]}")
        kinds = " · ".join(f"{{download}}`{kind} <figures/{name}.{kind}>`" for kind in ("pdf", "csv", "py"))
        words = LINK.sub(rf"](notebooks/{part}/\1)", caption(name))
        lines += [
            f"({name})=",
            f"{_picture(name, '')}\n\n{words}",
            f"{{.dufm-links}}\n[{name[:2]} {title(path.stem)}]({path.with_suffix('.ipynb').as_posix()}) · {kinds}",
        ]
    return {"gallery.md": "\n\n".join(lines) + "\n"}


def rooms():
    """``(names, purpose)`` for each row of the table of rooms in the docstring of the package."""
    table = re.findall(r"^    (\S.*?)  +(\S.*)$", dufm.__doc__, re.MULTILINE)
    return [(names.split(", "), purpose) for names, purpose in table]


def home(name):
    """Where a public name is documented: in the room that shows it."""
    for room in (importlib.import_module(f"dufm.{room}") for names, _ in rooms() for room in names):
        if name in room.__all__ and getattr(room, name) is getattr(dufm, name):
            return f"{room.__name__}.{name}"
    return f"dufm.{name}"


def api_pages():
    """The index of the public names, and a page for each room of the science and of the companion."""
    science = [name for names, _ in rooms() for name in names]
    companion = sorted(path.stem for path in (files.root() / "dufm" / "companion").glob("[a-z]*.py"))
    full = [*(f"dufm.{name}" for name in science), *(f"dufm.companion.{name}" for name in companion)]
    made = {f"api/{name}.rst": _room(name) for name in full}
    made["api/index.rst"] = API.format(
        names="\n   ".join(f"~{home(name)}" for name in sorted(dufm.__all__, key=str.lower)),
        rooms=_rows((", ".join(f":doc:`{name} <dufm.{name}>`" for name in names), text) for names, text in rooms()),
        companion=_rows((f":doc:`{name} <dufm.companion.{name}>`", _purpose(name)) for name in companion),
        toctree="\n   ".join(f"{name.removeprefix('dufm.')} <{name}>" for name in full),
    )
    return made


def _rows(pairs):
    return "\n".join(f"   * - {left}\n     - {right}" for left, right in pairs)


def _purpose(name):
    return importlib.import_module(f"dufm.companion.{name}").__doc__.split("\n\n")[0].replace("\n", " ")


def _room(name):
    return f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n"


if __name__ == "__main__":
    assemble(*sys.argv[1:])
