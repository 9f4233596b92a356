"""What several folders of tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# A loaded machine is no fault of the code: no example has a time limit.
hypothesis_settings.register_profile("vastus", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("vastus")

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT series, label tables and an atlas for tests; they lie beside the checkout, not in it."""
    folder = REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the folder shared/data beside the checkout is absent ({folder})")
    return folder
