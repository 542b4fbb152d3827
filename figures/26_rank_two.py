"""Best margin at ranks 2 to 5 over that of the regular polygon, against depth, one panel a number of classes."""

import numpy as np

from dufm import figures

LOOKS = {2: ("polygon", "^"), 3: ("cube", "D"), 4: ("orthoplex", "s"), 5: ("nc", "o")}


def draw(data):
    classes = np.unique(data["num_classes"])
    fig, axes = figures.subplots(1, len(classes), width=7.0, height=2.7, sharey=True)
    for ax, K in zip(axes, classes, strict=True):
        here = data["num_classes"] == K
        higher = [data["over_polygon"][here & (data["depth"] == L) & (data["rank"] > 2)].max() for L in np.unique(data["depth"][here])]
        wins = np.unique(data["depth"][here])[np.argmax(np.array(higher) < 1)]
        ax.axvline(wins, color="0.6", linestyle=":", linewidth=0.9)
        ax.annotate(f"rank 2 wins\nfrom $L={wins}$", (wins, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 2),
                    textcoords="offset points", fontsize=8)
        for rank, (look, marker) in LOOKS.items():
            line = here & (data["rank"] == rank)
            ax.plot(data["depth"][line], data["over_polygon"][line], color=figures.PALETTE[look], marker=marker,
                    markersize=3.5, linewidth=1.0, label=f"rank {rank}", zorder=2 + rank)
        ax.axhline(1.0, color="black", linestyle="--", linewidth=0.8, label="regular polygon")
        ax.set_title(f"$K = {K}$")
        ax.set(yscale="log", xlabel="depth $L$", xticks=[2, 4, 6, 8, 10, 12])
    axes[0].set_ylabel("margin over the polygon's")
    axes[-1].legend(loc="upper right", handlelength=1.8)
    return fig
