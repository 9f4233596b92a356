"""The model card: what a model is for, what it was trained on, how it did and where it fails, in Markdown.

What is said comes from a file of words, what is counted from the run and the judgement; where it fails is told by rule
from the judgement's own table. The same judgement is kept as CSV and JSON.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError, with_config

from engine.networks import UnetrShape
from engine.preprocessing import Preprocessing
from engine.training.errors import TrainingError

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
STRICT = ConfigDict(extra="forbid")


@with_config(STRICT)
@dataclass(frozen=True)
class CardWords:
    """What is said of a model.

    Attributes:
        name: the package's name.
        intended_use: what it is for, and what not.
        phrase: what it was trained on, in a few words.
        data: the same as a clause after "Trained on".
        data_in_full: the same as a paragraph.
        attribution: whose work the data stand on; empty where there is none.
        licence: of the weights.
        label_rules: what the labels mean where their names do not say it.
        limits: where it fails for reasons that no table shows.
    """

    name: Words
    intended_use: Words
    phrase: Words
    data: Words
    data_in_full: Words
    attribution: str
    licence: Words
    label_rules: tuple[Words, ...]
    limits: tuple[Words, ...]


@dataclass(frozen=True)
class TrainingRun:
    """How a model was trained.

    Attributes:
        network: its sizes.
        preprocessing: what it expects to see.
        parameters: weights in all.
        preset: name or description of the way it was trained.
        steps: of all phases.
        hours: spent in them.
        machine: the kind of machine, as `two CPU cores`.
    """

    network: UnetrShape
    preprocessing: Preprocessing
    parameters: int
    preset: str
    steps: int
    hours: float
    machine: str


@with_config(STRICT)
@dataclass(frozen=True)
class StructureScore:
    """One structure over all judged scans that show it, right and left alike; None where a figure is undefined.

    Attributes:
        key: the structure's.
        display: its name for people.
        group: its group's key.
        dice_mean: mean Dice.
        dice_min: least Dice of one scan.
        assd_mm: mean of the average symmetric surface distance.
        volume_ratio: mean of predicted over true volume.
        volume_correlation: Pearson's, between predicted and true volumes.
        n: scans and sides.
    """

    key: str
    display: str
    group: str
    dice_mean: float | None
    dice_min: float | None
    assd_mm: float | None
    volume_ratio: float | None
    volume_correlation: float | None
    n: int


@with_config(STRICT)
@dataclass(frozen=True)
class ScanTypeScore:
    """One kind of scan over all structures; `what` says what it is, `n` counts scans."""

    name: str
    what: str
    dice_mean: float | None
    assd_mm: float | None
    n: int


@with_config(STRICT)
@dataclass(frozen=True)
class Totals:
    """All structures of all judged scans; each structure counts the same.

    Attributes:
        scans: how many.
        dice_mean: mean of the structures' mean Dice.
        dice_least: the least of the structures' mean Dice.
        assd_mm: mean of the structures' mean ASSD.
        volume_correlation: mean of the structures' correlations.
        wrong_sides: structures that lie on the other side in a scan.
    """

    scans: int
    dice_mean: float
    dice_least: float
    assd_mm: float
    volume_correlation: float
    wrong_sides: int


@with_config(STRICT)
@dataclass(frozen=True)
class Judgement:
    """How a model did on scans that it had not seen.

    Attributes:
        model_digest: the package's, so that no two are confused.
        structures: one row each.
        scan_types: one row each.
        totals: over all.
        remarks: sentences on what no table holds, as what it found in scans that show no thigh.
    """

    model_digest: Words
    structures: tuple[StructureScore, ...]
    scan_types: tuple[ScanTypeScore, ...]
    totals: Totals
    remarks: tuple[Words, ...] = ()


@dataclass(frozen=True)
class Limit:
    """A figure of a structure beyond which the card names it: below `least`, or above `most`."""

    words: str
    figure: Callable[[StructureScore], float | None]
    least: float = float("-inf")
    most: float = float("inf")


LIMITS = (
    Limit("mean Dice below 0.85", lambda row: row.dice_mean, least=0.85),
    Limit("Dice below 0.60 in at least one scan", lambda row: row.dice_min, least=0.60),
    Limit("mean surface distance above 2 mm", lambda row: row.assd_mm, most=2.0),
    Limit("predicted volume more than 10 % off the true one on average", lambda row: row.volume_ratio, 0.9, 1.1),
    Limit("volume correlation below 0.90", lambda row: row.volume_correlation, least=0.90),
    Limit("no figure at all: shown by none of the scans", lambda row: float(row.n), least=1.0),
)


KIND_LEAST_DICE = 0.85
"""A kind of scan whose mean Dice is lower is named too."""


def load_words(name: str) -> CardWords:
    """Read what is said of a model.

    Args:
        name: of one that ships, or the path of a file that ends in `.toml`.

    Raises:
        TrainingError: there is none of that name, or something in it is missing, unknown or empty.
    """
    source = Path(name) if name.endswith(".toml") else files("engine.training").joinpath("cards", f"{name}.toml")
    thing = f"words {name}"
    try:
        return TypeAdapter(CardWords).validate_python(tomllib.loads(source.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(thing, f"they cannot be read: {error}", "Name a file that ends in .toml") from error
    except ValidationError as error:
        raise TrainingError(thing, _first_fault(error), "Compare them with those of compact") from error


def training_statement(words: CardWords, run: TrainingRun, judgement: Judgement | None) -> str:
    """What the model was trained on and how it did, in the few sentences that go with every result."""
    made = f"Trained on {words.data}: a UNETR, {run.steps} steps on {run.machine}."
    if judgement is None:
        return f"{made} It was not judged."
    found = judgement.totals
    return (
        f"{made} On {found.scans} synthetic scans that it had not seen its mean Dice is {found.dice_mean:.2f} and its "
        f"mean surface distance {found.assd_mm:.1f} mm; on patients both are unknown."
    )


def failures(judgement: Judgement) -> list[tuple[str, list[str]]]:
    """The limits that structures or kinds of scan are beyond, each with their names."""
    kinds = [row.name for row in judgement.scan_types if row.dice_mean is not None and row.dice_mean < KIND_LEAST_DICE]
    found = [(limit.words, [row.display for row in judgement.structures if _is_beyond(limit, row)]) for limit in LIMITS]
    found.append((f"kinds of scan with a mean Dice below {KIND_LEAST_DICE:.2f}", kinds))
    return [(rule, names) for rule, names in found if names]


def model_card(words: CardWords, version: str, run: TrainingRun, judgement: Judgement) -> str:
    """The card, in Markdown."""
    sections = (
        [f"# Model card: {words.name} {version}", f"**{words.intended_use}.** {_sentence(words.phrase)}"],
        ["## What it was trained on", words.data_in_full, words.attribution],
        ["## What it is", _network_table(run)],
        ["## How it does on synthetic scans that it had not seen", *_accuracy(judgement)],
        ["## Where it fails", *_failing(words, judgement)],
        ["## What the labels mean", _bullets(words.label_rules)],
        ["## How MONAI reads it", _MONAI.strip()],
    )
    return "\n\n".join(part for section in sections for part in section if part) + "\n"


def judgement_csv(judgement: Judgement) -> str:
    """The structures' table as CSV; an undefined figure is an empty field."""
    text = io.StringIO()
    columns = [field.name for field in fields(StructureScore)]
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for row in judgement.structures:
        table.writerow({name: "" if value is None else _short(value) for name, value in asdict(row).items()})
    return text.getvalue()


def judgement_json(judgement: Judgement) -> str:
    """The whole judgement as JSON."""
    return json.dumps(asdict(judgement), indent=2, allow_nan=False) + "\n"


def read_judgement(path: Path) -> Judgement:
    """Read a judgement that was kept as JSON.

    Raises:
        TrainingError: the file cannot be read, or is no judgement.
    """
    remedy = "Judge the model anew"
    try:
        return TypeAdapter(Judgement).validate_json(path.read_bytes())
    except OSError as error:
        raise TrainingError(f"file {path}", f"it cannot be read: {error.strerror}", remedy) from error
    except ValidationError as error:
        raise TrainingError(f"file {path}", f"it is no judgement: {_first_fault(error)}", remedy) from error


_MONAI = """
The package is a MONAI bundle. `configs/inference.json` builds the network with its weights, the transforms and the
sliding window; the output is classes without sides, on the scan's own grid. Telling right from left, and keeping the
air around the body out, is left to Vastus.

```python
from monai.bundle import ConfigParser

bundle = ConfigParser()
bundle.read_config("configs/inference.json")
bundle["bundle_root"] = "."                          # the package's folder
network = bundle.get_parsed_content("network")       # with its weights, on the GPU where there is one
preprocessing = bundle.get_parsed_content("preprocessing")
inferer = bundle.get_parsed_content("inferer")
```

With pytorch-ignite and fire beside MONAI this segments a folder of NIfTI scans:

```sh
python -m monai.bundle run --config_file configs/inference.json --bundle_root . --dataset_dir FOLDER --output_dir FOLDER
```
"""


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the whole'}: {first['msg']}"


def _is_beyond(limit: Limit, row: StructureScore) -> bool:
    figure = limit.figure(row)
    return figure is not None and not limit.least <= figure <= limit.most


def _network_table(run: TrainingRun) -> str:
    shape, seen = run.network, run.preprocessing
    rows = (
        ("network", f"UNETR (MONAI), {run.parameters / 1e6:.1f} million weights, kept as float16"),
        (
            "sizes",
            f"feature {shape.feature_size}, hidden {shape.hidden_size}, MLP {shape.mlp_dim}, {shape.num_heads} heads",
        ),
        ("grid (z, y, x)", f"{_times(seen.spacing_mm)} mm, windows of {_times(seen.window)} voxels"),
        ("attenuation", f"{seen.hu_low:g} to {seen.hu_high:g} HU become 0 to 1, exponent {seen.gamma:g}"),
        ("training", f"preset {run.preset}, {run.steps} steps, {run.hours:.1f} h on {run.machine}"),
    )
    return _table(("", ""), rows, "ll")


def _accuracy(judgement: Judgement) -> Iterable[str]:
    found = judgement.totals
    wrong = "every structure on its right side" if not found.wrong_sides else f"{found.wrong_sides} on the wrong side"
    yield (
        f"{found.scans} scans of persons, poses and scanners that it had not seen: mean Dice {found.dice_mean:.3f} "
        f"(least of a structure {found.dice_least:.3f}), mean surface distance {found.assd_mm:.2f} mm, "
        f"volume correlation {found.volume_correlation:.3f}, {wrong}. **On patients all of this is unknown.**"
    )
    kinds = [
        (row.name, row.what, str(row.n), _figure(row.dice_mean, 3), _figure(row.assd_mm, 2))
        for row in judgement.scan_types
    ]
    yield _table(("kind of scan", "what it is", "scans", "Dice", "ASSD mm"), kinds, "llrrr")
    yield _bullets(judgement.remarks)
    yield "ASSD: average symmetric surface distance. Volumes are predicted over true; n counts scans and sides."
    rows = [
        (
            row.display,
            row.group,
            _figure(row.dice_mean, 3),
            _figure(row.dice_min, 3),
            _figure(row.assd_mm, 2),
            _figure(row.volume_ratio, 2),
            _figure(row.volume_correlation, 3),
            str(row.n),
        )
        for row in judgement.structures
    ]
    columns = ("structure", "group", "Dice", "least", "ASSD mm", "volume", "correlation", "n")
    yield _table(columns, rows, "llrrrrrr")


def _failing(words: CardWords, judgement: Judgement) -> Iterable[str]:
    found = failures(judgement)
    if found:
        yield "By rule, from the tables above:"
        yield _bullets(f"{rule}: {', '.join(names)}." for rule, names in found)
    else:
        yield f"No structure is beyond a limit of this card: {'; '.join(limit.words for limit in LIMITS)}."
    yield "And whatever the table says:"
    yield _bullets(words.limits)


def _sentence(phrase: str) -> str:
    return f"{phrase[0].upper()}{phrase[1:]}."


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    rules = [{"l": "---", "r": "---:"}[each] for each in align]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rules, *rows))


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _short(value: float | str) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _times(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
