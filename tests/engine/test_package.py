from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from engine.errors import ModelError
from engine.labels import thigh29
from engine.package import METADATA, ONNX, WEIGHTS, ModelPackage, bundled_package, load_package, sha256_of


@pytest.fixture
def copy(tiny_package: ModelPackage, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_package.folder, tmp_path / "copy"))


def edit(folder: Path, section: str | None, **changes: Any) -> None:
    metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
    (metadata[section] if section else metadata).update(changes)
    (folder / METADATA).write_text(json.dumps(metadata), encoding="utf-8")


def test_what_was_written_is_read(tiny_package: ModelPackage) -> None:
    assert load_package(tiny_package.folder) == tiny_package
    assert tiny_package.digest == hashlib.sha256(tiny_package.onnx.read_bytes()).hexdigest()
    assert tiny_package.label_set == thigh29()
    assert (tiny_package.name, tiny_package.version, tiny_package.training_phrase) == ("tiny", "0.0.1", "untrained")
    assert (tiny_package.intended_use, tiny_package.attribution) == ("For tests only", "")
    assert tiny_package.weights == tiny_package.folder / WEIGHTS
    assert tiny_package.windows is None
    assert tiny_package.preprocessing.window == (32, 32, 32)


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
    edit(copy, "vastus", files={ONNX.as_posix(): sha256_of(copy / ONNX)})
    package = load_package(copy)
    assert (package.weights, package.windows) == (None, None)


def test_damaged_metadata_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / METADATA).write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match="the file"):
        load_package(copy)
    with pytest.raises(ModelError, match="cannot be read"):
        load_package(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["nothing-of-this-name", "../packages/compact", "", "a/b"])
def test_a_model_that_did_not_come_with_the_program_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="no package of this name"):
        bundled_package(name)
