"""Gap between the learned class code and the softmax code as training goes on, a line a depth."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.6)
    shown = []
    for depth in np.unique(data["depth"]):
        here = data["depth"] == depth
        order = np.argsort(-data["log_loss"][here])
        x, low, gap, high = (data[name][here][order] for name in ("log_loss", "low", "gap", "high"))
        style = figures.depth_style(depth)
        ax.fill_between(-x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        ax.plot(-x, gap, **style)
        shown.append([gap[-1], f"$L={depth}$", style["color"], -x[-1]])
    height = 0.0
    for gap, text, color, x in sorted(shown):
        height = max(gap, height)
        ax.annotate(text, (x, height), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, color=color)
        height += 0.055
    stages = np.unique(-data["log_loss"])
    ax.set_xscale("log")
    ax.set_xticks(stages, [f"{stage:.0f}" for stage in stages])
    ax.minorticks_off()
    ax.set_xlim(stages[0] / 1.1, stages[-1] * 1.6)
    ax.set_ylim(0, 0.6 if data["high"].max() < 0.6 else 1)
    ax.set_xlabel(r"$-\log\mathcal{L}$ at the end of training")
    ax.set_ylabel("gap to the softmax code")
    return fig
