"""`vastus serve`: the service."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from node.cli.console import SettingsFile, settings_of


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(serve)


def serve(
    settings: SettingsFile = None,
    pretty: Annotated[bool, typer.Option("--pretty", help="Log lines for people in place of JSON.")] = False,
) -> None:
    """Receive, segment and deliver until stopped; the service that systemd runs."""
    from node import log, service

    if pretty:
        os.environ["VASTUS__LOG__PRETTY"] = "true"  # the processes of the service read their settings themselves
    chosen = settings_of(settings)
    log.configure(chosen.log.level, chosen.log.pretty, process="serve")
    log.event("settings.loaded", file=None if settings is None else str(settings))
    service.serve(chosen, settings)
