"""Effective rank of learned class means against depth: a row a way of training, a panel a data set, a line a width."""

import matplotlib
import numpy as np

from dufm import figures

ROWS = {"flow": "full-batch flow", "minibatch": "minibatches"}
TITLES = {"digits": "digits", "mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar10": "CIFAR-10"}


def draw(data):
    names = [name for name in TITLES if name in data["dataset"]]
    fig, axes = figures.subplots(2, len(names), width=7.0, height=4.6, sharex=True, sharey=True)
    widths = np.unique(data["width"])
    for row, (training, words) in zip(axes, ROWS.items(), strict=True):
        for ax, name in zip(row, names, strict=True):
            ax.axhline(9, color=figures.PALETTE["theory"], linestyle="--", linewidth=0.8)
            ends = {}
            for i, width in enumerate(widths):
                here = (data["dataset"] == name) & (data["training"] == training) & (data["width"] == width)
                if not here.any():
                    continue
                depth, mean, low, high, arrived = (data[x][here] for x in ("depth", "mean", "low", "high", "arrived"))
                color = matplotlib.colormaps["magma"](0.65 - 0.5 * i / max(len(widths) - 1, 1))
                ax.fill_between(depth, low, high, color=color, alpha=0.2, linewidth=0)
                mark = {"marker": "os^Dv"[i % 5], "color": color, "markersize": 4}
                ax.plot(depth, mean, **mark)
                ax.plot(depth[arrived < 1], mean[arrived < 1], **mark, markerfacecolor="white", linestyle="")
                ends[width] = mean[-1], depth[-1], color
            least = 0.0
            for width, (end, at, color) in sorted(ends.items(), key=lambda item: item[1][0]):
                least = max(least, end)
                beside = {"xytext": (6, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
                ax.annotate(f"{width}", (at, least), color=color, **beside)
                least += 0.55
            ax.set_ylim(1, 9.6)
            ax.set_yticks(range(1, 10, 2))
        row[0].set_ylabel(f"effective rank,\n{words}")
    for ax, name in zip(axes[0], names, strict=True):
        ax.set_title(TITLES[name])
    axes[0, 0].annotate("neural collapse", (2, 9), (0, 3), textcoords="offset points", fontsize=8)
    for ax in axes[1]:
        ax.set_xticks(np.unique(data["depth"]))
        ax.set_xlim(data["depth"].min() - 0.3, data["depth"].max() * 1.2)
        ax.set_xlabel("depth $L$ (weight matrices)")
    return fig
