"""A lean HTTP/1.1 load generator: keep-alive connections that each have one request under way.

One process, one uvloop; about 8 us of CPU per request, so that the servers, not the load, are what
is measured on a machine they share. Only what the benchmarks need: answers with ``Content-Length``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Report:
    """What one run saw. Latencies in seconds, one per request that was answered."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def requests_per_second(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Latency in milliseconds below which ``percent`` of the answers lie."""
        if not self.latencies:
            return float("nan")
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000

    @property
    def failures(self) -> int:
        """Answers of status 400 and up, but for 404."""
        return sum(n for status, n in self.statuses.items() if status >= 400 and status != 404)


class _Client(asyncio.Protocol):
    def __init__(
        self,
        report: Report,
        next_request: Callable[[], bytes | None],
        answered: Callable[[int], object],
    ) -> None:
        self._report = report
        self._next = next_request
        self._answered = answered
        self._buffer = b""
        self._started = 0.0
        self._transport: asyncio.Transport | None = None
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        assert self._transport is not None
        request = self._next()
        if request is None:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(None)
            return
        self._started = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            return
        status = int(data[9:12])
        length = 0
        if status not in (204, 304):
            at = data.find(b"Content-Length: ", 0, head)
            length = int(data[at + 16 : data.index(b"\r\n", at)])
        if len(data) < head + 4 + length:
            return
        report = self._report
        report.latencies.append(time.perf_counter() - self._started)
        report.statuses[status] = report.statuses.get(status, 0) + 1
        self._buffer = b""
        self._answered(status)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def run(
    urls: Sequence[str],
    connections: int,
    seconds: float,
    make: Callable[[], bytes],
    answered: Callable[[int], object] = lambda status: None,
) -> Report:
    """Keep ``connections`` connections, spread over ``urls``, busy with requests from ``make``;
    tell ``answered`` the status of every answer as it comes."""
    loop = asyncio.get_running_loop()
    report = Report()
    end = time.perf_counter() + seconds

    def next_request() -> bytes | None:
        return make() if time.perf_counter() < end else None

    started = time.perf_counter()
    clients = []
    for i in range(connections):
        where = urlsplit(urls[i % len(urls)])
        _, client = await loop.create_connection(
            lambda: _Client(report, next_request, answered), where.hostname, where.port
        )
        clients.append(client)
    await asyncio.gather(*(client.done for client in clients))
    report.seconds = time.perf_counter() - started
    return report


def request(method: str, path: str, body: bytes = b"", headers: str = "") -> bytes:
    """The bytes of one request."""
    length = f"Content-Length: {len(body)}\r\n" if method in ("PUT", "POST") else ""
    return f"{method} {path} HTTP/1.1\r\nHost: raftcache\r\n{length}{headers}\r\n".encode() + body
