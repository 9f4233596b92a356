"""What the tests of synthesis share: one anatomy, prepared once, and a person drawn from it."""

from __future__ import annotations

import numpy as np
import pytest

from engine.synthesis.anatomy import Anatomy
from engine.synthesis.person import Person, Sculptor, draw_person
from engine.synthesis.scan import BUILT_IN, sculptor_of


@pytest.fixture(scope="session")
def sculptor() -> Sculptor:
    """The one that every scan of the built-in anatomy in this process is made with."""
    return sculptor_of(BUILT_IN, "cpu")


@pytest.fixture(scope="session")
def person(sculptor: Sculptor) -> Person:
    """Somebody. No test changes its tensors."""
    return sculptor.person(draw_person(np.random.default_rng(1)))


@pytest.fixture(scope="session")
def built_in(person: Person) -> Anatomy:
    """The built-in anatomy as it was prepared."""
    return person.anatomy
