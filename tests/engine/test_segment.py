from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from engine.backends import Session, SessionOptions, open_session
from engine.errors import DeviceMemoryError, SideError, VolumeError
from engine.labels import thigh29
from engine.measure import measure
from engine.package import ModelPackage
from engine.preprocessing import PAPER, Preprocessing
from engine.resample import PATIENT_AXES
from engine.segment import Boundary, Segmenter
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
    device = torch.device("cpu")
    batch = 1

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros((len(windows), 30, *windows.shape[2:]))
        logits[:, 0] = 0.15
        logits[:, VASTUS] = torch.where(windows[:, 0] > 0, windows[:, 0], 0.05)  # half way to muscle against 0.15
        logits[:, FEMUR] = 3 * windows[:, 0] - 1.2
        return logits


BODIES = {  # middle and half axes of an ellipsoid in mm: x outwards from the middle of the leg, y, z
    "vastus_lateralis": ((42, -15, 40), (18, 22, 48)),
    "rectus_femoris": ((-5, -48, 20), (22, 16, 60)),
    "biceps_femoris": ((8, 48, -35), (22, 16, 50)),
    "gracilis": ((-45, 12, -50), (14, 18, 40)),
    "femur": ((0, 0, -5), (20, 20, 95)),
}
CODES = {key: round(PAPER.hu_low + 221 * (n + 1) / 6) for n, key in enumerate(BODIES)}  # HU inside the paper's window


class Codes:
    """A network that reads the class from the attenuation, wherever it is the same all around a voxel."""

    name = "codes"
    precision = "fp32"
    device = torch.device("cpu")
    batch = 1

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self._run(windows.numpy()))

    def _run(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = np.zeros((len(windows), 30, *windows.shape[2:]), dtype=np.float32)
        logits[:, 0] = 0.5
        for window, classes in zip(windows[:, 0], logits, strict=True):
            hu = PAPER.hu_low + (PAPER.hu_high - PAPER.hu_low) * np.sqrt(window)
            # Between two bodies lies every attenuation, also that of a third.
            even = ndimage.maximum_filter(hu, 3) - ndimage.minimum_filter(hu, 3) < 4
            for key, code in CODES.items():
                classes[thigh29().structure(key).value] = even & (np.abs(hu - code) < 4)
        return logits


def coded_patient(grid: Grid) -> tuple[Volume, NDArray[np.uint8]]:
    """Two legs of fat with bodies that are alike neither upside down nor side by side, and their true labels."""
    points = grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))
    hu, truth = np.full(grid.shape, -1000, np.int16), np.zeros(grid.shape, np.uint8)
    for left, outwards in enumerate((-1, 1)):
        hu[np.hypot(points[..., 0] - outwards * 90, points[..., 1]) < 75] = -100
        for key, ((x, y, z), half_axes) in BODIES.items():
            middle = (outwards * (90 + x), y, z + 15 * left)
            inside = (((points - middle) / half_axes) ** 2).sum(axis=-1) < 1
            hu[inside], truth[inside] = CODES[key], 2 * thigh29().structure(key).value - 1 + left
    return Volume(hu, grid), truth


@pytest.fixture
def segmenter() -> Segmenter:
    return segmenter_of(Thresholds())


def segmenter_of(session: Session, spacing_mm: tuple[float, float, float] = (5.0, 4.0, 4.0)) -> Segmenter:
    package = ModelPackage(
        folder=Path("nowhere"),
        name="thresholds",
        version="1",
        digest="",
        label_set=thigh29(),
        preprocessing=Preprocessing(spacing_mm=spacing_mm, window=(32, 32, 32)),
        training_statement="",
        training_phrase="",
        intended_use="",
        attribution="",
        network={},
        onnx=Path("nowhere"),
    )
    return Segmenter(package, session, 0.25)


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
    grid = scan_grid(scan)
    points = grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))
    x, _, z = np.moveaxis(points, -1, 0)
    hu = legs(grid).hu
    hu[(hu > -100) & ((z < -60) | (z > 85))] = -100  # fat at the ends, more below: head and feet cannot be confused
    volume = Volume(hu, grid)
    calls: list[tuple[int, int]] = []
    labels = segmenter.segment(volume, lambda done, total: calls.append((done, total))).labels

    for value, tissue in ((FEMUR, volume.hu > 500), (VASTUS, volume.hu == 55)):
        for left, side in enumerate((x < 0, x > 0)):
            truth, found = tissue & side, labels == 2 * value - 1 + left
            assert not (found & ~side).any()
            assert (truth & found).sum() > 0.65 * truth.sum()
            assert np.abs(points[truth].mean(axis=0) - points[found].mean(axis=0)).max() < 1.0
    assert set(np.unique(labels)) == {0, 2 * VASTUS - 1, 2 * VASTUS, 2 * FEMUR - 1, 2 * FEMUR}
    assert calls[-1][0] == calls[-1][1] == len(calls)


@pytest.mark.parametrize("scan", SCANS)
def test_every_body_is_found_where_it_is(scan: str) -> None:
    volume, truth = coded_patient(scan_grid(scan))
    labels = segmenter_of(Codes()).segment(volume, lambda done, total: None).labels
    points = volume.grid.to_patient(np.moveaxis(np.indices(volume.grid.shape), 0, -1).astype(np.float64))
    assert set(np.unique(labels)) == set(np.unique(truth))
    for number in set(np.unique(truth)) - {0}:
        away_mm = points[labels == number].mean(axis=0) - points[truth == number].mean(axis=0)
        assert np.abs(away_mm).max() < min(volume.grid.spacing_mm) / 2


@pytest.mark.parametrize("slices", [60, 61, 62, 63])
@pytest.mark.parametrize("direction", [HEAD, FEET])
def test_legs_that_go_on_are_labelled_up_to_the_ends_and_truncated(
    slices: int, direction: tuple[int, int, int], legs: Callable[[Grid], Volume]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = PATIENT_AXES * (1.0, 4.0, 4.0)
    affine[:3, 0] = direction
    affine[:3, 3] = (-200.0, -100.0, 0.0)
    volume = legs(Grid((slices, 50, 100), affine))
    found = segmenter_of(Thresholds(), (2.0, 4.0, 4.0)).segment(volume, lambda done, total: None)
    expected = {2 * value - 1 + left for value in (FEMUR, VASTUS) for left in (0, 1)}
    assert set(np.unique(found.labels[0])) == set(np.unique(found.labels[-1])) == {0} | expected
    assert {row.segment.number for row in measure(volume, found).segments if row.truncated} == expected


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


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_real_session_fits(backend: str, tiny_package: ModelPackage, legs: Callable[[Grid], Volume]) -> None:
    volume = legs(scan_grid("head first supine"))
    calls: list[int] = []
    segmenter = Segmenter(tiny_package, open_session(backend, tiny_package, SessionOptions(1)), 0.0)
    with pytest.raises(SideError):  # random weights show no femora
        segmenter.segment(volume, lambda done, total: calls.append(done))
    assert calls


@pytest.mark.parametrize("boundary", ["interpolated", "nearest"])
def test_a_second_scan_is_segmented_like_the_first_in_the_same_memory(
    boundary: Boundary, segmenter: Segmenter, legs: Callable[[Grid], Volume]
) -> None:
    warm = replace(segmenter, boundary=boundary)
    volume, other = legs(scan_grid("head first supine")), coded_patient(scan_grid("coronal"))[0]
    first = warm.segment(volume, lambda _done, _of: None).labels
    buffer = warm.workspace.tensor("sums", (1,), torch.float32, torch.device("cpu")).data_ptr()
    kept = first.copy()
    warm.segment(other, lambda _done, _of: None)
    assert np.array_equal(warm.segment(volume, lambda _done, _of: None).labels, first)
    assert np.array_equal(first, kept)  # no scan's labels lie in the shared memory
    assert warm.workspace.tensor("sums", (1,), torch.float32, torch.device("cpu")).data_ptr() == buffer
    assert first.any()


@pytest.mark.parametrize("boundary", ["interpolated", "nearest"])
def test_the_boundary_is_a_matter_of_less_than_a_voxel(
    boundary: Boundary, segmenter: Segmenter, legs: Callable[[Grid], Volume]
) -> None:
    volume = legs(scan_grid("head first supine"))
    labels = replace(segmenter, boundary=boundary).segment(volume, lambda _done, _of: None).labels
    truth, found = volume.hu > 500, (labels == 2 * FEMUR) | (labels == 2 * FEMUR - 1)
    overlap = 2 * (truth & found).sum() / (truth.sum() + found.sum())
    assert overlap > 0.8
    assert not (found & ~ndimage.binary_dilation(truth, iterations=2)).any()


class Small(Thresholds):
    """A device that holds so many windows at a time."""

    batch = 8

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(windows))
        if len(windows) > self.room:
            raise DeviceMemoryError("device", "it is full", "Lower the batch")
        return super().run(windows)


def test_half_the_batch_needs_half_the_room(legs: Callable[[Grid], Volume]) -> None:
    volume, session = legs(scan_grid("head first supine")), Small(4)
    segmenter = segmenter_of(session)
    with pytest.raises(DeviceMemoryError):
        segmenter.segment(volume, lambda _done, _of: None)
    assert session.sizes == [8]
    labels = segmenter.with_half_batch().segment(volume, lambda _done, _of: None).labels
    assert max(session.sizes[1:]) == 4
    expected = segmenter_of(Thresholds()).segment(volume, lambda _done, _of: None).labels
    assert np.array_equal(labels, expected)
    assert segmenter.with_half_batch().with_half_batch().with_half_batch().with_half_batch().batch == 1
