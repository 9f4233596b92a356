from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import openvino
import pytest
import torch

from engine import backends
from engine.backends import AUTO, AUTO_ORDER, SessionOptions, availability, open_session, resolve
from engine.backends import openvino as openvino_backend
from engine.errors import BackendError
from engine.labels import LabelSet, thigh29
from engine.package import ModelPackage

OURS = ("openvino", "onnxruntime")


def test_auto_is_the_first_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = availability()
    assert [name for name in reasons if name in AUTO_ORDER] == [name for name in AUTO_ORDER if name in reasons]
    assert {name: reasons[name] for name in OURS} == dict.fromkeys(OURS)
    assert resolve(AUTO) == "openvino"
    monkeypatch.setattr(backends, "find_spec", lambda name: None if name == "openvino" else find_spec(name))
    assert resolve(AUTO) == "onnxruntime"
    with pytest.raises(BackendError, match="openvino is not installed"):
        resolve("openvino")
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match="none can be used here"):
        resolve(AUTO)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(BackendError, match="openvino, onnxruntime"):
        resolve("abacus")


@pytest.mark.parametrize("name", OURS)
def test_a_batch_is_its_windows(name: str, tiny_package: ModelPackage) -> None:
    session = open_session(name, tiny_package, SessionOptions(1))
    windows = torch.rand((2, 1, 32, 32, 32), generator=torch.Generator().manual_seed(1))
    both = torch.cat([session.run(window[None]).clone() for window in windows])
    one = session.run(windows[1:])
    assert (session.name, both.shape) == (name, (2, 30, 32, 32, 32))
    assert both.dtype == torch.float32
    assert session.precision in {"fp32", "bf16"}
    assert torch.allclose(both[1:], one, atol=1e-4)


@pytest.mark.parametrize("name", [AUTO, *OURS])
def test_a_network_that_cannot_be_loaded_is_an_error_and_no_other_backend_takes_over(
    name: str, tiny_package: ModelPackage, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no network")
    with pytest.raises(BackendError, match=f"backend {resolve(name)}: it could not load"):
        open_session(name, replace(tiny_package, onnx=damaged), SessionOptions(1))


@pytest.mark.parametrize("name", OURS)
def test_windows_of_a_wrong_size_are_an_error(name: str, tiny_package: ModelPackage) -> None:
    with pytest.raises(BackendError, match="a window failed"):
        open_session(name, tiny_package, SessionOptions(1)).run(torch.zeros(1, 1, 16, 16, 16))


@pytest.mark.parametrize("name", OURS)
def test_a_network_with_other_classes_is_refused(name: str, tiny_package: ModelPackage) -> None:
    short = LabelSet("short", thigh29().structures[:5])
    with pytest.raises(BackendError, match="30 channels, its label set has 6"):
        open_session(name, replace(tiny_package, label_set=short), SessionOptions(1))


@pytest.mark.parametrize(("flags", "expected"), [("fpu avx512f", False), ("fpu avx512_bf16 sse", True), (None, False)])
def test_bf16_needs_the_cpus_own_instructions(
    flags: str | None, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(f"flags\t\t: {flags}\n", encoding="ascii")
    monkeypatch.setattr(openvino_backend, "CPU_FLAGS", cpuinfo)
    offered = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert openvino_backend.has_bf16(openvino.Core()) == (expected and offered)
