"""A run becomes a package: exported, held against torch, judged, described; and nothing else does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peers.sample_judgement import judgement
from safetensors.torch import save_file

from engine.bundle import EVALUATION, LICENCE
from engine.errors import BackendError, ModelError
from engine.export import WEIGHTS_NAME, export_models, load_weights
from engine.gate import StoredWindows, ask
from engine.networks import UnetrShape, build_unetr
from engine.package import METADATA, README, ModelPackage, load_package
from engine.training.card import Judgement, load_words
from engine.training.errors import TrainingError
from engine.training.pack import PackPlan, main, pack, trained, trained_hours
from engine.training.preset import load_preset

IMAGES = np.random.default_rng(3).random((2, 1, 32, 32, 32), dtype=np.float32)
MakePlan = Callable[..., PackPlan]


def judge(package: ModelPackage) -> Judgement:
    return judgement(package.digest)


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    """The tiny preset's; one class is in front, so that it is sure of something."""
    torch.manual_seed(1)
    network = build_unetr(30, UnetrShape(2, 24, 48, 2), (32, 32, 32))
    with torch.no_grad():
        network.get_parameter("out.conv.conv.bias")[3] += 1
    return network


@pytest.fixture(scope="module")
def models(network: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it is exported as."""
    folder: Path = tmp_path_factory.mktemp("models")
    export_models(network, folder, (32, 32, 32))
    return folder


@pytest.fixture
def exported(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exporting takes seconds, so it is done once for all tests."""

    def export(network: torch.nn.Module, folder: Path, window: tuple[int, int, int]) -> None:
        assert window == (32, 32, 32)
        shutil.copytree(models, folder)
        load_weights(network, folder / WEIGHTS_NAME)

    monkeypatch.setattr("engine.training.pack.export_models", export)


@pytest.fixture
def state(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return network.state_dict()


@pytest.fixture
def make_plan(state: dict[str, torch.Tensor], tmp_path: Path) -> MakePlan:
    """A run of that network."""
    run = tmp_path / "run"
    run.mkdir()
    torch.save({"averaged": state, "step": 8, "total_steps": 20}, run / "checkpoint.pt")
    rows = ("1,tokens,1800.0,0.1,1.0", "2,tokens,3600.0,0.1,1.0", "3,whole,900.0,0.1,1.0")
    (run / "metrics.csv").write_text("\n".join(("step,phase,seconds,rate,loss", *rows)) + "\n")
    plan = PackPlan(
        run=run,
        weights=run / "checkpoint.pt",
        preset=load_preset("tiny"),
        preset_name="tiny",
        words=load_words("compact"),
        version="1.2.3",
        machine="one CPU core",
    )
    return lambda **changed: replace(plan, **changed)


@pytest.mark.usefixtures("exported")
def test_a_run_becomes_a_package(make_plan: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "packages" / "compact"
    package = pack(make_plan(), IMAGES, judge, target)
    assert load_package(target) == package
    assert (package.name, package.version, package.intended_use) == (
        "compact",
        "1.2.3",
        "For research, not for diagnosis",
    )
    assert "20 steps on one CPU core" in package.training_statement and "0.93" in package.training_statement
    assert "BodyParts3D" in package.attribution
    assert package.weights is not None and package.windows is not None
    card = (target / README).read_text(encoding="utf-8")
    assert "1.2 h on one CPU core" in card and package.attribution in card
    assert "CC Attribution-Share Alike 2.1 Japan" in (target / LICENCE).read_text(encoding="utf-8")
    assert len((target / EVALUATION.with_suffix(".csv")).read_text().splitlines()) == 30
    assert json.loads((target / EVALUATION.with_suffix(".json")).read_text())["totals"]["scans"] == 16
    assert json.loads((target / METADATA).read_text())["eval_metrics"]["mean_dice"] == 0.9264
    told = capsys.readouterr().out
    assert "openvino" in told and "onnxruntime" in told


@pytest.mark.usefixtures("exported")
def test_a_backend_that_answers_otherwise_ends_it(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_another(network: torch.nn.Module, images: NDArray[np.float32]) -> StoredWindows:
        answers = ask(network, images)
        return replace(answers, logits=answers.logits[:, ::-1])

    monkeypatch.setattr("engine.training.pack.ask", ask_another)
    with pytest.raises(BackendError, match="answers otherwise"):
        pack(make_plan(), IMAGES, judge, tmp_path / "compact")
    assert not (tmp_path / "compact").exists()


@pytest.mark.usefixtures("exported")
def test_a_judgement_of_another_network_ends_it(make_plan: MakePlan, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="of another network"):
        pack(make_plan(), IMAGES, lambda _package: judgement("e" * 64), tmp_path / "compact")
    assert not (tmp_path / "compact").exists()


@pytest.mark.usefixtures("exported")
def test_a_package_beyond_its_size_is_refused(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.training.pack.MOST_BYTES", 1000)
    with pytest.raises(ModelError, match="MB"):
        pack(make_plan(), IMAGES, judge, tmp_path / "compact")
    assert not (tmp_path / "compact").exists()


def test_weights_may_come_as_safetensors(make_plan: MakePlan, state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({name: weight.half() for name, weight in state.items()}, path)
    network, run = trained(make_plan(weights=path, steps=7, hours=0.5))
    assert (run.steps, run.hours, run.network.hidden_size) == (7, 0.5, 24)
    assert torch.equal(network.state_dict()["vit.norm.weight"], state["vit.norm.weight"])
    with pytest.raises(TrainingError, match="--steps"):
        trained(make_plan(weights=path))


def test_a_checkpoint_of_another_network_or_a_damaged_one_is_refused(make_plan: MakePlan) -> None:
    plan = make_plan()
    with pytest.raises(TrainingError, match=r"checkpoint\.pt: it does not fit this preset"):
        trained(replace(plan, preset=load_preset("compact")))
    plan.weights.write_bytes(plan.weights.read_bytes()[:-2000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt"):
        trained(plan)
    with pytest.raises(TrainingError, match="no UNETR"):
        trained(replace(plan, preset=load_preset("paper-unet3d")))


def test_hours_are_the_sum_of_the_phases(make_plan: MakePlan) -> None:
    run = make_plan().run
    assert trained_hours(run) == pytest.approx(1.25)
    (run / "metrics.csv").write_text("20,34,4.2,0.01\n40,55,3.7,0.02\n")
    with pytest.raises(TrainingError, match="--hours"):
        trained_hours(run)
    (run / "metrics.csv").unlink()
    with pytest.raises(TrainingError, match="--hours"):
        trained_hours(run)


def test_the_command_tells_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--run", str(tmp_path), "--to", str(tmp_path / "to"), "--machine", "none", "--preset", "nobody"])
    assert status == 2
    assert "nobody" in capsys.readouterr().err
