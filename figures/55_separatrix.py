"""The ratio of a lagging singular value to the leaders, from either side of the separatrix, one panel a depth."""

import numpy as np

from dufm import figures


def draw(data):
    depths = np.unique(data["depth"])
    fig, axes = figures.subplots(1, len(depths), width=7.0, height=2.5, sharey=True, squeeze=False)
    for ax, L in zip(axes[0], depths, strict=True):
        line = 2.0 ** (-L / (L - 2))
        here = data["depth"] == L
        for start in np.unique(data["start"][here]):
            mine = here & (data["start"] == start)
            color = figures.PALETTE["nc" if start > 1.05 * line else "polygon" if start < 0.95 * line else "other"]
            marker = "o" if start > 1.05 * line else "^" if start < 0.95 * line else "x"
            ax.plot(data["growth"][mine], data["ratio"][mine], marker, color=color)
            ax.plot(data["growth"][mine], data["law"][mine], color="black", linestyle="--", linewidth=0.6)
        ax.axhline(line, color="black", linestyle=(0, (4, 2)), linewidth=1.6, zorder=0)
        ax.set(xscale="log", xlabel="growth of $s_1$", ylim=(-0.03, 1.08))
        ax.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        ax.minorticks_off()
        ax.set_title(f"$L = {L}$: {line:.3f}")
    axes[0, 0].set_ylabel("$s_3/s_1$")
    words = {"nc": "o", "polygon": "^", "other": "x"}
    names = ("to collapse", "to a square", "stays")
    handles = [
        axes[0, 0].plot([], [], marker, color=figures.PALETTE[kind], label=name)[0]
        for (kind, marker), name in zip(words.items(), names, strict=True)
    ]
    handles += axes[0, 0].plot([], [], color="black", linestyle="--", linewidth=0.6, label="closed solution")
    thick = {"linestyle": (0, (4, 2)), "linewidth": 1.6}
    handles += axes[0, 0].plot([], [], color="black", **thick, label="separatrix, value above")
    fig.legend(handles=handles, loc="outside upper center", ncols=5, columnspacing=1.0)
    return fig
