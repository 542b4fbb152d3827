"""NC1 and the ratio of traces against minus log loss, a line for each layer, with the powers of the derivation."""

import numpy as np

from dufm import figures

LOOKS = (("#cc6677", "s", "--"), ("#332288", "o", "-"), ("#117733", "^", "-."), ("#882255", "D", ":"))


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.7)
    L, layers = int(data["depth"][0]), np.unique(data["layer"])
    panels = (
        ("nc1", r"NC1 $=\mathrm{Tr}(\Sigma_W\Sigma_B^+)/K$", 4),
        ("trace_ratio", r"$\mathrm{Tr}\,\Sigma_W/\mathrm{Tr}\,\Sigma_B$", 0),
    )
    for ax, (key, label, more) in zip(axes, panels, strict=True):
        for layer in layers:
            here = (data["layer"] == layer) & (data["minus_log_loss"] > 0)
            x, y, low, high = (data[name][here] for name in ("minus_log_loss", key, f"{key}_low", f"{key}_high"))
            color, marker, dash = LOOKS[(layer - 1) % len(LOOKS)]
            ax.fill_between(x, low, high, color=color, alpha=0.18, linewidth=0)
            where = "features" if layer == 1 else "penultimate" if layer == L - 1 else "hidden"
            ax.plot(x, y, marker=marker, linestyle=dash, color=color, label=f"layer {layer}, {where}")
            law = np.array([x[-1] / 8, x[-1]])
            power = -(2 * layer + more) / L
            ax.plot(law, y[-1] * (law / x[-1]) ** power, color="black", linestyle="--", linewidth=0.9)
            place = dict(xytext=(6, -3), textcoords="offset points", fontsize=8)
            ax.annotate(f"−{2 * layer + more}/{L}", (x[-1], y[-1]), **place)
        ax.set(xscale="log", yscale="log", xlabel=r"$-\log\mathcal{L}$", ylabel=label)
        ax.set_xlim(right=x[-1] * 2.2)
    axes[0].fill_between([], [], [], color="black", alpha=0.18, linewidth=0, label="10–90% of networks")
    axes[0].plot([], [], color="black", linestyle="--", linewidth=0.9, label="power, its exponent beside it")
    axes[0].legend(loc="lower left", fontsize=7)
    return fig
