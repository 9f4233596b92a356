from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import pytest

from engine.contract import Contract, GateLimits
from engine.errors import ModelError
from engine.label_table import label_table
from engine.labels import thigh29
from engine.models import compact
from engine.package import HALF_ONNX, LABELS, METADATA, ONNX, WEIGHTS, ModelPackage, load_package, sha256_of


@pytest.fixture
def copy(tiny_package: ModelPackage, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_package.folder, tmp_path / "copy"))


def edit(folder: Path, section: str | None, **changes: Any) -> None:
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    (metadata[section] if section else metadata).update(changes)
    (folder / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def test_what_was_written_is_read(tiny_package: ModelPackage) -> None:
    assert load_package(tiny_package.folder) == tiny_package
    assert re.fullmatch("[0-9a-f]{64}", tiny_package.digest)
    assert tiny_package.label_set == thigh29()
    assert (tiny_package.name, tiny_package.version, tiny_package.training_phrase) == ("tiny", "0.0.1", "untrained")
    assert (tiny_package.intended_use, tiny_package.attribution) == ("For tests only", "")
    assert tiny_package.weights == tiny_package.folder / WEIGHTS
    assert tiny_package.windows is None
    assert tiny_package.preprocessing.window == (32, 32, 32)


def test_the_digest_stands_for_graph_and_weights(tiny_package: ModelPackage, copy: Path) -> None:
    assert load_package(copy).digest == tiny_package.digest
    weights = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(weights[:-4] + bytes(4))
    files = json.loads((copy / METADATA).read_text(encoding="utf-8"))["vastus"]["files"]
    edit(copy, "vastus", files=files | {WEIGHTS.as_posix(): sha256_of(copy / WEIGHTS)})
    assert load_package(copy).digest != tiny_package.digest


def test_weights_beside_the_graph_need_a_digest(copy: Path) -> None:
    files = json.loads((copy / METADATA).read_text(encoding="utf-8"))["vastus"]["files"]
    edit(copy, "vastus", files={name: digest for name, digest in files.items() if name != WEIGHTS.as_posix()})
    with pytest.raises(ModelError, match=r"model\.safetensors, of which .* has no digest"):
        load_package(copy)


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/hostname", "sub/weights", ""])
def test_weights_elsewhere_are_refused(copy: Path, place: str) -> None:
    path = copy / ONNX
    model = onnx.load(str(path), load_external_data=False)
    for weight in model.graph.initializer:
        for entry in weight.external_data:
            if entry.key == "location":
                entry.value = place
    path.write_bytes(model.SerializeToString())
    files = json.loads((copy / METADATA).read_text(encoding="utf-8"))["vastus"]["files"]
    edit(copy, "vastus", files=files | {ONNX.as_posix(): sha256_of(path)})
    with pytest.raises(ModelError, match="outside of the folder"):
        load_package(copy)


def test_the_metadata_has_the_keys_of_a_monai_bundle(tiny_package: ModelPackage) -> None:
    metadata = json.loads((tiny_package.folder / METADATA).read_text(encoding="utf-8"))
    keys = "version monai_version pytorch_version numpy_version required_packages_version task description authors"
    assert {*keys.split(), "copyright", "network_data_format", "vastus"} <= set(metadata)
    outputs = metadata["network_data_format"]["outputs"]["pred"]
    assert outputs["num_channels"] == 30 == len(outputs["channel_def"])
    assert outputs["channel_def"]["28"] == "Femur"


@pytest.mark.parametrize(
    ("section", "changes", "reason"),
    [
        ("vastus", {"label_set": "hip22"}, "hip22"),
        ("vastus", {"class_count": 12}, "12 classes.*has 30"),
        ("vastus", {"intended_use": " "}, "intended_use"),
        ("vastus", {"training_statement": ""}, "training_statement"),
        ("vastus", {"files": {}}, "model.onnx: .* has no digest of it"),
        ("vastus", {"files": {ONNX.as_posix(): "damaged"}}, "files"),
        ("vastus", {"files": {ONNX.as_posix(): "0" * 64}}, "model.onnx: it is not the file"),
        ("vastus", {"surprise": 1}, "surprise"),
        (None, {"version": None}, "version"),
    ],
)
def test_a_package_that_is_not_what_it_says_is_refused(
    copy: Path, section: str | None, changes: dict[str, Any], reason: str
) -> None:
    edit(copy, section, **changes)
    with pytest.raises(ModelError, match=reason):
        load_package(copy)


@pytest.mark.parametrize("name", [ONNX, WEIGHTS, Path("configs", "inference.json")])
def test_every_file_is_held_against_its_digest(copy: Path, name: Path) -> None:
    path = copy / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError) as changed:
        load_package(copy)
    assert str(path) in changed.value.thing and "SHA-256" in changed.value.reason and changed.value.remedy
    path.unlink()
    with pytest.raises(ModelError, match=f"{name.name}: it is missing"):
        load_package(copy)
    path.mkdir()
    with pytest.raises(ModelError, match=f"{name.name}: it cannot be read"):
        load_package(copy)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "models/../../secret"])
def test_a_file_outside_of_the_package_is_never_read(copy: Path, name: str) -> None:
    edit(copy, "vastus", files={ONNX.as_posix(): sha256_of(copy / ONNX), name: "0" * 64})
    with pytest.raises(ModelError, match="outside of the package"):
        load_package(copy)


def test_a_package_of_the_onnx_file_alone_is_enough_for_the_service(copy: Path) -> None:
    onnx.save(onnx.load(str(copy / ONNX)), str(copy / ONNX))  # its weights are in it now
    edit(copy, "vastus", files={ONNX.as_posix(): sha256_of(copy / ONNX)})
    package = load_package(copy)
    assert (package.weights, package.windows) == (None, None)
    assert package.digest == sha256_of(copy / ONNX)


def test_damaged_metadata_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / METADATA).write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="the file"):
        load_package(copy)
    with pytest.raises(ModelError, match="cannot be read"):
        load_package(tmp_path / "nowhere")


def test_what_a_package_does_not_say_means_what_it_meant(copy: Path) -> None:
    metadata = json.loads((copy / METADATA).read_text(encoding="utf-8"))
    for key in ("contract", "gate", "expects"):
        del metadata["vastus"][key]
    (copy / METADATA).write_text(json.dumps(metadata), encoding="utf-8")
    package = load_package(copy)
    assert (package.contract, package.limits, package.expects) == (Contract(), GateLimits(), "thighs")
    assert package.readme is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"contract": {"input": "scan"}}, r"inputs are \['image'\], and should be scan alone"),
        ({"contract": {"output": "classes"}}, r"outputs are \['logits'\], and should be classes alone"),
        ({"contract": {"opset": 17}}, "opset is 20, and should be 17"),
        ({"contract": {"dimensions": 2}}, "one slice deep"),
        ({"contract": {"dimensions": 4}}, "dimensions"),
        ({"gate": {"by": "hope"}}, "gate"),
        ({"gate": {"largest_error": {"fp32": 40.0}}}, "the gate holds nothing back"),
        ({"gate": {"largest_error": {"int4": 0.1}}}, "int4"),
        ({"gate": {"least_dice": 0.0}}, "the gate holds nothing back"),
        ({"expects": "liver"}, "expects"),
        ({"name": "Not A Name"}, "name"),
    ],
)
def test_a_package_that_contradicts_its_network_or_itself_is_refused(
    copy: Path, changes: dict[str, Any], reason: str
) -> None:
    edit(copy, "vastus", **changes)
    with pytest.raises(ModelError, match=reason) as refused:
        load_package(copy)
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"window": (48, 32, 32)}, "batch x 1 x 48 x 32 x 32"),
        ({"window": (32, 32, 0)}, "no voxels"),
        ({"spacing_mm": (0.0, 1.0, 1.0)}, "spacing"),
        ({"hu_low": 300.0}, "hu_low"),
        ({"gamma": 0.0}, "gamma"),
    ],
)
def test_a_preprocessing_that_does_not_fit_the_network_is_refused(
    copy: Path, tiny_package: ModelPackage, changes: dict[str, Any], reason: str
) -> None:
    edit(copy, "vastus", preprocessing={**asdict(tiny_package.preprocessing), **changes})
    with pytest.raises(ModelError, match=reason):
        load_package(copy)


def test_a_package_that_brings_a_table_for_our_own_label_set_is_refused(copy: Path) -> None:
    (copy / LABELS).write_text(label_table(thigh29()), encoding="utf-8")
    files = json.loads((copy / METADATA).read_text(encoding="utf-8"))["vastus"]["files"]
    edit(copy, "vastus", files={**files, LABELS.as_posix(): sha256_of(copy / LABELS)})
    with pytest.raises(ModelError, match="brings a table for thigh29"):
        load_package(copy)


def test_the_half_network_must_have_the_same_signature(copy: Path) -> None:
    half = copy / HALF_ONNX
    shutil.copyfile(copy / ONNX, half)
    files = json.loads((copy / METADATA).read_text(encoding="utf-8"))["vastus"]["files"]
    edit(copy, "vastus", files={**files, HALF_ONNX.as_posix(): sha256_of(half)})
    assert load_package(copy).half_onnx == half
    half.write_bytes(b"no network")
    edit(copy, "vastus", files={**files, HALF_ONNX.as_posix(): sha256_of(half)})
    with pytest.raises(ModelError, match=r"model_fp16\.onnx: it (is no ONNX file|holds no network)"):
        load_package(copy)


def test_the_shipped_package_is_the_thigh_model_with_windows_and_a_card() -> None:
    package = load_package(compact())
    assert package.label_set == thigh29()
    assert (package.contract, package.expects) == (Contract(), "thighs")
    assert package.windows is not None and package.limits == GateLimits()
    assert package.readme is not None and "compact" in package.readme.read_text(encoding="utf-8")
