"""Reading the settings: defaults, file, environment, and what is said about faults."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from config.problems import line_of
from config.settings import Settings, SettingsProblem, load_settings


def load(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = tmp_path / "vastus.toml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environ)


def problem(tmp_path: Path, text: str, **environ: str) -> SettingsProblem:
    with pytest.raises(SettingsProblem) as caught:
        load(tmp_path, text, **environ)
    return caught.value


def test_defaults_are_enough() -> None:
    settings = load_settings(None, {})
    assert settings == Settings()
    assert (settings.node.ae_title, settings.listener.port, settings.destinations) == ("VASTUS", 11112, {})
    assert settings.database_url == "sqlite:////var/lib/vastus/vastus.db"


def test_the_file_stands_over_the_defaults_and_the_environment_over_the_file(tmp_path: Path) -> None:
    text = """
        [listener]
        port = 104
        quiet_period_s = 5
        calling_ae_titles = ["A", "B"]
        [destinations.main-pacs]
        ae_title = "PACS"
        host = "pacs.example"
        port = 104
    """
    settings = load(tmp_path, text, VASTUS__LISTENER__PORT="11113", VASTUS__NODE__STATE_DIR="/srv/v", HOME="/root")
    assert (settings.listener.port, settings.listener.quiet_period_s) == (11113, 5.0)
    assert settings.listener.calling_ae_titles == ("A", "B")
    assert settings.destinations["main-pacs"].host == "pacs.example"
    assert settings.database_url == "sqlite:////srv/v/vastus.db"


def test_environment_values_are_read_by_the_type_of_the_setting() -> None:
    settings = load_settings(
        None,
        {
            "VASTUS__NODE__AE_TITLE": "123",
            "VASTUS__LISTENER__CALLING_AE_TITLES": '["A"]',
            "VASTUS__LOG__PRETTY": "true",
            "VASTUS__LOG__LEVEL": "debug",
            "VASTUS__ENGINE__OVERLAP": "0.5",
            "VASTUS__DESTINATIONS__PACS__HOST": "10.0.0.1",
            "VASTUS__DESTINATIONS__PACS__PORT": "104",
            "VASTUS__DESTINATIONS__PACS__AE_TITLE": "PACS",
        },
    )
    assert (settings.node.ae_title, settings.listener.calling_ae_titles) == ("123", ("A",))
    assert (settings.log.pretty, settings.log.level, settings.engine.overlap) == (True, "debug", 0.5)
    assert settings.destinations["pacs"].port == 104


def test_settings_do_not_change_after_reading() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_settings(None, {}).listener.port = 1


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("[listener]\n\nprot = 11112", 3, "listener.prot", "Did you mean listener.port?"),
        ("[listner]\nport = 1", 1, "listner", "Did you mean listener?"),
        ("listener.prot = 1", 1, "listener.prot", "Did you mean listener.port?"),
        ("[node]\nport = 104", 2, "node.port", "Did you mean listener.port?"),
        ("[node]\nqqq = 104", 2, "node.qqq", "use one of: ae_title, state_dir"),
        ("[listener]\nport = 0", 2, "listener.port", "greater than or equal to 1"),
        ("[listener]\nport = 65536", 2, "listener.port", "less than or equal to 65535"),
        ("[listener]\nport = true", 2, "listener.port", "valid integer"),
        ('[listener]\nport = "104"', 2, "listener.port", "valid integer"),
        ("[listener]\nquiet_period_s = 0", 2, "listener.quiet_period_s", "greater than 0"),
        ("[listener]\nquiet_period_s = nan", 2, "listener.quiet_period_s", "finite number"),
        ("[listener]\nquiet_period_s = 2026-01-01", 2, "listener.quiet_period_s", "valid number"),
        ('[node]\nae_title = "SEVENTEEN-LETTERS"', 2, "node.ae_title", "not an AE title"),
        ('[node]\nae_title = "A\\\\B"', 2, "node.ae_title", "not an AE title"),
        ('[node]\nae_title = "A\\tB"', 2, "node.ae_title", "not an AE title"),
        ('[node]\nae_title = ""', 2, "node.ae_title", "not an AE title"),
        ('[node]\nae_title = " A"', 2, "node.ae_title", "not an AE title"),
        ('[node]\nae_title = "SÜD"', 2, "node.ae_title", "not an AE title"),
        ('[listener]\ncalling_ae_titles = ["A",\n "B\\\\"]', 2, "listener.calling_ae_titles.1", "not an AE title"),
        ('[node]\nstate_dir = "state"', 2, "node.state_dir", "not absolute"),
        ('[log]\nlevel = "loud"', 2, "log.level", "'debug', 'info', 'warning' or 'error'"),
        ('[database]\nurl = "mysql://h/d"', 2, "database.url", "Begin it with one of"),
        ('[engine]\nmodel = "../x"', 2, "engine.model", "match pattern"),
        ('[destinations.A_B]\nae_title="A"\nhost="h"\nport=1', 1, "destinations.A_B", "destination's name"),
        ('[destinations.pacs]\nae_title = "A"\nport = 1', 1, "destinations.pacs.host", "Add host"),
        ('[destinations]\npacs = {ae_title = "A", host = "h", port = 0}', 2, "destinations.pacs.port", "equal to 1"),
        ('[destinations.pacs]\nae_title="A"\nhost="a b"\nport=1', 3, "destinations.pacs.host", "not a host"),
        ("[listener]\nhard_free_mib = 4096", 1, "listener", "hard_free_mib is above soft_free_mib"),
        ("[delivery]\nlongest_retry_s = 0.5", 1, "delivery", "first_retry_s is above longest_retry_s"),
        ("[node]\nae_title = VASTUS", 2, "", "this is not TOML"),
        ('[node]\nae_title = "A', 2, "", "this is not TOML"),
    ],
)
def test_a_fault_is_told_with_file_line_key_and_remedy(
    tmp_path: Path, text: str, line: int, key: str, said: str
) -> None:
    found = problem(tmp_path, text)
    fault = found.faults[0]
    assert (fault.source, fault.line, fault.key) == (str(tmp_path / "vastus.toml"), line, key)
    assert said in str(fault)
    assert f"line {line}" in found.thing
    assert found.remedy.endswith((".", "?"))


def test_every_fault_is_told(tmp_path: Path) -> None:
    found = problem(tmp_path, "[listener]\nport = 0\nprot = 1", VASTUS__LOG__LEVEL="loud")
    assert [fault.line for fault in found.faults] == [2, 3, None]
    assert str(found).count("\n") == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VASTUS__LISTENER__PROT", "1"),
        ("VASTUS__PORT", "1"),
        ("VASTUS__", "1"),
        ("VASTUS__LISTENER__PORT", "many"),
        ("VASTUS__LISTENER__PORT__MORE", "1"),
        ("VASTUS__LISTENER", "1"),
        ("VASTUS__LISTENER__CALLING_AE_TITLES", "PACS"),
    ],
)
def test_a_fault_in_the_environment_names_the_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsProblem) as caught:
        load_settings(None, {name: value})
    assert caught.value.faults[0].source == name


def test_a_variable_cannot_go_below_a_value_of_the_file(tmp_path: Path) -> None:
    assert "not a table" in problem(tmp_path, "listener = 3", VASTUS__LISTENER__PORT="1").reason


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"# \xfc")
    for path, said in ((tmp_path / "none", "no such file"), (tmp_path, "cannot be read"), (tmp_path / "latin", "read")):
        with pytest.raises(SettingsProblem, match=said):
            load_settings(path, {})


def test_the_password_is_never_printed(tmp_path: Path) -> None:
    settings = load(tmp_path, '[database]\nurl = "postgresql://vastus:pass-word@db/vastus"')
    assert settings.database_url == "postgresql://vastus:pass-word@db/vastus"
    for text in (repr(settings), str(settings.database), settings.model_dump_json(), str(settings.model_dump())):
        assert "pass-word" not in text


@pytest.mark.parametrize("value", ["mysql://u:pass-word@h/d", "pass-word"])
def test_a_fault_never_repeats_the_password(tmp_path: Path, value: str) -> None:
    found = problem(tmp_path, f'[database]\nurl = "{value}"')
    assert "pass-word" not in str(found) + repr(found)
    assert "pass-word" not in str(problem(tmp_path, "", VASTUS__DATABASE__URL=value))


@given(st.text(st.characters(min_codepoint=1, max_codepoint=0x17F), max_size=20))
def test_an_ae_title_is_what_the_standard_allows(title: str) -> None:
    allowed = 1 <= len(title) <= 16 and title.strip(" ") == title and all(0x20 <= ord(c) <= 0x7E for c in title)
    try:
        settings = load_settings(None, {"VASTUS__NODE__AE_TITLE": title})
    except SettingsProblem:
        assert not allowed or "\\" in title
    else:
        assert allowed
        assert settings.node.ae_title == title


def test_a_line_is_found_by_its_key() -> None:
    text = '# [a]\n[a]\nb = 1\n[a.c] # d\n"e" = 2\n[f]\ng.h = 3\n'
    assert [line_of(text, key) for key in (("a", "b"), ("a", "c", "e"), ("f", "g", "h"), ("a", "z"), ("z",))] == [
        3,
        5,
        7,
        2,
        None,
    ]
