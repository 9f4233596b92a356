"""Model packages: a folder in the layout of a MONAI bundle, checked before anything of it is used.

`configs/metadata.json` holds MONAI's own keys and, under `vastus`, what we need beside them; `models/model.onnx`
is the network. The file's digest is in the metadata, so a damaged or exchanged network is refused.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import ModelError
from engine.labels import LabelSet, thigh29
from engine.preprocessing import Preprocessing

METADATA = Path("configs", "metadata.json")
ONNX = Path("models", "model.onnx")
LABEL_SETS: Mapping[str, Callable[[], LabelSet]] = {"thigh29": thigh29}
REQUIRED_PACKAGES = ("onnx", "onnxruntime", "openvino")
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


@dataclass(frozen=True)
class ModelCard:
    """What is said of a model when its package is written.

    Attributes:
        name: the package's name.
        version: the model's version.
        label_set: what its classes mean.
        preprocessing: what it expects to see.
        training_statement: what it was trained on, in full sentences.
        training_phrase: the same in a few words, for places with little room.
        demonstration: the model is not for clinical use, and every result must say so.
        network: the sizes of its architecture, as `asdict(UnetrShape(...))`.
    """

    name: str
    version: str
    label_set: LabelSet
    preprocessing: Preprocessing
    training_statement: str
    training_phrase: str
    demonstration: bool
    network: Mapping[str, int]


@dataclass(frozen=True)
class ModelPackage:
    """A model package that was checked.

    Attributes:
        folder: where it lies.
        name: its name.
        version: the model's version.
        digest: SHA-256 of the ONNX file, hexadecimal.
        label_set: what the network's classes mean.
        preprocessing: what the network expects to see.
        training_statement: what it was trained on, in full sentences.
        training_phrase: the same in a few words.
        demonstration: the model is not for clinical use, and every result must say so.
        onnx: the network.
    """

    folder: Path
    name: str
    version: str
    digest: str
    label_set: LabelSet
    preprocessing: Preprocessing
    training_statement: str
    training_phrase: str
    demonstration: bool
    onnx: Path


class _Section(BaseModel):
    """The section `vastus` of the metadata."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label_set: str
    class_count: int
    preprocessing: Preprocessing
    training_statement: str
    training_phrase: str
    demonstration: bool
    network: dict[str, int]
    onnx_sha256: str


class _Metadata(BaseModel):
    """What we read of a bundle's metadata; MONAI's other keys are its own affair."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: str
    vastus: _Section


def load_package(folder: Path) -> ModelPackage:
    """Read and check a model package.

    Raises:
        ModelError: a file is missing or damaged, the label set is unknown, the number of classes is not the label
            set's, or the network is not the one that the metadata describes.
    """
    metadata = _read_metadata(folder)
    section = metadata.vastus
    label_set = _label_set(folder, section)
    onnx = folder / ONNX
    if not onnx.is_file():
        raise ModelError(f"model package {folder}", f"{ONNX} is missing", "Copy the whole package again")
    digest = _sha256(onnx)
    if digest != section.onnx_sha256:
        reason = f"{ONNX} is not the network that {METADATA} describes (digest {digest[:12]}…)"
        raise ModelError(f"model package {folder}", reason, "Copy the whole package again")
    return ModelPackage(
        folder=folder,
        name=section.name,
        version=metadata.version,
        digest=digest,
        label_set=label_set,
        preprocessing=section.preprocessing,
        training_statement=section.training_statement,
        training_phrase=section.training_phrase,
        demonstration=section.demonstration,
        onnx=onnx,
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


def write_package(folder: Path, onnx: Path, card: ModelCard) -> ModelPackage:
    """Write a package around a network and read it back.

    Args:
        folder: the package's folder; made where it is missing, files of an older package in it are replaced.
        onnx: the network's file; it is copied.
        card: what is said of the model.

    Raises:
        ModelError: the package could not be loaded again, as when the label set is unknown.
    """
    target = folder / ONNX
    for path in (target, folder / METADATA):
        path.parent.mkdir(parents=True, exist_ok=True)
    if not (target.exists() and target.samefile(onnx)):
        shutil.copyfile(onnx, target)
    text = json.dumps(_metadata(card, _sha256(target)), indent=2, ensure_ascii=False)
    (folder / METADATA).write_text(text + "\n", encoding="utf-8")
    return load_package(folder)


def _metadata(card: ModelCard, digest: str) -> dict[str, Any]:
    """The metadata in the words of MONAI's bundle specification, and our section."""
    names = ["background", *(structure.display for structure in card.label_set.structures)]
    patch = {"type": "image", "modality": "CT", "spatial_shape": card.preprocessing.window, "dtype": "float32"}
    image = {**patch, "format": "hounsfield", "num_channels": 1, "value_range": [0, 1], "is_patch_data": True}
    logits = {**patch, "format": "logits", "num_channels": len(names), "value_range": [], "is_patch_data": True}
    section = {
        "name": card.name,
        "label_set": card.label_set.name,
        "class_count": card.label_set.class_count,
        "preprocessing": asdict(card.preprocessing),
        "training_statement": card.training_statement,
        "training_phrase": card.training_phrase,
        "demonstration": card.demonstration,
        "network": dict(card.network),
        "onnx_sha256": digest,
    }
    return {
        "schema": SCHEMA,
        "version": card.version,
        "changelog": {card.version: "first version in this package"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {package: version(package) for package in REQUIRED_PACKAGES},
        "name": card.name,
        "task": "Segmentation of the muscles and bones of the thigh on CT",
        "description": f"UNETR for the label set {card.label_set.name}. {card.training_statement}",
        "authors": "Vastus",
        "copyright": "Vastus",
        "network_data_format": {
            "inputs": {"image": {**image, "channel_def": {"0": "attenuation, clipped and scaled"}}},
            "outputs": {"pred": {**logits, "channel_def": {str(value): name for value, name in enumerate(names)}}},
        },
        "vastus": section,
    }


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
