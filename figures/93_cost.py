"""What is reached against what it has cost, a line a method: gradients on the left, processor seconds on the right."""

from dufm import figures

STYLES = {
    "dufm": ("#004488", "-", "o"),
    "LSODA, Jacobian": ("#009e73", ":", "s"),
    "SciPy LSODA": ("#009e73", "-", "s"),
    "SciPy BDF": ("#aa3377", "-", "D"),
    "torchdiffeq dopri5": ("#e69f00", "-", "^"),
    "loss-scaled steps": ("#e69f00", "-.", "v"),
    "Adam": ("#808080", "--", "x"),
    "constant steps": ("#000000", "--", "+"),
}
LABELS = {
    "dufm": "this package, one network",
    "LSODA, Jacobian": "SciPy's LSODA, given a Jacobian",
    "SciPy LSODA": "SciPy's LSODA",
    "SciPy BDF": "SciPy's BDF",
    "torchdiffeq dopri5": "torchdiffeq",
    "loss-scaled steps": "steps scaled by the loss",
    "Adam": "Adam (not on the path)",
    "constant steps": "constant steps",
}
ENDS = {
    "64 at once": {"marker": "P", "markersize": 11, "markerfacecolor": "white"},
    "1 at once": {"marker": "*", "markersize": 6},
}
TOP = 4e4


def draw(data):
    fig, axes = figures.subplots(1, 2, width=7.0, height=3.6, sharey=True)
    for ax, cost in zip(axes, ("gradients", "processor"), strict=True):
        for method, (color, dash, marker) in STYLES.items():
            here = data["method"] == method
            ax.plot(
                data[cost][here], data["m"][here], color=color, linestyle=dash, marker=marker, label=LABELS[method]
            )
        for end, look in ENDS.items():
            here = data["method"] == f"decided end, {end}"
            ax.plot(
                data[cost][here], [TOP], color="#004488", clip_on=False, linestyle="", zorder=3, **look,
                label="this package, certified end, " + ("one network" if end == "1 at once" else f"one of {end}"),
            )
        ax.axhline(TOP, color="0.8", linewidth=0.6, zorder=0)
        ax.set(xscale="log", yscale="log", ylim=(0.8, TOP))
    stopped = data["method"] == "constant steps"
    axes[0].annotate(
        "ten times more\nfor every 2.3", (data["gradients"][stopped][-1], data["m"][stopped][-1]), (12, -6),
        textcoords="offset points", va="top", ha="right", fontsize=8,
    )
    axes[0].set(xlabel="gradients a network", ylabel="reached: $-\\log$ loss")
    axes[0].set_yticks([1, 10, 100, 1000, 1e4, TOP], ["1", "10", "100", "$10^3$", "$10^4$", "end"])
    axes[1].set(xlabel="processor seconds a network")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig
