"""What trained networks draw: a body in the shallower network, a flat polygon in the deeper one, a column each K."""

import itertools

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

from dufm import figures

SUN = np.array([-0.45, 0.6, 0.66])
TILT = Rotation.from_euler("x", 20, degrees=True)
GONS = {4: "square", 5: "pentagon", 6: "hexagon", 7: "heptagon", 8: "octagon"}
BODIES = {"NC": "neural collapse", "2 pairs, 1 single": "square pyramid", "orthoplex": "octahedron"}


def draw(data):
    classes = np.unique(data["num_classes"])
    fig, axes = figures.subplots(2, len(classes), width=7.0, height=4.6, squeeze=False)
    for column, K in zip(axes.T, classes, strict=True):
        column[0].set_title(f"{K} classes", fontsize=11, pad=2)
        for ax, L in zip(column, np.unique(data["depth"][data["num_classes"] == K]), strict=False):
            here = (data["num_classes"] == K) & (data["depth"] == L)
            name, rank, runs, networks = (data[key][here][0] for key in ("name", "rank", "runs", "networks"))
            points = np.column_stack([data[axis][here] for axis in "xyz"])
            if rank == 2:
                color, title, points = figures.PALETTE["polygon"], GONS.get(K, f"{K}-gon"), upright(points)
                solid(ax, points, [np.arange(K)], color)
            else:
                kind = {"NC": "nc", "orthoplex": "orthoplex", "2 pairs, 1 single": "orthoplex"}.get(name, "other")
                color, title, points = figures.PALETTE[kind], BODIES.get(name, name), view(points)
                solid(ax, points, facets(points), color)
            ax.text(0, -1.20, title, ha="center", va="top", fontsize=10, weight="bold")
            ax.text(0, -1.48, f"depth {L} → rank {rank}", ha="center", va="top", fontsize=9)
            ax.text(0, -1.72, f"{runs} of {networks} networks", ha="center", va="top", fontsize=8, color="0.35")
    for ax in axes.flat:
        ax.set(xlim=(-1.2, 1.2), ylim=(-1.9, 1.1), aspect="equal")
        ax.set_axis_off()
    for ax, text in zip(axes[:, 0], ("shallower", "deeper"), strict=True):
        ax.text(-1.42, 0, text, rotation=90, ha="center", va="center", fontsize=11, color="0.35")
    fig.supxlabel("A dot is a class: its feature in a trained network, which had 16 dimensions to use.", fontsize=9)
    return fig


def upright(X):
    """A polygon in order round the circle, a vertex at the top."""
    X = X[np.argsort(np.arctan2(X[:, 1], X[:, 0]))]
    return Rotation.from_euler("z", np.pi / 2 - np.arctan2(X[0, 1], X[0, 0])).apply(X)


def view(X):
    """The body on its axis, or a vertex where it has none, tilted and spun to where its vertices are clearest."""
    _, sigma, axes = np.linalg.svd(X)
    gaps = [sigma[0] / sigma[1] - 1, sigma[1] / sigma[2] - 1]
    axis = X[0] if max(gaps) < 0.05 else axes[0 if gaps[0] > gaps[1] else 2]
    axis = axis / np.linalg.norm(axis) * (1 if ((X @ axis) ** 3).sum() > -1e-9 else -1)
    standing = Rotation.align_vectors([[0, 1, 0]], [axis])[0].apply(X)
    spins = Rotation.from_euler("y", np.arange(0, 360, 3)[:, None], degrees=True)
    edges = {tuple(sorted(edge)) for facet in facets(X) for edge in zip(facet, np.roll(facet, 1), strict=True)}
    return max((TILT.apply(spin.apply(standing)) for spin in spins), key=lambda turned: clearance(turned[:, :2], edges))


def clearance(flat, edges):
    """Smallest distance of a vertex from an edge that is not its own."""
    least = np.inf
    for i, (a, b) in itertools.product(range(len(flat)), edges):
        if i not in (a, b):
            along = flat[b] - flat[a]
            share = np.clip((flat[i] - flat[a]) @ along / max(along @ along, 1e-9), 0, 1)
            least = min(least, np.linalg.norm(flat[i] - flat[a] - share * along))
    return least


def facets(X):
    """Corners of the faces of the convex hull, in order; triangles in one plane are one face."""
    faces = {}
    for *normal, offset in ConvexHull(X).equations:
        corners = np.flatnonzero(np.abs(X @ normal + offset) < 1e-2)
        across, along = np.linalg.svd([normal])[2][1:]
        spokes = X[corners] - X[corners].mean(0)
        faces[tuple(corners)] = corners[np.argsort(np.arctan2(spokes @ across, spokes @ along))]
    return list(faces.values())


def solid(ax, X, faces, color):
    """Faces shaded by a light from above left, those behind first and dashed; a dot for each class."""
    color, plane = np.array(to_rgb(color)), len(faces) == 1
    for face in sorted(faces, key=lambda face: X[face, 2].mean()):
        normal = np.cross(X[face[1]] - X[face[0]], X[face[2]] - X[face[1]])
        normal *= (1 if normal @ X[face].mean(0) >= 0 else -1) / np.linalg.norm(normal)
        front = plane or normal[2] > 0
        pale = 0.62 if plane else 0.15 + 0.6 * max(normal @ SUN, 0)
        fill = {"facecolor": pale + (1 - pale) * color, "alpha": 0.75 if front else 0.3, "linewidth": 0}
        line = {"edgecolor": "0.15" if front else "0.6", "linewidth": 1.3 if front else 0.8, "joinstyle": "round"}
        ax.add_patch(Polygon(X[face, :2], zorder=3 if front else 1, **fill))
        dashes = "-" if front else (0, (3, 2))
        ax.add_patch(Polygon(X[face, :2], fill=False, zorder=4 if front else 2, linestyle=dashes, **line))
    height = np.ones(len(X)) if plane else (X[:, 2] - X[:, 2].min()) / np.ptp(X[:, 2])
    for x, h in zip(X, height, strict=True):
        shade = color if h > 0.3 else 0.4 + 0.6 * color
        dot = {"s": 26 + 38 * h, "color": [shade], "edgecolor": "white", "linewidth": 0.9}
        ax.scatter(*x[:2], zorder=5 if h > 0.3 else 2.5, **dot)
