"""Connections that keep servers busy, and what they saw."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import hiredis

from raftcache.bench.latencies import Latencies
from raftcache.bench.workload import Workload, filling, http_request, prepared, resp_request

CONNECT_TIMEOUT_S: Final = 10.0


class BenchError(Exception):
    """The load cannot run; the message says why."""


class Report:
    """What a run saw: answers within its time, one latency each (of a pipeline: the whole's)."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.seconds = 0.0
        self.errors = 0
        self.first_error = ""
        self.misses = 0
        """Reads that found nothing."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.latencies.count / self.seconds if self.seconds else 0.0

    def summary(self) -> dict[str, float | int | str]:
        """For tables and JSON."""
        at = self.latencies.percentile_s
        return {
            "ops_per_s": round(self.per_second, 1),
            "operations": self.latencies.count,
            "seconds": round(self.seconds, 3),
            "p50_ms": round(at(50) * 1000, 3),
            "p99_ms": round(at(99) * 1000, 3),
            "p999_ms": round(at(99.9) * 1000, 3),
            "max_ms": round(self.latencies.largest_s * 1000, 3),
            "misses": self.misses,
            "errors": self.errors,
            "first_error": self.first_error,
        }


class Run:
    """One load under way. ``report`` counts while ``counting``."""

    def __init__(self, requests: Sequence[bytes], depth: int) -> None:
        self.next_request = itertools.cycle(requests).__next__
        self.depth = depth
        self.report = Report()
        self.counting = False
        self.stopped = False


class _Client(asyncio.Protocol):
    """One connection: a pipeline out, its answers back, the next one."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._left = 0
        self._sent_at = 0.0
        self._transport: asyncio.Transport | None = None
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            if not self._run.stopped:
                self.failed("connection closed")
            self.ended.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None
        if self._run.stopped:
            self._transport.close()
            return
        self._left = self._run.depth
        self._sent_at = time.perf_counter()
        self._transport.write(self._run.next_request())

    def answered(self) -> None:
        """One more of the pipeline's answers is here."""
        self._left -= 1
        if self._left == 0:
            run = self._run
            if run.counting:
                run.report.latencies.add(time.perf_counter() - self._sent_at, run.depth)
            self._send()

    def failed(self, text: str) -> None:
        """An answer was an error."""
        report = self._run.report
        report.errors += 1
        report.first_error = report.first_error or text

    def missed(self) -> None:
        """A read found nothing."""
        self._run.report.misses += 1


class RespClient(_Client):
    """Redis's protocol."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._reader = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        gets = self._reader.gets
        self._reader.feed(data)
        while (reply := gets()) is not False:
            if reply is None:
                self.missed()
            elif isinstance(reply, hiredis.ReplyError):
                self.failed(str(reply))
            self.answered()


class HttpClient(_Client):
    """HTTP/1.1 with ``Content-Length``."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._buffer = b""

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        while True:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                break
            status = int(data[9:12])
            end = head + 4
            if status not in (204, 304):
                at = data.lower().find(b"content-length: ", 0, head)
                end += int(data[at + 16 : data.index(b"\r\n", at)])
            if len(data) < end:
                break
            if status == 404:
                self.missed()
            elif status >= 400:
                self.failed(data[:end].decode("latin-1"))
            data = data[end:]
            self.answered()
        self._buffer = data


_PROTOCOLS: Final[
    dict[str, tuple[Callable[[Run], _Client], Callable[[str, str, bytes], bytes]]]
] = {
    "resp": (RespClient, resp_request),
    "http": (HttpClient, http_request),
}
PROTOCOLS: Final = tuple(_PROTOCOLS)

Progress = Callable[[str, float, Report], None]
"""(phase, seconds left, report so far)."""


async def measure(
    protocol: str,
    addresses: Sequence[tuple[str, int]],
    workload: Workload,
    clients: int,
    seconds: float,
    warm_up: float,
    progress: Progress = lambda phase, left, report: None,
) -> Report:
    """Fill what will be read, warm up, measure. Clients are spread over ``addresses``.
    ``BenchError`` when a server cannot be reached or refuses to be filled."""
    client_of, make = _PROTOCOLS[protocol]
    await _fill(client_of, addresses, filling(workload, make), progress)
    run = Run(prepared(workload, make), workload.pipeline)
    connected = await _connect(client_of, addresses, run, clients)
    await _wait("warm-up", warm_up, run, progress)
    run.report, run.counting, started = Report(), True, time.perf_counter()
    await _wait("measuring", seconds, run, progress)
    run.counting, run.stopped = False, True
    run.report.seconds = time.perf_counter() - started
    await asyncio.wait([client.ended for client in connected], timeout=5.0)
    return run.report


async def _wait(phase: str, seconds: float, run: Run, progress: Progress) -> None:
    end = time.perf_counter() + seconds
    started = time.perf_counter()
    while (left := end - time.perf_counter()) > 0:
        await asyncio.sleep(min(left, 0.5))
        run.report.seconds = time.perf_counter() - started
        progress(phase, max(0.0, end - time.perf_counter()), run.report)


async def _connect(
    client_of: Callable[[Run], _Client],
    addresses: Sequence[tuple[str, int]],
    run: Run,
    clients: int,
) -> list[_Client]:
    loop = asyncio.get_running_loop()
    connected: list[_Client] = []
    for number in range(clients):
        host, port = addresses[number % len(addresses)]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, client = await loop.create_connection(lambda: client_of(run), host, port)
        except (OSError, TimeoutError) as error:
            run.stopped = True
            raise BenchError(f"{host}:{port}: {error or 'does not answer'}") from None
        connected.append(client)
    return connected


class _Once(Run):
    """Every request once."""

    def __init__(self, requests: Sequence[bytes]) -> None:
        super().__init__([b""], 1)
        self._requests = iter(requests)
        self._following: Any = next(self._requests, None)
        self.next_request = self._take

    def _take(self) -> bytes:
        request: bytes = self._following
        self._following = next(self._requests, None)
        self.stopped = self._following is None
        return request


async def _fill(
    client_of: Callable[[Run], _Client],
    addresses: Sequence[tuple[str, int]],
    requests: Sequence[bytes],
    progress: Progress,
) -> None:
    if not requests:
        return
    share = max(1, -(-len(requests) // 32))
    ends = []
    runs = [_Once(requests[i : i + share]) for i in range(0, len(requests), share)]
    for number, run in enumerate(runs):
        place = number % len(addresses)
        ends += await _connect(client_of, addresses[place : place + 1], run, 1)
    waiting = [client.ended for client in ends]
    while waiting:
        _, pending = await asyncio.wait(waiting, timeout=0.5)
        waiting = list(pending)
        progress("filling", 0.0, Report())
    for run in runs:
        if run.report.errors:
            raise BenchError(f"filling: {run.report.first_error}")
