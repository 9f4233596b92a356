"""`vastus jobs`: what became of the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.table import Table

from db.queries import JobSummary
from db.status import DeliveryStatus, JobStatus
from node.cli.console import CONSOLE, SettingsFile, refuse_absent, settings_of

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
    retry: Annotated[
        str | None, typer.Option(metavar="JOB", help="Run a failed job again, or one parked for a lack of memory.")
    ] = None,
    resend: Annotated[str | None, typer.Option(metavar="JOB", help="Send again what a destination refused.")] = None,
) -> None:
    """List the newest jobs: status, reason, time and deliveries; or set a failed one going again."""
    from db.queries import list_jobs
    from db.session import check_schema, open_database, transaction
    from node.jobs import JobQueue

    chosen = settings_of(settings)
    refuse_absent(chosen)
    engine = open_database(chosen.database_url)
    try:
        check_schema(engine)
        queue = JobQueue(engine, chosen.engine.model)
        if retry is not None:
            CONSOLE.print(queue.retry(retry))
        if resend is not None:
            CONSOLE.print(queue.resend(resend))
        with transaction(engine) as session:
            found = list_jobs(session, limit, status)
        queue.close()
    finally:
        engine.dispose()
    CONSOLE.print(_table(found))


def _table(found: Sequence[JobSummary]) -> Table:
    table = Table(title=f"{len(found)} jobs, the newest first", title_justify="left")
    for column in ("made (UTC)", "job", "series", "run", "status", "seconds", "delivered", "reason"):
        table.add_column(column, overflow="fold")
    for job in found:
        accepted = sum(job.deliveries.get(each, 0) for each in (DeliveryStatus.ACCEPTED, DeliveryStatus.WARNING))
        planned = sum(job.deliveries.values())
        table.add_row(
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
            job.job_id,
            job.series_uid,
            str(job.run),
            f"[{STYLES[job.status]}]{job.status.value}[/]",
            "-" if job.seconds is None else f"{job.seconds:.1f}",
            f"{accepted} of {planned}" if planned else "-",
            job.reason or "-",
        )
    return table
