"""UIDs that are derived from names: the same job gives the same UIDs, whenever and however often it runs.

Every UID here is a UUID of version 5 under the root 2.25 (PS3.5 B.2), so no registered root is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from uuid import UUID, uuid5

from dicom_io.errors import DicomIoError

NAMESPACE = UUID("6f6a2d4e-5f0b-5c0e-9d3a-7b8a4f1c2e95")
"""The namespace of all names below; a change would give every result a new identity."""

_UID_FORM = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")  # PS3.5 9.1


def derive_uid(*names: str) -> str:
    """The UID that belongs to these names, as `2.25.<integer>` of at most 64 characters."""
    return f"2.25.{uuid5(NAMESPACE, '/'.join(f'{len(name)}:{name}' for name in names)).int}"


IMPLEMENTATION_CLASS_UID = derive_uid("implementation class")
IMPLEMENTATION_VERSION_NAME = "VASTUS"
DEVICE_UID = derive_uid("device")
CODING_SCHEME_UID = derive_uid("coding scheme 99VASTUS")


@dataclass(frozen=True)
class ResultUids:
    """The UIDs of everything that one job makes, fixed before its work starts.

    Raises:
        DicomIoError: one of them is no UID, or two are the same.
    """

    seg_series: str
    seg_instance: str
    sr_series: str
    sr_instance: str
    sc_series: str
    sc_instance: str

    def __post_init__(self) -> None:
        values = list(self.to_dict().values())
        if not all(_UID_FORM.fullmatch(value) and len(value) <= 64 for value in values) or len(set(values)) < len(
            values
        ):
            raise DicomIoError("UIDs of results", f"not {len(values)} different UIDs: {values}", "Derive them anew")

    def to_dict(self) -> dict[str, str]:
        """Names and UIDs, for storing."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Mapping[str, str]) -> ResultUids:
        """The UIDs that `to_dict` gave.

        Raises:
            DicomIoError: a name is missing or unknown, or a value is no UID.
        """
        names = {field.name for field in fields(cls)}
        if set(stored) != names:
            raise DicomIoError("UIDs of results", f"stored under {sorted(stored)}", f"Store exactly {sorted(names)}")
        return cls(**stored)


def derive_uids(job_id: str) -> ResultUids:
    """The UIDs of a job's results."""
    return ResultUids(**{field.name: derive_uid("job", job_id, field.name) for field in fields(ResultUids)})


def result_uid(job_id: str, kind: str, level: str) -> str:
    """The UID of a job's result of any kind, those of `ResultUids` included; `level` is `series` or `instance`."""
    return derive_uid("job", job_id, f"{kind}_{level}")


def tracking_uid(job_id: str, segment_number: int) -> str:
    """The UID that joins a segment of the SEG with its group of measurements in the report (PS3.3 C.8.20.2)."""
    return derive_uid("job", job_id, "tracking", str(segment_number))
