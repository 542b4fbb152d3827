"""Height of the end against the efficiency of the start, from the same logits: one line a way away from balance."""

import numpy as np
from matplotlib.lines import Line2D

from dufm import figures

LOOKS = {"wide": ("#332288", "o", "-"), "skewed": ("#cc6677", "s", "--"), "scaled": ("#117733", "^", ":")}


def draw(data):
    fresh = data["first"] > 500
    at_balance = data["excess"] == 0
    narrow = data["width"] == data["num_classes"]
    panels = {"$d = K$": fresh & narrow}
    for d in np.unique(data["width"][fresh & ~narrow]):
        panels[f"$d = {d}$"] = fresh & (data["width"] == d) & ~narrow
    fig, axes = figures.subplots(1, len(panels), width=7.0, height=2.5, sharex=True, sharey=True, squeeze=False)
    for ax, (title, rows) in zip(axes[0], panels.items(), strict=True):
        for kind, (color, marker, dash) in LOOKS.items():
            away = np.unique(data["excess"][rows & (data["kind"] == kind) & ~at_balance])
            same = [rows & at_balance, *(rows & (data["kind"] == kind) & (data["excess"] == x) for x in away)]
            x, y, half = np.transpose([point(data, these) for these in same])
            ax.plot(np.exp(x - x[0]), y, linestyle=dash, color=color)
            ax.errorbar(np.exp(x - x[0])[1:], y[1:], half[1:], fmt=marker, color=color, elinewidth=0.8)
        ax.errorbar(1, y[0], half[0], fmt="D", color="black", elinewidth=0.8)
        ax.set(xscale="log", xlabel="relative efficiency", ylim=(0, 0.95))
        ax.set_title(title)
    looks = {**LOOKS, "balanced": ("black", "D", "")}
    key = [Line2D([], [], color=c, marker=m, linestyle=dash, label=kind) for kind, (c, m, dash) in looks.items()]
    axes[0][0].legend(handles=key, loc="upper right", borderaxespad=0, handlelength=2.6)
    axes[0][0].set_ylabel("height of the end")
    return fig


def point(data, rows):
    """Mean log efficiency, mean height and half of its 95% interval."""
    rank = data["rank"][rows]
    height = np.where(rank > 0, (rank - 2) / (data["num_classes"][rows] - 3), 0.5)
    return data["log_efficiency"][rows].mean(), height.mean(), 1.96 * height.std(ddof=1) / len(height) ** 0.5
