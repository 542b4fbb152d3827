"""Share of collapse against width: Gaussian starts and balanced factors of the same logits, a panel a depth."""

import numpy as np

from dufm import figures


def draw(data):
    depths = np.unique(data["depth"])
    fig, axes = figures.subplots(1, len(depths), width=7.0, height=2.6, sharey=True, squeeze=False)
    names = {"gaussian": "Gaussian", "twin": "balanced twins"}
    for ax, L in zip(axes[0], depths, strict=True):
        color = figures.depth_color(L)
        for init, line in (("gaussian", "o-"), ("twin", "s--")):
            here = (data["depth"] == L) & (data["init"] == init)
            share = data["share"][here]
            bars = np.abs([data["low"][here] - share, data["high"][here] - share])
            face = "white" if init == "twin" else color
            ax.errorbar(
                data["width"][here],
                share,
                bars,
                fmt=line,
                color=color,
                markerfacecolor=face,
                elinewidth=0.8,
                label=names[init],
            )
        limit = (data["depth"] == L) & (data["init"] == "limit")
        ax.axhline(
            data["share"][limit][0], color="black", linestyle="--", linewidth=0.8, label=r"twins, $d \to \infty$"
        )
        ax.axhspan(data["low"][limit][0], data["high"][limit][0], color="0.88", zorder=0)
        ax.set_xscale("log", base=2)
        ticks = np.unique(data["width"])
        ax.set_xticks(ticks, ticks)
        ax.set(xlabel="hidden width $d$", ylim=(-0.03, 1.03))
        ax.set_title(f"$L = {L}$", fontsize=9)
    axes[0][0].set_ylabel("share of collapse")
    axes[0][-1].legend(loc="center right")
    return fig
