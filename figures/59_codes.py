"""Codes in which uniform Hadamard starts end, stacked bars by depth and initial scale."""

import numpy as np

from dufm import figures

LOOKS = {
    "collapse": ("neural collapse", figures.PALETTE["nc"], ""),
    "Reed–Muller": ("Reed–Muller (orthoplex)", figures.PALETTE["orthoplex"], "///"),
    "cube": ("cube", figures.PALETTE["cube"], "..."),
    "other": ("other codes", figures.PALETTE["other"], ""),
    "undecided": ("undecided", "white", ""),
}


def draw(data):
    """One panel a number of classes; the scale stands under each bar, the depth under each group."""
    depths, scales = np.unique(data["depth"]), np.unique(data["scale"])[::-1]
    fig, axes = figures.subplots(1, 2, width=7.0, height=3.2, sharey=True)
    seen = [code for code in LOOKS if data["count"][data["code"] == code].any()]
    group = len(scales) + 1
    places = [i * group + k for i in range(len(depths)) for k in range(len(scales))]
    for ax, K in zip(axes, np.unique(data["num_classes"]), strict=True):
        bottom = np.zeros(len(places))
        for code in seen:
            label, color, hatch = LOOKS[code]
            here = (data["num_classes"] == K) & (data["code"] == code)
            share = [
                (data["count"] / data["starts"])[here & (data["depth"] == L) & (data["scale"] == s0)][0]
                for L in depths
                for s0 in scales
            ]
            style = {"color": color, "hatch": hatch, "width": 0.9, "edgecolor": "black", "linewidth": 0.4}
            ax.bar(places, share, bottom=bottom, label=label, **style)
            bottom += share
        names = [f"{s0:g}" for s0 in scales] * len(depths)
        ax.set_xticks(places, names, rotation=90, fontsize=7)
        ax.tick_params(axis="x", length=0)
        below = -8 - 4.5 * max(len(name) for name in names)  # points, under the scales
        for i, L in enumerate(depths):
            middle = i * group + (len(scales) - 1) / 2
            place = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points", "ha": "center", "va": "top"}
            ax.annotate(f"$L = {L}$", (middle, 0), (0, below), fontsize=8, annotation_clip=False, **place)
        ax.set_xlabel("initial scale $s_0$ (under each bar) and depth", labelpad=19)
        ax.set(ylim=(0, 1))
        ax.set_title(f"$K = {K}$")
    axes[0].set_ylabel("share of starts")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(seen), columnspacing=1.2, handlelength=1.4)
    return fig
