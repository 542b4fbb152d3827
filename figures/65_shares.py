"""Share of collapse from balanced random starts: against the scale for 4, 5, 6 classes, and against that of four."""

import numpy as np

from dufm import figures


def draw(data):
    fig, axes = figures.subplots(2, 2, width=7.0, height=5.6)
    theory = {"color": "black", "linestyle": "--", "linewidth": 0.8, "zorder": 1}
    deep = (data["depth"] > 2) & (data["collapse"] > 0)
    for ax, K in zip(axes.flat, (4, 5, 6), strict=False):
        if not (deep & (data["num_classes"] == K)).any():
            ax.set_axis_off()
            continue
        least = data["share"][deep & (data["num_classes"] == K)].min()
        for L in np.unique(data["depth"][deep & (data["num_classes"] == K)]):
            here = deep & (data["num_classes"] == K) & (data["depth"] == L)
            x, share, low, high = (data[name][here] for name in ("scale", "share", "low", "high"))
            style = {**figures.depth_style(L), "linestyle": ""}
            ax.errorbar(x, share, [share - low, high - share], **style, capsize=2, label=f"$L={L:.0f}$")
            well = np.flatnonzero(data["collapse"][here] >= 50)
            if len(well):
                span = np.array([0.8 * x.min(), 1.2 * x.max()])
                law = share[well[0]] * (span / x[well[0]]) ** ((1 - 2 / L) * K * (K - 3) / 2)
                ax.plot(span, law, **theory)
                least = min(least, law[0])
            if K == 4:
                ax.plot(x, data["hadamard"][here], color="0.6", linewidth=0.9, zorder=0)
        ax.set(xscale="log", yscale="log", xlabel="initial scale $s_0$", ylim=(0.5 * least, 1.3))
        ax.set_title(f"$K = {K}$, dashed: slope ${K * (K - 3) // 2}q$")
        if K == 4:
            ax.plot([], [], color="0.6", linewidth=0.9, label="Hadamard starts")
        else:
            _plain_ticks(ax, (0.03, 0.1, 0.3, 1, 2) if K == 5 else (0.3, 0.5, 1, 2))
    ax = axes[1][1]
    for K, filled in ((5, True), (6, False)):
        for L in np.unique(data["depth"][deep & (data["num_classes"] == K)]):
            own, four = (deep & (data["num_classes"] == k) & (data["depth"] == L) for k in (K, 4))
            _, i, j = np.intersect1d(data["scale"][own], data["scale"][four], return_indices=True)
            x, (y, low, high) = data["share"][four][j], (data[name][own][i] for name in ("share", "low", "high"))
            if not len(x):
                continue
            face = figures.depth_color(L) if filled else "white"
            style = {**figures.depth_style(L), "linestyle": "", "markerfacecolor": face}
            ax.errorbar(x, y, [y - low, high - y], **style, capsize=2)
            if L == 3:
                law = y[-1] * (x / x[-1]) ** (K * (K - 3) / 4)
                ax.plot(x, law, **theory)
                ax.annotate(f"$K = {K}$", (x[-1], y[-1]), xytext=(8, -3), textcoords="offset points", fontsize=8)
    if ax.containers:
        ax.set(xscale="log", yscale="log", xlabel="share at four classes", ylabel="share at five, six")
        ax.margins(x=0.15)
        _plain_ticks(ax, (0.2, 0.3, 0.4, 0.6))
        ax.set_title("dashed: powers $K(K-3)/4$, through $L = 3$")
    else:
        ax.set_axis_off()
    for left in axes[:, 0]:
        left.set_ylabel("share of neural collapse")
    keys = {label: mark for ax in axes.flat for mark, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(keys.values(), keys.keys(), loc="outside upper center", ncols=len(keys))
    return fig


def _plain_ticks(ax, ticks):
    """Numbers at the given places alone: within a decade the powers of ten that a log axis writes overlap."""
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
