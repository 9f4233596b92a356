"""What the evaluation's tests share."""

from __future__ import annotations

import pytest
from label_bodies import Cases, random_case


@pytest.fixture(scope="session")
def source() -> Cases:
    """Four cases: the third misses one structure and invents another, the fourth lacks one in both."""
    cases = [random_case(f"case{number}", number) for number in range(4)]
    missing, extra, absent = 11, 44, 53
    cases[2].prediction[cases[2].prediction == missing] = 0
    cases[2].truth[cases[2].truth == extra] = 0
    for array in (cases[3].prediction, cases[3].truth):
        array[array == absent] = 0
    return Cases(tuple(cases))
