"""Triangles of initial proportions by where they end, one column a depth and one row an initial scale."""

import numpy as np
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch

from dufm import figures
from dufm.basin import FOUR_ENDS, triangle_cells

COLORS = (figures.PALETTE["nc"], "#f7dda4", "#e69f00", "#a86f00", "#ffffff")
LABELS = ("neural collapse", "square without $s_1$", "without $s_2$", "without $s_3$", "undecided")


def lost_for_good(depth):
    """Curves s_3^−q = s_1^−q + s_2^−q, q = 1 − 2/L, for each of the three in the place of s_3, in the plane."""
    q = 1 - 2 / depth
    t = np.linspace(1e-3, 1 - 1e-3, 200)
    s = np.stack([t, 1 - t, (t**-q + (1 - t) ** -q) ** (-1 / q)])
    s /= s.sum(0)
    for turn in range(3):
        _, b, c = np.roll(s, turn, axis=0)
        yield b + c / 2, c * 3**0.5 / 2


def draw(data):
    depths, scales = np.unique(data["depth"]), np.unique(data["scale"])[::-1]
    corners = triangle_cells(round(np.sqrt(data["cell"].max() + 1)))
    # Corners of the triangle: s_1 left, s_2 right, s_3 on top.
    points = np.stack([corners[..., 1] + corners[..., 2] / 2, corners[..., 2] * 3**0.5 / 2], -1)
    color = dict(zip(FOUR_ENDS, COLORS, strict=True))
    shape = (len(scales), len(depths))
    fig, axes = figures.subplots(*shape, width=7.0, height=1.25 * len(scales) + 0.45, squeeze=False)
    for (row, column), ax in np.ndenumerate(axes):
        here = (data["depth"] == depths[column]) & (data["scale"] == scales[row])
        order = np.argsort(data["cell"][here])
        faces = [color[name] for name in data["most"][here][order]]
        ax.add_collection(PolyCollection(points, facecolors=faces, edgecolors="none", antialiased=False))
        ax.plot([0, 1, 0.5, 0], [0, 0, 3**0.5 / 2, 0], color="black", linewidth=0.5)
        if depths[column] > 2:
            for x, y in lost_for_good(depths[column]):
                ax.plot(x, y, color="black", linestyle="--", linewidth=0.6)
        ax.set(xlim=(-0.08, 1.08), ylim=(-0.24, 0.95), aspect="equal")
        ax.set_axis_off()
        hits, starts = (int(data[name][here].sum()) for name in ("collapse", "starts"))
        share = f"{hits / starts:.{0 if 10 * hits >= starts else 2}%}"
        ax.annotate(share if hits >= 20 else f"{hits} of {starts:,}", (0.5, -0.2), ha="center", fontsize=8)
        if row == 0:
            ax.set_title(f"$L = {depths[column]}$")
        if column == 0:
            side = {"rotation": 90, "ha": "center", "va": "center", "annotation_clip": False}
            ax.annotate(f"$s_0 = {scales[row]:g}$", (-0.14, 0.4), **side)
    for text, place, side in (("1", (-0.03, -0.04), "right"), ("2", (1.03, -0.04), "left"), ("3", (0.57, 0.8), "left")):
        axes[0][0].annotate(f"$s_{text}$", place, ha=side, fontsize=7, annotation_clip=False)
    handles = [
        Patch(facecolor=color, label=label, edgecolor="black", linewidth=0.4)
        for name, color, label in zip(FOUR_ENDS, COLORS, LABELS, strict=True)
        if name != "undecided" or name in data["most"]
    ]
    fig.legend(handles=handles, loc="outside lower center", ncols=5, columnspacing=1.0, handlelength=1.0)
    return fig
