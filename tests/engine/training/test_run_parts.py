"""Checkpoint files, records, pace, devices and validation, each by itself."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stubs.training import source, tiny

from engine.labels import thigh29
from engine.training.checkpoint import CHECKPOINT, PREVIOUS, keep, newest_of, read_state, write_whole
from engine.training.devices import open_machine
from engine.training.draws import Batch
from engine.training.errors import TrainingError
from engine.training.pace import Pace, paces, rate_at
from engine.training.preset import Budget, load_preset
from engine.training.records import Records, claim, refuse_other
from engine.training.state import State
from engine.training.validation import MEAN, judge


def test_the_checkpoint_before_is_kept(tmp_path: Path) -> None:
    assert newest_of(tmp_path) is None
    for number in range(3):
        assert keep({"step": number}, tmp_path) == tmp_path / CHECKPOINT
    assert read_state(tmp_path / CHECKPOINT, ("step",)) == {"step": 2}
    assert read_state(tmp_path / PREVIOUS, ("step",)) == {"step": 1}
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, PREVIOUS}


def test_a_kill_between_two_names_loses_nothing_but_steps(tmp_path: Path) -> None:
    keep({"step": 1}, tmp_path)
    (tmp_path / CHECKPOINT).rename(tmp_path / PREVIOUS)
    assert newest_of(tmp_path) == tmp_path / PREVIOUS


def test_a_full_disk_leaves_the_checkpoint_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep({"step": 1}, tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="No space left"):
        keep({"step": 2}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT}
    assert read_state(tmp_path / CHECKPOINT, ("step",)) == {"step": 1}


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"PK\x03\x04 half an archive"])
def test_what_is_no_checkpoint_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / CHECKPOINT
    path.write_bytes(content)
    with pytest.raises(TrainingError, match="damaged or cut short") as refused:
        read_state(path, ("step",))
    assert str(path) in refused.value.thing


@given(st.integers(1, 60))
def test_a_checkpoint_cut_anywhere_is_refused(lost: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CHECKPOINT
        write_whole({"step": 1, "weights": torch.zeros(100)}, path)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * (60 - lost) // 60])
        with pytest.raises(TrainingError):
            read_state(path, ("step",))


def test_a_checkpoint_of_another_kind_is_refused(tmp_path: Path) -> None:
    write_whole({"other": 1}, tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match="holds no 'step'"):
        read_state(tmp_path / CHECKPOINT, ("step",))
    write_whole([1], tmp_path / CHECKPOINT)
    with pytest.raises(TrainingError, match="holds no 'step'"):
        read_state(tmp_path / CHECKPOINT, ("step",))


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    machine, count = open_machine("cpu", "fp32"), thigh29().class_count
    State(tiny(), count, 1, machine).save(tmp_path)
    other = State(tiny(), count + 1, 1, machine)
    with pytest.raises(TrainingError, match="does not fit this preset"):
        other.restore(tmp_path / CHECKPOINT)


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    mine = {"preset": {"loss": {"kind": "dice"}}, "seed": 1}
    refuse_other(folder, mine)
    assert not folder.exists()
    claim(folder, mine)
    claim(folder, mine)
    with pytest.raises(TrainingError, match=r"preset\.loss\.kind is 'dice' there and 'dice_ce' here"):
        claim(folder, {"preset": {"loss": {"kind": "dice_ce"}}, "seed": 1})
    (folder / "run.json").write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        claim(folder, mine)


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    with Records(tmp_path, 0) as records:
        for step in (1, 2, 3, 4):
            records.step((step, "whole", 1.0, 1e-3, 2.0))
        records.validated(2, {MEAN: 0.5, "femur": math.nan})
        records.validated(4, {MEAN: 0.6, "femur": 0.5})
    path = tmp_path / "metrics.csv"
    path.write_text(path.read_text() + "5,whole,1.")  # cut off by a kill
    with Records(tmp_path, 3) as records:
        records.step((4, "whole", 9.0, 1e-3, 7.0))
    lines = path.read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "1", "2", "3", "4"]
    assert lines[-1].endswith("7.0")
    assert (tmp_path / "validation.csv").read_text().splitlines() == ["step,mean,femur", "2,0.5,nan"]


def test_a_budget_is_divided_by_the_shares() -> None:
    data = source()
    assert [pace.steps for pace in paces(tiny(), Budget(20, "steps"), data)] == [6, 6, 8]
    assert [pace.steps for pace in paces(tiny(), Budget(8, "steps"), data)] == [2, 3, 3]
    assert [pace.steps for pace in paces(tiny(), Budget(1, "steps"), data)] == [1, 1, 1]
    assert [pace.steps for pace in paces(tiny(), Budget(10, "epochs"), data)] == [12, 12, 16]
    seconds = [pace.seconds for pace in paces(tiny(), Budget(10, "minutes"), data)]
    assert seconds == pytest.approx([180, 180, 240])


def test_what_is_left_is_told() -> None:
    assert Pace(10, None).left_s(4, 8.0, 2.0) == pytest.approx(12)
    assert Pace(None, 60.0).left_s(7, 20.0, 2.0) == 40
    assert Pace(None, 60.0).share(7, 30.0) == 0.5


@given(st.integers(0, 500), st.floats(0, 1.2))
def test_a_rate_stays_between_its_ends(step: int, share: float) -> None:
    (phase,) = load_preset("paper").phases
    assert rate_at(phase, step, share) == phase.rate
    phase = load_preset("compact").phases[-1]
    rate = rate_at(phase, step, share)
    assert 0 < rate <= phase.rate
    if step >= phase.warm_up_steps:
        assert rate >= phase.rate * phase.last_rate * 0.999


def test_a_device_that_is_absent_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_machine("cpu", "bf16").device.type == "cpu"
    for name, reason in (("tpu", "no such kind"), ("meta", "cpu or cuda only")):
        with pytest.raises(TrainingError, match=reason):
            open_machine(name, "fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(TrainingError, match="sees 0 GPUs"):
        open_machine("cuda", "fp32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(TrainingError, match="sees 1 GPUs"):
        open_machine("cuda:1", "fp32")


class _Brightness(torch.nn.Module):
    """Knows each class by the brightness that the test gives it."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("levels", torch.arange(count) / count)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        levels = self.get_buffer("levels")[None, :, None, None, None]
        return -(image - levels).square() * 1e4


def test_dice_is_what_it_is_by_hand() -> None:
    labels = thigh29()
    classes = torch.zeros((1, 1, 40, 36, 50), dtype=torch.uint8)
    classes[..., :10] = 1
    classes[..., 20:30] = 7
    seen = classes.clone()
    seen[..., 5:10] = 0  # half of it missed: Dice 2/3
    seen[..., 49] = 3  # invented where none is
    held_out = [Batch(seen / labels.class_count, classes)] * 2
    found = judge(_Brightness(labels.class_count), iter(held_out), tiny(), open_machine("cpu", "fp32"), labels)
    assert found["sartorius"] == pytest.approx(2 / 3)
    assert found[labels.structures[6].key] == 1
    assert np.isnan(found[labels.structures[2].key])
    assert found[MEAN] == pytest.approx(5 / 6)
    assert len(found) == 30
