"""Rate of the logits over that at the start, against their size over s_lazy: one curve a depth."""

import numpy as np
from matplotlib.lines import Line2D

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=7.0, height=3.2)
    widths = np.unique(data["width"])
    for L in np.unique(data["depth"]):
        style = figures.depth_style(L)
        of = data["depth"] == L
        for d in widths:
            here = of & (data["width"] == d)
            face = style["color"] if d == widths[-1] else "white"
            ax.plot(
                data["ratio"][here], data["growth"][here], style["marker"], color=style["color"], markerfacecolor=face
            )
        # The law has one curve a depth but for L = 2, where the width stands in it.
        for rows in [of & (data["width"] == d) for d in widths] if L == 2 else [of]:
            order = np.argsort(data["ratio"][rows])
            ax.plot(data["ratio"][rows][order], data["law"][rows][order], "k--", linewidth=0.8, zorder=3)
        last = np.argmax(np.where(of, data["ratio"] + data["growth"], 0))
        ax.annotate(
            f"$L = {L}$",
            (1.04, data["growth"][last]),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            color=style["color"],
        )
    ax.set(xscale="log", yscale="log")
    ax.set_xlim(right=1.35)
    ax.set_xticks([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1], ["1/16", "1/8", "1/4", "1/2", "1"])
    ax.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set(
        xlabel=r"size of the logits, $s\,/\,s_\mathrm{lazy}$",
        ylabel=r"rate over that at the start, $\kappa\,/\,\kappa_0$",
    )
    mark = {"color": "0.3", "linestyle": "", "marker": "o"}
    keys = [
        Line2D(
            [],
            [],
            **mark,
            markerfacecolor="0.3" if d == widths[-1] else "white",
            label=f"$d = {d}$, a mark for each $\\sigma$",
        )
        for d in widths[::-1]
    ]
    keys.append(Line2D([], [], color="black", linestyle="--", linewidth=0.8, label="closed form, $L = 2$ and 3"))
    ax.legend(handles=keys, loc="upper left")
    return fig
