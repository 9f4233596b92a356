"""pydicom on input that nobody vouches for: what it raises, and how it is kept quiet."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from pathlib import Path
from types import TracebackType

from pydicom.errors import BytesLengthException, InvalidDicomError

from dicom_io.errors import DicomIoError

# What pydicom's parser and decoders raise on damaged input: found by feeding them damaged input. A programming error
# may hide among them, which is why the places that catch them are few, and keep the cause. A MemoryError is not among
# them: that is the machine's. An OSError may be either's; `machine_fault` tells.
PARSER_ERRORS: tuple[type[Exception], ...] = (
    ArithmeticError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


def machine_fault(error: Exception, path: Path | str) -> DicomIoError | None:
    """What to raise where the machine failed, and not the file's content; None where it was the content.

    The operating system numbers its errors (`errno`): a full table of open files, a failing disk, a file that has
    vanished. Pillow and pydicom raise an OSError without a number for a damaged image.
    """
    if not isinstance(error, OSError) or error.errno is None:
        return None
    reason = f"it could not be read: {error.strerror or error}"
    return DicomIoError(f"file {path}", reason, "Look after this machine and its disk, and run the job again")


class _Quiet:
    """Context in which no warning is shown or raised; threads may enter it at the same time.

    pydicom warns of every oddity in a dataset, with the value in the text, which may be a patient's name.
    `warnings.catch_warnings` alone is not safe here: its filters belong to the process, and two threads that leave in
    the order they entered would leave them changed.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved: warnings.catch_warnings[None] | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0:
                self._saved = warnings.catch_warnings()
                self._saved.__enter__()
                warnings.simplefilter("ignore")
            self._users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._saved is not None:
                self._saved.__exit__(kind, error, trace)
                self._saved = None


QUIETLY = _Quiet()
