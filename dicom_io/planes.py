"""Pictures of planes through the patient: grey CT with the structures in colour.

A plane is laid out in patient coordinates and sampled from there. So left and right, top and bottom and the aspect
ratio come from the geometry, whatever the order or the direction of the slices in the files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from dicom_io.boxes import boxes_of
from dicom_io.colours import structure_colour
from dicom_io.findings import Findings
from dicom_io.sampling import Points, sample
from engine.labels import LabelSet
from engine.segmentation import Segmentation

PATIENT_LEFT = np.array([1.0, 0.0, 0.0])  # LPS, PS3.3 C.7.6.2.1.1
POSTERIOR = np.array([0.0, 1.0, 0.0])
HEAD = np.array([0.0, 0.0, 1.0])

_WINDOW_CENTRE_HU, _WINDOW_WIDTH_HU = 40.0, 400.0
_FILL = 0.42  # how much of a pixel inside a structure is its colour
_SUPERSAMPLING = 2  # smooths the borders of the structures

# Where the axial pictures lie: part of the femora's length, from their top.
AXIAL_LEVELS: Mapping[str, float] = {"Hip": 0.05, "Proximal": 0.27, "Mid": 0.52, "Distal": 0.80}


@dataclass(frozen=True, eq=False)
class Box:
    """A box in the patient, aligned with the patient's axes.

    Attributes:
        low: its corner with the least x, y and z, LPS mm.
        high: its corner with the greatest.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    def grown(self, margin_mm: float) -> Box:
        """The box with a margin all around."""
        return Box(self.low - margin_mm, self.high + margin_mm)


@dataclass(frozen=True)
class Level:
    """Where an axial picture lies.

    Attributes:
        name: what it is called on the page.
        z_mm: its height, LPS.
    """

    name: str
    z_mm: float


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane as it lies on the picture.

    Attributes:
        centre: the point in the middle of the picture, LPS mm.
        right: unit vector towards the right of the picture.
        down: unit vector towards the bottom of the picture.
        pixel_mm: side of a pixel, mm; pixels are square.
        size: width and height in pixels.
    """

    centre: NDArray[np.float64]
    right: NDArray[np.float64]
    down: NDArray[np.float64]
    pixel_mm: float
    size: tuple[int, int]

    def points(self, finer: int = 1) -> Points:
        """The pixel centres; `finer` times as many in each direction."""
        width, height = (finer * extent for extent in self.size)
        step_mm = self.pixel_mm / finer
        across = (np.arange(width) - (width - 1) / 2) * step_mm
        along = (np.arange(height) - (height - 1) / 2) * step_mm
        return Points(self.centre, along[:, None] * self.down, across[:, None] * self.right)

    def row_of(self, point: NDArray[np.float64]) -> float:
        """The picture row at which a point lies."""
        return float((point - self.centre) @ self.down / self.pixel_mm + (self.size[1] - 1) / 2)


def axial_plane(z_mm: float, box: Box, pixel_mm: float, size: tuple[int, int]) -> Plane:
    """The axial plane at a height, seen from the feet: the patient's right is on the left of the picture."""
    centre = (box.low + box.high) / 2 * (1, 1, 0) + (0, 0, z_mm)
    return Plane(centre, PATIENT_LEFT, POSTERIOR, pixel_mm, size)


def coronal_plane(y_mm: float, box: Box, pixel_mm: float, size: tuple[int, int]) -> Plane:
    """The coronal plane at a depth, seen from the front: the patient's right is on the left of the picture."""
    centre = (box.low + box.high) / 2 * (1, 0, 1) + (0, y_mm, 0)
    return Plane(centre, PATIENT_LEFT, -HEAD, pixel_mm, size)


def axial_levels(segmentation: Segmentation) -> tuple[Level, ...]:
    """The heights of the axial pictures, from the head downwards; none where no voxel is labelled.

    They are parts of the length of the femora, or of all structures where there is no femur. A part has its name only
    on whole femora: where the scan begins or ends within one, 5 % of what is seen may be anywhere, and a level is
    called by its height.
    """
    femora = femora_of(segmentation)
    box = femora or box_of(segmentation)
    if box is None:
        return ()
    named = femora is not None and not _femur_at_an_end(segmentation)
    heights = {name: float(box.high[2] - part * (box.high[2] - box.low[2])) for name, part in AXIAL_LEVELS.items()}
    return tuple(Level(name if named else f"z {round(z_mm)} mm (LPS)", z_mm) for name, z_mm in heights.items())


def _femur_at_an_end(segmentation: Segmentation) -> bool:
    """Whether a femur reaches the end of the scan towards head or feet, on whichever axis of the grid that is."""
    grid = segmentation.grid
    axis = int(np.abs(grid.affine[2, :3] / grid.spacing_mm).argmax())
    labels = segmentation.label_set
    numbers = [each.number for each in labels.segments if each.structure.key == labels.femur]
    return bool(np.isin(segmentation.labels.take([0, -1], axis=axis), numbers).any())


def femora_of(segmentation: Segmentation) -> Box | None:
    """The box around the femora; None where there are none, or the label set knows none."""
    return box_of(segmentation, frozenset(filter(None, (segmentation.label_set.femur,))))


def box_of(segmentation: Segmentation, structures: frozenset[str] | None = None) -> Box | None:
    """The box around all labelled voxels, or around those of some structures; None where there are none."""
    boxes = boxes_of(segmentation)
    corners = [
        corner
        for segment in segmentation.label_set.segments[: len(boxes)]
        if (box := boxes[segment.number - 1]) is not None
        and (structures is None or segment.structure.key in structures)
        for corner in product(*((axis.start, axis.stop - 1) for axis in box))
    ]
    if not corners:
        return None
    points = segmentation.grid.to_patient(np.array(corners, dtype=np.float64))
    return Box(points.min(axis=0), points.max(axis=0))


def picture(findings: Findings, plane: Plane) -> NDArray[np.uint8]:
    """The plane as RGB [row, column, 3]: CT in a soft tissue window, structures filled and outlined."""
    volume, segmentation = findings.volume, findings.segmentation
    hu, labels = sample(volume.hu, segmentation.labels, volume.grid, plane.points(_SUPERSAMPLING))
    grey = np.clip((hu - _WINDOW_CENTRE_HU) / _WINDOW_WIDTH_HU + 0.5, 0, 1) * 255
    paint, greyness = _paints(segmentation.label_set)
    kind = labels + 256 * _outline(labels).astype(np.uint16)
    parts = list(product(range(_SUPERSAMPLING), repeat=2))
    colours = np.zeros((3, plane.size[1], plane.size[0]))
    for part in parts:  # the fine pixels of every pixel, one after the other
        fine = (slice(part[0], None, _SUPERSAMPLING), slice(part[1], None, _SUPERSAMPLING))
        grey_part = grey[fine] * greyness[kind[fine]]
        for colour, of_kind in zip(colours, paint, strict=True):
            colour += grey_part + of_kind[kind[fine]]
    return np.ascontiguousarray(np.moveaxis((colours / len(parts)).round().astype(np.uint8), 0, -1))


def _paints(label_set: LabelSet) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What is added to a pixel's grey [channel, kind], and how much of the grey stays [kind].

    The kind of a pixel is its label, and 256 more on an outline.
    """
    colours = _colours(label_set).astype(np.float64)
    weight = np.full(256, _FILL)
    weight[0] = 0.0
    kinds = np.concatenate([weight, np.ones(256)])
    return (np.concatenate([colours, colours]) * kinds[:, None]).T.copy(), 1 - kinds


def _outline(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The labelled pixels beside a pixel of another label."""
    edge = np.zeros(labels.shape, dtype=bool)
    down, across = labels[1:] != labels[:-1], labels[:, 1:] != labels[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    return edge & (labels > 0)


def _colours(label_set: LabelSet) -> NDArray[np.float32]:
    table = np.zeros((256, 3), dtype=np.float32)
    for segment in label_set.segments:
        table[segment.number] = structure_colour(segment.structure, label_set)
    return table
