"""What the commands share: the console, the settings, and how an error is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from config.settings import Settings, SettingsProblem, load_settings
from engine.errors import VastusError
from node.errors import ServiceError, SettingsRefused

CONSOLE = Console()
ERRORS = Console(stderr=True)

SETTINGS_VARIABLE = "VASTUS_SETTINGS"
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        envvar=SETTINGS_VARIABLE,
        help="The settings file (TOML). Without one every setting has its default or comes from the environment.",
    ),
]


def settings_of(path: Path | None) -> Settings:
    """Read the settings; the variable that names the file is no setting itself.

    Raises:
        SettingsRefused: something in them is wrong.
    """
    environ = {name: value for name, value in os.environ.items() if name != SETTINGS_VARIABLE}
    try:
        return load_settings(path, environ)
    except SettingsProblem as problem:
        raise SettingsRefused.of(problem) from problem


def refuse_absent(settings: Settings) -> None:
    """See that a reader finds a database: opening an absent SQLite file would make one, owned by whoever looks.

    Raises:
        ServiceError: there is none yet.
    """
    kind, _, path = settings.database_url.partition(":///")
    if kind == "sqlite" and not Path(path).exists():
        raise ServiceError(f"database {path}", "there is none yet", "Start the service once, or name its --settings")


def tell(error: VastusError) -> None:
    """Tell a person what is affected, why, and what to do."""
    ERRORS.print(f"[bold red]Refused[/]  {escape(error.thing)}")
    ERRORS.print(f"[bold]Reason[/]   {escape(error.reason)}")
    ERRORS.print(f"[bold]Remedy[/]   {escape(error.remedy)}")
