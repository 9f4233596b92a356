"""From a package to its engine, with a stand-in for the library: plans that are built, kept, refused."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from engine.backends import SessionOptions, tensorrt_engine
from engine.backends.plans import PlanKey, PlanStore
from engine.backends.tensorrt_build import BATCHES, BuildOrder, Built, Library, Messages
from engine.backends.tensorrt_engine import (
    AMPERE_NAME,
    STALE_S,
    Ends,
    Gpu,
    PlanSource,
    check_ends,
    deserialiser,
    load_engine,
    plan_key,
    typed_network,
)
from engine.errors import BackendError, DeviceMemoryError
from engine.labels import LabelSet, thigh29
from engine.package import ModelPackage

CPU = torch.device("cpu")
A100 = Gpu("NVIDIA A100-SXM4-80GB", (8, 0), CPU)


@dataclass
class StandInLibrary:
    """A library that builds plans of one word, and takes those that it has built."""

    built: list[BuildOrder] = field(default_factory=list)
    refuses: tuple[bytes, ...] = ()
    asked: list[bytes] = field(default_factory=list)

    def build(self, found: Library, order: BuildOrder, timings: bytes, say: Callable[[str], None]) -> Built:
        self.built.append(order)
        return Built(f"plan {len(self.built)}".encode(), b"timings", 1.5, 1, ())

    def deserialise(self, plan: bytes) -> str | None:
        self.asked.append(plan)
        return None if plan in self.refuses else f"engine of {plan.decode()}"


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandInLibrary:
    stand_in = StandInLibrary()
    monkeypatch.setattr(tensorrt_engine, "build", stand_in.build)
    return stand_in


KEY = PlanKey("a" * 64, "tensorrt", "10.16", A100.name, "8.0", "fp16", (1, 4, 8), False, (), 1, 4)


def source_in(folder: Path, said: list[str], key: PlanKey = KEY) -> PlanSource:
    order = BuildOrder(folder / "a.onnx", "image", (1, 4, 4, 4))
    return PlanSource(Library(SimpleNamespace(), None, Messages()), PlanStore(folder), key, order, said.append)


def test_a_plan_is_built_once(stand_in: StandInLibrary, tmp_path: Path) -> None:
    for _ in range(2):
        assert source_in(tmp_path, []).engine(stand_in.deserialise) == "engine of plan 1"
    assert len(stand_in.built) == 1
    assert source_in(tmp_path, [], replace(KEY, gpu="NVIDIA H200")).engine(stand_in.deserialise) == "engine of plan 2"


def test_a_foreign_plan_is_never_run(stand_in: StandInLibrary, tmp_path: Path) -> None:
    said: list[str] = []
    store, foreign = PlanStore(tmp_path), replace(KEY, gpu="NVIDIA H200")
    store.write(foreign, b"foreign plan", 1.0)
    store.plan(foreign).rename(store.plan(KEY))
    store.note(foreign).rename(store.note(KEY))
    assert source_in(tmp_path, said).engine(stand_in.deserialise) == "engine of plan 1"
    assert stand_in.asked == [b"plan 1"]
    assert "built for gpu 'NVIDIA H200'" in said[0]
    assert store.read(KEY, pytest.fail) == b"plan 1"


def test_a_plan_that_the_library_does_not_take_is_built_again(stand_in: StandInLibrary, tmp_path: Path) -> None:
    said: list[str] = []
    PlanStore(tmp_path).write(KEY, b"old", 1.0)
    stand_in.refuses = (b"old",)
    assert source_in(tmp_path, said).engine(stand_in.deserialise) == "engine of plan 1"
    assert "TensorRT does not take it" in said[0]
    assert PlanStore(tmp_path).read(KEY, pytest.fail) == b"plan 1"


def test_a_fresh_plan_that_the_library_does_not_take_is_an_error(stand_in: StandInLibrary, tmp_path: Path) -> None:
    stand_in.refuses = (b"plan 1",)
    with pytest.raises(BackendError, match="does not take the plan that it has just built"):
        source_in(tmp_path, []).engine(stand_in.deserialise)


def test_a_plan_that_another_process_built_meanwhile_is_taken(
    stand_in: StandInLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def waited(store: PlanStore, key: PlanKey) -> Any:
        store.write(key, b"theirs", 1.0)
        yield

    monkeypatch.setattr(PlanStore, "building", waited)
    assert source_in(tmp_path, []).engine(stand_in.deserialise) == "engine of theirs"
    assert stand_in.built == []


class Runtime:
    def __init__(self, messages: Messages, complaint: str) -> None:
        self.messages, self.complaint = messages, complaint

    def deserialize_cuda_engine(self, plan: bytes) -> None:
        self.messages.add(self.complaint)


@pytest.mark.parametrize(("complaint", "short"), [("Error Code 2: OutOfMemory", True), ("other version", False)])
def test_a_plan_is_not_refused_for_a_lack_of_memory(complaint: str, short: bool) -> None:
    messages = Messages()
    found = Library(SimpleNamespace(Runtime=lambda _: Runtime(messages, complaint)), None, messages)
    if short:
        with pytest.raises(DeviceMemoryError, match="OutOfMemory"):
            deserialiser(found)(b"plan")
    else:
        assert deserialiser(found)(b"plan") is None


def module_named(version: str) -> Any:
    return Library(SimpleNamespace(__name__="tensorrt", __version__=version), None, Messages())


def test_the_key_is_of_this_library_and_gpu(tiny_package: ModelPackage, tmp_path: Path) -> None:
    assert tiny_package.half_onnx is not None
    order = BuildOrder(tiny_package.half_onnx, "image", (1, 32, 32, 32))
    key = plan_key(module_named("10.16.1.11"), A100, order, ())
    assert (key.version, key.gpu, key.compute_capability) == ("10.16.1.11", A100.name, "8.0")
    assert key.name != plan_key(module_named("11.4.0.106"), A100, order, ()).name
    assert key.name != plan_key(module_named("10.16.1.11"), A100, replace(order, onnx=tiny_package.onnx), ()).name
    with pytest.raises(BackendError, match="could not load the network"):
        plan_key(module_named("11"), A100, replace(order, onnx=tmp_path / "absent.onnx"), ())


def test_a_portable_plan_is_one_for_all_gpus_since_ampere(tiny_package: ModelPackage) -> None:
    assert tiny_package.half_onnx is not None
    order = BuildOrder(tiny_package.half_onnx, "image", (1, 32, 32, 32), portable=True)
    h200, turing = Gpu("NVIDIA H200", (9, 0), CPU), Gpu("Tesla T4", (7, 5), CPU)
    keys = [plan_key(module_named("11"), gpu, order, ()) for gpu in (A100, h200)]
    assert keys[0] == keys[1] and keys[0].gpu == AMPERE_NAME
    assert keys[0].name != plan_key(module_named("11"), A100, replace(order, portable=False), ()).name
    with pytest.raises(BackendError, match="Tesla T4 is older"):
        plan_key(module_named("11"), turing, order, ())


def test_a_package_without_a_half_network_gets_one_for_as_long(tiny_package: ModelPackage, tmp_path: Path) -> None:
    with typed_network(tiny_package, tmp_path) as path:
        assert path == tiny_package.half_onnx
    with typed_network(replace(tiny_package, half_onnx=None), tmp_path) as path:
        assert path.parent.parent == tmp_path and path.stat().st_size > tiny_package.onnx.stat().st_size / 4
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_goes_after_a_day(tiny_package: ModelPackage, tmp_path: Path) -> None:
    ages_s = {".typed-old": STALE_S + 60, ".typed-young": STALE_S - 60, "kept": 2 * STALE_S}
    for name, age_s in ages_s.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.onnx").write_bytes(b"x")
        os.utime(tmp_path / name, (time.time() - age_s,) * 2)
    with typed_network(replace(tiny_package, half_onnx=None), tmp_path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {".typed-young", "kept"}


def test_a_network_that_cannot_be_typed_is_an_error_with_a_remedy(tiny_package: ModelPackage, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no network")
    package = replace(tiny_package, half_onnx=None, onnx=damaged)
    with (
        pytest.raises(BackendError, match=r"backend tensorrt: it could not load .* Copy the whole package again"),
        typed_network(package, tmp_path),
    ):
        pytest.fail("it was typed")


class Engine:
    """What an engine tells of its ends."""

    def __init__(self, ports: dict[str, tuple[tuple[int, ...], str]]) -> None:
        self.ports = ports
        self.num_io_tensors = len(ports)

    def get_tensor_name(self, index: int) -> str:
        return list(self.ports)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.ports[name][0]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.ports[name][1])


IMAGE, LOGITS = ((-1, 1, 32, 32, 32), "FLOAT"), ((-1, 30, 32, 32, 32), "FLOAT")


@pytest.mark.parametrize(
    ("ports", "reason"),
    [
        ({"image": IMAGE, "pred": LOGITS}, "has the ends"),
        ({"image": IMAGE, "logits": ((-1, 12, 32, 32, 32), "FLOAT")}, "12 channels"),
        ({"image": IMAGE, "logits": (LOGITS[0], "HALF")}, "logits of its plan is HALF"),
        ({"image": ((1, 1, 32, 32, 32), "FLOAT"), "logits": LOGITS}, "image of its plan"),
    ],
)
def test_an_engine_with_other_ends_is_refused(
    ports: dict[str, tuple[tuple[int, ...], str]], reason: str, tiny_package: ModelPackage
) -> None:
    ends = check_ends(Engine({"image": IMAGE, "logits": LOGITS}), tiny_package)
    assert ends == Ends("image", "logits", (1, 32, 32, 32), (30, 32, 32, 32))
    with pytest.raises(BackendError, match=reason):
        check_ends(Engine(ports), tiny_package)


@pytest.mark.parametrize("cached", [True, False])
def test_from_a_package_to_its_engine(
    cached: bool, stand_in: StandInLibrary, tiny_package: ModelPackage, tmp_path: Path
) -> None:
    engine = Engine({"image": IMAGE, "logits": LOGITS})
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: engine)
    module = SimpleNamespace(__name__="tensorrt", __version__="11.4.0.106", Runtime=lambda _: runtime)
    found, said = Library(module, None, Messages()), list[str]()
    options = SessionOptions(1, cache=tmp_path if cached else None, portable=True)
    for _ in range(2):
        assert load_engine(found, A100, tiny_package, options, said.append)[0] is engine
    assert len(stand_in.built) == (1 if cached else 2)
    assert stand_in.built[0].onnx == tiny_package.half_onnx
    assert (stand_in.built[0].window, stand_in.built[0].batches) == ((1, 32, 32, 32), BATCHES)
    assert stand_in.built[0].portable
    kept = sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file())
    assert kept == ([".cache", ".json", ".lock", ".plan"] if cached else [])


def test_a_label_set_of_other_classes_is_refused(tiny_package: ModelPackage) -> None:
    short = LabelSet("short", thigh29().structures[:5])
    with pytest.raises(BackendError, match="30 channels, its label set has 6"):
        check_ends(Engine({"image": IMAGE, "logits": LOGITS}), replace(tiny_package, label_set=short))
