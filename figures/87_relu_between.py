"""Mean rank of logits and of what the ReLU is applied to, against the ReLU's place, one column a number of classes."""

import numpy as np

from dufm import figures

ROWS = (("rank", "rank of the logits"), ("below", "rank below the ReLU"))


def draw(data):
    classes = np.unique(data["num_classes"])
    depths = np.unique(data["depth"])
    fig, axes = figures.subplots(2, len(classes), width=7.0, height=4.2, sharex=True, sharey="col", squeeze=False)
    for column, K in enumerate(classes):
        for row, (name, label) in enumerate(ROWS):
            ax = axes[row, column]
            for L in depths:
                here = (data["num_classes"] == K) & (data["depth"] == L)
                style = figures.depth_style(L)
                linear, places = here & (data["place"] == 0), here & (data["place"] > 0)
                at = data["place"][places] + 0.08 * (L - depths.mean())
                ax.errorbar(at, data[name][places], 1.96 * data[f"{name}_error"][places], **style, markersize=4,
                            label=f"$L = {L}$")
                if linear.any():
                    ax.plot([0.5, L - 0.5], 2 * [data[name][linear].item()], color=style["color"], linestyle="--",
                            linewidth=0.8)
            ax.axhline(K - 1, color="black", linewidth=0.5)
            if row:
                words = {"va": "bottom", "ha": "right", "textcoords": "offset points", "fontsize": 7}
                ax.annotate("$K-1$", (1, K - 1), (-2, 2), xycoords=("axes fraction", "data"), **words)
            if column == 0:
                ax.set_ylabel(label)
        axes[0, column].set_title(f"$K = {K}$")
        axes[1, column].set_xlabel("place $l$ of the ReLU")
        axes[1, column].set_xticks(range(1, int(depths.max())))
    axes[1, 0].legend(loc="upper right", fontsize=7)
    return fig
