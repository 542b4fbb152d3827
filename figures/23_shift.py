"""Share of the common shift in the flow's own logits against log time, a line a depth, with the slope of the law."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.6)
    for L in np.unique(data["depth"]):
        here = data["depth"] == L
        x, y = data["log_time"][here], data["share"][here]
        ax.plot(x, y, **figures.depth_style(L) | {"linestyle": ""})
        ax.plot(x, y[-1] * (x / x[-1]) ** (-1 / L), color="black", linestyle="--", linewidth=0.8)
        ax.annotate(f"$L={L}$", (x[-1], y[-1]), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    ax.plot([], [], color="black", linestyle="--", linewidth=0.8, label=r"slope $-1/L$")
    ax.legend(loc="lower left")
    ax.set(xscale="log", yscale="log", xlim=(None, 12 * x[-1]), xlabel=r"$\log t$", ylabel="share of the common shift")
    return fig
