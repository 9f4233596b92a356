"""Opening and migrating the database."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Engine, inspect, text

from db.errors import DatabaseError, DatabaseUnreachable, SchemaMismatch
from db.migrations import is_ours
from db.models import Base, Series
from db.session import MIGRATIONS, check_schema, migrate, now, open_database, session_of, transaction


def test_models_and_migrations_agree(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": is_ours, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []


def test_every_table_of_the_models_is_made(engine: Engine) -> None:
    assert set(Base.metadata.tables) <= set(inspect(engine).get_table_names())


def test_a_second_migration_changes_nothing(bare_engine: Engine) -> None:
    assert [migrate(bare_engine), migrate(bare_engine)] == [True, False]


def test_tables_of_the_job_engine_are_left_out(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE workflow_status (id integer)"))
        connection.execute(text("CREATE TABLE datasource_outputs (id integer)"))
        context = MigrationContext.configure(connection, opts={"include_object": is_ours})
        assert compare_metadata(context, Base.metadata) == []


def test_a_missing_table_of_ours_is_seen(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE delivery"))
        context = MigrationContext.configure(connection, opts={"include_object": is_ours})
        assert compare_metadata(context, Base.metadata) != []


def _migrate_in_process(url: str, results: multiprocessing.Queue[str]) -> None:
    engine = open_database(url)
    try:
        results.put(str(migrate(engine)))
    finally:
        engine.dispose()


def test_processes_may_migrate_at_once(database_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[str] = spawn.Queue()
    processes = [spawn.Process(target=_migrate_in_process, args=(database_url, results)) for _ in range(3)]
    for process in processes:
        process.start()
    told = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
    assert told == ["False", "False", "True"]
    assert [process.exitcode for process in processes] == [0, 0, 0]


def test_a_newer_schema_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (migrate, check_schema):
        with pytest.raises(SchemaMismatch, match="9999"):
            use(engine)


def test_check_schema_wants_the_tables(bare_engine: Engine) -> None:
    with pytest.raises(SchemaMismatch, match="not been made"):
        check_schema(bare_engine)
    migrate(bare_engine)
    check_schema(bare_engine)


def test_sqlite_loses_nothing_and_waits(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/vastus.db")
    with engine.connect() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
        assert connection.connection.dbapi_connection.isolation_level == "IMMEDIATE"  # type: ignore[union-attr]
    engine.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 30000, "foreign_keys": 1}


def test_sqlite_is_for_its_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "deep"
    engine = open_database(f"sqlite:///{folder}/vastus.db")
    migrate(engine)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    engine.dispose()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u:pass-word@h/d", "nonsense"])
def test_other_urls_are_refused_without_the_password(url: str) -> None:
    with pytest.raises(DatabaseError) as caught:
        open_database(url)
    assert "pass-word" not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatabaseUnreachable, match=r"vastus\.db"):
        open_database(f"sqlite:///{tmp_path}/file/vastus.db")


def test_a_server_that_is_down_is_told_without_the_password() -> None:
    engine = open_database("postgresql://vastus:pass-word@127.0.0.1:1/none")
    for use in (migrate, check_schema):
        with pytest.raises(DatabaseUnreachable) as caught:
            use(engine)
        assert "pass-word" not in str(caught.value)
        assert "127.0.0.1" in str(caught.value)


def _series() -> Series:
    return Series(
        correlation_id="c",
        study_uid="1.2",
        series_uid="1.2.3",
        calling_ae="PACS",
        open=True,
        run=0,
        first_received_at=now(),
        last_received_at=now(),
    )


def test_times_come_back_in_utc(engine: Engine) -> None:
    row = _series()
    row.first_received_at = told = now().astimezone()
    with transaction(engine) as session:
        session.add(row)
    with transaction(engine) as session:
        found = session.query(Series).one().first_received_at
    assert found == told
    assert str(found.tzinfo) == "UTC"


def test_session_of_leaves_the_commit_to_its_owner(engine: Engine) -> None:
    with engine.connect() as connection, connection.begin() as outer:
        with session_of(connection) as session:
            session.add(_series())
            session.commit()
        outer.rollback()
    with transaction(engine) as session:
        assert session.query(Series).count() == 0
    with engine.begin() as connection, session_of(connection) as session:
        session.add(_series())
        session.flush()
    with transaction(engine) as session:
        assert session.query(Series).count() == 1


def test_session_of_wants_a_transaction(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(DatabaseError, match="no transaction"):
        session_of(connection)


def test_the_columns_of_plug_ins_come_and_go(bare_engine: Engine) -> None:
    scripts = str(MIGRATIONS)
    for step, present in ((command.upgrade, True), (command.downgrade, False)):
        with bare_engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", scripts)
            config.attributes["connection"] = connection
            step(config, "0003" if present else "0002")
        columns = {column["name"] for column in inspect(bare_engine).get_columns("job")}
        assert ({"plugins", "precision"} <= columns) is present
