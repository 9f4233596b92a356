"""The stream of patches: whole windows, true classes, the same again from the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.preprocessing import Preprocessing
from engine.synthesis.person import Person, PersonDraw, Sculptor, draw_person
from engine.synthesis.pose import Pose, draw_pose
from engine.synthesis.scan import BUILT_IN, sculptor_of
from engine.synthesis.scanning import Scanner, draw_scanner
from engine.synthesis.slices import Slices
from engine.training import stream
from engine.training.stream import AIR_HU, Patch, PatchStream, Reuse

MODEL = Preprocessing(spacing_mm=(8.0, 6.0, 6.0), window=(24, 32, 28))


@pytest.fixture(scope="module", autouse=True)
def few() -> Iterator[None]:
    """Few persons and little noise: each takes time to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "PERSONS", 2)
        patch.setattr(stream, "NOISE_TILE", 48)
        patch.setattr(stream, "GRAINS_MM", stream.GRAINS_MM[:2])
        yield


@pytest.fixture
def thighs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No patch of another region, which shows nothing; one person at a time."""
    monkeypatch.setattr(stream, "ELSEWHERE_SHARE", 0.0)
    monkeypatch.setattr(stream, "PERSONS", 1)


@pytest.fixture(scope="module")
def sculptor() -> Sculptor:
    return sculptor_of(BUILT_IN, "cpu")


@pytest.fixture(scope="module")
def patches(sculptor: Sculptor, few: None) -> list[Patch]:
    return list(islice(PatchStream([sculptor], MODEL, 3), 12))


def mirrored_or_not(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    return np.array_equal(one, other) or np.array_equal(one[:, :, ::-1], other)


def test_a_patch_is_a_window_of_attenuation_and_classes(patches: list[Patch]) -> None:
    for hu, classes in patches:
        assert hu.shape == classes.shape == MODEL.window
        assert hu.dtype == np.float32 and classes.dtype == np.uint8
        assert hu.flags.c_contiguous and classes.flags.c_contiguous
        assert classes.max() <= 29


def test_patches_show_muscle_bone_fat_and_air(patches: list[Patch]) -> None:
    hu, classes = (np.stack(each) for each in zip(*patches, strict=True))
    assert np.isfinite(hu).all() and hu.min() > -1300 and hu.max() < 3400
    muscle = hu[(classes > 0) & (classes < 28)]
    assert -20 < np.median(muscle) < 110
    assert np.percentile(hu[classes == 28], 80) > 200
    assert (hu < -700).mean() > 0.05 and ((hu > -160) & (hu < -50)).mean() > 0.05
    assert len(np.unique(classes)) > 20


def test_no_two_patches_are_alike(patches: list[Patch]) -> None:
    for index, (_, classes) in enumerate(patches):
        for _, other in patches[:index]:
            assert not mirrored_or_not(classes, other) or not classes.any()


def test_a_seed_gives_the_same_patches_again(sculptor: Sculptor, patches: list[Patch]) -> None:
    for (hu, classes), (first_hu, first_classes) in zip(PatchStream([sculptor], MODEL, 3), patches[:3], strict=False):
        np.testing.assert_array_equal(hu, first_hu)
        np.testing.assert_array_equal(classes, first_classes)
    other_hu, _ = next(iter(PatchStream([sculptor], MODEL, 4)))
    assert not np.array_equal(other_hu, patches[0][0])


def test_persons_are_drawn_from_every_anatomy(sculptor: Sculptor, monkeypatch: pytest.MonkeyPatch) -> None:
    somebody = sculptor.person(draw_person(np.random.default_rng(1)))
    asked: list[int] = []

    class Counted(Sculptor):
        def __init__(self, number: int) -> None:
            self.number = number

        def person(self, draw: PersonDraw) -> Person:
            asked.append(self.number)
            return somebody

    monkeypatch.setattr(stream, "clinical", lambda person, rng: person)
    monkeypatch.setattr(stream, "PERSONS", 8)
    list(islice(PatchStream([Counted(0), Counted(1)], MODEL, 1), 10))
    assert set(asked) == {0, 1}


@pytest.mark.usefixtures("thighs_only")
def test_a_patch_is_shown_again_with_other_noise(sculptor: Sculptor) -> None:
    shown = list(islice(PatchStream([sculptor], MODEL, 5, Reuse(times=3, kept=2)), 12))
    groups: list[Patch] = []
    for hu, classes in shown:
        known = [patch for patch in groups if mirrored_or_not(patch[1], classes)]
        assert not any(np.array_equal(hu, other) for other, _ in known)
        if known:
            nearest = min(np.abs(each - other).mean() for other, _ in known for each in (hu, hu[:, :, ::-1]))
            assert nearest < 30, "the same patient, pose and scan"
        else:
            groups.append((hu, classes))
    assert len(groups) <= 4, "a new one for every three that are shown"
    assert mirrored_or_not(shown[0][1], shown[1][1]) and mirrored_or_not(shown[1][1], shown[2][1])


@pytest.mark.usefixtures("thighs_only")
def test_every_patch_is_new_without_reuse(sculptor: Sculptor) -> None:
    shown = list(islice(PatchStream([sculptor], MODEL, 6), 4))
    for index, (_, classes) in enumerate(shown):
        assert not any(mirrored_or_not(classes, other) for _, other in shown[:index])


@pytest.mark.usefixtures("thighs_only")
def test_beyond_the_end_of_a_scan_there_is_nothing(sculptor: Sculptor, monkeypatch: pytest.MonkeyPatch) -> None:
    length_mm = 120.0
    monkeypatch.setattr(stream, "LEVELS_MM", (150.0, 150.0 + length_mm))
    monkeypatch.setattr(stream, "SHORTEST_MM", length_mm)
    seen = round(length_mm / MODEL.spacing_mm[0])
    for hu, classes in islice(PatchStream([sculptor], MODEL, 7), 3):
        assert not classes[seen:].any() and classes[:seen].any(axis=(1, 2)).all()
        assert np.abs(hu[seen:] - AIR_HU).mean() < 60, "air and a little noise"


@pytest.mark.usefixtures("thighs_only")
@pytest.mark.parametrize("prone", [False, True])
def test_outside_the_view_there_is_nothing(sculptor: Sculptor, monkeypatch: pytest.MonkeyPatch, prone: bool) -> None:
    def small_view(rng: np.random.Generator, slices: Slices, pixel_mm: float) -> Scanner:
        scanner = draw_scanner(rng, slices, pixel_mm)
        response = replace(scanner.response, outside_hu=-2000.0, stored_hu=(-2000.0, 3071.0))
        return replace(scanner, view_mm=(15.0, 0.0, 36.0), prone=prone, response=response)

    def upright(rng: np.random.Generator, prone: bool) -> Pose:
        pose = draw_pose(rng, prone)
        return replace(pose, hip=np.stack([np.eye(3)] * 2), tilt=np.eye(3))

    monkeypatch.setattr(stream, "draw_scanner", small_view)
    monkeypatch.setattr(stream, "draw_pose", upright)
    monkeypatch.setattr(stream, "JITTER_VOXELS", 0)
    monkeypatch.setattr(stream, "LEVELS_MM", (150.0, 340.0))
    for hu, classes in islice(PatchStream([sculptor], MODEL, 8), 3):
        outside = hu[0] < -1500
        assert not classes[:, outside].any() and classes.any()
        # The view lies in the body, and the window begins where the view does: all of it is shown.
        shown = np.argwhere(~outside) * MODEL.spacing_mm[1:]
        assert (shown.max(axis=0) - shown.min(axis=0)).min() > 58


def test_a_window_as_large_as_the_noise_can_be_made(sculptor: Sculptor) -> None:
    wide = replace(MODEL, spacing_mm=(8.0, 6.0, 6.0), window=(8, stream.NOISE_TILE, 8))
    hu, classes = next(iter(PatchStream([sculptor], wide, 1)))
    assert hu.shape == classes.shape == wide.window


def test_the_stream_leaves_torch_its_own_draws(sculptor: Sculptor) -> None:
    before = torch.random.get_rng_state()
    next(iter(PatchStream([sculptor], MODEL, 2)))
    assert torch.equal(torch.random.get_rng_state(), before)
