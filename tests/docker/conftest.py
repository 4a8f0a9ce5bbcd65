"""One engine and one cluster for all tests of this directory, and none for those after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.docker import cluster as clusters
from tests.docker.engine import engine


@pytest.fixture(scope="package")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[clusters.Cluster]:
    """Five nodes, as docker/README.md starts them. Every test leaves them healthy."""
    assert pytestconfig.cache is not None
    directory, cache = tmp_path_factory.mktemp("docker"), pytestconfig.cache.mkdir("docker")
    with engine(cache) as found, clusters.cluster(found, directory, cache) as running:
        yield running
