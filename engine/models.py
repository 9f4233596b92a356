"""Model packages by name: those in the folders of the settings, those of installed plug-ins, and the program's own.

Ours come through the same door as others': an entry point of the group `vastus.models` leads to the package's folder,
or to a function without arguments that gives it. A name that two places offer is refused.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

from engine.errors import ModelError, PluginError
from engine.package import METADATA, ModelPackage, load_package, name_of
from engine.plugins import MODELS, Plugin, plugins


@dataclass(frozen=True)
class ModelSource:
    """Where a package of some name is to be had; nothing of it has been read or imported.

    Attributes:
        name: the package's name.
        origin: who brings it: a distribution with its version, or a folder.
        folder: gives the package's folder; a plug-in is imported for it.
    """

    name: str
    origin: str
    folder: Callable[[], Path]

    def load(self) -> ModelPackage:
        """Read and check the package.

        Raises:
            PluginError: its plug-in cannot be imported, or leads to no folder.
            ModelError: it is damaged, or has another name.
        """
        folder = self.folder()
        package = load_package(folder)
        if package.name != self.name:
            reason = f"the package in {folder} is named {package.name}"
            raise ModelError(f"model {self.name}", reason, "Give entry point and package the same name")
        return package


def compact() -> Path:
    """The folder of the package that comes with the program."""
    return Path(str(files("engine"))) / "packages" / "compact"


def model_sources(folders: Iterable[Path] = ()) -> Mapping[str, ModelSource]:
    """Every package that is to be had, by name; imports no plug-in.

    Args:
        folders: each holds packages, one a folder, or is a package itself.

    Raises:
        ModelError: a folder is missing, or two places offer the same name.
        PluginError: two distributions offer the same name.
    """
    found: dict[str, ModelSource] = {}
    offered = [source_of(plugin) for plugin in plugins(MODELS).values()]
    for source in (*offered, *(each for folder in folders for each in _in_folder(folder))):
        other = found.setdefault(source.name, source)
        if other is not source:
            reason = f"{other.origin} and {source.origin} both offer it"
            raise ModelError(f"model {source.name}", reason, "Remove one of them, or give one another name")
    return dict(sorted(found.items()))


def find_model(name: str, folders: Iterable[Path] = ()) -> ModelPackage:
    """The package of that name, read and checked.

    Args:
        name: the package's name.
        folders: see `model_sources`.

    Raises:
        ModelError: there is none, two places offer it, or it is damaged.
        PluginError: two distributions offer it, or its plug-in cannot be imported.
    """
    known = model_sources(folders)
    if name not in known:
        remedy = f"Choose one of: {', '.join(known)}" if known else "Install the program again"
        raise ModelError(f"model {name!r}", "there is no package of this name", remedy)
    return known[name].load()


def source_of(plugin: Plugin) -> ModelSource:
    """The package that a plug-in offers; it is imported when the package is loaded."""

    def folder() -> Path:
        place = plugin.load()
        if callable(place):
            place = place()
        if not isinstance(place, str | os.PathLike):
            reason = f"{plugin.entry_point.value} of {plugin.origin} leads to no folder"
            raise PluginError(f"plug-in {MODELS}:{plugin.name}", reason, "Uninstall it, or ask its maker")
        return Path(place)

    return ModelSource(plugin.name, plugin.origin, folder)


def _may_enter(place: Path) -> bool:
    """Whether it is a folder that this process may look into; `lost+found` of a volume is none."""
    return place.is_dir() and os.access(place, os.R_OK | os.X_OK)


def _in_folder(folder: Path) -> Iterator[ModelSource]:
    """The packages of a folder; one whose metadata cannot be read goes by its folder's name until it is chosen."""
    try:
        places = [folder] if (folder / METADATA).is_file() else sorted(filter(_may_enter, folder.iterdir()))
    except OSError as error:
        remedy = "Correct engine.model_dirs, or the rights of the folder"
        raise ModelError(f"folder {folder}", f"it cannot be read ({error.strerror})", remedy) from error
    for place in places:
        if (place / METADATA).is_file():
            yield ModelSource(name_of(place) or place.name, f"folder {place}", partial(Path, place))
