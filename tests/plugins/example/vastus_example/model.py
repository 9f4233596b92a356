"""Where the model package lies: a folder in the layout of a MONAI bundle, which `make_package.py` writes."""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """What the entry point leads to."""
    return Path(__file__).parent / "package"
