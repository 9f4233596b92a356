"""The composition root: the one place where settings become objects.

What needs the network's library is imported inside the functions of the worker: it takes seconds and hundreds of MB,
and the listener and the sender do without.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Engine

from config.settings import Settings
from db import queries
from db.session import migrate, now, open_database
from dicom_io.kernels import OwnKernels
from dicom_io.select import ContrastPolicy, SelectionRules
from dicom_io.series import SeriesRules
from engine.flags import Policy
from engine.plugins import BACKENDS, OUR_DISTRIBUTION, plugin
from node import log
from node.complete import CompletionWatcher
from node.deliver import Destination, SenderRules
from node.dispatch import Sender, SendingPlan
from node.errors import ServiceError, SettingsRefused
from node.executor import Executor, JobEngine, prepare_database
from node.identity import identity_of, make_identity
from node.intake import sql_recorder
from node.jobs import DELIVER, DELIVER_QUEUE, PROCESS, SEGMENT_QUEUE, JobQueue
from node.parts import credits_of, refuse_rivals, refuse_strangers, writers_of
from node.pipeline import StepRunner
from node.receive import Listener, ListenerSettings
from node.selection import SelectionPlan, Selector
from node.spool import Spool

if TYPE_CHECKING:
    from engine.backends import Session, SessionOptions
    from engine.package import ModelPackage
    from node.stages import Workshop

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
        PluginError: two distributions offer a part of one name, or a writer is missing or cannot be used.
        ModelError: the model package is missing or damaged.
        BackendError: the backend is unknown, or cannot be used here.
    """
    refuse_settings(settings)
    refuse_folder(settings)
    refuse_strangers(packages_distributions())
    refuse_rivals()
    writers_of(settings)
    package_of(settings)
    _refuse_backend(settings)


def refuse_settings(settings: Settings) -> None:
    """Refuse settings that let nobody in or send results nowhere.

    Raises:
        SettingsRefused: a setting is missing.
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


def refuse_folder(settings: Settings) -> None:
    """Refuse a state folder that cannot be written.

    Raises:
        ServiceError: it cannot.
    """
    folder = settings.node.state_dir
    thing, remedy = f"state folder {folder}", f"Create it and make it writable for user id {os.geteuid()}"
    try:
        folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ServiceError(thing, f"it cannot be written: {error.strerror or error}", remedy) from error


def _refuse_backend(settings: Settings) -> None:
    from engine.backends import resolve

    resolve(settings.engine.backend)


def listener_of(base: Base) -> tuple[Listener, CompletionWatcher]:
    """What receives, and what announces complete series; both are to be started."""
    chosen = base.settings.listener

    selector = Selector(base.database, base.spool, base.queue, selection_plan_of(base.settings))
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
    changed = queries.Changed(base.settings.series.changed_instance)
    listener = Listener(settings, base.spool, sql_recorder(base.database, changed))
    return listener, CompletionWatcher(selector.waiting, listener.open_series, selector.decide, chosen.quiet_period_s)


def package_of(settings: Settings) -> ModelPackage:
    """The model package that the settings name."""
    from engine.models import find_model

    return find_model(settings.engine.model, settings.engine.model_dirs)


def options_of(settings: Settings) -> SessionOptions:
    """How a network is to be run; what the settings leave open is still open in it."""
    from engine.backends import SessionOptions, cores

    chosen = settings.engine
    return SessionOptions(
        threads=chosen.threads or cores(),
        precision=chosen.precision,
        batch=chosen.batch,
        cache=cache_of(settings),
        libraries=chosen.plugin_libraries,
        portable=chosen.portable_plans,
        device=chosen.device,
    )


def cache_of(settings: Settings) -> Path:
    """Where plans, timings and the measurement of the backends are kept."""
    return settings.node.state_dir / "engine"


def session_of(settings: Settings, package: ModelPackage) -> Session:
    """Decide what runs the network, once, load it there, and hold it against the network's own answers.

    Raises:
        BackendError: the backend cannot be used or does not answer as the network does; no other takes its place.
    """
    from engine import choice
    from engine.backends import load_backend, open_session
    from engine.gate import admit

    options = options_of(settings)
    wanted = choice.Candidate(settings.engine.backend, options.precision)
    decision = choice.decide(wanted, cache_of(settings), partial(choice.conditions_of, package, options))
    serving = choice.Candidate(decision.backend, decision.precision)
    session = open_session(serving.backend, package, choice.options_for(serving, options))
    found = admit(session, package)
    how = {"precision": session.precision, "device": str(session.device), "batch": session.batch}
    why = {"source": decision.source, "why": decision.why, "error_of_logits": found and round(found.error, 6)}
    versions = choice.library_versions((load_backend(plugin(BACKENDS, decision.backend)),))
    log.event("backend.chosen", backend=session.name, **how, threads=options.threads, **why, versions=versions)
    return session


def workshop_of(settings: Settings) -> Workshop:
    """Load the model and keep it warm; takes seconds.

    Raises:
        ModelError: the package is missing or damaged.
        BackendError: what should run it cannot be used here, or does not answer as the network does.
        DicomIoError: a text of the package would fit no result.
    """
    from dicom_io.heading import check_texts
    from dicom_io.warm import warm_up
    from engine.segment import Segmenter
    from node.stages import Workshop

    package = package_of(settings)
    session = session_of(settings, package)
    words = {"training": package.training_statement, "attribution": package.attribution}
    made_with = {"version": package.version, "digest": package.digest, "backend": session.name}
    log.event("model.loaded", model=package.name, intended_use=package.intended_use, **made_with, **words)
    parts = credits_of(settings, session.name)
    log.event("plugins.chosen", plugins=[str(part) for part in parts])
    workshop = Workshop(
        package=package,
        segmenter=Segmenter(package, session, settings.engine.overlap, settings.engine.boundary),
        backend=session.name,
        precision=session.precision,
        rules=rules_of(settings),
        software_version=software_version(),
        writers=writers_of(settings),
        plugins=parts,
        policies=policies_of(settings),
        kernels=kernels_of(settings),
    )
    warm_up()
    check_texts(workshop.provenance("", now()), {writer.name: writer.kind for writer in workshop.writers})
    return workshop


def rules_of(settings: Settings) -> SeriesRules:
    """Which series are taken."""
    return SeriesRules(settings.series.min_slices, settings.series.min_coverage_mm)


def policies_of(settings: Settings) -> dict[str, Policy]:
    """What each flag means, by its code."""
    return {code: Policy(policy) for code, policy in settings.flags.model_dump().items()}


def kernels_of(settings: Settings) -> OwnKernels:
    """What the site says of its reconstruction kernels."""
    return OwnKernels(settings.selection.soft_kernels, settings.selection.sharp_kernels)


def selection_rules_of(settings: Settings) -> SelectionRules:
    """Which series of a study is segmented."""
    chosen = settings.selection
    return SelectionRules(
        modalities=chosen.modalities,
        body_parts=chosen.body_parts,
        descriptions=chosen.descriptions,
        not_descriptions=chosen.not_descriptions,
        not_image_types=chosen.not_image_types,
        max_oblique_deg=chosen.max_oblique_deg,
        min_slices=settings.series.min_slices,
        min_coverage_mm=settings.series.min_coverage_mm,
        max_spacing_mm=chosen.max_spacing_mm,
        contrast=ContrastPolicy(chosen.contrast),
        prefer=chosen.prefer,
        thin_floor_mm=chosen.thin_floor_mm,
        kernels=kernels_of(settings),
    )


def selection_plan_of(settings: Settings) -> SelectionPlan:
    """The rules of selection, and when a study is decided on."""
    chosen = settings.selection
    skip = chosen.late_better == "skip"
    wait_s = chosen.wait_s or settings.listener.quiet_period_s
    return SelectionPlan(selection_rules_of(settings), wait_s, chosen.longest_wait_s, skip)


def software_version() -> str:
    """Our version, as installed."""
    return version(OUR_DISTRIBUTION)


def executor_id(settings: Settings, role: str) -> str:
    """The id under which this node's worker or sender runs jobs: stable over restarts, unique among nodes."""
    return f"{identity_of(settings.node.state_dir)}-{role}"


def add_worker(engine: JobEngine, base: Base, workshop: Workshop, wrap: Wrap | None = None) -> None:
    """Let a job engine segment. `wrap` may stand between the pipeline and the engine; the tests' kill does."""
    from node.work import JobLedger, Worker

    ledger = JobLedger(engine.session, base.queue, tuple(base.settings.destinations))
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
