"""Least cost at margin 1 while the cube's upper face turns, and drawings of the cube and of the antiprism."""

import numpy as np

from dufm import figures

VIEW = np.array([[0.96, 0.28, 0.0], [-0.10, 0.33, 0.94]])


def draw(data):
    fig, (left, right) = figures.subplots(1, 2, width=7.0, height=2.6)
    angle, cost, found = data["angle"], data["cost"], data["searched"][0]
    color = figures.PALETTE["cube"]
    left.plot(angle, cost, color=color)
    left.plot(angle[[0, -1]], cost[[0, -1]], figures.MARKER["cube"], color=color)
    left.axhline(found, color="black", linestyle="--", linewidth=0.8)
    left.annotate("cube", (angle[0], cost[0]), xytext=(8, -9), textcoords="offset points", fontsize=8)
    style = {"textcoords": "offset points", "fontsize": 8}
    left.annotate("antiprism", (angle[-1], cost[-1]), xytext=(-14, 6), ha="right", **style)
    left.annotate("best of the search at rank 3", (0, found), xytext=(2, -10), textcoords="offset points", fontsize=8)
    left.set_ylim(found - 0.14 * (cost[0] - found), cost[0] + 0.06 * (cost[0] - found))
    left.set(xticks=[0, 15, 30, 45], xlabel="twist of the upper face, degrees", ylabel=r"$\|Z\|_{S_{2/L}}$ at margin 1")
    for at, offset, name in ((0, -1.6, "cube"), (-1, 1.6, "antiprism")):
        _solid(right, np.deg2rad(angle[at]), data["height"][at], offset)
        right.annotate(name, (offset, -1.3), ha="center", fontsize=8)
    right.set_aspect("equal")
    right.set_ylim(-1.4, 1.3)
    right.axis("off")
    return fig


def _solid(ax, twist, height, offset):
    """Corners and edges of two squares at ±height, the upper one turned, seen along VIEW."""
    corner = np.pi / 4 + np.pi / 2 * np.arange(4)
    upper = np.stack([np.cos(corner + twist), np.sin(corner + twist), np.full(4, height)], 1)
    lower = np.stack([np.cos(corner), np.sin(corner), np.full(4, -height)], 1)
    points = np.concatenate([upper, lower])
    depth, flat = points @ np.cross(VIEW[0], VIEW[1]), points @ VIEW.T + [offset, 0]
    length = np.linalg.norm(points[:, None] - points[None], axis=-1)
    across = 1.02 * length[:4, 4:].min()
    for i in range(8):
        for j in range(i):
            if length[i, j] < (1.5 if (i < 4) == (j < 4) else across):
                near = (depth[i] + depth[j]) / 2 > -0.2
                ax.plot(*flat[[i, j]].T, color="0.35" if near else "0.75", linewidth=1.3 if near else 0.8, zorder=1)
    ax.plot(*flat[:4].T, "o", color=figures.PALETTE["cube"], markersize=6, zorder=2)
    ax.plot(*flat[4:].T, "o", color="0.35", markersize=6, zorder=2)
