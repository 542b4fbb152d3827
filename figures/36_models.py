"""How well the rank is predicted in held-out cells: log score against the loss at which one looks, and mean ranks."""

import numpy as np

from dufm import figures

LOSSES = (0.9, 0.5, 0.1, 0.01)
CELLS = {"constant": "a constant", "two": r"$\log d$, $L$", "five": "all five numbers of the cell"}


def draw(data):
    fig, (left, right) = figures.subplots(1, 2, width=7.0, height=2.9)
    held = data["role"] == "held out"
    score = {name: data["log_score"][held & (data["model"] == name)] for name in np.unique(data["model"])}
    rng = np.random.default_rng(0)
    laws = [score[f"law {share:g}"] for share in LOSSES]
    means = [s.mean() for s in laws]
    bands = [np.quantile(s[rng.integers(len(s), size=(2000, len(s)))].mean(1), [0.025, 0.975]) for s in laws]
    law = figures.PALETTE["orthoplex"]
    left.fill_between(LOSSES, *np.transpose(bands), color=law, alpha=0.2, linewidth=0)
    left.plot(LOSSES, means, "o-", color=law)
    left.annotate(
        "law of the spectrum", (LOSSES[2], means[2]), xytext=(-6, 8), textcoords="offset points", ha="right", color=law
    )
    for name, label in CELLS.items():
        height, below = score[name].mean(), name == "two"
        left.axhline(height, color="black", linestyle="--", linewidth=0.8)
        place = {"xytext": (0, -9 if below else 2), "textcoords": "offset points", "ha": "right", "fontsize": 7.5}
        left.annotate(label, (0.0085, height), **place)
    low, high = min(score[name].mean() for name in CELLS), bands[-1][1]
    left.set_ylim(low - 0.15, high + 0.05)
    left.set(xscale="log", xlim=(1.1, 0.008), xlabel=r"loss at which one looks, over $K\log K$")
    left.set_xticks(LOSSES, [f"{share:g}" for share in LOSSES])
    left.minorticks_off()
    left.set(ylabel="mean log score of the rank")
    half = held & (data["model"] == "law 0.5")
    low, high = 1.8, max(data["found"][half].max(), data["expected"][half].max(), 3) + 0.3
    right.plot([low, high], [low, high], color="black", linestyle="--", linewidth=0.8)
    for L in np.unique(data["depth"][held]):
        here = half & (data["depth"] == L)
        style = {name: value for name, value in figures.depth_style(L).items() if name in ("color", "marker")}
        right.plot(
            data["expected"][here], data["found"][here], linestyle="", markersize=4.5, label=f"$L = {L}$", **style
        )
    right.legend(loc="upper left", handletextpad=0.2)
    right.set(
        xlim=(low, high), ylim=(low, high), xlabel="mean rank expected at half of the loss", ylabel="mean rank found"
    )
    return fig
