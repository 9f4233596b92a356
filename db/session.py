"""Opening the database: SQLite or PostgreSQL by its URL, with the settings under which nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlalchemy.orm import Session

from db.errors import DatabaseError, DatabaseUnreachable, SchemaMismatch

POOL_SIZE = 20
CONNECT_TIMEOUT_S = 10
# FULL, not NORMAL: in WAL mode NORMAL may lose the last commits when the power fails.
SQLITE_PRAGMAS = ("busy_timeout=30000", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON")
# Any fixed number will do: it names the one lock that all who migrate take.
MIGRATION_LOCK = 0x56415354
MIGRATIONS = Path(__file__).parent / "migrations"


def now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)


def open_database(url: str) -> Engine:
    """An engine for SQLite or PostgreSQL. A missing SQLite file is created, readable by its owner only.

    Args:
        url: `sqlite:////folder/file.db` or `postgresql://user:password@host/name`.

    Raises:
        DatabaseError: the URL is of another kind.
        DatabaseUnreachable: the folder or file of SQLite cannot be created.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise DatabaseError("the database URL", "it cannot be read", "Correct database.url in the settings.") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(parsed)
    if backend == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "vastus"},
        )
    remedy = "Use a sqlite:/// or postgresql:// URL."
    raise DatabaseError("the database URL", f"databases of the kind {backend} are not supported", remedy)


def session_of(connection: Connection) -> Session:
    """A session that works inside the transaction of a connection, which its owner commits.

    Raises:
        DatabaseError: the connection is in no transaction, so that the session's own commit would be the owner's.
    """
    if not connection.in_transaction():
        raise DatabaseError("the connection", "it is in no transaction", "Begin one before asking for a session.")
    return Session(bind=connection, expire_on_commit=False, join_transaction_mode="rollback_only")


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """One transaction: committed at the end of the block, rolled back by an error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def migrate(engine: Engine) -> bool:
    """Bring the tables to the version of this program. Safe when several processes do so at once.

    Returns:
        Whether anything was changed.

    Raises:
        DatabaseUnreachable: there is no connection.
        SchemaMismatch: the tables are of a newer program.
    """
    scripts = ScriptDirectory(str(MIGRATIONS))
    try:
        with engine.connect() as connection:
            _take_migration_lock(connection)
            found = _version(connection)
            _refuse_unknown(engine.url, found, scripts)
            if found == scripts.get_current_head():
                return False
            command.upgrade(_alembic(connection), "head")
            connection.commit()
            return True
    except OperationalError as error:
        raise _unreachable(engine.url, error) from error


def check_schema(engine: Engine) -> None:
    """See that the tables are of exactly the version that this program knows.

    Raises:
        DatabaseUnreachable: there is no connection.
        SchemaMismatch: the tables are older, newer or absent.
    """
    scripts = ScriptDirectory(str(MIGRATIONS))
    try:
        with engine.connect() as connection:
            found = _version(connection)
    except OperationalError as error:
        raise _unreachable(engine.url, error) from error
    _refuse_unknown(engine.url, found, scripts)
    if found != scripts.get_current_head():
        reason = "its tables are older than this program" if found else "its tables have not been made yet"
        raise SchemaMismatch(_named(engine.url), reason, "Start the service once: it brings them up to date.")


def _open_sqlite(url: URL) -> Engine:
    if url.database in (None, "", ":memory:"):
        remedy = "Name a file, as in sqlite:////var/lib/vastus/vastus.db."
        raise DatabaseError("the database URL", "it names no file, and memory is not kept", remedy)
    path = Path(str(url.database))
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # SQLite gives its journal files the rights of the database file.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except OSError as error:
        remedy = "Make the folder writable for the user that Vastus runs as."
        raise DatabaseUnreachable(str(path), f"the file cannot be opened ({error.strerror})", remedy) from error
    engine = create_engine(
        url.set(drivername="sqlite+pysqlite"), pool_size=POOL_SIZE, max_overflow=0, hide_parameters=True
    )
    event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # IMMEDIATE: writers queue at BEGIN, where the busy timeout holds, instead of failing in the middle.
    connection.isolation_level = "IMMEDIATE"
    for pragma in SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


def _take_migration_lock(connection: Connection) -> None:
    """Begin a transaction that no second migration can begin until it ends."""
    if connection.dialect.name == "sqlite":
        # The driver itself begins no transaction before DDL.
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _refuse_unknown(url: URL, found: str | None, scripts: ScriptDirectory) -> None:
    known = {script.revision for script in scripts.walk_revisions()}
    if found is not None and found not in known:
        reason = f"its tables are of version {found}, which this program does not know"
        raise SchemaMismatch(
            _named(url), reason, "Install the newer Vastus again, or restore the backup made before it."
        )


def _alembic(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _named(url: URL) -> str:
    return f"database {url.render_as_string(hide_password=True)}"


def _unreachable(url: URL, error: OperationalError) -> DatabaseUnreachable:
    reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    return DatabaseUnreachable(_named(url), reason, "See that the database runs and that database.url is right.")
