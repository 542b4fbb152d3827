"""Depth from which rank 2 is best against the number of classes: proved, and found by searches."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.7)
    proved, found = (data["what"] == what for what in ("proved", "found"))
    K, L = data["num_classes"], data["depth"]
    ax.plot(K[proved], L[proved], color="black", linestyle="--", linewidth=0.9)
    ax.plot(K[found], L[found], figures.MARKER["polygon"], color=figures.PALETTE["polygon"], markersize=5)
    middle = np.median(K[proved])
    ax.annotate("proved: above it\nrank 2 is best", (middle, np.interp(middle, K[proved], L[proved])), xytext=(-14, 6),
                textcoords="offset points", fontsize=8, ha="right", va="center")
    ax.annotate("found by searches", (K[found].max(), L[found].max()), xytext=(7, 0), textcoords="offset points",
                color="#a86e00", fontsize=8, va="center")
    ticks = [k for k in (4, 6, 8, 10, 16, 24, 32, 64, 128, 256) if k <= K.max()]
    ax.set(xscale="log", xlabel="number of classes $K$", ylabel="depth $L$", ylim=(0, None))
    ax.set_xticks(ticks, ticks)
    ax.set_xticks([], minor=True)
    return fig
