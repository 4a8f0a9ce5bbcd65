"""Peers that are measured over a socket: by our load generator, and by redis-benchmark."""

from __future__ import annotations

import asyncio
import csv
import shutil
import subprocess
from collections.abc import Callable, Collection, Sequence
from typing import Any

import uvloop
from peers import Load, PeerError, Running, Through

from raftcache.bench.dialects import Dialect
from raftcache.bench.load import fill, measure

BENCH = "raftcache bench"
REDIS_BENCHMARK = "redis-benchmark"
_FIRST_REQUESTS = 5_000
_TIMEOUT_S = 600

Address = tuple[str, int]


class WireRunning(Running):
    """``addresses`` gives those of the nodes that take any request, the leader (or primary) first,
    asked before every load. ``redis_benchmark`` names the workloads that redis-benchmark can run,
    too."""

    def __init__(
        self,
        pids: Sequence[int],
        addresses: Callable[[], Sequence[Address]],
        dialect: Dialect,
        *,
        pipelines: bool = True,
        redis_benchmark: Collection[str] = (),
    ) -> None:
        self.pids = pids
        self._addresses = addresses
        self._dialect = dialect
        self._pipelines = pipelines
        self._redis_benchmark = redis_benchmark if shutil.which(REDIS_BENCHMARK) else ()
        self._rates: dict[tuple[str, int], float] = {}

    def generators(self, load: Load) -> Sequence[str]:
        if (load.workload.pipeline > 1 and not self._pipelines) or not self._where(load):
            return ()
        if load.workload.name in self._redis_benchmark and load.through is not Through.ALL:
            return (BENCH, REDIS_BENCHMARK)
        return (BENCH,)

    def fill(self, load: Load) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(fill(self._dialect, self._where(load), load.workload))

    def run(self, generator: str, load: Load) -> dict[str, Any]:
        where = self._where(load)
        if generator == REDIS_BENCHMARK:
            return self._by_redis_benchmark(load, where[0])
        measuring = measure(
            self._dialect,
            where,
            load.workload,
            load.clients,
            load.seconds,
            warm_up=0.0,
            fill_first=False,
        )
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measuring).summary()

    def _where(self, load: Load) -> Sequence[Address]:
        addresses = self._addresses()
        return {
            Through.LEADER: addresses[:1],
            Through.FOLLOWER: addresses[1:2],
            Through.ALL: addresses,
        }[load.through]

    def _by_redis_benchmark(self, load: Load, where: Address) -> dict[str, Any]:
        """It counts requests, not seconds: so many as the run before lets expect."""
        workload = load.workload
        kind = workload.name, workload.pipeline
        rate = self._rates.get(kind)
        count = _FIRST_REQUESTS * workload.pipeline if rate is None else int(rate * load.seconds)
        count = max(count, load.clients * workload.pipeline)
        found = redis_benchmark(where, load, count)
        self._rates[kind] = found["ops_per_s"]
        return found


def redis_benchmark(where: Address, load: Load, count: int) -> dict[str, Any]:
    """Run it for so many requests. It uses the same names of keys as our load generator."""
    workload = load.workload
    command = [REDIS_BENCHMARK, "-h", where[0], "-p", str(where[1]), "-t", workload.name]
    options = {
        "-c": load.clients,
        "-P": workload.pipeline,
        "-d": workload.value_bytes,
        "-r": workload.keys,
        "-n": count,
    }
    command += [str(each) for option in options.items() for each in option] + ["--csv"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise PeerError(f"redis-benchmark: {done.stderr.strip() or done.stdout.strip()}")
    rows = list(csv.DictReader(done.stdout.splitlines()))
    if len(rows) != 1 or "p99_latency_ms" not in rows[0]:
        raise PeerError(f"redis-benchmark printed what we cannot read: {done.stdout[:200]!r}")
    row = rows[0]
    return {
        "ops_per_s": float(row["rps"]),
        "operations": count,
        "p50_ms": float(row["p50_latency_ms"]),
        "p99_ms": float(row["p99_latency_ms"]),
        "max_ms": float(row["max_latency_ms"]),
        "errors": 0,
    }
