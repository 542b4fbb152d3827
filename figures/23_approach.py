"""Distance of the flow's logits from their end, two pairs and two single classes, a line a network."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.6)
    color, networks = figures.depth_color(3), np.unique(data["network"])
    for network in networks:
        here = data["network"] == network
        ax.plot(data["minus_log_loss"][here], data["distance"][here], color=color, linewidth=0.7, alpha=0.7)
    x = np.unique(data["minus_log_loss"])
    middle = [np.median(data["distance"][data["minus_log_loss"] == value]) for value in x]
    ax.plot(x, middle, color="black", linewidth=1.6, label="median")
    ax.plot([], [], color=color, linewidth=0.7, label=f"{len(networks)} networks")
    ax.legend(loc="lower left")
    ax.set(xscale="log", yscale="log", xlabel=r"$-\log\mathcal{L}$", ylabel="distance from the end")
    return fig
