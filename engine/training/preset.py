"""Presets: one settings file tells everything about one way to train.

Nothing has a default here: a preset that leaves something out is refused, so that its file alone says what was done.
"""

from __future__ import annotations

import json
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from engine.networks import UnetrShape
from engine.preprocessing import Preprocessing
from engine.training.errors import TrainingError

PATCH = 16
"""Voxels along an edge of one token of a UNETR, and what a window must be a multiple of."""

PhaseKind = Literal["tokens", "coarse", "whole"]
Unit = Literal["epochs", "steps", "minutes"]
Count = Annotated[int, Field(ge=1)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Least0 = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class UnetShape:
    """The sizes of a 3D U-Net.

    Attributes:
        channels: of each level, finest first.
        strides: between neighbouring levels, one less than the levels.
        residual_units: convolutions of each level.
    """

    channels: tuple[Count, ...]
    strides: tuple[Count, ...]
    residual_units: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class NetworkPlan:
    """The network: exactly one of the two."""

    unetr: UnetrShape | None = None
    unet: UnetShape | None = None

    def __post_init__(self) -> None:
        if (self.unetr is None) == (self.unet is None):
            raise ValueError("name one network, unetr or unet")
        if self.unetr is not None and self.unetr.hidden_size % self.unetr.num_heads:
            raise ValueError("hidden_size must be a multiple of num_heads")


@dataclass(frozen=True)
class SyntheticPlan:
    """The stream of synthetic patches.

    Attributes:
        chunk: steps after which the stream begins anew from a seed of its own; what a resumed run draws again at most.
        epoch_steps: steps that are called an epoch; a stream has no end of its own.
        held_out: patches that the network is judged on, drawn from a seed that the training never uses.
    """

    chunk: Count
    epoch_steps: Count
    held_out: Count


@dataclass(frozen=True)
class PairsPlan:
    """A folder of scans with labels.

    Attributes:
        crops: windows taken from a scan each time.
        positive: share of windows around a labelled voxel, against `negative`.
        negative: share of windows around any other voxel.
        foreground_crop: whether a scan is cut to where the network's input is above 0.
        resample: before the intensity is scaled, as the service does, or after, as the paper prints it.
        folds: parts of the data; one of them validates.
        split_seed: of the draw of the folds.
    """

    crops: Count
    positive: Amount
    negative: Least0
    foreground_crop: bool
    resample: Literal["before_intensity", "after_intensity"]
    folds: Annotated[int, Field(ge=2)]
    split_seed: Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Augmentation:
    """What is done to windows of a folder's scans; 0 leaves it out. A synthetic stream varies by itself.

    Attributes:
        mirror: probability of swapping left and right; classes have no side.
        turn_deg: largest rotation about each axis.
        scale: largest change of size, a fraction.
        shift: largest offset of the network's input, which spans 0..1.
        noise_sd: largest SD of noise on the network's input.
    """

    mirror: Annotated[float, Field(ge=0, le=1)]
    turn_deg: Least0
    scale: Fraction
    shift: Least0
    noise_sd: Least0


@dataclass(frozen=True)
class LossPlan:
    """What is made small.

    Attributes:
        kind: Dice alone, or with cross-entropy.
        over_batch: whether Dice is taken over the whole batch, or window by window.
        lattice: whether the finest level is judged on every second voxel along each axis, from a random first one:
            an eighth of the voxels, and no difference in what is learnt.
        coarse_weight: weight of the coarse levels' own loss; a UNETR has them, a U-Net must say 0.
    """

    kind: Literal["dice", "dice_ce"]
    over_batch: bool
    lattice: bool
    coarse_weight: Least0


@dataclass(frozen=True)
class OptimiserPlan:
    """AdamW.

    Attributes:
        transformer_scale: share of the rate that a UNETR's transformer gets in the phase `whole` and `coarse`.
        clip_norm: largest norm of the gradient; 0 leaves it as it is.
        average_decay: of the exponential moving average of the weights, which is what is kept; 0 for none.
    """

    transformer_scale: Amount
    clip_norm: Least0
    average_decay: Fraction


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a training.

    Attributes:
        kind: what learns: a UNETR's transformer alone, its coarse levels, or the whole network.
        share: part of the budget.
        batch: draws a step; a draw is a synthetic patch, or a scan that gives `crops` windows.
        shown: how often a synthetic patch is shown, each time with other noise; making it costs more than showing it.
        kept: how many of the last patches those that are shown come from.
        rate: highest learning rate.
        weight_decay: of AdamW.
        warm_up_steps: over which the rate rises to its height; 0 for none.
        schedule: whether the rate stays or falls along a cosine.
        last_rate: share of the rate that a cosine ends with.
    """

    kind: PhaseKind
    share: Amount
    batch: Count
    shown: Count
    kept: Count
    rate: Amount
    weight_decay: Least0
    warm_up_steps: Annotated[int, Field(ge=0)]
    schedule: Literal["constant", "cosine"]
    last_rate: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Budget:
    """How long to train; a time makes a slow machine end as calmly as a fast one, only earlier in steps."""

    amount: Amount
    unit: Unit


@dataclass(frozen=True)
class ValidationPlan:
    """How the network is judged while it learns.

    Attributes:
        every_epochs: how often.
        overlap: of neighbouring windows, a fraction.
    """

    every_epochs: Count
    overlap: Fraction


@dataclass(frozen=True)
class SearchPlan:
    """The grid search over the learning rate: which ones, and how many epochs each."""

    rates: tuple[Amount, ...]
    epochs: Count


@dataclass(frozen=True)
class CheckpointPlan:
    """How often a checkpoint is written, whichever comes first."""

    every_s: Amount
    every_steps: Count


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Preset:
    """One way to train; see the attributes' types.

    Attributes:
        description: what it is for, and where it comes from.
        precision: fp32, or bf16 in the matrix products (autocast).
        synthetic: None where it trains on a folder only.
    """

    description: str
    precision: Literal["fp32", "bf16"]
    network: NetworkPlan
    preprocessing: Preprocessing
    pairs: PairsPlan
    augmentation: Augmentation
    loss: LossPlan
    optimiser: OptimiserPlan
    budget: Budget
    phases: tuple[PhasePlan, ...]
    validation: ValidationPlan
    search: SearchPlan
    checkpoint: CheckpointPlan
    synthetic: SyntheticPlan | None = None

    def __post_init__(self) -> None:
        if not self.phases or self.phases[-1].kind != "whole":
            raise ValueError("the last of the phases must be of the kind whole")
        if self.network.unetr is None:
            if self.loss.coarse_weight or any(phase.kind != "whole" for phase in self.phases):
                raise ValueError("only a UNETR has tokens and coarse levels")
        elif any(size % PATCH for size in self.preprocessing.window):
            raise ValueError(f"the window must be a multiple of {PATCH}")

    def told(self) -> dict[str, Any]:
        """Everything it says, in the types of JSON."""
        return dict(json.loads(json.dumps(asdict(self))))

    def with_rate(self, rate: float) -> Preset:
        """The same with another learning rate of the whole network."""
        phases = (replace(phase, rate=rate) if phase.kind == "whole" else phase for phase in self.phases)
        return replace(self, phases=tuple(phases))


def preset_names() -> tuple[str, ...]:
    """The presets that came with the program, sorted."""
    folder = files("engine.training").joinpath("presets")
    return tuple(sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")))


def load_preset(name: str) -> Preset:
    """Read a preset.

    Args:
        name: of one that came with the program, or the path of a file that ends in `.toml`.

    Raises:
        TrainingError: there is none of that name, or something in it is missing, unknown or wrong.
    """
    if name.endswith(".toml"):
        return _parse(f"preset {name}", _text(Path(name)))
    if name not in preset_names():
        remedy = f"Choose one of {', '.join(preset_names())}, or name a file that ends in .toml"
        raise TrainingError(f"preset {name!r}", "none of this name came with the program", remedy)
    source = files("engine.training").joinpath("presets", f"{name}.toml")
    return _parse(f"preset {name}", source.read_text(encoding="utf-8"))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"preset {path}", f"it cannot be read: {error}", "Check the path and the file") from error


def _parse(thing: str, text: str) -> Preset:
    remedy = "Compare it with a preset that came with the program"
    try:
        told = tomllib.loads(text)
        section = told.get("preprocessing")
        absent = [
            field.name for field in fields(Preprocessing) if isinstance(section, dict) and field.name not in section
        ]
        if absent:  # it has defaults elsewhere
            raise TrainingError(thing, f"preprocessing.{absent[0]}: Field required", remedy)
        return TypeAdapter(Preset).validate_python(told)
    except tomllib.TOMLDecodeError as error:
        raise TrainingError(thing, f"it is no TOML: {error}", remedy) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        others = f" ({error.error_count() - 1} more such faults)" if error.error_count() > 1 else ""
        raise TrainingError(thing, f"{where}: {first['msg']}{others}", remedy) from error
