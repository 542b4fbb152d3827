"""Part of the logits off the Hadamard diagonal while networks leave the cube, a line a depth, and slopes 1/L."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.8)
    for L in np.unique(data["depth"]):
        here = data["depth"] == L
        x, y = data["neg_log_loss"][here], data["off"][here]
        ax.plot(x, y, **{**figures.depth_style(L), "linestyle": "none"})
        late = x >= 8
        law = y[-1] * (x[late] / x[-1]) ** (1 / L)
        ax.plot(x[late], law, color="black", linestyle="--", linewidth=0.8)
        ax.annotate(f"$L = {L}$", (x[-1], y[-1]), xytext=(6, -3), textcoords="offset points", fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel=r"$-\log\mathcal{L}$", ylabel="off the diagonal")
    ax.set_xlim(1.5, 7 * x[-1])
    ax.annotate("slope $1/L$", (0.05, 0.92), xycoords="axes fraction", fontsize=8)
    ax.plot([0.31, 0.4], [0.94, 0.94], "k--", linewidth=0.8, transform=ax.transAxes)
    return fig
