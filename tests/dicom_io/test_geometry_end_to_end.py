"""Any geometry, from files to the network's grid and back: the body stays where it is, slice by slice.

An egg with a smaller one on the patient's left is written as a series, read, resampled to the network's grid, labelled
there by its own formula in patient coordinates, and the labels go back to the source's slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dicom_io.series import SeriesRef, SeriesRules, SourceSeries, open_series, read_volume
from dicom_io.synthetic import PATIENT_AXES, SyntheticStudy, patient_grid, spaced, tilted, write_series
from engine.refine import refined_grid
from engine.resample import closest_orientation, network_grid, sample_linear, sample_nearest
from engine.volume import FloatArray, Grid, Volume

ANY = SeriesRules(min_slices=2, min_coverage_mm=0.0)
NETWORK_MM = (2.0, 1.5, 1.5)
PHASES = (-0.375, -0.125, 0.125, 0.375)
"""Where both grids have nearly one spacing, all nearest voxels lie to one side; over these shifts that evens out."""
ROWS, COLUMNS = 36, 40
PIXEL_MM = (1.3, 1.2)
STEP_MM = 2.2  # of a regular scan
EDGE_MM = 2.0  # over which attenuation falls at the egg's edge: it must be well sampled
LARGE, SMALL = 1, 2
CENTRES_MM = {LARGE: np.array([-6.0, 2.0, -3.0]), SMALL: np.array([13.0, -4.0, 4.0])}
RADII_MM = {LARGE: np.array([9.0, 11.0, 14.0]), SMALL: np.array([5.5, 6.5, 9.0])}


@dataclass(frozen=True)
class Geometry:
    """How the scan lies: the patient's position, the gantry, the blocks of slices and the direction of the stack."""

    position: str
    tilt_deg: float
    turn_deg: tuple[float, float, float]
    steps_mm: tuple[float, ...] | None
    against_normal: bool
    centre_mm: tuple[float, float, float]

    def grid(self) -> Grid:
        """The scan's grid, its middle at `centre_mm`."""
        steps = np.full(21, STEP_MM) if self.steps_mm is None else np.array(self.steps_mm)
        grid = patient_grid((len(steps) + 1, ROWS, COLUMNS), (float(steps.mean()), *PIXEL_MM), self.position)
        grid = tilted(grid, self.tilt_deg)
        if self.steps_mm is not None:
            grid = spaced(grid, self.steps_mm)
        affine = np.array(grid.affine)
        if self.against_normal:
            affine[:3, 3] += (len(steps)) * affine[:3, 0]
            affine[:3, 0] *= -1
        turn = Rotation.from_euler("xyz", self.turn_deg, degrees=True).as_matrix()
        affine[:3, :3] = turn @ affine[:3, :3]
        affine[:3, 3] = 0
        laid = Grid(grid.shape, affine, grid.uneven)
        affine[:3, 3] = np.array(self.centre_mm) - laid.to_patient(laid.to_index(corners(laid).mean(axis=0)))
        return Grid(grid.shape, affine, grid.uneven)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    lengths = draw(st.one_of(st.none(), st.lists(st.sampled_from((1.0, 1.5, 2.5, 4.0)), min_size=2, max_size=3)))
    steps = None
    if lengths is not None:
        extent = 46 / len(lengths)
        steps = tuple(step for length in lengths for step in [length] * max(3, round(extent / length)))
    return Geometry(
        position=draw(st.sampled_from(sorted(PATIENT_AXES))),
        tilt_deg=draw(st.sampled_from((0.0, 0.0, -18.5, 12.0, 30.0))),
        turn_deg=draw(
            st.sampled_from(((0.0, 0.0, 0.0), (0.0, 0.0, 25.0), (90.0, 0.0, 0.0), (0.0, 90.0, 0.0), (10.0, -15.0, 5.0)))
        ),
        steps_mm=steps,
        against_normal=draw(st.booleans()),
        centre_mm=draw(st.tuples(*[st.floats(-500, 500)] * 3)),
    )


def corners(grid: Grid) -> FloatArray:
    ends = np.array(grid.shape) - 1.0
    return grid.to_patient(np.array([[a, b, c] for a in (0, ends[0]) for b in (0, ends[1]) for c in (0, ends[2])]))


def points_of(grid: Grid) -> FloatArray:
    return grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))


def depth_mm(points: FloatArray, egg: int, centre_mm: FloatArray) -> FloatArray:
    """About how deep points lie in an egg; it is narrower towards the head, so that no turn of it is itself."""
    away = points - centre_mm - CENTRES_MM[egg]
    radii = RADII_MM[egg] * (1 - 0.25 * np.clip(away[..., 2:] / RADII_MM[egg][2], -1, 1))
    share = np.linalg.norm(away / radii, axis=-1)
    return np.asarray((1 - share) * RADII_MM[egg].min())


def labels_at(points: FloatArray, centre_mm: FloatArray) -> np.ndarray:
    labels = np.zeros(points.shape[:-1], dtype=np.uint8)
    for egg in CENTRES_MM:
        labels[depth_mm(points, egg, centre_mm) > 0] = egg
    return labels


def hu_at(points: FloatArray, centre_mm: FloatArray) -> np.ndarray:
    depth = np.max([depth_mm(points, egg, centre_mm) for egg in CENTRES_MM], axis=0)
    return np.asarray(np.rint(-1000 + 1060 * np.clip(depth / EDGE_MM + 0.5, 0, 1)).astype(np.int16))


def centroid(mask: np.ndarray, grid: Grid) -> FloatArray:
    weights = mask * grid.voxel_volumes_mm3
    return np.asarray((points_of(grid) * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum())


@lru_cache
def offset_mm(egg: int) -> FloatArray:
    """An egg's own centroid about the centre, by a lattice finer than any scan."""
    axes = [np.arange(-1.4, 1.4, 0.03) * radius for radius in RADII_MM[egg]]
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) + CENTRES_MM[egg]
    return np.asarray(lattice[depth_mm(lattice, egg, np.zeros(3)) > 0].mean(axis=0))


def there_and_back(source: SourceSeries, centre_mm: FloatArray) -> tuple[list[np.ndarray], np.ndarray, Grid]:
    """Labels on the source's slices, one for each of `PHASES`; the image and the grid as the network has them."""
    volume = read_volume(source)
    orientation = closest_orientation(volume.grid)
    hu, scan = orientation.turn(volume.hu), orientation.turn_grid(volume.grid)
    ends = np.array(scan.shape) - 1.0
    whole = np.array([[a, b, c] for a in (0, ends[0]) for b in (0, ends[1]) for c in (0, ends[2])])
    network = network_grid(scan, whole, 0.0, NETWORK_MM)
    image = sample_linear(hu, scan, network).numpy()
    fine = refined_grid(network)
    back = []
    for phase in PHASES:
        affine = np.array(fine.affine)
        affine[:3, 3] += affine[:3, :3].sum(axis=1) * phase
        moved = Grid(fine.shape, affine)
        labels = labels_at(points_of(moved), centre_mm)
        back.append(orientation.turn_back(sample_nearest(labels, moved, scan)))
    return back, image, network


PAPER = tuple([2.0] * 6 + [6.0] * 3 + [1.0] * 18)


@settings(max_examples=10, deadline=None)
@given(geometries())
@example(Geometry("HFS", 0.0, (0.0, 0.0, 0.0), PAPER, False, (0.0, 0.0, 0.0)))
@example(Geometry("FFDL", -18.5, (0.0, 90.0, 0.0), PAPER, True, (100.0, -50.0, -700.0)))
def test_a_body_stays_where_it_is(tmp_path_factory: pytest.TempPathFactory, geometry: Geometry) -> None:
    grid, centre = geometry.grid(), np.array(geometry.centre_mm)
    volume = Volume(hu_at(points_of(grid), centre), grid)
    ref = write_series(volume, tmp_path_factory.mktemp("eggs"), SyntheticStudy(patient_position=geometry.position))
    source = open_series(SeriesRef(ref.study_uid, ref.series_uid, ref.files[::-1]), ANY)
    labels, image, network = there_and_back(source, centre)
    assert network.uneven is None
    for k, header in enumerate(source.headers):
        first_voxel = source.grid.to_patient(np.array([k, 0.0, 0.0]))
        np.testing.assert_allclose(first_voxel, header.ImagePositionPatient, atol=1e-4)
    # The image: what is bright there is the body, and nothing is shifted.
    bright = np.maximum(image + 990, 0)
    expected = np.maximum(hu_at(points_of(network), centre) + 990.0, 0)
    away = centroid(bright, network) - centroid(expected, network)
    tenth_mm = 0.1 * float(
        np.linalg.norm((*PIXEL_MM, max(geometry.steps_mm or (STEP_MM,))))
    )  # of the largest voxel's diagonal
    assert np.linalg.norm(away) < tenth_mm
    truth = labels_at(points_of(source.grid), centre)
    found = {egg: centroid(np.mean([each == egg for each in labels], axis=0), source.grid) for egg in CENTRES_MM}
    for egg, place in found.items():
        assert np.linalg.norm(place - centroid(truth == egg, source.grid)) < tenth_mm
        assert (place[0] > centre[0]) == (egg == SMALL)  # the small one lies on the patient's left
    # The large one is sampled well enough to be held against its own formula.
    assert np.linalg.norm(found[LARGE] - centre - offset_mm(LARGE)) < tenth_mm
    # Slice by slice: every mask is that of its own slice, but for the voxels of its edge.
    for egg in CENTRES_MM:
        clear = np.abs(depth_mm(points_of(source.grid), egg, centre)) > 1.5
        for each in labels:
            assert np.array_equal((each == egg)[clear], (truth == egg)[clear])
