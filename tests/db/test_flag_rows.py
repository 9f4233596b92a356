"""The flags of a job. Every test runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from dataclasses import replace

from peers.sample_rows import make_job
from sqlalchemy import Engine

from db.queries import flags_of, record_flags
from db.session import transaction
from engine.flags import Policy, RaisedFlag, flag_of

METAL = RaisedFlag(flag_of("metal", "There are 12.5 ml of metal in the body.", 12.5), Policy.WARN)
CONTRAST = RaisedFlag(flag_of("contrast_medium", "A contrast medium was given."), Policy.NOTE)


def test_flags_are_remembered_and_the_last_telling_counts(engine: Engine) -> None:
    make_job(engine)
    with transaction(engine) as session:
        record_flags(session, "job-1", (METAL, CONTRAST))
        assert flags_of(session, "job-1") == (METAL, CONTRAST)
    refused = replace(METAL, policy=Policy.REFUSE)
    for _ in range(2):
        with transaction(engine) as session:
            record_flags(session, "job-1", (refused,))
    with transaction(engine) as session:
        assert flags_of(session, "job-1") == (refused,)
        record_flags(session, "job-1", ())
        assert flags_of(session, "job-1") == ()
