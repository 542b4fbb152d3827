"""Singular values of the logits against log t: the linear network's marks on, or off, the lines of the model."""

import numpy as np

from dufm import figures


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=2.6, sharey=True)
    color = figures.depth_color(int(data["depth"][0]))
    titles = {"orthonormal": "orthonormal inputs", "one stretched": "one input stretched"}
    for ax, (inputs, title) in zip(axes, titles.items(), strict=True):
        for i in np.unique(data["number"]):
            here = (data["inputs"] == inputs) & (data["number"] == i)
            x, measured, model = (data[name][here] for name in ("log_time", "network", "model"))
            names = ("linear network (SciPy)", "deep UFM (dufm)") if i == 1 else (None, None)
            ax.plot(x, measured, "o", color=color, markerfacecolor="white", label=names[0])
            ax.plot(x, model, color="black", linestyle="--", linewidth=0.8, label=names[1])
        ax.set(xlabel=r"$\log t$", xlim=(-4, None))
        ax.set_title(title)
    for i in np.unique(data["number"]):
        last = (data["inputs"] == "one stretched") & (data["number"] == i) & (data["log_time"] == x[-1])
        end = (x[-1], data["network"][last][0])
        axes[1].annotate(rf"$\sigma_{i}$", end, xytext=(6, -3), textcoords="offset points")
    axes[0].set_ylabel(r"singular values of $Z$")
    axes[0].legend(loc="upper left")
    return fig
