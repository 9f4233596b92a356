"""Contents: what fills bowel, bladder and vessels stays in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.synthesis.contents import (
    GAS_HU,
    PHASES,
    Bowel,
    Contrast,
    apply_contrast,
    draw_bowel,
    draw_contrast,
    fill_bowel,
)
from engine.synthesis.tissues import tissue_table

SPACING_MM = 3.0
SHAPE = (24, 40, 40)
NO_CONTRAST = Contrast(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 500.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def codes() -> torch.Tensor:
    """Bowel in front, rectum and bladder below, an artery, a vein and a muscle along z."""
    table = tissue_table()
    codes = torch.full(SHAPE, table.code("visceral_fat"), dtype=torch.uint8)
    codes[12:, 4:30, 4:36] = table.code("bowel")
    codes[:10, 26:38, 14:26] = table.code("rectum")
    codes[:10, 6:22, 12:28] = table.code("bladder")
    codes[:, 32:35, 30:33] = table.code("artery")
    codes[:, 36:39, 30:33] = table.code("vein")
    codes[:, 32:39, 2:10] = table.code("gluteus_maximus")
    return codes


def plain(codes: torch.Tensor) -> torch.Tensor:
    return torch.full(codes.shape, 40.0)


def of(codes: torch.Tensor, key: str) -> torch.Tensor:
    return codes == tissue_table().code(key)


@given(st.integers(0, 2**31))
@settings(max_examples=15, deadline=None)
def test_bowel_and_rectum_alone_are_filled(codes: torch.Tensor, seed: int) -> None:
    draw = draw_bowel(np.random.default_rng(seed))
    hu = plain(codes)
    found = fill_bowel(hu, codes, SPACING_MM, draw, generator(seed % 1000))
    other = ~(of(codes, "bowel") | of(codes, "rectum"))
    assert torch.equal(found[other], hu[other])
    assert torch.isfinite(found).all() and found.min() > -2500 and found.max() < 500
    assert torch.equal(hu, plain(codes))
    assert torch.equal(found, fill_bowel(hu, codes, SPACING_MM, draw, generator(seed % 1000)))


@pytest.mark.parametrize("head_down", [False, True])
def test_gas_rises_to_what_lies_uppermost(codes: torch.Tensor, head_down: bool) -> None:
    draw = Bowel(24.0, 1.5, 4.0, 0.5, 0.0, 0.2, 0.0, "gas", head_down)
    found = fill_bowel(plain(codes), codes, SPACING_MM, draw, generator())
    gas = (found == GAS_HU) & of(codes, "rectum")
    rows = gas.nonzero()[:, 1].float()
    assert len(rows) > 20
    middle = of(codes, "rectum").nonzero()[:, 1].float().mean()
    assert (rows.mean() > middle) == head_down
    assert not gas[:, 26].any() and not gas[:, 37].any()  # the wall stays


def test_oral_contrast_is_bright(codes: torch.Tensor) -> None:
    draw = Bowel(24.0, 1.5, 4.0, 0.0, 0.0, 0.8, 300.0, "empty", False)
    found = fill_bowel(plain(codes), codes, SPACING_MM, draw, generator())[of(codes, "bowel")]
    assert float((found > 150).float().mean()) > 0.3


def test_a_body_without_bowel_stays_as_it_is(codes: torch.Tensor) -> None:
    none = torch.full_like(codes, tissue_table().code("gluteus_maximus"))
    draw = draw_bowel(np.random.default_rng(0))
    assert torch.equal(fill_bowel(plain(none), none, SPACING_MM, draw, generator()), plain(none))


def test_no_contrast_changes_nothing(codes: torch.Tensor) -> None:
    assert torch.equal(apply_contrast(plain(codes), codes, SPACING_MM, NO_CONTRAST, generator()), plain(codes))


def test_contrast_is_in_the_vessels_and_muscles(codes: torch.Tensor) -> None:
    draw = replace(NO_CONTRAST, artery_hu=200.0, vein_hu=80.0, mixing_hu=10.0, muscle_hu=12.0)
    rise = apply_contrast(plain(codes), codes, SPACING_MM, draw, generator()) - 40
    assert (rise[of(codes, "artery")] == 200).all()
    assert float(rise[of(codes, "vein")].mean()) == pytest.approx(80, abs=15)
    assert float(rise[of(codes, "gluteus_maximus")].mean()) == pytest.approx(12)
    assert not rise[of(codes, "visceral_fat")].any()


def test_contrast_settles_at_the_back_of_the_bladder(codes: torch.Tensor) -> None:
    draw = replace(NO_CONTRAST, bladder_hu=500.0, bladder_share=0.4)
    found = apply_contrast(plain(codes), codes, SPACING_MM, draw, generator())
    assert (found[:10, 21, 12:28] == 500).all()
    assert (found[:10, 6, 12:28] == 40).all()


def test_lime_lies_in_walls_only(codes: torch.Tensor) -> None:
    draw = replace(NO_CONTRAST, lime=0.5, lime_hu=700.0)
    limed = apply_contrast(plain(codes), codes, SPACING_MM, draw, generator()) == 700
    assert limed.any()
    assert (limed <= of(codes, "artery")).all()
    assert not limed[:, 33, 31].any()  # the lumen


@given(st.integers(0, 2**31))
@settings(max_examples=60)
def test_drawn_blood_stays_within_what_is_seen(seed: int) -> None:
    draw = draw_contrast(np.random.default_rng(seed))
    assert draw == draw_contrast(np.random.default_rng(seed))
    assert 0 <= draw.artery_hu <= 310 and 0 <= draw.vein_hu <= 140


def test_shares_of_phases_sum_to_one() -> None:
    assert sum(phase[0] for phase in PHASES.values()) == pytest.approx(1.0)
