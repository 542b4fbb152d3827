"""Effective rank of class means against the depth of the linear head: logits, features, and logits before training."""

import numpy as np

from dufm import figures

# None of the colours that named codes and depths have.
KINDS = {"features": ("#4499cc", "s"), "logits": ("#f1605d", "o")}
TITLES = {"digits": "digits", "cifar10": "CIFAR-10"}


def draw(data):
    panels = [name for name in TITLES if name in data["dataset"]]
    fig, axes = figures.subplots(1, len(panels), width=7.0, height=2.8, sharey=True, squeeze=False)
    deepest = data["depth"].max()
    for ax, panel in zip(axes[0], panels, strict=True):
        ax.axhline(9, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
        ax.annotate("neural collapse", (1, 9), xytext=(0, 3), textcoords="offset points", fontsize=8)
        for kind in ("start", *KINDS):
            here = (data["dataset"] == panel) & (data["kind"] == kind)
            depth, mean, low, high = (data[name][here] for name in ("depth", "mean", "low", "high"))
            at = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
            if kind == "start":
                ax.plot(depth, mean, color="#999999", linewidth=0.8)
                low_end = data["mean"][(data["dataset"] == panel) & (data["kind"] == "logits")][-1]
                gap = mean[-1] - low_end  # of about 17 points a rank
                at["xytext"] = (6, max(11 - 17 * gap, 0) if gap >= 0 else 0)
                ax.annotate("at the start", (depth[-1], mean[-1]), color="#777777", **at)
                continue
            color, marker = KINDS[kind]
            ax.fill_between(depth, low, high, color=color, alpha=0.2, linewidth=0)
            ax.plot(depth, mean, marker=marker, color=color)
            ax.annotate(kind, (depth[-1], mean[-1]), color=color, **at)
        ax.set_xticks(np.unique(data["depth"]))
        ax.set_xlim(0.8, deepest * 1.25)
        ax.set_ylim(1, 9.7)
        ax.set_yticks(range(1, 10))
        ax.set_xlabel("linear layers in the head $h$")
        ax.set_title(TITLES[panel])
    axes[0, 0].set_ylabel("effective rank of the class means")
    return fig
