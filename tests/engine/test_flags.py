"""The table of flags, and what holds to it: settings, documentation."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from config.settings import Settings
from engine.flags import DEFAULT_POLICIES, FLAG_KINDS, Policy, flag_of, judged

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "flags.md").read_text(encoding="utf-8")


def test_flags_are_told_in_the_order_of_the_table_with_their_policy() -> None:
    metal, noise, cut = flag_of("metal", "Metal.", 3.0), flag_of("noise", "Noise.", 40.0), flag_of("truncated", "Cut.")
    raised = judged([noise, None, metal, cut], {"metal": Policy.REFUSE})
    assert [(each.flag.code, each.policy) for each in raised] == [
        ("truncated", Policy.NOTE),
        ("metal", Policy.REFUSE),
        ("noise", Policy.WARN),
    ]
    assert metal.unit == "ml"


def test_a_kind_fits_the_columns_and_codes_that_hold_it() -> None:
    for code, kind in FLAG_KINDS.items():
        assert re.fullmatch(r"[a-z][a-z_]{2,63}", code)
        assert 0 < len(kind.what) <= 64 and kind.what.isascii()
        assert kind.source
        assert kind.number or kind.unit == "1"


def test_the_settings_hold_exactly_the_kinds() -> None:
    assert Settings().flags.model_dump() == DEFAULT_POLICIES
    fields = type(Settings().flags).model_fields
    assert {code: field.description for code, field in fields.items()} == {
        code: f"{kind.what}." for code, kind in FLAG_KINDS.items()
    }


def test_the_page_shows_exactly_the_kinds() -> None:
    rows = re.findall(r"^\| `([a-z_]+)` \| (.+) \| (.+) \| `(.+)` \| `(.+)` \| (.+) \|$", PAGE, flags=re.MULTILINE)
    assert rows == [
        (kind.code, kind.what, kind.number or "-", kind.unit, kind.policy.value, kind.source)
        for kind in FLAG_KINDS.values()
    ]


def test_the_page_states_the_limits_of_the_checks() -> None:
    rows = re.findall(r"^\| `([a-z]+)\.([A-Z_]+)` \| .+ \| ([\d.]+)[^|]* \|$", PAGE, flags=re.MULTILINE)
    assert len(rows) > 10
    for module, name, stated in rows:
        assert float(stated) == getattr(importlib.import_module(f"engine.fitness_checks.{module}"), name), name
