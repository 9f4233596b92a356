"""A broken file is refused in our own words or is a volume all the same: never a crash, never another error."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz_reader import DAMAGES, bases, broken, outcome
from dicom_io.series import SeriesRef, SeriesRules, open_series, read_volume
from engine.volume import Volume

Sound = tuple[list[SeriesRef], Volume, Path]
IN_ALL = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """Series of single images and of frames in many encodings, all of one volume."""
    folder = tmp_path_factory.mktemp("sound")
    refs = bases(folder)
    return refs, read_volume(open_series(refs[0], SeriesRules(2, 0.0))), folder


def test_all_sound_series_are_the_same_volume(sound: Sound) -> None:
    refs, volume, _ = sound
    assert len({path.suffix for ref in refs for path in ref.files}) == 1 and len(refs) > 10
    assert {outcome(ref, volume).kind for ref in refs} == {"same volume"}


@IN_ALL
@given(st.integers(0, 2**32), st.data())
def test_any_damage_ends_in_words_or_in_a_volume(sound: Sound, seed: int, data: st.DataObject) -> None:
    refs, volume, folder = sound
    ref = refs[data.draw(st.integers(0, len(refs) - 1))]
    found = outcome(broken(ref, folder, random.Random(seed)), volume)
    assert found.kind in ("refused", "same volume", "other volume")
    assert found.kind != "refused" or found.what


@IN_ALL
@given(st.integers(0, 13), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_one_flipped_bit_and_one_cut_end_in_words_or_in_a_volume(
    sound: Sound, which: int, share: float, bit: int
) -> None:
    refs, volume, folder = sound
    ref = refs[which % len(refs)]
    content = bytearray(ref.files[0].read_bytes())
    at = int(share * len(content))
    path = folder / "flipped.dcm"
    content[at] ^= 1 << bit
    for damaged in (bytes(content), bytes(content[:at])):
        path.write_bytes(damaged)
        found = outcome(SeriesRef(ref.study_uid, ref.series_uid, (path, *ref.files[1:])), volume)
        assert found.kind in ("refused", "same volume", "other volume")


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_kind_of_damage_changes_the_file(damage: object) -> None:
    content = bytes(np.random.default_rng(4).integers(0, 256, 5000, dtype=np.uint8))
    assert callable(damage)
    changed = 0
    for seed in range(20):
        one = bytearray(content)
        damage(one, random.Random(seed))
        changed += bytes(one) != content
    assert changed > 15
