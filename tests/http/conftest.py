"""Fixtures of the front end's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import structlog
from fake_service import FakeService
from front_end import SMALL, Observed, Running, listening

from raftcache.http import HttpServer


@pytest.fixture
async def service() -> FakeService:
    return FakeService()


@pytest.fixture
def observed() -> Observed:
    return Observed()


@pytest.fixture
async def server(service: FakeService, observed: Observed) -> HttpServer:
    return HttpServer(service, SMALL, observed)


@pytest.fixture
async def http(
    server: HttpServer, service: FakeService, observed: Observed
) -> AsyncIterator[Running]:
    async with listening(server) as port:
        yield Running(service, port, observed)


@pytest.fixture(autouse=True)
def no_internal_errors() -> Iterator[None]:
    """No test may reach the handler of last resort."""
    with structlog.testing.capture_logs() as logs:
        yield
    assert [entry for entry in logs if entry["event"] == "request failed"] == []
