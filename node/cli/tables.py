"""Tables for people: the figures of a report, and the time of each stage."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.table import Table

from dicom_io.findings import Figure
from engine.labels import LabelSet, Side, Structure, thigh29

Truth = Mapping[tuple[str, Side], float]
"""True volumes in ml by structure and side; only a synthetic scan has them."""


def muscle_table(figures: Sequence[Figure], truth: Truth, label_set: LabelSet | None = None) -> Table:
    """Volume and mean attenuation of every structure, right and left, with the true volume where there is one."""
    table = Table(title="Muscles and bones", title_justify="left", box=box.SIMPLE, padding=0, pad_edge=False)
    table.add_column("structure", no_wrap=True)
    for side in Side:
        table.add_column(f"{side.value} ml", justify="right", no_wrap=True)
        if truth:
            table.add_column("true ml", justify="right", style="dim", no_wrap=True)
        table.add_column("mean HU", justify="right", no_wrap=True)
    found = {(each.structure, each.side, each.quantity): each for each in figures}
    group = None
    for structure in (label_set or thigh29()).structures:
        if group not in (None, structure.group):
            table.add_section()
        group = structure.group
        table.add_row(structure.display, *_cells(structure, found, truth))
    return table


def _cells(structure: Structure, found: Mapping[tuple[str, Side, str], Figure], truth: Truth) -> Iterable[str]:
    for side in Side:
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
