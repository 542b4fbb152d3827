"""Figures: one style, the numbers kept beside the picture, files that are the same byte for byte.

A notebook stores a tidy table and shows the figure; the drawing stands in a script, ``figures/NN_name.py``, whose
function ``draw(data)`` gets the columns of that table and returns the figure::

    figures.store("24_margin", {"depth": depths, "margin": margins})
    figures.show("24_margin", alt="Margin against depth: it falls from 1 to 0.2.")
"""

import base64
import contextlib
import importlib.util
import io
import re
from html import escape
from typing import Any

import matplotlib
import numpy as np
import pandas
from matplotlib.figure import Figure
from PIL import Image

from dufm._error import DufmError
from dufm.companion import files
from dufm.companion.versions import versions

__all__ = [
    "LINESTYLE",
    "MARKER",
    "PALETTE",
    "depth_color",
    "depth_style",
    "draw",
    "kind_of",
    "origin",
    "published",
    "show",
    "store",
    "stored",
    "subplots",
]

#: Hues that colour-blind readers tell apart, with a different lightness each for print in grey.
PALETTE = {
    "nc": "#004488",
    "polygon": "#e69f00",
    "orthoplex": "#009e73",
    "cube": "#aa3377",
    "other": "#b0b0b0",
    "theory": "#000000",
}
#: Dashes of the same things.
LINESTYLE = {
    "nc": "-",
    "polygon": "-.",
    "orthoplex": (0, (5, 1)),
    "cube": ":",
    "other": (0, (3, 1, 1, 1)),
    "theory": "--",
}
#: Marks of the same things.
MARKER = {"nc": "o", "polygon": "^", "orthoplex": "s", "cube": "D", "other": "x", "theory": ""}
DEPTH_MARKER = "osD^vP*Xp<>h"
DEPTH_LINESTYLE = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (7, 1, 1, 1, 1, 1)))

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 4,
    "image.cmap": "cividis",
    "pdf.fonttype": 42,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "dufm",
}
FILE_DPI, PAGE_DPI, PAGE_COLORS = 200, 120, 192


def subplots(nrows=1, ncols=1, *, width=7.0, height=None, **kwargs):
    """Figure and axes in the project's style: ``width`` 7.0 in (two columns) or 3.4 in (one)."""
    if width not in (3.4, 7.0):
        raise DufmError(f"width must be 3.4 (one column) or 7.0 (two columns) inches, got {width}")
    height = height or (2.6 if width == 3.4 else 2.8) * nrows
    fig = Figure(figsize=(width, height), layout="constrained")  # no pyplot: nothing is drawn twice in a notebook
    return fig, fig.subplots(nrows, ncols, **kwargs)


def depth_color(depth):
    """Colour of a depth L on the sequential map (cividis), L = 2 dark, L = 16 and beyond light."""
    if depth < 2:
        raise DufmError(f"depth must be at least 2, got {depth}")
    return matplotlib.colormaps["cividis"](min(np.log2(depth / 2) / 3, 1.0) * 0.9)


def depth_style(depth):
    """Colour, marker and dash of a depth L, as keywords of ``plot``: neighbours differ in grey, too."""
    place = min(round(depth), 20) - 2
    return {
        "color": depth_color(depth),
        "marker": DEPTH_MARKER[place % len(DEPTH_MARKER)],
        "linestyle": DEPTH_LINESTYLE[place % len(DEPTH_LINESTYLE)],
    }


def kind_of(name, num_classes):
    """Key of ``PALETTE`` for the name of a solution; the square of four classes, an orthoplex too, is a polygon."""
    if (name, num_classes) == ("orthoplex", 4):
        return "polygon"
    return {"NC": "nc"}.get(name, name if name in PALETTE else "other")


def _check_name(name):
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
        raise DufmError(f"name must be the notebook's number and a word, such as 24_margin; got {name!r}")


def store(name, table):
    """Write the table of figure ``name`` as CSV: a DataFrame or a dict of columns of one length, numbers or texts."""
    _check_name(name)
    try:
        frame = pandas.DataFrame(table)
    except ValueError as error:
        raise DufmError(f"table must hold columns of one length: {error}") from None
    kinds = {key: column.dtype.kind for key, column in frame.items()}
    text = pandas.api.types.is_string_dtype
    if frame.empty or not all(kind in "bifu" or text(frame[key]) for key, kind in kinds.items()):
        raise DufmError(f"table must hold at least one row of numbers and texts, got columns {kinds}")
    for key, kind in kinds.items():
        if kind in "bf":
            frame[key] = frame[key].astype(int) if kind == "b" else frame[key] + 0.0  # no negative zero
    text = frame.to_csv(index=False, float_format="%.8g", na_rep="nan", lineterminator="\n")
    files.write_atomic(_folder() / f"{name}.csv", text)


def _folder():
    return files.spared(files.out_dir() / "figures")


def _data(name):
    """Path of a figure's numbers: this output folder's, else the published, which a refresh does not take."""
    folders = [_folder(), *([] if files.refreshing() else [files.root() / "figures"])]
    for folder in folders:
        if (folder / f"{name}.csv").is_file():
            return folder / f"{name}.csv"
    raise DufmError(f"no numbers for figure {name!r} in {' or '.join(map(str, folders))}; run its notebook first")


def stored(name):
    """The columns of figure ``name``: a dict of arrays, numbers where a whole column is numbers."""
    _check_name(name)
    path = _data(name)
    try:
        table = pandas.read_csv(path, keep_default_na=False, na_values=["nan"])
    except (OSError, ValueError, OverflowError) as error:
        raise DufmError(f"{path} is no table: {str(error).strip()}") from None
    return {key: column.to_numpy() for key, column in table.items()}


def _script(name):
    path = files.root() / "figures" / f"{name}.py"
    if not path.is_file():
        raise DufmError(f"figure {name!r} has no script figures/{name}.py")
    return path


def draw(name, data):
    """The figure that ``figures/NN_name.py`` draws of the columns ``data``, in the project's style."""
    spec: Any = importlib.util.spec_from_file_location(f"figure_{name}", _script(name))
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.draw(data)


@contextlib.contextmanager
def style():
    """The project's style and nothing of the user's matplotlibrc, until the end of the block."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def show(name, *, alt):
    """Draw figure ``name`` from its stored table, write .pdf, .png and .json (where it comes from), and show it.

    ``alt`` says in words what the picture shows, for a reader who cannot see it.
    """
    if not isinstance(alt, str) or not alt.strip():
        raise DufmError(f"alt must say in words what figure {name} shows, got {alt!r}")
    alt, run = " ".join(alt.split()), files.running()
    about = {"notebook": files.find(name), "parameters": run.parameters if run else None}
    _display(write(name, {**about, "alt": alt}), name, alt)


def write(name, about):
    """Draw figure ``name`` into the output folder with its provenance; returns the picture for a page, PNG bytes."""
    data, folder = _data(name), _folder()
    with style():
        fig = draw(name, stored(name))
        made = {kind: _bytes(fig, kind, FILE_DPI) for kind in ("pdf", "png")}
        page = _small(_bytes(fig, "png", PAGE_DPI))
    if data.parent != folder:
        files.write_atomic(folder / data.name, data.read_bytes())
    for kind, content in made.items():
        files.write_atomic(folder / f"{name}.{kind}", content)
    made_of = {"figure": name, "script": files.digest(_script(name)), "data": files.digest(data)}
    files.write_json(folder / f"{name}.json", {**about, **made_of, "versions": versions()})
    return page


def _bytes(fig, kind, dpi):
    buffer = io.BytesIO()
    stamp = {"CreationDate": None, "ModDate": None} if kind == "pdf" else {"Software": None}
    fig.savefig(buffer, format=kind, dpi=dpi, metadata=stamp)  # no times: the same bytes every time
    return buffer.getvalue()


def _small(png):
    """The picture with few colours: a third of the size in a committed notebook."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(PAGE_COLORS).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def origin(name):
    """Where the numbers of figure ``name`` come from: alt text, notebook and parameters, from the file beside them.

    ``DufmError`` if that file is damaged, or describes other numbers.
    """
    _check_name(name)
    data = _data(name)
    about = _about(data.with_suffix(".json"))
    if about["data"] != files.digest(data):
        raise DufmError(f"{data} is not the table that {name}.json describes; run its notebook again")
    return {key: about[key] for key in ("alt", "notebook", "parameters")}


def _about(path):
    about = files.read_json(path)
    if missing := sorted({"alt", "data", "notebook", "parameters"} - set(about)):
        raise DufmError(f"{path} is damaged: it lacks {', '.join(missing)}")
    return about


def published(name):
    """Show the committed picture of figure ``name``, as a notebook does on its first screen."""
    _check_name(name)
    path = files.root() / "figures" / f"{name}.json"
    if not path.is_file():
        _display(b"", name, f"figure {name} has not been published yet")
        return
    about, buffer = _about(path), io.BytesIO()
    try:
        with Image.open(path.with_suffix(".png")) as picture:
            size = [round(side * PAGE_DPI / FILE_DPI) for side in picture.size]
            picture.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(buffer, "PNG")
    except (OSError, SyntaxError, ValueError) as error:  # SyntaxError: what Pillow says of a broken PNG
        raise DufmError(f"{path.with_suffix('.png')} is no picture: {error}") from None
    _display(_small(buffer.getvalue()), name, about["alt"])


def bundle(png, alt):
    """What a notebook shows for a picture: the alt text reaches the page in HTML, GitHub shows the PNG."""
    code = base64.b64encode(png).decode()
    return {
        "image/png": code,
        "text/html": f'<img alt="{escape(alt)}" style="max-width: 100%" src="data:image/png;base64,{code}">',
        "text/plain": alt,
    }


def _display(png, name, alt):
    if files.shell() is not None:
        from IPython.display import display

        display(bundle(png, alt), raw=True, metadata={"dufm_figure": name})
