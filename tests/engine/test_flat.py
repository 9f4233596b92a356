"""A network of two dimensions runs where the engine has three."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flat_model import NAME, network, write_flat_package, write_onnx

from engine.backends import SessionOptions, open_session
from engine.contract import Contract, GateLimits
from engine.errors import BackendError, ModelError
from engine.flat import FlatSession, fitted, flattened, network_window
from engine.gate import admit, compare, stored
from engine.package import ModelPackage
from engine.signature import check_signature


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return write_flat_package(tmp_path_factory.mktemp("flat") / NAME)


def test_the_package_says_everything_of_itself(package: ModelPackage) -> None:
    assert package.contract == Contract("slice", "scores", 2, 18)
    assert (package.label_set.name, package.expects, package.task) == (
        "tissues3",
        "anything",
        "Tells three tissues apart",
    )
    assert network_window(package) == (48, 48)
    assert (package.network, package.weights) == ({}, None)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_a_window_one_slice_deep_gets_the_answer_of_the_slice(name: str, package: ModelPackage) -> None:
    session = open_session(name, package, SessionOptions(1, "fp32"))
    assert isinstance(session, FlatSession) and session.name == name
    windows = torch.rand(1, 1, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network()(windows[:, :, 0])[:, :, None]
    torch.testing.assert_close(session.run(windows), expected, rtol=1e-4, atol=1e-3)
    found = admit(session, package)
    assert found is not None and found.least_dice == 1.0 and set(found.dice) == {1, 2, 3}


def test_torch_refuses_a_network_that_it_cannot_build(package: ModelPackage) -> None:
    with pytest.raises(BackendError, match="no UNETR"):
        open_session("torch", package, SessionOptions(1, "fp32"))


def test_a_session_of_three_dimensions_stays_as_it_is(tiny_package: ModelPackage) -> None:
    session = open_session("onnxruntime", tiny_package, SessionOptions(1, "fp32"))
    assert fitted(session, tiny_package) is session
    assert network_window(tiny_package) == (32, 32, 32)


def test_a_deeper_window_is_refused() -> None:
    with pytest.raises(BackendError, match="one slice deep"):
        flattened(torch.zeros(1, 1, 2, 48, 48))


def test_a_package_without_windows_must_say_that_nothing_is_checked(package: ModelPackage) -> None:
    session = open_session("onnxruntime", package, SessionOptions(1, "fp32"))
    with pytest.raises(BackendError, match="no windows to hold a backend against") as refused:
        admit(session, replace(package, windows=None))
    assert "gate 'none'" in refused.value.remedy
    assert admit(session, replace(package, windows=None, limits=None)) is None


def test_windows_of_another_network_are_refused(package: ModelPackage, tiny_package: ModelPackage) -> None:
    session = open_session("onnxruntime", tiny_package, SessionOptions(1, "fp32"))
    with pytest.raises(ModelError, match="not the shape"):
        admit(session, replace(tiny_package, windows=package.windows))


def test_a_class_that_is_exchanged_for_another_is_refused_with_the_figures(package: ModelPackage) -> None:
    assert package.windows is not None and package.limits is not None
    windows = stored(package.windows)
    session = open_session("onnxruntime", package, SessionOptions(1, "fp32"))
    # The network answers as before, and what was stored says that fat and bone are the other way round.
    swapped = replace(windows, logits=np.ascontiguousarray(windows.logits[:, [0, 3, 2, 1]]))
    found = compare(session, swapped)
    assert found.dice[1] < 0.6 and found.dice[2] == 1.0
    from engine.gate import check

    loose = GateLimits({"fp32": 1.0}, 0.1, 0.9)
    with pytest.raises(BackendError, match=r"Dice 0\.\d+ of class [13], least 0\.9"):
        check(session, replace(swapped, logits=swapped.logits), loose)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ({"opset": 17}, "opset is 17, and should be 18"),
        ({"names": ("image", "scores")}, r"inputs are \['image'\]"),
        ({"size": 64}, "batch x 1 x 48 x 48"),
    ],
)
def test_a_network_of_another_signature_is_refused(written: dict[str, object], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(path, **written)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=reason):
        check_signature(path, Contract("slice", "scores", 2, 18), (1, 48, 48), 4)


def test_another_number_of_classes_and_another_rank_are_refused(package: ModelPackage) -> None:
    with pytest.raises(ModelError, match="output scores is free x 4 x 48 x 48, and should be batch x 5"):
        check_signature(package.onnx, package.contract, (1, 48, 48), 5)
    with pytest.raises(ModelError, match="input slice is free x 1 x 48 x 48"):
        check_signature(package.onnx, Contract("slice", "scores", 3, 18), (1, 48, 48), 4)
