"""The errors of this folder.

The tree::

    VastusError
     |- DicomIoError       a DICOM file could not be found, read or written
     |   |- NotUnderstood  these bytes are no complete DICOM instance
     |- SeriesParked       a series arrived whole, but is nothing that Vastus segments
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.errors import VastusError


class DicomIoError(VastusError):
    """A DICOM file or folder could not be found, read or written."""


class NotUnderstood(DicomIoError):  # noqa: N818 - names the state of the instance, which the log and SQL repeat
    """These bytes are no complete DICOM instance."""


class SeriesParked(VastusError):  # noqa: N818 - parking is an outcome with a reason, not a fault
    """A series is kept, but not segmented, for a reason that a radiographer understands.

    Args:
        code: stable key of the reason, as `not_ct`; it is stored and searched for.
        thing: what is affected, named so that a reader finds it.
        reason: why the series is not segmented.
        remedy: what the reader can do about it.
    """

    def __init__(self, code: str, thing: str, reason: str, remedy: str) -> None:
        super().__init__(thing, reason, remedy)
        self.args = (code, thing, reason, remedy)  # what pickle calls the class with
        self.code = code


@dataclass(frozen=True)
class Refusal:
    """Why a check refuses a series; the arguments of `SeriesParked` before the series has its name."""

    code: str
    reason: str
    remedy: str

    def parked(self, thing: str) -> SeriesParked:
        """The error to raise for that series."""
        return SeriesParked(self.code, thing, self.reason, self.remedy)
