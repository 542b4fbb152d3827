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
                end = (x.max(), share[np.argmax(x)])
                ax.annotate(f"$L = {L}$", end, xytext=(6, 0), textcoords="offset points", va="center")
        ax.set_xscale("log")
        ax.set_xlim(0.6 * x.min(), 8 * x.max())
        ax.set(xlabel="size of one class over the others", ylim=(-0.04, 1.06))
        ax.set_title(title, fontsize=9)
    axes[0].set_ylabel("share of networks")
    for line, face, label in (("-", "0.3", "collapse"), ("--", "white", "full rank")):
        axes[1].plot([], [], "o", linestyle=line, color="0.3", markerfacecolor=face, label=label)
    axes[1].legend(loc="center right", bbox_to_anchor=(1, 0.55))
    return fig
