"""Guards are off in the second half of every scenario, and for as long as it lasts only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jepsen_like.sim.guards import without
from tests.raft.conftest import quiet

__all__ = ["quiet"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "guards(*names): the guards that a scenario is about")
    config.addinivalue_line("markers", "construction(name): why a defect cannot occur")


@pytest.fixture(autouse=True)
def _guards(request: pytest.FixtureRequest) -> Iterator[None]:
    marker = request.node.get_closest_marker("guards")
    if marker is None or request.getfixturevalue("guarded"):
        yield
    else:
        with without(*marker.args):
            yield
