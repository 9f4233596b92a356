from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from engine.backends import plans
from engine.backends.plans import PlanKey, PlanStore, network_digest, write_whole
from engine.errors import BackendError

KEY = PlanKey(
    network="a" * 64,
    module="tensorrt",
    version="10.16.1",
    gpu="NVIDIA A100-SXM4-80GB",
    compute_capability="8.0",
    precision="fp16",
    batches=(1, 4, 8),
    portable=False,
    libraries=(),
    workspace_bytes=1 << 30,
    optimisation_level=4,
)
OTHERS: dict[str, Any] = {
    "network": "b" * 64,
    "module": "tensorrt_rtx",
    "version": "11.4.0",
    "gpu": "NVIDIA H200",
    "compute_capability": "9.0",
    "precision": "bf16",
    "batches": (1, 1, 8),
    "portable": True,
    "libraries": ("c" * 64,),
    "workspace_bytes": 2 << 30,
    "optimisation_level": 3,
}


def test_every_dependency_changes_the_name() -> None:
    assert set(OTHERS) == {field.name for field in fields(PlanKey)}
    names = {KEY.name, *(replace(KEY, **{part: value}).name for part, value in OTHERS.items())}
    assert len(names) == len(OTHERS) + 1
    assert KEY.name == replace(KEY).name


def test_timings_are_shared_by_library_version_and_gpu_alone(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    changed = {
        part for part, value in OTHERS.items() if store.timings(replace(KEY, **{part: value})) != store.timings(KEY)
    }
    assert changed == {"module", "version", "gpu", "compute_capability"}
    assert store.read_timings(KEY) == b""
    store.write_timings(KEY, b"measured")
    assert store.read_timings(replace(KEY, network="d" * 64)) == b"measured"


def test_a_plan_is_read_again_and_says_what_it_depends_on(tmp_path: Path) -> None:
    store, said = PlanStore(tmp_path / "new"), list[str]()
    assert store.read(KEY, said.append) is None
    store.write(KEY, b"plan", 12.3456)
    assert store.read(KEY, said.append) == b"plan"
    assert said == []
    note = json.loads(store.note(KEY).read_text(encoding="utf-8"))
    assert note["depends_on"] == json.loads(json.dumps(KEY.told()))
    assert (note["build_s"], store.last_build_s(KEY)) == (12.346, 12.346)
    assert {path.suffix for path in store.folder.iterdir()} == {".plan", ".json"}


def edited(part: str, value: Any) -> Callable[[PlanStore], None]:
    def edit(store: PlanStore) -> None:
        note = json.loads(store.note(KEY).read_bytes())
        note["depends_on"][part] = value
        store.note(KEY).write_text(json.dumps(note), encoding="utf-8")

    return edit


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edited("gpu", "NVIDIA H200"), "it was built for gpu 'NVIDIA H200', not 'NVIDIA A100-SXM4-80GB'"),
        (edited("version", "11.4.0"), "it was built for version '11.4.0'"),
        (edited("compute_capability", None), "compute_capability None"),
        (lambda store: store.plan(KEY).write_bytes(b"pla"), "it is damaged"),
        (lambda store: store.note(KEY).write_bytes(b"{"), "it cannot be read"),
        (lambda store: store.note(KEY).write_bytes(b"[1]"), "its note is damaged"),
        (lambda store: store.note(KEY).write_bytes(b'{"depends_on": 3}'), "its note is damaged"),
    ],
)
def test_a_foreign_or_damaged_plan_is_refused_with_the_reason(
    damage: Callable[[PlanStore], None], reason: str, tmp_path: Path
) -> None:
    store, said = PlanStore(tmp_path), list[str]()
    store.write(KEY, b"plan", 1.0)
    damage(store)
    assert store.read(KEY, said.append) is None
    assert len(said) == 1 and reason in said[0]
    store.write(KEY, b"plan", 1.0)
    assert store.read(KEY, said.append) == b"plan"


@pytest.mark.parametrize("missing", ["plan", "note"])
def test_a_plan_without_its_note_is_no_plan(missing: str, tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    store.write(KEY, b"plan", 1.0)
    getattr(store, missing)(KEY).unlink()
    assert store.read(KEY, pytest.fail) is None


def fail_once(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["os.fsync", "pathlib.Path.replace"])
def test_a_write_that_fails_leaves_what_was_there(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PlanStore(tmp_path)
    store.write(KEY, b"before", 1.0)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(place, fail_once)
        with pytest.raises(BackendError, match=r"cannot be written \(No space left"):
            store.write(KEY, b"after", 2.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_kill_before_the_name_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise SystemExit(9)

    store = PlanStore(tmp_path)
    store.write(KEY, b"before", 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(SystemExit):
            store.write(KEY, b"after", 2.0)
    assert store.read(KEY, pytest.fail) == b"before"


def test_a_kill_between_plan_and_note_leaves_a_plan_that_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, said = PlanStore(tmp_path), list[str]()
    store.write(KEY, b"before", 1.0)

    def only_plans(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise SystemExit(9)
        write_whole(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(plans, "write_whole", only_plans)
        with pytest.raises(SystemExit):
            store.write(KEY, b"after", 2.0)
    assert store.read(KEY, said.append) is None
    assert "it is damaged" in said[0]


def test_the_estimate_is_the_last_build_for_this_gpu(tmp_path: Path) -> None:
    store = PlanStore(tmp_path)
    assert store.last_build_s(KEY) is None
    for number, (gpu, seconds, built) in enumerate(
        [(KEY.gpu, 100.0, "2026-01-02"), (KEY.gpu, 50.0, "2026-01-01"), ("NVIDIA H200", 7.0, "2026-01-03")]
    ):
        key = replace(KEY, gpu=gpu, network=f"{number:064d}")
        store.write(key, b"plan", seconds)
        note = json.loads(store.note(key).read_bytes()) | {"built": built}
        store.note(key).write_text(json.dumps(note), encoding="utf-8")
    (tmp_path / "damaged.json").write_text("[]", encoding="utf-8")
    assert store.last_build_s(KEY) == 100.0


def test_one_builds_while_the_others_wait(tmp_path: Path) -> None:
    store, inside, entered = PlanStore(tmp_path), threading.Event(), threading.Event()

    def other() -> None:
        inside.set()
        with PlanStore(tmp_path).building(KEY):
            entered.set()

    thread = threading.Thread(target=other)
    with store.building(KEY):
        thread.start()
        assert inside.wait(10)
        assert not entered.wait(0.2)
    assert entered.wait(10)
    thread.join(10)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendError, match="cannot be written"):
        PlanStore(tmp_path / "file" / "plans")


def test_the_digest_covers_graph_and_weights(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones(4, dtype=np.float32), "w")
    set_external_data(weight, "weights.bin", 0, 16)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    (tmp_path / "weights.bin").write_bytes(np.ones(4, dtype=np.float32).tobytes())
    port = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy"]
    model = helper.make_model(
        helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "g", port[:1], port[1:], [weight])
    )
    path = tmp_path / "a.onnx"
    path.write_bytes(model.SerializeToString())
    first = network_digest(path)
    (tmp_path / "weights.bin").write_bytes(np.zeros(4, dtype=np.float32).tobytes())
    second = network_digest(path)
    model.graph.name = "h"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(path))
    assert len({first, second, network_digest(path)}) == 3
