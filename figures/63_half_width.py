"""Half-width against scale with the power laws through the cheap ladders, and measured over predicted elsewhere."""

import numpy as np
from matplotlib.lines import Line2D

from dufm import figures


def draw(data):
    fig, (left, right) = figures.subplots(1, 2, width=7.0, height=3.1)
    fitted = data["fitted"] == "fitted"
    for L in np.unique(data["depth"]):
        style = figures.depth_style(L)
        of = (data["num_classes"] == 4) & (data["depth"] == L)
        for rows, face in ((of & fitted, style["color"]), (of & ~fitted, "white")):
            _bars(left, data, rows, "scale", "half_width", 1.0, style, face)
        order = np.argsort(data["scale"][of])
        left.plot(
            data["scale"][of][order],
            data["predicted"][of][order],
            color="black",
            linestyle="--",
            linewidth=0.8,
            zorder=1,
        )
        first = np.argmin(np.where(of, data["scale"], np.inf))
        left.annotate(
            f"$L = {L}$",
            (data["scale"][first], data["high"][first]),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=style["color"],
        )
        for rows, face in ((of & ~fitted, "white"), ((data["depth"] == L) & (data["num_classes"] > 4), style["color"])):
            _bars(right, data, rows, "half_width", "ratio", data["predicted"], style, face)
    right.axhline(1, color="black", linestyle="--", linewidth=0.8, zorder=1)
    left.set(xscale="log", yscale="log", xlabel=r"initial scale $\sigma$", ylabel="half-width $d_{1/2}$")
    left.set_xticks([0.025, 0.05, 0.1, 0.2, 0.5, 1], ["0.025", "0.05", "0.1", "0.2", "0.5", "1"])
    left.set(xlim=(0.019, 1.25), ylim=(3.2, 280))
    left.set_yticks([5, 10, 20, 50, 100, 200], [5, 10, 20, 50, 100, 200])
    right.set(xscale="log", yscale="log", xlabel="half-width $d_{1/2}$", ylabel="measured over predicted half-width")
    right.set_xticks([10, 20, 50, 100], [10, 20, 50, 100])
    right.set_yticks([0.6, 0.8, 1, 1.5, 2], ["0.6", "0.8", "1", "1.5", "2"])
    for ax in (left, right):
        ax.minorticks_off()
    left.set_title("four classes", fontsize=9)
    right.set_title("where the formula was not fitted", fontsize=9)
    mark = {"color": "0.3", "marker": "o", "linestyle": ""}
    keys = [
        Line2D([], [], **mark, label="fitted"),
        Line2D([], [], **mark, markerfacecolor="white", label="not fitted"),
        Line2D([], [], color="black", linestyle="--", linewidth=0.8, label=r"$a_L\,\sigma^{-e_L}$, fitted"),
    ]
    left.legend(handles=keys, loc="lower left")
    keys = [
        Line2D([], [], linestyle="", **_pick(figures.depth_style(L)), label=f"$L = {L}$")
        for L in np.unique(data["depth"])
    ]
    keys.append(Line2D([], [], **mark, markerfacecolor="white", label="four classes,\nsmaller scales"))
    keys.append(Line2D([], [], **mark, label="five to ten classes"))
    right.legend(handles=keys, loc="upper left")
    return fig


def _pick(style):
    return {name: style[name] for name in ("color", "marker")}


def _bars(ax, data, rows, x, y, unit, style, face):
    """Marks with 95% intervals of the half-width in units of ``unit``."""
    unit = np.broadcast_to(unit, len(rows))[rows]
    ends = np.array([data[y][rows] - data["low"][rows] / unit, data["high"][rows] / unit - data[y][rows]])
    ax.errorbar(data[x][rows], data[y][rows], ends, linestyle="", elinewidth=0.8, markerfacecolor=face, **_pick(style))
