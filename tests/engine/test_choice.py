"""What was measured decides, for as long as everything that it depends on is the same."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plugins.environments import metadata_in

from engine import backends, choice
from engine.backends import AUTO, SessionOptions
from engine.choice import Candidate, Conditions, Measurement, Trial, batch_of, conditions_of, decide, recall, remember
from engine.errors import BackendError
from engine.package import ModelPackage
from engine.plugins import BACKENDS

NOW = Conditions(
    package="digest",
    cpu="CPU 1",
    gpu="",
    device="cpu",
    threads=2,
    batch=0,
    portable=False,
    loaded=(),
    libraries={"openvino": "1"},
    plugins={"lines": "some-lines 1"},
)
ANY = Candidate(AUTO, AUTO)
TRIALS = (
    Trial(Candidate("openvino", "bf16"), seconds=0.1, refused="it answers otherwise than the network"),
    Trial(Candidate("openvino", "fp32"), seconds=0.5, error=1e-4, same_class=1.0),
    Trial(Candidate("onnxruntime", "fp32"), seconds=0.3, error=1e-4, same_class=1.0),
    Trial(Candidate("torch", "fp16"), refused="it does not compute in fp16"),
)
CHANGED: dict[str, Any] = {
    "package": "other",
    "cpu": "CPU 2",
    "gpu": "GPU",
    "device": "cuda",
    "threads": 4,
    "batch": 2,
    "portable": True,
    "loaded": ("0" * 64,),
    "libraries": {"openvino": "2"},
    "plugins": {"lines": "some-lines 2"},
}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    remember(Measurement(NOW, TRIALS), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (ANY, ("onnxruntime", "fp32", "measurement")),  # openvino in bf16 was faster, and did not pass
        (Candidate("openvino", AUTO), ("openvino", "fp32", "measurement")),
        (Candidate(AUTO, "fp32"), ("onnxruntime", "fp32", "measurement")),
        (Candidate("openvino", "bf16"), ("openvino", "bf16", "settings")),
        (Candidate(AUTO, "bf16"), ("openvino", "bf16", "order")),
        (Candidate("torch", AUTO), ("torch", AUTO, "order")),
    ],
)
def test_the_fastest_that_passed_and_is_wanted_is_taken(
    wanted: Candidate, expected: tuple[str, str, str], measured: Path
) -> None:
    found = decide(wanted, measured, lambda: NOW)
    assert (found.backend, found.precision, found.source) == expected
    assert found.why


@pytest.mark.parametrize("name", [each.name for each in fields(Conditions)])
def test_whatever_changes_the_order_decides_and_says_why(name: str, measured: Path) -> None:
    found = decide(ANY, measured, lambda: replace(NOW, **{name: CHANGED[name]}))
    assert (found.backend, found.precision, found.source) == ("openvino", AUTO, "order")
    assert f"another {name}" in found.why


def test_where_nothing_was_measured_the_order_decides(tmp_path: Path) -> None:
    found = decide(ANY, tmp_path, lambda: NOW)
    assert (found.backend, found.source) == ("openvino", "order")
    assert "nothing was measured" in found.why


def test_the_machine_is_looked_at_only_for_a_measurement(measured: Path, tmp_path: Path) -> None:
    looked: list[str] = []

    def look() -> Conditions:
        looked.append("looked")
        return NOW

    decide(Candidate("openvino", "fp32"), measured, look)
    decide(ANY, tmp_path / "nothing", look)
    assert looked == []
    assert decide(ANY, measured, look).source == "measurement"
    assert looked == ["looked"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"conditions": {}, "trials": []}'])
def test_a_damaged_file_counts_for_nothing_and_is_told_of(content: bytes, tmp_path: Path) -> None:
    (tmp_path / choice.FILE_NAME).write_bytes(content)
    assert recall(tmp_path)[0] is None
    assert "is damaged" in decide(ANY, tmp_path, lambda: NOW).why


def test_what_is_remembered_is_recalled_and_nothing_is_left_over(measured: Path) -> None:
    assert recall(measured) == (Measurement(NOW, TRIALS), "")
    assert [path.name for path in measured.iterdir()] == [choice.FILE_NAME]


def test_what_another_writes_at_the_same_time_is_left_alone(tmp_path: Path) -> None:
    beside = (tmp_path / choice.FILE_NAME).with_suffix(".part")
    beside.write_bytes(b"of another process")
    remember(Measurement(NOW, TRIALS), tmp_path)
    assert beside.read_bytes() == b"of another process"
    assert recall(tmp_path) == (Measurement(NOW, TRIALS), "")


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BackendError, match="cannot be written"):
        remember(Measurement(NOW, TRIALS), tmp_path / "file")


def test_a_backend_that_is_not_here_is_refused_whoever_names_it(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="none of this name"):
        decide(Candidate("abacus", AUTO), tmp_path, lambda: NOW)
    remember(Measurement(NOW, (Trial(Candidate("abacus", "fp32"), seconds=0.1),)), tmp_path)
    with pytest.raises(BackendError, match="none of this name"):
        decide(ANY, tmp_path, lambda: NOW)


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.booleans()), max_size=8))
def test_the_fastest_is_never_beaten_by_one_that_passed(made: list[tuple[float, bool]]) -> None:
    trials = tuple(
        Trial(Candidate("openvino", "fp32"), seconds=seconds, refused="" if passed else "no")
        for seconds, passed in made
    )
    best = Measurement(NOW, trials).fastest(ANY)
    passing = [seconds for seconds, passed in made if passed]
    assert (best is None) == (not passing)
    assert best is None or best.seconds == min(passing)


def test_conditions_name_this_machine(tiny_package: ModelPackage) -> None:
    found = conditions_of(tiny_package, SessionOptions(3))
    assert (found.package, found.device, found.threads) == (tiny_package.digest, "cpu", 3)
    assert {"openvino", "onnxruntime", "torch"} <= set(found.libraries)
    assert found == conditions_of(tiny_package, SessionOptions(3))


def test_conditions_name_how_it_is_to_be_run(tiny_package: ModelPackage, tmp_path: Path) -> None:
    library = tmp_path / "own.so"
    library.write_bytes(b"one")
    options = SessionOptions(3, batch=2, portable=True, libraries=(library,))
    before = conditions_of(tiny_package, options)
    assert (before.batch, before.portable) == (2, True)
    assert before.loaded == (hashlib.sha256(b"one").hexdigest(),)
    library.write_bytes(b"two")
    assert before.differences(conditions_of(tiny_package, options)) == ("loaded",)
    library.unlink()
    with pytest.raises(BackendError, match=r"own\.so: it cannot be read"):
        conditions_of(tiny_package, options)


def test_conditions_name_who_brings_a_backend_of_another(
    tiny_package: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    before = conditions_of(tiny_package, SessionOptions(3))
    text = "from engine.backends import ModuleBackend\nX = ModuleBackend('lines', ('torch',), ('fp32',), 'nowhere')"
    metadata_in(tmp_path, "some-lines", {BACKENDS: {"lines": "some_lines_here:X"}}, {"some_lines_here": text})
    after = conditions_of(tiny_package, SessionOptions(3))
    assert (before.plugins, after.plugins) == ({}, {"lines": "some-lines 9.9"})
    assert before.differences(after) == ("plugins",)


def test_a_cpu_with_other_flags_is_another_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = set()
    for flags in ("fpu sse", "sse fpu", "fpu sse avx512_bf16"):
        monkeypatch.setattr(backends, "CPU_INFO", tmp_path / "cpuinfo")
        text = f"model name\t: CPU\nflags\t\t: {flags}\n\nmodel name\t: CPU\nflags\t\t: {flags}\n"
        (tmp_path / "cpuinfo").write_text(text, encoding="ascii")
        told.add(choice.cpu_identity())
    assert len(told) == 2  # their order says nothing
    assert all(each.startswith("CPU ") for each in told)


@pytest.mark.parametrize(
    ("asked", "backend", "device", "expected"),
    [(0, "openvino", "cpu", 1), (0, "torch", "cuda", 4), (0, "tensorrt", "cpu", 4), (3, "tensorrt", "cpu", 3)],
)
def test_a_batch_that_is_not_asked_for_suits_the_device(asked: int, backend: str, device: str, expected: int) -> None:
    assert batch_of(asked, backend, device) == expected
