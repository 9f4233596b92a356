"""Write the results of a job, each by its writer, as files of PS3.10.

The same request gives the same bytes, so a step that runs twice changes nothing at the receiver. What a writer left is
read back: a file that is not the object which the job says it is never leaves the node.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from dicom_io.errors import DicomIoError
from dicom_io.files import write_durably
from dicom_io.findings import Figure, Findings, Provenance, ResultRequest, figures
from dicom_io.guard import QUIETLY
from dicom_io.heading import check_request
from dicom_io.writers import OUR_WRITERS, Writer

__all__ = ["Figure", "Findings", "Provenance", "ResultFile", "Results", "figures", "write_results"]

_SERIES_INSTANCE_UID = 0x0020000E
"""The last element that is read back; what makes a file long lies behind it."""


@dataclass(frozen=True)
class ResultFile:
    """One result object in a file.

    Attributes:
        kind: name of its writer, as `seg`, `sr` or `sc`.
        series_uid: Series Instance UID.
        sop_class_uid: SOP Class UID.
        sop_instance_uid: SOP Instance UID.
        path: where it lies.
        sha256: of the file, hexadecimal.
        size_bytes: of the file.
    """

    kind: str
    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    path: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Results:
    """Every result of a job, in the order in which they should be sent: what is referred to goes first."""

    files: tuple[ResultFile, ...]


def write_results(request: ResultRequest, folder: Path, writers: Sequence[Writer] = OUR_WRITERS) -> Results:
    """Write the object of every writer to `<name>.dcm` in a folder that exists.

    Args:
        request: what the results are made from; of which kinds they are is taken from the writers.
        folder: where the files go.
        writers: in the order of sending, as `dicom_io.writers.choose_writers` gives them.

    Raises:
        DicomIoError: the source lacks what names its study or its place, the findings belong to another grid or hold
            no structure, a text or a result does not fit, a file could not be written, or a writer wrote another
            object than it should.
    """
    whole = replace(request, kinds={writer.name: writer.kind for writer in writers})
    check_request(whole)
    return Results(tuple(_write(writer, whole, folder / f"{writer.name}.dcm") for writer in writers))


def _write(writer: Writer, request: ResultRequest, path: Path) -> ResultFile:
    def write(out: BinaryIO) -> None:
        writer.write(request.written_by(writer.name), out)

    expected = _expected(writer, request)  # before anything is written: a writer that changes the source is found out
    write_durably(path, write)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    result = ResultFile(
        kind=writer.name,
        series_uid=request.series_uid(writer.name),
        sop_class_uid=str(writer.kind.sop_class_uid),
        sop_instance_uid=request.instance_uid(writer.name),
        path=path,
        sha256=digest,
        size_bytes=path.stat().st_size,
    )
    _check_file(result, expected)
    return result


def _expected(writer: Writer, request: ResultRequest) -> Mapping[str, str]:
    header = request.source.headers[0]
    with QUIETLY:
        patient_id = str(header.get("PatientID") or "")
    return {
        "SOPClassUID": str(writer.kind.sop_class_uid),
        "SOPInstanceUID": request.instance_uid(writer.name),
        "StudyInstanceUID": str(header.StudyInstanceUID),
        "SeriesInstanceUID": request.series_uid(writer.name),
        "PatientID": patient_id,
    }


def _check_file(result: ResultFile, expected: Mapping[str, str]) -> None:
    """Hold what was written against what the job says of it; another object is removed, for it has nobody's UIDs.

    Raises:
        DicomIoError: they differ, or it is no file of PS3.10.
    """
    try:
        with result.path.open("rb") as file, QUIETLY:
            written = read_partial(file, stop_when=_behind_series)
    except InvalidDicomError as error:
        result.path.unlink()
        raise _not_the_object(result, "it is no file of PS3.10") from error
    with QUIETLY:  # a Patient ID that cannot be decoded is the source's, byte for byte
        wrong = [key for key, value in expected.items() if str(written.get(key) or "") != value]
    meta = written.file_meta
    for key in ("SOPClassUID", "SOPInstanceUID"):
        if meta.get(f"MediaStorage{key}") != expected[key]:
            wrong.append(f"MediaStorage{key}")
    if wrong:
        result.path.unlink()
        raise _not_the_object(result, f"its {', '.join(wrong)} is not what the job says")


def _not_the_object(result: ResultFile, reason: str) -> DicomIoError:
    remedy = f"Take {result.kind} out of the writers, and tell its maker"
    return DicomIoError(f"object of the writer {result.kind}", reason, remedy)


def _behind_series(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return bool(tag > _SERIES_INSTANCE_UID)
