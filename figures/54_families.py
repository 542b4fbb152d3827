"""Growth of the four families of deviations against the common singular value, the largest K: a panel a family."""

import numpy as np
from matplotlib.lines import Line2D

from dufm import figures

TITLES = {
    "symmetric": "symmetric,\nzero diagonal",
    "antisymmetric": "antisymmetric",
    "shift": "common shift",
    "imbalance": "class imbalance",
}


def draw(data):
    K, depths = data["num_classes"].max(), np.unique(data["depth"])
    fig, axes = figures.subplots(1, 4, width=7.0, height=2.8, sharey=True)
    for ax, (family, title) in zip(axes, TITLES.items(), strict=True):
        ax.axhline(1.0, color="0.7", linewidth=0.8, zorder=0)
        for L in depths:
            here = (data["family"] == family) & (data["depth"] == L) & (data["num_classes"] == K)
            look = {**figures.depth_style(L), "linestyle": ""}
            ax.plot(data["s"][here], data["growth"][here], markersize=4.5, **look)
            ax.plot(data["s"][here], data["law"][here], color="black", linestyle="--", linewidth=0.8)
        ax.set(xscale="log", yscale="log", xlim=(0.42, 30), ylim=(2e-3, 5), xlabel="$s$")
        ax.set_xticks([0.5, 2, 10], ["0.5", "2", "10"])
        ax.minorticks_off()
        ax.set_title(title)
    axes[0].set_yticks([0.01, 0.1, 1], ["0.01", "0.1", "1"])
    axes[0].set_ylabel("growth of $E/s$")
    axes[1].annotate("amplified above,\nshrinking below", (29, 1.0), xytext=(0, -3), textcoords="offset points",
                     fontsize=7, color="0.4", ha="right", va="top")
    axes[1].annotate("all depths\nalike", (0.06, 0.08), xycoords="axes fraction", fontsize=7)
    key = [Line2D([], [], **{**figures.depth_style(L), "linestyle": ""}, markersize=4.5) for L in depths]
    key.append(Line2D([], [], color="black", linestyle="--", linewidth=0.8))
    words = [*(f"flow, $L = {L}$" for L in depths), "law"]
    fig.legend(key, words, loc="outside upper center", ncols=len(words))
    return fig
