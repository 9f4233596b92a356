"""The versions of the tables, in order (Alembic)."""

from __future__ import annotations

from typing import Any


def is_ours(_object: Any, _name: str | None, kind: str, reflected: bool, counterpart: Any) -> bool:
    """Whether a comparison of models and database looks at an object (Alembic's `include_object`).

    The tables of the job engine share the database: a table that is there but in no model is none of our business.
    """
    return not (kind == "table" and reflected and counterpart is None)
