"""The example file against the models, in both directions."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

import config
from config.settings import Destination, Settings, load_settings

EXAMPLE = Path(str(config.__file__)).parent / "vastus.example.toml"
UNITS = {"_s": "seconds", "_mm": "mm", "_deg": "degrees", "_mib": "MiB", "_bytes": "bytes"}
TYPES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    Path: "path",
    str: "text",
    SecretStr: "text",
}


def uncommented() -> str:
    """The example with the '#' in front of every key and table removed."""
    return re.sub(r"^#(?=[a-z_]+ = |\[)", "", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def plain(value: Any) -> Any:
    """A default as TOML writes it."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def sections() -> dict[str, type[BaseModel]]:
    """Every table of the file with its model; `pacs` stands for any destination."""
    models = {name: type(getattr(Settings(), name)) for name in Settings.model_fields if name != "destinations"}
    return {**models, "destinations.pacs": Destination}


def explanation(name: str, field: FieldInfo) -> str:
    """The two lines of comment that belong above a key."""
    annotation: Any = field.annotation
    if get_origin(annotation) is Literal:
        kind = f"one of {', '.join(get_args(annotation))}"
    else:
        kind = "list of text" if get_origin(annotation) is tuple else TYPES[annotation]
    unit = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "none")
    default = "none, must be set" if field.is_required() else json.dumps(plain(field.default))
    return f"# {field.description}\n# Type: {kind}. Unit: {unit}. Default: {default}.\n#{name} = "


def test_the_example_as_it_is_changes_nothing() -> None:
    assert load_settings(EXAMPLE, {}) == Settings()


def test_the_example_without_its_comment_signs_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "vastus.toml"
    path.write_text(uncommented(), encoding="utf-8")
    settings = load_settings(path, {})
    assert list(settings.destinations) == ["pacs"]
    assert settings.model_copy(update={"destinations": {}}) == Settings()


def test_the_example_holds_exactly_the_keys_of_the_models() -> None:
    document = tomllib.loads(uncommented())
    document["destinations.pacs"] = document.pop("destinations")["pacs"]
    assert {name: list(table) for name, table in document.items()} == {
        name: list(model.model_fields) for name, model in sections().items()
    }


def test_every_key_is_explained_in_the_words_of_the_models() -> None:
    text = EXAMPLE.read_text(encoding="utf-8")
    for section, model in sections().items():
        start = text.index(f"[{section}]")
        table = text[start : text.find("\n[", start + 1) % (len(text) + 1)]
        for name, field in model.model_fields.items():
            assert field.description, f"{section}.{name} has no description"
            assert explanation(name, field) in table, f"{section}.{name}"
