"""How near the products around a layer are to multiples of the identity, against width."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.5)
    d = data["width"]
    color = figures.depth_color(4)
    ax.loglog(d, data["left"], "D-", color=color, label="layers above, $A_l$")
    ax.loglog(d, data["right"], "D:", color=color, markerfacecolor="white", label="layers below, $B_l$")
    level = np.sqrt(data["left"] * data["right"] * d).mean()
    ax.loglog(d, level * d**-0.5, color="black", linestyle="--", linewidth=0.8, label=r"$\propto d^{-1/2}$")
    ax.set_xticks(d, d)
    ax.minorticks_off()
    ax.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
    ax.set(xlabel="hidden width $d$", ylabel="distance from a multiple of $I$")
    ax.legend()
    return fig
