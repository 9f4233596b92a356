"""`vastus train` as it is typed."""

from __future__ import annotations

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from engine.errors import VastusError
from engine.images import write_image, write_labels
from engine.labels import thigh29
from engine.segmentation import Segmentation
from engine.training.errors import TrainingError
from engine.volume import Grid, Volume
from node.cli.main import app

REPO = Path(__file__).resolve().parents[3]
pytestmark = pytest.mark.usefixtures("process_as_it_was")

OPTIONS = ("train", "--preset", "tiny", "--workers", "0", "--threads", "1")


def train(*arguments: str) -> Result:
    """Run the command in this process; errors of ours come out as they are."""
    result = CliRunner().invoke(app, [*OPTIONS, *arguments])
    if isinstance(result.exception, VastusError):
        raise result.exception
    return result


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pairs that show every structure."""
    shape = (32, 40, 48)
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = 6.0, 5.0, 5.0, 1.0
    grid = Grid(shape, affine)
    for number in range(2):
        drawn = np.random.default_rng(number).permutation(np.arange(4 * 5 * 6) % 60) % 59
        labels = drawn.reshape(4, 5, 6).repeat(8, 0).repeat(8, 1).repeat(8, 2).astype(np.uint8)
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
        hu = (labels.astype(np.int16) + 1) // 2 * 10 - 100
        write_image(tmp_path / "data" / "images" / f"case{number}.nii.gz", Volume(hu, grid))
        write_labels(tmp_path / "data" / "labels" / f"case{number}.nrrd", Segmentation(labels, grid, thigh29()))
    return tmp_path / "data"


def test_a_folder_of_pairs_trains_a_model(tmp_path: Path, data: Path) -> None:
    run = tmp_path / "run"
    done = train("--data", str(data), "--run", str(run), "--steps", "6")
    assert done.exit_code == 0
    assert {"checkpoint.pt", "best.pt", "run.json", "metrics.csv", "validation.csv"} <= {
        path.name for path in run.iterdir()
    }
    assert "done after 6 steps" in done.stdout and "phase 3/3 whole" in done.stdout
    kept = (run / "checkpoint.pt").read_bytes()
    with pytest.raises(TrainingError, match="seed is 1 there and 2 here"):
        train("--data", str(data), "--run", str(run), "--steps", "6", "--seed", "2")
    assert (run / "checkpoint.pt").read_bytes() == kept


@pytest.mark.soak
def test_a_signal_stops_a_run_in_order_and_the_command_goes_on(tmp_path: Path, data: Path) -> None:
    arguments = ("--data", str(data), "--run", str(tmp_path / "mine"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-W", "error", "-m", "node.cli.main", *OPTIONS, *arguments, "--steps", "100000"]
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "mine" / "metrics.csv"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size > 400):
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    words, _ = process.communicate(timeout=300)
    assert process.returncode == 3 and "Stopped with a checkpoint" in words
    stopped = steps_of(metrics)[-1]
    assert train(*arguments, "--steps", "20").exit_code == 0
    steps = steps_of(metrics)
    assert steps == list(range(1, len(steps) + 1)) and len(steps) > stopped


def steps_of(metrics: Path) -> list[int]:
    with metrics.open(newline="", encoding="utf-8") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_the_search_names_the_best_rate(tmp_path: Path, data: Path) -> None:
    assert train("--data", str(data), "--run", str(tmp_path / "run"), "--search").exit_code == 0
    with (tmp_path / "run" / "search.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["rate"]) for row in rows] == [1e-3, 1e-4]
    assert all(re.fullmatch(r"0\.\d+", row["best_mean_dice"]) for row in rows)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "cuda:99"), "GPUs"),
        (("--preset", "papper"), "none of this name"),
        (("--preset", "paper"), "does not train on synthetic scans"),
        (("--data", "nowhere"), "cannot be listed"),
    ],
)
def test_what_cannot_be_done_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(TrainingError, match=words):
        train("--run", str(tmp_path / "run"), *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--minutes", "1", "--steps", "1"), "not both"),
        (("--labels", "voxels"), "structures"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    refused = train("--run", str(tmp_path / "run"), *arguments)
    assert refused.exit_code == 2 and words in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_synthetic_scans_train_a_model_without_any_data(tmp_path: Path) -> None:
    done = train("--run", str(tmp_path / "run"), "--steps", "4")
    assert done.exit_code == 0 and "done after 4 steps" in done.stdout
