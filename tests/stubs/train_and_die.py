"""Trains the preset `tiny` on stub data, and kills itself at a step: `train_and_die.py FOLDER WORKERS [STEP]`.

For tests/engine/training/test_resume.py. The kill is a SIGKILL right after the step, before anything is written of it.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests")]

from engine.training.devices import prepare_process  # noqa: E402 - the path is set above
from engine.training.loop import RunPlan, StepReport, Trainer, identity_of  # noqa: E402
from stubs.training import Notes, source, tiny  # noqa: E402


class Killer(Notes):
    """Kills the process at a step."""

    def __init__(self, deadly: int | None) -> None:
        super().__init__()
        self._deadly = deadly

    def step(self, report: StepReport) -> None:
        """See `Watcher`."""
        if report.step == self._deadly:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Read the command line and train."""
    folder, workers, *deadly = sys.argv[1:]
    prepare_process(threads=1)
    plan = RunPlan(tiny(), Path(folder))
    watcher = Killer(int(deadly[0]) if deadly else None)
    Trainer(plan, source(workers=int(workers)), identity_of(plan, {}), watcher).run()


if __name__ == "__main__":
    main()
