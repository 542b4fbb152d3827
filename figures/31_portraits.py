"""What trained networks draw: a body in the shallower network, a flat polygon in the deeper one, a column each K."""

import numpy as np

from dufm import figures, portraits

GONS = {4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}
BODIES = {"NC": "neural collapse", "2 pairs, 1 single": "square pyramid", "orthoplex": "octahedron"}


def draw(data):
    classes = np.unique(data["num_classes"])
    fig, axes = figures.subplots(2, len(classes), width=7.0, height=4.6, squeeze=False)
    for column, K in zip(axes.T, classes, strict=True):
        column[0].set_title(f"{K} classes", fontsize=11, pad=2)
        for ax, L in zip(column, np.unique(data["depth"][data["num_classes"] == K]), strict=False):
            here = (data["num_classes"] == K) & (data["depth"] == L)
            name, rank, runs, networks = (data[key][here][0] for key in ("name", "rank", "runs", "networks"))
            points = np.column_stack([data[axis][here] for axis in "xyz"])
            if rank == 2:
                color, title = figures.PALETTE["polygon"], GONS.get(K, f"{K}-gon")
            else:
                kind = {"NC": "nc", "orthoplex": "orthoplex", "2 pairs, 1 single": "orthoplex"}.get(name, "other")
                color, title = figures.PALETTE[kind], BODIES.get(name, name)
            portraits.portrait(ax, points, color)
            ax.text(0, -1.20, title, ha="center", va="top", fontsize=10, weight="bold")
            ax.text(0, -1.48, f"depth {L} → rank {rank}", ha="center", va="top", fontsize=9)
            ax.text(0, -1.72, f"{runs} of {networks} networks", ha="center", va="top", fontsize=8, color="0.35")
    for ax in axes.flat:
        ax.set(xlim=(-1.2, 1.2), ylim=(-1.9, 1.1), aspect="equal")
        ax.set_axis_off()
    for ax, text in zip(axes[:, 0], ("shallower", "deeper"), strict=True):
        ax.text(-1.42, 0, text, rotation=90, ha="center", va="center", fontsize=11, color="0.35")
    fig.supxlabel("A dot is a class: its feature in a trained network, which had 16 dimensions to use.", fontsize=9)
    return fig
