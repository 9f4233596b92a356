"""`vastus doctor`: what is missing before the service can run."""

from __future__ import annotations

import typer
from rich.markup import escape
from rich.table import Table

from node.cli.console import CONSOLE, SettingsFile, settings_of

UNFIT_STATUS = 1


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(settings: SettingsFile = None) -> None:
    """Look at settings, plug-ins, model, disk, database, port and destinations; exit status 1 where one is unfit."""
    from node.doctor import examine

    chosen = settings_of(settings)
    table = Table(show_lines=True)
    for column in ("", "what", "finding"):
        table.add_column(column, overflow="fold")
    unfit = 0
    with CONSOLE.status("looking"):
        for finding in examine(chosen):
            unfit += not finding.fine
            words = escape(finding.words) + (f"\n[bold]{escape(finding.remedy)}[/]" if finding.remedy else "")
            table.add_row("[green]fine[/]" if finding.fine else "[red]unfit[/]", finding.subject, words)
    CONSOLE.print(table)
    if unfit:
        CONSOLE.print(f"[red]{unfit} of these must be mended before the service can do its work.[/]")
        raise typer.Exit(UNFIT_STATUS)
    CONSOLE.print("[green]The node can do its work.[/]")
