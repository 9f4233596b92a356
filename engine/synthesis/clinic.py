"""What the clinic adds to a person: contents of the bowel, contrast, implants."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from engine.synthesis.contents import apply_contrast, draw_bowel, draw_contrast, fill_bowel
from engine.synthesis.implants import Implant, draw_implants, implant
from engine.synthesis.person import Person
from engine.synthesis.tissues import tissue_table


@dataclass(frozen=True)
class Visit:
    """What is known of a patient beforehand.

    Attributes:
        with_metal: whether there is an implant; None leaves it to chance.
        prone: whether the patient lies on the front: gas rises to the back.
    """

    with_metal: bool | None = None
    prone: bool = False


ANY_VISIT = Visit()


def clinical(person: Person, rng: np.random.Generator, visit: Visit = ANY_VISIT) -> Person:
    """The person as patients come: everything else is drawn from `rng`."""
    generator = torch.Generator(person.hu.device).manual_seed(int(rng.integers(2**31)))
    spacing_mm = person.grid.spacing_mm[0]
    hu = fill_bowel(person.hu, person.codes, spacing_mm, draw_bowel(rng, visit.prone), generator)
    hu = apply_contrast(hu, person.codes, spacing_mm, draw_contrast(rng), generator)
    implants = _implants(np.random.default_rng(rng.integers(2**31)), visit.with_metal)
    if not implants:
        return replace(person, hu=hu)
    found = implant(hu, person.codes, person.grid, person.anatomy.joints, implants)
    # What metal displaces outside the bones is no muscle any more.
    codes = person.codes.masked_fill(found.displaced, tissue_table().code("soft_tissue"))
    return replace(person, codes=codes, hu=found.hu, metal=found.metal.float())


def _implants(rng: np.random.Generator, wanted: bool | None) -> tuple[Implant, ...]:
    implants = draw_implants(rng)
    while wanted and not implants:
        implants = draw_implants(rng)
    return () if wanted is False else implants
