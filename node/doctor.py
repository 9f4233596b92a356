"""What `vastus doctor` looks at: everything that the service needs, each with its finding."""

from __future__ import annotations

import errno
import os
import platform
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import packages_distributions, version
from pathlib import Path

from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from config.settings import Destination, Settings
from db.session import check_schema, open_database
from engine.backends import resolve
from engine.errors import VastusError
from engine.models import find_model
from node import compose
from node.errors import NetworkError, SpoolError
from node.findings import Finding, examine_parts
from node.parts import OUR_PACKAGES, refuse_strangers, writers_of

ECHO_TIMEOUT_S = 5.0
LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "torch", "monai", "openvino", "onnxruntime", "dbos")


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything, one finding after another; a finding that is not fine never hides the next one."""
    checks: tuple[tuple[str, Callable[[], str]], ...] = (
        ("settings", lambda: _settings(settings)),
        ("package names", _package_names),
        ("libraries", _libraries),
        ("model", lambda: _model(settings)),
        ("backend", lambda: f"{settings.engine.backend} means {resolve(settings.engine.backend)} here"),
        ("writers", lambda: _writers(settings)),
        ("state folder", lambda: _space(settings)),
        ("database", lambda: _database(settings)),
        ("listener", lambda: _listener(settings)),
    )
    for subject, check in checks:
        yield _found(subject, check)
    yield from examine_parts(settings)
    for name, destination in settings.destinations.items():
        yield _found(f"destination {name}", partial(echo, destination, settings.node.ae_title))


def _found(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, check())
    except VastusError as error:
        return Finding(subject, False, f"{error.thing}: {error.reason}", error.remedy)
    except OSError as error:
        return Finding(subject, False, error.strerror or str(error), "Look at the setting of that name")


def _settings(settings: Settings) -> str:
    compose.refuse_settings(settings)
    peers = ", ".join(settings.listener.calling_ae_titles)
    return f"{settings.node.ae_title} takes series from {peers}"


def _package_names() -> str:
    refuse_strangers(packages_distributions())
    return f"{', '.join(OUR_PACKAGES)} are ours alone"


def _writers(settings: Settings) -> str:
    return f"{', '.join(writer.name for writer in writers_of(settings))}, sent in this order"


def _libraries() -> str:
    return ", ".join((f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in LIBRARIES)))


def _model(settings: Settings) -> str:
    package = find_model(settings.engine.model, settings.engine.model_dirs)
    words = " ".join(part for part in (package.training_statement, package.attribution) if part)
    return f"{package.name} {package.version}, digest {package.digest[:12]}. {package.intended_use}. {words}"


def _space(settings: Settings) -> str:
    compose.refuse_folder(settings)
    folder = _nearest(settings.node.state_dir)
    free_mib = shutil.disk_usage(folder).free >> 20
    limit_mib = settings.listener.soft_free_mib
    if free_mib < limit_mib:
        reason = f"{free_mib} MiB are free, associations are rejected below {limit_mib} MiB"
        raise SpoolError(f"folder {folder}", reason, "Free space, or lower listener.soft_free_mib")
    return f"{settings.node.state_dir}, {free_mib} MiB free"


def _nearest(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _database(settings: Settings) -> str:
    kind = settings.database_url.partition(":")[0]
    if kind == "sqlite" and not Path(settings.database_url.removeprefix("sqlite:///")).exists():
        return "sqlite, made at the first start"
    engine = open_database(settings.database_url)
    try:
        check_schema(engine)
    finally:
        engine.dispose()
    return f"{kind}, tables of this version"


def _listener(settings: Settings) -> str:
    """Whether the port is free for a start, or held by a node that answers."""
    port = settings.listener.port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.listener.host, port))
        except PermissionError as error:
            reason = f"user id {os.geteuid()} may not listen on it"
            raise NetworkError(f"port {port}", reason, "Choose a port above 1023") from error
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return _who_holds(settings)
            reason = error.strerror or str(error)
            remedy = "Choose an address of this machine as listener.host, or 0.0.0.0"
            raise NetworkError(f"address {settings.listener.host}:{port}", reason, remedy) from error
    return f"port {port} is free"


def _who_holds(settings: Settings) -> str:
    """A port that is in use is fine where a node of this AE title answers on it."""
    host = "127.0.0.1" if settings.listener.host == "0.0.0.0" else settings.listener.host
    itself = Destination(ae_title=settings.node.ae_title, host=host, port=settings.listener.port)
    return f"a node runs: {echo(itself, settings.listener.calling_ae_titles[0])}"


def echo(destination: Destination, calling_ae: str) -> str:
    """C-ECHO a destination (PS3.4 Annex A).

    Raises:
        NetworkError: it does not answer.
    """
    entity = AE(ae_title=calling_ae)
    entity.acse_timeout = entity.dimse_timeout = entity.connection_timeout = ECHO_TIMEOUT_S
    entity.add_requested_context(Verification)
    place = f"{destination.ae_title} at {destination.host}:{destination.port}"
    try:
        association = entity.associate(destination.host, destination.port, ae_title=destination.ae_title)
    except OSError as error:  # a name that no resolver knows
        raise NetworkError(place, error.strerror or str(error), "Correct the host, or its entry in the DNS") from error
    if not association.is_established:
        remedy = f"Check address, port and AE title, and that it knows {calling_ae}"
        raise NetworkError(place, "it cannot be reached, or rejects the association", remedy)
    status = association.send_c_echo()
    association.release()
    if "Status" not in status or status.Status != 0x0000:
        raise NetworkError(place, "it does not answer C-ECHO with success", "Look into its log")
    return f"{place} answers"
