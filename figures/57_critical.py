"""Critical deviation against initial scale, a kind of mark a depth, and the law through the smallest scale."""

import numpy as np

from dufm import figures

TITLES = {
    "(1, 1, 1−δ)": r"$K = 4$, start $(1, 1, 1-\delta)\,s_0$",
    "(1⁴, (1−δ)³)": r"$K = 8$, start $(1, 1, 1, 1, 1-\delta, 1-\delta, 1-\delta)\,s_0$",
}


def draw(data):
    """One panel a direction."""
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.9, sharey=True)
    for ax, (pattern, title) in zip(axes, TITLES.items(), strict=True):
        for L in np.unique(data["depth"]):
            here = (data["pattern"] == pattern) & (data["depth"] == L)
            order = np.argsort(data["scale"][here])
            x, y, c = (data[name][here][order] for name in ("scale", "deviation", "label"))
            q = 1 - 2 / L
            grid = np.geomspace(x[0], x[-1], 100)
            ax.plot(x, y, **{**figures.depth_style(L), "linestyle": ""})
            ax.plot(grid, 1 - (1 + c[0] * grid**q) ** (-1 / q), color="black", linestyle="--", linewidth=0.8, zorder=1)
            ax.annotate(
                f"$L={L}$, $c^*={c[0]:.4f}$",
                (x[0], y[0]),
                xytext=(-2, 6),
                textcoords="offset points",
                fontsize=7,
                rotation=np.degrees(np.arctan(0.68 * q)),
                rotation_mode="anchor",
            )
        ax.set(xscale="log", yscale="log", xlabel="initial scale $s_0$")
        ax.set_title(title)
    axes[0].set_ylabel(r"critical deviation $\delta_c$")
    axes[0].plot([], [], "o", color="0.4", label="measured")
    axes[0].plot([], [], color="black", linestyle="--", linewidth=0.8, label=r"$1-(1+c^*s_0^q)^{-1/q}$, $q=1-2/L$")
    axes[0].legend(loc="lower right", fontsize=7)
    return fig
