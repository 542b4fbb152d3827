"""Share of collapse against width for four classes, a panel a depth, a line a scale."""

import matplotlib
import numpy as np

from dufm import figures, stats


def draw(data):
    of = (data["num_classes"] == 4) & (data["init"] == "gaussian")
    depths = np.unique(data["depth"][of])
    fig, axes = figures.subplots(1, len(depths), width=7.0, height=3.0, sharey=True, squeeze=False)
    for ax, L in zip(axes[0], depths, strict=True):
        scales = [s for s in np.unique(data["scale"][of & (data["depth"] == L)]) if _rows(data, of, L, s).sum() > 1]
        for place, s in enumerate(scales[::-1]):
            here = _rows(data, of, L, s)
            d, hits, total = (data[name][here] for name in ("width", "collapse", "networks"))
            ends = np.array([stats.wilson(k, n) for k, n in zip(hits, total, strict=True)]).T
            share = hits / total
            color = matplotlib.colormaps["viridis_r"](0.25 + 0.75 * place / max(len(scales) - 1, 1))
            ax.errorbar(
                d,
                share,
                abs(ends - share),
                fmt="osD^vP"[place % 6] + "-",
                color=color,
                linewidth=1,
                elinewidth=0.6,
                label=f"{s:g}",
            )
        ax.axhline(0.5, color="black", linestyle="--", linewidth=0.8)
        ax.set_xscale("log", base=2)
        ax.set_xticks([4, 8, 16, 32, 64, 128, 256], [4, 8, 16, 32, 64, 128, 256])
        ax.set(xlabel="hidden width $d$", xlim=(3.4, 300), ylim=(-0.03, 1.03))
        key = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": 3, "fontsize": 7, "title_fontsize": 9}
        ax.legend(title=f"$L = {L}$, scale $\\sigma$", handlelength=1.4, columnspacing=1.0, labelspacing=0.25, **key)
    axes[0][-1].annotate("one half", (300, 0.5), xytext=(0, 2), textcoords="offset points", ha="right", fontsize=7)
    axes[0][0].set_ylabel("share of collapse")
    return fig


def _rows(data, of, L, s):
    return of & (data["depth"] == L) & (data["scale"] == s)
