"""The table that `vastus evaluate` ends with."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from engine.evaluation.scores import Presence
from engine.evaluation.summary import Evaluation, Overall, RegionSummary
from engine.evaluation.tables import number_cell

COLUMNS = (
    "Dice",
    "lowest",
    "ASSD\nmm",
    "ASSD\nfound",
    "HD95\nmm",
    "RAVD\n%",
    "HU\nerror",
    "VC",
    "ICC\n(2,1)",
    "missed",
    "in-\nvented",
)
DIGITS = {"hd95_mm": 1, "ravd_percent": 1, "hu_error": 1}


def evaluation_table(found: Evaluation) -> Table:
    """Structures, then groups, with both sides together, then the means of the structures' means."""
    table = Table(title="Predictions against truth", title_justify="left", box=box.SIMPLE, padding=0, pad_edge=False)
    table.add_column("structure", no_wrap=True)
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    kind = None
    for summary in found.regions:
        if summary.region.side is not None:
            continue
        if kind not in (None, summary.region.kind):
            table.add_section()
        kind = summary.region.kind
        table.add_row(*_region_cells(summary))
    table.add_section()
    for overall in found.overall:
        table.add_row(*_overall_cells(overall))
    return table


def _region_cells(summary: RegionSummary) -> list[str]:
    dice, volumes = summary.statistics.get("dice"), summary.volumes
    icc = None if volumes is None or volumes.icc is None else volumes.icc.icc21.value
    means = {key: each.mean for key, each in summary.statistics.items()}
    assd = summary.statistics.get("assd_mm")
    return [
        summary.region.display,
        number_cell(means.get("dice"), 3),
        number_cell(None if dice is None else dice.lowest, 3),
        number_cell(None if assd is None else assd.mean, 2),
        number_cell(None if assd is None else assd.mean_found, 2),
        *_means(means),
        number_cell(None if volumes is None else volumes.pearson, 3),
        number_cell(icc, 3),
        *_presence(summary.presence),
    ]


def _overall_cells(overall: Overall) -> list[str]:
    side = "both" if overall.side is None else overall.side.value
    return [
        f"{overall.name}, {side}",
        number_cell(overall.means.get("dice"), 3),
        "",
        number_cell(overall.means.get("assd_mm"), 2),
        number_cell(overall.means_found.get("assd_mm"), 2),
        *_means(overall.means),
        number_cell(overall.pearson, 3),
        number_cell(overall.icc21, 3),
        *_presence(overall.presence),
    ]


def _means(means: Mapping[str, float]) -> list[str]:
    return [number_cell(means.get(key), digits) for key, digits in DIGITS.items()]


def _presence(presence: Mapping[Presence, int]) -> list[str]:
    return [str(presence[each] or "") for each in (Presence.MISSED, Presence.INVENTED)]
