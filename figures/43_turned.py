"""Turned starts: what is off the diagonal, and how far the diagonal leaves the scalar equations, by angle."""

import numpy as np
from matplotlib.ticker import NullLocator

from dufm import figures

STYLES = ("-", "--", ":", "-.")


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.7)
    for ax, name in zip(axes, ("off", "deviation"), strict=True):
        for style, angle in zip(STYLES, np.unique(data["angle"]), strict=False):
            here = data["angle"] == angle
            x, y = -data["log_loss"][here], np.maximum(data[name][here], 1e-12)
            ax.plot(x, y, color=figures.PALETTE["cube"], linestyle=style)
            text = rf"$\theta = {angle:g}$"
            ax.annotate(text, (x[-1], y[-1]), xytext=(5, -3), textcoords="offset points", fontsize=8)
        ax.set_xscale("symlog", linthresh=2)
        ax.set_xlim(-1.2, 9 * x[-1])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks([0, 10, 100, 1000], ["0", "10", "100", "1000"])
        ax.set(yscale="log", xlabel=r"$-\log\mathcal{L}$")
    axes[0].set_ylabel("off the diagonal")
    axes[0].set_title(r"in proportion to the angle $\theta$")
    axes[1].set_ylabel("deviation of the diagonal")
    axes[1].set_title(r"in proportion to $\theta^2$")
    axes[1].axhline(0.01, color="black", linestyle="--", linewidth=0.8)
    axes[1].annotate("1%", (-1.2, 0.01), xytext=(3, 3), textcoords="offset points", fontsize=8)
    return fig
