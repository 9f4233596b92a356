"""Without a GPU: `tensorrt_rtx`, the same interface, reads our graph and builds a plan for compute capability 8.0."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
import torch

from engine.backends import tensorrt_build
from engine.backends.plans import PlanStore
from engine.backends.tensorrt_build import (
    BATCHES,
    SILENCE_S,
    BuildOrder,
    Library,
    Messages,
    Port,
    Progress,
    build,
    library,
    load_libraries,
)
from engine.backends.tensorrt_engine import Gpu, PlanSource, plan_key, typed_network
from engine.errors import BackendError, DeviceMemoryError
from engine.package import ModelPackage, load_package

# It keeps no measurements, and warns of being asked to; TensorRT does.
pytestmark = pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")

A100 = Gpu("NVIDIA A100-SXM4-80GB", (8, 0), torch.device("cpu"))
SHIPPED = Path(__file__).resolve().parents[3] / "engine" / "packages" / "compact"
REFUSAL = "the library gives no reason"


@pytest.fixture(scope="module")
def rtx() -> Library:
    return library(
        pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx, which builds without a GPU, is not installed")
    )


@dataclass(frozen=True)
class Made:
    source: PlanSource
    plan: bytes
    said: list[str]


def order_for(package: ModelPackage, path: Path) -> BuildOrder:
    return BuildOrder(path, package.contract.input, (1, *package.preprocessing.window), target="SM80")


def made(rtx: Library, package: ModelPackage, onnx_file: Path, folder: Path) -> Made:
    order, said = order_for(package, onnx_file), list[str]()
    source = PlanSource(rtx, PlanStore(folder), plan_key(rtx, A100, order, ()), order, said.append)
    return Made(source, source.build(), said)


@pytest.fixture(scope="module")
def tiny_plan(rtx: Library, tiny_package: ModelPackage, tmp_path_factory: pytest.TempPathFactory) -> Made:
    assert tiny_package.half_onnx is not None
    return made(rtx, tiny_package, tiny_package.half_onnx, tmp_path_factory.mktemp("plans"))


def test_a_plan_for_the_a100_is_built_and_kept(tiny_plan: Made) -> None:
    store, key = tiny_plan.source.store, tiny_plan.source.key
    assert store.read(key, pytest.fail) == tiny_plan.plan
    assert len(tiny_plan.plan) > 1_000_000
    note = json.loads(store.note(key).read_text(encoding="utf-8"))
    told = note["depends_on"]
    assert (told["module"], told["gpu"], told["compute_capability"]) == ("tensorrt_rtx", A100.name, "8.0")
    assert (told["precision"], told["batches"], told["portable"]) == ("fp16", [1, 4, 8], False)
    assert note["build_s"] > 0
    assert len(store.read_timings(key)) > 0
    assert "no plan was built here yet" in tiny_plan.said[0]
    assert "built the plan" in tiny_plan.said[-1]


def test_the_next_build_has_an_estimate_and_the_timings(
    rtx: Library, tiny_plan: Made, tiny_package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    given: list[bytes] = []

    def stop(found: Library, order: BuildOrder, timings: bytes, say: Callable[[str], None]) -> None:
        given.append(timings)
        raise BackendError("", "", "")

    monkeypatch.setattr("engine.backends.tensorrt_engine.build", stop)
    source = replace(tiny_plan.source, key=replace(tiny_plan.source.key, network="f" * 64), say=said.append)
    with pytest.raises(BackendError):
        source.build()
    took = source.store.last_build_s(source.key)
    assert took is not None and f"the last one for this GPU took {took:.0f} s" in said[0]
    assert given == [source.store.read_timings(source.key)] != [b""]


def test_the_shipped_network_is_built_for_the_a100(rtx: Library, tmp_path: Path) -> None:
    package = load_package(SHIPPED)
    with typed_network(package, tmp_path) as path:
        built = build(rtx, order_for(package, path), b"", list[str]().append)
    window, classes = package.preprocessing.window, package.label_set.class_count
    assert built.layers > 300
    assert built.ports == (Port("image", (-1, 1, *window), "FLOAT"), Port("logits", (-1, classes, *window), "FLOAT"))
    assert package.weights is not None and len(built.plan) > package.weights.stat().st_size
    assert list(tmp_path.iterdir()) == []


def test_the_parsed_network_has_our_ends(rtx: Library, tiny_package: ModelPackage) -> None:
    assert tiny_package.half_onnx is not None
    trt = rtx.module
    parsed = trt.Builder(rtx.logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(parsed, rtx.logger)
    assert parser.parse_from_file(str(tiny_package.half_onnx))
    ends = [parsed.get_input(0), parsed.get_output(0)]
    assert parsed.num_layers > 300 and (parsed.num_inputs, parsed.num_outputs) == (1, 1)
    assert [(end.name, tuple(end.shape), end.dtype.name) for end in ends] == [
        ("image", (-1, 1, 32, 32, 32), "FLOAT"),
        ("logits", (-1, 30, 32, 32, 32), "FLOAT"),
    ]
    kinds = {parsed.get_layer(index).type.name for index in range(parsed.num_layers)}
    assert "CONVOLUTION" in kinds and "NORMALIZATION" in kinds and not [kind for kind in kinds if "PLUGIN" in kind]


def test_every_error_of_the_parser_is_told(rtx: Library, tmp_path: Path) -> None:
    port = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("image", "logits")]
    node = onnx.helper.make_node("Abacus", ["image"], ["logits"], domain="nowhere")
    path = tmp_path / "a.onnx"
    path.write_bytes(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", port[:1], port[1:])).SerializeToString()
    )
    with pytest.raises(BackendError, match=r"cannot read the network a.onnx.*Abacus"):
        build(rtx, BuildOrder(path, "image", (4,), target="SM80"), b"", list[str]().append)


def test_a_window_that_the_network_does_not_take_is_an_error(rtx: Library, tiny_package: ModelPackage) -> None:
    assert tiny_package.half_onnx is not None
    order = BuildOrder(tiny_package.half_onnx, "image", (1, 16, 16, 16), target="SM80")
    with pytest.raises(BackendError, match="backend tensorrt: it"):
        build(rtx, order, b"", list[str]().append)


def test_a_builder_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    def no_driver(_: object) -> None:
        raise TypeError("factory function returned nullptr")

    messages = Messages()
    messages.add("CUDA initialization failure with error: 35")
    found = Library(SimpleNamespace(Builder=no_driver), None, messages)
    with pytest.raises(BackendError, match="factory function returned nullptr"):
        build(found, BuildOrder(tmp_path / "a.onnx", "image", (1,)), b"", list[str]().append)


class Config:
    """A builder's configuration that writes down what is asked of it."""

    def __init__(self, fitting: tuple[bytes, ...] = ()) -> None:
        self.fitting, self.asked = fitting, list[Any]()

    def create_timing_cache(self, blob: bytes) -> bytes | None:
        return None if blob == b"garbage" else blob

    def set_timing_cache(self, kept: bytes, ignore_mismatch: bool) -> bool:
        self.asked.append((kept, ignore_mismatch))
        return kept in self.fitting

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.asked.append((pool, size))

    def add_optimization_profile(self, profile: object) -> int:
        return 0


@pytest.mark.parametrize(
    ("timings", "fitting", "kept"),
    [(b"ours", (b"ours", b""), b"ours"), (b"foreign", (b"",), b""), (b"garbage", (b"",), b""), (b"ours", (), None)],
)
def test_measurements_of_another_version_are_not_used(timings: bytes, fitting: tuple[bytes, ...], kept: object) -> None:
    config = Config(fitting)
    assert tensorrt_build._attach_timings(config, timings) == kept
    assert {ignored for _, ignored in config.asked} == {False}


@pytest.mark.parametrize("portable", [False, True])
def test_a_portable_plan_is_asked_for_by_name(portable: bool) -> None:
    shapes: list[Any] = []
    profile = SimpleNamespace(set_shape=lambda *given: shapes.append(given))
    config = Config()
    builder = SimpleNamespace(create_builder_config=lambda: config, create_optimization_profile=lambda: profile)
    module = SimpleNamespace(
        MemoryPoolType=SimpleNamespace(WORKSPACE="workspace"),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS="ampere+"),
    )
    order = BuildOrder(Path("a"), "image", (1, 8, 8, 8), portable=portable, workspace_bytes=5, optimisation_level=2)
    tensorrt_build._config(Library(module, None, Messages()), builder, order)
    assert config.asked == [("workspace", 5)]
    assert getattr(config, "builder_optimization_level", None) == 2
    assert getattr(config, "hardware_compatibility_level", None) == ("ampere+" if portable else None)
    assert shapes == [("image", *((count, 1, 8, 8, 8) for count in BATCHES))]


@pytest.mark.parametrize(("flags", "expected"), [({"STRONGLY_TYPED": 1}, 2), ({}, 0)])
def test_strongly_typed_is_asked_for_where_it_is_a_choice(flags: dict[str, int], expected: int) -> None:
    assert tensorrt_build._flags(SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(**flags))) == expected


class Registry:
    def __init__(self, handle: object) -> None:
        self.handle, self.loaded = handle, list[str]()

    def load_library(self, path: str) -> object:
        self.loaded.append(path)
        return self.handle


def with_registry(registry: Registry, name: str) -> Library:
    return Library(SimpleNamespace(__name__=name, get_plugin_registry=lambda: registry), None, Messages())


def test_plug_in_libraries_are_loaded_once_and_known_by_their_digest(tmp_path: Path) -> None:
    path, registry = tmp_path / "a.so", Registry(object())
    path.write_bytes(b"code")
    found = with_registry(registry, f"fake {tmp_path}")
    first = load_libraries(found, [path])
    assert load_libraries(found, (path,)) == first
    assert registry.loaded == [str(path)]
    path.write_bytes(b"other code")
    with pytest.raises(BackendError, match="exchanged since this process loaded it"):
        load_libraries(found, [path])


@pytest.mark.parametrize(
    ("name", "reason"), [("absent.so", "it is missing"), ("", "it is missing"), ("refused.so", REFUSAL)]
)
def test_a_plug_in_library_that_is_missing_or_refused_is_an_error(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "refused.so").write_bytes(b"code")
    found = with_registry(Registry(None), f"fake {tmp_path}")
    for _ in range(2):  # it is not remembered as loaded
        with pytest.raises(BackendError, match=reason):
            load_libraries(found, [tmp_path / name])


def test_a_plug_in_library_is_named_by_an_absolute_path() -> None:
    with pytest.raises(BackendError, match="its path is not absolute"):
        load_libraries(with_registry(Registry(object()), "fake"), [Path("a.so")])


def test_the_library_itself_refuses_what_is_no_plug_in_library(rtx: Library, tmp_path: Path) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(b"no code")
    with pytest.raises(BackendError, match="TensorRT does not load it"):
        load_libraries(rtx, [path])


def test_a_plug_in_library_changes_the_plans_name(rtx: Library, tiny_package: ModelPackage) -> None:
    assert tiny_package.half_onnx is not None
    key = partial(plan_key, rtx, A100, order_for(tiny_package, tiny_package.half_onnx))
    assert key(()).name != key(("e" * 64,)).name


def test_messages_tell_a_lack_of_memory_from_other_failures() -> None:
    messages = Messages()
    assert REFUSAL in str(messages.error("it failed"))
    messages.add("Error Code 2: OutOfMemory (Requested size was 2147483648 bytes.)")
    error = messages.error("it failed")
    assert isinstance(error, DeviceMemoryError) and "2147483648" in str(error)
    messages.forget()
    messages.add("Error Code 9:\n  Internal Error")
    messages.add("Error Code 9: Internal Error")
    error = messages.error("it failed", "the cause")
    assert not isinstance(error, DeviceMemoryError)
    assert error.reason == "it failed: Error Code 9: Internal Error; the cause"


def test_progress_is_told_seldom() -> None:
    now, said = [0.0], list[str]()
    progress = Progress(said.append, lambda: now[0])
    progress.start("Building Engine", 40)
    for step in range(40):
        now[0] = step * SILENCE_S / 10
        progress.step("Building Engine", step)
    progress.finish("Building Engine")
    assert said == [
        "TensorRT, after 10 s: Building Engine, step 11 of 40",
        "TensorRT, after 20 s: Building Engine, step 21 of 40",
        "TensorRT, after 30 s: Building Engine, step 31 of 40",
    ]


def test_the_librarys_messages_do_not_reach_the_error_stream(rtx: Library, capfd: pytest.CaptureFixture[str]) -> None:
    rtx.messages.forget()
    assert rtx.module.Runtime(rtx.logger).deserialize_cuda_engine(b"no plan") is None
    assert capfd.readouterr() == ("", "")
    assert "Error Code" in rtx.messages.error("it failed").reason
