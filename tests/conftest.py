"""How all tests run: shared out between the workers of pytest-xdist, of which ``make test`` has
two."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

APART: Final = (
    ("tests/docker/", "tests/compiled/"),
    ("tests/run/", "tests/cluster/", "tests/cli/", "tests/bench/"),
)
"""What starts clusters of real processes, or keeps a processor busy. The tests of a line are for
one worker, one after the other."""
SINGLE: Final = "tests/sim/test_seeds.py"
"""Its tests go to whoever has time. Those of any other file stay together, as do their fixtures."""

# A busy machine is no failure: no test of ours says how long an example may take.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


class Scheduling(LoadScopeScheduling):
    """Gives a worker all that belongs together, the largest part first."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        for line in APART:
            if path.startswith(line):
                return "+".join(line)
        return nodeid if path == SINGLE else path


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Whatever ``--dist`` says."""
    return Scheduling(config, log)
