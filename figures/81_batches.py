"""Share of collapse against the size of the batches: spectral starts, and random networks with one or four samples."""

import numpy as np

from dufm import figures

TITLES = {"spectral": "spectral starts", "one": "random, one sample a class", "several": "random, four samples a class"}


def draw(data):
    """One panel a kind of start; bands: 95%; dashed: the flow from the same starts."""
    fig, axes = figures.subplots(1, 3, width=7.0, height=2.7, sharey=True)
    for ax, (part, title) in zip(axes, TITLES.items(), strict=True):
        here = data["part"] == part
        for depth in sorted({*data["depth"][here]}):
            rows = np.flatnonzero(here & (data["depth"] == depth))
            rows = rows[np.argsort(data["batch"][rows])]
            x, share = data["batch"][rows], data["share"][rows]
            style = figures.depth_style(depth) | {"linestyle": "-"}
            ax.plot(x, share, **style, markersize=3.5)
            ax.fill_between(x, data["low"][rows], data["high"][rows], color=style["color"], alpha=0.25, linewidth=0)
            ax.hlines(data["flow"][rows[0]], x[0], x[-1], color="black", linestyle="--", linewidth=0.8, zorder=3)
            place = (2, -12 if depth == 6 else 5)
            ax.annotate(f"$L={depth}$", (x[0], share[0]), xytext=place, textcoords="offset points", fontsize=7.5)
        ticks = sorted({*data["batch"][here]})
        ax.set(xscale="log", xlabel="batch, share of all samples", ylim=(-0.12, 1.1))
        ax.set_xticks(ticks, [f"1/{round(1 / tick)}" if tick < 1 else "1" for tick in ticks])
        ax.minorticks_off()
        ax.set_title(title)
    axes[0].set_ylabel("share of neural collapse")
    return fig
