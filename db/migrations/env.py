"""What Alembic runs for every migration. It works on the connection that `db.session.migrate` hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from db.migrations import is_ours
from db.models import Base
from db.session import open_database


def run() -> None:
    """Run the migrations: inside the caller's transaction, or for a developer on `-x url=...`."""
    connection = context.config.attributes.get("connection")
    if isinstance(connection, Connection):
        _run_on(connection)
        return
    with open_database(context.get_x_argument(as_dictionary=True)["url"]).begin() as own:
        _run_on(own)


def _run_on(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        include_object=is_ours,
        include_schemas=False,
        render_as_batch=connection.dialect.name == "sqlite",  # SQLite alters a table by copying it
    )
    with context.begin_transaction():
        context.run_migrations()


run()  # Alembic loads this file in order to run it
