"""One-vs-rest margin of softmax codes against K: the simplex, the plateau at 1, and the fall, a line a dimension."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=7.0, height=3.4)
    dims, last = np.unique(data["dimension"]), data["num_classes"].max()
    K = np.arange(3, last + 1)
    theory = {"color": "black", "linestyle": "--", "linewidth": 0.8, "zorder": 4}
    ax.plot(K, K / (K - 1), **theory)
    ax.plot([4, last], [1, 1], **theory)
    ax.plot(K[1:], 1 - np.cos(2 * np.pi / K[1:]), **theory)
    height = -np.inf
    for d in dims:
        here = data["dimension"] == d
        x, y, proved = (data[key][here] for key in ("num_classes", "margin", "proved"))
        shade = str(0.15 + 0.5 * (d - dims[0]) / max(np.ptp(dims), 1))
        own, ringed = x >= d + 1, proved.astype(bool)  # further left all dimensions share the simplex
        ax.plot(x[own], y[own], "-o", color=figures.PALETTE["polygon"] if d == 2 else shade, markersize=3.2)
        ring = {"markerfacecolor": "none", "markeredgecolor": figures.PALETTE["cube"], "markeredgewidth": 1.1}
        ax.plot(x[ringed], y[ringed], "o", markersize=8, **ring)
        height = max(y[-1], height + 0.07)
        ax.annotate(f"$d={d}$", (last, height), (8, 0), textcoords="offset points", va="center", annotation_clip=False)
    x = 0.55 * last
    ax.text(x, x / (x - 1) + 0.02, "simplex: $K/(K-1)$, for $K\\leq d+1$", fontsize=8)
    ax.text(last, 0.985, "exactly 1, for $d+2\\leq K\\leq 2d$", fontsize=7.5, ha="right", va="top")
    ax.text(0.25 * last, 0.15, r"polygon: $1-\cos(2\pi/K)$", fontsize=8)
    ax.set(xlabel="number of classes $K$", ylabel="one-vs-rest margin of the best code", xticks=K[::2], ylim=(0, None))
    ax.set_title("rings: optimal in the literature", fontsize=8, loc="left", color=figures.PALETTE["cube"])
    return fig
