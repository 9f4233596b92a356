"""Plug-ins: parts that an installed distribution offers by name through an entry point.

Ours come through the same door. An entry point is a name and a place; the place is imported when its name is chosen,
never before, so that a part whose libraries are missing harms nobody. A name that two distributions offer is refused:
which of them ran would be a matter of chance.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from engine.errors import PluginError

OUR_DISTRIBUTION = "vastus"
BACKENDS = "vastus.backends"
MODELS = "vastus.models"
WRITERS = "vastus.writers"
ROLES: Mapping[str, str] = MappingProxyType({BACKENDS: "backend", MODELS: "model", WRITERS: "writer"})
"""What a part of each group is called."""
GROUPS = tuple(ROLES)
NAME_FORM = r"[a-z0-9][a-z0-9._-]{0,63}"
"""How a part may be called: in settings, SQL and the names of files."""
MOST_WORDS = 300
"""Characters that are kept of what a library says."""
IMPORT_FAULTS = (
    ImportError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a module that another wrote may raise while it is imported: as OSError, where ctypes finds no library."""


@dataclass(frozen=True)
class Credit:
    """Who brought a part of what made a result.

    Attributes:
        role: `backend`, `model` or `writer`.
        name: how it was chosen.
        distribution: who brought it, as `pip` names it.
        version: that distribution's version.
    """

    role: str
    name: str
    distribution: str
    version: str

    @property
    def ours(self) -> bool:
        """Whether it came with the program."""
        return self.distribution == OUR_DISTRIBUTION

    def __str__(self) -> str:
        return f"{self.role} {self.name} of {self.distribution} {self.version}"


@dataclass(frozen=True)
class Plugin:
    """One part that an installed distribution offers.

    Attributes:
        group: what kind of part, one of `GROUPS`.
        name: how it is chosen.
        distribution: who brings it, as `pip` names it.
        version: that distribution's version.
        entry_point: where it lies.
    """

    group: str
    name: str
    distribution: str
    version: str
    entry_point: EntryPoint

    @property
    def origin(self) -> str:
        """Distribution and version, as `vastus 0.1.0`."""
        return f"{self.distribution} {self.version}"

    @property
    def credit(self) -> Credit:
        """The same, for what is written down."""
        return Credit(ROLES[self.group], self.name, self.distribution, self.version)

    def load(self) -> object:
        """Import the part.

        Raises:
            PluginError: it cannot be imported, or its module fails while it is.
        """
        try:
            loaded: object = self.entry_point.load()
        except IMPORT_FAULTS as error:
            words = f"{type(error).__name__}: {error}"
            raise self.refused(f"{self.entry_point.value} cannot be imported: {words}") from error
        return loaded

    def failed(self, doing: str, error: Exception) -> PluginError:
        """The error that tells of another one, which this part raised while it was in use.

        Args:
            doing: what it did, as `its session fails`.
            error: what it raised.
        """
        remedy = f"Report it to the maker of {self.distribution}, or choose another {ROLES[self.group]}"
        reason = f"{self.origin}: {doing}: {told(error)}"
        return PluginError(f"plug-in {self.group}:{self.name}", reason, remedy)

    def refused(self, reason: str) -> PluginError:
        """The error that refuses this part, for a reason that does not name its distribution yet."""
        remedy = f"Install {self.distribution} again in a version that fits, or uninstall it"
        return PluginError(f"plug-in {self.group}:{self.name}", f"{self.origin}: {reason}", remedy)


def told(error: Exception) -> str:
    """An error of another's code in one line: its kind, and the first `MOST_WORDS` characters of its words."""
    words = " ".join(str(error).split())[:MOST_WORDS]
    return f"{type(error).__name__}: {words}"


def offers(group: str) -> Mapping[str, tuple[Plugin, ...]]:
    """Everything that is offered in a group, by its name: where two distributions offer one, both. Imports nothing."""
    found: dict[str, list[Plugin]] = defaultdict(list)
    for entry in entry_points(group=group):
        if entry.dist is not None:
            found[entry.name].append(Plugin(group, entry.name, entry.dist.name, entry.dist.version, entry))
    return {name: tuple(sorted(found[name], key=lambda plugin: plugin.origin)) for name in sorted(found)}


def only_one(candidates: tuple[Plugin, ...]) -> Plugin:
    """The one part that is offered under a name.

    Raises:
        PluginError: there are several, or the name is none that can be written everywhere.
    """
    first, *others = candidates
    thing = f"plug-in {first.group}:{first.name}"
    if others:
        who = " and ".join(plugin.origin for plugin in candidates)
        raise PluginError(thing, f"{who} both offer it", "Uninstall one of them")
    if not re.fullmatch(NAME_FORM, first.name):
        reason = f"{first.origin} offers it under a name that is not of the form {NAME_FORM}"
        raise PluginError(thing, reason, f"Uninstall {first.distribution}, or ask its maker for another name")
    return first


def plugins(group: str) -> Mapping[str, Plugin]:
    """Every part of a group by its name; imports none of them.

    Raises:
        PluginError: two distributions offer the same name, or a name cannot be used.
    """
    return {name: only_one(candidates) for name, candidates in offers(group).items()}


def plugin(group: str, name: str) -> Plugin:
    """The part of that name.

    Raises:
        PluginError: nobody offers it, or two distributions do.
    """
    known = plugins(group)
    if name not in known:
        remedy = f"Install what offers it, or choose one of: {', '.join(known) or 'none is installed'}"
        raise PluginError(f"plug-in {group}:{name}", "no installed distribution offers it", remedy)
    return known[name]
