"""NC1 of low-rank ends against minus log loss: with the plain pseudo-inverse, and at the rank of the end."""

from dufm import figures

LOOKS = {"plain": ("#882255", "x", "--"), "at the final rank": ("#332288", "o", "-")}


def draw(data):
    fig, ax = figures.subplots(width=3.4, height=2.6)
    for kind, (color, marker, dash) in LOOKS.items():
        here = (data["pseudo_inverse"] == kind) & (data["minus_log_loss"] > 0)
        x, y = data["minus_log_loss"][here], data["median"][here]
        ax.fill_between(x, data["low"][here], data["high"][here], color=color, alpha=0.18, linewidth=0)
        ax.plot(x, y, marker=marker, linestyle=dash, color=color)
        where = (x[0], y[0]), (0, -13) if kind == "plain" else (0, -78)
        label = "plain pseudo-inverse" if kind == "plain" else f"{kind}\n(band: 10–90%)"
        ax.annotate(label, where[0], xytext=where[1], textcoords="offset points", fontsize=8, color=color)
    ax.set(xscale="log", yscale="log", xlabel=r"$-\log\mathcal{L}$", ylabel="NC1, penultimate layer")
    return fig
