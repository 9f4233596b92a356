"""What the clinic adds: contents, contrast and metal, without touching the person it is given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.labels import Side
from engine.synthesis import clinic
from engine.synthesis.clinic import Visit, clinical
from engine.synthesis.contents import Bowel, draw_bowel
from engine.synthesis.implants import Implant
from engine.synthesis.person import Person
from engine.synthesis.tissues import tissue_table

TABLE = tissue_table()


@pytest.fixture(scope="module")
def with_metal(person: Person) -> Person:
    return clinical(person, np.random.default_rng(3), Visit(with_metal=True))


@pytest.fixture(scope="module")
def without(person: Person) -> Person:
    return clinical(person, np.random.default_rng(3), Visit(with_metal=False))


def test_the_same_draws_give_the_same_patient(person: Person, with_metal: Person) -> None:
    again = clinical(person, np.random.default_rng(3), Visit(with_metal=True))
    assert torch.equal(again.hu, with_metal.hu) and torch.equal(again.codes, with_metal.codes)
    assert again.metal is not None and with_metal.metal is not None
    assert torch.equal(again.metal, with_metal.metal)


def test_the_person_itself_is_not_changed(person: Person) -> None:
    before = person.hu.sum(dtype=torch.float64), person.codes.sum()
    clinical(person, np.random.default_rng(4), Visit(with_metal=True))
    assert (person.hu.sum(dtype=torch.float64), person.codes.sum()) == before
    assert person.metal is None


def test_nobody_has_metal_who_must_not(person: Person, without: Person) -> None:
    assert without.metal is None
    assert torch.equal(without.codes, person.codes)


def test_metal_is_dense_and_takes_the_place_of_the_bone(person: Person, with_metal: Person) -> None:
    assert with_metal.metal is not None
    metal = with_metal.metal > 0.5
    assert 1000 < metal.sum() * 0.008 * 1000 < 500_000, "between 1 and 500 ml"
    assert with_metal.hu[metal].min() > 3000
    changed = with_metal.codes != person.codes
    assert changed.any() and (with_metal.codes[changed] == TABLE.code("soft_tissue")).all()
    bone = torch.from_numpy(TABLE.is_one_of("femur", "femur_spongy", "femur_marrow", "ilium", "ilium_spongy"))
    assert bone[with_metal.codes[metal].int()].any(), "what lies in the bone counts as the bone"
    left = np.bincount(TABLE.truth[with_metal.codes.numpy().ravel()], minlength=59)
    assert (left[1:59] > 0).all()


def test_an_implant_changes_nothing_else(with_metal: Person, without: Person) -> None:
    """Whether there is metal does not change what else is drawn."""
    assert with_metal.metal is not None
    apart = with_metal.hu != without.hu
    assert 0 < apart.float().mean() < 0.02


def test_only_hollow_organs_vessels_and_muscles_change(person: Person, without: Person) -> None:
    filled = TABLE.is_one_of("bowel", "rectum", "bladder", "artery", "vein") | TABLE.muscles
    may = torch.from_numpy(filled)[person.codes.int()]
    assert torch.equal(without.hu[~may], person.hu[~may])
    assert not torch.equal(without.hu[may], person.hu[may])


def test_gas_rises_from_the_table(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same draws, on the back and on the front."""

    def gassy(rng: np.random.Generator, prone: bool) -> Bowel:
        return replace(draw_bowel(rng, prone), rectum="gas")

    monkeypatch.setattr(clinic, "draw_bowel", gassy)
    rectum = (person.codes == TABLE.code("rectum")).nonzero()
    supine, prone = (
        clinical(person, np.random.default_rng(1), Visit(with_metal=False, prone=each)).hu[tuple(rectum.T)] < -800
        for each in (False, True)
    )
    depth = rectum[:, 1].float()
    assert supine.any() and depth[prone].mean() > depth[supine].mean() + 1


@pytest.mark.parametrize("drawn", [(), (Implant("nail", Side.LEFT, 5000.0, 3),)])
def test_metal_is_left_to_chance_if_nothing_is_said(
    person: Person, monkeypatch: pytest.MonkeyPatch, drawn: tuple[Implant, ...]
) -> None:
    monkeypatch.setattr(clinic, "draw_implants", lambda rng: drawn)
    assert (clinical(person, np.random.default_rng(1)).metal is not None) == bool(drawn)
