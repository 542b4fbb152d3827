"""Share of collapse against the step of descent: spectral starts at two scales, and random networks."""

import numpy as np

from dufm import figures

TITLES = {"large": "spectral, $s_0 = 0.1$", "small": "spectral, $s_0 = 0.01$", "networks": "random networks, $d = 16$"}


def draw(data):
    """One panel a kind of start; bands: 95%; dashed: the flow's share and the law of an infinite step."""
    fig, axes = figures.subplots(1, 3, width=7.0, height=2.7, sharey=True)
    for ax, (panel, title) in zip(axes, TITLES.items(), strict=True):
        here = data["panel"] == panel
        for K, L in sorted({*zip(data["num_classes"][here], data["depth"][here], strict=True)}):
            rows = here & (data["num_classes"] == K) & (data["depth"] == L)
            rows = np.flatnonzero(rows)[np.argsort(data["lr"][rows])]
            x, share = data["lr"][rows], data["share"][rows]
            style = figures.depth_style(L) | ({"linestyle": "-"} if panel != "networks" else {})
            if panel == "networks":
                style |= {"linestyle": "-" if K == 4 else ":"}
            ax.plot(x, share, **style, markersize=3)
            ax.fill_between(x, data["low"][rows], data["high"][rows], color=style["color"], alpha=0.25, linewidth=0)
            ax.hlines(data["flow"][rows[0]], x[0], x[-1], color="black", linestyle="--", linewidth=0.7, zorder=1)
            if panel == "networks":
                name, place = f"$K={K}$, $L={L}$", (3, -11 if share[0] > 0.7 else 4)
            else:
                name, place = f"$L={L}$", (2, -10 if L == 6 else 4)
                ax.hlines(data["law"][rows[0]], 2e3, 2e5, color="black", linestyle="--", linewidth=1.2)
            ax.annotate(name, (x[0], share[0]), xytext=place, textcoords="offset points", fontsize=7.5)
        ax.set(xscale="log", xlabel=r"step $\eta$")
        ax.set_title(title)
    for ax in axes[:2]:
        ax.set_xlim(0.015, 2e5)
        ax.annotate(r"$\eta\to\infty$", (2e4, 0.44), ha="center", fontsize=7.5)
    edges = data["edge"][data["panel"] == "networks"]
    axes[2].axvspan(edges.min(), edges.max(), color="0.85", zorder=0, linewidth=0)
    axes[2].annotate(r"$2/\lambda_{\max}$", (np.sqrt(edges.min() * edges.max()), 1.03), ha="center", fontsize=7.5)
    axes[0].set_ylim(-0.11, 1.1)
    axes[0].set_ylabel("share of neural collapse")
    return fig
