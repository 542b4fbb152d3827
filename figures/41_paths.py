"""Singular values of a full network on the scalar equations, and what leaves the diagonal, from one Hadamard start."""

import numpy as np

from dufm import figures


def draw(data):
    fig, (left, right) = figures.subplots(1, 2, width=7.0, height=2.7)
    count, color = int(data["character"].max()), figures.depth_color(data["depth"][0])
    for i in range(1, count + 1):
        here = data["character"] == i
        x, full, scalar = -data["log_loss"][here], data["network"][here], data["scalar"][here]
        grows = full[-1] > 0.1 * np.nanmax(data["network"])
        left.plot(x[::3], full[::3], "o", color=color, markerfacecolor=color if grows else "white", zorder=2)
        left.plot(x, scalar, color="black", linestyle="--", linewidth=0.8, zorder=3)
        if not grows:
            left.annotate(rf"$\chi_{{{i}}}$", (x[-1], full[-1]), xytext=(5, -3), textcoords="offset points", fontsize=8)
    left.plot([], [], "o", color=color, label="network, grows")
    left.plot([], [], "o", color=color, markerfacecolor="white", label="network, freezes")
    left.plot([], [], "k--", linewidth=0.8, label="scalar equation")
    left.legend(loc="center right", bbox_to_anchor=(1.0, 0.49), handlelength=1.5)
    left.set(yscale="log", xlabel=r"$-\log\mathcal{L}$", ylabel="singular values $s_i$")
    left.set_xlim(None, x[-1] + 3)
    first = data["character"] == 1
    right.plot(x, np.maximum(data["off"][first], 1e-17), color=color)
    right.annotate("measured", (x[0], 1e-15), xytext=(0, 4), textcoords="offset points", fontsize=8)
    right.axhline(1e-8, color="black", linestyle="--", linewidth=0.8)
    right.annotate("claimed bound", (x[-1], 1e-8), xytext=(0, 4), textcoords="offset points", ha="right", fontsize=8)
    right.set(yscale="log", ylim=(1e-17, 1e-6), xlabel=r"$-\log\mathcal{L}$")
    right.set_ylabel(r"off the diagonal, of $\Phi^\top Z\Phi$")
    return fig
