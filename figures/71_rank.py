"""Effective rank of what networks have learned against depth, a line a width, for flow and minibatches."""

import matplotlib
import numpy as np

from dufm import figures

TITLES = {"flow": "full-batch gradient flow", "minibatch": "minibatch descent"}


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.7, sharey=True)
    widths = np.unique(data["width"])
    for ax, (training, title) in zip(axes, TITLES.items(), strict=True):
        ax.axhline(9, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
        ax.annotate("neural collapse", (data["depth"].min(), 9), xytext=(0, 3), textcoords="offset points", fontsize=8)
        for i, width in enumerate(widths):
            here = (data["training"] == training) & (data["width"] == width)
            depth, mean, low, high = (data[name][here] for name in ("depth", "mean", "low", "high"))
            color = matplotlib.colormaps["magma"](0.65 - 0.5 * i / max(len(widths) - 1, 1))
            ax.fill_between(depth, low, high, color=color, alpha=0.2, linewidth=0)
            ax.plot(depth, mean, marker="os^Dv"[i % 5], color=color)
            at = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": color}
            ax.annotate(f"width {width}", (depth[-1], mean[-1]), **at)
        ax.set_xticks(np.unique(data["depth"]))
        ax.set_xlim(data["depth"].min() - 0.3, data["depth"].max() * 1.28)
        ax.set_ylim(1, 9.6)
        ax.set_yticks(range(1, 10))
        ax.set_xlabel("depth $L$ (weight matrices)")
        ax.set_title(title)
    axes[0].set_ylabel("effective rank of the class means")
    return fig
