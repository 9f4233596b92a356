"""Reading an atlas: whichever way its voxels run, right is right and the knee is where the origin is."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from numpy.typing import NDArray

from engine.errors import VolumeError
from engine.labels import Structure, thigh29
from engine.synthesis import atlas
from engine.synthesis.anatomy import Anatomy, Joints
from engine.synthesis.atlas import JOINTS, LABELS, ORIGIN_MM, SIDE_LABELS, TABLE, AtlasFolder
from engine.synthesis.person import Sculptor, draw_person
from engine.synthesis.tissues import SIDES, tissue_table
from engine.volume import Grid

SPACING_MM = 6.0
SHAPE = (8, 20, 40)
FIRST_MM = np.array([-117.0, -200.0, 380.0])
"""Centre (x, y, z) of the first voxel in the tiny atlas's own LPS mm: the midline lies between columns 19 and 20."""
NAMES = {0: "air", 3: "vastus_lateralis", 28: "femur", 45: "other_soft_tissue", 59: "femur_trabecular"}
PLACES = {
    # Value: rows and columns (from the front, from the middle to the side) of a block on either side.
    45: (slice(4, 16), slice(2, 16)),
    3: (slice(6, 10), slice(8, 14)),
    28: (slice(10, 14), slice(4, 10)),
    59: (slice(11, 13), slice(6, 8)),
}
Labels = NDArray[np.uint8]


def tiny_labels() -> tuple[Labels, Labels]:
    """Labels and sides of a small body, LPS [z, y, x]; a block of muscle lies on the right only."""
    half = np.zeros((*SHAPE[:2], SHAPE[2] // 2), dtype=np.uint8)
    for value, (rows, columns) in PLACES.items():
        half[:, rows, columns] = value
    labels = np.concatenate([half[..., ::-1], half], axis=2)
    labels[:, 14:16, 4:8] = 3
    sides = np.zeros(SHAPE, dtype=np.uint8)
    sides[..., :20][labels[..., :20] > 0] = 1
    sides[..., 20:][labels[..., 20:] > 0] = 2
    return labels, sides


def write_atlas(folder: Path, orientation: str = "RAS", labels: Labels | None = None) -> Path:
    """Write the small atlas with its axes in another order."""
    own, sides = tiny_labels()
    for name, array in ((LABELS, own if labels is None else labels), (SIDE_LABELS, sides)):
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing([SPACING_MM] * 3)
        image.SetOrigin(FIRST_MM.tolist())
        turned = SimpleITK.DICOMOrient(image, orientation)
        SimpleITK.WriteImage(turned, str(folder / name))
    rows = "\n".join(f"{value},{key}" for value, key in NAMES.items())
    (folder / TABLE).write_text(f"value,key\n{rows}\n", encoding="utf-8")
    return folder


def unprepared(name: str, attribution: str, codes: NDArray[np.uint8], grid: Grid, joints: Joints) -> Anatomy:
    """In the place of `prepare`, which takes long and is tested by itself."""
    rest: tuple[Any, ...] = (np.zeros(0),) * 5
    return Anatomy(name, attribution, grid, codes, joints, *rest)


def read_bare(folder: Path) -> Anatomy:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atlas, "prepare", unprepared)
        return AtlasFolder(folder).anatomy()


def at_mm(anatomy: Anatomy, point_mm: tuple[float, float, float]) -> int:
    """The code at a place (x, y, z)."""
    z, y, x = np.rint(anatomy.grid.to_index(np.array(point_mm))).astype(int)
    return int(anatomy.codes[z, y, x])


def centres_mm(anatomy: Anatomy, numbers: tuple[int, ...]) -> list[NDArray[np.float64]]:
    truth = tissue_table().truth[anatomy.codes]
    return [anatomy.grid.to_patient(np.argwhere(truth == number).astype(np.float64)).mean(axis=0) for number in numbers]


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAI", "PIR", "SRA"])
def test_the_order_of_its_axes_does_not_matter(tmp_path: Path, orientation: str) -> None:
    anatomy = read_bare(write_atlas(tmp_path, orientation))
    labels, _ = tiny_labels()
    for z, y, x in np.ndindex(labels.shape):
        place = FIRST_MM + SPACING_MM * np.array([x, y, z]) - ORIGIN_MM
        if (z, y % 3, x % 3) == (4, 0, 0):
            expected = 0
            if labels[z, y, x]:
                key = atlas.RENAMED.get(NAMES[int(labels[z, y, x])], NAMES[int(labels[z, y, x])])
                expected = tissue_table().code(key, SIDES[int(x >= 20)])
            assert at_mm(anatomy, (place[0], place[1], place[2])) == expected


def test_right_is_at_negative_x(tmp_path: Path) -> None:
    anatomy = read_bare(write_atlas(tmp_path))
    right, left = centres_mm(anatomy, (2 * 28 - 1, 2 * 28))
    assert right[0] == pytest.approx(-left[0]) and right[0] < -30
    lateral_right, lateral_left = ((tissue_table().truth[anatomy.codes] == number).sum() for number in (5, 6))
    assert lateral_right > lateral_left, "the block that only the right has"


def test_trunk_and_calf_go_on_and_only_the_thighs_muscles_end(tmp_path: Path) -> None:
    anatomy = read_bare(write_atlas(tmp_path))
    table = tissue_table()
    below, above = round(atlas.BELOW_MM / SPACING_MM), round(atlas.ABOVE_MM / SPACING_MM)
    assert len(anatomy.codes) == SHAPE[0] + below + above
    low, top = anatomy.codes[0], anatomy.codes[-1]
    np.testing.assert_array_equal(top, anatomy.codes[below])
    muscle = table.muscles[top]
    assert muscle.any() and (low[muscle] == table.code("soft_tissue")).all()
    np.testing.assert_array_equal(low[~muscle], top[~muscle])


def test_there_is_room_for_fat(tmp_path: Path) -> None:
    codes = read_bare(write_atlas(tmp_path)).codes
    room = round(atlas.ROOM_MM / SPACING_MM)
    assert not codes[:, :room].any() and not codes[:, -room:].any()
    assert not codes[:, :, :room].any() and not codes[:, :, -room:].any()


def test_a_tiny_atlas_is_prepared(tmp_path: Path) -> None:
    anatomy = AtlasFolder(write_atlas(tmp_path)).anatomy()
    assert set(np.unique(anatomy.first)) == {0, 5, 6}
    assert "BodyParts3D" in anatomy.attribution and "Attribution-Share Alike" in anatomy.attribution


def test_equal_folders_are_equal_sources(tmp_path: Path) -> None:
    assert len({AtlasFolder(tmp_path), AtlasFolder(tmp_path), AtlasFolder(tmp_path / "other")}) == 2


@pytest.mark.parametrize("value", [99, 256 + 3])
def test_a_label_that_is_not_in_the_table_is_refused(tmp_path: Path, value: int) -> None:
    labels = tiny_labels()[0].astype(np.uint16)
    labels[2, 10, 10] = value
    write_atlas(tmp_path)
    image = SimpleITK.GetImageFromArray(labels)
    image.CopyInformation(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(tmp_path / LABELS)), "LPS"))
    SimpleITK.WriteImage(image, str(tmp_path / LABELS))
    with pytest.raises(VolumeError, match=rf"{LABELS}.*{value}"):
        read_bare(tmp_path)


@pytest.mark.parametrize("name", [LABELS, SIDE_LABELS, TABLE])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (write_atlas(tmp_path) / name).unlink()
    with pytest.raises(VolumeError, match=name):
        read_bare(tmp_path)


@pytest.mark.parametrize("name", [LABELS, SIDE_LABELS])
def test_a_file_that_is_no_volume_is_named(tmp_path: Path, name: str) -> None:
    (write_atlas(tmp_path) / name).write_bytes(b"no volume")
    with pytest.raises(VolumeError, match=name):
        read_bare(tmp_path)


def test_voxels_that_are_no_cubes_are_refused(tmp_path: Path) -> None:
    write_atlas(tmp_path)
    image = SimpleITK.ReadImage(str(tmp_path / LABELS))
    image.SetSpacing((6.0, 6.0, 5.0))
    SimpleITK.WriteImage(image, str(tmp_path / LABELS))
    with pytest.raises(VolumeError, match=rf"{LABELS}.*no cubes"):
        read_bare(tmp_path)


@pytest.mark.parametrize(
    "text", ["number,key\n1,femur\n", "value,key\none,femur\n", "value,key\n", "value,key\n300,femur\n"]
)
def test_a_table_without_values_is_refused(tmp_path: Path, text: str) -> None:
    (write_atlas(tmp_path) / TABLE).write_text(text, encoding="utf-8")
    with pytest.raises(VolumeError, match=TABLE):
        read_bare(tmp_path)


def test_a_table_with_a_tissue_nobody_knows_is_refused(tmp_path: Path) -> None:
    table = write_atlas(tmp_path) / TABLE
    table.write_text(table.read_text(encoding="utf-8").replace("28,femur", "28,gill"), encoding="utf-8")
    with pytest.raises(VolumeError, match=rf"{TABLE}.*gill"):
        read_bare(tmp_path)


def test_sides_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_atlas(tmp_path)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.ones((4, 4, 4), dtype=np.uint8)), str(tmp_path / SIDE_LABELS))
    with pytest.raises(VolumeError, match=SIDE_LABELS):
        read_bare(tmp_path)


@pytest.fixture(scope="module")
def whole(shared_data: Path) -> Anatomy:
    return read_bare(shared_data / "atlas")


@pytest.fixture(scope="module")
def whole_centres(whole: Anatomy) -> NDArray[np.float64]:
    """Centre (x, y, z) of each segment of the whole atlas, mm; NaN where there is none."""
    every = 3
    truth = tissue_table().truth[whole.codes[::every, ::every, ::every]]
    index = np.argwhere(truth)
    number = truth[tuple(index.T)]
    with np.errstate(invalid="ignore"):
        centres = [np.bincount(number, axis, 59) / np.bincount(number, minlength=59) for axis in index.T * every]
    return whole.grid.to_patient(np.stack(centres, axis=1))


@pytest.mark.parametrize("structure", thigh29().structures, ids=lambda structure: structure.key)
def test_each_structure_of_the_whole_atlas_lies_on_its_side(
    whole_centres: NDArray[np.float64], structure: Structure
) -> None:
    right, left = whole_centres[2 * structure.value - 1], whole_centres[2 * structure.value]
    assert right[0] < -15 and left[0] > 15
    np.testing.assert_allclose(right * [-1, 1, 1], left, atol=3.0)


def test_the_joints_of_the_whole_atlas_are_where_its_bones_meet(whole: Anatomy) -> None:
    for side, hip, knee in zip(SIDES, JOINTS.hip_mm, JOINTS.knee_mm, strict=True):
        femur, spongy = (tissue_table().code(key, side) for key in ("femur", "femur_spongy"))
        tibia = tissue_table().code("tibia", side)
        assert at_mm(whole, tuple(hip)) == spongy
        column = [at_mm(whole, (knee[0], knee[1], float(z))) for z in range(-30, 31, 3)]
        below, above = column[:10], column[-10:]
        other = tissue_table().code("other_spongy")
        assert {femur, spongy} & set(above) and not {femur, spongy} & set(below[:5])
        assert {tibia, other} & set(below)


@pytest.mark.soak
@pytest.mark.slow
def test_whoever_is_drawn_from_the_whole_atlas_has_every_structure(shared_data: Path) -> None:
    sculptor = Sculptor(AtlasFolder(shared_data / "atlas").anatomy())
    codes = sculptor.person(draw_person(np.random.default_rng(2))).codes.numpy()
    volumes_ml = np.bincount(tissue_table().truth[codes].ravel(), minlength=59) * 1.5**3 / 1000
    assert volumes_ml[1:].min() > 2


def test_the_whole_atlas_has_a_table_for_all_its_labels(shared_data: Path) -> None:
    with (shared_data / "atlas" / TABLE).open(encoding="utf-8") as file:
        keys = {row["key"] for row in csv.DictReader(file)}
    known = {tissue.key for tissue in tissue_table().tissues}
    assert {atlas.RENAMED.get(key, key) for key in keys} - known == {"air"}
