"""Largest relative change of an imbalance against minus log loss, a line for each tolerance of the integrator."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.6)
    tolerances = np.unique(data["rtol"])[::-1]
    looks = (("#882255", "-"), ("#cc6677", "-."), ("#999933", (0, (3, 1, 1, 1))))
    for i, rtol in enumerate(tolerances):
        color, dash = looks[i % len(looks)]
        here = data["rtol"] == rtol
        x, y = data["minus_log_loss"][here], data["drift"][here]
        ax.plot(x, y, color=color, linestyle=dash)
        ax.annotate(f"tolerance $10^{{{round(np.log10(rtol))}}}$", (x[-1], y[-1]), xytext=(0, 14),
                    textcoords="offset points", ha="right", fontsize=8)
    ax.set(xscale="log", yscale="log", xlabel=r"$-\log\mathcal{L}$", ylabel=r"change of $D_l$ over $\max_l\|W_l\|_F^2$")
    return fig
