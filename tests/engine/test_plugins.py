from __future__ import annotations

import sys
from pathlib import Path

import pytest
from plugins.environments import metadata_in

from engine.errors import PluginError
from engine.plugins import BACKENDS, GROUPS, OUR_DISTRIBUTION, ROLES, WRITERS, Credit, offers, only_one, plugin, plugins

EXPLOSIVE = "raise RuntimeError('imported before it was chosen')\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose distributions count as installed."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_ours_come_through_the_same_door() -> None:
    found = {group: {name: part.distribution for name, part in plugins(group).items()} for group in GROUPS}
    assert {"openvino", "onnxruntime", "torch"} <= set(found[BACKENDS])
    assert set(found[WRITERS]) == {"seg", "sr", "sc"}
    assert {who for named in found.values() for who in named.values()} == {OUR_DISTRIBUTION}
    assert list(ROLES.values()) == ["backend", "model", "writer"]


def test_a_part_is_found_by_its_metadata_alone(installed: Path) -> None:
    metadata_in(installed, "some-parts", {WRITERS: {"note": "some_parts:NOTE"}}, {"some_parts": EXPLOSIVE})
    found = plugins(WRITERS)["note"]
    assert found.credit == Credit("writer", "note", "some-parts", "9.9")
    assert str(found.credit) == "writer note of some-parts 9.9"
    assert not found.credit.ours and plugins(WRITERS)["seg"].credit.ours
    assert plugin(WRITERS, "note") == found
    assert "some_parts" not in sys.modules


def test_a_name_that_two_offer_is_refused_with_both_named(installed: Path) -> None:
    metadata_in(installed, "some-rival", {BACKENDS: {"openvino": "some_rival:BACKEND"}}, {"some_rival": EXPLOSIVE})
    with pytest.raises(PluginError, match=r"openvino: some-rival 9\.9 and vastus .* both offer it\. Uninstall one"):
        plugins(BACKENDS)
    assert [part.distribution for part in offers(BACKENDS)["openvino"]] == ["some-rival", "vastus"]
    assert set(plugins(WRITERS)) == {"seg", "sr", "sc"}, "another group is as it was"


@pytest.mark.parametrize("name", ["Big", "with space", "a/b", "-x", "x" * 65])
def test_a_name_that_cannot_be_written_everywhere_is_refused(installed: Path, name: str) -> None:
    metadata_in(installed, "some-odd", {WRITERS: {name: "some_odd:NOTE"}}, {"some_odd": EXPLOSIVE})
    with pytest.raises(PluginError, match=r"some-odd 9\.9 offers it under a name"):
        plugins(WRITERS)
    with pytest.raises(PluginError, match="under a name"):
        only_one(offers(WRITERS)[name])


@pytest.mark.parametrize(
    ("place", "reason"), [("some_broken:ABSENT", "ABSENT"), ("not_there_at_all:X", "not_there_at_all")]
)
def test_what_cannot_be_imported_is_refused_when_it_is_chosen(installed: Path, place: str, reason: str) -> None:
    metadata_in(installed, "some-broken", {WRITERS: {"note": place}}, {"some_broken": ""})
    with pytest.raises(PluginError, match=f"cannot be imported.*{reason}.*Install some-broken again"):
        plugin(WRITERS, "note").load()


@pytest.mark.parametrize(
    "text",
    [
        "import ctypes; ctypes.CDLL('libnot-there.so')",
        "raise RuntimeError('no driver')",
        "raise ValueError('odd')",
        "raise TypeError('odd')",
        "import os; os.environ['NOT_SET_HERE']",
        "not_a_name",
        "def (",
    ],
)
def test_a_module_that_fails_while_it_is_imported_is_refused_with_its_distribution(installed: Path, text: str) -> None:
    metadata_in(installed, "some-faulty", {WRITERS: {"note": "some_faulty:NOTE"}}, {"some_faulty": text})
    with pytest.raises(PluginError, match=r"some-faulty 9\.9: some_faulty:NOTE cannot be imported: \w+Error: ."):
        plugin(WRITERS, "note").load()
    sys.modules.pop("some_faulty", None)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PluginError, match=r"no installed distribution offers it.*sc, seg, sr"):
        plugin(WRITERS, "poem")
