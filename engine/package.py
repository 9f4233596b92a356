"""Model packages: a folder in the layout of a MONAI bundle, checked before anything of it is used.

`configs/metadata.json` holds MONAI's own keys and, under `vastus`, what we need beside them: among that the SHA-256 of
every other file, so that a damaged or exchanged one is refused. `engine.bundle` writes packages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from engine.errors import ModelError
from engine.labels import LabelSet, thigh29
from engine.preprocessing import Preprocessing

METADATA = Path("configs", "metadata.json")
ONNX = Path("models", "model.onnx")
WEIGHTS = Path("models", "model.safetensors")
STORED_WINDOWS = Path("models", "windows.safetensors")
LABEL_SETS: Mapping[str, Callable[[], LabelSet]] = {"thigh29": thigh29}

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class ModelPackage:
    """A model package that was checked.

    Attributes:
        folder: where it lies.
        name: its name.
        version: the model's version.
        digest: SHA-256 of the ONNX file, hexadecimal; that file names the digest of its weights, so it stands for both.
        label_set: what the network's classes mean.
        preprocessing: what the network expects to see.
        intended_use: what the model is for, and what not, as `For research, not for diagnosis`.
        training_statement: what it was trained on, in full sentences.
        training_phrase: the same in a few words, for places with little room.
        attribution: whose work its training data stand on, in words that must go with it; empty where there is none.
        network: the sizes of its UNETR, as `asdict(UnetrShape(...))`.
        onnx: the network.
        weights: the same weights for torch and MONAI; None where the package holds the ONNX file alone.
        windows: the windows on which a backend is held against the network's own answers; None where there are none.
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


class _Section(BaseModel):
    """The section `vastus` of the metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label_set: str
    class_count: int
    preprocessing: Preprocessing
    intended_use: Words
    training_statement: Words
    training_phrase: Words
    attribution: str
    network: dict[str, int]
    files: dict[str, Digest]


class _Metadata(BaseModel):
    """What we read of a bundle's metadata; MONAI's other keys are its own affair."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    vastus: _Section


def load_package(folder: Path) -> ModelPackage:
    """Read and check a model package.

    Raises:
        ModelError: a file is missing or not the one that the metadata describes, the label set is unknown, or the
            number of classes is not the label set's.
    """
    metadata = _read_metadata(folder)
    section = metadata.vastus
    label_set = _label_set(folder, section)
    _check_files(folder, section.files)
    return ModelPackage(
        folder=folder,
        name=section.name,
        version=metadata.version,
        digest=section.files[ONNX.as_posix()],
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
    )


def bundled_package(name: str) -> ModelPackage:
    """The package of that name that came with the program.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    root = Path(str(files("engine"))) / "packages"
    known = sorted(path.parent.parent.name for path in root.glob(f"*/{METADATA}"))
    if not re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name) or name not in known:
        remedy = f"Choose one of: {', '.join(known)}" if known else "Install the program again"
        raise ModelError(f"model {name!r}", "no package of this name came with the program", remedy)
    return load_package(root / name)


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


def _label_set(folder: Path, section: _Section) -> LabelSet:
    known = ", ".join(LABEL_SETS)
    if section.label_set not in LABEL_SETS:
        reason = f"its label set {section.label_set!r} is unknown here"
        raise ModelError(f"model package {folder}", reason, f"Use a model with one of the label sets {known}")
    label_set = LABEL_SETS[section.label_set]()
    if section.class_count != label_set.class_count:
        reason = f"{section.class_count} classes, but the label set {label_set.name} has {label_set.class_count}"
        raise ModelError(f"model package {folder}", reason, "Train or export the model with the whole label set")
    return label_set
