"""A scanner looks at a person: its axes, what lies around, slices, noise, field of view."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.synthesis.anatomy import upright_grid
from engine.synthesis.artefacts import BeamHardening, MetalStreaks
from engine.synthesis.noise import KERNELS, Grain, Noise
from engine.synthesis.person import Person
from engine.synthesis.physics import STORED_HU, Response
from engine.synthesis.pose import Pose
from engine.synthesis.rendering import PosedPerson
from engine.synthesis.scanning import Scanner, draw_scanner, frame_of, in_view, scan_image
from engine.synthesis.slices import Slices
from engine.synthesis.surroundings import Table
from engine.synthesis.tissues import tissue_table
from engine.volume import FloatArray, Grid

UNTURNED = np.stack([np.eye(3)] * 2)
STILL = Pose(np.ones(3), np.eye(3), np.zeros(3), UNTURNED, UNTURNED, (0.0, 40.0), (), False)
GRID = upright_grid((12, 60, 72), 6.0, (-213.0, -174.0, 150.0))
"""The middle of the thighs, table and all."""
SLICES = Slices(6.0, np.arange(150.0, 222.0, 6.0))
CLEAN = Scanner(
    kernel=KERNELS["soft"],
    response=Response(0.0, 0.0, 0.0, 1.0, 1.0, STORED_HU, -1024.0),
    noise=Noise(0.0, Grain(0.25), 0.5, True),
    hardening=BeamHardening(0.0),
    streaks=MetalStreaks(0.6, 8.0, 1e6, 1.0),
    table=None,
    sheets=(),
    lines=(),
    arms=(),
    view_mm=(0.0, 0.0, 1000.0),
    prone=False,
    seed=1,
)
"""It shows the body as it is."""
TABLE = Table(220.0, 0.0, 30.0, 40.0, 4.0, 3.0, 400.0, 0.0, -900.0, 0.0, -950.0)
FLIPS = pytest.mark.parametrize("flips", list(product((1, -1), repeat=3)))


@pytest.fixture(scope="module")
def posed(person: Person) -> PosedPerson:
    return PosedPerson(person, STILL)


@pytest.fixture(scope="module")
def clean(posed: PosedPerson) -> NDArray[np.float32]:
    return scanned(posed)


def scanned(posed: PosedPerson, scanner: Scanner = CLEAN, grid: Grid = GRID) -> NDArray[np.float32]:
    return np.asarray(scan_image(posed, grid, SLICES, scanner).numpy())


def flipped(flips: tuple[int, int, int]) -> Grid:
    """The same voxels in another order."""
    affine = GRID.affine.copy()
    affine[:3, :3] *= flips
    affine[:3, 3] = GRID.to_patient(np.array([0 if f > 0 else n - 1 for f, n in zip(flips, GRID.shape, strict=True)]))
    return Grid(GRID.shape, affine)


def places_mm(grid: Grid) -> FloatArray:
    return grid.to_patient(np.moveaxis(np.indices(grid.shape), 0, -1).astype(np.float64))


@FLIPS
@pytest.mark.parametrize("prone", [False, True])
def test_the_scanners_axes_are_those_of_the_patient(flips: tuple[int, int, int], prone: bool) -> None:
    axes = frame_of(flipped(flips), prone).axes
    np.testing.assert_allclose(axes, [[0, 0, 1], [0, -1 if prone else 1, 0], [1, 0, 0]], atol=1e-12)


def test_the_scanners_axes_turn_with_the_grid() -> None:
    turn = np.radians(20)
    affine = GRID.affine.copy()
    matrix = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    affine[:3, :3] = matrix @ affine[:3, :3]
    grid = Grid(GRID.shape, affine)
    frame = frame_of(grid, False)
    np.testing.assert_allclose(frame.axes[1], matrix @ [0, 1, 0], atol=1e-12)
    raster = frame.raster(torch.zeros(grid.shape), grid)
    np.testing.assert_allclose(raster.spacing_mm, grid.spacing_mm)
    np.testing.assert_allclose(frame.axes.T @ np.array(raster.first_mm), affine[:3, 3], atol=1e-9)


@FLIPS
def test_a_raster_is_where_its_grid_is(flips: tuple[int, int, int]) -> None:
    grid = flipped(flips)
    z, y, x = frame_of(grid, True).raster(torch.zeros(grid.shape), grid).axes_mm
    corner = grid.to_patient(np.array(grid.shape) - 1.0)
    np.testing.assert_allclose([float(x[-1]), -float(y[-1]), float(z[-1])], corner, atol=1e-4)


def test_a_frames_own_grid_covers_what_was_asked() -> None:
    frame = frame_of(GRID, True)
    grid = frame.grid(np.array([10.0, -30.0, 5.0]), np.array([34.0, 30.0, 50.0]), (12.0, 8.0, 8.0))
    assert grid.shape == (2, 8, 6)
    np.testing.assert_allclose(grid.to_patient(np.zeros(3)), [9, 26, 16])


@pytest.mark.parametrize(
    "axes",
    [
        [[6, 0, 0], [0, 6, 0], [0, 0, 6]],  # sagittal: slices along x
        [[6, 0, 0], [0, 0, 6], [0, -6, 0]],
        [[0, 0, 6], [6, 0, 0], [0, -6, 0]],  # coronal: slices along y
        [[0, 6, 0], [6, 0, 0], [0, 0, 6]],
    ],
)
def test_slices_that_are_not_axial_are_refused(posed: PosedPerson, axes: list[list[float]]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = axes
    grid = Grid((4, 4, 4), affine)
    for prone in (False, True):
        with pytest.raises(VolumeError, match="not axial"):
            frame_of(grid, prone)
    with pytest.raises(VolumeError, match="not axial"):
        scanned(posed, CLEAN, grid)


def test_a_clean_scan_is_the_body(posed: PosedPerson, clean: NDArray[np.float32]) -> None:
    body = posed.attenuation(GRID).numpy()
    inner = slice(2, -2)
    assert np.abs(clean[inner] - body[inner]).mean() < 15
    assert abs(float((clean[inner] - body[inner]).mean())) < 1
    air = posed.codes(GRID).numpy() == 0
    assert np.median(clean[air]) == pytest.approx(-1000)


@FLIPS
def test_the_order_of_slices_rows_and_columns_changes_nothing(
    posed: PosedPerson, clean: NDArray[np.float32], flips: tuple[int, int, int]
) -> None:
    z, y, x = flips
    found = scanned(posed, replace(CLEAN, table=TABLE, hardening=BeamHardening(0.8)), flipped(flips))[::z, ::y, ::x]
    expected = scanned(posed, replace(CLEAN, table=TABLE, hardening=BeamHardening(0.8)))
    assert np.abs(found - expected).mean() < 2.0
    assert np.abs(expected - clean).max() > 500


@pytest.mark.parametrize("prone", [False, True])
def test_the_table_lies_where_the_patient_lies(posed: PosedPerson, clean: NDArray[np.float32], prone: bool) -> None:
    change = scanned(posed, replace(CLEAN, table=TABLE, prone=prone)) - clean
    y = places_mm(GRID)[..., 1]
    body_y = y[clean > -300]
    table_y = y[change > 300]
    assert len(table_y) > 100
    # It sags: its edges rise beside the body.
    if prone:
        assert table_y.min() < body_y.min() and table_y.mean() < np.percentile(body_y, 20)
    else:
        assert table_y.max() > body_y.max() and table_y.mean() > np.percentile(body_y, 80)
    assert np.abs(change[clean > 0]).max() < 1, "nothing is drawn into the body"


def test_thick_slices_average_the_body(posed: PosedPerson) -> None:
    grid = upright_grid((24, 30, 36), 3.0, (30.0, -45.0, 150.0))
    places = np.arange(150.0, 222.0, 3.0)
    thin, thick = (scan_image(posed, grid, Slices(width, places), CLEAN).numpy() for width in (3.0, 15.0))
    steps = [np.abs(np.diff(each[4:-4], axis=0)).mean() for each in (thin, thick)]
    assert steps[1] < 0.6 * steps[0]
    assert abs(float((thick[4:-4] - thin[4:-4]).mean())) < 5


def test_planes_between_slices_are_interpolated(posed: PosedPerson) -> None:
    slices = Slices(4.0, np.arange(150.0, 210.0, 10.0))
    shown = upright_grid((6, 20, 30), 10.0, (40.0, -95.0, 150.0))
    affine = shown.affine.copy()
    affine[2, 3] += 5.0
    between = scan_image(posed, Grid((5, 20, 30), affine), slices, CLEAN)
    known = scan_image(posed, shown, slices, CLEAN)
    assert ((known[1:] + known[:-1]) / 2 - between).abs().mean() < 3


@FLIPS
@pytest.mark.parametrize("prone", [False, True])
def test_outside_the_view_nothing_is_seen(posed: PosedPerson, flips: tuple[int, int, int], prone: bool) -> None:
    scanner = replace(CLEAN, view_mm=(40.0, -30.0, 100.0), prone=prone)
    grid = flipped(flips)
    x, y = places_mm(grid)[0, ..., 0], places_mm(grid)[0, ..., 1]
    inside = np.hypot((-y if prone else y) - 40, x + 30) <= 100
    np.testing.assert_array_equal(in_view(grid, scanner, torch.device("cpu")).numpy(), inside)
    if flips == (1, 1, 1):
        hu = scanned(posed, scanner, grid)
        assert (hu[:, ~inside] == CLEAN.response.outside_hu).all()
        assert (hu[:, inside] > -500).mean() > 0.3


def test_a_wide_view_holds_everything() -> None:
    assert in_view(GRID, CLEAN, torch.device("cpu")).all()


def test_the_same_scanner_gives_the_same_voxels(posed: PosedPerson) -> None:
    noisy = replace(CLEAN, noise=Noise(15.0, Grain(0.25), 0.5, True))
    first = scanned(posed, noisy)
    np.testing.assert_array_equal(scanned(posed, noisy), first)
    assert np.abs(scanned(posed, replace(noisy, seed=2)) - first).mean() > 5


@pytest.mark.parametrize("sd_hu", [8.0, 25.0])
def test_noise_is_as_strong_as_asked(posed: PosedPerson, clean: NDArray[np.float32], sd_hu: float) -> None:
    noise = scanned(posed, replace(CLEAN, noise=Noise(sd_hu, Grain(0.25), 0.5, True))) - clean
    codes = posed.codes(GRID).numpy()
    assert noise[codes > 0].std() == pytest.approx(sd_hu, rel=0.15)
    fat = tissue_table().is_one_of("subcutaneous_fat")[codes]
    assert 0.7 * sd_hu < noise[fat].std() < 1.3 * sd_hu
    assert abs(float(noise[fat].mean())) < 0.2 * sd_hu
    # Within the slice noise is alike only near by; neighbouring slices overlap a little.
    inner = np.where(codes > 0, noise, 0)
    along = [np.vdot(np.roll(inner, 3, axis), inner) / np.vdot(inner, inner) for axis in range(3)]
    assert np.abs(along).max() < 0.15


def test_calibration_and_stored_range(posed: PosedPerson, clean: NDArray[np.float32]) -> None:
    response = replace(CLEAN.response, offset_hu=20.0, stored_hu=(-900.0, 300.0), outside_hu=-900.0)
    found = scanned(posed, replace(CLEAN, response=response))
    np.testing.assert_allclose(found, np.clip(clean + 20, -900, 300), atol=0.1)


def test_metal_spoils_the_slices_it_is_in(posed: PosedPerson, clean: NDArray[np.float32]) -> None:
    metal = torch.zeros(posed.person.hu.shape)
    z, y, x = np.rint(posed.person.grid.to_index(np.array([90.0, 0.0, 230.0]))).astype(int)
    metal[z - 20 : z + 20, y - 4 : y + 4, x - 4 : x + 4] = 1
    person = replace(posed.person, metal=metal)
    change = np.abs(scanned(PosedPerson(person, STILL)) - clean)
    beside = (places_mm(GRID)[..., 2] > 195) & (clean > -200)
    below = (places_mm(GRID)[..., 2] < 175) & (clean > -200)
    assert change[beside].mean() > 5 and change[below].max() < 1
    metal[:] = 0
    np.testing.assert_array_equal(scanned(PosedPerson(replace(person, metal=metal), STILL)), clean)


def test_any_scanner_sees_the_body(posed: PosedPerson, clean: NDArray[np.float32]) -> None:
    for seed in range(4):
        scanner = draw_scanner(np.random.default_rng(seed), SLICES, 0.8)
        found = scanned(posed, scanner)
        seen = in_view(GRID, scanner, torch.device("cpu")).numpy() & (clean[6] > -200)
        muscle = seen & (clean[6] > 0) & (clean[6] < 90)
        assert np.isfinite(found).all()
        assert found.min() >= STORED_HU[0] and found.max() <= STORED_HU[1]
        assert abs(np.median(found[6][muscle]) - np.median(clean[6][muscle])) < 40


def test_scanners_follow_from_the_generator() -> None:
    one, same = (draw_scanner(np.random.default_rng(5), SLICES, 0.8) for _ in range(2))
    assert repr(one) == repr(same)
    assert repr(draw_scanner(np.random.default_rng(6), SLICES, 0.8)) != repr(one)


def test_how_often_patients_lie_prone_and_views_are_narrow() -> None:
    scanners = [draw_scanner(np.random.default_rng(seed), SLICES, 0.8) for seed in range(400)]
    assert 0.05 < np.mean([each.prone for each in scanners]) < 0.16
    assert 0.18 < np.mean([each.view_mm[2] < 215 for each in scanners]) < 0.32
    assert 0.8 < np.mean([each.table is not None for each in scanners]) < 0.9
