"""Rank of the best solution found for every number of classes and depth, its margin over collapse's, and its name."""

import numpy as np
from matplotlib.lines import Line2D

from dufm import figures

NAMES = {"nc": ("o", "collapse"), "orthoplex": ("s", "orthoplex"), "polygon": ("^", "regular polygon"),
         "pairs": ("D", "orthoplex less vertices"), "other": ("", "unmarked: other")}


def draw(data):
    classes, depths = np.unique(data["num_classes"]), np.unique(data["depth"])
    fig, ax = figures.subplots(width=7.0, height=3.9)
    grid = np.full((len(classes), len(depths)), np.nan)
    most = data["rank"].max()
    for i, K in enumerate(classes):
        beaten = False
        for j, L in enumerate(depths):
            here = np.flatnonzero((data["num_classes"] == K) & (data["depth"] == L))
            if not len(here):
                continue
            best = here[np.nanargmax(data["margin_ratio"][here])]
            rank, ratio, name = (data[column][best] for column in ("rank", "margin_ratio", "name"))
            grid[i, j] = rank
            ink = "black" if (rank - 2) / max(most - 2, 1) > 0.55 else "white"
            ax.text(j, i + 0.2, f"{int(rank)}", ha="center", va="center", fontsize=9, color=ink, weight="bold")
            ax.text(j, i - 0.22, f"{ratio:.3g}", ha="center", va="center", fontsize=7, color=ink)
            ax.plot(j + 0.34, i + 0.26, NAMES[kind(name, K)][0], color=ink, markersize=3.5)
            if ratio > 1 + 1e-6 and not beaten:
                beaten = True
                ax.plot([j - 0.5, j - 0.5], [i - 0.5, i + 0.5], color="#e69f00", linewidth=2.4, solid_capstyle="butt")
    image = ax.imshow(grid, origin="lower", aspect="auto", cmap="cividis", vmin=2, vmax=max(most, 3))
    ax.set_xticks(range(len(depths)), depths)
    ax.set_yticks(range(len(classes)), classes)
    ax.set(xlabel="depth $L$", ylabel="number of classes $K$")
    fig.colorbar(image, ax=ax, label="rank of the best solution found", ticks=range(2, int(most) + 1), pad=0.02)
    handles = [Line2D([], [], color="0.2", marker=marker, linestyle="", markersize=4, label=label)
               for marker, label in NAMES.values()]
    handles.append(Line2D([], [], color="#e69f00", linewidth=2.4, label="collapse first loses"))
    handles.append(Line2D([], [], linestyle="", label="below the rank: margin over collapse's"))
    fig.legend(handles=handles, loc="outside upper center", ncols=4, columnspacing=1.2, handletextpad=0.3)
    return fig


def kind(name, num_classes):
    """Which of the marks a solution of this name gets."""
    code = "pairs" if "single" in name else figures.kind_of(name, num_classes)
    return code if code in NAMES else "other"
