"""Share of collapse and of full rank against the relative size of one class, by weight and by samples."""

import numpy as np

from dufm import figures


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.7, sharey=True)
    depths = np.unique(data["depth"])
    for ax, kind, title in zip(axes, ("weights", "samples"), ("by weight", "by samples"), strict=True):
        for L in depths:
            here = (data["kind"] == kind) & (data["depth"] == L)
            x, color = data["ratio"][here], figures.depth_color(L)
            for column, face, line in (("full", "white", "--"), ("collapse", color, "-")):
                share = data[column][here] / data["networks"][here]
                bars = np.clip([share - data[f"{column}_low"][here], data[f"{column}_high"][here] - share], 0, None)
                style = {**figures.depth_style(L), "linestyle": line, "color": color, "markerfacecolor": face}
                if column == "collapse" or kind == "samples":
                    ax.errorbar(x, share, bars, elinewidth=0.8, **style)
            if kind == "weights":
                middle = share[np.argsort(x)][len(share) // 2]
                ax.annotate(f"$L = {L}$", (1, middle), xytext=(0, -13), textcoords="offset points", ha="center")
        ax.set_xscale("log")
        ax.set(xlabel="size of one class over the others", ylim=(-0.04, 1.06))
        ax.set_title(title, fontsize=9)
    axes[0].set_ylabel("share of networks")
    return fig
