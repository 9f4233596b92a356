"""The kinds of results: what a series of results is called in its study, and of which SOP class its object is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pydicom.uid import UID


@dataclass(frozen=True)
class ResultKind:
    """One kind of result: the number of its series in the study, its word in series descriptions, its SOP class."""

    series_number: int
    word: str
    sop_class_uid: UID


RESULT_KINDS: Mapping[str, ResultKind] = MappingProxyType(
    {
        "seg": ResultKind(9101, "segments", UID("1.2.840.10008.5.1.4.1.1.66.4")),  # Segmentation Storage
        "sr": ResultKind(9102, "report", UID("1.2.840.10008.5.1.4.1.1.88.34")),  # Comprehensive 3D SR Storage
        "sc": ResultKind(9103, "picture", UID("1.2.840.10008.5.1.4.1.1.7")),  # Secondary Capture Image Storage
    }
)
"""Those that come with the program, by the name of their writer."""
