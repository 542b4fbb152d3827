"""Where starts end under weight decay, a curve a depth: collapse from two kinds of start, and a lesser end."""

import numpy as np

from dufm import figures

PANELS = (
    ((4, 0), "4 classes, spectral starts", "share of neural collapse"),
    ((4, 8), "4 classes, networks of width 8", ""),
    ((6, 16), "6 classes, networks of width 16", "share in two pairs, two singles"),
)


def draw(data):
    """One panel a kind of start; bands: 95%; dashed: without decay; vertical: thresholds."""
    fig, axes = figures.subplots(1, 3, width=7.0, height=2.8, sharey=True)
    for ax, ((K, width), title, label) in zip(axes, PANELS, strict=True):
        panel = (data["num_classes"] == K) & (data["width"] == width)
        least = data["decay"][panel & (data["decay"] > 0)].min()
        edge = least / (1000 if K == 6 else 30)
        for L in np.unique(data["depth"][panel]):
            rows = np.flatnonzero(panel & (data["depth"] == L))
            rows = rows[np.argsort(data["decay"][rows])]
            decay, share, low, high = (data[name][rows] for name in ("decay", "share", "low", "high"))
            style = figures.depth_style(L) | {"markersize": 3}
            ax.plot(decay[1:], share[1:], **style | {"linestyle": "-"})
            ax.fill_between(decay[1:], low[1:], high[1:], color=style["color"], alpha=0.25, linewidth=0)
            ax.errorbar(edge, share[0], [[share[0] - low[0]], [high[0] - share[0]]], **style | {"linestyle": ""})
            ax.hlines(share[0], edge, 1, color="black", linestyle="--", linewidth=0.6, zorder=1)
            ax.axvline(data["threshold"][rows[0]], color=style["color"], linewidth=0.7, zorder=1)
            ax.annotate(f"$L={L}$", (decay[1], share[1]), xytext=(0, 7), textcoords="offset points", fontsize=7.5)
        ax.set(xscale="log", xlim=(edge / 4, 2), xlabel=r"weight decay $\lambda$", ylabel=label)
        ticks = 10.0 ** np.arange(np.log10(least).round(), 1, 4 if K == 6 else 2)
        ax.set_xticks([edge, *ticks], ["0", *(f"$10^{{{x:.0f}}}$".replace("-", "−") for x in np.log10(ticks))])
        ax.minorticks_off()
        ax.set_title(title)
    axes[0].set_ylim(-0.03, 1)
    return fig
