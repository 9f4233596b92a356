"""The tables: what the node remembers.

No foreign key leads into the tables of the job engine, which live in the same database, and no table here takes
one of their names. Nothing here names a patient.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import JSON, DateTime, Dialect, ForeignKey, String, UniqueConstraint, false
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import TypeDecorator


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time in every database; SQLite itself knows no time zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store as UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Read as UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Root of the tables."""


class Series(Base):
    """A series as it arrives.

    `run` counts the jobs: it starts at 0 and grows when instances arrive after the last job was made. `open` is true
    while instances wait for a job. `correlation_id` joins log lines, jobs and deliveries.
    """

    __tablename__ = "series"

    id: Mapped[int] = mapped_column(primary_key=True)
    correlation_id: Mapped[str] = mapped_column(String(32), unique=True)
    study_uid: Mapped[str] = mapped_column(String(64), index=True)
    series_uid: Mapped[str] = mapped_column(String(64), unique=True)
    modality: Mapped[str | None] = mapped_column(String(16))
    calling_ae: Mapped[str] = mapped_column(String(16))
    open: Mapped[bool]
    run: Mapped[int]
    first_received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    instances: Mapped[list[Instance]] = relationship(back_populates="series")


class SeriesFacts(Base):
    """What the rules of selection know of a series: `dicom_io.select.SeriesFacts`, and nothing of a patient.

    They are out of date where another instance of it arrived after `as_of`.
    """

    __tablename__ = "series_facts"

    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), primary_key=True)
    as_of: Mapped[datetime] = mapped_column(UtcDateTime)
    facts: Mapped[dict[str, object]] = mapped_column(JSON)


class Instance(Base):
    """One object as received. The same UID with other bytes is kept as another row, and one row counts.

    `newest` marks it: of all versions of a UID in a series, the one that arrived last; but once a job was made of a
    version, another one takes its place only where the settings let it (`db.arrivals.Changed`). An older version that
    comes again is the newest again, by the same rule.
    """

    __tablename__ = "instance"
    __table_args__ = (UniqueConstraint("sop_instance_uid", "sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), index=True)
    transfer_syntax_uid: Mapped[str] = mapped_column(String(64))
    sha256: Mapped[str] = mapped_column(String(64))
    path: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int]
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    newest: Mapped[bool]
    series: Mapped[Series] = relationship(back_populates="instances")


class Job(Base):
    """One run of the pipeline over one series. Its result UIDs are fixed here before any work starts.

    `status` is one of `JobStatus`; `reason_code` and `reason` say why a job was parked or failed. `by_rules` is true
    where the rules of selection parked it and it never ran; `winner_uid` is then the UID of the series that was taken
    in its place, if there is one. `plugins` are the parts that it was made with: one object each, with the fields of
    `engine.plugins.Credit`.
    """

    __tablename__ = "job"
    __table_args__ = (UniqueConstraint("series_id", "model", "run"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    run: Mapped[int]
    model: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), index=True)
    reason_code: Mapped[str | None] = mapped_column(String(64))
    reason: Mapped[str | None] = mapped_column(String(1024))
    uids: Mapped[dict[str, str]] = mapped_column(JSON)
    stage_seconds: Mapped[dict[str, float]] = mapped_column(JSON)
    backend: Mapped[str | None] = mapped_column(String(64))
    precision: Mapped[str | None] = mapped_column(String(16))
    model_digest: Mapped[str | None] = mapped_column(String(64))
    winner_uid: Mapped[str | None] = mapped_column(String(64))
    by_rules: Mapped[bool] = mapped_column(default=False, server_default=false())
    plugins: Mapped[list[dict[str, str]] | None] = mapped_column(JSON)
    attempts: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    series: Mapped[Series] = relationship()
    measurements: Mapped[list[Measurement]] = relationship(back_populates="job")
    flags: Mapped[list[Flag]] = relationship(back_populates="job")
    results: Mapped[list[Result]] = relationship(back_populates="job")
    deliveries: Mapped[list[Delivery]] = relationship(back_populates="job")


class Model(Base):
    """A model that results were made with, by the digest that their jobs name; the newest words about it count.

    `intended_use`, `training` and `attribution` are the words that stand in the results themselves. Jobs point here by
    `model_digest` without a foreign key: a job from before this table has no row here.
    """

    __tablename__ = "model"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    version: Mapped[str] = mapped_column(String(64))
    intended_use: Mapped[str] = mapped_column(String(64))
    training: Mapped[str] = mapped_column(String(1024))
    attribution: Mapped[str] = mapped_column(String(1024))


class JobInstance(Base):
    """Which instances a job was made of: fixed with the job, so that a late arrival never changes a running job."""

    __tablename__ = "job_instance"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), primary_key=True)
    instance_id: Mapped[int] = mapped_column(ForeignKey("instance.id"), primary_key=True)


class Measurement(Base):
    """One figure of the report: quantity (`volume`, `mean_hu`, `sd_hu`), value, UCUM unit, flags as words."""

    __tablename__ = "measurement"
    __table_args__ = (UniqueConstraint("job_id", "structure", "side", "quantity"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), index=True)
    structure: Mapped[str] = mapped_column(String(64))
    side: Mapped[str] = mapped_column(String(8))
    quantity: Mapped[str] = mapped_column(String(32))
    value: Mapped[float]
    unit: Mapped[str] = mapped_column(String(16))
    flags: Mapped[str] = mapped_column(String(255))
    job: Mapped[Job] = relationship(back_populates="measurements")


class Flag(Base):
    """What made a job's scan less fit for measurement: `engine.flags` knows the codes, policies and UCUM units."""

    __tablename__ = "flag"
    __table_args__ = (UniqueConstraint("job_id", "code"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), index=True)
    code: Mapped[str] = mapped_column(String(64))
    policy: Mapped[str] = mapped_column(String(16))
    number: Mapped[float | None]
    unit: Mapped[str] = mapped_column(String(16))
    words: Mapped[str] = mapped_column(String(1024))
    job: Mapped[Job] = relationship(back_populates="flags")


class Result(Base):
    """One DICOM object that was written: kind (its writer's name, as `seg`), UIDs, file below the job's folder."""

    __tablename__ = "result"
    __table_args__ = (UniqueConstraint("job_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    series_uid: Mapped[str] = mapped_column(String(64))
    sop_class_uid: Mapped[str] = mapped_column(String(64))
    sop_instance_uid: Mapped[str] = mapped_column(String(64), unique=True)
    path: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    job: Mapped[Job] = relationship(back_populates="results")


class Delivery(Base):
    """One result object on its way to one destination.

    `status` is one of `DeliveryStatus`; `dicom_status` is the last C-STORE status (PS3.7 C), `comment` its words.
    """

    __tablename__ = "delivery"
    __table_args__ = (UniqueConstraint("job_id", "destination", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("job.id"), index=True)
    destination: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(16))
    sop_instance_uid: Mapped[str] = mapped_column(String(64))
    status: Mapped[str] = mapped_column(String(16), index=True)
    dicom_status: Mapped[int | None]
    comment: Mapped[str | None] = mapped_column(String(1024))
    attempts: Mapped[int]
    last_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_attempt_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    accepted_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    job: Mapped[Job] = relationship(back_populates="deliveries")
