"""`vastus rules`: what the rules of selection would do, without doing it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from config.settings import Settings
from node.cli.console import CONSOLE, SettingsFile, refuse_absent, settings_of

if TYPE_CHECKING:
    from node.rule_trial import Tried

STYLES = {"selected": "green", "not_selected": "yellow"}
Folder = Annotated[Path | None, typer.Argument(metavar="DIR", help="A folder with DICOM files, or --since.")]
Since = Annotated[str | None, typer.Option(metavar="PERIOD", help="What the node received in a period, as 7d or 12h.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="The rules that say which series is segmented.", no_args_is_help=True)
    group.callback()(_group)
    group.command("test")(test)
    app.add_typer(group, name="rules")


def _group() -> None:
    """The rules that say which series is segmented."""


def test(folder: Folder = None, since: Since = None, as_json: AsJson = False, settings: SettingsFile = None) -> None:
    """Try the rules on a folder, or on what was received, and tell for each series what decides; nothing is changed."""
    chosen = settings_of(settings)
    if (folder is None) == (since is None):
        raise typer.BadParameter("name either a folder or --since")
    tried = _try(chosen, folder, since)
    if as_json:
        typer.echo(json.dumps([_plain(each) for each in tried], indent=1))
        return
    CONSOLE.print(_table(tried))


def _try(settings: Settings, folder: Path | None, since: str | None) -> tuple[Tried, ...]:
    from db.session import check_schema, open_database
    from node.compose import selection_rules_of, spool_of
    from node.rule_trial import period_of, try_folder, try_received

    rules = selection_rules_of(settings)
    if folder is not None:
        return try_folder(folder, rules)
    period = period_of(since or "")
    refuse_absent(settings)
    engine = open_database(settings.database_url)
    try:
        check_schema(engine)
        return try_received(engine, spool_of(settings), period, rules)
    finally:
        engine.dispose()


def _plain(tried: Tried) -> dict[str, object]:
    decision = tried.decision
    return {
        "study_uid": tried.study_uid,
        "series_uid": decision.series_uid,
        "selected": decision.selected,
        "code": decision.code,
        "reason": decision.reason,
        "winner_uid": decision.winner_uid,
        "by": dict(decision.by),
    }


def _table(found: tuple[Tried, ...]) -> Table:
    taken = sum(each.decision.selected for each in found)
    table = Table(title=f"{taken} of {len(found)} series would be segmented", title_justify="left")
    for column in ("series", "decision", "code", "reason", "what decided"):
        table.add_column(column, overflow="fold")
    study = None
    for each in found:
        if study not in (None, each.study_uid):
            table.add_section()
        study, decision = each.study_uid, each.decision
        style = STYLES.get(decision.code, "red")
        word = "segment" if decision.selected else "leave"
        by = ", ".join(f"{name}={value}" for name, value in decision.by.items())
        cells = (decision.code, decision.reason, by)
        table.add_row(escape(_name(each)), f"[{style}]{word}[/]", *map(escape, cells))
    return table


def _name(tried: Tried) -> str:
    facts = tried.facts
    words = "" if facts is None else f"{facts.description or facts.protocol}\n"
    return f"{words}{tried.decision.series_uid}"
