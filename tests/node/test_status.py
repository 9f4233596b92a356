from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.status import STORAGE_SERVICE_CLASS_STATUS

from node.status import (
    CANNOT_UNDERSTAND,
    DOES_NOT_MATCH,
    OUT_OF_RESOURCES,
    PROCESSING_FAILURE,
    STORE_STATUSES,
    SUCCESS,
    TEMPORARY_CONGESTION,
    StoreOutcome,
    rejection,
    store_status,
)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (0x0000, StoreOutcome.ACCEPTED),
        (0xB000, StoreOutcome.WARNING),
        (0xB006, StoreOutcome.WARNING),
        (0xB007, StoreOutcome.WARNING),
        (0xA700, StoreOutcome.LATER),
        (0xA7FF, StoreOutcome.LATER),
        (0xA900, StoreOutcome.REFUSED),
        (0xA9FF, StoreOutcome.REFUSED),
        (0xC000, StoreOutcome.REFUSED),
        (0xC211, StoreOutcome.REFUSED),
        (0xCFFF, StoreOutcome.REFUSED),
        (0x0122, StoreOutcome.REFUSED),
        (0x0213, StoreOutcome.LATER),
    ],
)
def test_outcome_of_the_codes_of_the_standard(code: int, outcome: StoreOutcome) -> None:
    status = store_status(code)
    assert status.code == code
    assert status.outcome is outcome
    assert status.words


@given(st.integers(0, 0xFFFF))
def test_only_success_and_warnings_count_as_accepted(code: int) -> None:
    outcome = store_status(code).outcome
    assert (outcome is StoreOutcome.ACCEPTED) == (code == 0)
    assert (outcome is StoreOutcome.WARNING) == (0xB000 <= code <= 0xBFFF or code in (0x0001, 0x0107, 0x0116))


def test_rows_do_not_overlap() -> None:
    ranges = sorted((row.code, row.last) for row in STORE_STATUSES)
    assert all(last < following for (_, last), (following, _) in pairwise(ranges))
    assert all(first <= last for first, last in ranges)


def test_what_we_answer_is_what_pynetdicom_knows_as_a_status_of_storage() -> None:
    answered = {SUCCESS, PROCESSING_FAILURE, OUT_OF_RESOURCES, DOES_NOT_MATCH, CANNOT_UNDERSTAND}
    assert answered <= set(STORAGE_SERVICE_CLASS_STATUS)


def test_a_code_is_shown_as_four_digits() -> None:
    assert store_status(0x0110).hex == "0110"
    assert store_status(0xA700).hex == "A700"


@pytest.mark.parametrize(
    ("codes", "words", "named"),
    [
        ((1, 1, 3), "calling AE title not recognized", "listener.calling_ae_titles"),
        ((1, 1, 7), "called AE title not recognized", "node.ae_title"),
        ((2, 3, 2), "local limit exceeded", "listener.max_associations"),
        (TEMPORARY_CONGESTION, "temporary congestion", "try again"),
    ],
)
def test_a_rejection_says_what_to_change(codes: tuple[int, int, int], words: str, named: str) -> None:
    row = rejection(*codes)
    assert row.words == words
    assert named in row.change
    assert row.transient == (codes[0] == 2)
    assert row.codes == "/".join(map(str, codes))


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
def test_every_rejection_has_words_and_something_to_do(result: int, source: int, diagnostic: int) -> None:
    row = rejection(result, source, diagnostic)
    assert row.words
    assert row.change
