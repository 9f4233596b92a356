"""What the tests of the commands share."""

from __future__ import annotations

import os

import pytest
from command_line import CommandLine


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Runs a command in this process, which spares a start of the interpreter; without settings of the environment."""
    for name in [name for name in os.environ if name.startswith("VASTUS")]:
        monkeypatch.delenv(name)
    return CommandLine(monkeypatch, capsys)
