"""A run that is killed or stopped goes on as if nothing had happened."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from stubs.training import Notes, source, tiny

from engine.training.checkpoint import CHECKPOINT, PREVIOUS
from engine.training.errors import TrainingError
from engine.training.loop import BEST, RunPlan, Trainer, identity_of

SCRIPT = Path(__file__).parents[2] / "stubs" / "train_and_die.py"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums of several threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(folder: Path, workers: int, *step: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder), str(workers), *map(str, step)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def trainer(folder: Path, watcher: Notes, seed: int = 1, workers: int = 0) -> Trainer:
    plan = RunPlan(tiny(), folder, seed=seed)
    return Trainer(plan, source(seed, workers), identity_of(plan, {}), watcher)


def assert_same(one: object, other: object) -> None:
    """Equal to the last bit, all the way down."""
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert isinstance(other, torch.Tensor) and torch.equal(one, other)
    elif isinstance(one, dict):
        assert isinstance(other, dict) and list(one) == list(other)
        for key in one:
            if key != "trained_s":
                assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert isinstance(other, list) and len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_same(left, right)
    else:
        assert one == other


def state_of(folder: Path, name: str = CHECKPOINT) -> object:
    return torch.load(folder / name, weights_only=True)


def table_of(folder: Path, name: str) -> list[list[str]]:
    """A table of the run without its seconds."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        return [[*row[:2], *row[3:]] if name == "metrics.csv" else row for row in csv.reader(file)]


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_bit_for_bit_like_one_that_was_not(tmp_path: Path) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    calm = start(undisturbed, 0)
    for step in (5, 17):  # the last checkpoint is one or two steps back
        process = start(killed, 0, step)
        _, words = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, words.decode()
    last = start(killed, 0)
    for process in (calm, last):
        _, words = process.communicate(timeout=120)
        assert process.returncode == 0, words.decode()
    for name in (CHECKPOINT, BEST):
        assert_same(state_of(undisturbed, name), state_of(killed, name))
    for name in ("metrics.csv", "validation.csv"):
        assert table_of(undisturbed, name) == table_of(killed, name)
    assert len(table_of(killed, "metrics.csv")) == 1 + 20


def test_a_run_that_is_stopped_goes_on(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert trainer(whole, Notes()).run().finished
    for step in (4, 14):
        outcome = trainer(parts, Notes(stop_after=step), workers=1).run()
        assert not outcome.finished and outcome.steps == step
    last = Notes()
    assert trainer(parts, last, workers=1).run().finished
    assert last.phases == ["3/3 whole"] and [report.step for report in last.steps] == list(range(15, 21))
    assert_same(state_of(whole), state_of(parts))


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    first = trainer(tmp_path, Notes()).run()
    kept = (tmp_path / CHECKPOINT).read_bytes()
    again = Notes()
    assert trainer(tmp_path, again).run() == first
    assert not again.steps and (tmp_path / CHECKPOINT).read_bytes() == kept


def test_another_seed_ends_elsewhere(tmp_path: Path) -> None:
    for seed in (1, 2):
        trainer(tmp_path / str(seed), Notes(), seed).run()
    one, other = (torch.load(tmp_path / str(seed) / CHECKPOINT, weights_only=True)["averaged"] for seed in (1, 2))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_cut_short_is_refused_and_the_previous_one_does(tmp_path: Path) -> None:
    trainer(tmp_path, Notes(stop_after=8)).run()
    path, previous = tmp_path / CHECKPOINT, tmp_path / PREVIOUS
    path.write_bytes(path.read_bytes()[:-2000])
    before = {each: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    with pytest.raises(TrainingError, match="cut short") as refused:
        trainer(tmp_path, Notes())
    assert str(path) in refused.value.thing and previous.name in refused.value.remedy
    assert before == {each: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    path.unlink()
    assert trainer(tmp_path, Notes()).run().finished
    trainer(tmp_path / "calm", Notes()).run()
    assert_same(state_of(tmp_path / "calm"), state_of(tmp_path))


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, Notes(stop_after=2)).run()
    with pytest.raises(TrainingError, match="seed is 1 there and 2 here"):
        trainer(tmp_path, Notes(), seed=2)
    (tmp_path / "run.json").unlink()
    with pytest.raises(TrainingError, match=r"no run\.json"):
        trainer(tmp_path, Notes())


def test_weights_of_another_run_are_a_beginning(tmp_path: Path) -> None:
    trainer(tmp_path / "first", Notes()).run()
    state = torch.load(tmp_path / "first" / CHECKPOINT, weights_only=True)
    kept = {key: state[key] for key in ("pyramid", "averaged", "optimiser", "trained_s")}
    torch.save({**kept, "step": 3}, tmp_path / "foreign.pt")
    plan = RunPlan(tiny(), tmp_path / "second", start_from=tmp_path / "foreign.pt")
    notes = Notes()
    assert Trainer(plan, source(), identity_of(plan, {}), notes).run().finished
    assert notes.phases == ["3/3 whole"] and [report.step for report in notes.steps] == [4, 5, 6, 7, 8]
