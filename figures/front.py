"""The moving picture of the front page: one start with six classes, trained with two, four and six layers.

``python figures/front.py`` runs the flow, judges the ends and writes front.csv, .gif, .png and .json beside this file.
"""

from pathlib import Path

import numpy as np
import pandas
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from PIL import Image
from scipy.spatial import ConvexHull

import dufm
from dufm import figures
from dufm.companion import files
from dufm.companion.versions import versions

RUN = {"num_classes": 6, "depths": [2, 4, 6], "scale": 1e-3, "spread": 0.1, "starts": 64, "shown": 14, "seed": 0}
MOMENTS, LARGEST = 110, 4000.0
ALT = (
    "Moving picture in three columns, depth 2, 4 and 6, of six classes trained from the same start. Five singular "
    "values, nearly equal at first, become equal at depth 2; at depth 4 and 6 they move apart, and three and two stay. "
    "The classes end as a simplex in five dimensions, an octahedron in three, a flat hexagon in two."
)
WORDS = {"NC": ("simplex", "nc"), "orthoplex": ("octahedron", "orthoplex"), "polygon": ("hexagon", "polygon")}

SIZE, DPI, COLORS = (8.3, 4.6), 110, 48
REST, HOLD, FRAME_MS = 4, 16, 80  # frames before and after the training
ELEVATION = np.radians(30)
SLANT = np.array([[0.6, 0.1], [-0.1, 0.6], [0.25, -0.45]])  # where the picture puts the fourth and fifth direction
GREY = np.full(3, 0.42)


def starts():
    """Logits near collapse, ``(starts, K, K)``: ``scale`` times the centring matrix and a Gaussian one beside it."""
    K = RUN["num_classes"]
    generator = torch.Generator().manual_seed(RUN["seed"])
    noise = torch.randn(RUN["starts"], K, K, generator=generator, dtype=torch.float64)
    centre = torch.eye(K, dtype=torch.float64) - 1 / K
    return RUN["scale"] * (centre + RUN["spread"] * centre @ noise @ centre / (K - 1) ** 0.5)


def levels(moments=MOMENTS):
    """Values of log loss, falling, between which equal singular values would grow by a constant factor."""
    sizes = np.geomspace(1.05 * RUN["scale"], LARGEST, moments)
    return [dufm.nc_log_loss(size, RUN["num_classes"]) for size in sizes]


def train(Z, depth, marks):
    """Logits ``(len(marks), ..., K, K)`` of balanced layers on their way from ``Z``."""
    factors = dufm.balanced_init(Z, depth)
    run = dufm.gradient_flow(factors, until_log_loss=marks[-1], rtol=1e-6, record={"log_loss": marks})
    return dufm.product(run.history.factors)


def ends(Z, depth):
    """The certified end of each start."""
    return dufm.end(dufm.limit(dufm.gradient_flow(dufm.balanced_init(Z, depth), until_log_loss=-1e4)), depth)


def directions(paths):
    """Five orthonormal directions ``(K − 1, K)``: the deepest's plane, the one that a body adds to it, the rest."""
    middle, deepest = (torch.linalg.svd(path[-1])[2] for path in paths[1:])
    plane = deepest[:2]
    beyond = middle[:3] - middle[:3] @ plane.mT @ plane
    third = torch.linalg.svd(beyond)[2][:1]
    taken = torch.cat([plane, third, torch.ones_like(third) / third.shape[1] ** 0.5])
    return torch.cat([plane, third, torch.linalg.svd(taken)[2][4:]])


def places(Z, axes):
    """The classes ``(..., K, K − 1)`` as rows of ``(ZᵀZ)^{1/2}`` in these directions, the farthest at length 1."""
    _, sigma, Vh = torch.linalg.svd(Z)
    X = Vh.mT @ (sigma[..., None] * Vh) @ axes.mT
    return X / X.norm(dim=-1, keepdim=True).amax(-2, keepdim=True)


def table():
    """The film's numbers, a row for each depth, moment and class; how many starts end as the one shown, by depth."""
    Z, marks, rows = starts(), levels(), []
    paths = [train(Z[RUN["shown"]], depth, marks) for depth in RUN["depths"]]
    axes = directions(paths)
    for depth, path in zip(RUN["depths"], paths, strict=True):
        end = ends(Z, depth)
        name, rank = end.name[RUN["shown"]], int(end.rank[RUN["shown"]])
        alike = int((end.decided.numpy() & (end.name == name)).sum())
        for moment, (log_loss, X) in enumerate(zip(marks, places(path, axes), strict=True)):
            rows += [(depth, moment, log_loss, name, rank, alike, *x.tolist()) for x in X]
    columns = ["depth", "moment", "log_loss", "end", "rank", "alike", *(f"x{i}" for i in range(1, 6))]
    return pandas.DataFrame(rows, columns=columns)


def smooth(low, high, x):
    """0 up to ``low``, 1 from ``high`` on, a smooth step between."""
    t = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def seen(X, turn):
    """Points ``(K, 5)`` on a turntable, ``turn`` of it in [0, 1], seen from a little above; z towards the reader."""
    x, y, height = (X[:, :3] + X[:, 3:] @ SLANT.T).T
    c, s = np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)
    x, y = c * x - s * y, s * x + c * y
    c, s = np.cos(ELEVATION), np.sin(ELEVATION)
    return np.column_stack([x, c * height - s * y, s * height + c * y])


def body(ax, X, turn, color):
    """Dots, their hull pale, and lines between classes that are neighbours, told by all five dimensions."""
    P = seen(X, turn)
    gaps = np.linalg.norm(X[:, None] - X[None], axis=-1) + 9 * np.eye(len(X))
    nearest = gaps.min(1)
    weight = 1 - smooth(1.12, 1.38, gaps / np.maximum(nearest, nearest[:, None]))
    ax.add_patch(Polygon(P[ConvexHull(P[:, :2]).vertices, :2], facecolor=0.82 + 0.18 * color, linewidth=0, zorder=0))
    i, j = np.nonzero(np.triu(weight > 0.02, 1))
    z = (P[i, 2] + P[j, 2]) / 2
    front = smooth(-0.9, 0.9, z)
    shade = 1 - (weight[i, j] * (0.45 + 0.55 * front))[:, None] * (1 - color)
    lines = np.stack([P[i, :2], P[j, :2]], axis=1)
    near = smooth(-1.1, 1.1, P[:, 2])
    dots = 0.35 * (1 - near)[:, None] + (0.65 + 0.35 * near)[:, None] * color
    for level, edges, points in ((1, z <= 0, P[:, 2] <= 0), (3, z > 0, P[:, 2] > 0)):
        style = {"colors": shade[edges], "linewidths": 0.9 + 1.5 * front[edges], "capstyle": "round"}
        ax.add_collection(LineCollection(lines[edges], zorder=level, **style))
        style = {"s": 42 + 75 * near[points], "color": dots[points], "edgecolor": "white", "linewidth": 1.0}
        ax.scatter(*P[points, :2].T, zorder=level + 1, **style)
    ax.set(xlim=(-1.12, 1.12), ylim=(-1.12, 1.08), aspect="equal")
    ax.set_axis_off()


def spectrum(ax, values, moment, color):
    """Singular values over the largest, up to this moment."""
    time = np.linspace(0, 1, len(values))
    ax.plot(time[: moment + 1], values[: moment + 1], color=color, linewidth=1.6, solid_capstyle="round")
    ax.scatter(time[[moment] * values.shape[1]], values[moment], s=20, color=[color], zorder=3, clip_on=False)
    ax.set(xlim=(0, 1), ylim=(-0.03, 1.05), yticks=[0, 1], xticks=[])
    ax.tick_params(length=0)


def picture(data, moment, turn):
    """One frame as an RGB image: ``moment`` of training, ``turn`` of the table in [0, 1]."""
    fig = Figure(figsize=SIZE, dpi=DPI)
    FigureCanvasAgg(fig)
    for column, depth in enumerate(RUN["depths"]):
        here = data["depth"] == depth
        above = fig.add_axes((0.055 + 0.32 * column, 0.36, 0.30, 0.575))
        below = fig.add_axes((0.065 + 0.32 * column, 0.075, 0.28, 0.16))
        X = np.column_stack([data[f"x{i}"][here] for i in range(1, 6)]).reshape(MOMENTS, -1, 5)
        values = np.linalg.svd(X, compute_uv=False)
        values /= values[:, :1]
        end, rank, alike = (data[key][here][0] for key in ("end", "rank", "alike"))
        word, kind = WORDS[end]
        away = np.linalg.norm(values[moment:] - (np.arange(5) < rank), axis=1).max()
        there = smooth(0.45, 0.1, away) if moment > MOMENTS / 2 else 0.0
        color = GREY + there * (np.array(to_rgb(figures.PALETTE[kind])) - GREY)
        body(above, X[moment], turn, color)
        spectrum(below, values, moment, color)
        above.set_title(f"depth {depth}", fontsize=14, pad=0)
        place = {"ha": "center", "va": "top", "transform": above.transAxes}
        above.text(
            0.5, 0.0, f"{word}, {rank} dimensions", fontsize=12, weight="bold", color=[1 - 0.85 * there] * 3, **place
        )
        above.text(0.5, -0.1, f"{alike} of {RUN['starts']} starts", fontsize=9, color=[1 - 0.6 * there] * 3, **place)
        if column == 0:
            below.set_ylabel("singular\nvalues", fontsize=10)
        if column == 1:
            below.set_xlabel("training, from the same start", fontsize=10, labelpad=5)
    fig.canvas.draw()
    return Image.fromarray(np.asarray(fig.canvas.buffer_rgba())[..., :3].copy())


def stored(path):
    """The columns of the table beside this file."""
    table = pandas.read_csv(path.with_suffix(".csv"), keep_default_na=False)
    return {key: column.to_numpy() for key, column in table.items()}


def script():
    """``[(moment, turn)]`` of all frames: the start rests, training, the ends turn on."""
    order = [*[0] * REST, *range(MOMENTS), *[MOMENTS - 1] * HOLD]
    return [(moment, frame / len(order)) for frame, moment in enumerate(order)]


def write(path):
    """From the table beside ``path``: the film as a GIF, its last frame as a PNG, one palette for both; provenance."""
    with figures.style():
        frames = [picture(stored(path), moment, turn) for moment, turn in script()]
    sample = Image.new("RGB", (frames[0].width, 4 * frames[0].height))
    for row, frame in enumerate(frames[:: len(frames) // 3][:3] + frames[-1:]):
        sample.paste(frame, (0, row * frame.height))
    palette = sample.quantize(COLORS, kmeans=2)
    tones = np.array(palette.getpalette()).reshape(-1, 3)
    tones[tones.min(1) > 247] = 255  # the ground is white, not the mean of all that is nearly so
    palette.putpalette(tones.flatten().tolist())
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    options = {"save_all": True, "append_images": frames[1:], "duration": FRAME_MS, "loop": 0, "optimize": False}
    frames[0].save(path.with_suffix(".gif"), **options)
    frames[-1].save(path.with_suffix(".png"), optimize=True)
    origin = {"script": files.digest(path), "data": files.digest(path.with_suffix(".csv")), "versions": versions()}
    files.write_json(path.with_suffix(".json"), {"figure": path.stem, "alt": ALT, "parameters": RUN, **origin})


if __name__ == "__main__":
    table().to_csv(Path(__file__).with_suffix(".csv"), index=False, float_format="%.6g", lineterminator="\n")
    write(Path(__file__))
