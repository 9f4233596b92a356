"""The log: one line of JSON an event, nothing that names a patient, no flood."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import UID
from pydicom.valuerep import PersonName
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError

from db.status import JobStatus
from node import log
from node.errors import SpoolError, UnknownEvent
from node.events import EVENTS
from node.privacy import clean, first_line, is_forbidden, without_quotations, words_of
from node.ratelimit import WINDOW_S, RateLimit, Seldom


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """A stream that the log is configured to; afterwards logging is as pytest had it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    found = io.StringIO()
    log.configure("info", stream=found, process="worker")
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# --- our own events


def test_a_database_that_is_away_is_told_once_a_minute_for_each_place(stream: io.StringIO) -> None:
    for where in ("jobs", "chores"):
        for _ in range(3):
            log.event("database.lost", where=where)
    log.event("job.late")
    log.event("job.late")
    assert [line["event"] for line in lines(stream)] == ["database.lost"] * 2 + ["job.late"] * 2
    assert [line["where"] for line in lines(stream)[:2]] == ["jobs", "chores"]


def test_what_was_left_out_is_counted_on_the_next_telling() -> None:
    clock = [0.0]
    seldom = Seldom(lambda: clock[0])
    assert [seldom.left_out(("database.lost", "jobs")) for _ in range(4)] == [0, None, None, None]
    assert seldom.left_out(("database.lost", "chores")) == 0
    clock[0] = WINDOW_S
    assert [seldom.left_out(("database.lost", "jobs")) for _ in range(2)] == [3, None]


def test_an_event_is_one_line_of_json(stream: io.StringIO) -> None:
    log.event("instance.stored", correlation_id="c1", size_bytes=5, path=Path("a/b"), status=JobStatus.DONE)
    (line,) = lines(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert list(line)[:4] == ["level", "event", "process", "correlation_id"]
    assert line == {
        "level": "info",
        "event": "instance.stored",
        "process": "worker",
        "correlation_id": "c1",
        "size_bytes": 5,
        "path": "a/b",
        "status": "done",
    }


def test_a_name_that_is_not_in_the_table_is_refused(stream: io.StringIO) -> None:
    with pytest.raises(UnknownEvent, match=r"instance\.eaten"):
        log.event("instance.eaten")
    assert stream.getvalue() == ""


def test_the_table_is_made_of_dotted_names_levels_and_sentences() -> None:
    for name, kind in EVENTS.items():
        assert re.fullmatch(r"[a-z]+\.[a-z]+", name)
        assert kind.level in {"debug", "info", "warning", "error"}
        assert kind.meaning.endswith(".")


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_has_the_level_of_the_table(stream: io.StringIO, name: str) -> None:
    log.event(name)
    assert [line["level"] for line in lines(stream)] == [EVENTS[name].level]


def test_events_below_the_level_are_left_out(stream: io.StringIO) -> None:
    log.configure("error", stream=stream)
    log.event("instance.stored")
    log.event("disk.low")
    log.event("job.failed")
    assert [line["event"] for line in lines(stream)] == ["job.failed"]


def test_before_configuration_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    structlog.reset_defaults()
    log.event("service.started")
    assert capsys.readouterr() == ("", "")


def test_a_correlation_id_holds_for_the_block(stream: io.StringIO) -> None:
    with log.correlated("c2"):
        log.event("job.started")
        logging.getLogger("pydicom").warning("odd")
    log.event("job.done")
    assert [line.get("correlation_id") for line in lines(stream)] == ["c2", "c2", None]


def test_an_error_is_told_in_one_line_with_frames(stream: io.StringIO) -> None:
    try:
        raise SpoolError("spool", "it is\nfull of 'Doe^Jane'", "Empty it.")
    except SpoolError as error:
        log.event("job.failed", error=error)
        log.event("job.parked", error=error)
    failed, parked = lines(stream)
    assert failed["error"] == parked["error"] == "SpoolError: spool: it is"
    assert re.fullmatch(r"test_log\.py:\d+ test_an_error_is_told_in_one_line_with_frames", failed["frames"][-1])
    assert "frames" not in parked


def test_lines_for_people(stream: io.StringIO) -> None:
    log.configure("info", pretty=True, stream=stream)
    log.event("job.done", patient_id="1234567")
    assert "job.done" in stream.getvalue()
    assert "1234567" not in stream.getvalue()


def test_threads_never_mix_their_lines(stream: io.StringIO) -> None:
    def work(number: int) -> None:
        for step in range(50):
            log.event("job.stage", number=number, step=step)

    threads = [Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines(stream)) == 200


# --- privacy


@pytest.mark.parametrize(
    "key", ["patient_name", "PatientName", "patients_name", "patient-id", "PatientID", "patient_birth_date", "patient"]
)
def test_values_under_forbidden_keys_are_withheld(stream: io.StringIO, key: str) -> None:
    log.event("instance.stored", **{key: "Doe^Jane", "more": {"deep": [{key: "Doe^Jane"}]}})
    assert "Doe" not in stream.getvalue()
    assert lines(stream)[0][key] == "[withheld]"


def test_ordinary_keys_are_not_withheld() -> None:
    assert not any(is_forbidden(key) for key in ("process", "series_uid", "patience_s", "path", "event"))


def test_only_plain_values_are_written() -> None:
    dataset = Dataset()
    dataset.PatientName = "Doe^Jane"
    assert clean(dataset) == "<Dataset>"
    assert clean(PersonName("Doe^Jane")) == "<PersonName>"
    assert clean(b"Doe") == "<bytes>"
    assert clean((UID("1.2"), 1.5, None, True, {"a"})) == ["1.2", 1.5, None, True, ["a"]]
    assert clean({1: datetime(2026, 1, 1, tzinfo=UTC), "d": date(2026, 1, 1)}) == {
        "1": "2026-01-01 00:00:00+00:00",
        "d": "2026-01-01",
    }


@given(before=st.sampled_from(["", "it's ", "bad ", "x="]), value=st.text(min_size=3), after=st.text(max_size=5))
def test_a_quoted_value_never_passes(before: str, value: str, after: str) -> None:
    secret = f"Doe^{value}"
    assert "Doe^" not in without_quotations(f"{before}{secret!r}{after}")
    assert "Doe^" not in words_of(ValueError(f"{before}{secret!r}{after}"))


def test_a_cut_quotation_never_passes() -> None:
    assert "Doe" not in without_quotations("value 'Doe^Jane")


def test_our_own_errors_and_paths_keep_their_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none").read_text()
    assert str(tmp_path) in words_of(caught.value)
    assert words_of(KeyError()) == "KeyError"
    assert len(first_line("x" * 999)) == 400


def test_a_statement_never_tells_its_parameters() -> None:
    engine = create_engine("sqlite://", hide_parameters=True)
    with engine.connect() as connection, pytest.raises(OperationalError) as caught:
        connection.execute(text("SELECT * FROM missing WHERE a = :a"), {"a": "Doe"})
    engine.dispose()
    assert "Doe" not in words_of(caught.value)


# --- libraries


def test_libraries_speak_from_warning_on_in_the_same_form(stream: io.StringIO) -> None:
    logging.getLogger("dbos").info("chatter")
    logging.getLogger("pynetdicom.acse").warning("odd value %s", "'Doe^Jane'")
    try:
        raise RuntimeError("gone")
    except RuntimeError:
        logging.getLogger("sqlalchemy.pool").exception("lost\nTraceback (most recent call last)")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("value 'Doe^Jane' is odd", UserWarning, stacklevel=1)
    pynetdicom, pool, warning = lines(stream)
    assert {line["event"] for line in lines(stream)} == {"log.library"}
    assert (pynetdicom["logger"], pynetdicom["message"]) == ("pynetdicom.acse", "odd value [withheld]")
    assert (pool["level"], pool["message"], pool["error"]) == ("error", "lost", "RuntimeError: gone")
    assert warning["logger"] == "py.warnings"
    assert "Traceback" not in stream.getvalue()
    assert "Doe" not in stream.getvalue()


def test_the_job_engine_does_not_bring_its_own_console(tmp_path: Path) -> None:
    program = (
        "import sys, logging\n"
        "from node import log\n"
        "log.configure(stream=sys.stdout)\n"
        "from dbos._logger import init_logger\n"
        "init_logger()\n"
        "logging.getLogger('dbos').warning('once')\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=Path.cwd()
    )
    assert json.loads(found.stdout)["message"] == "once"
    assert found.stderr == ""


def test_configuring_twice_writes_once(stream: io.StringIO) -> None:
    log.configure("info", stream=stream, process="sender")
    log.event("service.started")
    assert [line["process"] for line in lines(stream)] == ["sender"]


def test_a_flood_is_counted_not_written(stream: io.StringIO) -> None:
    for number in range(100):
        logging.getLogger("dbos").error(f"connection {number} to 10.0.0.{number} refused\nTraceback")
        log.event("job.stage", number=number)
    logging.getLogger("dbos").error("something else")
    log.close()
    written = [line for line in lines(stream) if line.get("logger") == "dbos"]
    assert len([line for line in written if "refused" in line.get("message", "")]) == log.LIBRARY_LINES_PER_MINUTE
    assert written[-1]["event"] == "log.suppressed"
    assert written[-1]["lines"] == 100 - log.LIBRARY_LINES_PER_MINUTE
    assert len([line for line in lines(stream) if line["event"] == "job.stage"]) == 100, "our own are never left out"


def test_after_a_minute_the_count_is_told_and_lines_pass_again() -> None:
    clock = [0.0]
    told: list[tuple[str, int]] = []
    limit = RateLimit(2, "ours", lambda name, count: told.append((name, count)), lambda: clock[0])

    def passes(message: str) -> bool:
        return limit.filter(logging.LogRecord("lib", logging.WARNING, "", 0, message, (), None))

    assert [passes(f"try {number}") for number in range(4)] == [True, True, False, False]
    assert passes("another")
    clock[0] = WINDOW_S
    assert told == []
    assert passes("try 9")
    assert told == [("lib", 2)]
