"""A small disk for tests of what happens when it is full."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size_kib: int = 256) -> Iterator[Path]:
    """A file system of so many KiB, mounted at a new folder; skips the test where it cannot be."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    options = f"size={size_kib}k"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=False).returncode != 0:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(disk: Path, size_kib: int) -> None:
    """Give a small disk more space."""
    subprocess.run(["mount", "-o", f"remount,size={size_kib}k", str(disk)], check=True)


def fill(disk: Path, left_kib: int = 0) -> Path:
    """Fill a small disk but for so many KiB. Returns the file that takes the space."""
    filler, reserve = disk / "filler", disk / "reserve"
    reserve.write_bytes(bytes(left_kib << 10))
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
        while True:
            file.write(bytes(1024))
    reserve.unlink()
    return filler
