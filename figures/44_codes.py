"""Margin of every vertex over the best vertex's against depth, a panel for each number of classes from eight on."""

import numpy as np

from dufm import figures

NAMES = {"nc": "simplex code", "orthoplex": "Reed–Muller", "cube": "cube", "polygon": "square", "other": "even weights"}


def draw(data):
    sizes = [K for K in np.unique(data["num_classes"]) if K >= 8] or list(np.unique(data["num_classes"]))
    fig, axes = figures.subplots(1, len(sizes), width=7.0, height=2.9, squeeze=False, sharey=True)
    for ax, K in zip(axes[0], sizes, strict=True):
        for orbit in np.unique(data["orbit"][data["num_classes"] == K]):
            mine = (data["num_classes"] == K) & (data["orbit"] == orbit)
            L, ratio, wins = (data[name][mine] for name in ("depth", "ratio", "best"))
            kind = str(data["kind"][mine][0])
            if not wins.any():
                ax.plot(L, ratio, color="0.85", linewidth=0.6, zorder=1)
                continue
            color = "0.45" if kind == "other" else figures.PALETTE[kind]
            won = wins == 1
            ax.plot(L, ratio, color=color, linestyle=figures.LINESTYLE[kind], zorder=3)
            ax.plot(L[won], ratio[won], figures.MARKER[kind], color=color, zorder=4)
            text = f"{NAMES[kind]}, rank {data['rank'][mine][0]}"
            if won[-1]:
                where, offset, side = (L[won].mean(), 1.0), (0, 6), "center"
            else:
                low = np.flatnonzero(ratio < (0.16 if won[0] else 0.75))
                at = low[0] if len(low) else len(L) - 1
                where, offset, side = (L[at], ratio[at]), (5, 3), "left"
            ax.annotate(text, where, offset, textcoords="offset points", ha=side, fontsize=8, color=color,
                        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, zorder=5)  # fmt: skip
        ax.set(yscale="log", ylim=(0.1, 1.5), xlabel="depth $L$")
        ax.set_yticks([0.1, 0.2, 0.5, 1], ["0.1", "0.2", "0.5", "1"])
        ax.minorticks_off()
        ax.set_title(f"$K = {K}$")
    axes[0][0].plot([], [], color="0.8", linewidth=0.8, label="other vertices")
    axes[0][0].legend(loc="lower left", handlelength=1.2)
    axes[0][0].set_ylabel("margin over the best vertex's")
    return fig
