"""Every real series is opened, or parked with a reason; none may crash."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from dicom_io.errors import NotUnderstood, SeriesParked
from dicom_io.facts import facts_of, restored, stored
from dicom_io.header import read_header
from dicom_io.kernels import Sharpness, sharpness_of
from dicom_io.select import SelectionRules, select
from dicom_io.series import SeriesRef, SeriesRules, open_series, read_volume
from engine.fitness import NotThighs, find_thighs

CLINICAL = SeriesRules(min_slices=50, min_coverage_mm=200.0)
ANY = SeriesRules(min_slices=3, min_coverage_mm=0.0)

# What each folder's series are parked for under the two rules; several entries are several series of one folder.
EXPECTED = {
    "ge-head-tilt18-variable-spacing": [("too_few_slices", "opened")],
    "ge-lightspeed-3-slices": [("too_few_slices", "opened")],
    "ge-localizers": [("localizer", "localizer")],
    "ge-position-jump": [("too_few_slices", "missing_slices")],
    "philips-localizer": [("localizer", "localizer")],
    "philips-phantom-tilt16": [("too_few_slices", "opened")],
    "philips-secondary-capture": [("secondary_capture", "secondary_capture")],
    "pydicom-samples": [("too_few_slices", "too_few_slices")],
    "siemens-abdomen-j2k-20-slices": [("missing_identifiers", "missing_identifiers")],
    "wg04-transfer-syntaxes": [
        ("too_few_slices", "duplicate_positions"),
        *[("too_few_slices", "too_few_slices")] * 3,
    ],
}


def series_of(root: Path) -> dict[str, list[SeriesRef]]:
    """The series of each folder, grouped without any of our own reading."""
    groups: dict[tuple[str, str, str], list[Path]] = defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.read_bytes()[128:132] == b"DICM":
            header = dcmread(path, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
            groups[path.parent.name, str(header.StudyInstanceUID), str(header.SeriesInstanceUID)].append(path)
    found: dict[str, list[SeriesRef]] = defaultdict(list)
    for (folder, study, series), files in sorted(groups.items()):
        found[folder].append(SeriesRef(study, series, tuple(files)))
    return found


def outcome(ref: SeriesRef, rules: SeriesRules) -> str:
    try:
        open_series(ref, rules)
    except SeriesParked as error:
        assert error.reason and error.remedy and ref.series_uid in error.thing
        return error.code
    return "opened"


def test_every_real_series_is_opened_or_parked(shared_data: Path) -> None:
    found = series_of(shared_data / "dicom")
    outcomes = {
        folder: sorted((outcome(ref, CLINICAL), outcome(ref, ANY)) for ref in refs) for folder, refs in found.items()
    }
    assert outcomes == EXPECTED


def test_no_real_series_passes_for_thighs(shared_data: Path, tmp_path: Path) -> None:
    """None of them shows thighs; the lax rules leave that to the look at the pixels."""
    refs = [ref for refs in series_of(shared_data / "dicom").values() for ref in refs]
    opened = []
    for ref in [*refs, with_uids(shared_data, tmp_path)]:
        try:
            volume = read_volume(open_series(ref, ANY))
        except SeriesParked:
            continue
        opened.append(volume.grid.shape[0])
        with pytest.raises(NotThighs) as caught:
            find_thighs(volume)
        assert caught.value.reason and caught.value.remedy
    assert sorted(opened) == [3, 10, 20, 28]


def test_only_the_series_that_lost_its_uids_is_refused_at_the_door(shared_data: Path) -> None:
    refused = set()
    for refs in series_of(shared_data / "dicom").values():
        for path in (path for ref in refs for path in ref.files):
            try:
                assert read_header(path).modality == "CT"
            except NotUnderstood as error:
                assert "UID" in error.reason
                refused.add(path.parent.name)
    assert refused == {"siemens-abdomen-j2k-20-slices"}


def with_uids(shared_data: Path, folder: Path) -> SeriesRef:
    """The abdomen with UIDs; its anonymiser blanked what the file meta information still knows."""
    for path in (shared_data / "dicom" / "siemens-abdomen-j2k-20-slices").iterdir():
        dataset = dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        dataset.save_as(folder / path.name)
    return SeriesRef("1.2.3", "1.2.3.4", tuple(folder.iterdir()))


def test_a_tilted_head_in_two_blocks_lies_where_its_slices_say(shared_data: Path) -> None:
    (ref,) = series_of(shared_data / "dicom")["ge-head-tilt18-variable-spacing"]
    source = open_series(ref, ANY)
    first_voxels = np.array([[k, 0.0, 0.0] for k in range(28)])
    stated = [header.ImagePositionPatient for header in source.headers]
    np.testing.assert_allclose(source.grid.to_patient(first_voxels), stated, atol=1e-3)
    assert source.grid.uneven is not None
    normal = np.cross(source.grid.affine[:3, 2], source.grid.affine[:3, 1])
    along = abs(source.grid.affine[:3, 0] @ normal) / np.linalg.norm(normal)
    np.testing.assert_allclose(
        source.grid.uneven.thickness[[0, 10, 13, 14, 20, 27]] * along,
        (4.002, 4.002, 2.54, 4.04, 6.999, 6.999),
        atol=2e-3,
    )


def test_a_jpeg_2000_series_is_decoded(shared_data: Path, tmp_path: Path) -> None:
    source = open_series(with_uids(shared_data, tmp_path), ANY)
    assert source.grid.shape == (20, 512, 512)
    np.testing.assert_allclose(source.grid.spacing_mm, (2.0, 0.9765625, 0.9765625))
    np.testing.assert_allclose(source.grid.affine[:3, 3], (-249.51171875, -437.51171875, -804.5))
    hu = read_volume(source).hu
    assert hu.min() == -1024
    assert 30 < np.median(hu[:, 240:272, 180:220]) < 200  # liver and vessels with contrast


def test_implicit_vr_slices_are_decoded_with_their_padding(shared_data: Path) -> None:
    files = tuple(sorted((shared_data / "dicom" / "ge-lightspeed-3-slices").glob("*.dcm")))
    header = read_header(files[0])
    volume = read_volume(open_series(SeriesRef(header.study_uid, header.series_uid, files), ANY))
    assert volume.grid.spacing_mm == pytest.approx((1.0, 0.810547, 0.810547))
    assert volume.hu[0, 0, 0] == -1024
    assert volume.hu.min() >= -1024 and volume.hu.max() > 300


# The codes of each folder's series under the default rules, and under rules that ask for hardly anything.
SELECTION = {
    "ge-head-tilt18-variable-spacing": [("too_few_slices", "selected")],
    "ge-lightspeed-3-slices": [("too_few_slices", "selected")],
    "ge-localizers": [("localizer", "localizer")],
    "ge-position-jump": [("too_few_slices", "selected")],
    "philips-localizer": [("localizer", "localizer")],
    "philips-phantom-tilt16": [("too_few_slices", "selected")],
    "philips-secondary-capture": [("secondary_capture", "secondary_capture")],
    "pydicom-samples": [("too_few_slices", "too_few_slices")],
    "siemens-abdomen-j2k-20-slices": [("too_few_slices", "selected")],
    "wg04-transfer-syntaxes": [("too_few_slices", "selected"), *[("too_few_slices", "too_few_slices")] * 3],
}


def test_every_real_series_is_decided_on(shared_data: Path) -> None:
    found = {}
    for folder, refs in series_of(shared_data / "dicom").items():
        facts = [facts_of(ref) for ref in refs]
        assert [restored(stored(each)) for each in facts] == facts
        strict, lax = (
            select(facts, rules) for rules in (SelectionRules(), SelectionRules(min_slices=3, min_coverage_mm=0.0))
        )
        found[folder] = sorted((strict[each.series_uid].code, lax[each.series_uid].code) for each in facts)
    assert found == SELECTION


def test_what_real_headers_tell(shared_data: Path) -> None:
    refs = series_of(shared_data / "dicom")
    abdomen = facts_of(refs["siemens-abdomen-j2k-20-slices"][0])
    assert (abdomen.kernels, abdomen.contrast, abdomen.spacing_mm) == (("3", "Br38f"), True, 2.0)
    assert sharpness_of(abdomen.maker, abdomen.kernels) is Sharpness.SOFT
    head = facts_of(refs["ge-head-tilt18-variable-spacing"][0])
    assert (head.oblique_deg, head.body_part, head.slices) == (18.5, "HEAD", 28)
