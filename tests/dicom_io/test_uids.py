"""UIDs of results: valid, distinct, and the same for the same job."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.uid import UID

from dicom_io.errors import DicomIoError
from dicom_io.uids import CODING_SCHEME_UID, DEVICE_UID, IMPLEMENTATION_CLASS_UID, ResultUids, derive_uid, derive_uids
from dicom_io.uids import tracking_uid as tracking_uid_of

job_ids = st.text(max_size=80)


@given(job_ids)
def test_uids_are_valid_distinct_and_repeatable(job_id: str) -> None:
    uids = derive_uids(job_id)
    tracking = [tracking_uid_of(job_id, number) for number in range(1, 59)]
    everything = [*uids.to_dict().values(), *tracking]
    assert len(set(everything)) == 6 + 58
    assert all(UID(uid).is_valid and uid.startswith("2.25.") and len(uid) <= 64 for uid in everything)
    assert derive_uids(job_id) == uids
    assert tracking_uid_of(job_id, 58) == tracking[-1]


@given(job_ids, job_ids)
def test_other_jobs_have_other_uids(one: str, other: str) -> None:
    shared = set(derive_uids(one).to_dict().values()) & set(derive_uids(other).to_dict().values())
    assert bool(shared) == (one == other)


@given(st.lists(st.text(max_size=5), max_size=4), st.lists(st.text(max_size=5), max_size=4))
def test_names_never_run_together(one: list[str], other: list[str]) -> None:
    assert (derive_uid(*one) == derive_uid(*other)) == (one == other)


@given(job_ids)
def test_uids_survive_storing(job_id: str) -> None:
    uids = derive_uids(job_id)
    assert ResultUids.from_dict(uids.to_dict()) == uids


def test_a_known_uid_never_changes() -> None:
    assert derive_uids("job-1").seg_series == "2.25.86020571083808941968943656129668737143"
    assert len({IMPLEMENTATION_CLASS_UID, DEVICE_UID, CODING_SCHEME_UID}) == 3


def test_incomplete_or_wrong_uids_are_refused() -> None:
    stored = derive_uids("x").to_dict()
    with pytest.raises(DicomIoError, match="stored under"):
        ResultUids.from_dict({key: value for key, value in stored.items() if key != "sr_series"})
    with pytest.raises(DicomIoError, match="stored under"):
        ResultUids.from_dict({**stored, "pdf_series": "2.25.1"})
    with pytest.raises(DicomIoError, match="not 6 different UIDs"):
        ResultUids.from_dict({**stored, "sr_series": "1.02.3"})
    with pytest.raises(DicomIoError, match="not 6 different UIDs"):
        ResultUids.from_dict({**stored, "sr_series": stored["seg_series"]})
