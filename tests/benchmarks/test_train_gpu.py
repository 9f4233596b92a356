"""Training in calls, and the weights that come out of it in pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load, load_file
from stubs.training import source

from benchmarks import train_gpu
from engine.training.draws import Source
from engine.training.errors import TrainingError
from engine.training.loop import RunPlan, identity_of
from engine.training.records import Identity
from engine.training.weights import MANIFEST, join_pieces, weights_of, write_pieces

pytestmark = pytest.mark.usefixtures("process_as_it_was")

STATE = {"a": torch.arange(3000, dtype=torch.float32) / 7, "count": torch.tensor(5)}


def test_calls_go_on_until_the_run_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stub_data(plan: RunPlan, _data: object, _tell: object) -> tuple[Source, Identity]:
        return source(), identity_of(plan, {})

    monkeypatch.setattr(train_gpu, "training_data", stub_data)
    run = tmp_path / "run"
    command = ["train", "--preset", "tiny", "--run", str(run), "--steps", "12", "--device", "cpu", "--threads", "1"]
    small = [*command, "--piece-bytes", "60000"]
    assert train_gpu.main([*small, "--call-minutes", "0"]) == train_gpu.MORE_STATUS
    assert json.loads((run / "pieces" / MANIFEST).read_text())["about"]["steps"] == 0
    assert train_gpu.main(small) == 0
    pieces = sorted((run / "pieces").glob("weights*"))
    assert len(pieces) > 2 and all(piece.stat().st_size <= 60000 for piece in pieces)
    joined = tmp_path / "joined.safetensors"
    assert train_gpu.main(["join", str(run / "pieces"), str(joined)]) == 0
    averaged = torch.load(run / "checkpoint.pt", weights_only=True)["averaged"]
    found = load_file(joined)
    assert set(found) == set(averaged)
    for name, weight in averaged.items():
        assert torch.equal(found[name], weight.half())
    pieces[1].write_bytes(b"damaged")
    assert train_gpu.main(["join", str(run / "pieces"), str(tmp_path / "other")]) == train_gpu.REFUSED_STATUS
    assert not (tmp_path / "other").exists()


@given(st.binary(max_size=200), st.integers(1, 70))
def test_pieces_make_the_file_again(data: bytes, size: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pieces(bytes(300), folder, {"old": True}, 7)
        write_pieces(data, folder, {"step": 3}, size)
        assert join_pieces(folder, folder / "out" / "file") == {"step": 3}
        assert (folder / "out" / "file").read_bytes() == data
        assert sum(path.stat().st_size for path in folder.glob("weights*")) == len(data)


def test_weights_are_halved_and_kept_apart_from_counts() -> None:
    found = load(weights_of(STATE, {"preset": "tiny"}))
    assert torch.equal(found["a"], STATE["a"].half()) and found["count"].item() == 5


@pytest.mark.parametrize("value", [1e6, float("nan")])
def test_a_weight_that_does_not_fit_is_refused(value: float) -> None:
    with pytest.raises(TrainingError, match="weight a"):
        weights_of({"a": torch.tensor([value])}, {})


@pytest.mark.parametrize("spoil", ["missing", "damaged", "swapped", "no manifest", "other manifest"])
def test_what_is_not_whole_is_refused(tmp_path: Path, spoil: str) -> None:
    manifest = write_pieces(weights_of(STATE, {}), tmp_path / "pieces", {}, 1000)
    first, *_ = sorted((tmp_path / "pieces").glob("weights*"))
    if spoil == "missing":
        first.unlink()
    elif spoil == "damaged":
        first.write_bytes(first.read_bytes()[:-1])
    elif spoil == "swapped":
        told = json.loads(manifest.read_text())
        told["pieces"][0], told["pieces"][1] = told["pieces"][1], told["pieces"][0]
        manifest.write_text(json.dumps(told))
    elif spoil == "no manifest":
        manifest.unlink()
    else:
        manifest.write_text("{}")
    with pytest.raises(TrainingError, match="pieces"):
        join_pieces(tmp_path / "pieces", tmp_path / "weights")
    assert not (tmp_path / "weights").exists()
