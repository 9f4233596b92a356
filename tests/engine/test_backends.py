from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from plugins.environments import metadata_in

from engine import backends
from engine.backends import AUTO, AUTO_ORDER, SessionOptions, availability, open_session, resolve, usable
from engine.backends import openvino as openvino_backend
from engine.backends import pytorch as torch_backend
from engine.errors import BackendError, DeviceMemoryError, PluginError
from engine.labels import LabelSet, thigh29
from engine.package import ModelPackage
from engine.plugins import BACKENDS

READ_ONNX = ("openvino", "onnxruntime")
OURS = (*READ_ONNX, "torch")


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


def test_a_broken_backend_of_another_keeps_nobody_from_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    metadata_in(tmp_path, "some-parts", {BACKENDS: {"broken": "broken_parts:ABSENT"}}, {"broken_parts": ""})
    assert "cannot be imported" in str(availability()["broken"])
    assert set(OURS) <= set(usable()) and "broken" not in usable()
    with pytest.raises(PluginError, match=r"broken.*cannot be imported"):
        resolve("broken")


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


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("name", OURS)
def test_a_session_takes_a_batch_and_less(name: str, pinned: bool, tiny_package: ModelPackage) -> None:
    windows = torch.rand((3, 1, 32, 32, 32), generator=torch.Generator().manual_seed(1))
    session = open_session(name, tiny_package, SessionOptions(2, "fp32", batch=3, pinned=pinned))
    single = open_session(name, tiny_package, SessionOptions(1, "fp32"))
    assert (session.batch, single.batch) == (3, 1)
    alone = torch.cat([single.run(window[None]).clone() for window in windows])
    for count in (1, 2, 3):
        found = session.run(windows[:count])
        assert found.shape == (count, 30, 32, 32, 32)
        assert torch.allclose(found, alone[:count], atol=1e-4)


@pytest.mark.parametrize("name", [AUTO, *READ_ONNX])
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


@pytest.mark.parametrize("name", READ_ONNX)
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
        cpuinfo.write_text(f"model name\t: CPU avx512_bf16\nflags\t\t: {flags}\n", encoding="ascii")
    monkeypatch.setattr(backends, "CPU_INFO", cpuinfo)
    core = openvino_backend.the_core()
    offered = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert openvino_backend.has_bf16(core) == (expected and offered)
    assert torch_backend.precisions_of(torch.device("cpu")) == (("fp32", "bf16") if expected else ("fp32",))


@pytest.mark.parametrize("name", READ_ONNX)
def test_a_backend_of_the_cpu_refuses_a_gpu(name: str, tiny_package: ModelPackage) -> None:
    with pytest.raises(BackendError, match="does not run on the device 'cuda'"):
        open_session(name, tiny_package, SessionOptions(1, device="cuda"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (SessionOptions(1, device="abacus"), "does not run on the device 'abacus'"),
        (SessionOptions(1, "fp16"), "does not compute in fp16"),
        (SessionOptions(1, "int4"), "does not compute in int4"),
    ],
)
def test_torch_refuses_what_it_has_not(options: SessionOptions, words: str, tiny_package: ModelPackage) -> None:
    with pytest.raises(BackendError, match=words):
        open_session("torch", tiny_package, options)


def test_torch_refuses_a_gpu_that_is_not_here(tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match="the device cuda is not here"):
        open_session("torch", tiny_package, SessionOptions(1, device="cuda"))


def test_torch_needs_the_weights_of_this_very_network(tiny_package: ModelPackage) -> None:
    with pytest.raises(BackendError, match="an ONNX file alone"):
        open_session("torch", replace(tiny_package, weights=None), SessionOptions(1))
    with pytest.raises(BackendError, match="an ONNX file alone"):
        open_session("torch", replace(tiny_package, network={}), SessionOptions(1))
    short = LabelSet("short", thigh29().structures[:5])
    with pytest.raises(BackendError, match="weights of another network"):
        open_session("torch", replace(tiny_package, label_set=short), SessionOptions(1))


def test_torch_is_the_network_itself(tiny_package: ModelPackage, tiny_network: torch.nn.Module) -> None:
    window = torch.rand((1, 1, 32, 32, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = tiny_network(window)
    found = open_session("torch", tiny_package, SessionOptions(1)).run(window)
    assert torch.allclose(found, expected, atol=1e-6)


def test_too_little_memory_of_a_device_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    network = torch.nn.Identity()
    monkeypatch.setattr(network, "forward", full)
    session = torch_backend.TorchSession(network, torch.device("cpu"), "fp32", 1)
    with pytest.raises(DeviceMemoryError, match="too little memory"):
        session.run(torch.zeros(1))


def test_a_precision_that_was_asked_for_and_not_given_is_an_error(
    tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch_backend.TorchSession, "precision", property(lambda _: "fp16", lambda *_: None), raising=False
    )
    with pytest.raises(BackendError, match="computes in fp16, though fp32 was asked for"):
        open_session("torch", tiny_package, SessionOptions(1, "fp32"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")
@pytest.mark.parametrize("batch", [1, 3])
def test_torch_on_a_gpu_answers_as_on_the_cpu(batch: int, tiny_package: ModelPackage) -> None:
    windows = torch.rand((2 * batch, 1, 32, 32, 32), generator=torch.Generator().manual_seed(1))
    expected = open_session("torch", tiny_package, SessionOptions(1, batch=2 * batch)).run(windows)
    session = open_session("torch", tiny_package, SessionOptions(1, batch=batch, device="cuda"))
    assert (session.precision, session.device.type) == ("fp16", "cuda")
    found = torch.cat([session.run(part.cuda()).float().cpu() for part in (windows[:batch], windows[batch:])])
    assert (found - expected).square().mean().sqrt() < 0.02 * expected.std()


@pytest.mark.parametrize("name", ["openvino"])
def test_more_windows_than_the_session_takes_are_an_error(name: str, tiny_package: ModelPackage) -> None:
    session = open_session(name, tiny_package, SessionOptions(1, batch=2))
    with pytest.raises(BackendError, match="3 windows at a time, and it takes 2"):
        session.run(torch.zeros(3, 1, 32, 32, 32))


@pytest.fixture
def with_tf32() -> Iterator[None]:
    """Torch as it would be where somebody had allowed TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(("precision", "tf32"), [("fp32", False), ("fp16", True)])
def test_fp32_on_a_gpu_is_fp32(
    precision: str, tf32: bool, with_tf32: None, tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Anywhere(torch.nn.Identity):
        def to(self, *_: Any, **__: Any) -> Anywhere:
            return self

    seen: list[tuple[bool, bool]] = []

    def record(*_: object) -> None:
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))

    monkeypatch.setattr(torch_backend, "device_of", torch.device)
    monkeypatch.setattr(torch_backend, "precisions_of", lambda _: ("fp16", "fp32"))
    monkeypatch.setattr(torch_backend, "network_of", lambda _: Anywhere())
    monkeypatch.setattr(torch_backend.TorchSession, "record", record)
    torch_backend.open_session(tiny_package, SessionOptions(1, precision, device="cuda"))
    assert seen == [(tf32, tf32)]
