"""One job on one screen: how it went, and what makes its scan less fit for measurement."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group
from rich.table import Table

from db.queries import JobSummary
from engine.flags import Policy, RaisedFlag

STYLES = {Policy.NOTE: "cyan", Policy.WARN: "yellow", Policy.REFUSE: "bold red"}


def details(job: JobSummary, raised: Sequence[RaisedFlag]) -> Group:
    """The tables of one job.

    Args:
        job: how it went.
        raised: its flags.
    """
    return Group(_facts(job), _flags(raised))


def _facts(job: JobSummary) -> Table:
    table = Table("what", "value", title=f"job {job.job_id}", title_justify="left", show_header=False)
    rows = (
        ("series", job.series_uid),
        ("run", str(job.run)),
        ("status", job.status.value),
        ("reason", " ".join(filter(None, (job.reason_code, job.reason)))),
        ("instances", str(job.instances)),
        ("made (UTC)", f"{job.created_at:%Y-%m-%d %H:%M:%S}"),
        ("model", job.model),
        ("backend", " ".join(filter(None, (job.backend, job.precision)))),
        ("seconds", ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in job.stage_seconds.items())),
        ("deliveries", ", ".join(f"{count} {status.value}" for status, count in job.deliveries.items())),
    )
    for name, value in rows:
        table.add_row(name, value or "-")
    return table


def _flags(raised: Sequence[RaisedFlag]) -> Table:
    table = Table(title=f"{len(raised)} flags", title_justify="left")
    for column in ("flag", "policy", "number", "unit", "words"):
        table.add_column(column, overflow="fold")
    for each in raised:
        flag, style = each.flag, STYLES[each.policy]
        number = "-" if flag.number is None else f"{flag.number:.4g}"
        table.add_row(flag.code, f"[{style}]{each.policy.value}[/]", number, flag.unit, flag.words)
    return table
