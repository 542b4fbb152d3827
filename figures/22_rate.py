"""Loss times time times a power of log time over its limit: left on the ray of collapse, right from other ends."""

import numpy as np

from dufm import figures


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.6, sharey=True)
    ray = data["end"] == "neural collapse"
    for L in np.unique(data["depth"][ray]):
        x, y, law = (data[name][ray & (data["depth"] == L)] for name in ("minus_log_loss", "measured", "integral"))
        axes[0].plot(x, law, color="black", linestyle="--", linewidth=0.8)
        axes[0].plot(x, y, **figures.depth_style(L) | {"linestyle": ""})
        axes[0].annotate(f"$L={L}$", (x[0], y[0]), xytext=(-6, 0), textcoords="offset points", ha="right", va="center")
    axes[0].plot([], [], color="black", linestyle="--", linewidth=0.8, label="integral of the scalar law")
    axes[0].plot([], [], color="0.4", marker="o", linestyle="", label="full network")
    axes[0].legend(loc="lower right")
    axes[0].set_title(f"neural collapse, $K={data['num_classes'][ray][0]}$")
    looks = {"square": "polygon", "orthoplex of 6": "orthoplex", "two pairs, two single": "other"}
    for end, look in looks.items():
        here = data["end"] == end
        label = f"{end}, $L={data['depth'][here][0]}$"
        axes[1].plot(data["minus_log_loss"][here], data["measured"][here], color=figures.PALETTE[look],
                     marker=figures.MARKER[look], linestyle=figures.LINESTYLE[look], label=label)
    axes[1].legend(loc="lower right")
    axes[1].set_title("other ends")
    for ax in axes:
        ax.axhline(1.0, color="0.6", linewidth=0.8)
        ax.set(xscale="log", xlabel=r"$-\log\mathcal{L}$")
    axes[0].set_xlim(9, None)
    axes[0].set_ylabel(r"$\mathcal{L}\,t\,(\log t)^{2-2/L}\;/\;$limit")
    return fig
