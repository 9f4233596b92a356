"""Which plug-ins a job was made with, whose they are, and in which precision the network was computed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; a job from before has nothing in them."""
    op.add_column("job", sa.Column("precision", sa.String(16), nullable=True))
    op.add_column("job", sa.Column("plugins", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Drop them."""
    op.drop_column("job", "plugins")
    op.drop_column("job", "precision")
