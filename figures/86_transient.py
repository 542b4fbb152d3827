"""Effective rank of the logits against time at several shares of wrong labels, a panel a depth."""

import numpy as np

from dufm import figures

LINES = ("-", (0, (5, 1.5)), (0, (3, 1, 1, 1)))


def draw(data):
    depths = np.unique(data["depth"])
    shares = np.unique(data["noise"])[:0:-1]
    fig, axes = figures.subplots(1, len(depths), width=7.0, height=2.6, sharey=True, squeeze=False)
    for ax, L in zip(axes[0], depths, strict=True):
        color = figures.depth_color(L)
        for rank in (2, 3):
            ax.axhline(rank, color="black", linestyle="--", linewidth=0.6)
        for share, line in zip(shares, LINES, strict=False):
            here = (data["depth"] == L) & (data["noise"] == share)
            t = 10 ** data["decade"][here]
            ax.plot(t, data["median"][here], linestyle=line, color=color, label=rf"$\varepsilon = {share:g}$")
            if share == shares[-1]:
                ax.fill_between(t, data["low"][here], data["high"][here], color=color, alpha=0.15, linewidth=0)
        clean = (data["depth"] == L) & (data["noise"] == 0)
        ax.plot(10 ** data["decade"][clean], data["median"][clean], ":", color="0.4", label=r"$\varepsilon = 0$")
        ax.set_xscale("log")
        ax.set(xlabel="time $t$", ylim=(1.2, 3.1))
        ax.set_title(f"$L = {L}$", fontsize=9)
    axes[0][0].set_ylabel("effective rank")
    axes[0][0].legend(loc="lower right", fontsize=7)
    return fig
