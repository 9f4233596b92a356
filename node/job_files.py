"""What one stage leaves for the next in the job's folder: files that are whole or not there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dicom_io.files import write_durably
from dicom_io.results import ResultFile
from engine.flags import Flag, Policy, RaisedFlag
from engine.labels import LabelSet
from engine.measure import SegmentMeasurement
from engine.volume import Grid, UnevenPlanes

FLAGS = "flags.json"


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as a file of numpy."""

    def write(file: BinaryIO) -> None:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)

    write_durably(path, write)


def save_json(path: Path, value: object) -> None:
    """Write plain values."""

    def write(file: BinaryIO) -> None:
        file.write(json.dumps(value).encode())

    write_durably(path, write)


def load_json(path: Path) -> Any:
    """Read what `save_json` wrote."""
    return json.loads(path.read_bytes())


def grid_json(grid: Grid) -> dict[str, object]:
    """A scan's grid as plain values, without its shape; `slice_places` are there where its slices lie unevenly."""
    places = {} if grid.uneven is None else {"slice_places": grid.uneven.places.tolist()}
    return {"affine": grid.affine.tolist(), **places}


def grid_of(stored: Mapping[str, Any], shape: tuple[int, int, int]) -> Grid:
    """The grid of `grid_json`, with this shape."""
    affine, places = np.array(stored["affine"], dtype=np.float64), stored.get("slice_places")
    return Grid(shape, affine, None if places is None else UnevenPlanes(0, np.array(places, dtype=np.float64)))


def measurement_json(row: SegmentMeasurement) -> dict[str, object]:
    """A row of measurements as plain values."""
    return {**asdict(row), "segment": row.segment.number}


def measurement_of(stored: Mapping[str, Any], label_set: LabelSet) -> SegmentMeasurement:
    """The row of `measurement_json`."""
    return SegmentMeasurement(**{**stored, "segment": label_set.segments[stored["segment"] - 1]})


def result_json(file: ResultFile) -> dict[str, object]:
    """A result as plain values."""
    return {**asdict(file), "path": file.path.name}


def result_of(stored: Mapping[str, Any], folder: Path) -> ResultFile:
    """The result of `result_json`."""
    return ResultFile(**{**stored, "path": folder / stored["path"]})


def save_flags(folder: Path, stage: str, raised: Sequence[RaisedFlag]) -> None:
    """Keep the flags of one stage beside those of the others; a second time overwrites the first."""
    rows = [{**asdict(each.flag), "policy": each.policy.value} for each in raised]
    save_json(folder / FLAGS, {**_stored_flags(folder), stage: rows})


def load_flags(folder: Path) -> tuple[RaisedFlag, ...]:
    """The flags of all stages, in the order of the stages; none where no stage has kept any."""
    rows = [row for stage in _stored_flags(folder).values() for row in stage]
    return tuple(
        RaisedFlag(Flag(row["code"], row["words"], row["number"], row["unit"]), Policy(row["policy"])) for row in rows
    )


def _stored_flags(folder: Path) -> dict[str, list[dict[str, Any]]]:
    path = folder / FLAGS
    return dict(load_json(path)) if path.exists() else {}
