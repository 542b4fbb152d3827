"""The classes of three networks as bodies and polygons, each with the sentence of its diagnosis."""

import textwrap

import numpy as np

from dufm import figures, portraits

NETWORKS = (
    "digits, ReLU\nand one linear layer",
    "digits, ReLU\nand five linear layers",
    "free features\nand five linear layers",
)


def draw(data):
    fig, axes = figures.subplots(1, 3, width=7.0, height=3.0)
    for panel, (ax, network) in enumerate(zip(axes, NETWORKS, strict=True)):
        here = data["panel"] == panel
        rank, sentence = data["rank"][here][0], data["sentence"][here][0]
        kind = "other" if rank == 0 else "polygon" if rank == 2 else "nc" if data["name"][here][0] == "NC" else "cube"
        points = np.column_stack([data[axis][here] for axis in "xyz"])
        portraits.portrait(ax, points, figures.PALETTE[kind], [str(name) for name in data["class"][here]])
        ax.text(0, 1.95, network, ha="center", va="top", fontsize=10)
        ax.text(0, -1.4, textwrap.fill(sentence, 32), ha="center", va="top", fontsize=9)
        ax.set(xlim=(-1.6, 1.6), ylim=(-1.95, 2.0), aspect="equal")
        ax.set_axis_off()
    return fig
