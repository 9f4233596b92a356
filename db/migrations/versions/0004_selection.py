"""What the rules of selection know of each series, and which series was taken in the place of another one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make table and columns; no rule has decided on anything from before."""
    op.create_table(
        "series_facts",
        sa.Column("series_id", sa.Integer(), sa.ForeignKey("series.id"), primary_key=True),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
    )
    op.add_column("job", sa.Column("winner_uid", sa.String(64), nullable=True))
    op.add_column("job", sa.Column("by_rules", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("job", "by_rules")
    op.drop_column("job", "winner_uid")
    op.drop_table("series_facts")
