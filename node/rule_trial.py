"""The rules of selection, tried without effect: on the files of a folder, or on what a node has received."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine

from db import queries
from db.session import now, transaction
from dicom_io.errors import DicomIoError, NotUnderstood
from dicom_io.facts import facts_of, restored
from dicom_io.select import Decision, SelectionRules, SeriesFacts, select
from dicom_io.series import SeriesRef, find_series
from node.errors import JobsError
from node.spool import Spool

UNREADABLE = "unreadable"
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Tried:
    """What the rules would do with one series.

    Attributes:
        study_uid: its study.
        facts: what the rules know of it; None where its files cannot be read.
        decision: what they decide, as if all of the study had arrived.
    """

    study_uid: str
    facts: SeriesFacts | None
    decision: Decision


def try_folder(folder: Path, rules: SelectionRules) -> tuple[Tried, ...]:
    """Try the rules on every series below a folder; damaged files are told at the end, those with one reason together.

    Raises:
        DicomIoError: the folder holds no DICOM, or a file cannot be opened.
    """
    damaged: dict[str, list[str]] = defaultdict(list)

    def remember(error: NotUnderstood) -> None:
        damaged[error.reason].append(error.thing)

    found = _tried(((ref.study_uid, ref.series_uid, _read(ref)) for ref in find_series(folder, remember)), rules)
    return (*found, *(_damaged(reason, things) for reason, things in damaged.items()))


def try_received(database: Engine, spool: Spool, since: timedelta, rules: SelectionRules) -> tuple[Tried, ...]:
    """Try the rules on every study of which something arrived lately; what SQL does not know is read from the spool."""
    with transaction(database) as session:
        known = queries.series_since(session, now() - since)
        files = {each.id: queries.series_files(session, each.id) for each in known if each.facts is None}
    found = []
    for each in known:
        paths = tuple(spool.path_of(path) for path in files.get(each.id, ()))
        read = _read(SeriesRef(each.study_uid, each.series_uid, paths)) if each.facts is None else restored(each.facts)
        found.append((each.study_uid, each.series_uid, read))
    return _tried(found, rules)


def period_of(text: str) -> timedelta:
    """A period as `7d`: a number with m, h, d or w.

    Raises:
        JobsError: it is none.
    """
    match = re.fullmatch(r"(\d{1,4})([mhdw])", text)
    if match is None:
        raise JobsError(f"period {text}", "it is none", "Write a number with m, h, d or w, as in --since 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def _damaged(reason: str, things: list[str]) -> Tried:
    name = things[0] + (f" and {len(things) - 1} more" if things[1:] else "")
    return Tried("", None, Decision(name, UNREADABLE, reason, {}))


def _tried(found: Iterable[tuple[str, str, SeriesFacts | None]], rules: SelectionRules) -> tuple[Tried, ...]:
    studies: dict[str, dict[str, SeriesFacts | None]] = defaultdict(dict)
    for study_uid, series_uid, facts in found:
        studies[study_uid][series_uid] = facts
    return tuple(
        Tried(study_uid, facts, decision)
        for study_uid, series in sorted(studies.items())
        for facts, decision in _decided(series, rules)
    )


def _decided(
    series: Mapping[str, SeriesFacts | None], rules: SelectionRules
) -> Iterable[tuple[SeriesFacts | None, Decision]]:
    decided = select([facts for facts in series.values() if facts is not None], rules)
    for series_uid, facts in sorted(series.items()):
        yield facts, decided.get(series_uid) or Decision(series_uid, UNREADABLE, "its files cannot be read", {})


def _read(ref: SeriesRef) -> SeriesFacts | None:
    try:
        return facts_of(ref)
    except DicomIoError:
        return None
