"""Plug-ins: parts that an installed distribution offers by name through an entry point.

Ours come through the same door. An entry point is a name and a place; the place is imported when its name is chosen,
never before, so that a part whose libraries are missing harms nobody. A name that two distributions offer is refused:
which of them ran would be a matter of chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points

from engine.errors import PluginError

BACKENDS = "vastus.backends"
MODELS = "vastus.models"
WRITERS = "vastus.writers"
GROUPS = (BACKENDS, MODELS, WRITERS)


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

    def load(self) -> object:
        """Import the part.

        Raises:
            PluginError: it cannot be imported.
        """
        try:
            loaded: object = self.entry_point.load()
        except (ImportError, AttributeError) as error:
            reason = f"{self.entry_point.value} of {self.origin} cannot be imported: {error}"
            raise PluginError(f"plug-in {self.group}:{self.name}", reason, "Install it again, or remove it") from error
        return loaded


def plugins(group: str) -> Mapping[str, Plugin]:
    """Every part of a group by its name; imports none of them.

    Raises:
        PluginError: two distributions offer the same name.
    """
    found: dict[str, list[Plugin]] = defaultdict(list)
    for entry in entry_points(group=group):
        if entry.dist is not None:
            found[entry.name].append(Plugin(group, entry.name, entry.dist.name, entry.dist.version, entry))
    for name, offers in found.items():
        if len(offers) > 1:
            who = " and ".join(sorted(offer.origin for offer in offers))
            raise PluginError(f"plug-in {group}:{name}", f"{who} both offer it", "Uninstall one of them")
    return {name: offers[0] for name, offers in sorted(found.items())}
