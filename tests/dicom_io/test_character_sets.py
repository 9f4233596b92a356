"""Names in every script reach the results byte for byte, and bytes that nobody can read are carried as they are.

The names are the examples of PS3.5 Annexes H (Japanese), I (Korean), J and K (Chinese), and of its 6.2.1.2.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from peers.dcmtk import need
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_io.errors import SeriesParked
from dicom_io.findings import Findings, Provenance, ResultRequest
from dicom_io.guard import QUIETLY
from dicom_io.results import write_results
from dicom_io.series import SeriesRef, SeriesRules, open_series, read_volume
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from dicom_io.uids import derive_uids
from dicom_io.writers import OUR_WRITERS
from engine.labels import thigh29
from engine.measure import measure
from engine.segmentation import Segmentation
from engine.volume import Volume

ESCAPE_58 = "\x1b$)A"  # pydicom leaves it in the text that it reads
RULES = SeriesRules(min_slices=1, min_coverage_mm=0.0)
KINDS = ("seg", "sr", "sc")
IN_EVERY_KIND = ("gb18030", "katakana and kanji")  # the others: in the report alone, for all go the same way


@dataclass(frozen=True)
class Named:
    """A name as a file holds it, and as a person reads it; `iconv` where DCMTK on glibc can turn it into UTF-8."""

    character_set: bytes
    stored: bytes
    read: str
    iconv: bool = True


NAMES = {
    "default": Named(b"", b"Adams^John Robert Quincy", "Adams^John Robert Quincy"),
    "latin 1": Named(b"ISO_IR 100", b"Buc^J\xe9r\xf4me", "Buc^Jérôme"),
    "latin 2": Named(b"ISO_IR 101", b"Wa\xb3\xeasa", "Wałęsa"),
    "cyrillic": Named(b"ISO_IR 144", b"\xbb\xee\xdace\xdc\xd1yp\xd3", "Люкceмбypг"),
    "greek": Named(b"ISO_IR 126", b"\xc4\xe9\xef\xed\xf5\xf3\xe9\xef\xf2", "Διονυσιος"),
    "arabic": Named(b"ISO_IR 127", b"\xe2\xc8\xc7\xe6\xea^\xe4\xe6\xd2\xc7\xd1", "قباني^لنزار"),
    "hebrew": Named(b"ISO_IR 138", b"\xf9\xf8\xe5\xef^\xe3\xe1\xe5\xf8\xe4", "שרון^דבורה"),
    "utf-8": Named(b"ISO_IR 192", "Wang^XiaoDong=王^小東=".encode(), "Wang^XiaoDong=王^小東"),
    "gb18030": Named(b"GB18030", b"Wang^XiaoDong=\xcd\xf5^\xd0\xa1\xb6\xab=", "Wang^XiaoDong=王^小东"),
    "katakana": Named(b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "kanji": Named(
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        "Yamada^Tarou=山田^太郎=やまだ^たろう",
        iconv=False,
    ),
    "katakana and kanji": Named(
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
        iconv=False,
    ),
    "korean": Named(
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        "Hong^Gildong=洪^吉洞=홍^길동",
    ),
    "chinese by escapes": Named(
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
        "Zhang^XiaoDong=张^小东",
    ),
}
ODD = {
    "latin 1 under utf-8": (b"ISO_IR 192", b"M\xfcller^Karl"),
    "cut in a character": (b"ISO_IR 192", "M\u00fc".encode()[:-1]),
    "latin 1 among escapes": (b"\\ISO 2022 IR 87", b"M\xfcller^Karl"),
    "not stated": (b"", b"M\xfcller^Karl"),
    "half a pair": (b"GB18030", b"Wang^\xcd"),
    "no such set": (b"ISO_IR 999", b"M\xfcller^Karl"),
    "no such set among others": (b"\\ISO 2022 IR 999", b"M\xfcller^Karl"),
    "another spelling": (b"UTF-8", b"M\xc3\xbcller^Karl"),
}
Change = Callable[[Dataset], None]


def put(dataset: Dataset, keyword: str, vr: str, value: bytes) -> None:
    """Give an attribute these bytes, whatever they are."""
    tag = Tag(keyword)
    if vr in ("CS", "PN"):
        dataset[tag] = DataElement(tag, vr, value)
    else:
        dataset[tag] = DataElement(tag, vr, value if vr == "LO" else value.decode("latin-1"), already_converted=True)


def bytes_of(dataset: Dataset, keyword: str) -> bytes:
    """The value as the file has it, without its padding; the dataset was read, and not looked at yet."""
    value = dataset.get_item(Tag(keyword)).value
    assert isinstance(value, bytes)
    return value.rstrip(b" ")


def character_set_of(dataset: Dataset) -> bytes:
    """Specific Character Set as the file has it; pydicom decodes it while it reads."""
    value = dataset.SpecificCharacterSet or ""
    return (value if isinstance(value, str) else "\\".join(value)).encode()


@pytest.fixture(scope="module")
def volume() -> Volume:
    grid = patient_grid((3, 16, 24), (5.0, 2.0, 2.0))
    return Volume(np.random.default_rng(3).integers(-100, 120, grid.shape).astype(np.int16), grid)


@pytest.fixture
def results_of(volume: Volume, provenance: Provenance, tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Write a series whose files are changed, then its results; by kind."""

    def make(change: Change, kinds: tuple[str, ...] = KINDS) -> dict[str, Path]:
        ref = write_series(volume, tmp_path / "ct", SyntheticStudy())
        for path in ref.files:
            dataset = dcmread(path)
            with QUIETLY:
                change(dataset)
                dataset.save_as(path)
        return written(ref, provenance, tmp_path / "results", kinds)

    return make


def written(ref: SeriesRef, provenance: Provenance, folder: Path, kinds: tuple[str, ...]) -> dict[str, Path]:
    """The results of a series whose voxels are two structures."""
    source = open_series(ref, RULES)
    read = read_volume(source)
    labels = np.zeros(read.hu.shape, dtype=np.uint8)
    labels[:, 4:12, 3:9], labels[:, 4:12, 15:21] = 1, 2
    segmentation = Segmentation(labels, read.grid, thigh29())
    request = ResultRequest(
        source, Findings(read, segmentation, measure(read, segmentation)), provenance, derive_uids("job-1")
    )
    folder.mkdir()
    made = write_results(request, folder, tuple(each for each in OUR_WRITERS if each.name in kinds))
    return {file.kind: file.path for file in made.files}


def dcmtk(tool: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([need(tool), *map(str, arguments)], capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_reaches_every_result_byte_for_byte(name: str, results_of: Callable[..., dict[str, Path]]) -> None:
    case = NAMES[name]

    def state(dataset: Dataset) -> None:
        put(dataset, "SpecificCharacterSet", "CS", case.character_set)
        put(dataset, "PatientName", "PN", case.stored)
        put(dataset, "StudyDescription", "LO", case.stored.split(b"=")[0])

    kinds = KINDS if name in IN_EVERY_KIND else ("sr",)
    results = results_of(state, kinds)
    assert set(results) == set(kinds)
    for path in results.values():
        dataset = dcmread(path)
        assert bytes_of(dataset, "PatientName") == case.stored
        assert bytes_of(dataset, "StudyDescription") == case.stored.split(b"=")[0]
        assert character_set_of(dataset) == case.character_set
        assert str(dataset.PatientName).replace(ESCAPE_58, "") == case.read
        shown = dcmtk("dcmdump", "+P", "PatientName", path)
        assert case.stored in shown.stdout and shown.returncode == 0, shown.stderr
    if case.iconv:
        told = dcmtk("dcm2json", results["sr"])
        assert told.returncode == 0, told.stderr
        (person,) = json.loads(told.stdout)["00100010"]["Value"]
        assert "=".join(filter(None, person.values())) == case.read


@pytest.mark.parametrize("keyword", ["PatientName", "PatientID"])
@pytest.mark.parametrize("case", ODD)
def test_bytes_that_nobody_can_read_are_carried_as_they_are(
    case: str, keyword: str, results_of: Callable[..., dict[str, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    character_set, stored = ODD[case]

    def state(dataset: Dataset) -> None:
        put(dataset, "SpecificCharacterSet", "CS", character_set)
        put(dataset, keyword, "PN" if keyword == "PatientName" else "LO", stored)

    for path in results_of(state, KINDS if case == "latin 1 among escapes" else ("sr",)).values():
        with QUIETLY:
            dataset = dcmread(path)
        assert bytes_of(dataset, keyword) == stored
        assert character_set_of(dataset) == character_set
    assert "ller" not in caplog.text


@pytest.mark.parametrize(
    ("keyword", "vr", "stored"),
    [("PatientSize", "DS", b"1,75"), ("PatientBirthDate", "DA", b"unknown"), ("PatientAge", "AS", b"71\xe9")],
)
def test_a_value_that_is_none_of_its_kind_is_carried_and_stops_no_job(
    keyword: str, vr: str, stored: bytes, results_of: Callable[..., dict[str, Path]]
) -> None:
    (path,) = results_of(lambda dataset: put(dataset, keyword, vr, stored), ("sr",)).values()
    assert bytes_of(dcmread(path), keyword) == stored


def test_texts_inside_sequences_are_carried_too(results_of: Callable[..., dict[str, Path]]) -> None:
    def state(dataset: Dataset) -> None:
        put(dataset, "SpecificCharacterSet", "CS", b"ISO_IR 192")
        item = Dataset()
        put(item, "PatientID", "LO", b"M\xfc-1")
        item.TypeOfPatientID = "TEXT"
        dataset.OtherPatientIDsSequence = [item]

    (path,) = results_of(state, ("sr",)).values()
    (item,) = dcmread(path).OtherPatientIDsSequence
    assert (bytes_of(item, "PatientID"), bytes_of(item, "TypeOfPatientID")) == (b"M\xfc-1", b"TEXT")


def test_what_the_source_leaves_empty_or_out_is_empty_in_the_results(
    results_of: Callable[..., dict[str, Path]],
) -> None:
    empty, absent = ("PatientName", "PatientBirthDate", "StudyTime"), ("PatientID", "PatientSex", "AccessionNumber")

    def state(dataset: Dataset) -> None:
        for keyword in empty:
            setattr(dataset, keyword, None)
        for keyword in (*absent, "PatientAge", "PatientSize"):
            delattr(dataset, keyword)

    for path in results_of(state).values():
        dataset = dcmread(path)
        for keyword in (*empty, *absent):  # type 2 (PS3.5 7.4.3): present, of zero length
            assert not dataset.get_item(Tag(keyword)).value
        assert "PatientAge" not in dataset and "PatientSize" not in dataset


def test_patients_whose_ids_differ_in_unreadable_bytes_alone_are_two(
    results_of: Callable[..., dict[str, Path]],
) -> None:
    ids = iter((b"M\xfc1", b"M\xfc1", b"M\xe41"))

    def state(dataset: Dataset) -> None:
        put(dataset, "SpecificCharacterSet", "CS", b"ISO_IR 192")
        put(dataset, "PatientID", "LO", next(ids))

    with pytest.raises(SeriesParked, match="differ in PatientID") as parked:
        results_of(state)
    assert parked.value.code == "several_patients"
