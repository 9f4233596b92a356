"""Writing rows so that it may happen twice, and by two callers at once, with the same result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.models import Base

Values = Mapping[str, Any]

# Both know ON CONFLICT; each has its own construct for it.
_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def insert_if_absent(session: Session, table: type[Base], values: Values) -> bool:
    """Insert one row unless any unique constraint says that it is there; a rival's uncommitted row is waited for.

    Returns:
        Whether the row is new.
    """
    statement = _insert(session)(table).values(dict(values)).on_conflict_do_nothing()
    new = session.connection().execute(statement.returning(*table.__table__.primary_key))
    return new.first() is not None


def upsert(session: Session, table: type[Base], key: Sequence[str], rows: Sequence[Values]) -> None:
    """Insert rows, or overwrite the ones of the same key; the key must be a unique constraint of the table."""
    for values in rows:
        statement = _insert(session)(table).values(dict(values))
        changed = {name: statement.excluded[name] for name in values if name not in key}
        session.connection().execute(statement.on_conflict_do_update(index_elements=list(key), set_=changed))
    session.expire_all()


def fitted(text: str | None, length: int) -> str | None:
    """Text as a column of that length takes it: cut, and without the NUL that PostgreSQL refuses."""
    return None if text is None else text.replace("\0", "")[:length]


def _insert(session: Session) -> Any:
    return _INSERT[session.get_bind().dialect.name]
