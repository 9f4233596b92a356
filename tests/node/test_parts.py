"""Plug-ins as the node chooses, credits and refuses them, and as `vastus doctor` shows them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plugins.environments import metadata_in

from config.settings import Settings
from engine.errors import PluginError
from engine.plugins import BACKENDS, MODELS, WRITERS, Credit
from node.errors import ServiceError
from node.findings import Finding, examine_parts
from node.parts import OUR_PACKAGES, credits_of, refuse_rivals, refuse_strangers, writers_of


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose distributions count as installed."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.subject: finding for finding in examine_parts(settings)}


def settings_with(*writers: str) -> Settings:
    return Settings.model_validate({"results": {"writers": writers}})


@pytest.mark.parametrize("package", OUR_PACKAGES)
def test_another_distribution_with_a_name_of_ours_is_refused(package: str) -> None:
    claims = {name: ["vastus"] for name in OUR_PACKAGES}
    refuse_strangers(claims)
    with pytest.raises(
        ServiceError, match=f"package {package}: the distribution stranger claims .* Uninstall stranger"
    ):
        refuse_strangers({**claims, package: ["vastus", "stranger"]})


def test_rivals_are_refused_chosen_or_not(installed: Path) -> None:
    refuse_rivals()
    metadata_in(installed, "some-rival", {MODELS: {"compact": "some_rival:folder"}}, {"some_rival": ""})
    with pytest.raises(PluginError, match=r"compact: some-rival .* both offer it"):
        refuse_rivals()


def test_the_writers_of_the_settings_are_made_and_credited() -> None:
    settings = settings_with("sr", "seg")
    assert [writer.name for writer in writers_of(settings)] == ["seg", "sr"]
    parts = credits_of(settings, "openvino")
    assert [(part.role, part.name, part.ours) for part in parts] == [
        ("backend", "openvino", True),
        ("model", "compact", True),
        ("writer", "sr", True),
        ("writer", "seg", True),
    ]


def test_a_model_of_a_folder_is_nobody_s_plug_in(installed: Path) -> None:
    metadata_in(installed, "some-lines", {BACKENDS: {"lines": "some_lines:X"}}, {"some_lines": "raise RuntimeError"})
    settings = Settings.model_validate({"engine": {"model": "mine"}, "results": {"writers": ["seg"]}})
    first, second = credits_of(settings, "lines")
    assert first == Credit("backend", "lines", "some-lines", "9.9")
    assert second.role == "writer"
    assert "some_lines" not in sys.modules


@pytest.mark.parametrize("writers", [[], ["seg", "seg"], ["Seg"], ["a/b"], ["x" * 17]])
def test_settings_refuse_writers_that_can_be_none(writers: list[str]) -> None:
    with pytest.raises(ValueError, match="writers"):
        settings_with(*writers)


def test_doctor_shows_each_part_with_who_brings_it(installed: Path) -> None:
    text = "from test_parts import Lacking\nX = Lacking()"
    offered = {WRITERS: {"broken": "some_parts:ABSENT", "lacking": "some_parts:X", "seg": "some_parts:X"}}
    metadata_in(installed, "some-parts", offered, {"some_parts": text})
    shown = found(settings_with("sr"))
    assert shown["writer sr"].words == "vastus 0.1.0: available, chosen"
    assert shown["writer sc"].words == "vastus 0.1.0: available"
    assert shown["backend onnxruntime"].fine and shown["model compact"].fine
    broken, rival = shown["writer broken"], shown["writer seg"]
    assert broken.fine, "nobody chose it"
    assert broken.words.startswith("some-parts 9.9: cannot be used: ") and "ABSENT" in broken.words
    assert broken.remedy.startswith("Install some-parts again")
    assert (rival.fine, rival.remedy) == (False, "Uninstall one of them")
    assert rival.words == "some-parts 9.9 and vastus 0.1.0 both offer it"
    assert shown["writer lacking"] == Finding("writer lacking", True, "some-parts 9.9: not available: no ink")


@pytest.mark.parametrize("name", ["broken", "lacking"])
def test_doctor_finds_a_chosen_part_that_cannot_work_unfit(installed: Path, name: str) -> None:
    text = "from test_parts import Lacking\nX = Lacking()"
    offered = {WRITERS: {"broken": "some_parts:ABSENT", "lacking": "some_parts:X"}}
    metadata_in(installed, "some-parts", offered, {"some_parts": text})
    finding = found(settings_with(name))[f"writer {name}"]
    assert not finding.fine
    assert finding.remedy


class Lacking:
    """A writer that lacks something."""

    name = "lacking"
    refers_to = ()

    def __init__(self) -> None:
        from dicom_io.kinds import RESULT_KINDS

        self.kind = RESULT_KINDS["sc"]

    def missing(self) -> str | None:
        return "no ink"

    def write(self, request: object, out: object) -> None:
        raise NotImplementedError
