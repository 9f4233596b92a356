"""Which plug-ins this node works with: chosen by the settings, credited to who brings them, refused where two do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from config.settings import Settings
from engine.plugins import BACKENDS, GROUPS, MODELS, OUR_DISTRIBUTION, WRITERS, Credit, plugins
from node.errors import ServiceError

if TYPE_CHECKING:
    from dicom_io.writers import Writer

OUR_PACKAGES = ("config", "db", "dicom_io", "engine", "node")


def writers_of(settings: Settings) -> tuple[Writer, ...]:
    """The writers that the settings name, in the order of sending.

    Raises:
        PluginError: one is missing, cannot be used, or refers to the object of one that is not chosen.
    """
    from dicom_io.writers import choose_writers

    return choose_writers(settings.results.writers)


def credits_of(settings: Settings, backend: str) -> tuple[Credit, ...]:
    """Whose backend, model and writers these are; a model from a folder of the settings is nobody's plug-in.

    Args:
        settings: name model and writers.
        backend: what runs the network; never `auto`.
    """
    writers = ((WRITERS, name) for name in settings.results.writers)
    chosen = ((BACKENDS, backend), (MODELS, settings.engine.model), *writers)
    return tuple(plugins(group)[name].credit for group, name in chosen if name in plugins(group))


def refuse_strangers(claims: Mapping[str, Iterable[str]]) -> None:
    """Our folders are top-level packages: another distribution with one of their names would change what runs.

    Args:
        claims: distributions by top-level package, as `importlib.metadata.packages_distributions` gives them.

    Raises:
        ServiceError: a distribution other than ours claims one of our names.
    """
    for package in OUR_PACKAGES:
        strangers = sorted(set(claims.get(package, ())) - {OUR_DISTRIBUTION})
        if strangers:
            who = ", ".join(strangers)
            raise ServiceError(
                f"package {package}",
                f"the distribution {who} claims its name",
                f"Uninstall {who}",
            )


def refuse_rivals() -> None:
    """Refuse two distributions that offer a part of one name, chosen or not: a setting must never become ambiguous.

    Raises:
        PluginError: there are such, or a name cannot be used.
    """
    for group in GROUPS:
        plugins(group)
