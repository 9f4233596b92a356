"""The spool: received bytes on the disk, and a folder for every job.

::

    lock                          held by the one process that receives
    incoming/<random>.part        while an instance is being received; swept at start
    series/<hash>/<hash>.dcm      instances as received, by series and by content
    quarantine/<hash>.dcm         what could not be understood or did not match its request
    jobs/<job id>/work, results   files between the steps of a job, and its result objects

No name comes from a remote string: names are hashes, and a job id is ours and checked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dicom_io.files import sync_folder
from node import log
from node.errors import SpoolError, SpoolFull

_FULL = (errno.ENOSPC, errno.EDQUOT)
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Kept:
    """An instance that is durably in the spool.

    Attributes:
        path: the file.
        relative: the same below the spool's root; this is what SQL remembers.
    """

    path: Path
    relative: str


class Spool:
    """A durable store of received bytes below one folder.

    Args:
        root: the folder; `prepare` creates it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self.series = root / "series"
        self.quarantined = root / "quarantine"
        self.jobs = root / "jobs"

    def prepare(self) -> None:
        """Create the folders that are missing.

        Raises:
            SpoolError: the folders cannot be created.
        """
        with _told("the folders of the spool cannot be created", self.root):
            for folder in (self.incoming, self.series, self.quarantined, self.jobs):
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            sync_folder(self.root)

    @contextlib.contextmanager
    def held(self, wait_s: float = 0.0) -> Iterator[None]:
        """Hold the spool for the length of the block: one process receives into it, and may sweep.

        Args:
            wait_s: how long to wait for a process that holds it and may be ending.

        Raises:
            SpoolError: another process holds it.
        """
        with contextlib.ExitStack() as held:
            with _told("it cannot be locked", self.root):
                file = held.enter_context((self.root / "lock").open("ab"))
                taken = _locked(file, wait_s)
            if not taken:
                raise SpoolError(
                    f"spool {self.root}",
                    "another process receives into it",
                    "Stop the other node, which systemctl status vastus shows, or set another node.state_dir",
                )
            yield

    def sweep(self) -> int:
        """Remove what an earlier process left half received; no one was told that we have it. Returns how many.

        Only for who holds the spool: what another process is receiving looks the same.
        """
        with _told("leftovers cannot be removed", self.incoming):
            leftovers = list(self.incoming.glob("*.part"))
            for part in leftovers:
                part.unlink(missing_ok=True)
        return len(leftovers)

    def free_bytes(self) -> int:
        """Space that a process without privileges can still use."""
        with _told("the free space cannot be read", self.root):
            space = os.statvfs(self.root)
        return space.f_bavail * space.f_frsize

    def receive(self, content: bytes) -> Path:
        """Write bytes to a new part file and to the disk; `keep`, `quarantine` or `discard` it next.

        Raises:
            SpoolFull: no space is left. Nothing remains.
            SpoolError: the disk refused for another reason. Nothing remains.
        """
        part = self.incoming / f"{uuid.uuid4().hex}.part"
        with _told("an instance cannot be written", part):
            try:
                with part.open("xb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                part.chmod(0o640)
            except OSError:
                self.discard(part)
                raise
        return part

    def keep(self, part: Path, series_uid: str, sha256: str) -> Kept:
        """Give a part file its name for good and bring the name to the disk.

        Args:
            part: from `receive`.
            series_uid: groups the files of a series; only its hash is used.
            sha256: of the part's bytes, in hex. The same bytes get the same name.

        Raises:
            SpoolFull: no space is left. The part file remains.
            SpoolError: the disk refused for another reason. The part file remains.
        """
        folder = self.series / hashlib.sha256(series_uid.encode()).hexdigest()[:32]
        path = folder / f"{sha256}.dcm"
        with _told("an instance cannot be kept", path):
            if not folder.is_dir():
                folder.mkdir(mode=0o750, exist_ok=True)
                sync_folder(self.series)
            part.replace(path)
            sync_folder(folder)
        return Kept(path, str(path.relative_to(self.root)))

    def quarantine(self, part: Path, sha256: str) -> Path:
        """Set a part file aside for a person to look at. Returns its place.

        Raises:
            SpoolFull: no space is left. The part file remains.
            SpoolError: the disk refused for another reason. The part file remains.
        """
        path = self.quarantined / f"{sha256}.dcm"
        with _told("an object cannot be quarantined", path):
            part.replace(path)
            sync_folder(self.quarantined)
        return path

    def discard(self, path: Path) -> None:
        """Remove a file if it is there."""
        with _told("a file cannot be removed", path), contextlib.suppress(FileNotFoundError):
            path.unlink()

    def path_of(self, relative: str) -> Path:
        """The file that SQL remembers as `relative`.

        Raises:
            SpoolError: it would lie outside the spool.
        """
        path = self.root / relative
        if Path(relative).is_absolute() or ".." in Path(relative).parts:
            raise SpoolError(
                f"file {relative}", "it lies outside the spool", "Check the database: it was changed by hand"
            )
        return path

    def work_folder(self, job_id: str) -> Path:
        """The job's folder for files between its steps, created if it is missing."""
        return self._job_folder(job_id, "work")

    def results_folder(self, job_id: str) -> Path:
        """The job's folder for its result objects, created if it is missing."""
        return self._job_folder(job_id, "results")

    def _job_folder(self, job_id: str, name: str) -> Path:
        if not _JOB_ID.fullmatch(job_id):
            raise SpoolError(f"job {job_id!r}", "this is not an id of a job", "Use the id as `vastus jobs` shows it")
        folder = self.jobs / job_id / name
        with _told("a job's folder cannot be created", folder):
            if not folder.is_dir():
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
                sync_folder(folder.parent)
                sync_folder(self.jobs)
        return folder


class SpaceWatch:
    """Says whether the disk has room, and tells the log once when it no longer has, and once when it has again.

    Args:
        spool: whose disk is watched.
        limit_bytes: space that must stay free.
    """

    def __init__(self, spool: Spool, limit_bytes: int) -> None:
        self._spool = spool
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._low = False

    def room_for(self, size_bytes: int) -> bool:
        """Whether the limit is kept after so many bytes more.

        Raises:
            SpoolError: the free space cannot be read.
        """
        free = self._spool.free_bytes()
        low = free - size_bytes < self._limit_bytes
        with self._lock:
            changed, self._low = low != self._low, low
        if changed:
            log.event("disk.low" if low else "disk.recovered", free_bytes=free, limit_bytes=self._limit_bytes)
        return not low


def _locked(file: BinaryIO, wait_s: float) -> bool:
    """Lock a file until it is closed, or its process ends. Returns whether that went well."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.05)
        else:
            return True


@contextlib.contextmanager
def _told(what: str, path: Path) -> Iterator[None]:
    """Turn what the operating system says into an error that says which file, why, and what to do."""
    try:
        yield
    except OSError as error:
        thing, reason = f"spool {path}", f"{what}: {error.strerror or error}"
        if error.errno in _FULL:
            raise SpoolFull(thing, reason, "Free space on the disk of the state folder, or enlarge it") from error
        raise SpoolError(thing, reason, "Check the disk and the rights of the state folder") from error
