"""Portraits of classes: one polygon of the plane, the faces of a body, and classes inside the hull."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.transform import Rotation

from dufm import codes
from dufm.companion import portraits


@pytest.mark.parametrize(
    ("points", "faces", "corners"),
    [
        (np.pad(codes.polygon(5).numpy(), ((0, 0), (0, 1))), 1, 5),
        (codes.orthoplex(6).numpy(), 8, 3),
        (codes.hypercube(8).numpy(), 6, 4),
        (np.vstack([codes.hypercube(8).numpy(), [[0.1, 0.05, 0.0]]]), 6, 4),
    ],
)
def test_a_portrait_has_the_faces_of_its_body_and_a_dot_and_a_name_for_every_class(points, faces, corners):
    ax = Figure().subplots()
    names = [str(k) for k in range(len(points))]
    portraits.portrait(ax, np.array(points), "#004488", names)
    drawn = [patch for patch in ax.patches if not patch.get_fill()]
    assert len(drawn) == faces and {len(patch.get_xy()) - 1 for patch in drawn} == {corners}
    assert len(ax.collections) == len(points) and [text.get_text() for text in ax.texts] == names
    dots = np.array([dots.get_offsets()[0] for dots in ax.collections])
    places = np.array([text.get_position() for text in ax.texts])
    gap = np.linalg.norm(places - dots, axis=1)
    assert (gap > 0.01).all() and (gap < 0.35).all()


@pytest.mark.parametrize("classes", [3, 5])
def test_classes_in_a_plane_are_one_face_however_it_is_turned(classes):
    flat = np.pad(codes.polygon(classes).numpy(), ((0, 0), (0, 1))) + 0.1
    ax = Figure().subplots()
    portraits.turned(ax, Rotation.from_euler("xyz", [50, 30, 20], degrees=True).apply(flat), "#004488", 25.0)
    assert [len(patch.get_xy()) - 1 for patch in ax.patches if not patch.get_fill()] == [classes]
