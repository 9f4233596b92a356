"""`vastus evaluate` as a researcher types it."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import CommandLine
from label_bodies import random_case

from engine.images import write_image, write_labels
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.volume import Grid, Volume


def vastus(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "node.cli.main", *arguments],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture
def cases(tmp_path: Path) -> Path:
    """Two cases with predictions in `p`, truth in `t` and CT in `i`."""
    for part in "pti":
        (tmp_path / part).mkdir()
    for number in (1, 2):
        case = random_case(f"case{number}", number)
        name = f"{case.name}.nii.gz"
        write_labels(tmp_path / "p" / name, Segmentation(case.prediction, case.grid, thigh29()))
        write_labels(tmp_path / "t" / name, Segmentation(case.truth, case.grid, thigh29()))
        assert case.hu is not None
        write_image(tmp_path / "i" / name, Volume(case.hu, case.grid))
    return tmp_path


def test_tables_and_pictures_are_made(cases: Path) -> None:
    done = vastus("evaluate", "p", "t", "--images", "i", "--output", "out", folder=cases)
    assert done.returncode == 0, done.stderr
    assert "Vastus lateralis" in done.stdout and "29 structures, both" in done.stdout
    written = sorted(path.name for path in (cases / "out").iterdir())
    assert len(written) == 10 and all(f"out/{name}" in done.stdout for name in written)
    with (cases / "out" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["case"] for row in rows} == {"case1", "case2"} and len(rows) == 2 * 105
    assert all(0 < float(row["dice"]) < 1 and row["hu_error"] for row in rows)


def test_labels_of_another_scheme_are_refused(typed: CommandLine, cases: Path) -> None:
    refused = typed("evaluate", "p", "t", "--labels", "structures", folder=cases)
    assert refused.returncode == 2
    assert "case1.nii.gz" in refused.stderr and "30, 31" in refused.stderr


def test_a_wrong_file_is_named_and_nothing_is_written(typed: CommandLine, cases: Path) -> None:
    affine = np.array(random_case("x", 1).grid.affine)
    affine[2, 3] += 5
    moved = Grid((12, 32, 32), affine)
    write_labels(cases / "p" / "case2.nii.gz", Segmentation(random_case("x", 1).truth, moved, thigh29()))
    refused = typed("evaluate", "p", "t", "--output", "out", folder=cases)
    assert refused.returncode == 2
    assert "p/case2.nii.gz" in refused.stderr and "t/case2.nii.gz" in refused.stderr and "Remedy" in refused.stderr
    assert not list((cases / "out").iterdir())


def test_an_earlier_evaluation_is_not_written_over(typed: CommandLine, cases: Path) -> None:
    (cases / "out").mkdir()
    (cases / "out" / "report.md").write_text("earlier")
    refused = typed("evaluate", "p", "t", "--output", "out", folder=cases)
    assert refused.returncode == 2 and "out" in refused.stderr
    assert (cases / "out" / "report.md").read_text() == "earlier"
