"""Plans that were built before: their names, their files, and how long building them took.

A plan is a network compiled for one kind of GPU by one version of a library. Its name is the SHA-256 of everything that
it depends on, and a note in JSON beside it says what that was. A plan without its note, or with one that tells another
story, is built anew and never run. Files are written under a temporary name, synced and renamed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx

from engine.errors import BackendError
from engine.package import sha256_of

READABLE = 0o644
"""Nothing in these files is secret, and who builds a plan need not be the user that the service runs as."""
Say = Callable[[str], None]
"""Takes one line about what is going on."""


@dataclass(frozen=True)
class PlanKey:
    """Everything that a plan depends on.

    Attributes:
        network: `network_digest` of the ONNX file.
        module: the library's Python module.
        version: the library's version.
        gpu: the GPU's name; of a portable plan the family.
        compute_capability: the GPU's, as `8.0`; of a portable plan the least.
        precision: what the network computes in.
        batches: least, usual and most windows at a time.
        portable: whether it is for every GPU since Ampere.
        libraries: SHA-256 of the plug-in libraries, in the order in which they are loaded.
        workspace_bytes: memory that a layer may take while it computes.
        optimisation_level: how long the library searches, 0 to 5.
    """

    network: str
    module: str
    version: str
    gpu: str
    compute_capability: str
    precision: str
    batches: tuple[int, int, int]
    portable: bool
    libraries: tuple[str, ...]
    workspace_bytes: int
    optimisation_level: int

    @property
    def name(self) -> str:
        """SHA-256 over all of it, hexadecimal."""
        return _digest(self.told())

    @property
    def machine(self) -> str:
        """The same over what timings depend on: library and GPU."""
        return _digest({"library": [self.module, self.version], "gpu": [self.gpu, self.compute_capability]})

    def told(self) -> dict[str, Any]:
        """All of it as JSON holds it."""
        return asdict(self) | {"batches": list(self.batches), "libraries": list(self.libraries)}


class PlanStore:
    """The folder of the plans.

    Args:
        folder: made where it is missing.

    Raises:
        BackendError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error

    def plan(self, key: PlanKey) -> Path:
        """Where the plan lies."""
        return self.folder / f"{key.name}.plan"

    def note(self, key: PlanKey) -> Path:
        """Where it says what the plan depends on."""
        return self.folder / f"{key.name}.json"

    def timings(self, key: PlanKey) -> Path:
        """Where the library's measurements for this GPU and version lie."""
        return self.folder / f"timings-{key.machine[:16]}.cache"

    def read(self, key: PlanKey, say: Say) -> bytes | None:
        """A plan that was built before; None where there is none, or one that is refused: why is said."""
        try:
            note = json.loads(self.note(key).read_bytes())
            plan = self.plan(key).read_bytes()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            say(f"The plan {self.plan(key).name} is refused: it cannot be read ({error})")
            return None
        reason = _refusal(note, key, plan)
        if reason is not None:
            say(f"The plan {self.plan(key).name} is refused: {reason}")
            return None
        return plan

    def read_timings(self, key: PlanKey) -> bytes:
        """The library's measurements; empty where there are none."""
        try:
            return self.timings(key).read_bytes()
        except OSError:  # they save time, and nothing depends on them
            return b""

    def write(self, key: PlanKey, plan: bytes, seconds: float) -> None:
        """Keep a plan and its note; the note comes last, and a plan without one is not run.

        Raises:
            BackendError: the folder cannot be written to.
        """
        note = {
            "depends_on": key.told(),
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
            "build_s": round(seconds, 3),
            "built": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        self._write(self.plan(key), plan)
        self._write(self.note(key), (json.dumps(note, indent=2, ensure_ascii=False) + "\n").encode())

    def write_timings(self, key: PlanKey, timings: bytes) -> None:
        """Keep the library's measurements.

        Raises:
            BackendError: the folder cannot be written to.
        """
        self._write(self.timings(key), timings)

    def last_build_s(self, key: PlanKey) -> float | None:
        """How long the last plan for this GPU took to build, in s; None where none was built here."""
        times: list[tuple[str, float]] = []
        for path in self.folder.glob("*.json"):
            try:
                note = json.loads(path.read_bytes())
                if note["depends_on"]["gpu"] == key.gpu and note["depends_on"]["module"] == key.module:
                    times.append((str(note["built"]), float(note["build_s"])))
            except (OSError, ValueError, LookupError, TypeError):  # a damaged note tells nothing
                continue
        return max(times)[1] if times else None

    @contextmanager
    def building(self, key: PlanKey) -> Iterator[None]:
        """Let one process at a time build a plan for a GPU; the others wait, and find it built.

        Raises:
            BackendError: the folder cannot be written to.
        """
        path = self.folder / f"{key.machine[:16]}.lock"
        try:
            lock = path.open("w")
        except OSError as error:
            raise _unwritable(path, error) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the system frees it when the process ends, whatever ends it
            yield

    def _write(self, path: Path, content: bytes) -> None:
        try:
            write_whole(path, content)
        except OSError as error:
            raise _unwritable(path, error) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever ends the program.

    Raises:
        OSError: it could not be written; what was there before is still there.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), READABLE)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name, too
    finally:
        os.close(folder)


def network_digest(path: Path) -> str:
    """SHA-256 over an ONNX file and every file of weights that it refers to, hexadecimal.

    Raises:
        OSError: one of them cannot be read.
    """
    graph = onnx.load(str(path), load_external_data=False).graph
    places = {entry.value for weight in graph.initializer for entry in weight.external_data if entry.key == "location"}
    return _digest([sha256_of(path), *((place, sha256_of(path.parent / place)) for place in sorted(places))])


def _refusal(note: Any, key: PlanKey, plan: bytes) -> str | None:
    """Why a plan with this note is not the one; None where it is."""
    if not isinstance(note, dict) or not isinstance(note.get("depends_on"), dict):
        return "its note is damaged"
    told, expected = note["depends_on"], key.told()
    for part, value in expected.items():
        if told.get(part) != value:
            return f"it was built for {part} {told.get(part)!r}, not {value!r}"
    if note.get("plan_sha256") != hashlib.sha256(plan).hexdigest():
        return "it is damaged"
    return None


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _unwritable(path: Path, error: OSError) -> BackendError:
    reason = f"it cannot be written ({error.strerror})"
    return BackendError(f"file {path}", reason, "Check the rights and the free space of the cache folder")
