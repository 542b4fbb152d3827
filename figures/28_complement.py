"""Extra values beside the orthoplex at two and at three layers, and the ratio at which they are lost, by β."""

import numpy as np

from dufm import figures


def draw(data):
    fig, axes = figures.subplots(1, 3, width=7.0, height=2.6)
    path = ~np.isnan(data["start"])
    for ax, L in zip(axes[:2], (2, 3), strict=True):
        line = 0.0 if L == 2 else 1.5 ** (-L / (L - 2))
        here = path & (data["depth"] == L)
        for start in np.unique(data["start"][here]):
            mine = here & (data["start"] == start)
            kind = "orthoplex" if start < 0.99 * line else "nc" if start > 1.01 * line else "other"
            ax.plot(data["growth"][mine], data["ratio"][mine], figures.MARKER[kind], color=figures.PALETTE[kind])
            ax.plot(data["growth"][mine], data["law"][mine], color="black", linestyle="--", linewidth=0.7)
        if line:
            ax.axhline(line, color="black", linestyle=(0, (4, 2)), linewidth=1.6, zorder=0)
        ax.set(xscale="log", xlabel="growth of the kept values", ylim=(-0.03, 1.06))
        ax.set_xticks([1, 3, 10, 30], ["1", "3", "10", "30"])
        ax.minorticks_off()
        ax.set_title(f"$L = {L}$")
    style = {"fontsize": 8, "xycoords": "axes fraction"}
    axes[1].annotate("to collapse", (0.08, 0.72), color=figures.PALETTE["nc"], **style)
    axes[1].annotate("lost", (0.08, 0.17), color=figures.PALETTE["orthoplex"], **style)
    axes[0].set_ylabel(r"extra over kept values, $\varepsilon/s$")
    right = axes[2]
    beta = np.geomspace(1.1, 4.4, 50)
    for L in np.unique(data["depth"][~path]):
        here = ~path & (data["depth"] == L)
        right.plot(beta, beta ** (-L / (L - 2)), color="black", linestyle="--", linewidth=0.8)
        right.plot(data["beta"][here], data["ratio"][here], **{**figures.depth_style(L), "linestyle": "none"})
        place = {"xytext": (6, 6), "textcoords": "offset points", "fontsize": 8}
        right.annotate(f"$L = {L:.0f}$", (2.0, 2.0 ** (-L / (L - 2))), **place)
    right.set(xscale="log", yscale="log", xlabel=r"$\beta$", ylabel=r"lost below $\varepsilon/s$")
    right.set_xticks([1.25, 2, 3, 4], ["1.25", "2", "3", "4"])
    right.minorticks_off()
    return fig
