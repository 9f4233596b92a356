"""A study of several series through SQL and job queue: which are segmented, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from job_bench import node_base, receive_files, running, settings_for, wait_until
from peers.ports import free_port
from peers.receiver import Events, listen_to_log
from pydicom import dcmread
from pydicom.uid import SecondaryCaptureImageStorage
from service_bench import pacs_on
from sqlalchemy import select, update
from stub_workshop import SLICES, phantom

from db import queries
from db.models import Series, SeriesFacts
from db.session import now, transaction
from db.status import JobStatus
from dicom_io.series import SeriesRef
from dicom_io.synthetic import SyntheticStudy, write_series
from engine.volume import Grid, Volume
from node import compose
from node.errors import JobsError
from node.rule_trial import period_of, try_received
from node.selection import SelectionPlan, Selector
from node.spool import Spool

SOFT, SHARP = {"ConvolutionKernel": "B30f"}, {"ConvolutionKernel": "B70f"}
SCAN = {"Manufacturer": "SIEMENS", "FrameOfReferenceUID": "1.2.9", "AcquisitionNumber": 2}
SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
DOSE = {"SOPClassUID": SecondaryCaptureImageStorage, "ImageType": ["DERIVED", "SECONDARY"], "Modality": "CT"}
STUDY: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({**SCAN, **SHARP}, 5, "not_selected"),
    ({**SCAN, **SOFT}, 5, "selected"),
    ({**SCAN, **SOFT, "ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, 5, "not_selected"),
    ({**SCAN, "ConvolutionKernel": "unheard of"}, 5, "not_selected"),
    (SCOUT, 2, "localizer"),
    (DOSE, 1, "secondary_capture"),
)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    return listen_to_log(monkeypatch)


@pytest.fixture
def base(tmp_path: Path) -> Iterator[compose.Base]:
    with node_base(settings_for(tmp_path, sections={"series": {"min_slices": 4, "min_coverage_mm": 20.0}})) as made:
        yield made


def a_series(folder: Path, number: int, slices: int, changes: dict[str, Any]) -> SeriesRef:
    """The phantom as one more series of the study."""
    whole = phantom()
    part = Volume(whole.hu[:slices], Grid((slices, *whole.hu.shape[1:]), whole.grid.affine))
    ref = write_series(part, folder / f"series-{number}", SyntheticStudy(seed=1, series_number=number))
    for path in ref.files:
        dataset = dcmread(path)
        for keyword, value in changes.items():
            setattr(dataset, keyword, value)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(path)
    return ref


def arrive(base: compose.Base, folder: Path, *numbers: int, slices: int | None = None) -> dict[str, str]:
    """Receive series of the study, and tell what is expected of each."""
    expected = {}
    for number in numbers:
        changes, usual, code = STUDY[number]
        ref = a_series(folder, number, slices or usual, changes)
        receive_files(base, ref)
        expected[ref.series_uid] = code
    return expected


def selector_of(base: compose.Base, wait_s: float = 0.0, longest_s: float = 60.0, skip: bool = False) -> Selector:
    rules = compose.selection_rules_of(base.settings)
    return Selector(base.database, base.spool, base.queue, SelectionPlan(rules, wait_s, longest_s, skip))


def decide_all(selector: Selector, backwards: bool = False) -> int:
    """Look once. Returns how many series were decided on."""
    waiting = selector.waiting()
    return sum(selector.decide(each) for each in (waiting[::-1] if backwards else waiting))


def outcomes(base: compose.Base) -> dict[str, str]:
    """The code of the newest job of each series; `selected` where nothing is wrong."""
    with transaction(base.database) as session:
        jobs = queries.list_jobs(session, 100)
    return {job.series_uid: job.reason_code or "selected" for job in reversed(jobs)}


def job_of(base: compose.Base, series_uid: str) -> queries.JobSummary:
    with transaction(base.database) as session:
        return queries.jobs_of_series(session, series_uid)[-1]


@pytest.mark.parametrize("backwards", [False, True])
def test_of_four_reconstructions_a_scout_and_a_dose_page_one_is_segmented(
    backwards: bool, base: compose.Base, tmp_path: Path, events: Events
) -> None:
    expected = arrive(base, tmp_path, *range(6))
    assert decide_all(selector_of(base), backwards) == 6
    assert outcomes(base) == expected
    winner = next(uid for uid, code in expected.items() if code == "selected")
    told = {each["series_uid"]: each["reason"] for each in events.named("series.unselected")}
    assert set(told) == {uid for uid, code in expected.items() if code == "not_selected"}
    for uid, reason in told.items():
        assert winner in reason and job_of(base, uid).reason == reason
    assert {each["code"] for each in events.named("series.refused")} == {"localizer", "secondary_capture"}
    assert selector_of(base).waiting() == ()


def test_what_is_stored_for_the_rules_names_no_patient(base: compose.Base, tmp_path: Path) -> None:
    arrive(base, tmp_path, 1)
    decide_all(selector_of(base))
    with transaction(base.database) as session:
        stored = session.scalars(select(SeriesFacts)).one().facts
    assert stored["kernels"] == ["B30f"]
    dataset = dcmread(next((tmp_path / "series-1").iterdir()))
    values = [str(dataset[name].value) for name in ("PatientName", "PatientID")]
    assert all(values) and not any(value in str(stored) for value in values)


def test_it_waits_for_more_of_the_study_but_not_for_ever(base: compose.Base, tmp_path: Path) -> None:
    expected = arrive(base, tmp_path, 0, 1, 4)
    patient = selector_of(base, wait_s=60.0)
    assert decide_all(patient) == 1, "what a rule refuses waits for nobody"
    assert decide_all(patient) == 0
    assert decide_all(selector_of(base, wait_s=60.0, longest_s=0.0)) == 2
    assert set(outcomes(base)) == set(expected)
    assert "selected" in outcomes(base).values()


def test_a_study_of_one_series_waits_for_nothing_beyond_the_quiet_period(base: compose.Base, tmp_path: Path) -> None:
    plan = compose.selection_plan_of(base.settings)
    assert plan.wait_s == base.settings.listener.quiet_period_s
    arrive(base, tmp_path, 1)
    with transaction(base.database) as session:
        long_ago = now().replace(year=2020)
        session.execute(update(Series).values(last_received_at=long_ago))
    assert decide_all(Selector(base.database, base.spool, base.queue, plan)) == 1


@pytest.mark.parametrize(("skip", "code"), [(False, "selected"), (True, "not_selected")])
def test_a_better_series_that_comes_late(skip: bool, code: str, base: compose.Base, tmp_path: Path) -> None:
    (first,) = arrive(base, tmp_path, 0)
    assert decide_all(selector_of(base, skip=skip)) == 1
    (late,) = arrive(base, tmp_path, 1)
    assert decide_all(selector_of(base, skip=skip)) == 1
    assert outcomes(base) == {first: "selected", late: code}
    if skip:
        assert first in str(job_of(base, late).reason)


def test_where_the_preferred_series_comes_to_nothing_the_next_one_is_taken(
    base: compose.Base, tmp_path: Path, events: Events
) -> None:
    expected = arrive(base, tmp_path, 0, 1, 3)
    sharp, best, unknown = expected
    decide_all(selector_of(base))
    with transaction(base.database) as session:
        queries.park_job(session, job_of(base, best).job_id, "not_thighs", "It shows none.")
    selector = selector_of(base)
    assert decide_all(selector, backwards=True) == 2
    assert {each["series_uid"] for each in events.named("series.reconsidered")} == {sharp, unknown}
    assert outcomes(base) == {best: "not_thighs", unknown: "selected", sharp: "not_selected"}
    assert unknown in str(job_of(base, sharp).reason)
    assert selector_of(base).waiting() == ()


def test_a_crash_within_a_decision_loses_nothing(
    base: compose.Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = arrive(base, tmp_path, 0, 1)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(queries, "park_by_rules", crash)
        with pytest.raises(KeyboardInterrupt):
            decide_all(selector_of(base))
    assert "not_selected" not in outcomes(base).values()
    decide_all(selector_of(base))
    assert outcomes(base) == expected


def test_what_arrives_after_the_look_is_waited_for(base: compose.Base, tmp_path: Path) -> None:
    arrive(base, tmp_path, 1)
    selector = selector_of(base)
    (seen,) = selector.waiting()
    with transaction(base.database) as session:
        session.execute(update(Series).values(last_received_at=now()))
    assert not selector.decide(seen)
    assert decide_all(selector) == 1


def test_files_of_another_series_that_are_gone_hold_up_nothing(
    base: compose.Base, tmp_path: Path, events: Events
) -> None:
    sharp, best = arrive(base, tmp_path, 0, 1)
    with transaction(base.database) as session:
        known = queries.series_of_study(session, SyntheticStudy(seed=1).uid("study"))
        (series_id,) = [each.id for each in known if each.series_uid == best] or [0]
        files = queries.series_files(session, series_id)
    for path in files:
        base.spool.path_of(path).unlink()
    (seen,) = [each for each in selector_of(base).waiting() if each.series_uid == sharp]
    assert selector_of(base).decide(seen)
    assert outcomes(base) == {sharp: "selected"}
    assert {each["where"] for each in events.named("program.fault")} == {"selection"}


def test_an_operator_can_force_what_was_not_selected(tmp_path: Path) -> None:
    port = free_port()
    with node_base(settings_for(tmp_path, port)) as base, pacs_on(port):
        sharp, best = arrive(base, tmp_path, 0, 1, slices=SLICES)
        assert decide_all(selector_of(base)) == 2
        forced = job_of(base, sharp).job_id
        assert forced in base.queue.retry(forced)
        with pytest.raises(JobsError, match="has not failed"):
            base.queue.retry(forced)
        with running(base):
            wait_until(lambda: {job_of(base, uid).status for uid in (sharp, best)} == {JobStatus.DONE}, 120.0)
        assert selector_of(base).waiting() == ()


def test_past_traffic_is_tried_without_effect(base: compose.Base, tmp_path: Path) -> None:
    expected = arrive(base, tmp_path, 0, 1, 4)
    rules = compose.selection_rules_of(base.settings)
    tried = try_received(base.database, base.spool, period_of("1h"), rules)
    assert {each.decision.series_uid: each.decision.code for each in tried} == expected
    assert outcomes(base) == {}
    decide_all(selector_of(base))
    elsewhere = Spool(tmp_path / "nothing")  # what SQL knows is enough
    assert try_received(base.database, elsewhere, period_of("1h"), rules) == tried
    with pytest.raises(JobsError, match="none"):
        period_of("soon")
