"""Packages are found by name, wherever they lie; a name never leads to two."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from flat_model import write_flat_package

from engine import models
from engine.errors import ModelError, PluginError
from engine.models import compact, find_model, model_sources
from engine.package import METADATA
from engine.plugins import MODELS, Plugin

PLACE = Path("unset")


def own_folder() -> str:
    """What a plug-in's entry point may lead to."""
    return str(PLACE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_flat_package(tmp_path / "models" / "two-d")
    shutil.rmtree(tmp_path / "models" / "two-d-files")
    (tmp_path / "models" / "notes").mkdir()
    return tmp_path / "models"


def offered(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    plugin = Plugin(MODELS, name, "stranger", "3.1", EntryPoint(name, value, MODELS))
    monkeypatch.setattr(models, "plugins", lambda _: {name: plugin})


def test_the_programs_own_comes_through_an_entry_point() -> None:
    source = model_sources()["compact"]
    assert source.origin.startswith("vastus ") and source.folder() == compact()
    assert find_model("compact").name == "compact"


def test_a_folder_holds_packages_or_is_one(folder: Path) -> None:
    assert find_model("tissues", [folder]).folder == folder / "two-d"
    assert find_model("tissues", [folder / "two-d"]).folder == folder / "two-d"
    assert set(model_sources([folder])) == {"compact", "tissues"}
    assert "two-d" in model_sources([folder])["tissues"].origin


def test_a_plug_in_leads_to_a_folder_or_to_what_gives_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.PLACE", folder / "two-d")
    for value in (f"{__name__}:own_folder", f"{__name__}:PLACE"):
        offered(monkeypatch, "tissues", value)
        assert find_model("tissues").folder == folder / "two-d"
    assert model_sources()["tissues"].origin == "stranger 3.1"


def test_a_plug_in_that_leads_elsewhere_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(monkeypatch, "tissues", f"{__name__}:MODELS_OF_NOBODY")
    with pytest.raises(PluginError, match="cannot be imported"):
        find_model("tissues")
    offered(monkeypatch, "tissues", "engine.gate:STEP")
    with pytest.raises(PluginError, match="leads to no folder"):
        find_model("tissues")
    offered(monkeypatch, "muscles", "engine.models:compact")
    with pytest.raises(ModelError, match="is named compact"):
        find_model("muscles")


def test_a_name_that_two_places_offer_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "two-d", tmp_path / "other" / "again")
    with pytest.raises(ModelError, match=r"two-d and folder .*again both offer it"):
        model_sources([folder, tmp_path / "other"])
    write_flat_package(tmp_path / "third" / "own", name="compact")
    with pytest.raises(ModelError, match=r"vastus .* and folder .*own both offer it"):
        find_model("compact", [tmp_path / "third"])


@pytest.mark.parametrize("name", ["nothing-of-this-name", "../packages/compact", "", "a/b"])
def test_a_model_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="there is no package of this name"):
        find_model(name)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read") as refused:
        model_sources([tmp_path / "absent"])
    assert "model_dirs" in refused.value.remedy


def test_a_damaged_package_is_listed_and_refused_when_chosen(folder: Path) -> None:
    (folder / "two-d" / METADATA).write_text("{", encoding="utf-8")
    assert set(model_sources([folder])) == {"compact", "two-d"}
    with pytest.raises(ModelError, match="metadata"):
        find_model("two-d", [folder])


def test_a_monai_bundle_without_our_section_is_refused_with_the_reason(folder: Path) -> None:
    path = folder / "two-d" / METADATA
    metadata = json.loads(path.read_text(encoding="utf-8"))
    del metadata["vastus"]
    path.write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(ModelError, match="vastus: Field required"):
        find_model("two-d", [folder])
