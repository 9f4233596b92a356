"""Databases for tests: every test that takes `engine` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from peers.postgres import postgres_server
from sqlalchemy import Engine, create_engine, make_url, text

from db.session import migrate, open_database

_NUMBERS = count(1)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server for all tests of this folder."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of its own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/vastus.db"
    server = make_url(request.getfixturevalue("postgres_url"))
    name = f"test{next(_NUMBERS)}"
    owner = create_engine(server, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    owner.dispose()
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture
def bare_engine(database_url: str) -> Iterator[Engine]:
    """A database without tables."""
    engine = open_database(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(bare_engine: Engine) -> Engine:
    """A database with its tables."""
    migrate(bare_engine)
    return bare_engine
