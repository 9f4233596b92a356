"""A file that keeps its word: what a damaged length field promises is not set aside in memory."""

from __future__ import annotations

import os
from typing import BinaryIO


class BoundedFile:
    """A file that never promises more than it holds.

    A damaged length field can claim 4 GiB: a plain file would set that much memory aside, and let one seek behind its
    end without a word.
    """

    def __init__(self, file: BinaryIO) -> None:
        place = file.tell()
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(place)

    def read(self, count: int = -1) -> bytes:
        """So many bytes, or as many as are left."""
        left = self._size - self._file.tell()
        return self._file.read(left if count < 0 else min(count, left))

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a place inside the file.

        Raises:
            EOFError: it is not inside.
        """
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._file.tell(), os.SEEK_END: self._size}[whence]
        if not 0 <= base + offset <= self._size:
            raise EOFError("seek beyond the file")
        return self._file.seek(base + offset)

    def ends(self) -> bool:
        """Whether nothing is left to read."""
        return self._file.tell() >= self._size
