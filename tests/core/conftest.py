"""A simulated cluster of real nodes, driven step by step."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from jepsen_like.sim.cluster import Cluster, SimNode
from jepsen_like.sim.scheduler import Scheduler
from raftcache.ops import Get, Result, Set, Write
from raftcache.partition import SlotMap
from raftcache.service import Consistency

T = TypeVar("T")
TIMEOUT_S = 5.0


class Stage:
    """Three nodes, two groups, in virtual time. Nothing happens but while a method waits."""

    def __init__(
        self,
        *,
        durable: bool = True,
        size: int = 3,
        groups: int = 2,
        replication: int | None = None,
    ) -> None:
        self.scheduler = Scheduler("stage")
        self.cluster = Cluster(
            self.scheduler, size, groups, durable_mode=durable, replication=replication
        )
        self.cluster.start_all()
        self.slots = SlotMap(groups)
        self.until(self.ready, 10.0)

    def until(self, predicate: Callable[[], bool], limit_s: float = TIMEOUT_S) -> float:
        """Let time pass until ``predicate`` holds; how long that took."""
        started = self.scheduler.now
        assert self.scheduler.run_until(predicate, started + limit_s), "it did not happen in time"
        assert self.scheduler.violations == []
        return self.scheduler.now - started

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.scheduler.run(self.scheduler.now + seconds)
        assert self.scheduler.violations == []

    def ready(self) -> bool:
        nodes = self.cluster.nodes.values()
        return len(nodes) == len(self.cluster.names) and all(n.not_ready() is None for n in nodes)

    def node(self, name: str = "n1") -> SimNode:
        return self.cluster.nodes[name]

    def result(self, future: asyncio.Future[T], limit_s: float = 2 * TIMEOUT_S) -> T:
        """What the future ends with."""
        self.until(future.done, limit_s)
        return future.result()

    def write(self, op: Write, via: str = "n1", timeout_s: float = TIMEOUT_S) -> Result:
        node = self.node(via)
        return self.result(node.write(op, node.now() + timeout_s))

    def read(self, key: bytes, via: str = "n1", **how: Any) -> Result:
        node = self.node(via)
        return self.result(node.read(key, node.now() + TIMEOUT_S, **how))

    def stale(self, key: bytes, via: str, bound_s: float | None = None) -> Result:
        return self.read(key, via, consistency=Consistency.STALE, max_staleness=bound_s)

    def batch(
        self, ops: Sequence[Get | Write], via: str = "n1", *, atomic: bool = False
    ) -> list[Result]:
        node = self.node(via)
        return self.result(node.batch(ops, node.now() + TIMEOUT_S, atomic=atomic))

    def leader(self, group: int) -> str:
        self.until(lambda: self.cluster.leader(group) is not None)
        name = self.cluster.leader(group)
        assert name is not None
        return name

    def followers(self, group: int) -> list[str]:
        leader = self.leader(group)
        return [name for name in self.cluster.names if name != leader]

    def key_of(self, group: int, number: int = 0) -> bytes:
        """The ``number``-th key of ``group``."""
        keys = (b"key-%d" % i for i in itertools.count())
        return next(
            itertools.islice((k for k in keys if self.slots.group_of(k) == group), number, None)
        )

    def isolate(self, name: str) -> None:
        """Cut ``name`` off from all others."""
        others = [other for other in self.cluster.names if other != name]
        self.cluster.network.partition([[name], others])

    def set(self, key: bytes, value: bytes, via: str = "n1", **more: Any) -> Result:
        return self.write(Set(key, value, **more), via)


@pytest.fixture
def stage() -> Stage:
    return Stage()
