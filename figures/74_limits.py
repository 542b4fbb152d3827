"""Effective rank against depth for networks with fewer ReLUs, with the mean image kept, and from smaller starts."""

import numpy as np

from dufm import figures

# None of the colours that named codes and depths have; the first is that of width 32 in figure 71.
COLORS = ("#f1605d", "#332288", "#4499cc", "#998833", "#772244")


def draw(data):
    panels = list(dict.fromkeys(data["panel"]))
    others = [name for name in dict.fromkeys(data["network"]) if name not in ("ReLU", "scale 1.41")]
    place = {"ReLU": 0, "scale 1.41": 0} | {name: i for i, name in enumerate(others, 1)}
    fig, axes = figures.subplots(1, len(panels), width=7.0, height=2.9, sharey=True, squeeze=False)
    for ax, panel in zip(axes[0], panels, strict=True):
        inside = data["panel"] == panel
        ends = []
        for network in dict.fromkeys(data["network"][inside]):
            here = inside & (data["network"] == network)
            depth, mean, low, high = (data[name][here] for name in ("depth", "mean", "low", "high"))
            color = COLORS[place[network] % len(COLORS)]
            ax.fill_between(depth, low, high, color=color, alpha=0.15, linewidth=0)
            ax.plot(depth, mean, marker="os^Dv"[place[network] % 5], color=color)
            ends.append((mean[-1], depth[-1], network, color))
        height = -np.inf
        for mean, depth, network, color in sorted(ends):
            height = max(mean, height)
            at = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "fontsize": 8, "color": color}
            words = network if depth == data["depth"].max() else f"{network}:\nnot all train beyond"
            ax.annotate(words, (depth, height), **at)
            height += 0.62
        ax.axhline(9, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
        ax.annotate("neural collapse", (data["depth"].min(), 9), xytext=(0, 3), textcoords="offset points", fontsize=8)
        ax.set_xticks(np.unique(data["depth"]))
        ax.set_xlim(data["depth"].min() - 0.3, data["depth"].max() * 1.6)
        ax.set_ylim(1, 9.6)
        ax.set_yticks(range(1, 10))
        ax.set_xlabel("depth $L$ (weight matrices)")
        ax.set_title(panel)
    axes[0, 0].set_ylabel("effective rank of the class means")
    return fig
