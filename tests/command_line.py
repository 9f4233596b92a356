"""A command as a person types it, run in this process: what it says, and the status it leaves with."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.cli.console import CONSOLE, ERRORS
from node.cli.main import main

WIDE = 200
"""Columns, so that nothing that is looked for is folded."""


@dataclass(frozen=True)
class Said:
    """What a command left.

    Attributes:
        returncode: its exit status.
        stdout: what it printed.
        stderr: what it printed of errors.
    """

    returncode: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class CommandLine:
    """Runs commands through `node.cli.main.main`, where every error becomes words and a status."""

    patch: pytest.MonkeyPatch
    captured: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, folder: Path) -> Said:
        """Run one in a folder."""
        for console in (CONSOLE, ERRORS):
            self.patch.setattr(console, "width", WIDE)
        self.patch.chdir(folder)
        self.patch.setattr(sys, "argv", ["vastus", *arguments])
        self.captured.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = self.captured.readouterr()
        return Said(int(left.value.code or 0), out, err)
