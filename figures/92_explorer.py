"""One state of each panel's run: singular values along the loss and in the triangle or as bars, code, margin."""

import matplotlib
import numpy as np

from dufm import figures, portraits

TICKS = {0: "start", 4: "0", 7: "4", 10: "32", 14: "end"}
CORNERS = ((0, 0), (1, 0), (0.5, 3**0.5 / 2))


def draw(data):
    panels = list(dict.fromkeys(data["panel"]))
    grid = {"left": 0.09, "right": 0.99, "bottom": 0.2 / len(panels), "top": 1 - 0.06 / len(panels), "wspace": 0.4}
    size = {"width": 7.0, "height": 2.0 * len(panels), "squeeze": False, "gridspec_kw": {**grid, "hspace": 0.35}}
    fig, axes = figures.subplots(len(panels), 4, **size)
    fig.set_layout_engine("none")  # the places are known, and a slider waits for the picture
    for row, panel in zip(axes, panels, strict=True):
        draw_panel(row, {key: column[data["panel"] == panel] for key, column in data.items()})
        row[0].set_ylabel(f"{panel}:\nshares of the $s_i$")
    return fig


def draw_panel(row, data):
    classes = sum(key.startswith("x_") and not np.isnan(column[0]) for key, column in data.items())
    color = figures.PALETTE[figures.kind_of(str(data["name"][0]), classes)]
    now = int(np.flatnonzero(data["shown"])[0])
    columns = [column for key, column in data.items() if key.startswith("share_")]
    shares = np.stack([column for column in columns if not np.isnan(column.astype(float)).any()], 1)
    values, triangle, code, margin = row
    shades = matplotlib.colormaps["cividis"](np.linspace(0, 0.9, shares.shape[1]))
    values.set_prop_cycle(color=shades)
    values.plot(shares, linewidth=1.2)
    margin.plot(data["margin_ratio"], color=color)
    margin.plot(now, data["margin_ratio"][now], "o", color=color)
    margin.axhline(1.0, linestyle="--", color="black", linewidth=0.7)
    margin.set_ylabel("margin over NC's")
    for ax in (values, margin):
        ax.axvline(now, color="0.6", linewidth=0.6)
        ax.set_xticks(list(TICKS), TICKS.values(), fontsize=7)
        ax.set_xlabel(r"sharpness $-\log\mathcal{L}$")
    values.set_ylim(0, None)
    if shares.shape[1] == 3:
        draw_triangle(triangle, shares, now, color, shades)
    else:
        places = np.arange(1, shares.shape[1] + 1)
        triangle.bar(places, shares[now], color=shades)
        triangle.set(xlabel="$i$", xticks=places, ylabel="shares of the $s_i$", ylim=(0, None))
    points = np.array([[data[f"{axis}_{c}"][now] for axis in "xyz"] for c in range(classes)])
    portraits.turned(code, points, color, float(data["turn"][0]))
    code.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    code.set_axis_off()


def draw_triangle(ax, shares, now, color, shades):
    x, y = (shares @ CORNERS).T
    ax.plot(*np.transpose([*CORNERS, CORNERS[0]]), color="black", linewidth=0.5)
    ax.plot(x, y, color=color, linewidth=1.0)
    ax.plot(x[now], y[now], "o", color=color)
    ax.plot(x[-1], y[-1], "*", color=color, markersize=7)
    for i, place, side in ((1, (-0.07, -0.1), "right"), (2, (1.07, -0.1), "left"), (3, (0.59, 0.82), "left")):
        ax.annotate(f"$s_{i}$", place, ha=side, fontsize=8, annotation_clip=False)
        ax.plot(*CORNERS[i - 1], "s", color=shades[i - 1], markersize=5)
    ax.set(xlim=(-0.15, 1.15), ylim=(-0.2, 1.0), aspect="equal")
    ax.set_axis_off()
