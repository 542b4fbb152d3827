"""Share of neural collapse against the initial scale, four and eight classes, with theory and the naive count."""

import numpy as np

from dufm import figures


def draw(data):
    """One panel a number of classes."""
    counts = np.unique(data["num_classes"])
    fig, axes = figures.subplots(1, len(counts), width=7.0, height=3.0, squeeze=False)
    for ax, K in zip(axes[0], counts, strict=True):
        for L in np.unique(data["depth"][data["num_classes"] == K]):
            here = (data["num_classes"] == K) & (data["depth"] == L)
            order = np.argsort(data["scale"][here])
            x, share, error, law = (data[name][here][order] for name in ("scale", "share", "error", "leading"))
            ax.errorbar(x, share, 1.96 * error, **{**figures.depth_style(L), "linestyle": ""}, capsize=2)
            ax.plot(x, law, color="black", linestyle="--", linewidth=0.8, zorder=1)
            place = {"xytext": (-6, 0), "textcoords": "offset points", "ha": "right", "va": "center", "fontsize": 8}
            ax.annotate(f"$L={L}$", (x[0], share[0]), **place)
            if L == 3:
                naive = share[-1] * (x / x[-1]) ** ((1 - 2 / L) * (K - 2))
                ax.plot(x, naive, color="black", linestyle=":", linewidth=0.9, zorder=1)
        ax.set(xscale="log", yscale="log", xlabel="initial scale $s_0$")
        ax.margins(x=0.12, y=0.1)
        left, right = ax.get_xlim()
        ax.set_xlim(left * (left / right) ** 0.1, right)  # room for the depths
        ax.set_xticks(10.0 ** np.arange(-30, 0, 6) if x[0] < 1e-12 else 10.0 ** np.arange(-10, 0, 2))
        ax.minorticks_off()
        ax.set_title(f"$K = {K}$, " + ("by quadrature" if K == 4 else "by sampling"))
        dashed = "sharper law, not proved" if K == 4 else "$c_L$ times fourth power of left"
        ax.plot([], [], color="black", linestyle="--", linewidth=0.8, label=dashed)
        ax.plot([], [], color="black", linestyle=":", linewidth=0.9, label="slope $q(K-2)$, $L=3$")
        ax.legend(loc="lower right", fontsize=7)
    axes[0][0].set_ylabel("share of neural collapse")
    return fig
