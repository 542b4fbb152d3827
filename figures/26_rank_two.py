"""Best margin at ranks 2 to 5 over that of the regular polygon, against depth, one panel a number of classes."""

import numpy as np

from dufm import figures

LOOKS = {
    2: {"color": figures.PALETTE["polygon"], "marker": "^", "linestyle": "-"},
    3: {"color": "0.15", "marker": "D", "linestyle": "-."},
    4: {"color": "0.4", "marker": "s", "linestyle": (0, (5, 1))},
    5: {"color": "0.6", "marker": "o", "linestyle": ":"},
}


def draw(data):
    classes = np.unique(data["num_classes"])
    fig, axes = figures.subplots(1, len(classes), width=7.0, height=2.9, sharey=True)
    for ax, K in zip(axes, classes, strict=True):
        here = data["num_classes"] == K
        depths = np.unique(data["depth"][here])
        ahead = [(data["over_polygon"][here & (data["depth"] == L) & (data["rank"] > 2)] > 1).any() for L in depths]
        wins = depths[np.argmin(ahead)]
        ax.axvline(wins, color="0.6", linestyle=":", linewidth=0.9)
        ax.annotate(f"rank 2 wins\nfrom $L={wins}$", (wins, 0.98), xycoords=("data", "axes fraction"), xytext=(4, 0),
                    textcoords="offset points", fontsize=8, va="top")
        for rank, look in LOOKS.items():
            line = here & (data["rank"] == rank)
            ax.plot(data["depth"][line], data["over_polygon"][line], markersize=3.5, linewidth=1.0,
                    label=f"rank {rank}", **look)
        ax.axhline(1.0, color="black", linestyle="--", linewidth=0.8, label="regular polygon")
        ax.set_title(f"$K = {K}$")
        ax.set(yscale="log", xlabel="depth $L$", xticks=[2, 4, 6, 8, 10, 12])
    axes[0].set_ylabel("margin over the polygon's")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, handlelength=2.4)
    return fig
