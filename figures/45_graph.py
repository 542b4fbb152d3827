"""Orbits of vertices and their common edges, by rank, with the number of random objectives that end in each."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=7.0, height=3.4)
    orbits, first = np.unique(data["orbit"], return_index=True)
    rank, met, code = (data[name][first] for name in ("rank", "met", "code"))
    place = np.zeros(len(orbits))
    for value in np.unique(rank):
        here = np.flatnonzero(rank == value)
        lift = 0.25 if value % 2 else -0.25  # neighbouring ranks do not stand in one line
        place[here] = np.arange(len(here)) - (len(here) - 1) / 2 + (lift if len(here) > 1 else 2 * lift)
    row = dict(zip(orbits.tolist(), range(len(orbits)), strict=True))
    for i, j in zip(data["orbit"], data["neighbour"], strict=True):
        if i < j:
            ends = [row[i], row[j]]
            ax.plot(rank[ends], place[ends], color="0.8", linewidth=0.6, zorder=1)
    color = figures.PALETTE["cube"]
    ax.plot(rank, place, "o", color=color, markersize=6, zorder=3, label="orbit of vertices, its code above")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85}
    style = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "zorder": 4, "bbox": box}
    for x, y, text, number in zip(rank, place, code, met, strict=True):
        ax.annotate(text, (x, y), xytext=(0, 6), **style)
        ax.annotate(str(number), (x, y), xytext=(0, -11), color=color, **style)
    ax.plot([], [], color="0.8", linewidth=0.6, label="common edge")
    ax.plot([], [], color=color, marker="$12$", linestyle="none", markersize=9,
            label="random objectives that end there")  # fmt: skip
    ax.legend(loc="lower right")
    ax.set_xlabel("rank of the vertex")
    ax.set_xticks(np.unique(rank))
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.06, y=0.12)
    return fig
