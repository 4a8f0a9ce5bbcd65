"""Connections that keep servers busy for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from raftcache.bench.dialects import Client, Dialect, Run
from raftcache.bench.report import Report
from raftcache.bench.workload import Workload, filling, requests

CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_TIMEOUT_S: Final = 30.0
"""Without any answer for so long, filling is given up."""
_FILLING_CLIENTS: Final = 32


class BenchError(Exception):
    """The load cannot run; the message says why."""


Progress = Callable[[str, float, Report], None]
"""(phase, seconds left, report so far)."""


def no_progress(phase: str, left: float, report: Report) -> None:
    """For loads that nobody watches."""


async def measure(
    dialect: Dialect,
    addresses: Sequence[tuple[str, int]],
    workload: Workload,
    clients: int,
    seconds: float,
    warm_up: float,
    progress: Progress = no_progress,
    fill_first: bool = True,
) -> Report:
    """Fill what will be read, warm up, measure. Clients are spread over ``addresses``.
    ``BenchError`` when a server cannot be reached or refuses to be filled."""
    if workload.reads and fill_first:
        await fill(dialect, addresses, workload, progress)
    closing = dialect.closing(workload.name)
    pieces = requests(workload, dialect.request, closing)
    depth = workload.pipeline
    run = Run(pieces, depth, depth + bool(closing), only_reads=workload.name == "get")
    connected = await _connect(dialect, addresses, run, clients)
    await _wait("warm-up", warm_up, run, progress)
    cpu, started = time.process_time(), time.perf_counter()
    run.report, run.counting = Report(), True
    await _wait("measuring", seconds, run, progress)
    run.counting, run.stopped = False, True
    run.report.seconds = time.perf_counter() - started
    run.report.client_cpu_s = time.process_time() - cpu
    await asyncio.wait([client.ended for client in connected], timeout=5.0)
    return run.report


async def fill(
    dialect: Dialect,
    addresses: Sequence[tuple[str, int]],
    workload: Workload,
    progress: Progress = no_progress,
) -> None:
    """Store every key of the workload. ``BenchError`` when a server refuses one."""
    depth = min(dialect.fill_pipeline, workload.keys)
    run = _Once(filling(workload, dialect.request, depth), depth)
    ends = await _connect(dialect, addresses, run, _FILLING_CLIENTS)
    waiting = [client.ended for client in ends]
    while waiting:
        _, pending = await asyncio.wait(waiting, timeout=0.5)
        waiting = list(pending)
        progress("filling", 0.0, Report())
        if waiting and time.perf_counter() - run.taken_at > ANSWER_TIMEOUT_S:
            for client in ends:
                client.abort()
            raise BenchError(f"filling: no answer for {ANSWER_TIMEOUT_S:.0f} s")
    if run.report.errors:
        raise BenchError(f"filling: {run.report.first_error}")


class _Once(Run):
    """Every request once."""

    def __init__(self, requests: Iterator[bytes], depth: int) -> None:
        super().__init__(requests, depth, depth)
        self._requests = requests
        self._following = next(requests, None)
        self.taken_at = time.perf_counter()
        self.next_request = self._take

    def _take(self) -> bytes:
        request = self._following
        self.taken_at = time.perf_counter()
        assert request is not None
        self._following = next(self._requests, None)
        self.stopped = self._following is None
        return request


async def _wait(phase: str, seconds: float, run: Run, progress: Progress) -> None:
    started = time.perf_counter()
    end = started + seconds
    while (left := end - time.perf_counter()) > 0:
        await asyncio.sleep(min(left, 0.5))
        run.report.seconds = time.perf_counter() - started
        progress(phase, max(0.0, end - time.perf_counter()), run.report)


async def _connect(
    dialect: Dialect, addresses: Sequence[tuple[str, int]], run: Run, clients: int
) -> list[Client]:
    loop = asyncio.get_running_loop()
    connected: list[Client] = []
    for number in range(clients):
        host, port = addresses[number % len(addresses)]
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, client = await loop.create_connection(lambda: dialect.client(run), host, port)
        except (OSError, TimeoutError) as error:
            run.stopped = True
            raise BenchError(f"{host}:{port}: {error or 'does not answer'}") from None
        connected.append(client)
    return connected
