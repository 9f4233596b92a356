"""Files are whole or absent."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import pytest

from dicom_io.errors import DicomIoError
from dicom_io.files import write_durably


def write_first(file: BinaryIO) -> None:
    file.write(b"first")


def write_second(file: BinaryIO) -> None:
    file.write(b"second")


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "result.dcm"
    write_durably(path, write_first)
    assert path.read_bytes() == b"first"
    write_durably(path, write_second)
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.dcm"]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "result.dcm"
    path.write_bytes(b"old")

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyError("the writer's own error")

    with pytest.raises(KeyError):
        write_durably(path, fail)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path) -> None:
    def fail(file: BinaryIO) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DicomIoError, match="No space left"):
        write_durably(tmp_path / "result.dcm", fail)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(DicomIoError, match="could not be written"):
        write_durably(tmp_path / "absent" / "result.dcm", lambda file: None)
