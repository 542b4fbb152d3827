"""Mean rank at the end of training, depth against width, and the border beyond which most networks collapse."""

import matplotlib
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.patheffects import withStroke

from dufm import figures

BORDER = "#cc3311"


def draw(data):
    sizes, depths = np.unique(data["num_classes"]), np.unique(data["depth"])
    widths = [np.unique(data["width"][data["num_classes"] == K]) for K in sizes]
    height = 0.33 * len(depths) + 0.75
    fig, axes = figures.subplots(
        1, len(sizes), height=height, squeeze=False, sharey=True, width_ratios=list(map(len, widths))
    )
    for ax, K, columns in zip(axes[0], sizes, widths, strict=True):
        rank, share = np.full((2, len(depths), len(columns)), np.nan)
        here = data["num_classes"] == K
        at = np.searchsorted(depths, data["depth"][here]), np.searchsorted(columns, data["width"][here])
        rank[at] = data["mean_rank"][here]
        share[at] = data["collapse"][here] / data["networks"][here]
        level = (rank - 2) / max(K - 3, 1)
        ax.pcolormesh(level, cmap="cividis", vmin=0, vmax=1, edgecolor="white", linewidth=0.8)
        for y, x in zip(*np.nonzero(~np.isnan(rank)), strict=True):
            color = "white" if level[y, x] < 0.55 else "black"
            ax.text(x + 0.5, y + 0.5, f"{rank[y, x]:.1f}", ha="center", va="center", fontsize=8, color=color)
        _border(ax, share)
        if np.isnan(rank).any():
            y, x = (places.mean() + 0.5 for places in np.nonzero(np.isnan(rank)))
            ax.text(x, y, "not computed", ha="center", va="center", fontsize=8, color="0.45")
        ax.set_xticks(np.arange(len(columns)) + 0.5, columns)
        ax.set_yticks(np.arange(len(depths)) + 0.5, depths)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set(xlabel="hidden width $d$", xlim=(-0.04, len(columns) + 0.04), ylim=(-0.04, len(depths) + 0.04))
        ax.set_title(f"{K} classes: collapse has rank {K - 1}", fontsize=9)
    axes[0][0].set_ylabel("depth $L$")
    bar = fig.colorbar(
        ScalarMappable(cmap=matplotlib.colormaps["cividis"]), ax=axes[0], aspect=25, pad=0.015, ticks=[0, 1]
    )
    bar.ax.set_yticklabels(["2", "$K-1$"])
    bar.set_label("mean rank at the end of training", labelpad=-10)
    bar.outline.set_visible(False)
    key = matplotlib.lines.Line2D([], [], color=BORDER, linewidth=2)
    fig.legend(
        [key],
        ["below and to the right of this line at least half of the networks end in neural collapse"],
        loc="outside upper center",
    )
    return fig


def _border(ax, share):
    """Edges between cells in which at least half of the networks collapse and those in which fewer do."""
    often = share >= 0.5
    known = ~np.isnan(share)
    edges = []
    for y, x in zip(*np.nonzero(known[:, 1:] & known[:, :-1] & (often[:, 1:] != often[:, :-1])), strict=True):
        edges.append(([x + 1, x + 1], [y, y + 1]))
    for y, x in zip(*np.nonzero(known[1:] & known[:-1] & (often[1:] != often[:-1])), strict=True):
        edges.append(([x, x + 1], [y + 1, y + 1]))
    for xs, ys in edges:
        ax.plot(
            xs,
            ys,
            color=BORDER,
            linewidth=2,
            solid_capstyle="round",
            path_effects=[withStroke(linewidth=3.4, foreground="white")],
        )
