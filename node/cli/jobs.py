"""`vastus jobs`: what became of the series."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from db.status import DeliveryStatus, JobStatus
from node.cli.console import CONSOLE, SettingsFile, settings_of

STYLES = {
    JobStatus.QUEUED: "cyan",
    JobStatus.RUNNING: "blue",
    JobStatus.DONE: "green",
    JobStatus.PARKED: "yellow",
    JobStatus.FAILED: "bold red",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(jobs)


def jobs(
    settings: SettingsFile = None,
    limit: Annotated[int, typer.Option(help="Show the newest this many.", min=1)] = 20,
    status: Annotated[JobStatus | None, typer.Option(help="Show those of one status only.")] = None,
) -> None:
    """List the newest jobs: status, reason, time and deliveries."""
    from db.queries import list_jobs
    from db.session import check_schema, open_database, transaction

    engine = open_database(settings_of(settings).database_url)
    try:
        check_schema(engine)
        with transaction(engine) as session:
            found = list_jobs(session, limit, status)
    finally:
        engine.dispose()
    table = Table(title=f"{len(found)} jobs, the newest first", title_justify="left")
    for column in ("made (UTC)", "series", "run", "status", "seconds", "delivered", "reason"):
        table.add_column(column, overflow="fold")
    for job in found:
        accepted = sum(job.deliveries.get(each, 0) for each in (DeliveryStatus.ACCEPTED, DeliveryStatus.WARNING))
        planned = sum(job.deliveries.values())
        table.add_row(
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            job.series_uid,
            str(job.run),
            f"[{STYLES[job.status]}]{job.status.value}[/]",
            "-" if job.seconds is None else f"{job.seconds:.1f}",
            f"{accepted} of {planned}" if planned else "-",
            job.reason or "-",
        )
    CONSOLE.print(table)
