"""The models that results were made with, and the words that go with their results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "model",
        _text("digest", 64),
        _text("name", 64),
        _text("version", 64),
        _text("intended_use", 64),
        _text("training", 1024),
        _text("attribution", 1024),
        sa.PrimaryKeyConstraint("digest", name="pk_model"),
    )


def downgrade() -> None:
    """Drop it."""
    op.drop_table("model")


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)
