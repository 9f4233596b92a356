"""The command `vastus`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.markup import escape

from engine.errors import VastusError
from node.cli import demo, doctor, evaluate, jobs, model, rules, segment, serve, train
from node.cli.console import CONSOLE, ERRORS, tell
from node.faults import frames_of
from node.privacy import words_of

REFUSED_STATUS = 2
FAULT_STATUS = 1

app = typer.Typer(
    name="vastus",
    help="A PACS node that segments and measures the muscles of the thigh on CT.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for group in (serve, demo, segment, train, evaluate, model, rules, jobs, doctor):
    group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        CONSOLE.print(f"vastus {version('vastus')}", highlight=False)
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """A PACS node that segments and measures the muscles of the thigh on CT."""


def main() -> None:
    """Run one command; the boundary of the command line, where every error becomes words and an exit status."""
    try:
        app()
    except VastusError as error:
        tell(error)
        sys.exit(REFUSED_STATUS)
    except Exception as error:  # noqa: BLE001 - boundary of the command line: a bug is told as one
        # Neither what a foreign message quotes nor the values of variables: either may name a patient.
        ERRORS.print(f"[bold red]This is a fault of Vastus.[/] {escape(words_of(error))}")
        for frame in frames_of(error):
            ERRORS.print(f"  {escape(frame)}", highlight=False)
        ERRORS.print("Please report these lines.")
        sys.exit(FAULT_STATUS)


if __name__ == "__main__":
    main()
