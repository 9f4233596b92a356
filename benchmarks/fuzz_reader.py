"""What the reader makes of broken files: `python benchmarks/fuzz_reader.py --count 10000`.

Small synthetic series, of single images and of frames, uncompressed and compressed, each with one file damaged: bits
flipped, bytes cut off, left out, repeated, exchanged, zeroed, lengths overwritten. Every one must be refused with an
error of ours, or give a volume; the bytes of pixels may be others then, the place of the voxels must be a finite one.
The reading runs in a process of its own with bounded memory, so that a crash and a hang are seen. `--only` runs one
case again, in this process, with its traceback.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import selectors
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import dcmread, dcmwrite
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from rich.console import Console
from rich.progress import track
from rich.table import Table

from dicom_io.errors import DicomIoError, SeriesParked
from dicom_io.header import read_header
from dicom_io.series import SeriesRef, SeriesRules, open_series, read_volume
from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
from dicom_io.synthetic_frames import FramesPlan, write_enhanced
from engine.volume import Volume

SHAPE = (4, 40, 36)  # the JPEG 2000 encoder needs more than 32 a side
RULES = SeriesRules(min_slices=2, min_coverage_mm=0.0)
HANG_S = 10.0
MEMORY_BYTES = 6 << 30
SINGLE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)
REWRITTEN = (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
FRAMES = (
    FramesPlan(),
    FramesPlan(place_shared=False),
    FramesPlan(DeflatedExplicitVRLittleEndian),
    FramesPlan(RLELossless),
    FramesPlan(RLELossless, extended_offsets=True),
    FramesPlan(JPEGLSLossless),
    FramesPlan(JPEG2000Lossless),
)
Damage = Callable[[bytearray, random.Random], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one broken series.

    Attributes:
        kind: `refused`, `same volume`, `other volume`, or what must not be: `error`, `crash`, `hang`.
        what: the code of the refusal, or the error.
    """

    kind: str
    what: str = ""

    @property
    def is_fault(self) -> bool:
        """Whether it is one that must not be."""
        return self.kind in ("error", "crash", "hang")


def bases(folder: Path) -> list[SeriesRef]:
    """The sound series."""
    values = np.random.default_rng(3).integers(-1024, 3000, SHAPE).astype(np.int16)
    volume = Volume(values, patient_grid(SHAPE, (5.0, 0.8, 0.7)))
    made = [
        write_series(volume, folder / f"single-{number}", SyntheticStudy(transfer_syntax_uid=syntax))
        for number, syntax in enumerate(SINGLE)
    ]
    for syntax in REWRITTEN:
        ref = write_series(volume, folder / f"rewritten-{syntax}", SyntheticStudy())
        for path in ref.files:
            rewrite(path, syntax)
        made.append(ref)
    plans = enumerate(FRAMES)
    return made + [write_enhanced(made[0].files, folder / f"frames-{number}.dcm", plan) for number, plan in plans]


def rewrite(path: Path, syntax: str) -> None:
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dcmwrite(path, dataset, implicit_vr=False, little_endian=False, enforce_file_format=True)
    else:
        dataset.save_as(path, enforce_file_format=True)


def flip_bits(content: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 2, 8, 64))):
        content[place(content, draw)] ^= 1 << draw.randrange(8)


def cut_off(content: bytearray, draw: random.Random) -> None:
    del content[place(content, draw) :]


def leave_out(content: bytearray, draw: random.Random) -> None:
    at = place(content, draw)
    del content[at : at + draw.choice((1, 2, 8, 100))]


def repeat(content: bytearray, draw: random.Random) -> None:
    at = place(content, draw)
    content[at:at] = content[at : at + draw.choice((1, 2, 8, 100))]


def exchange(content: bytearray, draw: random.Random) -> None:
    size = draw.choice((2, 8, 32))
    a, b = place(content, draw), place(content, draw)
    content[a : a + size], content[b : b + size] = content[b : b + size], content[a : a + size]


def blank(content: bytearray, draw: random.Random) -> None:
    at, size = place(content, draw), draw.choice((1, 4, 64, 1000))
    content[at : at + size] = bytes([draw.choice((0, 0xFF))]) * len(content[at : at + size])


def overwrite_number(content: bytearray, draw: random.Random) -> None:
    at, size = place(content, draw) & ~1, draw.choice((2, 4))
    value = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, draw.randrange(1 << 32)))
    content[at : at + size] = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")


DAMAGES: tuple[Damage, ...] = (flip_bits, cut_off, leave_out, repeat, exchange, blank, overwrite_number)


def place(content: bytearray, draw: random.Random) -> int:
    """Somewhere in the file; mostly in its header, which is where few bytes do much."""
    end = len(content) if draw.random() < 0.4 else min(len(content), 2500)
    return draw.randrange(132, max(end, 133)) if len(content) > 133 else 0


def broken(ref: SeriesRef, folder: Path, draw: random.Random) -> SeriesRef:
    """The series with one file damaged."""
    victim = draw.randrange(len(ref.files))
    content = bytearray(ref.files[victim].read_bytes())
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        if content:
            draw.choice(DAMAGES)(content, draw)
    path = folder / "broken.dcm"
    path.write_bytes(content)
    return SeriesRef(ref.study_uid, ref.series_uid, (*ref.files[:victim], path, *ref.files[victim + 1 :]))


def outcome(ref: SeriesRef, sound: Volume) -> Outcome:
    """Read as the node does: the door first, then the series.

    Raises:
        Exception: whatever else than a refusal; that is what this looks for.
    """
    refused = ""
    try:
        for path in ref.files:
            read_header(path)
    except DicomIoError as error:
        refused = type(error).__name__
    try:
        volume = read_volume(open_series(ref, RULES))  # even if the door would not have let it in
    except SeriesParked as error:
        return Outcome("refused", error.code)
    except DicomIoError as error:
        return Outcome("refused", type(error).__name__)
    if not np.isfinite(volume.grid.affine).all() or volume.hu.shape != volume.grid.shape:
        raise AssertionError(f"a volume of {volume.hu.shape} on a grid of {volume.grid.shape}")
    same = volume.hu.shape == sound.hu.shape and np.array_equal(volume.hu, sound.hu)
    kind = "same volume" if same and np.allclose(volume.grid.affine, sound.grid.affine) else "other volume"
    return Outcome(kind, f"refused at the door: {refused}" if refused else "")


def case(number: int, seed: int, refs: list[SeriesRef], folder: Path) -> SeriesRef:
    draw = random.Random(f"{seed}/{number}")
    return broken(refs[draw.randrange(len(refs))], folder, draw)


def work(folder: Path, seed: int) -> None:
    """Read cases by their numbers from the standard input, one line each, and answer with their outcomes."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    refs = bases(folder / "sound")
    sound = read_volume(open_series(refs[0], RULES))
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            found = outcome(case(int(line), seed, refs, folder), sound)
        except BaseException as error:  # noqa: BLE001 - any other error is a finding
            found = Outcome("error", f"{type(error).__module__}.{type(error).__name__}: {error}"[:300])
        print(json.dumps([found.kind, found.what]), flush=True)


class Worker:
    """The process that reads; started anew when it crashed or hung."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._folder = tempfile.TemporaryDirectory()
        self._start()

    def read(self, number: int) -> Outcome:
        """The outcome of one case."""
        print(number, file=self._stdin, flush=True)
        line = self._line(HANG_S)
        if line:
            return Outcome(*json.loads(line))
        status = self._process.poll()
        self.stop()
        self._start()
        return Outcome("hang") if status is None and line is None else Outcome("crash", f"exit status {status}")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        errors = subprocess.DEVNULL  # where the RLE decoder tells of its panics
        command = [sys.executable, __file__, "--worker", self._folder.name, "--seed", str(self._seed)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stdout, selectors.EVENT_READ)
        if self._line(120.0) != "ready\n":
            raise SystemExit("the reading process does not start")

    def _line(self, timeout_s: float) -> str | None:
        """The next line, empty at the end of a process, or None after that time."""
        return self._stdout.readline() if self._selector.select(timeout_s) else None


def run(count: int, seed: int) -> Iterator[tuple[int, Outcome]]:
    worker = Worker(seed)
    try:
        for number in track(range(count), "broken files", console=Console(stderr=True)):
            yield number, worker.read(number)
    finally:
        worker.stop()


def report(outcomes: dict[int, Outcome]) -> None:
    table = Table("outcome", "what", "cases", title=f"{len(outcomes)} broken files")
    counts = Counter((found.kind, found.what) for found in outcomes.values() if not found.is_fault)
    for (kind, what), number in sorted(counts.items()):
        table.add_row(kind, what, str(number))
    for number, found in outcomes.items():
        if found.is_fault:
            table.add_row(found.kind, found.what, f"--only {number}", style="red")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one case, in this process")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        work(given.worker, given.seed)
        return
    if given.only is not None:
        with tempfile.TemporaryDirectory() as name:
            refs = bases(Path(name) / "sound")
            ref = case(given.only, given.seed, refs, Path(name))
            print(outcome(ref, read_volume(open_series(refs[0], RULES))))
        return
    outcomes = dict(run(given.count, given.seed))
    report(outcomes)
    if any(found.is_fault for found in outcomes.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
