"""Seven singular values over their mean as bars, at six moments; run as a script it writes the moving picture."""

from pathlib import Path

import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter

from dufm import figures


def moments_of(data):
    """The recorded values of log loss, falling."""
    return np.unique(data["log_loss"])[::-1]


def bars(ax, data, L, moment):
    """One moment of one depth."""
    here = (data["depth"] == L) & (data["log_loss"] == moment)
    ax.bar(data["character"][here], data["ratio"][here], color=figures.depth_color(L), width=0.8)
    ax.axhline(1.0, color="black", linestyle="--", linewidth=0.8)
    top = max(2.0, 1.05 * data["ratio"].max())
    ax.set(ylim=(0, top), xlim=(0.4, 7.6), yticks=range(int(top) + 1), xticks=[])


def draw(data):
    depths, moments = np.unique(data["depth"]), moments_of(data)
    chosen = moments[np.linspace(0, len(moments) - 1, 6).round().astype(int)]
    height = 0.95 * len(depths) + 0.7
    fig, axes = figures.subplots(len(depths), len(chosen), width=7.0, height=height, sharey=True, squeeze=False)
    for row, L in zip(axes, depths, strict=True):
        for ax, moment in zip(row, chosen, strict=True):
            bars(ax, data, L, moment)
        row[0].set_ylabel(f"$L = {L}$\n" + r"$s_i/\bar s$")
    for ax, moment in zip(axes[0], chosen, strict=True):
        ax.set_title(rf"$\log\mathcal{{L}} = {moment:.1f}$", fontsize=8)
    for ax in axes[-1]:
        ax.set_xticks([1, 4, 7])
    axes[0][0].annotate("dashed: all equal", (0.6, 1.05), xytext=(0, 3), textcoords="offset points", fontsize=7)
    fig.supxlabel("character $i = 1 \\ldots 7$;   training runs from left to right", fontsize=9)
    return fig


def film(data, path):
    """Write all moments as a GIF that rests on the last one."""
    depths, moments = np.unique(data["depth"]), moments_of(data)
    fig, axes = figures.subplots(1, len(depths), width=7.0, height=2.1, sharey=True, squeeze=False)

    def show(moment):
        for ax, L in zip(axes[0], depths, strict=True):
            ax.clear()
            bars(ax, data, L, moment)
            ax.set_title(f"$L = {L}$")
        axes[0][0].set_ylabel(r"$s_i/\bar s$")
        fig.supxlabel(rf"$\log\mathcal{{L}} = {moment:.1f}$   (dashed: all equal)", fontsize=9)

    frames = [*moments, *moments[-1:].repeat(10)]
    FuncAnimation(fig, show, frames=frames).save(path, PillowWriter(fps=8), dpi=80)


if __name__ == "__main__":
    with figures.style():
        film(figures.stored("52_frames"), Path(__file__).with_suffix(".gif"))
