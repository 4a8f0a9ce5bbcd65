"""A front end over the fake node, listening on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from fake_service import FakeService
from http_wire import Answer, Wire, exchange

from raftcache.http import HttpServer
from raftcache.limits import Limits


class Observed:
    """``FrontEndMetrics`` that remembers."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, int]] = []

    def observe(self, operation: str, code: int, seconds: float) -> None:
        assert seconds >= 0
        self.requests.append((operation, code))

    def render(self) -> tuple[bytes, str]:
        return b"raftcache_up 1\n", "text/plain; version=0.0.4; charset=utf-8"


class Running:
    """A listening front end, seen from outside. ``send`` is one request on a connection of its
    own."""

    def __init__(self, service: FakeService, port: int, observed: Observed | None = None) -> None:
        self.service, self.port = service, port
        self.observed = observed or Observed()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Let the server run until ``holds()``."""
        async with asyncio.timeout(10):
            while not holds():
                await asyncio.sleep(0)

    async def connect(self) -> Wire:
        return Wire(*await asyncio.open_connection("127.0.0.1", self.port))

    async def send(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await exchange(await self.connect(), method, target, body, named)


SMALL = Limits(
    max_value_bytes=4096, max_key_bytes=1024, max_batch_operations=50, max_batch_bytes=65_536
)


@contextlib.asynccontextmanager
async def listening(server: HttpServer) -> AsyncIterator[int]:
    """``server`` on a free port, closed at the end."""
    try:
        yield await server.start("127.0.0.1", 0)
    finally:
        await server.close()
