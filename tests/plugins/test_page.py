"""`docs/plugins.md` against the program: every name, place and setting in it exists."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from config.settings import Settings
from db.models import Job
from engine.plugins import GROUPS, NAME_FORM
from node.events import EVENTS
from node.parts import OUR_PACKAGES
from plugins.environments import EXAMPLE, REPO

PAGE = REPO / "docs" / "plugins.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", TEXT, flags=re.DOTALL)]

PLACES = {
    "Backend": "engine.backends",
    "Session": "engine.backends",
    "check_precision": "engine.backends",
    "check_device": "engine.backends",
    "BackendError": "engine.errors",
    "write_package": "engine.bundle",
    "ModelCard": "engine.bundle",
    "Contract": "engine.contract",
    "Preprocessing": "engine.preprocessing",
    "LabelSet": "engine.labels",
    "Structure": "engine.labels",
    "Coding": "engine.labels",
    "ask": "engine.gate",
    "store": "engine.gate",
    "Writer": "dicom_io.writers",
    "ResultKind": "dicom_io.kinds",
    "maker_attributes": "dicom_io.heading",
    "adopt": "dicom_io.heading",
}
"""Where what the page names without its module is."""


def code(pattern: str) -> set[str]:
    """What stands between back-quotes and is of that form as a whole."""
    prose = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
    return {word for word in re.findall(r"`([^`\n]+)`", prose) if re.fullmatch(pattern, word)}


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", TEXT)
    assert len(links) > 5
    assert [link for link in links if not (PAGE.parent / link).exists()] == []


def test_the_entry_points_are_those_of_the_example() -> None:
    example = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert BLOCKS[0]["project"]["entry-points"] == example
    assert set(example) == set(GROUPS) == code(r"vastus\.(backends|models|writers)")


def test_the_settings_shown_are_taken_and_name_the_example() -> None:
    settings = Settings.model_validate(BLOCKS[1])
    example = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]
    assert {settings.engine.backend} == set(example["vastus.backends"])
    assert {settings.engine.model} == set(example["vastus.models"])
    assert set(example["vastus.writers"]) <= set(settings.results.writers)
    for key in code(r"(engine|results)\.(backend|model|writers)"):
        section, name = key.split(".")
        assert name in type(getattr(settings, section)).model_fields


@pytest.mark.parametrize(("name", "module"), PLACES.items())
def test_every_name_is_where_the_example_finds_it(name: str, module: str) -> None:
    assert hasattr(importlib.import_module(module), name)
    assert re.search(rf"`{name}`", TEXT), f"the page no longer names {name}"


def test_no_name_is_left_unchecked() -> None:
    classes = code(r"[A-Z][a-z]+([A-Z][a-z]+)*") - {"None", "ContributingEquipmentSequence"}
    assert classes <= set(PLACES)
    dotted = code(r"(engine|dicom_io)\.[a-z]+\.[a-z_]+")
    assert dotted == {"engine.gate.admit"}
    assert all(hasattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2]) for name in dotted)


def test_what_the_page_says_of_names_columns_and_events_is_so() -> None:
    assert NAME_FORM in code(r"\[a-z0-9\].*")
    assert set(OUR_PACKAGES) <= code(r"[a-z_]+")
    assert {"plugins", "backend", "precision"} <= set(Job.__table__.columns.keys())
    assert {"plugins.chosen", "job.done"} <= set(EVENTS) & code(r"[a-z]+\.[a-z]+")


@pytest.mark.parametrize("path", sorted(EXAMPLE.glob("vastus_example/*.py")), ids=lambda path: path.name)
def test_each_part_of_the_example_is_as_short_as_promised(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 60
