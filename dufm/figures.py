"""Figures: one style, the numbers kept beside the picture, files that are the same byte for byte.

A notebook stores the numbers with ``store``; a cell tagged ``figure`` draws them, reading only ``load``::

    figures.store("03_margin", {"depth": depths, "margin": margins})

    from dufm import figures                                          # the cell tagged figure
    data = figures.load("03_margin")
    fig, ax = figures.subplots(width=3.4)
    ax.plot(data["depth"], data["margin"], color=figures.PALETTE["nc"])
    figures.save(fig, "03_margin", alt="Margin against depth: it falls from 1 to 0.2.")

Imported by name (``from dufm import figures``): ``import dufm`` does not load matplotlib.
"""

import contextlib
import csv
import io
import os
import re
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from dufm import _checkout
from dufm._checks import DufmError
from dufm.notebook import versions

__all__ = [
    "LINESTYLE",
    "MARKER",
    "PALETTE",
    "depth_color",
    "gallery",
    "load",
    "redraw",
    "save",
    "store",
    "subplots",
]

# Hues that colour-blind readers tell apart, with a different lightness each for print in grey.
PALETTE = {
    "nc": "#004488",
    "polygon": "#e69f00",
    "orthoplex": "#009e73",
    "cube": "#aa3377",
    "other": "#b0b0b0",
    "theory": "#000000",
}
LINESTYLE = {
    "nc": "-",
    "polygon": "-.",
    "orthoplex": (0, (5, 1)),
    "cube": ":",
    "other": (0, (3, 1, 1, 1)),
    "theory": "--",
}
MARKER = {"nc": "o", "polygon": "^", "orthoplex": "s", "cube": "D", "other": "x", "theory": ""}

STYLE = {
    "font.size": 9,
    "axes.labelsize": 9,
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


def subplots(nrows=1, ncols=1, *, width=7.0, height=None, **kwargs):
    """Figure and axes in the project's style: ``width`` 7.0 in (two columns) or 3.4 in (one)."""
    if width not in (3.4, 7.0):
        raise DufmError(f"width must be 3.4 (one column) or 7.0 (two columns) inches, got {width}")
    matplotlib.rcParams.update(STYLE)  # artists made after this call read it too
    height = height or (2.6 if width == 3.4 else 2.8) * nrows
    fig = Figure(figsize=(width, height), layout="constrained")  # no pyplot: nothing is drawn twice in a notebook
    return fig, fig.subplots(nrows, ncols, **kwargs)


def depth_color(depth):
    """Colour of a depth L on the sequential map (cividis), L = 2 dark, L = 16 and beyond light."""
    if depth < 2:
        raise DufmError(f"depth must be at least 2, got {depth}")
    return matplotlib.colormaps["cividis"](min(np.log2(depth / 2) / 3, 1.0) * 0.9)


def _check_name(name):
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", name):
        raise DufmError(f"name must be the notebook's number and a word, such as 03_margin; got {name!r}")


def store(name, columns):
    """Write the numbers of figure ``name`` as CSV: columns of equal length, of numbers or short texts."""
    _check_name(name)
    arrays = {key: np.atleast_1d(np.asarray(column)) for key, column in columns.items()}
    shapes = {key: array.shape for key, array in arrays.items()}
    if len(set(shapes.values())) != 1 or any(array.ndim != 1 or array.size == 0 for array in arrays.values()):
        raise DufmError(f"columns must be one-dimensional, of one length and not empty; got shapes {shapes}")
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(arrays)
    writer.writerows(zip(*(_cells(array) for array in arrays.values()), strict=True))
    _checkout.write_atomic(_checkout.out_dir() / "figures" / f"{name}.csv", buffer.getvalue())


def _cells(array):
    if array.dtype.kind == "f":
        return [f"{value + 0.0:.8g}" for value in array]
    return [str(int(value)) if array.dtype.kind == "b" else str(value) for value in array]


def _data(name):
    """Path of a figure's numbers: ``DUFM_FIGURE_DATA`` if set, else this output folder's, else the published."""
    folders = [_checkout.out_dir() / "figures", _checkout.published_figures()]
    if os.environ.get("DUFM_FIGURE_DATA"):
        folders = [Path(os.environ["DUFM_FIGURE_DATA"])]
    for folder in folders:
        if (folder / f"{name}.csv").is_file():
            return folder / f"{name}.csv"
    raise DufmError(f"no numbers for figure {name!r} in {' or '.join(map(str, folders))}; run its notebook first")


def load(name):
    """The numbers of figure ``name``: a dict of arrays, numbers where a whole column is numbers."""
    _check_name(name)
    with open(_data(name), encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    return {key: _column(column) for key, column in zip(header, zip(*rows, strict=True), strict=True)}


def _column(texts):
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return np.array([kind(text) for text in texts])
    return np.array(texts)


def save(fig, name, *, alt):
    """Write ``name``.pdf, .png and .json (where it comes from) and show the picture in the notebook.

    ``alt`` says in words what the picture shows, for a reader who cannot see it. The numbers must have been
    stored under the same name; they are put beside the picture.
    """
    _check_name(name)
    if not isinstance(alt, str) or not alt.strip():
        raise DufmError(f"alt must say in words what figure {name} shows, got {alt!r}")
    data, folder = _data(name), _checkout.out_dir() / "figures"
    if data.parent != folder:
        _checkout.write_atomic(folder / data.name, data.read_bytes())
    for kind, stamp in (("pdf", {"CreationDate": None, "ModDate": None}), ("png", {"Software": None})):
        buffer = io.BytesIO()
        fig.savefig(buffer, format=kind, dpi=200, metadata=stamp)  # no times: the same bytes every time
        _checkout.write_atomic(folder / f"{name}.{kind}", buffer.getvalue())
    _checkout.write_json(folder / f"{name}.json", _provenance(name, data, alt.strip()))
    _show(buffer.getvalue(), alt.strip(), width=round(fig.get_figwidth() * 100))


def _provenance(name, data, alt):
    run = _checkout.running
    return {
        "figure": name,
        "alt": alt,
        "notebook": run.name if run else None,
        "parameters": run.parameters if run else None,
        "source": _checkout.digest(_checkout.source_path(run.name)) if run else None,
        "data": _checkout.digest(data),
        "versions": versions(),
    }


def _show(png, alt, width):
    with contextlib.suppress(ImportError):
        from IPython import get_ipython
        from IPython.display import Image, display

        if get_ipython() is not None:
            display(Image(data=png, format="png", width=width, alt=alt))


def gallery():
    """All published figures as Markdown, with links relative to the notebooks folder."""
    lines = []
    for path in sorted(_checkout.published_figures().glob("*.json")):
        about = _checkout.read_json(path, None)
        if not about:
            continue
        lines.append(
            f"![{about['alt']}](../figures/{path.stem}.png)\n\n**{path.stem}**. {about['alt']} "
            f"([notebook]({about['notebook']}.ipynb), [numbers](../figures/{path.stem}.csv))"
        )
    return "\n\n".join(lines)


def redraw(name):
    """Run the cells tagged ``figure`` of a notebook, on saved numbers; returns how many there were.

    The provenance keeps the parameters with which those numbers were computed.
    """
    text = _checkout.source_path(name).read_text(encoding="utf-8")
    cells = [
        cell
        for cell in re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
        if re.match(r'# %%.*tags=\[[^\]]*"figure"', cell)
    ]
    for cell in cells:
        figure = re.search(r"""figures\.save\(\s*\w+,\s*["']([^"']+)["']""", cell)
        if not figure:
            raise DufmError(f'{name}: a cell tagged figure must call figures.save(fig, "NN_name", alt=...)')
        about = _checkout.read_json(_data(figure[1]).with_suffix(".json"), {})
        _checkout.running = _checkout.Run(name, about.get("parameters"), published=False)
        exec(compile(cell, f"{name}: figure {figure[1]}", "exec"), {"__name__": "__main__"})
    return len(cells)
