"""Product of the two singular values of three classes against their ratio: starts, ends of descents, and the bound."""

import numpy as np

from dufm import figures


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.9)
    parts = {what: data["what"] == what for what in ("start", "end", "bound")}
    x, y = data["ratio"], data["product"]
    ax.plot(x[parts["start"]], y[parts["start"]], "o", color=figures.PALETTE["other"], markersize=2.2, zorder=1)
    ax.plot(x[parts["bound"]], y[parts["bound"]], color="black", linestyle="--", linewidth=0.9, zorder=2)
    ax.plot(x[parts["end"]], y[parts["end"]], figures.MARKER["nc"], color=figures.PALETTE["nc"], markersize=5,
            zorder=3, clip_on=False)
    ax.annotate("bound of the proof", (60, 4.0), fontsize=8, ha="center", va="top")
    ax.annotate("starts", (0.03, 0.93), xycoords="axes fraction", color="0.4", fontsize=8)
    ends, runs = int((parts["end"] & np.isfinite(x)).sum()), int(parts["end"].sum())
    which = "all" if ends == runs else f"{ends} of"
    ax.annotate(f"collapse: the ends\nof {which} {runs} descents", (1.0, 1.0), xytext=(1.25, 0.5), fontsize=8,
                va="center", color=figures.PALETTE["nc"])
    ax.set(xscale="log", yscale="log", xlim=(0.95, 1.2 * np.nanmax(x)), ylim=(0.3, 2 * np.nanmax(y)),
           xlabel=r"ratio $\sigma_1/\sigma_2$", ylabel=r"product $\sigma_1\sigma_2$ at margin 1")
    return fig
