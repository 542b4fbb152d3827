"""Shares of Hadamard starts by the code in which they end: a row a scale, a column a number of classes."""

import numpy as np

from dufm import figures

KIND = {
    "simplex (collapse)": "nc",
    "Reed-Muller (orthoplex)": "orthoplex",
    "trivial (cube)": "cube",
    "trivial (square)": "polygon",
}
LABEL = {"nc": "collapse", "orthoplex": "orthoplex", "cube": "cube", "polygon": "square"}


def draw(data):
    sizes, scales, depths = np.unique(data["num_classes"]), np.unique(data["scale"])[::-1], np.unique(data["depth"])
    fig, axes = figures.subplots(len(scales), len(sizes), width=7.0, height=2.1 * len(scales) + 0.3, squeeze=False,
                                 sharex=True, sharey=True)  # fmt: skip
    for (i, j), ax in np.ndenumerate(axes):
        for place, L in enumerate(depths):
            here = (data["num_classes"] == sizes[j]) & (data["scale"] == scales[i]) & (data["depth"] == L)
            order = np.lexsort((data["code"][here], -data["rank"][here]))
            below = 0.0
            columns = (data[key][here][order] for key in ("share", "code", "name", "best"))
            for share, code, name, best in zip(*columns, strict=True):
                kind = KIND.get(str(name), "other")
                ax.bar(place, share, 0.86, below, color=figures.PALETTE[kind], edgecolor="white", linewidth=0.5)
                if share > 0.11:
                    text = LABEL.get(kind, str(code).replace(" ", "")) + "\n★" * int(best)
                    dark = kind in ("nc", "orthoplex", "cube")
                    ax.annotate(text, (place, below + share / 2), ha="center", va="center", fontsize=5.5,
                                color="white" if dark else "black")  # fmt: skip
                below += share
        ax.set_xticks(range(len(depths)), depths)
        ax.set_ylim(0, 1)
        if i == 0:
            ax.set_title(f"$K = {sizes[j]}$")
        if i == len(scales) - 1:
            ax.set_xlabel("depth $L$")
        if j == 0:
            ax.set_ylabel(f"share of starts\nat $s_0 = {scales[i]:g}$")
    fig.supxlabel("★ the code of the largest margin at that depth", fontsize=8)
    return fig
