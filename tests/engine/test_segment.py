from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from engine.backends import BACKENDS, open_session
from engine.errors import SideError, VolumeError
from engine.labels import thigh29
from engine.package import ModelPackage
from engine.preprocessing import Preprocessing
from engine.segment import Segmenter
from engine.volume import Grid, Volume

FEMUR = thigh29().structure("femur").value
VASTUS = thigh29().structure("vastus_lateralis").value
HEAD, BACK, LEFT = (0, 0, 1), (0, 1, 0), (1, 0, 0)
FEET, FRONT, RIGHT = (0, 0, -1), (0, -1, 0), (-1, 0, 0)
SCANS = {  # directions of slices, of rows (down a column) and of columns (along a row), and a rotation in degrees
    "head first supine": (HEAD, BACK, LEFT, 0),
    "files from head to foot": (FEET, BACK, LEFT, 0),
    "feet first supine": (FEET, BACK, RIGHT, 0),
    "head first prone": (HEAD, FRONT, RIGHT, 0),
    "coronal": (BACK, FEET, LEFT, 0),
    "sagittal": (LEFT, FEET, BACK, 0),
    "turned by half a degree": (HEAD, BACK, LEFT, 0.5),
    "oblique": (HEAD, BACK, LEFT, 14),
    "oblique, prone, from head to foot": (FEET, FRONT, LEFT, -11),
}


class Thresholds:
    """A network that needs no weights: bright is femur, less bright is vastus lateralis."""

    name = "thresholds"
    precision = "fp32"

    def run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.zeros((len(windows), 30, *windows.shape[2:]), dtype=np.float32)
        logits[:, 0] = 0.15
        logits[:, VASTUS] = np.where(windows[:, 0] > 0, windows[:, 0], -1)
        logits[:, FEMUR] = 3 * windows[:, 0] - 1.2
        return logits


@pytest.fixture
def segmenter() -> Segmenter:
    package = ModelPackage(
        folder=Path("nowhere"),
        name="thresholds",
        version="1",
        digest="",
        label_set=thigh29(),
        preprocessing=Preprocessing(spacing_mm=(5.0, 4.0, 4.0), window=(32, 32, 32)),
        training_statement="",
        training_phrase="",
        demonstration=True,
        onnx=Path("nowhere"),
    )
    return Segmenter(package, Thresholds(), 0.25)


def scan_grid(scan: str) -> Grid:
    *directions, angle_deg = SCANS[scan]
    spacing = np.array([4.0, 3.4, 3.4])
    matrix = np.array(directions).T * spacing
    extent = np.abs(np.array(directions)).T @ (1, 1, 1) * (400, 190, 240)  # mm of x, y, z
    shape = np.ceil(np.abs(np.array(directions)) @ extent / spacing).astype(int)
    turn = Rotation.from_rotvec(np.deg2rad(angle_deg) * np.array([0.1, 0.2, 1.0])).as_matrix()
    affine = np.eye(4)
    affine[:3, :3] = turn @ matrix
    affine[:3, 3] = -affine[:3, :3] @ ((shape - 1) / 2)
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


@pytest.mark.parametrize("scan", SCANS)
def test_sides_and_places_are_right_in_every_position(
    scan: str, segmenter: Segmenter, legs: Callable[[Grid], Volume]
) -> None:
    volume = legs(scan_grid(scan))
    calls: list[tuple[int, int]] = []
    labels = segmenter.segment(volume, lambda done, total: calls.append((done, total))).labels

    points = volume.grid.to_patient(np.moveaxis(np.indices(volume.grid.shape), 0, -1).astype(np.float64))
    x = points[..., 0]
    for value, tissue in ((FEMUR, volume.hu > 500), (VASTUS, volume.hu == 55)):
        for left, side in enumerate((x < 0, x > 0)):
            truth, found = tissue & side, labels == 2 * value - 1 + left
            assert not (found & ~side).any()
            assert (truth & found).sum() > 0.65 * truth.sum()
            assert np.abs(points[truth].mean(axis=0) - points[found].mean(axis=0)).max() < 1.0
    assert set(np.unique(labels)) == {0, 2 * VASTUS - 1, 2 * VASTUS, 2 * FEMUR - 1, 2 * FEMUR}
    assert calls[-1][0] == calls[-1][1] == len(calls)


def test_one_leg_has_no_side(segmenter: Segmenter, legs: Callable[[Grid], Volume]) -> None:
    volume = legs(scan_grid("head first supine"))
    hu = volume.hu.copy()
    hu[..., : hu.shape[2] // 2] = -1000
    with pytest.raises(SideError):
        segmenter.segment(Volume(hu, volume.grid), lambda done, total: None)


def test_air_is_refused(segmenter: Segmenter) -> None:
    grid = scan_grid("head first supine")
    with pytest.raises(VolumeError, match="air"):
        segmenter.segment(Volume(np.full(grid.shape, -1000, np.int16), grid), lambda done, total: None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_real_session_fits(backend: str, tiny_package: ModelPackage, legs: Callable[[Grid], Volume]) -> None:
    volume = legs(scan_grid("head first supine"))
    calls: list[int] = []
    segmenter = Segmenter(tiny_package, open_session(backend, tiny_package, 1), 0.0)
    with pytest.raises(SideError):  # random weights show no femora
        segmenter.segment(volume, lambda done, total: calls.append(done))
    assert calls
