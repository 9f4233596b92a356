"""The boxes around the labels of a segmentation: one look at every voxel, which several results need."""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.segmentation import Segmentation

LabelBoxes = tuple[tuple[slice, slice, slice] | None, ...]
"""For each number from 1, the slices, rows and columns that hold all its voxels; None where it has none."""

_KNOWN: WeakKeyDictionary[Segmentation, LabelBoxes] = WeakKeyDictionary()


def boxes_of(segmentation: Segmentation) -> LabelBoxes:
    """The boxes of a segmentation's labels; looked for once, for as long as the segmentation is there."""
    found = _KNOWN.get(segmentation)
    if found is None:
        found = _KNOWN[segmentation] = label_boxes(segmentation.labels)
    return found


def label_boxes(labels: NDArray[np.uint8]) -> LabelBoxes:
    """The boxes of labels [slice, row, column].

    The air around the patient is left out first: numpy passes over it faster than the search for every label does.
    """
    seen = np.bitwise_or.reduce(labels, axis=0)
    rows, columns = _extent(seen.any(axis=1)), _extent(seen.any(axis=0))
    boxes = ndimage.find_objects(labels[:, rows, columns])
    return tuple(
        None if box is None else (box[0], _moved(box[1], rows.start), _moved(box[2], columns.start)) for box in boxes
    )


def _extent(used: NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(used)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1)


def _moved(extent: slice, by: int) -> slice:
    return slice(extent.start + by, extent.stop + by)
