"""OpenVINO beside the rest of the process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engine.package import ModelPackage

# Sessions come and go in any order; then a signal arrives that has a handler, as SIGTERM has in the service.
SCRIPT = """
import gc, os, signal, sys
from pathlib import Path

from engine.backends import SessionOptions, open_session
from engine.package import load_package

package = load_package(Path(sys.argv[1]))
first, second = (open_session("openvino", package, SessionOptions(1)) for _ in range(2))
del first
gc.collect()
del second
gc.collect()
told = []
signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(0 if told == [signal.SIGTERM] else 3)
"""


def test_a_signal_finds_its_stack_after_sessions_were_closed(tiny_package: ModelPackage) -> None:
    """OpenVINO gives the thread a stack for signals with each core, and leaves it one that is gone."""
    root = Path(__file__).parents[3]
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny_package.folder)], cwd=root, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
