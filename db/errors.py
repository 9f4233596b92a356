"""What can go wrong with the database, as far as it is foreseen."""

from __future__ import annotations

from engine.errors import VastusError


class DatabaseError(VastusError):
    """The database cannot be used as it is."""


class DatabaseUnreachable(DatabaseError):  # noqa: N818 - says what the matter is
    """The database, or its folder, cannot be opened."""


class SchemaMismatch(DatabaseError):  # noqa: N818 - says what the matter is
    """The tables are of another version than this program knows."""


class UnknownRow(DatabaseError):  # noqa: N818 - says what the matter is
    """A series or job was asked for that the database does not hold."""
