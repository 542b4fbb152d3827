"""Orbits of vertices and their common edges, by rank, with the number of random objectives that end in each."""

import numpy as np

from dufm import figures

LABEL = np.linspace(-0.16, 0.18, 5)  # what a mark and its two labels fill, up and down
CLEAR = 0.22  # between these and an edge of others


def crowding(at, edges):
    """How much edges come near the marks and labels of others, and marks near each other or far from their rank."""
    a, b = at[edges[:, 0], None, None], at[edges[:, 1], None, None]
    spots = at[None, :, None] + np.stack([0 * LABEL, LABEL], -1)
    along = ((spots - a) * (b - a)).sum(-1) / ((b - a) ** 2).sum(-1)
    nearest = a + along.clip(0, 1)[..., None] * (b - a)
    near = np.linalg.norm((spots - nearest) * [0.7, 1.0], axis=-1).min(-1)
    own = (edges[:, :, None] == np.arange(len(at))).any(1)
    apart = np.abs(at[:, None] - at) + 9 * np.eye(len(at))[..., None]
    touching = (apart[..., 0] < 0.6) * (0.75 - apart[..., 1]).clip(0)
    return ((CLEAR - near).clip(0) * ~own).sum() + touching.sum() + 0.02 * (at[:, 1] ** 2).sum()


def places(rank, edges):
    """Positions ``(n, 2)`` near their rank at which every edge can be told: a search that always goes alike."""
    rng = np.random.default_rng(0)
    at = np.stack([rank.astype(float), rng.uniform(-1.5, 1.5, len(rank))], -1)
    least = crowding(at, edges)
    for _ in range(6000):
        i, trial = rng.integers(len(at)), at.copy()
        trial[i] = rank[i] + rng.uniform(-0.22, 0.22), rng.uniform(-1.7, 1.7)
        if (now := crowding(trial, edges)) < least:
            at, least = trial, now
    return at


def draw(data):
    fig, ax = figures.subplots(width=7.0, height=3.4)
    orbits, first = np.unique(data["orbit"], return_index=True)
    rank, met, code = (data[name][first] for name in ("rank", "met", "code"))
    edges = np.stack([np.searchsorted(orbits, data[name]) for name in ("orbit", "neighbour")], -1)
    edges = edges[edges[:, 0] < edges[:, 1]]
    x, place = places(rank, edges).T
    for ends in edges:
        ax.plot(x[ends], place[ends], color="0.7", linewidth=0.6, zorder=1)
    color = figures.PALETTE["cube"]
    ax.plot(x, place, "o", color=color, markersize=6, zorder=3, label="orbit of vertices, its code above")
    box = {"facecolor": "white", "edgecolor": "none", "pad": 0.3, "alpha": 0.85}
    style = {"textcoords": "offset points", "ha": "center", "fontsize": 7, "zorder": 4, "bbox": box}
    for spot, text, number in zip(zip(x, place, strict=True), code, met, strict=True):
        ax.annotate(text, spot, xytext=(0, 6), **style)
        ax.annotate(str(number), spot, xytext=(0, -11), color=color, **style)
    ax.plot([], [], color="0.7", linewidth=0.6, label="common edge")
    ax.plot([], [], color=color, marker="$12$", linestyle="none", markersize=9,
            label="random objectives that end there")  # fmt: skip
    ax.legend(loc="lower right")
    ax.set_xlabel("rank of the vertex (marks stand next to it)")
    ax.set_xticks(np.unique(rank))
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.margins(x=0.06, y=0.12)
    return fig
