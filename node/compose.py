"""The composition root: the one place where settings become objects.

What needs the network's library is imported inside the functions of the worker: it takes seconds and hundreds of MB,
and the listener and the sender do without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from config.settings import Settings
from db import queries
from db.session import migrate, open_database, transaction
from dicom_io.series import SeriesRules
from node import log
from node.complete import CompletionWatcher
from node.deliver import Destination, SenderRules
from node.dispatch import Sender, SendingPlan
from node.errors import ServiceError, SettingsRefused
from node.executor import Executor, JobEngine, prepare_database
from node.identity import identity_of, make_identity
from node.intake import sql_recorder
from node.jobs import DELIVER, DELIVER_QUEUE, PROCESS, SEGMENT_QUEUE, JobQueue
from node.pipeline import StepRunner
from node.receive import Listener, ListenerSettings
from node.spool import Spool

if TYPE_CHECKING:
    from engine.package import ModelPackage
    from node.stages import Workshop

OUR_PACKAGES = ("config", "db", "dicom_io", "engine", "node")
OUR_DISTRIBUTION = "vastus"
PREDECESSOR_S = 10.0
"""Longest wait for the listener of a node that was killed: it gives its open associations a moment to end."""

Wrap = Callable[[StepRunner], StepRunner]


@dataclass(frozen=True)
class Base:
    """What every process of the service stands on.

    Attributes:
        settings: all settings.
        database: the node's database.
        spool: the files.
        queue: where jobs are queued.
    """

    settings: Settings
    database: Engine
    spool: Spool
    queue: JobQueue

    def close(self) -> None:
        """Let go of the database."""
        self.queue.close()
        self.database.dispose()


def base_of(settings: Settings) -> Base:
    """Open the database and name the spool; creates nothing in them."""
    database = open_database(settings.database_url)
    return Base(settings, database, spool_of(settings), JobQueue(database, settings.engine.model))


def spool_of(settings: Settings) -> Spool:
    """The spool in the state folder."""
    return Spool(settings.node.state_dir / "spool")


def prepare(settings: Settings) -> None:
    """Refuse what cannot work, then bring spool and database to the state that the processes expect.

    A second node on the same state is refused before it touches the tables. The listener of a node that was killed may
    still be ending; it is waited for.

    Raises:
        VastusError: what cannot work, why, and what to do; nothing has been started.
    """
    refuse_unusable(settings)
    spool = spool_of(settings)
    spool.prepare()
    with spool.held(PREDECESSOR_S):
        make_identity(settings.node.state_dir)
        database = open_database(settings.database_url)
        try:
            changed = migrate(database)
            prepare_database(settings.database_url)
        finally:
            database.dispose()
    if changed:
        log.event("database.migrated")


def refuse_unusable(settings: Settings) -> None:
    """Refuse settings that let nobody in, send results nowhere, or name what is not there.

    Raises:
        SettingsRefused: a setting is missing.
        ServiceError: the state folder cannot be written, or another distribution claims one of our names.
        ModelError: the model package is missing or damaged.
    """
    if not settings.listener.calling_ae_titles:
        raise SettingsRefused(
            "setting listener.calling_ae_titles",
            "it is empty, so that any peer could send",
            'List the AE titles that may send to this node, as in calling_ae_titles = ["PACS"]',
        )
    if not settings.destinations:
        raise SettingsRefused(
            "setting destinations",
            "there is none, so that no result would ever be sent",
            "Name where results go, in a table [destinations.<name>] with ae_title, host and port",
        )
    _refuse_folder(settings)
    _refuse_strangers(packages_distributions())
    package_of(settings)


def _refuse_folder(settings: Settings) -> None:
    folder = settings.node.state_dir
    thing, remedy = f"state folder {folder}", f"Create it and make it writable for user id {os.geteuid()}"
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ServiceError(thing, f"it cannot be written: {error.strerror or error}", remedy) from error


def _refuse_strangers(claims: Mapping[str, Iterable[str]]) -> None:
    """Our folders are top-level packages: another distribution with one of their names would change what runs."""
    for package in OUR_PACKAGES:
        strangers = sorted(set(claims.get(package, ())) - {OUR_DISTRIBUTION})
        if strangers:
            raise ServiceError(
                f"package {package}",
                f"the distribution {', '.join(strangers)} claims its name",
                "Uninstall it from this environment",
            )


def listener_of(base: Base) -> tuple[Listener, CompletionWatcher]:
    """What receives, and what announces complete series; both are to be started."""
    chosen = base.settings.listener

    def open_in_sql() -> tuple[queries.OpenSeries, ...]:
        with transaction(base.database) as session:
            return queries.open_series(session)

    def announce(series: queries.OpenSeries) -> bool:
        return base.queue.series_complete(series.id, seen=series.quiet_since) is not None

    settings = ListenerSettings(
        ae_title=base.settings.node.ae_title,
        host=chosen.host,
        port=chosen.port,
        calling_ae_titles=tuple(chosen.calling_ae_titles),
        max_associations=chosen.max_associations,
        max_pdu_bytes=chosen.max_pdu_bytes,
        acse_timeout_s=chosen.acse_timeout_s,
        dimse_timeout_s=chosen.dimse_timeout_s,
        network_timeout_s=chosen.network_timeout_s,
        socket_timeout_s=chosen.socket_timeout_s,
        soft_free_bytes=chosen.soft_free_mib << 20,
        hard_free_bytes=chosen.hard_free_mib << 20,
    )
    listener = Listener(settings, base.spool, sql_recorder(base.database))
    return listener, CompletionWatcher(open_in_sql, listener.open_series, announce, chosen.quiet_period_s)


def package_of(settings: Settings) -> ModelPackage:
    """The model package that the settings name."""
    from engine.package import bundled_package

    return bundled_package(settings.engine.model)


def workshop_of(settings: Settings) -> Workshop:
    """Load the model and keep it warm; takes seconds."""
    from engine.backends import SessionOptions, cores, open_session
    from engine.segment import Segmenter
    from node.stages import Workshop

    package = package_of(settings)
    session = open_session(settings.engine.backend, package, SessionOptions(settings.engine.threads or cores()))
    words = {"training": package.training_statement, "attribution": package.attribution}
    made_with = {"version": package.version, "digest": package.digest, "backend": session.name}
    log.event("model.loaded", model=package.name, intended_use=package.intended_use, **made_with, **words)
    return Workshop(
        package=package,
        segmenter=Segmenter(package, session, settings.engine.overlap),
        backend=session.name,
        precision=session.precision,
        rules=rules_of(settings),
        software_version=software_version(),
    )


def rules_of(settings: Settings) -> SeriesRules:
    """Which series are taken."""
    return SeriesRules(settings.series.min_slices, settings.series.min_coverage_mm)


def software_version() -> str:
    """Our version, as installed."""
    return version(OUR_DISTRIBUTION)


def executor_id(settings: Settings, role: str) -> str:
    """The id under which this node's worker or sender runs jobs: stable over restarts, unique among nodes."""
    return f"{identity_of(settings.node.state_dir)}-{role}"


def add_worker(engine: JobEngine, base: Base, workshop: Workshop, wrap: Wrap | None = None) -> None:
    """Let a job engine segment. `wrap` may stand between the pipeline and the engine; the tests' kill does."""
    from node.work import JobLedger, Worker

    ledger = JobLedger(engine.session, base.queue, tuple(base.settings.destinations), workshop)
    run_step: StepRunner = engine if wrap is None else wrap(engine)
    worker = Worker(base.database, base.spool, workshop, ledger, engine, run_step)
    engine.add(PROCESS, worker.run)


def add_sender(engine: JobEngine, base: Base, wrap: Wrap | None = None) -> None:
    """Let a job engine deliver; `wrap` as for the worker."""
    run_step: StepRunner = engine if wrap is None else wrap(engine)
    sender = Sender(base.database, base.spool, sending_plan_of(base.settings), base.queue, engine, run_step)
    engine.add(DELIVER, sender.run)


def sending_plan_of(settings: Settings) -> SendingPlan:
    """To whom and how results are sent."""
    chosen = settings.delivery
    destinations = {
        name: Destination(name, each.ae_title, each.host, each.port) for name, each in settings.destinations.items()
    }
    rules = SenderRules(settings.node.ae_title, chosen.acse_timeout_s, chosen.dimse_timeout_s, chosen.network_timeout_s)
    return SendingPlan(destinations, rules, chosen.first_retry_s, chosen.longest_retry_s)


def job_engine_of(base: Base, role: str) -> JobEngine:
    """This process's part in running jobs, for the role `worker` or `sender`."""
    queues = {"worker": (SEGMENT_QUEUE,), "sender": (DELIVER_QUEUE,)}[role]
    executor = Executor(executor_id(base.settings, role), queues, base.settings.database_url, base.database)
    return JobEngine(executor, ledger_engine=open_database(base.settings.database_url))
