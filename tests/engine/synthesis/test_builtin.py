"""The built-in anatomy: whole, of the right size, and every neighbour where it belongs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_fill_holes, label

from engine.labels import Side, thigh29
from engine.synthesis.builtin import JOINTS, SPACING_MM, BuiltIn, paint, painted_half, whole
from engine.synthesis.painting import Half
from engine.synthesis.tissues import SIDES, tissue_table
from engine.volume import Grid

HANDSFIELD_ML = {
    "sartorius": 149.7,
    "rectus_femoris": 249.2,
    "vastus_lateralis": 764.3,
    "vastus_intermedius": 256.1,
    "vastus_medialis": 398.3,
    "adductor_magnus": 518.3,
    "adductor_brevis": 97.0,
    "adductor_longus": 148.1,
    "gracilis": 97.3,
    "pectineus": 60.4,
    "semitendinosus": 171.9,
    "semimembranosus": 227.7,
    "biceps_femoris": 284.1,
    "gluteus_maximus": 780.8,
    "gluteus_medius": 298.8,
    "gluteus_minimus": 97.9,
    "tensor_fasciae_latae": 57.9,
    "piriformis": 41.1,
    "obturator_externus": 51.2,
    "quadratus_femoris": 29.8,
}
"""Handsfield et al. 2014 for 1.73 m and 65 kg."""
RANGE_ML = {
    "obturator_internus": (32, 43),
    "iliacus": (109, 147),
    "iliopsoas": (47, 64),
    "psoas": (140, 195),
    "abdominal_oblique": (150, 300),
    "rectus_abdominis": (75, 125),
    "multifidus": (100, 180),
    "femur": (413, 560),
    "ilium": (235, 318),
}
"""What that source does not measure alone, holds less of, or what the upper end cuts."""

# What lies behind one another at one place: z, x (mm to the side), and the tissues from front to back.
FRONT_TO_BACK = (
    (24, 87, "patella femur_spongy"),
    (90, 95, "rectus_femoris vastus_intermedius femur biceps_femoris"),
    (195, 104, "rectus_femoris vastus_intermedius femur biceps_femoris"),
    (195, 68, "sartorius adductor_longus adductor_magnus semimembranosus semitendinosus"),
    (290, 58, "adductor_longus adductor_brevis adductor_magnus semitendinosus"),
    (355, 92, "pectineus quadratus_femoris gluteus_maximus"),
    (370, 60, "pectineus obturator_externus ilium_spongy gluteus_maximus"),
    (400, 88, "iliopsoas femur_spongy obturator_internus gluteus_maximus"),
    (445, 80, "iliacus ilium_spongy piriformis gluteus_medius gluteus_maximus"),
    (490, 88, "abdominal_oblique iliacus ilium_spongy gluteus_medius gluteus_maximus"),
    (600, 30, "rectus_abdominis psoas multifidus"),
)

# What lies beside one another at one place: z, y (mm forward), and the tissues from the midline to the side.
MIDLINE_TO_SIDE = (
    (-30, -22, "semitendinosus tibia fibula"),
    (60, -8, "sartorius vastus_medialis femur_spongy vastus_lateralis"),
    (150, 10, "sartorius vastus_medialis femur vastus_lateralis"),
    (240, -10, "gracilis adductor_magnus femur vastus_lateralis"),
    (260, -58, "semitendinosus biceps_femoris"),
    (395, -16, "obturator_internus ilium_spongy femur_spongy gluteus_medius"),
    (400, 51, "vein artery sartorius"),
    (410, 44, "iliopsoas sartorius tensor_fasciae_latae"),
    (460, 0, "iliacus ilium_spongy gluteus_minimus gluteus_medius"),
    (505, 10, "psoas iliacus ilium_spongy gluteus_medius"),
    (585, 0, "other_spongy psoas bowel abdominal_oblique"),
)


@pytest.fixture(scope="module")
def half() -> Half:
    return painted_half()


@pytest.fixture(scope="module")
def left(half: Half) -> NDArray[np.uint8]:
    return paint(half)


@pytest.fixture(scope="module")
def body() -> tuple[NDArray[np.uint8], Grid]:
    return whole()


def course(line: NDArray[np.uint8], keys: list[str]) -> list[str]:
    """The tissues of these names along a line, each once in a row."""
    names = {tissue_table().code(key, Side.LEFT): key for key in keys}
    found = [names[code] for code in line.tolist() if code in names]
    return [key for index, key in enumerate(found) if index == 0 or found[index - 1] != key]


def nearest(axis: NDArray[np.float32], at_mm: float) -> int:
    return int(np.argmin(np.abs(axis - at_mm)))


@pytest.mark.parametrize("key", [structure.key for structure in thigh29().structures])
def test_each_structure_is_one_body_on_either_side(body: tuple[NDArray[np.uint8], Grid], key: str) -> None:
    truth = tissue_table().truth[body[0]]
    middle = truth.shape[2] // 2
    for side, part in zip(SIDES, (truth[..., :middle], truth[..., middle:]), strict=True):
        number = tissue_table().code(key, side)
        assert (truth == number).sum() == (part == number).sum() > 0
        assert label(part == number)[1] == 1


@pytest.mark.parametrize("key", [*HANDSFIELD_ML, *RANGE_ML])
def test_volumes(left: NDArray[np.uint8], key: str) -> None:
    low, high = RANGE_ML.get(key) or (0.87 * HANDSFIELD_ML[key], 1.13 * HANDSFIELD_ML[key])
    number = tissue_table().code(key, Side.LEFT)
    assert low <= (tissue_table().truth[left] == number).sum() * SPACING_MM**3 / 1000 <= high


def test_every_structure_has_a_volume_to_keep() -> None:
    assert {*HANDSFIELD_ML, *RANGE_ML} == {structure.key for structure in thigh29().structures}


@pytest.mark.parametrize(("z", "x", "keys"), FRONT_TO_BACK)
def test_front_to_back(left: NDArray[np.uint8], half: Half, z: float, x: float, keys: str) -> None:
    line = left[nearest(half.z, z), :, nearest(half.x, x)]
    assert list(dict.fromkeys(course(line, keys.split()))) == keys.split()


@pytest.mark.parametrize(("z", "y", "keys"), MIDLINE_TO_SIDE)
def test_midline_to_side(left: NDArray[np.uint8], half: Half, z: float, y: float, keys: str) -> None:
    line = left[nearest(half.z, z), nearest(half.y, -y), :]
    assert list(dict.fromkeys(course(line, keys.split()))) == keys.split()


def test_the_head_of_the_femur_lies_in_its_socket(left: NDArray[np.uint8], half: Half) -> None:
    x, y, z = (float(value) for value in JOINTS.hip_mm[1])
    k, j, i = nearest(half.z, z), nearest(half.y, y), nearest(half.x, x)
    ilium = tissue_table().truth[left] == tissue_table().code("ilium", Side.LEFT)
    assert left[k, j, i] == tissue_table().code("femur_spongy", Side.LEFT)
    lines = (ilium[k:, j, i], ilium[k, j, :i], ilium[k + 5, :j, i - 5], ilium[k + 5, j:, i - 5])
    assert all(line.any() for line in lines), "roof, floor, front and back"
    assert not ilium[k, j, i:].any(), "open to the side"


def test_no_bone_grows_into_the_next(left: NDArray[np.uint8]) -> None:
    truth = tissue_table().truth[left]
    femur, ilium = (truth == tissue_table().code(key, Side.LEFT) for key in ("femur", "ilium"))
    for axis in range(3):
        for step in (-1, 1):
            assert not (np.roll(femur, step, axis) & ilium).any()


@pytest.mark.parametrize("key", ["femur", "ilium"])
def test_a_bone_is_not_hollow_to_the_network(left: NDArray[np.uint8], key: str) -> None:
    bone = tissue_table().truth[left] == tissue_table().code(key, Side.LEFT)
    assert (binary_fill_holes(bone) == bone).all()
    assert 0.2 < (left[bone] == tissue_table().code(key, Side.LEFT)).mean() < 0.8, "cortex and inside"


def test_iliacus_and_psoas_join_at_one_level(left: NDArray[np.uint8], half: Half) -> None:
    table = tissue_table()
    levels = {
        key: half.z[(left == table.code(key, Side.LEFT)).any(axis=(1, 2))] for key in ("iliacus", "psoas", "iliopsoas")
    }
    assert levels["iliopsoas"].max() < levels["iliacus"].min() == levels["psoas"].min()


def test_the_scan_may_begin_above_the_crest_and_end_below_the_knee(left: NDArray[np.uint8], half: Half) -> None:
    levels = half.z[(tissue_table().truth[left] == tissue_table().code("ilium", Side.LEFT)).any(axis=(1, 2))]
    assert levels.max() < half.z[-1] - 50
    assert half.z[0] < -60
    assert left[0].any() and left[-1].any()


def test_right_mirrors_left(body: tuple[NDArray[np.uint8], Grid]) -> None:
    codes, grid = body
    np.testing.assert_array_equal(tissue_table().mirrored[codes[..., ::-1]], codes)
    ends = grid.to_patient(np.array([[0.0, 0.0, 0.0], [0.0, 0.0, codes.shape[2] - 1.0]]))
    assert ends[0, 0] == -ends[1, 0] < 0
    np.testing.assert_allclose(JOINTS.hip_mm[0] * [-1, 1, 1], JOINTS.hip_mm[1])


def test_legs_are_apart_and_nothing_inside_is_air(body: tuple[NDArray[np.uint8], Grid]) -> None:
    codes, grid = body
    z = grid.affine[2, 3] + SPACING_MM * np.arange(len(codes))
    middle = codes.shape[2] // 2
    assert not codes[(z > -60) & (z < 300), :, middle - 3 : middle + 3].any()
    for level in codes[::10] > 0:
        np.testing.assert_array_equal(binary_fill_holes(level), level)


def test_subjects_can_be_drawn_from_it(body: tuple[NDArray[np.uint8], Grid]) -> None:
    anatomy = BuiltIn().anatomy()
    np.testing.assert_array_equal(anatomy.codes, body[0])
    assert anatomy.outside_mm.astype(np.float32)[:, [0, -1]].min() >= 60, "room for fat"
    assert set(np.unique(anatomy.first)) == {0, *np.flatnonzero(tissue_table().muscles)}


def test_only_tissues_of_the_table(left: NDArray[np.uint8]) -> None:
    table = tissue_table()
    known = {table.code(tissue.key, Side.LEFT) for tissue in table.tissues}
    found = set(np.unique(left).tolist())
    assert found <= {0} | known
    assert not found & {table.code(key) for key in ("skin", "subcutaneous_fat")}


def test_painted_twice_it_is_the_same(body: tuple[NDArray[np.uint8], Grid], left: NDArray[np.uint8]) -> None:
    room = (body[0].shape[1] - left.shape[1]) // 2
    again = body[0][:, room:-room, body[0].shape[2] // 2 : -room]
    np.testing.assert_array_equal(again[left > 0], left[left > 0])
