"""Model packages: a folder in the layout of a MONAI bundle, checked before anything of it is used.

`configs/metadata.json` holds MONAI's own keys and, under `vastus`, what we need beside them: among that the SHA-256 of
every other file, so that a damaged or exchanged one is refused. `engine.bundle` writes packages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from engine.contract import LARGEST_ERROR, LEAST_AGREEMENT, LEAST_DICE, Contract, GateLimits
from engine.errors import ModelError
from engine.label_table import read_label_table
from engine.labels import LabelSet, thigh29
from engine.preprocessing import Preprocessing
from engine.signature import check_signature, external_files

METADATA = Path("configs", "metadata.json")
LABELS = Path("configs", "labels.json")
README = Path("docs", "README.md")
ONNX = Path("models", "model.onnx")
HALF_ONNX = Path("models", "model_fp16.onnx")
WEIGHTS = Path("models", "model.safetensors")
STORED_WINDOWS = Path("models", "windows.safetensors")
LABEL_SETS: Mapping[str, Callable[[], LabelSet]] = {"thigh29": thigh29}
"""Label sets that come with the program; every other one comes with its package, in `LABELS`."""
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"

Expected = Literal["thighs", "anything"]
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ModelPackage:
    """A model package that was checked.

    Attributes:
        folder: where it lies.
        name: its name.
        version: the model's version.
        digest: SHA-256, hexadecimal, that stands for the network: its graph and the weights that lie beside it.
        label_set: what the network's classes mean.
        preprocessing: what the network expects to see.
        intended_use: what the model is for, and what not, as `For research, not for diagnosis`.
        training_statement: what it was trained on, in full sentences.
        training_phrase: the same in a few words, for places with little room.
        attribution: whose work its training data stand on, in words that must go with it; empty where there is none.
        network: the sizes of its UNETR, as `asdict(UnetrShape(...))`; empty where it is another network.
        onnx: the network.
        weights: the same weights for torch and MONAI; None where the package holds the ONNX file alone.
        windows: the windows on which a backend is held against the network's own answers; None where there are none.
        half_onnx: the same network with weights and arithmetic in float16, for GPUs; None where there is none.
        readme: its card, for people; None where there is none.
        task: what it does, in a few words.
        contract: names and shape of what goes into the network and out.
        limits: how far a backend's answers may lie from the network's own; None where it says that it is not checked.
        expects: what a scan must show before the network is asked.
        ages_years: lowest and highest age of the patients whom it is for; None where it names none.
    """

    folder: Path
    name: str
    version: str
    digest: str
    label_set: LabelSet
    preprocessing: Preprocessing
    intended_use: str
    training_statement: str
    training_phrase: str
    attribution: str
    network: Mapping[str, int]
    onnx: Path
    weights: Path | None = None
    windows: Path | None = None
    half_onnx: Path | None = None
    readme: Path | None = None
    task: str = ""
    contract: Contract = field(default_factory=Contract)
    limits: GateLimits | None = field(default_factory=GateLimits)
    expects: Expected = "thighs"
    ages_years: tuple[float, float] | None = None


class _Limits(BaseModel):
    """The section `gate`: `by` says whether the windows are asked; what is not named has the usual limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    by: Literal["windows", "none"] = "windows"
    largest_error: dict[Literal["fp32", "fp16", "bf16"], float] = Field(default_factory=dict)
    least_agreement: float = LEAST_AGREEMENT
    least_dice: float = LEAST_DICE

    def value(self) -> GateLimits | None:
        """What it says."""
        if self.by == "none":
            return None
        return GateLimits(
            dict(LARGEST_ERROR) | {str(name): error for name, error in self.largest_error.items()},
            self.least_agreement,
            self.least_dice,
        )


class _Section(BaseModel):
    """The section `vastus` of the metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
    label_set: str
    class_count: int
    preprocessing: Preprocessing
    intended_use: Words
    training_statement: Words
    training_phrase: Words
    attribution: str
    network: dict[str, int]
    files: dict[str, Digest]
    contract: Contract = Contract()
    gate: _Limits = _Limits()
    expects: Expected = "thighs"
    ages_years: tuple[float, float] | None = None


class _Metadata(BaseModel):
    """What we read of a bundle's metadata; MONAI's other keys are its own affair."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    task: str = ""
    vastus: _Section


def load_package(folder: Path) -> ModelPackage:
    """Read and check a model package.

    Raises:
        ModelError: a file is missing or not the one that the metadata describes, the label set is unknown or does not
            hold together, or the network is not of the signature that the metadata tells.
    """
    metadata = _read_metadata(folder)
    section = metadata.vastus
    _check_values(folder, section)
    _check_files(folder, section.files)
    label_set = _label_set(folder, section)
    half_onnx = _listed(folder, HALF_ONNX, section.files)
    for path in (folder / ONNX, half_onnx):
        if path is not None:
            check_signature(path, section.contract, section.preprocessing.window, label_set.class_count)
            _check_external(path, folder, section.files)
    return ModelPackage(
        folder=folder,
        name=section.name,
        version=metadata.version,
        digest=_digest(folder, section.files),
        label_set=label_set,
        preprocessing=section.preprocessing,
        intended_use=section.intended_use,
        training_statement=section.training_statement,
        training_phrase=section.training_phrase,
        attribution=section.attribution,
        network=section.network,
        onnx=folder / ONNX,
        weights=_listed(folder, WEIGHTS, section.files),
        windows=_listed(folder, STORED_WINDOWS, section.files),
        half_onnx=half_onnx,
        readme=_listed(folder, README, section.files),
        task=metadata.task,
        contract=section.contract,
        limits=section.gate.value(),
        expects=section.expects,
        ages_years=section.ages_years,
    )


def name_of(folder: Path) -> str | None:
    """The name that a folder's metadata give it, unchecked; None where the folder is no package of ours."""
    try:
        name = json.loads((folder / METADATA).read_bytes())["vastus"]["name"]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return name if isinstance(name, str) else None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    """Hold every file that the metadata names against its digest."""
    remedy = "Copy the whole package again"
    for name in dict.fromkeys((ONNX.as_posix(), *digests)):
        path, inner = folder / name, PurePosixPath(name)
        if inner.is_absolute() or ".." in inner.parts:
            raise ModelError(f"file {name}", f"{METADATA} of {folder} names it outside of the package", remedy)
        if name not in digests:
            raise ModelError(f"file {path}", f"{METADATA} has no digest of it", "Write the package anew")
        try:
            found = sha256_of(path)
        except OSError as error:
            reason = (
                "it is missing" if isinstance(error, FileNotFoundError) else f"it cannot be read ({error.strerror})"
            )
            raise ModelError(f"file {path}", reason, remedy) from error
        if found != digests[name]:
            reason = (
                f"it is not the file that {METADATA} describes: its SHA-256 is {found[:12]}…, not {digests[name][:12]}…"
            )
            raise ModelError(f"file {path}", reason, remedy)


def _check_external(onnx: Path, folder: Path, digests: Mapping[str, str]) -> None:
    """Weights beside a graph are as much the network as the graph: they must have a digest, too."""
    for name in external_files(onnx):
        place = (onnx.parent / name).relative_to(folder).as_posix()
        if place not in digests:
            reason = f"its weights lie in {name}, of which {METADATA} has no digest"
            raise ModelError(f"file {onnx}", reason, "Write the package anew")


def _digest(folder: Path, digests: Mapping[str, str]) -> str:
    """SHA-256 that stands for the network: the graph's own, or where weights lie beside it, of the digests of all."""
    places = sorted((ONNX.parent / name).as_posix() for name in external_files(folder / ONNX))
    beside = [f"{place} {digests[place]}" for place in places]
    if not beside:
        return digests[ONNX.as_posix()]
    return hashlib.sha256("\n".join((digests[ONNX.as_posix()], *beside)).encode()).hexdigest()


def _listed(folder: Path, name: Path, digests: Mapping[str, str]) -> Path | None:
    return folder / name if name.as_posix() in digests else None


def _read_metadata(folder: Path) -> _Metadata:
    try:
        return _Metadata.model_validate_json((folder / METADATA).read_bytes())
    except OSError as error:
        reason = f"{METADATA} cannot be read ({error.strerror})"
        raise ModelError(f"model package {folder}", reason, "Check the path and the rights of the files") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        reason = f"{METADATA} is not what a package holds: {where}: {first['msg']}"
        raise ModelError(f"model package {folder}", reason, "Copy the whole package again or write it anew") from error


def _check_values(folder: Path, section: _Section) -> None:
    """Refuse values that no network can be run with."""
    model = section.preprocessing
    flat = model.window[0] == 1
    faults = (
        (not model.hu_low < model.hu_high, "hu_low is not below hu_high"),
        (not model.gamma > 0, "gamma is not above 0"),
        (not all(spacing > 0 for spacing in model.spacing_mm), "a spacing is not above 0"),
        (not all(size >= 1 for size in model.window), "a window has no voxels"),
        (section.ages_years is not None and not 0 <= section.ages_years[0] < section.ages_years[1], "no range of ages"),
        ((section.contract.dimensions == 2) != flat, "a window is one slice deep where the network has 2 dimensions"),
        (bool(fault := (section.gate.value() or GateLimits()).fault()), f"the gate holds nothing back: {fault}"),
    )
    for is_wrong, words in faults:
        if is_wrong:
            raise ModelError(f"model package {folder}", f"{METADATA}: {words}", "Write the package anew")


def _label_set(folder: Path, section: _Section) -> LabelSet:
    """The label set of a package: one that comes with the program, or its own."""
    thing, has_table = f"model package {folder}", LABELS.as_posix() in section.files
    if section.label_set in LABEL_SETS:
        if has_table:
            reason = f"it brings a table for {section.label_set}, which comes with the program"
            raise ModelError(thing, reason, "Give its label set a name of its own")
        label_set = LABEL_SETS[section.label_set]()
    elif has_table:
        label_set = read_label_table(folder / LABELS, section.label_set)
    else:
        reason = f"its label set {section.label_set!r} is unknown here, and it brings no table {LABELS}"
        raise ModelError(thing, reason, f"Bring the table, or use one of the label sets {', '.join(LABEL_SETS)}")
    if section.class_count != label_set.class_count:
        reason = f"{section.class_count} classes, but the label set {label_set.name} has {label_set.class_count}"
        raise ModelError(thing, reason, "Train or export the model with the whole label set")
    return label_set
