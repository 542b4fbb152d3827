"""What random networks end in, a bar a cell: a panel a number of classes, depth downwards, width to the right."""

import numpy as np
from matplotlib.patches import Patch

from dufm import figures

# What a network ended in, from its kind and name: label, colour, hatch.
ENDS = {
    "collapse": ("neural collapse", figures.PALETTE["nc"], ""),
    "ladder": ("pairs and single classes", "#8fd4bf", ""),
    "orthoplex": ("orthoplex", figures.PALETTE["orthoplex"], ""),
    "polygon": ("polygon", figures.PALETTE["polygon"], ""),
    "code": ("other softmax code", figures.PALETTE["other"], "xxxx"),
    "own": ("best of its rank, no code", "white", "////"),
    "worse": ("margin below the best of its rank", "white", "...."),
    "undecided": ("undecided", "white", ""),
}
SCALE = 1.0


def draw(data):
    here = data["scale"] == SCALE
    sizes = np.unique(data["num_classes"][here])
    depths, widths = (np.unique(data[name][here]) for name in ("depth", "width"))
    columns = min(4, len(sizes))
    rows = -(-len(sizes) // columns)
    fig, axes = figures.subplots(
        rows, columns, width=7.0, height=0.75 + 1.55 * rows, sharex=True, sharey=True, squeeze=False
    )
    for ax, K in zip(axes.flat, sizes, strict=False):
        for row, L in enumerate(depths):
            for place, d in enumerate(widths):
                _bar(
                    ax,
                    place,
                    row,
                    K,
                    data,
                    here & (data["num_classes"] == K) & (data["depth"] == L) & (data["width"] == d),
                )
        ax.set_title(f"{K} classes", fontsize=9)
        ax.set(xlim=(-0.05, len(widths) + 0.05), ylim=(len(depths) - 0.45, -0.55))
        ax.set_xticks(np.arange(len(widths)) + 0.5, widths)
        ax.set_yticks(range(len(depths)), depths)
        ax.tick_params(length=0, labelbottom=True)
        ax.spines[:].set_visible(False)
    for ax in axes.flat[len(sizes) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("depth $L$")
    for ax in axes.flat[max(len(sizes) - columns, 0) : len(sizes)]:
        ax.set_xlabel("hidden width $d$")
    present = {_end(*each) for each in zip(data["kind"], data["name"], data["num_classes"], strict=True)}
    keys = [Patch(label=ENDS[end][0], **_style(end)) for end in ENDS if end in present]
    if len(sizes) < axes.size:
        axes.flat[-1].legend(handles=keys, loc="center", fontsize=7.5, handlelength=1.4)
    else:
        fig.legend(handles=keys, loc="outside upper center", ncols=4, fontsize=7.5)
    return fig


def _bar(ax, place, row, num_classes, data, here):
    counts = dict.fromkeys(ENDS, 0)
    for kind, name, networks in zip(data["kind"][here], data["name"][here], data["networks"][here], strict=True):
        counts[_end(kind, name, num_classes)] += networks
    left, total = place + 0.04, sum(counts.values())
    for end, count in counts.items():
        if count:
            ax.barh(row, 0.92 * count / total, left=left, height=0.8, align="center", **_style(end))
            left += 0.92 * count / total


def _end(kind, name, num_classes):
    if kind == "softmax code":
        if "pair" in name:
            return "ladder"
        code = figures.kind_of(name, num_classes)
        return code if code in ENDS else "code"
    return {"depth's own": "own"}.get(kind, kind)


def _style(end):
    _, color, hatch = ENDS[end]
    edge = "0.35" if hatch or color == "white" else "none"
    return {"facecolor": color, "edgecolor": edge, "linewidth": 0.4, "hatch": hatch}
