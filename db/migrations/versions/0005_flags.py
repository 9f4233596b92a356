"""What made a scan less fit for measurement, one row a flag of a job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; a job from before has no rows in it."""
    op.create_table(
        "flag",
        sa.Column("id", sa.Integer(), primary_key=True),
        sa.Column("job_id", sa.String(64), sa.ForeignKey("job.id"), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("policy", sa.String(16), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.Column("unit", sa.String(16), nullable=False),
        sa.Column("words", sa.String(1024), nullable=False),
        sa.UniqueConstraint("job_id", "code"),
    )
    op.create_index("ix_flag_job_id", "flag", ["job_id"])


def downgrade() -> None:
    """Drop it."""
    op.drop_table("flag")
