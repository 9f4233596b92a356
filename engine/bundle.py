"""Writes model packages: the files that MONAI's own tools read, and what we need beside them.

`configs/inference.json` lets MONAI do what the service does: the same orientation, spacing, scaling and windows. Two
things it does not do: tell left from right, and keep the air around the body out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.contract import Contract, GateLimits
from engine.label_table import label_table
from engine.labels import LabelSet
from engine.networks import UnetrShape
from engine.package import (
    LABEL_SETS,
    LABELS,
    METADATA,
    WEIGHTS,
    Expected,
    ModelPackage,
    load_package,
    sha256_of,
)
from engine.preprocessing import Preprocessing

INFERENCE = Path("configs", "inference.json")
LICENCE, EVALUATION = Path("LICENSE"), Path("docs", "evaluation")
REQUIRED_PACKAGES = ("safetensors", "onnx", "onnxruntime", "openvino")
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
TRANSFORMS = "monai.transforms"
OVERLAP = 0.25
NETWORK_AXES = "SPL"
"""What a larger index along the network's axes comes closer to: superior, posterior, left."""


@dataclass(frozen=True)
class ModelCard:
    """What is said of a model when its package is written.

    Attributes:
        name: the package's name.
        version: the model's version.
        label_set: what its classes mean.
        preprocessing: what it expects to see.
        intended_use: what it is for, and what not.
        training_statement: what it was trained on, in full sentences.
        training_phrase: the same in a few words, for places with little room.
        attribution: whose work its training data stand on; empty where there is none.
        network: the sizes of its UNETR; None for another network, which MONAI then cannot build from the package.
        metrics: how it did, by name; empty where it was not judged.
        task: what it does, in a few words.
        contract: names and shape of what goes into the network and out.
        limits: how far a backend's answers may lie from the network's own on the package's windows; None where the
            package has no windows and no backend is to be held against any.
        expects: what a scan must show before the network is asked.
        ages_years: lowest and highest age of the patients whom it is for; None where it names none.
    """

    name: str
    version: str
    label_set: LabelSet
    preprocessing: Preprocessing
    intended_use: str
    training_statement: str
    training_phrase: str
    attribution: str
    network: UnetrShape | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    task: str = "Segmentation of the muscles and bones of the thigh on CT"
    contract: Contract = field(default_factory=Contract)
    limits: GateLimits | None = field(default_factory=GateLimits)
    expects: Expected = "thighs"
    ages_years: tuple[float, float] | None = None


def write_package(folder: Path, models: Path, card: ModelCard, texts: Mapping[Path, str] | None = None) -> ModelPackage:
    """Write a package and read it back; a package that was there before is replaced, and only by a whole one.

    Args:
        folder: the package's folder.
        models: a folder with `model.onnx` and what belongs to it; every file of it goes into the package.
        card: what is said of the model.
        texts: further files by their place in the package, as `docs/README.md`.

    Raises:
        ModelError: the package could not be loaded again, as when the label set is unknown.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
        fresh = Path(name, folder.name)
        target = fresh / "models"
        target.mkdir(parents=True)
        for path in sorted(models.iterdir()):
            if path.is_file():
                shutil.copyfile(path, target / path.name)
        if card.network is not None:
            _write(fresh / INFERENCE, _json(inference_config(card, card.network)))
        if card.label_set.name not in LABEL_SETS:
            _write(fresh / LABELS, label_table(card.label_set))
        for place, text in (texts or {}).items():
            _write(fresh / place, text)
        digests = {path.relative_to(fresh).as_posix(): sha256_of(path) for path in _files(fresh)}
        _write(fresh / METADATA, _json(metadata(card, digests)))
        load_package(fresh)
        _exchange(folder, fresh, Path(name, "before"))
    return load_package(folder)


def inference_config(card: ModelCard, network: UnetrShape) -> dict[str, Any]:
    """The configuration with which MONAI itself segments: `monai.bundle` resolves its references when asked.

    `dataset_dir` holds scans as NIfTI; `output_dir` gets classes without sides.
    """
    model = card.preprocessing
    return {
        "imports": ["$import numpy", "$import pathlib", "$import torch", "$from safetensors.torch import load_file"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/scans'",
        "output_dir": "$@bundle_root + '/segmentations'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "weights": f"$load_file(@bundle_root + '/{WEIGHTS.as_posix()}')",
        "network_def": {
            "_target_": "monai.networks.nets.UNETR",
            "in_channels": 1,
            "out_channels": card.label_set.class_count,
            "img_size": list(model.window),
            **asdict(network),
        },
        "network": "$(@network_def.load_state_dict(@weights), @network_def.to(@device).eval())[-1]",
        "preprocessing": {"_target_": f"{TRANSFORMS}.Compose", "transforms": _transforms(model)},
        "inferer": {
            "_target_": "monai.inferers.SlidingWindowInferer",
            "roi_size": list(model.window),
            "sw_batch_size": 1,
            "overlap": OVERLAP,
            "mode": "gaussian",
            "padding_mode": "constant",
        },
        "postprocessing": {"_target_": f"{TRANSFORMS}.Compose", "transforms": _to_files()},
        **_run(),
    }


def _to_files() -> list[dict[str, Any]]:
    """From logits to classes on the scan's own grid, in a file."""
    back = {"transform": "@preprocessing", "orig_keys": "image", "nearest_interp": True, "to_tensor": True}
    place = {"output_dir": "@output_dir", "output_dtype": "$numpy.uint8"}
    return [
        {"_target_": f"{TRANSFORMS}.AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": f"{TRANSFORMS}.Invertd", "keys": "pred", **back},
        {"_target_": f"{TRANSFORMS}.SaveImaged", "keys": "pred", **place},
    ]


def _run() -> dict[str, Any]:
    """Scan by scan through the network."""
    return {
        "datalist": "$[{'image': str(path)} for path in sorted(pathlib.Path(@dataset_dir).glob('*.nii*'))]",
        "dataset": {"_target_": "monai.data.Dataset", "data": "@datalist", "transform": "@preprocessing"},
        "dataloader": {"_target_": "monai.data.DataLoader", "dataset": "@dataset", "batch_size": 1},
        "evaluator": {
            "_target_": "monai.engines.SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "run": ["$@evaluator.run()"],
    }


def metadata(card: ModelCard, digests: Mapping[str, str]) -> dict[str, Any]:
    """The metadata in the words of MONAI's bundle specification, and our section.

    Args:
        card: what is said of the model.
        digests: SHA-256 of every other file of the package, by its place in it.
    """
    return {
        "schema": SCHEMA,
        "version": card.version,
        "changelog": {card.version: "first version in this package"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {package: version(package) for package in REQUIRED_PACKAGES},
        "name": card.name,
        "task": card.task,
        "description": f"{_kind(card)} for the label set {card.label_set.name}. {card.training_statement}",
        "intended_use": card.intended_use,
        "data_source": card.training_statement,
        "eval_metrics": dict(card.metrics),
        "authors": "Vastus",
        "copyright": " ".join(part for part in ("Vastus.", card.attribution) if part),
        "network_data_format": _data_format(card),
        "vastus": _section(card, digests),
    }


def _data_format(card: ModelCard) -> dict[str, Any]:
    """What goes in and comes out, in MONAI's words."""
    names = ["background", *(structure.display for structure in card.label_set.structures)]
    shape = list(card.preprocessing.window[3 - card.contract.dimensions :])
    patch = {"type": "image", "modality": "CT", "spatial_shape": shape, "dtype": "float32"}
    image = {**patch, "format": "hounsfield", "num_channels": 1, "value_range": [0, 1], "is_patch_data": True}
    logits = {**patch, "format": "logits", "num_channels": len(names), "value_range": [], "is_patch_data": True}
    return {
        "inputs": {"image": {**image, "channel_def": {"0": "attenuation, clipped and scaled"}}},
        "outputs": {"pred": {**logits, "channel_def": {str(value): name for value, name in enumerate(names)}}},
    }


def _section(card: ModelCard, digests: Mapping[str, str]) -> dict[str, Any]:
    """Our section, as `engine.package` reads it."""
    return {
        "name": card.name,
        "label_set": card.label_set.name,
        "class_count": card.label_set.class_count,
        "preprocessing": asdict(card.preprocessing),
        "intended_use": card.intended_use,
        "training_statement": card.training_statement,
        "training_phrase": card.training_phrase,
        "attribution": card.attribution,
        "network": {} if card.network is None else asdict(card.network),
        "files": dict(sorted(digests.items())),
        "contract": asdict(card.contract),
        "gate": {"by": "none"} if card.limits is None else {"by": "windows", **asdict(card.limits)},
        "expects": card.expects,
        **({} if card.ages_years is None else {"ages_years": list(card.ages_years)}),
    }


def _kind(card: ModelCard) -> str:
    return "Network" if card.network is None else "UNETR"


def _transforms(model: Preprocessing) -> list[dict[str, Any]]:
    scale = {"a_min": model.hu_low, "a_max": model.hu_high, "b_min": 0.0, "b_max": 1.0, "clip": True}
    steps: list[dict[str, Any]] = [
        {"_target_": f"{TRANSFORMS}.LoadImaged", "keys": "image", "reader": "NibabelReader"},
        {"_target_": f"{TRANSFORMS}.EnsureChannelFirstd", "keys": "image"},
        {"_target_": f"{TRANSFORMS}.Orientationd", "keys": "image", "axcodes": NETWORK_AXES, "labels": None},
        {"_target_": f"{TRANSFORMS}.Spacingd", "keys": "image", "pixdim": list(model.spacing_mm), "mode": "bilinear"},
        {"_target_": f"{TRANSFORMS}.ScaleIntensityRanged", "keys": "image", **scale},
    ]
    if model.gamma != 1.0:
        power = f"$lambda image: image ** {model.gamma}"
        steps.append({"_target_": f"{TRANSFORMS}.Lambdad", "keys": "image", "func": power})
    return steps


def _exchange(folder: Path, fresh: Path, aside: Path) -> None:
    """Put a folder in the place of another; where that fails the old one is back."""
    if not folder.exists():
        fresh.replace(folder)
        return
    folder.replace(aside)
    try:
        fresh.replace(folder)
    except OSError:
        aside.replace(folder)
        raise


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
