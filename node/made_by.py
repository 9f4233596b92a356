"""Who segmented a scan: kept beside its labels, because the process that writes the results may be another one.

Between two steps a worker may be started again with another backend, another precision or another model.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import BinaryIO

from dicom_io.files import write_durably
from engine.plugins import ROLES, WRITERS, Credit

FILE_NAME = "made_by.json"
"""In the folder of a job's intermediate files."""


@dataclass(frozen=True)
class MadeBy:
    """Who segmented a scan, and with what.

    Attributes:
        backend: what ran the network.
        precision: what that computed in.
        model_digest: SHA-256 of the network, hexadecimal.
        model_name: name of the model package.
        model_version: its version.
        intended_use: see `engine.package.ModelPackage`.
        training_statement: see `engine.package.ModelPackage`.
        attribution: see `engine.package.ModelPackage`.
        plugins: whose the backend and the model are; and the writers, once they have written.
    """

    backend: str
    precision: str
    model_digest: str
    model_name: str
    model_version: str
    intended_use: str
    training_statement: str
    attribution: str
    plugins: tuple[Credit, ...] = ()

    @property
    def model(self) -> str:
        """The model for a reader, as `compact 1.0 (0123456789ab)`."""
        return f"{self.model_name} {self.model_version} ({self.model_digest[:12]})"

    def with_writers_of(self, plugins: Iterable[Credit]) -> MadeBy:
        """The same, with the writers among these parts in place of its own."""
        writer = ROLES[WRITERS]
        kept = [part for part in self.plugins if part.role != writer]
        return replace(self, plugins=(*kept, *(part for part in plugins if part.role == writer)))

    def save(self, folder: Path) -> None:
        """Keep it in a folder; whole or not at all.

        Raises:
            DicomIoError: the folder cannot be written.
        """

        def write(file: BinaryIO) -> None:
            file.write(json.dumps(asdict(self)).encode())

        write_durably(folder / FILE_NAME, write)


def made_by_in(folder: Path) -> MadeBy | None:
    """Who segmented what lies in a folder; None where it does not say."""
    try:
        stored = json.loads((folder / FILE_NAME).read_bytes())
    except FileNotFoundError:
        return None
    return MadeBy(**{**stored, "plugins": tuple(Credit(**part) for part in stored["plugins"])})
