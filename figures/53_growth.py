"""Growth of a small deviation from equal singular values against their mean, one panel for each K, a line a depth."""

import numpy as np
from matplotlib.lines import Line2D

import dufm
from dufm import figures


def draw(data):
    classes, depths = np.unique(data["num_classes"]), np.unique(data["depth"])
    fig, axes = figures.subplots(1, len(classes), width=7.0, height=2.9, sharey=True, squeeze=False)
    for ax, K in zip(axes[0], classes, strict=True):
        for L in depths:
            here = (data["num_classes"] == K) & (data["depth"] == L)
            x, y, law = (data[name][here] for name in ("s", "growth", "law"))
            look = {**figures.depth_style(L), "linestyle": ""}
            ax.plot(x[::2], y[::2], markersize=3.2, **look)
            ax.plot(x, law, color="black", linestyle="--", linewidth=0.8)
            star = dufm.turning_point(int(K), int(L))
            if star > x[0]:
                ax.plot(star, 1.12 * np.interp(star, x, law), "v", markersize=5, color="black", zorder=4)
            label = f"$L = {L}$" if L == depths[-1] else f"${L}$"
            ax.annotate(label, (x[-1], y[-1]), xytext=(4, 0), textcoords="offset points", fontsize=7, va="center")
        ax.set(xscale="log", yscale="log", xlim=(0.08, 9 * K))
        ax.set_title(f"$K = {K}$")
    axes[0][0].set_ylabel(r"growth $\delta(s)/\delta(s_0)$")
    fig.supxlabel(r"mean singular value $\bar s$", fontsize=9)
    key = [
        Line2D([], [], color="0.4", marker="o", linestyle="", markersize=3.2),
        Line2D([], [], color="black", linestyle="--", linewidth=0.8),
        Line2D([], [], color="black", marker="v", linestyle="", markersize=5),
    ]
    words = ["flow (one shape a depth $L$)", "law", "turn of small deviations, $s^* = K(1 - 2/L)$"]
    fig.legend(key, words, loc="outside upper center", ncols=3)
    return fig
