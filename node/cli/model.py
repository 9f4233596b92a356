"""`vastus model`: which model packages there are, what they are, and which backends answer as they should."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from config.settings import Settings
from node.cli import model_compile
from node.cli.console import CONSOLE, SettingsFile, settings_of

if TYPE_CHECKING:
    from engine.models import ModelSource
    from engine.package import ModelPackage
    from engine.verification import Verdict

REFUSED_STATUS = 1
DIGITS = 12
"""Of a digest, where a person compares it."""

Name = Annotated[str | None, typer.Argument(help="The package's name; without one the package of the settings.")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Model packages: list, show, verify, compile.", no_args_is_help=True)
    group.command("list")(list_models)
    group.command("show")(show)
    group.command("verify")(verify)
    model_compile.register(group)
    app.add_typer(group, name="model")


def list_models(settings: SettingsFile = None) -> None:
    """List every model package that is installed or lies in a folder of the settings."""
    from engine.models import model_sources

    chosen = settings_of(settings)
    table = Table()
    for column in ("name", "version", "from", "labels", "classes", "digest", "intended use"):
        table.add_column(column, overflow="fold")
    for source in model_sources(chosen.engine.model_dirs).values():
        name = f"[bold]{escape(source.name)}[/] *" if source.name == chosen.engine.model else escape(source.name)
        table.add_row(name, *map(escape, _listed(source)))
    CONSOLE.print(table)
    CONSOLE.print("*: the settings name it.")


def _listed(source: ModelSource) -> tuple[str, ...]:
    from engine.errors import VastusError

    try:
        package = source.load()
    except VastusError as error:
        return "", source.origin, "", "", "", f"refused: {error}"
    classes = str(package.label_set.class_count)
    digest = package.digest[:DIGITS]
    return package.version, source.origin, package.label_set.name, classes, digest, package.intended_use


def show(name: Name = None, settings: SettingsFile = None) -> None:
    """Show a package: its properties, its structures with their codes, and its card."""
    package = _package(name, settings_of(settings))
    table = Table(show_header=False)
    table.add_column("property", no_wrap=True)
    table.add_column("value", overflow="fold")
    for key, value in properties(package):
        table.add_row(key, escape(value))
    CONSOLE.print(table)
    CONSOLE.print(_structures(package))
    if package.readme is not None:
        CONSOLE.print(Markdown(package.readme.read_text(encoding="utf-8", errors="replace")))


def properties(package: ModelPackage) -> Iterator[tuple[str, str]]:
    """Everything that a package says of itself in few words."""
    model, contract, labels = package.preprocessing, package.contract, package.label_set
    yield "name", package.name
    yield "version", package.version
    yield "digest", package.digest
    yield "folder", str(package.folder)
    yield "task", package.task
    yield "intended use", package.intended_use
    yield "training", package.training_statement
    yield "attribution", package.attribution or "-"
    yield "labels", f"{labels.name}: {labels.class_count} classes, {len(labels.segments)} segments"
    yield "sides", "none" if labels.femur is None else f"told by the two parts of {labels.femur}"
    yield "expects", package.expects
    yield "attenuation", f"{model.hu_low:g} to {model.hu_high:g} HU, gamma {model.gamma:g}"
    yield "spacing", f"{' x '.join(f'{each:g}' for each in model.spacing_mm)} mm (z, y, x)"
    yield "window", f"{' x '.join(map(str, model.window))} voxels (z, y, x)"
    kind = f"{contract.dimensions} dimensions, ONNX opset {contract.opset}"
    yield "network", f"{contract.input} -> {contract.output}, {kind}"
    yield "files", ", ".join(_files(package))
    if package.limits is None:
        yield "gate", "none: no backend is held against anything"
    else:
        errors = ", ".join(f"{name} {error:g}" for name, error in package.limits.largest_error.items())
        least = f"least agreement {package.limits.least_agreement:g}, least Dice {package.limits.least_dice:g}"
        yield "gate", f"largest error of the logits {errors}; {least}"


def _files(package: ModelPackage) -> Iterator[str]:
    for path in (package.onnx, package.half_onnx, package.weights, package.windows):
        if path is not None:
            yield path.relative_to(package.folder).as_posix()


def _structures(package: ModelPackage) -> Table:
    table = Table(title=package.label_set.title, title_justify="left")
    for column in ("value", "key", "name", "group", "sides", "codes"):
        table.add_column(column, overflow="fold")
    for each in package.label_set.structures:
        codes = ", ".join(f"{code.scheme} {code.value} {code.meaning}" for code in each.codes)
        sides = "right, left" if each.paired else "-"
        table.add_row(str(each.value), each.key, escape(each.display), each.group, sides, escape(codes))
    return table


def verify(name: Name = None, settings: SettingsFile = None) -> None:
    """Hold every backend against the network's own answers; exit status 1 where the one that would serve is refused."""
    from engine import choice, verification
    from engine.backends import AUTO
    from node import compose

    chosen = settings_of(settings)
    package = _package(name, chosen)
    options = compose.options_of(chosen)
    wanted = choice.Candidate(chosen.engine.backend, options.precision)
    decision = choice.decide(wanted, compose.cache_of(chosen), partial(choice.conditions_of, package, options))
    serving = choice.Candidate(decision.backend, decision.precision)
    with CONSOLE.status("asking the backends"):
        verdicts = tuple(verification.verify(package, options, serving))
    CONSOLE.print(verdict_table(package, verdicts))
    for verdict in verdicts:
        if verdict.refused:
            name = verdict.backend if verdict.precision == AUTO else f"{verdict.backend} {verdict.precision}"
            CONSOLE.print(f"{name}: {verdict.refused}", highlight=False, markup=False)
    if package.limits is None:
        CONSOLE.print("The package has no gate: nothing was held against anything.")
    CONSOLE.print(f"*: what would serve: {decision.why}. Dice: of the worst class.", highlight=False, markup=False)
    if any(verdict.chosen and verdict.refused for verdict in verdicts):
        raise typer.Exit(REFUSED_STATUS)


def verdict_table(package: ModelPackage, verdicts: tuple[Verdict, ...]) -> Table:
    """What was found of each backend."""
    table = Table(title=f"{package.name} {package.version}", title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in ("backend", "here", "precision"):
        table.add_column(column, no_wrap=True)
    for column in ("error", "agreement", "Dice", "s a window"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True, min_width=7)
    for verdict in verdicts:
        name = f"{verdict.backend} *" if verdict.chosen else verdict.backend
        table.add_row(name, "yes" if verdict.available else "no", verdict.precision, *_figures(verdict), _word(verdict))
    return table


def _figures(verdict: Verdict) -> tuple[str, str, str, str]:
    found = verdict.found
    if found is None:
        return "-", "-", "-", "-"
    return f"{found.error:.2g}", f"{found.same_class:.3%}", f"{found.least_dice:.3f}", f"{found.window_s:.3f}"


def _word(verdict: Verdict) -> str:
    if not verdict.available:
        return "-"
    if verdict.refused:
        return "[red]refused[/]"
    return "[yellow]not checked[/]" if verdict.found is None else "[green]passed[/]"


def _package(name: str | None, settings: Settings) -> ModelPackage:
    from engine.models import find_model

    return find_model(name or settings.engine.model, settings.engine.model_dirs)
