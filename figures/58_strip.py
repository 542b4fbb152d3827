"""The plane of labels at K = 4, L = 3: which lags behind the leader end in neural collapse."""

import numpy as np
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.patches import Patch

from dufm import figures


def draw(data):
    """Ends as colours, the boundary integrated back as dashed lines."""
    pale = 0.45 * np.array(to_rgb(figures.PALETTE["polygon"])) + 0.55
    colors = {"collapse": figures.PALETTE["nc"], "square": pale, "undecided": "white"}
    kind = np.where(data["end"] == "collapse", 0, np.where(data["end"] == "undecided", 2, 1))
    side = round(len(kind) ** 0.5)
    far = data["lag_2"].max() + data["lag_2"].min()
    fig, ax = figures.subplots(width=3.4, height=3.2)
    ax.imshow(
        kind.reshape(side, side).T,
        origin="lower",
        extent=(0, far, 0, far),
        cmap=ListedColormap(list(colors.values())),
        vmin=0,
        vmax=2,
        interpolation="nearest",
    )
    x, first = np.unique(data["lag_2"], return_index=True)
    y = data["boundary"][first]
    for a, b in ((x, y), (y, x)):
        ax.plot(a, b, color="black", linestyle="--", linewidth=0.9)
    ax.set(
        xlim=(0, far), ylim=(0, far), xlabel="lag of the second, $y_2 - y_1$", ylabel="lag of the third, $y_3 - y_1$"
    )
    handles = [Patch(facecolor=colors["collapse"], label="neural collapse"), Patch(facecolor=pale, label="a square")]
    handles += ax.plot([], [], color="black", linestyle="--", linewidth=0.9, label="boundary")
    fig.legend(handles=handles, loc="outside upper center", ncols=3, fontsize=8, columnspacing=1, handlelength=1.4)
    return fig
