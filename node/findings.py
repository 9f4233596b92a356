"""What `vastus doctor` finds: one value for everything that is looked at, and a look at every installed plug-in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from config.settings import Settings
from dicom_io.writers import load_writer
from engine.backends import load_backend
from engine.errors import PluginError, VastusError
from engine.models import source_of
from engine.plugins import BACKENDS, GROUPS, MODELS, ROLES, WRITERS, Plugin, offers, only_one


@dataclass(frozen=True)
class Finding:
    """One thing looked at: fine, or what is wrong and what to do."""

    subject: str
    fine: bool
    words: str
    remedy: str = ""


def _backend(plugin: Plugin) -> str | None:
    return load_backend(plugin).missing()


def _model(plugin: Plugin) -> str | None:
    source_of(plugin).load()
    return None


def _writer(plugin: Plugin) -> str | None:
    return load_writer(plugin).missing()


MISSING: Mapping[str, Callable[[Plugin], str | None]] = MappingProxyType(
    {BACKENDS: _backend, MODELS: _model, WRITERS: _writer}
)
"""For each group, what imports a part and tells what it lacks here, or None."""


def examine_parts(settings: Settings) -> Iterator[Finding]:
    """Look at every installed plug-in: who brings it, and whether it could be chosen.

    One that is not chosen and could not be is no fault of the node; one whose name two distributions offer is.
    """
    chosen = {(BACKENDS, settings.engine.backend), (MODELS, settings.engine.model)}
    chosen |= {(WRITERS, name) for name in settings.results.writers}
    for group in GROUPS:
        for name, candidates in offers(group).items():
            yield _examined(candidates, (group, name) in chosen)


def _examined(candidates: tuple[Plugin, ...], chosen: bool) -> Finding:
    first = candidates[0]
    subject = f"{ROLES[first.group]} {first.name}"
    try:
        plugin = only_one(candidates)
    except PluginError as error:
        return Finding(subject, False, error.reason, error.remedy)
    try:
        reason = MISSING[plugin.group](plugin)
    except VastusError as error:
        return Finding(subject, not chosen, f"{plugin.origin}: cannot be used: {error.reason}", error.remedy)
    if reason is None:
        return Finding(subject, True, f"{plugin.origin}: available" + (", chosen" if chosen else ""))
    remedy = f"Install what it needs, or choose another {ROLES[plugin.group]}" if chosen else ""
    return Finding(subject, not chosen, f"{plugin.origin}: not available: {reason}", remedy)
