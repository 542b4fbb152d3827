"""Portraits of classes: a dot each, the body or polygon that they span, seen from where its corners are clearest."""

import itertools
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Polygon
from scipy.spatial import ConvexHull
from scipy.spatial.transform import Rotation

__all__ = ["portrait", "turned"]

SUN = np.array([-0.45, 0.6, 0.66])
TILT = Rotation.from_euler("x", 20, degrees=True)
FLAT = 1e-9
NEARLY_FLAT = 0.02


def portrait(ax, points, color, names=()):
    """Draw classes at ``points`` ``(K, 3)``, K ≥ 3, of mean length 1: a polygon where all third entries are zero.

    A class inside the hull of the others is a dot without edges.  ``names``: words beside the dots, one a class.
    """
    flat = np.abs(points[:, 2]).max() < FLAT
    points = upright(points) if flat else view(points)
    solid(ax, points, [around(points)] if flat else facets(points), color)
    for (x, y, _), name in zip(points, names, strict=False):
        away = 1 + 0.2 / max(np.hypot(x, y), 0.2)
        ax.text(away * x, away * y, name, ha="center", va="center", fontsize=9, zorder=6)


def turned(ax, points, color, angle):
    """Draw classes at ``points`` ``(K, 3)`` as they stand, turned by ``angle`` degrees about the vertical axis.

    Unlike :func:`portrait` it chooses no view, so that pictures of points that move are frames of one film.
    """
    flat = np.ptp(points[:, 2]) < NEARLY_FLAT
    faces = [around(points)] if flat else facets(points)
    solid(ax, TILT.apply(Rotation.from_euler("y", angle, degrees=True).apply(points)), faces, color)


def around(X):
    """Order of points in the plane round the circle."""
    return np.argsort(np.arctan2(X[:, 1], X[:, 0]))


def upright(X):
    """A polygon with a vertex at the top."""
    x, y, _ = X[around(X)[0]]
    return Rotation.from_euler("z", np.pi / 2 - np.arctan2(y, x)).apply(X)


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
            least = min(least, float(np.linalg.norm(flat[i] - flat[a] - share * along)))
    return least


def facets(X):
    """Corners of the faces of the convex hull, in order; triangles in one plane are one face, and so are all points."""
    _, sigma, axes = np.linalg.svd(X - X.mean(0))
    if len(X) == 3 or sigma[2] < FLAT:
        return [around((X - X.mean(0)) @ axes.T)]
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
        fill: dict[str, Any] = {"facecolor": pale + (1 - pale) * color, "alpha": 0.75 if front else 0.3, "linewidth": 0}
        line: dict[str, Any] = {
            "edgecolor": "0.15" if front else "0.6",
            "linewidth": 1.3 if front else 0.8,
            "joinstyle": "round",
        }
        ax.add_patch(Polygon(X[face, :2], zorder=3 if front else 1, **fill))
        dashes = "-" if front else (0, (3, 2))
        ax.add_patch(Polygon(X[face, :2], fill=False, zorder=4 if front else 2, linestyle=dashes, **line))
    height = np.ones(len(X)) if plane else (X[:, 2] - X[:, 2].min()) / np.ptp(X[:, 2])
    for x, h in zip(X, height, strict=True):
        shade = color if h > 0.3 else 0.4 + 0.6 * color
        dot = {"s": 26 + 38 * h, "color": [shade], "edgecolor": "white", "linewidth": 0.9}
        ax.scatter(*x[:2], zorder=5 if h > 0.3 else 2.5, **dot)
