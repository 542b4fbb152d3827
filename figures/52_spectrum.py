"""Seven singular values over their mean against the mean, one panel a depth, with the turning point."""

import numpy as np
from matplotlib.lines import Line2D

import dufm
from dufm import figures


def draw(data):
    depths = np.unique(data["depth"])
    fig, axes = figures.subplots(1, len(depths), width=7.0, height=2.6, sharey=True, squeeze=False)
    for ax, L in zip(axes[0], depths, strict=True):
        here = data["depth"] == L
        mean, character, ratio = (data[name][here] for name in ("mean", "character", "ratio"))
        first = {i: ratio[character == i][0] for i in np.unique(character)}
        top, low = max(first, key=first.get), min(first, key=first.get)
        looks = {top: ("-", figures.depth_color(L), 1.8), low: (":", figures.depth_color(L), 1.8)}
        for i in first:
            dash, color, wide = looks.get(i, ("-", "0.75", 0.8))
            order = np.argsort(mean[character == i])
            x, y = mean[character == i][order], ratio[character == i][order]
            ax.plot(x, y, linestyle=dash, color=color, linewidth=wide, zorder=3 if i in looks else 2)
        turn = dufm.turning_point(8, int(L))
        if turn > mean.min():
            ax.axvline(turn, color="black", linestyle="--", linewidth=0.8)
        ax.set(xscale="log", xlim=(mean.min(), 250), ylim=(0, 2.1))
        ax.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        ax.set_title(f"$L = {L}$")
    axes[0][0].set_ylabel(r"$s_i/\bar s$")
    fig.supxlabel(r"mean singular value $\bar s$", fontsize=9)
    shapes = [("-", "0.3", 1.8), (":", "0.3", 1.8), ("-", "0.75", 0.8), ("--", "black", 0.8)]
    key = [Line2D([], [], linestyle=dash, color=color, linewidth=wide) for dash, color, wide in shapes]
    words = ["largest at the start", "smallest at the start", "the other five", "$s^*$, the turn of small deviations"]
    fig.legend(key, words, loc="outside upper center", ncols=4)
    return fig
