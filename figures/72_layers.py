"""Effective rank of the class means after every layer, a line a depth, for the narrowest and the widest networks."""

import numpy as np

from dufm import figures


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.9, sharey=True)
    for ax, width in zip(axes, np.unique(data["width"])[[0, -1]], strict=True):
        ax.axhline(9, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
        ax.annotate("neural collapse", (0, 9), xytext=(0, 3), textcoords="offset points", fontsize=8)
        for depth in np.unique(data["depth"]):
            here = (data["width"] == width) & (data["depth"] == depth)
            layer, mean, low, high = (data[name][here] for name in ("layer", "mean", "low", "high"))
            style = figures.depth_style(depth)
            ax.fill_between(layer, low, high, color=style["color"], alpha=0.2, linewidth=0)
            ax.plot(layer, mean, label=f"$L={depth}$", **style)
        ax.set_xticks(range(int(data["layer"].max()) + 1))
        ax.set_ylim(1, 9.6)
        ax.set_yticks(range(1, 10))
        ax.set_xlabel("layer (0: the images; last: the logits)")
        ax.set_title(f"width {width}")
    axes[0].legend(loc="lower left", title="depth", title_fontsize=8, handlelength=3.2)
    axes[0].set_ylabel("effective rank of the class means")
    return fig
