"""Where the best solution of rank r is the softmax code, named, and by how much it is better elsewhere."""

import numpy as np
from matplotlib.patches import Rectangle

from dufm import figures


def draw(data):
    classes, ranks = np.unique(data["num_classes"]), np.unique(data["rank"])
    fig, ax = figures.subplots(width=7.0, height=0.7 + 0.34 * len(classes))
    for K, r in np.unique(np.column_stack([data["num_classes"], data["rank"]]), axis=0):
        here = (data["num_classes"] == K) & (data["rank"] == r)
        gap, name = np.abs(data["excess"][here]).max(), str(data["code"][here][0])
        box = (r - 0.47, K - 0.45), 0.94, 0.9
        if gap < 1e-6:
            kind = "orthoplex" if "single" in name else figures.kind_of(name, K)
            word = "square" if (name, kind) == ("orthoplex", "polygon") else name.replace(", ", ",\n")
            alpha = 0.6 if kind == "other" else 0.3
            ax.add_patch(Rectangle(*box, color=figures.PALETTE[kind], alpha=alpha, linewidth=0))
            ax.text(r, K, word, ha="center", va="center", fontsize=6.8, linespacing=0.95)
        else:
            ax.add_patch(Rectangle(*box, fill=False, edgecolor="0.35", linewidth=0.8, linestyle=(0, (3, 2))))
            ax.text(r, K, f"+{100 * gap:.2f}%", ha="center", va="center", fontsize=7.5, weight="bold")
    ax.set(xlim=(ranks.min() - 0.55, ranks.max() + 0.55), ylim=(classes.min() - 0.55, classes.max() + 0.55))
    ax.set(xticks=ranks, yticks=classes, xlabel="rank $r$", ylabel="number of classes $K$")
    if len(classes) > 4:
        words = "filled: depth's best solution of this rank is the named softmax code"
        words += "\ndashed: its margin exceeds the code's, by at most this much"
        ax.text(ranks.max() + 0.45, classes.min() + 0.6, words, ha="right", va="center", fontsize=8)
    return fig
