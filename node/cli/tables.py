"""Tables for people: the figures of a report, and the time of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table

from dicom_io.findings import Figure
from engine.labels import BOTH_SIDES, LabelSet, Side, Structure, side_word

Found = Mapping[tuple[str, Side | None, str], Figure]
Truth = Mapping[tuple[str, Side | None], float]
"""True volumes in ml by structure and side; only a synthetic scan has them."""


def structure_table(figures: Sequence[Figure], truth: Truth, label_set: LabelSet) -> Table:
    """Volume and mean attenuation of every structure on its sides, with the true volume where there is one."""
    table = Table(title=label_set.title, title_justify="left", box=box.SIMPLE, padding=0, pad_edge=False)
    table.add_column("structure", no_wrap=True)
    sides = columns_of(label_set)
    for side in sides:
        table.add_column(f"{side_word(side)} ml".strip(), justify="right", no_wrap=True)
        if truth:
            table.add_column("true ml", justify="right", style="dim", no_wrap=True)
        table.add_column("mean HU", justify="right", no_wrap=True)
    found = {(each.structure, each.side, each.quantity): each for each in figures}
    group = None
    for structure in label_set.structures:
        if group not in (None, structure.group):
            table.add_section()
        group = structure.group
        table.add_row(structure.display, *_cells(structure, sides, found, truth))
    return table


def columns_of(label_set: LabelSet) -> tuple[Side | None, ...]:
    """The sides that occur: right and left, and None for structures that have none."""
    return tuple(side for side in (*BOTH_SIDES, None) if any(side in each.sides for each in label_set.structures))


def _cells(structure: Structure, sides: Iterable[Side | None], found: Found, truth: Truth) -> Iterable[str]:
    for side in sides:
        if side not in structure.sides:
            yield from ("", "", "") if truth else ("", "")
            continue
        volume, mean = (found.get((structure.key, side, quantity)) for quantity in ("volume", "mean_hu"))
        yield "not found" if volume is None else f"{volume.value:.1f}{'*' if 'truncated' in volume.flags else ''}"
        if truth:
            yield f"{truth.get((structure.key, side), 0.0):.1f}"
        yield "-" if mean is None else f"{mean.value:.1f}"


def stage_table(stage_seconds: Mapping[str, float]) -> Table:
    """Seconds of each stage, and in all."""
    table = Table(title="Stages", title_justify="left")
    table.add_column("stage")
    table.add_column("seconds", justify="right")
    for name, seconds in stage_seconds.items():
        table.add_row(name, f"{seconds:.2f}")
    table.add_section()
    table.add_row("in all", f"{sum(stage_seconds.values()):.2f}")
    return table
