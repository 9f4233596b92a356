"""The session, with a stand-in for the library: all but the calls to CUDA."""

from __future__ import annotations

import ctypes.util
from typing import Any

import pytest
import torch

from engine.backends import TENSORRT, SessionOptions, availability, tensorrt
from engine.backends.tensorrt import TensorRtSession, missing, open_session
from engine.backends.tensorrt_build import Messages
from engine.backends.tensorrt_engine import (
    Ends,
)
from engine.errors import BackendError, DeviceMemoryError
from engine.package import ModelPackage

CPU = torch.device("cpu")
ENDS = Ends("image", "logits", (1, 4, 4, 4), (3, 4, 4, 4))
STREAM = 4242


class StandInQueue:
    """Runs nothing, and says in which order it was asked."""

    device = CPU
    handle = STREAM

    def __init__(self, asked: list[Any], failure: RuntimeError | None = None) -> None:
        self.asked, self.failure = asked, failure

    def follow(self) -> None:
        self.asked.append("follow")

    def wait(self) -> None:
        self.asked.append("wait")
        if self.failure is not None:
            raise self.failure


class StandInContext:
    """Answers every call as the library does, and writes it down."""

    def __init__(self, refused: str = "") -> None:
        self.asked: list[Any] = []
        self.refused = refused

    def _answer(self, name: str, *given: Any) -> bool:
        self.asked.append((name, *given))
        return name != self.refused

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return self._answer("shape", name, shape)

    def set_tensor_address(self, name: str, address: int) -> bool:
        return self._answer(f"address of {name}", address)

    def execute_async_v3(self, stream: int) -> bool:
        return self._answer("execute", stream)


def session_of(context: StandInContext, failure: RuntimeError | None = None) -> TensorRtSession:
    return TensorRtSession(context, ENDS, 2, StandInQueue(context.asked, failure), Messages())


def test_a_run_is_these_calls_in_this_order() -> None:
    context = StandInContext()
    session = session_of(context)
    windows = torch.rand(2, 1, 4, 4, 4)
    logits = session.run(windows)
    assert context.asked == [
        "follow",
        ("shape", "image", (2, 1, 4, 4, 4)),
        ("address of image", windows.data_ptr()),
        ("address of logits", logits.data_ptr()),
        ("execute", STREAM),
        "wait",
    ]
    assert (logits.shape, logits.dtype) == ((2, 3, 4, 4, 4), torch.float32)
    assert (session.name, session.precision, session.device, session.batch) == ("tensorrt", "fp16", CPU, 2)


def test_fewer_windows_use_the_same_memory() -> None:
    session = session_of(StandInContext())
    both, one = session.run(torch.rand(2, 1, 4, 4, 4)), session.run(torch.rand(1, 1, 4, 4, 4))
    assert one.shape == (1, 3, 4, 4, 4) and one.data_ptr() == both.data_ptr()


def test_windows_with_gaps_are_closed_up() -> None:
    context = StandInContext()
    session_of(context).run(torch.rand(1, 1, 4, 4, 8)[..., ::2])
    assert ("shape", "image", (1, 1, 4, 4, 4)) in context.asked


@pytest.mark.parametrize(
    ("windows", "reason"),
    [
        (torch.zeros(3, 1, 4, 4, 4), "1 to 2 of"),
        (torch.zeros(0, 1, 4, 4, 4), "1 to 2 of"),
        (torch.zeros(1, 1, 4, 4, 5), r"\(1, 1, 4, 4, 5\)"),
        (torch.zeros(1, 1, 4, 4, 4, dtype=torch.float16), "torch.float16 on cpu"),
        (torch.zeros(1, 1, 4, 4, 4, device="meta"), "on meta"),
    ],
)
def test_other_windows_are_refused_before_the_gpu_is_asked(windows: torch.Tensor, reason: str) -> None:
    context = StandInContext()
    with pytest.raises(BackendError, match=f"a window failed: .*{reason}"):
        session_of(context).run(windows)
    assert context.asked == []


@pytest.mark.parametrize("refused", ["shape", "address of image", "address of logits", "execute"])
def test_a_call_that_says_false_is_an_error(refused: str) -> None:
    context = StandInContext(refused)
    with pytest.raises(BackendError, match="a window failed") as caught:
        session_of(context).run(torch.zeros(1, 1, 4, 4, 4))
    assert not isinstance(caught.value, DeviceMemoryError)
    assert context.asked[-1][0] == refused


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), DeviceMemoryError),
        (RuntimeError("CUDA error: out of memory"), DeviceMemoryError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), BackendError),
    ],
)
def test_what_torch_and_cuda_raise_becomes_ours(failure: RuntimeError, kind: type[BackendError]) -> None:
    with pytest.raises(BackendError) as caught:
        session_of(StandInContext(), failure).run(torch.zeros(1, 1, 4, 4, 4))
    assert type(caught.value) is kind and caught.value.__cause__ is failure


def test_too_little_memory_for_the_logits_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(DeviceMemoryError, match="out of memory"):
        session_of(StandInContext())


def test_the_librarys_lack_of_memory_in_a_run_is_told_as_such() -> None:
    messages, context = Messages(), StandInContext("execute")
    session = TensorRtSession(context, ENDS, 2, StandInQueue(context.asked), messages)
    context.set_input_shape = lambda *_: messages.add("Error Code 2: OutOfMemory") or False  # type: ignore[method-assign, func-returns-value]
    with pytest.raises(DeviceMemoryError, match="OutOfMemory"):
        session.run(torch.zeros(1, 1, 4, 4, 4))


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    here: set[str] = set()

    def load(name: str) -> None:
        if "driver" not in here:
            raise OSError(name)

    monkeypatch.setattr(tensorrt, "find_spec", lambda name: name if name in here else None)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: name if name in here else None)
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: int("gpu" in here))
    for next_one, reason in [
        ("tensorrt", "the Python package tensorrt is not installed"),
        ("nvinfer", "libnvinfer"),
        ("driver", "libcuda.so.1"),
    ]:
        assert reason in (missing() or "")
        here.add(next_one)
    assert "torch is built without CUDA" in (missing() or "")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert "no GPU" in (missing() or "")
    here.add("gpu")
    assert missing() is None
    assert capfd.readouterr() == ("", "")


def test_it_is_a_backend_by_its_entry_point() -> None:
    assert "tensorrt" in availability()
    assert (TENSORRT.precisions, TENSORRT.asks_module) == (("fp16",), True)


def test_it_does_not_open_where_something_is_missing(
    tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorrt, "missing", lambda: "the CUDA driver is not installed")
    with pytest.raises(BackendError, match="the CUDA driver is not installed"):
        open_session(tiny_package, SessionOptions(1))
    with pytest.raises(BackendError, match="does not compute in bf16"):
        open_session(tiny_package, SessionOptions(1, "bf16"))
