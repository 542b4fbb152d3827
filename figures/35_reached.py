"""What random networks end in, a bar a setting, softmax codes filled and other critical points hatched."""

import numpy as np
from matplotlib.patches import Patch
from scipy.stats import binomtest

from dufm import figures

CODES = {
    "collapse": ("neural collapse", figures.PALETTE["nc"], "white", ""),
    "polygon": ("polygon, the square too", figures.PALETTE["polygon"], "black", ""),
    "orthoplex": ("orthoplex, all or vertices missing", figures.PALETTE["orthoplex"], "white", ""),
    "other softmax code": ("other softmax code", figures.PALETTE["other"], "black", "xxx"),
}
OTHERS = {
    "better than the code": ("best of its rank: larger margin than the code", "///"),
    "lesser critical point": ("smaller margin than the best of its rank", "..."),
    "undecided": ("undecided", ""),
}
LOW_RANK = ("polygon", "orthoplex", "other softmax code")


def draw(data):
    square = (data["num_classes"] == 4) & (data["kind"] == "orthoplex")
    data = {**data, "kind": np.where(square, "polygon", data["kind"])}
    cells = list(dict.fromkeys(zip(data["num_classes"], data["depth"], data["width"], strict=True)))
    wide, narrow = [c for c in cells if c[2] > c[0]], [c for c in cells if c[2] <= c[0]]
    groups = {"wide" + (f", $d={wide[0][2]}$" if len({c[2] for c in wide}) == 1 else ""): wide, "bottleneck": narrow}
    groups = {name: group for name, group in groups.items() if group}
    size = {"width": 7.0, "height": max(1.2 + 0.22 * len(cells), 2.6), "sharex": "col", "squeeze": False}
    ratios = {"height_ratios": [len(group) for group in groups.values()], "width_ratios": [3.2, 1]}
    fig, axes = figures.subplots(len(groups), 2, gridspec_kw=ratios, **size)
    for (bars, shares), (title, group) in zip(axes, groups.items(), strict=True):
        bars.set_ylabel(title)
        for line, cell in enumerate(group):
            keys = zip(("num_classes", "depth", "width"), cell, strict=True)
            _bar(bars, shares, line, data, np.all([data[key] == x for key, x in keys], axis=0))
        names = [f"$K={K}$, $L={L}$" + (f", $d={d}$" if d <= K else "") for K, L, d in group]
        bars.set_yticks(range(len(group)), names)
        bars.set(xlim=(0, 1), ylim=(len(group) - 0.5, -0.5))
        shares.set(xlim=(-0.05, 1.05), xticks=[0, 0.5, 1], ylim=(len(group) - 0.5, -0.5), yticks=[])
        shares.grid(axis="x", color="0.88", linewidth=0.6)
        bars.tick_params(axis="y", length=0)
    axes[-1, 0].set_xlabel("share of the networks")
    axes[-1, 1].set_xlabel("softmax codes below\nrank $K-1$, share")
    _keys(fig, set(data["kind"]))
    return fig


def _bar(bars, shares, line, data, here):
    kinds, runs = data["kind"][here], data["runs"][here]
    left, total = 0.0, runs.sum()
    for kind in (*CODES, *OTHERS):
        count = int(runs[kinds == kind].sum())
        if count:
            style = _style(kind)
            bars.barh(line, count / total, left=left, height=0.76, **style)
            ink = CODES[kind][2] if kind in CODES else "black"
            box = None if kind in CODES else {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
            bars.text(left + count / total / 2, line, count, ha="center", va="center", fontsize=7, color=ink, bbox=box)
            left += count / total
    hits = int(runs[np.isin(kinds, LOW_RANK)].sum())
    low, high = binomtest(hits, int(total)).proportion_ci(method="wilson")
    shares.plot([low, high], [line, line], color="0.6", linewidth=2.4, solid_capstyle="butt")
    shares.plot(hits / total, line, "o", color="black", markersize=3.4, clip_on=False)


def _style(kind):
    if kind in CODES:
        _, color, _, hatch = CODES[kind]
        return {"facecolor": color, "edgecolor": "white", "linewidth": 0.6, "hatch": hatch}
    return {"facecolor": "white", "edgecolor": "0.35", "linewidth": 0.6, "hatch": OTHERS[kind][1]}


def _keys(fig, present):
    look = {"alignment": "left", "fontsize": 7.5, "title_fontsize": 8}
    left, right = ("left", 2, "softmax codes", CODES), ("right", 1, "other critical points", OTHERS)
    for place, columns, title, entries in (left, right):
        handles = [Patch(label=entry[0], **_style(kind)) for kind, entry in entries.items() if kind in present]
        if handles:
            fig.legend(handles=handles, title=title, loc=f"outside upper {place}", ncols=columns, **look)
