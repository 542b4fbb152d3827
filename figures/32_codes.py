"""One-vs-rest margin of softmax codes against K: the simplex, the plateau at 1, and the fall, a line a dimension."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=7.0, height=3.3)
    dims = np.unique(data["dimension"])
    last = data["num_classes"].max()
    K = np.arange(3, last + 1)
    theory = {"color": "black", "linestyle": "--", "linewidth": 0.8}
    ax.plot(K, K / (K - 1), **theory)
    ax.plot([4, last], [1, 1], **theory)
    ax.plot(K[1:], 1 - np.cos(2 * np.pi / K[1:]), zorder=4, **theory)
    for d in dims:
        here = data["dimension"] == d
        x, y, proved = (data[key][here] for key in ("num_classes", "margin", "proved"))
        shade = str(0.15 + 0.5 * (d - dims[0]) / max(np.ptp(dims), 1))
        own = x >= d + 1  # further left all dimensions share the simplex
        ax.plot(x[own], y[own], "-o", color=figures.PALETTE["polygon"] if d == 2 else shade, markersize=3.2, linewidth=1.2)
        ringed = proved.astype(bool)
        ax.plot(x[ringed], y[ringed], "o", markersize=8, markerfacecolor="none", markeredgecolor=figures.PALETTE["nc"], markeredgewidth=1.1)
        ax.annotate(f"$d={d}$", (x[-1], y[-1]), xytext=(6, 0), textcoords="offset points", va="center")
    return fig
