"""Norm of a product over the product of the norms, against rank: four families of factors, a line for each depth."""

import numpy as np

from dufm import figures

TITLES = {
    "balanced": "balanced",
    "powers": "powers $A^L$",
    "shared": "random, one subspace",
    "turned": "random, turned",
}


def draw(data):
    fig, axes = figures.subplots(1, 4, width=7.0, height=2.9, sharey=True)
    for ax, (family, title) in zip(axes, TITLES.items(), strict=True):
        for L in np.unique(data["depth"]):
            here = (data["family"] == family) & (data["depth"] == L)
            r, median, low, high = (data[name][here] for name in ("rank", "median", "low", "high"))
            style = figures.depth_style(L)
            ax.fill_between(r, low, high, color=style["color"], alpha=0.2, linewidth=0)
            ax.plot(r, median, **style, label=f"$L={L}$")
            if family != "turned":
                ax.plot(r, r ** (-(L - 1) / 2), color="black", linestyle="--", linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.set_xticks(r, [str(x) for x in r])
        ax.set(yscale="log", xlabel="rank $r$")
        ax.set_title(title)
    axes[0].plot([], [], color="black", linestyle="--", linewidth=0.8, label=r"$r^{-(L-1)/2}$")
    axes[0].fill_between([], [], [], color="black", alpha=0.2, linewidth=0, label="10–90% of draws")
    axes[0].set_ylabel(r"efficiency $\|W_L\cdots W_1\|_F\,/\,\prod_l\|W_l\|_F$")
    axes[0].legend(loc="lower left", fontsize=7, handlelength=2.6)
    return fig
