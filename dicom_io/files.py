"""Files that are either whole and on the disk, or not there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from dicom_io.errors import DicomIoError


def write_durably(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Write a file so that a power cut leaves the old file or the whole new one, never a part.

    The bytes go to a temporary name (`.<random>.part`) in the same folder, then to the disk, then to their name, and
    the folder's entry follows. An older file of that name is replaced. The folder must exist.

    Args:
        path: the file's final name.
        write: writes the content to the open binary file that it is given; what it raises, other than `OSError`,
            passes through, and no file is left.

    Raises:
        DicomIoError: the disk or the folder refused the file; the `OSError` is the cause.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")  # random: two runs of one step must not share it
    try:
        with part.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        reason = f"it could not be written: {error.strerror or error}"
        raise DicomIoError(f"file {path}", reason, "Check the free space and the rights of its folder") from error
    finally:
        part.unlink(missing_ok=True)  # gone after the rename, left behind after an error


def sync_folder(folder: Path) -> None:
    """Bring the folder's own entries, as a new name, to the disk.

    Raises:
        OSError: the folder cannot be opened or synchronised.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
