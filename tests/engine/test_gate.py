"""A backend passes the gate only if it answers as the network does."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine.backends import SessionOptions, open_session
from engine.contract import LARGEST_ERROR
from engine.errors import BackendError, ModelError
from engine.gate import StoredWindows, ask, check, compare, store, stored
from engine.package import ModelPackage

Floats = NDArray[np.float32]
IMAGES = np.random.default_rng(3).random((2, 1, 32, 32, 32), dtype=np.float32)


class Answer:
    """A backend that answers with a network's logits, changed."""

    name = "answer"
    device = torch.device("cpu")
    batch = 1

    def __init__(self, network: torch.nn.Module, precision: str = "fp32", noise: float = 0.0) -> None:
        self._network, self.precision, self._noise = network, precision, noise

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = self._network(windows)
        drawn = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        return logits + self._noise * logits.std() * drawn


@pytest.fixture(scope="module")
def sure_network(tiny_network: torch.nn.Module) -> torch.nn.Module:
    """The tiny network with one class in front, for a trained one is sure of most voxels."""
    network = copy.deepcopy(tiny_network)
    with torch.no_grad():
        network.get_parameter("out.conv.conv.bias")[3] += 1
    return network


@pytest.fixture(scope="module")
def windows(sure_network: torch.nn.Module) -> StoredWindows:
    return ask(sure_network, IMAGES)


def test_what_is_stored_is_read(windows: StoredWindows, tmp_path: Path) -> None:
    store(windows, tmp_path / "windows.safetensors")
    again = stored(tmp_path / "windows.safetensors")
    np.testing.assert_array_equal(again.images, windows.images)
    np.testing.assert_allclose(again.logits, windows.logits, rtol=1e-3, atol=1e-3)
    assert np.abs(again.images - IMAGES).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("content", [b"", b"something else", None])
def test_what_is_no_store_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "windows.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelError, match=r"windows\.safetensors"):
        stored(path)


@pytest.mark.parametrize("name", ["openvino", "onnxruntime"])
def test_every_backend_answers_as_torch_does(
    name: str, tiny_package: ModelPackage, tiny_network: torch.nn.Module
) -> None:
    found = compare(open_session(name, tiny_package, SessionOptions(1, "fp32")), ask(tiny_network, IMAGES))
    assert found.error < LARGEST_ERROR["fp32"]


def test_the_network_itself_passes(sure_network: torch.nn.Module, windows: StoredWindows) -> None:
    found = check(Answer(sure_network), windows)
    assert (found.error, found.same_class) == (0.0, 1.0) and found.sure > 0.05


def test_a_coarser_precision_may_err_more(sure_network: torch.nn.Module, windows: StoredWindows) -> None:
    check(Answer(sure_network, "bf16", noise=0.02), windows)
    with pytest.raises(BackendError, match="fp32: it answers otherwise"):
        check(Answer(sure_network, "fp32", noise=0.02), windows)


def test_another_network_does_not_pass(windows: StoredWindows, tiny_network: torch.nn.Module) -> None:
    for precision in LARGEST_ERROR:
        with pytest.raises(BackendError, match="answers otherwise"):
            check(Answer(tiny_network, precision), windows)


def test_answers_that_are_no_numbers_do_not_pass(sure_network: torch.nn.Module, windows: StoredWindows) -> None:
    with pytest.raises(BackendError, match="answers otherwise"):
        check(Answer(sure_network, noise=float("nan")), windows)


def test_an_unknown_precision_and_windows_that_prove_nothing_are_refused(
    sure_network: torch.nn.Module, windows: StoredWindows
) -> None:
    with pytest.raises(BackendError, match="no limit is known"):
        check(Answer(sure_network, "int4"), windows)
    unsure = StoredWindows(windows.images, np.zeros_like(windows.logits))
    with pytest.raises(BackendError, match="prove nothing"):
        check(Answer(sure_network), unsure)


class SpoiltLater(Answer):
    """Right for the first two windows of a batch, and for no other."""

    batch = 4

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        logits = super().run(windows)
        logits[2:] = logits[2:].flip(1)
        return logits


class SpoiltInPlaces(Answer):
    """Wrong in one of the eight places of every block of two voxels, as a faulty last layer would be."""

    place = (0, 0, 0)

    def run(self, windows: torch.Tensor) -> torch.Tensor:
        logits = super().run(windows)
        z, y, x = self.place
        logits[..., z::2, y::2, x::2] = logits[..., z::2, y::2, x::2].flip(1)
        return logits


def test_whole_batches_are_asked(sure_network: torch.nn.Module, windows: StoredWindows) -> None:
    with pytest.raises(BackendError, match="answers otherwise"):
        check(SpoiltLater(sure_network), windows)


@pytest.mark.parametrize("place", [(0, 0, 0), (1, 1, 1), (0, 1, 0), (1, 0, 1)])
def test_no_place_of_a_block_goes_unasked(
    sure_network: torch.nn.Module, windows: StoredWindows, place: tuple[int, int, int]
) -> None:
    spoilt = SpoiltInPlaces(sure_network)
    spoilt.place = place
    with pytest.raises(BackendError, match="answers otherwise"):
        check(spoilt, windows)
