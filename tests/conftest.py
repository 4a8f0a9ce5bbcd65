"""How all tests run: by two workers, where nothing else is asked for (``make test``)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, settings

TESTS: Final = Path(__file__).parent
APART: Final = ("docker", "compiled"), ("run", "cluster", "cli", "bench")
"""Directories that keep a processor busy, or start clusters of real processes. Those of a line are
for one worker, one test after the other: no two clusters of a line get in each other's way."""
SINGLE: Final = TESTS / "sim" / "test_seeds.py"
"""Its tests share nothing and go to whoever has time; the tests of any other file stay together,
and so do their fixtures."""

# A busy machine is no failure: no test of ours says how long an example may take.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests are for one worker (pytest-xdist, ``--dist loadgroup``)."""
    groups = {name: "+".join(line) for line in APART for name in line}
    for item in items:
        if item.path != SINGLE:
            path = item.path.relative_to(TESTS)
            item.add_marker(pytest.mark.xdist_group(groups.get(path.parts[0], str(path))))
