"""Margin of polygon, orthoplex and hypercube over that of collapse against depth, one panel a number of classes."""

import numpy as np
from matplotlib.lines import Line2D

from dufm import figures

LOOKS = {"polygon": "polygon", "orthoplex": "orthoplex", "hypercube": "cube"}


def draw(data):
    classes = np.unique(data["num_classes"])
    fig, axes = figures.subplots(1, len(classes), width=7.0, height=2.6, sharey=True)
    for ax, K in zip(axes, classes, strict=True):
        ax.axhline(1.0, color=figures.PALETTE["nc"], linewidth=1.3)
        for code, look in LOOKS.items():
            here = (data["num_classes"] == K) & (data["code"] == code)
            ax.plot(data["depth"][here], data["ratio"][here], color=figures.PALETTE[look],
                    linestyle=figures.LINESTYLE[look])
        ax.set_title(f"$K = {K}$" + (" (the square)" if K == 4 else ""))
        ax.set(yscale="log", ylim=(4e-2, 1e8), xlabel="depth $L$")
        ax.set_xticks([2, 8, 14, 20])
    names = {"nc": "collapse"} | {look: code for code, look in LOOKS.items()}
    handles = [Line2D([], [], color=figures.PALETTE[look], linestyle=figures.LINESTYLE[look], label=name)
               for look, name in names.items()]
    axes[0].legend(handles=handles, loc="upper left", handlelength=2.2)
    axes[0].set_ylabel(r"margin over collapse's, $\gamma_L/\gamma_L^{\rm NC}$")
    return fig
