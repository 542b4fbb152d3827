"""Gap between the learned class code and the softmax code of its rank, against rank, beside that of random codes."""

import matplotlib
import numpy as np

from dufm import figures

POINTS = {"textcoords": "offset points", "fontsize": 8}


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.8)
    chance = data["code"] == "random"
    rank, low, gap, high = (data[name][chance] for name in ("rank", "low", "gap", "high"))
    ax.fill_between(rank, low, high, color=figures.PALETTE["other"], alpha=0.35, linewidth=0)
    ax.plot(rank, gap, color="0.4", linewidth=0.8)
    words = {"ha": "right", "fontsize": 8, "color": "0.3"}
    ax.text(9.1, 0.78, "random codes: median and\n5% to 95% quantiles", **words)
    codes = list(dict.fromkeys(data["code"][~chance]))
    for i, code in enumerate(codes):
        here = data["code"] == code
        order = np.argsort(data["depth"][here])
        depth, rank, low, gap, high = (data[name][here][order] for name in ("depth", "rank", "low", "gap", "high"))
        color = matplotlib.colormaps["magma"](0.65 - 0.5 * i / max(len(codes) - 1, 1))
        ax.vlines(rank, low, high, color=color, linewidth=1)
        ax.plot(rank, gap, marker="os^Dv"[i % 5], color=color, linewidth=0.8, label=code)
        if i == 0:
            ax.annotate(f"$L={depth[-1]:.0f}$", (rank[-1], gap[-1]), xytext=(-7, 0), **POINTS, ha="right", va="center")
    ax.legend(loc="lower left")
    ax.annotate(f"$L={depth[0]:.0f}$", (rank[0], gap[0]), xytext=(7, 0), **POINTS, va="center")
    ax.set_xlim(np.floor(data["rank"][~chance].min()) - 1.3, 9.3)
    ax.set_ylim(0, 1)
    ax.set_xlabel("effective rank of the class means")
    ax.set_ylabel("gap to the softmax code")
    return fig
