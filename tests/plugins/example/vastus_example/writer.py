"""A writer of notes: an Enhanced SR with one line of text for each structure that was found (PS3.3 A.35.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

import highdicom as hd
from pydicom.sr.coding import Code
from pydicom.uid import UID

from dicom_io.findings import ResultRequest, figures
from dicom_io.heading import adopt, maker_attributes, neutral_source, save
from dicom_io.kinds import ResultKind

NAME = "example-note"
KIND = ResultKind(9201, "note", UID("1.2.840.10008.5.1.4.1.1.88.22"))  # Enhanced SR Storage
TITLE = Code("18748-4", "LN", "Diagnostic imaging study")
FINDING = Code("121071", "DCM", "Finding")


@dataclass(frozen=True)
class NoteWriter:
    """What the entry point leads to."""

    name: str = NAME
    kind: ResultKind = KIND
    refers_to: tuple[str, ...] = ()

    def missing(self) -> str | None:
        """Why it cannot be used here: never."""
        return None

    def write(self, request: ResultRequest, out: BinaryIO) -> None:
        """One line for each volume of the report, with what the results are for above them."""
        contains = hd.sr.RelationshipTypeValues.CONTAINS
        volumes = (row for row in figures(request.findings.measurements) if row.quantity == "volume")
        lines = [f"{row.structure} {row.side or ''}: {row.value} {row.unit}" for row in volumes]
        content = hd.sr.ContainerContentItem(name=TITLE, template_id="2000")
        content.ContentSequence = hd.sr.ContentSequence(
            [
                hd.sr.TextContentItem(name=FINDING, value=line, relationship_type=contains)
                for line in (request.provenance.words, *lines)
            ]
        )
        result = hd.sr.EnhancedSR(
            evidence=[neutral_source(header) for header in request.source.headers],
            content=content,
            is_complete=True,
            **maker_attributes(request, NAME),
        )
        adopt(result, request)
        save(result, out)


WRITER = NoteWriter()
