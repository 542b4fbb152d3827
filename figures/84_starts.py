"""Share of collapse against the handover size: a panel a depth and K, a line a number of small layers."""

import numpy as np

from dufm import figures, stats

LOOKS = {1: ("#882255", "v"), **{k: (figures.depth_color(k), figures.depth_style(k)["marker"]) for k in range(2, 9)}}


def draw(data):
    away = data["small"] < data["depth"]
    panels = np.unique(np.stack([data["num_classes"], data["depth"]])[:, away], axis=1).T
    fig, axes = figures.subplots(1, len(panels), width=7.0, height=2.7, sharey=True, squeeze=False)
    for ax, (K, L) in zip(axes[0], panels, strict=True):
        here = (data["num_classes"] == K) & (data["depth"] == L)
        sizes = np.unique(data["handover"][here & away])
        left, right = sizes[0] / 5, sizes[-1] * 5
        level(ax, data, K, L, left / 2, left * 2)
        smalls = np.unique(data["small"][here & away])
        for k in smalls:
            color, marker = LOOKS[k]
            for kind, filled in (("shifted", True), ("stretched", False)):
                rows = np.flatnonzero(here & (data["small"] == k) & (data["kind"] == kind))
                rows = rows[np.argsort(data["handover"][rows])]
                share = data["collapse"][rows] / data["networks"][rows]
                bars = [stats.wilson(n, m) for n, m in zip(data["collapse"][rows], data["networks"][rows], strict=True)]
                look = {"color": color, "marker": marker, "markerfacecolor": color if filled else "white"}
                # Beside each other, for bars at one place would run into one.
                at = data["handover"][rows] * 1.15 ** (2 * (k - smalls.mean()) + (0.5 if filled else -0.5))
                dash = {"linestyle": "-"} if filled else {"linestyle": ":", "linewidth": 0.9}
                ax.errorbar(at, share, np.abs(np.transpose(bars) - share), elinewidth=0.8, **look, **dash)
            share = level(ax, data, K, k, right / 2, right * 2)
            ax.text(
                right * 3, share + 0.035 * (k == 1) - 0.035 * (k == 2), f"{k}", color=color, fontsize=7, va="center"
            )
        ax.text(right * 3, 1.11, "$k$", fontsize=7, va="center")
        ax.set(xscale="log", xticks=sizes, xlabel="handover size $h$", ylim=(-0.03, 1.09))
        ax.set_title(f"$K = {K}$, $L = {L}$")
    axes[0][0].set_ylabel("share of collapse")
    return fig


def level(ax, data, num_classes, depth, left, right):
    """A dashed line at the share of balanced networks of a depth; at depth 1, the linear model, 1.  Returns it."""
    rows = (data["num_classes"] == num_classes) & (data["depth"] == depth) & (data["small"] == depth)
    share = 1.0 if depth == 1 else (data["collapse"][rows] / data["networks"][rows])[0]
    ax.plot([left, right], [share, share], color="black", linestyle="--", linewidth=0.8)
    return share
