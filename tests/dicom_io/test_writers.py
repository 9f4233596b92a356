"""Writers as plug-ins: chosen by name, sent in the order of what they refer to, and held to what they promise."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import highdicom as hd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugins.environments import metadata_in
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID

from dicom_io.errors import DicomIoError
from dicom_io.findings import ResultRequest
from dicom_io.heading import adopt, maker_attributes, neutral_source, save
from dicom_io.kinds import ResultKind
from dicom_io.results import write_results
from dicom_io.sr import write_sr
from dicom_io.uids import derive_uids, result_uid
from dicom_io.writers import OUR_WRITERS, SC, SEG, SR, Writer, choose_writers, in_sending_order
from engine.errors import PluginError
from engine.plugins import WRITERS, Credit

MakeRequest = Callable[..., ResultRequest]
RAW = ResultKind(9300, "raw", UID("1.2.840.10008.5.1.4.1.1.66"))  # Raw Data Storage


@dataclass(frozen=True)
class RawWriter:
    """A writer of an object as small as it gets; `change` spoils it."""

    name: str = "raw"
    kind: ResultKind = RAW
    refers_to: tuple[str, ...] = ()
    change: Callable[[Dataset], None] = lambda _: None
    lacks: str | None = None

    def missing(self) -> str | None:
        return self.lacks

    def write(self, request: ResultRequest, out: BinaryIO) -> None:
        source = neutral_source(request.source.headers[0])
        result = hd.SOPClass(
            study_instance_uid=source.StudyInstanceUID,
            sop_class_uid=self.kind.sop_class_uid,
            modality="OT",
            **maker_attributes(request, self.name),
        )
        adopt(result, request)
        self.change(result)
        save(result, out)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose distributions count as installed."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_ours_are_chosen_by_name_in_the_order_of_sending() -> None:
    assert choose_writers(["seg", "sr", "sc"]) == OUR_WRITERS == (SEG, SR, SC)
    assert [writer.name for writer in choose_writers(["sr", "sc", "seg"])] == ["seg", "sr", "sc"]
    assert all(isinstance(writer, Writer) and writer.missing() is None for writer in OUR_WRITERS)


def test_a_report_without_what_it_refers_to_is_refused() -> None:
    with pytest.raises(PluginError, match=r"refers to that of the writer seg, which is not chosen.*Add seg"):
        choose_writers(["sr"])


@given(st.permutations(["a", "b", "c", "d"]), st.data())
def test_nothing_comes_before_what_it_refers_to(order: list[str], data: st.DataObject) -> None:
    below = {
        name: data.draw(st.sets(st.sampled_from(["a", "b", "c", "d"][:at]))) if at else set()
        for at, name in enumerate("abcd")
    }
    writers = [RawWriter(name, refers_to=tuple(sorted(below[name]))) for name in order]
    names = [writer.name for writer in in_sending_order(writers)]
    assert sorted(names) == ["a", "b", "c", "d"]
    assert all(names.index(low) < names.index(name) for name in names for low in below[name])
    if not any(below.values()):
        assert names == order


def test_two_that_refer_to_each_other_are_refused() -> None:
    with pytest.raises(PluginError, match="refer to each other"):
        in_sending_order([RawWriter("a", refers_to=("b",)), RawWriter("b", refers_to=("a",))])


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("raw", "X = 3", "is no writer of this name"),
        ("raw", "from test_writers import RawWriter\nX = RawWriter('other')", "is no writer of this name"),
        ("raw", "from test_writers import RawWriter\nX = RawWriter(kind='OT')", "is no ResultKind"),
        ("raw.data", "from test_writers import RawWriter\nX = RawWriter('raw.data')", "must be of the form"),
        ("raw", "from test_writers import RawWriter\nX = RawWriter(lacks='ink is missing')", "ink is missing"),
    ],
)
def test_what_is_no_usable_writer_is_refused(installed: Path, name: str, text: str, reason: str) -> None:
    metadata_in(installed, "some-raw", {WRITERS: {name: "some_raw:X"}}, {"some_raw": text})
    sys.modules.pop("some_raw", None)
    with pytest.raises(PluginError, match=reason):
        choose_writers([name])


def test_only_the_chosen_are_imported(installed: Path) -> None:
    metadata_in(installed, "some-bomb", {WRITERS: {"bomb": "some_bomb:X"}}, {"some_bomb": "raise RuntimeError"})
    assert choose_writers(["seg"]) == (SEG,)
    assert "some_bomb" not in sys.modules


def test_a_writer_of_another_s_gets_uids_by_our_rule_and_repeats_them(
    make_request: MakeRequest, tmp_path: Path
) -> None:
    writers = (RawWriter(), *OUR_WRITERS)
    parts = (Credit("writer", "raw", "some-raw", "9.9"), Credit("writer", "other", "some-other", "1"))
    digests = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        request = make_request()
        told = replace(request, provenance=replace(request.provenance, parts=parts))
        files = write_results(told, folder, writers).files
        digests.append([file.sha256 for file in files])
    assert digests[0] == digests[1]
    assert [file.kind for file in files] == ["raw", "seg", "sr", "sc"]
    dataset = dcmread(files[0].path)
    assert dataset.SeriesInstanceUID == files[0].series_uid == result_uid("job-1", "raw", "series")
    assert dataset.SOPInstanceUID == result_uid("job-1", "raw", "instance")
    assert (dataset.SeriesNumber, dataset.SeriesDescription[:10]) == (9300, "Vastus raw")
    named = [(part.Manufacturer, part.ManufacturerModelName) for part in dataset.ContributingEquipmentSequence]
    assert named == [("Vastus", "Vastus compact"), ("some-raw", "writer raw")]
    assert len(dcmread(files[1].path).ContributingEquipmentSequence) == 1, "the others are not credited to it"


def test_the_rule_gives_the_uids_that_a_job_fixes() -> None:
    fixed = derive_uids("job-7").to_dict()
    assert {name: result_uid("job-7", *name.split("_")) for name in fixed} == fixed


def test_stored_uids_count_for_our_kinds(make_request: MakeRequest) -> None:
    request = make_request()
    stored = replace(request.uids, seg_series="2.25.77")
    changed = replace(request, uids=stored)
    assert (changed.series_uid("seg"), changed.instance_uid("seg")) == ("2.25.77", request.uids.seg_instance)


def another_class(result: Dataset) -> None:
    result.SOPClassUID = result.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.7")


def another_patient(result: Dataset) -> None:
    result.PatientID = "SOMEBODY"


def another_series(result: Dataset) -> None:
    result.SeriesInstanceUID = UID("2.25.1")


def another_study(result: Dataset) -> None:
    result.StudyInstanceUID = UID("2.25.1")


def another_instance(result: Dataset) -> None:
    result.SOPInstanceUID = result.file_meta.MediaStorageSOPInstanceUID = UID("2.25.1")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (another_class, "SOPClassUID"),
        (another_patient, "PatientID"),
        (another_series, "SeriesInstanceUID"),
        (another_study, "StudyInstanceUID"),
        (another_instance, "SOPInstanceUID"),
    ],
)
def test_another_object_than_promised_is_removed_and_refused(
    make_request: MakeRequest, tmp_path: Path, change: Callable[[Dataset], None], told: str
) -> None:
    with pytest.raises(DicomIoError, match=f"object of the writer raw: its .*{told}.* is not what the job says"):
        write_results(make_request(), tmp_path, (RawWriter(change=change),))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_dicom_is_removed_and_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Poet(RawWriter):
        def write(self, request: ResultRequest, out: BinaryIO) -> None:
            out.write(b"Roses are red. " * 40)

    with pytest.raises(DicomIoError, match=r"no file of PS3\.10"):
        write_results(make_request(), tmp_path, (Poet(),))
    assert list(tmp_path.iterdir()) == []


def test_the_report_names_whose_the_backend_is(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    theirs, ours = Credit("backend", "lines", "some-lines", "2.0"), Credit("model", "compact", "vastus", "0.1.0")
    told = replace(request, provenance=replace(request.provenance, parts=(theirs, ours)))
    path = tmp_path / "sr.dcm"
    with path.open("wb") as out:
        write_sr(told, out)
    report = dcmread(path)
    texts = {element.value for element in report.iterall() if element.keyword == "TextValue"}
    assert "backend_from=some-lines 2.0" in texts
    assert not any(str(text).startswith("model_from") for text in texts)
    assert [part.Manufacturer for part in report.ContributingEquipmentSequence] == ["Vastus", "some-lines"]


def test_a_plug_in_whose_name_does_not_fit_is_refused(make_request: MakeRequest, tmp_path: Path) -> None:
    request = make_request()
    long = (Credit("backend", "lines", "some-" + "very-" * 12 + "long", "2.0"),)
    with pytest.raises(DicomIoError, match="text"):
        write_results(replace(request, provenance=replace(request.provenance, parts=long)), tmp_path)
