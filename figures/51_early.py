"""The largest and the smallest of seven singular values against time over escape time, one panel a depth."""

import numpy as np

from dufm import figures


def draw(data):
    depths = np.unique(data["depth"])
    fig, axes = figures.subplots(1, len(depths), width=7.0, height=2.4, sharey=True, squeeze=False)
    for ax, L in zip(axes[0], depths, strict=True):
        for which, fill in (("largest", figures.depth_color(L)), ("smallest", "white")):
            here = (data["depth"] == L) & (data["which"] == which)
            x = data["share"][here]
            style = {"linestyle": "", "markersize": 3, "markerfacecolor": fill, "markeredgewidth": 0.7}
            ax.plot(x, data["value"][here], color=figures.depth_color(L), marker="o", label=f"{which} value", **style)
            ax.plot(x, data["law"][here], color="black", linestyle="--", linewidth=0.8, zorder=3)
        ax.set(yscale="log", ylim=(0.25 * data["value"].min(), 40), xlim=(-0.06, 1.06))
        ax.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        ax.set_title(f"$L = {L}$")
    axes[0][0].set_ylabel("singular value $s$")
    fig.supxlabel("time over the escape time  ($L = 2$: over the time at which the largest would be 1)", fontsize=9)
    marks, words = axes[0][0].get_legend_handles_labels()
    theory = axes[0][0].lines[1]
    fig.legend([*marks, theory], [*words, "closed form"], loc="outside upper center", ncols=3, handlelength=1.6)
    return fig
