"""What is written is a MONAI bundle: MONAI itself builds its network, its transforms and its windows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle.config_parser import ConfigParser
from monai.bundle.scripts import verify_net_in_out
from monai.inferers.inferer import SlidingWindowInferer
from monai.networks.nets.unetr import UNETR

from engine.bundle import INFERENCE, LICENCE, ModelCard, inference_config, write_package
from engine.errors import ModelError
from engine.labels import LabelSet
from engine.networks import UnetrShape
from engine.package import METADATA, README, WEIGHTS, ModelPackage
from engine.preprocessing import PAPER, Preprocessing, normalise


def parsed(package: ModelPackage, **settings: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(package.folder / INFERENCE)
    parser.update({"bundle_root": str(package.folder), **settings})
    return parser


def test_monai_builds_the_network_with_its_weights(tiny_package: ModelPackage, tiny_network: torch.nn.Module) -> None:
    parser = parsed(tiny_package, device="cpu")
    network = parser.get_parsed_content("network")
    assert isinstance(network, UNETR) and not network.training
    image = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(network(image), tiny_network(image))
    inferer = parser.get_parsed_content("inferer")
    assert isinstance(inferer, SlidingWindowInferer) and inferer.roi_size == [32, 32, 32]


def test_monai_s_own_check_of_the_network_s_inputs_and_outputs_passes(tiny_package: ModelPackage) -> None:
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(tiny_package.folder / METADATA),
        config_file=str(tiny_package.folder / INFERENCE),
        device="cpu",
        bundle_root=str(tiny_package.folder),
    )


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # a reader that MONAI looks for and does not need
@pytest.mark.parametrize("model", [PAPER, Preprocessing(-160, 240, 1.0, (2.5, 2.0, 2.0), (32, 32, 32))])
def test_monai_s_transforms_turn_and_scale_as_the_service_does(
    tiny_card: ModelCard, tmp_path: Path, model: Preprocessing
) -> None:
    hu = np.random.default_rng(1).integers(-300, 400, (20, 24, 30)).astype(np.int16)  # axes towards x, y, z of RAS
    z, y, x = model.spacing_mm
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([x, y, z, 1.0])), path)
    parser = ConfigParser(inference_config(replace(tiny_card, preprocessing=model), UnetrShape(2, 24, 48, 2)))
    image = parser.get_parsed_content("preprocessing")({"image": str(path)})["image"]
    upright = hu.transpose(2, 1, 0)[:, ::-1, ::-1]  # towards head, back and left
    expected = normalise(torch.from_numpy(upright.copy()), model)
    torch.testing.assert_close(image.as_tensor()[0], expected, atol=1e-5, rtol=0)


def test_texts_lie_in_the_package_and_are_guarded(tiny_models: Path, tiny_card: ModelCard, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    write_package(folder, tiny_models, tiny_card, {README: "# old\n", Path("docs", "older.md"): "gone soon\n"})
    package = write_package(folder, tiny_models, tiny_card, {README: "# tiny\n", LICENCE: "ours\n"})
    section = json.loads((folder / METADATA).read_text(encoding="utf-8"))["vastus"]
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(section["files"]) == written - {METADATA.as_posix()}
    assert {README.as_posix(), LICENCE.as_posix(), INFERENCE.as_posix(), WEIGHTS.as_posix()} < written
    assert "docs/older.md" not in written
    assert package.network == {"feature_size": 2, "hidden_size": 24, "mlp_dim": 48, "num_heads": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["package"]


def test_the_same_card_gives_the_same_bytes(
    tiny_models: Path, tiny_card: ModelCard, tiny_package: ModelPackage, tmp_path: Path
) -> None:
    again = write_package(tmp_path / "package", tiny_models, tiny_card)
    for name in (METADATA, INFERENCE):
        assert (again.folder / name).read_bytes() == (tiny_package.folder / name).read_bytes()


def test_a_package_that_cannot_be_loaded_leaves_the_old_one(
    tiny_models: Path, tiny_card: ModelCard, tmp_path: Path
) -> None:
    folder = tmp_path / "package"
    before = write_package(folder, tiny_models, tiny_card)
    with pytest.raises(ModelError, match=r"labels\.json: it is no table of labels: structures"):
        write_package(folder, tiny_models, replace(tiny_card, label_set=LabelSet("hip22", ())))
    with pytest.raises(ModelError, match="intended_use"):
        write_package(folder, tiny_models, replace(tiny_card, intended_use=""))
    assert (folder / METADATA).read_bytes() == (before.folder / METADATA).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["package"]
