"""What several folders of tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

# A loaded machine is no fault of the code: no example has a time limit. The examples are the same in each run, for who
# changes a line shall not meet by chance what another one left; `HYPOTHESIS_PROFILE=explore` looks for new ones.
PROFILES = {"vastus": True, "explore": False}
for name, derandomize in PROFILES.items():
    hypothesis_settings.register_profile(
        name, max_examples=30, deadline=None, derandomize=derandomize, suppress_health_check=[HealthCheck.too_slow]
    )
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "vastus"))

REPO = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests go first, so that no process is left alone with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real CT series, label tables and an atlas for tests; they lie beside the checkout, not in it."""
    folder = REPO.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the folder shared/data beside the checkout is absent ({folder})")
    return folder


@pytest.fixture
def process_as_it_was() -> Iterator[None]:
    """For a command that sets its own process up, and runs in the tests' here."""
    import torch  # takes seconds, and most tests do without

    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
