"""How long a series takes to become a volume: `python benchmarks/read.py [--syntax JPEGLSLossless] [--frames]`.

450 slices of 512 x 512, from files to Hounsfield units with every check, beside highdicom and SimpleITK on the same
files in the same run, and beside the floor: reading the bytes alone into memory of the volume's size. The files are in
the page cache. Every reader has its own process and takes turns with the others; told are the medians and the ratios.
highdicom applies the rescale and gives float64; SimpleITK is given the files in their order, which it does not check.
With `--frames` the slices are the frames of one Enhanced CT file, which SimpleITK does not place.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pydicom.uid
from pydicom.uid import ExplicitVRLittleEndian
from rich.console import Console
from rich.progress import track
from rich.table import Table

SHAPE = (450, 512, 512)


def prepare(folder: Path, syntax: str, frames: bool) -> None:
    """Write the scan: soft tissue with noise in a circle, so that a compressor has what it has in a patient."""
    from dicom_io.synthetic import SyntheticStudy, patient_grid, write_series
    from dicom_io.synthetic_frames import FramesPlan, write_enhanced
    from engine.volume import Volume

    draw = np.random.default_rng(1)
    noise = draw.normal(40.0, 15.0, (8, *SHAPE[1:])).astype(np.int16)
    rows, columns = np.ogrid[: SHAPE[1], : SHAPE[2]]
    outside = (rows - 256) ** 2 + (columns - 256) ** 2 > 200**2
    hu = np.empty(SHAPE, dtype=np.int16)
    for k in range(SHAPE[0]):
        hu[k] = np.where(outside, -1000, noise[k % 8] + k // 8)
    study = SyntheticStudy(transfer_syntax_uid=ExplicitVRLittleEndian if frames else syntax)
    ref = write_series(Volume(hu, patient_grid(SHAPE, (1.0, 0.8, 0.8))), folder, study)
    if frames:
        write_enhanced(ref.files, folder / "enhanced.dcm", FramesPlan(syntax))
        for path in ref.files:
            path.unlink()


def paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.dcm"))


def floor(folder: Path) -> int:
    files = [(path, path.stat().st_size) for path in paths(folder)]
    whole = np.empty(sum(size for _, size in files), dtype=np.uint8)
    at = 0
    for path, size in files:
        with path.open("rb", buffering=0) as file:
            at += file.readinto(whole[at : at + size].data) or 0
    return at


def ours(folder: Path) -> int:
    from dicom_io.series import SeriesRef, SeriesRules, open_series, read_volume

    study, series = _uids(folder)
    source = open_series(SeriesRef(study, series, tuple(paths(folder))), SeriesRules(2, 0.0))
    return int(read_volume(source).hu[-1, 256, 256])


def by_highdicom(folder: Path) -> int:
    import highdicom as hd

    files = paths(folder)
    if len(files) == 1:
        return int(hd.imread(files[0]).get_volume().array[-1, 256, 256])
    return int(hd.get_volume_from_series([pydicom.dcmread(path) for path in files]).array[-1, 256, 256])


def by_simple_itk(folder: Path) -> int:
    import SimpleITK as sitk  # noqa: N813 - as its own manual names it

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths(folder)])
    return int(sitk.GetArrayFromImage(reader.Execute()).flat[-1])


def _uids(folder: Path) -> tuple[str, str]:
    header = pydicom.dcmread(paths(folder)[0], specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
    return str(header.StudyInstanceUID), str(header.SeriesInstanceUID)


READERS: Mapping[str, Callable[[Path], int]] = {
    "floor: the bytes alone": floor,
    "Vastus": ours,
    "highdicom": by_highdicom,
    "SimpleITK": by_simple_itk,
}


def timed(reader: str, folder: Path) -> tuple[float, float]:
    """Seconds of one reading, and the growth of the process's peak memory by it, MiB."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew, see man 5 proc
    before = memory_mib("VmRSS")
    began = time.perf_counter()
    READERS[reader](folder)
    return time.perf_counter() - began, memory_mib("VmHWM") - before


def memory_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def report(rows: Mapping[str, list[tuple[float, float]]], title: str) -> None:
    table = Table("reader", "median, s", "fastest, s", "times the floor", "memory, times the volume", title=title)
    base = statistics.median(seconds for seconds, _ in rows["floor: the bytes alone"])
    volume_mib = 2 * np.prod(SHAPE) / (1 << 20)
    for name, found in rows.items():
        seconds = [each for each, _ in found]
        median, peak = statistics.median(seconds), max(mib for _, mib in found) / volume_mib
        table.add_row(name, f"{median:.3f}", f"{min(seconds):.3f}", f"{median / base:.2f}", f"{peak:.2f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--syntax", default="ExplicitVRLittleEndian", help="keyword of a transfer syntax")
    parser.add_argument("--frames", action="store_true", help="one Enhanced CT file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--folder", type=Path, help="keep the files here, and take them from here if they are")
    given = parser.parse_args()
    spawned = get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = (given.folder or Path(name)) / f"{given.syntax}{'-frames' if given.frames else ''}"
        if not folder.exists():
            with ProcessPoolExecutor(1, mp_context=spawned) as child:
                child.submit(prepare, folder, getattr(pydicom.uid, given.syntax), given.frames).result()
        readers = [each for each in given.readers if not (given.frames and each == "SimpleITK")]
        children = {each: ProcessPoolExecutor(1, mp_context=spawned) for each in readers}
        rows: dict[str, list[tuple[float, float]]] = {each: [] for each in readers}
        for turn in track(range(given.rounds + 1), "rounds", console=Console(stderr=True)):
            for each, child in children.items():
                found = child.submit(timed, each, folder).result()
                if turn:  # the first one imports and fills the caches
                    rows[each].append(found)
        for child in children.values():
            child.shutdown()
    report(rows, f"{SHAPE[0]} slices, {given.syntax}{', frames of one file' if given.frames else ''}")


if __name__ == "__main__":
    main()
