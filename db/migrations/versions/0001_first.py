"""The first tables: series, instances, jobs, measurements, results, deliveries."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = ("series", "instance", "job", "job_instance", "measurement", "result", "delivery")


def upgrade() -> None:
    """Make the tables."""
    _series()
    _instance()
    _job()
    _job_instance()
    _measurement()
    _result()
    _delivery()


def downgrade() -> None:
    """Drop the tables, the last one made first."""
    for table in reversed(TABLES):
        op.drop_table(table)


def _time(name: str, nullable: bool = False) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _text(name: str, length: int, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=nullable)


def _number(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer(), nullable=nullable)


def _indices(table: str, *columns: str) -> None:
    for column in columns:
        op.create_index(f"ix_{table}_{column}", table, [column])


def _series() -> None:
    op.create_table(
        "series",
        _number("id"),
        _text("correlation_id", 32),
        _text("study_uid", 64),
        _text("series_uid", 64),
        _text("modality", 16, nullable=True),
        _text("calling_ae", 16),
        sa.Column("open", sa.Boolean(), nullable=False),
        _number("run"),
        _time("first_received_at"),
        _time("last_received_at"),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
        sa.UniqueConstraint("correlation_id", name="uq_series_correlation_id"),
        sa.UniqueConstraint("series_uid", name="uq_series_series_uid"),
    )
    _indices("series", "study_uid")


def _instance() -> None:
    op.create_table(
        "instance",
        _number("id"),
        _number("series_id"),
        _text("sop_class_uid", 64),
        _text("sop_instance_uid", 64),
        _text("transfer_syntax_uid", 64),
        _text("sha256", 64),
        _text("path", 255),
        _number("size_bytes"),
        _time("received_at"),
        sa.Column("newest", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_instance"),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_instance_series_id"),
        sa.UniqueConstraint("sop_instance_uid", "sha256", name="uq_instance_sop_instance_uid_sha256"),
    )
    _indices("instance", "series_id", "sop_instance_uid")


def _job() -> None:
    op.create_table(
        "job",
        _text("id", 64),
        _number("series_id"),
        _number("run"),
        _text("model", 64),
        _text("status", 16),
        _text("reason_code", 64, nullable=True),
        _text("reason", 1024, nullable=True),
        sa.Column("uids", sa.JSON(), nullable=False),
        sa.Column("stage_seconds", sa.JSON(), nullable=False),
        _text("backend", 64, nullable=True),
        _text("model_digest", 64, nullable=True),
        _number("attempts"),
        _time("created_at"),
        _time("started_at", nullable=True),
        _time("finished_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_job"),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_job_series_id"),
        sa.UniqueConstraint("series_id", "model", "run", name="uq_job_series_id_model_run"),
    )
    _indices("job", "series_id", "status")


def _job_instance() -> None:
    op.create_table(
        "job_instance",
        _text("job_id", 64),
        _number("instance_id"),
        sa.PrimaryKeyConstraint("job_id", "instance_id", name="pk_job_instance"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_job_instance_job_id"),
        sa.ForeignKeyConstraint(["instance_id"], ["instance.id"], name="fk_job_instance_instance_id"),
    )


def _measurement() -> None:
    op.create_table(
        "measurement",
        _number("id"),
        _text("job_id", 64),
        _text("structure", 64),
        _text("side", 8),
        _text("quantity", 32),
        sa.Column("value", sa.Double(), nullable=False),
        _text("unit", 16),
        _text("flags", 255),
        sa.PrimaryKeyConstraint("id", name="pk_measurement"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_measurement_job_id"),
        sa.UniqueConstraint("job_id", "structure", "side", "quantity", name="uq_measurement_of_job"),
    )
    _indices("measurement", "job_id")


def _result() -> None:
    op.create_table(
        "result",
        _number("id"),
        _text("job_id", 64),
        _text("kind", 16),
        _text("series_uid", 64),
        _text("sop_class_uid", 64),
        _text("sop_instance_uid", 64),
        _text("path", 255),
        _text("sha256", 64),
        _number("size_bytes"),
        sa.PrimaryKeyConstraint("id", name="pk_result"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_result_job_id"),
        sa.UniqueConstraint("job_id", "kind", name="uq_result_job_id_kind"),
        sa.UniqueConstraint("sop_instance_uid", name="uq_result_sop_instance_uid"),
    )
    _indices("result", "job_id")


def _delivery() -> None:
    op.create_table(
        "delivery",
        _number("id"),
        _text("job_id", 64),
        _text("destination", 64),
        _text("kind", 16),
        _text("sop_instance_uid", 64),
        _text("status", 16),
        _number("dicom_status", nullable=True),
        _text("comment", 1024, nullable=True),
        _number("attempts"),
        _time("last_attempt_at", nullable=True),
        _time("next_attempt_at", nullable=True),
        _time("accepted_at", nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_delivery"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_delivery_job_id"),
        sa.UniqueConstraint("job_id", "destination", "kind", name="uq_delivery_job_id_destination_kind"),
    )
    _indices("delivery", "job_id", "status")
