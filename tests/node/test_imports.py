"""What each process of the service loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "openvino", "onnxruntime", "monai", "highdicom", "matplotlib")
SCRIPT = "import sys\nimport node.service\nprint(*sorted(set(sys.argv[1:]) & set(sys.modules)))"


def test_listener_and_sender_start_without_the_networks_libraries() -> None:
    """They take seconds to load, and a listener that is started again answers nobody for so long."""
    command = [sys.executable, "-c", SCRIPT, *HEAVY]
    ran = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == []
