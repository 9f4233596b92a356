"""Turns a training run into a model package: `python -m engine.training.pack --run FOLDER --to FOLDER --machine WORDS`.

Exports the averaged weights, holds every CPU backend against torch on stored windows, judges the package on scans that
no training drew, through the very path that the service uses, and writes the package with its model card. The same
run, words and judgement give the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.backends import SessionOptions, availability, cores, open_session
from engine.bundle import EVALUATION, LICENCE, ModelCard, write_package
from engine.errors import ModelError, VastusError
from engine.export import WEIGHTS_NAME, export_models, load_weights
from engine.gate import ask, check, store, stored
from engine.labels import thigh29
from engine.networks import UnetrShape, build_unetr
from engine.package import README, STORED_WINDOWS, ModelPackage
from engine.training.card import (
    CardWords,
    Judgement,
    TrainingRun,
    judgement_csv,
    judgement_json,
    load_words,
    model_card,
    read_judgement,
    training_statement,
)
from engine.training.checkpoint import CHECKPOINT, read_state
from engine.training.errors import TrainingError
from engine.training.preset import Preset, load_preset
from engine.training.records import METRICS

MODELS, UNJUDGED, JUDGEMENT = "models", "package", "judgement.json"
MOST_BYTES = 60_000_000
WINDOW_SEED, WINDOWS = 700_000_000, 4

Judge = Callable[[ModelPackage], Judgement]
Images = NDArray[np.float32]


@dataclass(frozen=True)
class PackPlan:
    """What is packed.

    Attributes:
        run: the training run's folder; the network's files, the package without a card and the judgement lie there too.
        weights: its checkpoint, or float16 weights as `.safetensors`.
        preset: the way it was trained; gives the network's sizes and what it expects to see.
        preset_name: how the card calls it.
        words: what is said of it.
        version: of the model.
        machine: the kind of machine that trained it.
        hours: of training; None reads them from the run's `metrics.csv`.
        steps: of training; None reads them from the checkpoint.
    """

    run: Path
    weights: Path
    preset: Preset
    preset_name: str
    words: CardWords
    version: str
    machine: str
    hours: float | None = None
    steps: int | None = None


def pack(plan: PackPlan, images: Images, judge: Judge, target: Path) -> ModelPackage:
    """Write the package of a run.

    Args:
        plan: what is packed.
        images: windows to hold the backends against torch on, float32 [window, 1, z, y, x] in 0..1.
        judge: judges the package before it has a card.
        target: the package's folder; a package that is there is replaced once the new one is whole.

    Raises:
        TrainingError: the weights are missing, damaged or another network's, nothing tells steps or hours, or the
            judgement is of another network.
        BackendError: a backend does not answer as torch does.
        ModelError: the package is too large, or could not be loaded again.
    """
    network, run = trained(plan)
    models = plan.run / MODELS
    shutil.rmtree(models, ignore_errors=True)
    export_models(network, models, plan.preset.preprocessing.window)
    store(ask(network, images), models / STORED_WINDOWS.name)
    unjudged = write_package(plan.run / UNJUDGED, models, _card(plan, run, None))
    verify(unjudged)
    judgement = judge(unjudged)
    if judgement.model_digest != unjudged.digest:
        reason = f"it is of another network ({judgement.model_digest[:12]}…, not {unjudged.digest[:12]}…)"
        raise TrainingError("judgement", reason, "Judge this one anew")
    (plan.run / JUDGEMENT).write_text(judgement_json(judgement), encoding="utf-8")
    texts = {
        README: model_card(plan.words, plan.version, run, judgement),
        LICENCE: plan.words.licence + "\n",
        EVALUATION.with_suffix(".csv"): judgement_csv(judgement),
        EVALUATION.with_suffix(".json"): judgement_json(judgement),
    }
    _refuse_large(models, texts)
    return write_package(target, models, _card(plan, run, judgement), texts)


def trained(plan: PackPlan) -> tuple[torch.nn.Module, TrainingRun]:
    """The network with its weights, and how it came by them.

    Raises:
        TrainingError: the weights are missing, damaged or another network's, or nothing tells steps or hours.
    """
    shape = _shape(plan.preset)
    network = build_unetr(thigh29().class_count, shape, plan.preset.preprocessing.window)
    told: Mapping[str, Any] = {}
    if plan.weights.suffix == Path(WEIGHTS_NAME).suffix:
        load_weights(network, plan.weights)
    else:
        told = read_state(plan.weights, ("averaged", "step"))
        _load(network, told["averaged"], plan.weights)
    steps = told.get("total_steps", told.get("step")) if plan.steps is None else plan.steps
    if steps is None:
        raise TrainingError(f"weights {plan.weights}", "they do not tell their steps", "Give them with --steps")
    run = TrainingRun(
        network=shape,
        preprocessing=plan.preset.preprocessing,
        parameters=sum(weight.numel() for weight in network.parameters()),
        preset=plan.preset_name,
        steps=int(steps),
        hours=trained_hours(plan.run) if plan.hours is None else plan.hours,
        machine=plan.machine,
    )
    return network, run


def verify(package: ModelPackage) -> None:
    """Hold every backend against torch's answers that are stored in the package.

    Raises:
        BackendError: one that can be used here does not answer as torch does.
        ModelError: the package holds no windows.
    """
    if package.windows is None:
        raise ModelError(f"model package {package.folder}", "it holds no windows", "Pack it anew")
    windows = stored(package.windows)
    for name in (name for name, reason in availability().items() if reason is None):
        session = open_session(name, package, SessionOptions(cores()))
        found = check(session, windows)
        _say(
            f"{name} in {session.precision}: error of the logits {found.error:.1e}, same class in "
            f"{found.same_class:.3%} of the {found.sure:.0%} of voxels that are sure"
        )


def trained_hours(run: Path) -> float:
    """Hours that a run's steps took, from its table of metrics: the seconds of each phase, summed.

    Raises:
        TrainingError: there is no such table, or it holds something else.
    """
    path, remedy = run / METRICS, "Give the hours with --hours"
    longest: dict[str, float] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                longest[row["phase"]] = max(longest.get(row["phase"], 0.0), float(row["seconds"]))
    except OSError as error:
        raise TrainingError(f"file {path}", f"it cannot be read: {error.strerror}", remedy) from error
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(f"file {path}", "it is no table of a run's phases and seconds", remedy) from error
    return sum(longest.values()) / 3600


def synthetic_images(preset: Preset, atlas: Path | None, count: int = WINDOWS) -> Images:
    """Windows that no training drew, as the network sees them, float32 [window, 1, z, y, x].

    Args:
        preset: gives spacing, window and attenuation.
        atlas: an atlas's folder beside the built-in anatomy; None for that alone.
        count: how many.

    Raises:
        VolumeError: the atlas cannot be read.
    """
    from engine.synthesis.atlas import AtlasFolder
    from engine.synthesis.builtin import BuiltIn
    from engine.training.synthetic import EACH_ONCE, batch_of, stream_of

    sources = (BuiltIn(), *(() if atlas is None else (AtlasFolder(atlas),)))
    make = stream_of(sources, preset.preprocessing, "cpu")
    patches = list(islice(make(WINDOW_SEED, EACH_ONCE), count))
    return np.asarray(batch_of(patches, preset.preprocessing).image.numpy(), dtype=np.float32)


def _shape(preset: Preset) -> UnetrShape:
    if preset.network.unetr is None:
        raise TrainingError("preset", "its network is no UNETR", "Pack a run whose preset has [network.unetr]")
    return preset.network.unetr


def _load(network: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        words = " ".join(str(error).split())[:200]
        remedy = "Name the preset that it was trained with, with --preset"
        raise TrainingError(f"checkpoint {path}", f"it does not fit this preset: {words}", remedy) from error


def _card(plan: PackPlan, run: TrainingRun, judgement: Judgement | None) -> ModelCard:
    metrics: dict[str, float] = {}
    if judgement is not None:
        totals = judgement.totals
        figures = {"mean_dice": totals.dice_mean, "mean_assd_mm": totals.assd_mm, "scans": float(totals.scans)}
        metrics = {name: round(value, 4) for name, value in figures.items()}
    return ModelCard(
        name=plan.words.name,
        version=plan.version,
        label_set=thigh29(),
        preprocessing=plan.preset.preprocessing,
        intended_use=plan.words.intended_use,
        training_statement=training_statement(plan.words, run, judgement),
        training_phrase=plan.words.phrase,
        attribution=plan.words.attribution,
        network=run.network,
        metrics=metrics,
    )


def _refuse_large(models: Path, texts: Mapping[Path, str]) -> None:
    size = sum(path.stat().st_size for path in models.iterdir()) + sum(len(text.encode()) for text in texts.values())
    if size > MOST_BYTES:
        reason = f"it would have {size / 1e6:.1f} MB, more than {MOST_BYTES / 1e6:.0f}"
        raise ModelError(f"model package of {models}", reason, "Train a smaller network")


def _say(words: str) -> None:
    print(words, flush=True)


def _judge_of(given: argparse.Namespace) -> Judge:
    if given.judgement is not None:
        return lambda _package: read_judgement(given.judgement)
    from engine.training.judging import judge

    return lambda package: judge(package, given.atlas)


def _plan_of(given: argparse.Namespace) -> PackPlan:
    return PackPlan(
        run=given.run,
        weights=given.weights or given.run / CHECKPOINT,
        preset=load_preset(given.preset),
        preset_name=given.preset,
        words=load_words(given.words),
        version=given.version,
        machine=given.machine,
        hours=given.hours,
        steps=given.steps,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line and pack; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine.training.pack", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the training run; what packing leaves lies there too")
    parser.add_argument("--to", type=Path, required=True, help="the package to write")
    parser.add_argument("--machine", required=True, help="the kind of machine that trained it, as 'two CPU cores'")
    parser.add_argument("--preset", default="compact", help="the way it was trained")
    parser.add_argument("--words", default="compact", help="what is said of it: one that ships, or a TOML file")
    parser.add_argument("--version", default="1.0.0", help="version of the model")
    parser.add_argument("--atlas", type=Path, help="an atlas's folder; scans are drawn from it too")
    parser.add_argument("--weights", type=Path, help="a checkpoint or .safetensors; default: the run's checkpoint")
    parser.add_argument("--steps", type=int, help="steps of training; default: what the checkpoint tells")
    parser.add_argument("--hours", type=float, help="hours of training; default: what the run's metrics tell")
    parser.add_argument("--judgement", type=Path, help="a judgement that was kept; default: judge anew")
    given = parser.parse_args(arguments)
    try:
        plan = _plan_of(given)
        package = pack(plan, synthetic_images(plan.preset, given.atlas), _judge_of(given), given.to)
    except VastusError as error:
        print(error, file=sys.stderr)
        return 2
    _say(f"{package.folder}: {package.training_statement}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
