"""Write the results of a job: segmentation, report and picture page, as files of PS3.10.

The same request gives the same bytes, so a step that runs twice changes nothing at the receiver.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

from dicom_io.files import write_durably
from dicom_io.findings import Figure, Findings, Provenance, ResultRequest, figures
from dicom_io.heading import RESULT_KINDS, check_request
from dicom_io.pages import write_page
from dicom_io.seg import write_seg
from dicom_io.series import SourceSeries
from dicom_io.sr import write_sr
from dicom_io.uids import ResultUids

__all__ = ["Figure", "Findings", "Provenance", "ResultFile", "Results", "figures", "write_results"]

_Writer = Callable[[ResultRequest, BinaryIO], None]
_WRITERS: Mapping[str, _Writer] = MappingProxyType({"seg": write_seg, "sr": write_sr, "sc": write_page})


@dataclass(frozen=True)
class ResultFile:
    """One result object in a file.

    Attributes:
        kind: `seg`, `sr` or `sc`.
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


def write_results(
    source: SourceSeries, findings: Findings, provenance: Provenance, uids: ResultUids, folder: Path
) -> Results:
    """Write every kind of result to `<kind>.dcm` in a folder that exists.

    Raises:
        DicomIoError: the source lacks what names its study or its place, the findings belong to another grid or hold
            no structure, a text or a result does not fit, or a file could not be written.
    """
    request = ResultRequest(source, findings, provenance, uids)
    check_request(request)
    return Results(tuple(_write(kind, request, folder / f"{kind}.dcm") for kind in _WRITERS))


def _write(kind: str, request: ResultRequest, path: Path) -> ResultFile:
    write_durably(path, lambda out: _WRITERS[kind](request, out))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return ResultFile(
        kind=kind,
        series_uid=getattr(request.uids, f"{kind}_series"),
        sop_class_uid=str(RESULT_KINDS[kind].sop_class_uid),
        sop_instance_uid=getattr(request.uids, f"{kind}_instance"),
        path=path,
        sha256=digest,
        size_bytes=path.stat().st_size,
    )
