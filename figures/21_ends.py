"""Certified ends of random networks: margin over that of neural collapse against depth, a panel for each K."""

import numpy as np
from matplotlib.lines import Line2D

from dufm import figures

LABELS = {"nc": "neural collapse", "polygon": "polygon", "orthoplex": "orthoplex", "cube": "cube",
          "other": "other critical point"}


def draw(data):
    classes, depths = np.unique(data["num_classes"]), np.unique(data["depth"])
    fig, axes = figures.subplots(1, len(classes), width=7.0, height=2.9, squeeze=False, sharey=True)
    seen = set()
    for ax, K in zip(axes[0], classes, strict=True):
        ax.axhline(1.0, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
        for place, L in enumerate(depths):
            here = (data["num_classes"] == K) & (data["depth"] == L)
            sure = here & np.isfinite(data["margin_ratio"])
            found = list(zip(data["end"][sure].tolist(), data["margin_ratio"][sure].round(3).tolist(), strict=True))
            for name, ratio in dict.fromkeys(found):
                kind = figures.kind_of(name, K)
                seen.add(kind)
                x = place - 0.28 * (kind == "other")
                count = found.count((name, ratio))
                ax.scatter(x, ratio, s=14 + 4 * count, color=figures.PALETTE[kind], marker=figures.MARKER[kind],
                           linewidths=1.2, zorder=3)
                below = -11 if ratio < 1.02 else -3  # not on the dashed line
                beside = {"xytext": (-7, below), "ha": "right"} if kind == "other" else {"xytext": (9, 3), "ha": "left"}
                ax.annotate(f"{count}", (x, ratio), textcoords="offset points", fontsize=8, **beside)
            if undecided := int((here & ~sure).sum()):
                ax.annotate(f"{undecided} undecided", (place, 0.97), xycoords=("data", "axes fraction"), fontsize=8,
                            ha="center")
        ax.set_title(f"$K = {K}$")
        ax.set_xticks(range(len(depths)), depths)
        ax.set(xlim=(-0.5, len(depths) - 0.4), xlabel="depth $L$", yscale="log")
    axes[0][0].set_yticks([1, 1.5, 2, 2.5], ["1", "1.5", "2", "2.5"])
    axes[0][0].minorticks_off()
    axes[0][0].set_ylim(0.88, 2.9)
    axes[0][0].set_ylabel(r"margin over collapse's,  $\gamma_L/\gamma_L^{\rm NC}$")
    handles = [Line2D([], [], color=figures.PALETTE[kind], marker=figures.MARKER[kind], linestyle="", label=label)
               for kind, label in LABELS.items() if kind in seen]
    handles.append(Line2D([], [], color="black", linestyle="--", linewidth=0.8, label="collapse's margin"))
    total = int(((data["num_classes"] == classes[0]) & (data["depth"] == depths[0])).sum())
    handles.append(Line2D([], [], linestyle="", label=f"number: networks of {total}"))
    axes[0][0].legend(handles=handles, loc="upper left")
    return fig
