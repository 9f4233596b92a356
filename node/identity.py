"""The name of this node among all that run jobs on one database: written once, kept with the state that it belongs to.

The job engine takes up again what an executor of the same id left behind. A name made from the machine's would change
with it, and the job that was in flight would wait for an executor that never comes back.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path

from dicom_io.files import write_durably
from node.errors import ServiceError

FILE = "executor-id"
_FORM = re.compile(rb"[A-Za-z0-9-]{1,64}")


def make_identity(state_dir: Path) -> None:
    """Give the state folder its name, unless it has one. One process at a time; the caller sees to that.

    Raises:
        OSError: it cannot be written.
    """
    path = state_dir / FILE
    if path.exists():
        return
    name = f"node-{uuid.uuid4().hex[:16]}".encode()
    write_durably(path, lambda file: _written(file.write(name)))


def identity_of(state_dir: Path) -> str:
    """The name of the node whose state lies in the folder.

    Raises:
        ServiceError: it has none, or the file is damaged.
    """
    path = state_dir / FILE
    remedy = "Restore it from a backup of the state folder; where there is none, remove it and start the service again"
    try:
        name = path.read_bytes().strip()
    except OSError as error:
        raise ServiceError(f"file {path}", f"it cannot be read: {error.strerror or error}", remedy) from error
    if not _FORM.fullmatch(name):
        raise ServiceError(f"file {path}", "it holds no name of a node", remedy)
    return name.decode()


def _written(_: int) -> None:
    return
