"""A real access trace, and how many of its requests a cache answers."""

from __future__ import annotations

import lzma
import struct
from pathlib import Path
from typing import Any, NamedTuple

from raftcache.machine import Machine
from raftcache.machine.costs import entry_cost
from raftcache.machine.policies import POLICIES
from raftcache.ops import Batch, Configure, Get, Op, Set, Status

TRACE = Path(__file__).parent / "data" / "twitter_cluster52.xz"


class Trace(NamedTuple):
    """``requests``: positions in ``keys`` and ``sizes``."""

    requests: tuple[int, ...]
    keys: list[bytes]
    sizes: tuple[int, ...]

    def costs(self, policy: str) -> list[int]:
        """What each object costs in the cache."""
        overhead = POLICIES[policy].overhead
        return [
            entry_cost(key, (bytes(size), 1, 0), overhead)
            for key, size in zip(self.keys, self.sizes, strict=True)
        ]


def load_trace() -> Trace:
    """100,000 requests of a Twitter cluster, see data/README.md."""
    raw = lzma.decompress(TRACE.read_bytes())
    requests, objects = struct.unpack_from("<II", raw)
    numbers = struct.unpack_from(f"<{requests}I", raw, 8)
    sizes = struct.unpack_from(f"<{objects}H", raw, 8 + 4 * requests)
    return Trace(numbers, [b"%016d" % n for n in range(objects)], sizes)


def machine_hits(trace: Trace, policy: str, budget: int) -> int:
    """Requests that the machine answers; what is missing is stored."""
    machine = Machine()
    machine.apply(Batch(0, (), (Configure(budget, policy, 1000, 1000),)))

    def ask(op: Op) -> Status:
        return machine.apply(Batch(0, (), (op,)))[0].status

    hits = 0
    for number in trace.requests:
        key = trace.keys[number]
        if ask(Get(key)) is Status.OK:
            hits += 1
        else:
            ask(Set(key, bytes(trace.sizes[number])))
    return hits


def reference_hits(trace: Trace, cache: Any, costs: list[int]) -> int:
    """The same with a cache of cachetools' kind, made with ``getsizeof`` the identity."""
    hits = 0
    for number in trace.requests:
        if cache.get(number) is not None:
            hits += 1
        elif costs[number] <= cache.maxsize:
            cache[number] = costs[number]
    return hits
