"""One engine and one cluster for all tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker import cluster as clusters
from tests.docker.engine import engine


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[clusters.Cluster]:
    """Five nodes, as docker/README.md starts them. Every test leaves them healthy."""
    with engine() as found, clusters.cluster(found, tmp_path_factory.mktemp("docker")) as running:
        yield running
