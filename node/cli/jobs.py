"""`vastus jobs`: what became of the series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer
from rich.console import Group
from rich.table import Table
from sqlalchemy.orm import Session

from db.errors import UnknownRow
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


def jobs(  # noqa: PLR0913 - one argument an option of the command
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Show this job with all its flags.")] = None,
    settings: SettingsFile = None,
    limit: Annotated[int, typer.Option(help="Show the newest this many.", min=1)] = 20,
    status: Annotated[JobStatus | None, typer.Option(help="Show those of one status only.")] = None,
    retry: Annotated[
        str | None,
        typer.Option(
            metavar="JOB", help="Run a failed job again, or one that was parked for a lack of memory or not selected."
        ),
    ] = None,
    resend: Annotated[str | None, typer.Option(metavar="JOB", help="Send again what a destination refused.")] = None,
) -> None:
    """List the newest jobs: status, reason, time and deliveries; show one; or set a failed one going again."""
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
            shown = _table(list_jobs(session, limit, status)) if job is None else _details(session, job)
        queue.close()
    finally:
        engine.dispose()
    CONSOLE.print(shown)


def _details(session: Session, job_id: str) -> Group:
    """One job.

    Raises:
        UnknownRow: there is none of that id.
    """
    from db.queries import flags_of, job_summary
    from node.cli.job_details import details

    summary = job_summary(session, job_id)
    if summary is None:
        raise UnknownRow(f"job {job_id}", "the database does not hold it", "List what it holds: vastus jobs")
    return details(summary, flags_of(session, job_id))


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
            " ".join(filter(None, (job.reason, _changed(job)))) or "-",
        )
    return table


def _changed(job: JobSummary) -> str:
    """That there are other versions of the job's instances; the decision about them is a person's."""
    if not job.changed:
        return ""
    versions = "1 other version" if job.changed == 1 else f"{job.changed} other versions"
    return f"Of its images {versions} came under the same UIDs; this run was made without."
