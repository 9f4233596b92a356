"""The presets: what they say, and how a faulty one is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.networks import PAPER_SHAPE
from engine.preprocessing import PAPER
from engine.training import presets
from engine.training.errors import TrainingError
from engine.training.preset import Preset, load_preset, preset_names

TINY = Path(str(presets.__file__)).with_name("tiny.toml").read_text(encoding="utf-8")


def changed(folder: Path, old: str, new: str) -> Preset:
    """The preset `tiny` with one thing changed, from a file."""
    assert old in TINY
    path = folder / "mine.toml"
    path.write_text(TINY.replace(old, new, 1), encoding="utf-8")
    return load_preset(str(path))


def test_every_preset_that_came_with_the_program_can_be_read() -> None:
    assert preset_names() == ("compact", "paper", "paper-unet3d", "tiny")
    for name in preset_names():
        assert load_preset(name).description


def test_the_papers_recipe_is_what_is_printed() -> None:
    paper = load_preset("paper")
    assert paper.network.unetr == PAPER_SHAPE
    assert paper.preprocessing == PAPER
    (phase,) = paper.phases
    assert (phase.kind, phase.rate, phase.weight_decay, phase.batch, phase.schedule) == (
        ("whole", 8e-5, 1e-5, 2, "constant")
    )
    assert phase.warm_up_steps == 0
    assert (paper.budget.amount, paper.budget.unit) == (5000, "epochs")
    assert paper.loss.kind == "dice" and not paper.loss.lattice and not paper.loss.coarse_weight
    assert paper.optimiser.clip_norm == paper.optimiser.average_decay == 0
    pairs = paper.pairs
    assert (pairs.crops, pairs.positive, pairs.negative) == (4, 1, 1)
    assert pairs.foreground_crop and pairs.resample == "after_intensity" and pairs.folds == 6
    assert set(vars(paper.augmentation).values()) == {0}
    assert max(paper.search.rates) == 1e-3 and min(paper.search.rates) == 1e-5 and 8e-5 in paper.search.rates
    assert paper.synthetic is None


def test_the_baseline_differs_in_its_network_alone() -> None:
    paper, baseline = load_preset("paper").told(), load_preset("paper-unet3d").told()
    assert {key for key in paper if paper[key] != baseline[key]} == {"description", "network"}


def test_another_rate_is_the_whole_networks() -> None:
    rates = [phase.rate for phase in load_preset("tiny").with_rate(0.5).phases]
    assert rates == [6e-4, 1e-3, 0.5]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("hu_low = -160.0", "hu_lo = -160.0", r"preprocessing\.hu_low: Field required"),
        ("noise_sd = 0.05", "noise_sd = 0.05\nother = 1", r"augmentation\.other: Unexpected"),
        ("noise_sd = 0.05", "", r"augmentation\.noise_sd: Field required"),
        ("crops = 2", 'crops = "two"', r"pairs\.crops"),
        ("crops = 2", "crops = 0", r"pairs\.crops"),
        ("overlap = 0.25", "overlap = 1.0", r"validation\.overlap"),
        ("hidden_size = 24", "hidden_size = 25", "multiple of num_heads"),
        ("window = [32, 32, 32]", "window = [32, 32, 40]", "multiple of 16"),
        ('kind = "whole"', 'kind = "coarse"', "last of the phases"),
        ("[network.unetr]", "[network.other]", r"network"),
        ("[network.unetr]", "[network.unetr", "no TOML"),
        ('unit = "steps"', 'unit = "days"', r"budget\.unit"),
    ],
)
def test_a_faulty_preset_is_refused_by_file_and_key(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(TrainingError, match=reason) as refused:
        changed(tmp_path, old, new)
    assert "mine.toml" in refused.value.thing


def test_only_a_unetr_has_coarse_levels(tmp_path: Path) -> None:
    start, end = TINY.index("[network.unetr]"), TINY.index("[preprocessing]")
    path = tmp_path / "unet.toml"
    unet = "[network.unet]\nchannels = [2, 4]\nstrides = [2]\nresidual_units = 1\n\n"
    path.write_text(TINY[:start] + unet + TINY[end:], encoding="utf-8")
    with pytest.raises(TrainingError, match="only a UNETR"):
        load_preset(str(path))


def test_an_unknown_name_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="paper-unet3d"):
        load_preset("papr")
    with pytest.raises(TrainingError, match="cannot be read"):
        load_preset(str(tmp_path / "absent.toml"))
