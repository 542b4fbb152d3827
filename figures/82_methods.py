"""Mean rank of the ends against depth, a line a method, a panel a number of classes."""

import numpy as np

from dufm import figures

# The flow and momentum lie on one another: two dashes.
STYLES = {
    "flow": ("black", "--", ""),
    "momentum": ("#4477aa", "-", "o"),
    "Adam": ("#ee6677", "-", "s"),
    "sign": ("#aa3377", "-.", "D"),
    "Muon": ("#228833", "-", "^"),
}


def draw(data):
    """Bands: 95% over networks; dotted: K − 1, the rank of neural collapse."""
    classes = sorted({*data["num_classes"]})
    fig, axes = figures.subplots(1, len(classes), width=7.0, height=2.7, squeeze=False)
    for ax, K in zip(axes[0], classes, strict=True):
        here = data["num_classes"] == K
        ax.axhline(K - 1, color="0.6", linestyle=":", linewidth=0.9, zorder=0)
        for method, (color, dash, marker) in STYLES.items():
            rows = np.flatnonzero(here & (data["method"] == method))
            rows = rows[np.argsort(data["depth"][rows])]
            x = data["depth"][rows]
            ax.plot(x, data["rank"][rows], color=color, linestyle=dash, marker=marker, markersize=4, label=method)
            ax.fill_between(x, data["low"][rows], data["high"][rows], color=color, alpha=0.2, linewidth=0)
        ax.set(xlabel="depth $L$", xticks=sorted({*data["depth"][here]}), ylim=(1.8, K - 0.7))
        ax.set_title(f"$K={K}$, $d={2 * K}$")
    axes[0, 0].set_ylabel("mean rank of the ends")
    axes[0, 0].legend(loc="lower left")
    return fig
