"""What clients ask: each request with its name in the history, and how its answer reads there."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Any, Final

from jepsen_like.checkers.history import Operation
from jepsen_like.sim.cluster import SimNode
from jepsen_like.sim.keys import FILLER_BYTES, Keyspace, pair_of
from raftcache.ops import (
    Condition,
    Delete,
    Get,
    Incr,
    Match,
    Once,
    Result,
    Set,
    Status,
    Write,
)
from raftcache.service import Consistency

TTLS_MS: Final = (20, 100, 300, 1000, 3000)
STALENESS_MS: Final = (0, 10, 100, 1000)
"""Bounds of stale reads."""


@dataclass(frozen=True, slots=True)
class Request:
    """``ops`` go as one atomic batch when there are two; ``key`` and ``args`` are the history's."""

    op: str
    key: str
    args: tuple[Any, ...]
    ops: tuple[Get | Set | Delete | Incr, ...]
    level: Consistency = Consistency.LINEARIZABLE

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return isinstance(self.ops[0], Get)

    def send(
        self, node: SimNode, deadline: float, session: tuple[bytes, int] | None
    ) -> asyncio.Future[Any]:
        """Ask ``node``; with ``session`` exactly once. The future has a result or a list."""
        first, *rest = self.ops
        if session is not None:
            assert not isinstance(first, Get)
            first = Once(*session, first)  # type: ignore[assignment]
        if rest:
            return node.batch([first, *rest], deadline, atomic=True)
        if isinstance(first, Get):
            bound = self.args[0] / 1000.0 if self.op == "stale" else None
            return node.read(first.key, deadline, self.level, bound)
        assert isinstance(first, Write)
        return node.write(first, deadline)


class Chooser:
    """Draws requests. ``number`` makes the values of this client unlike any other's."""

    def __init__(self, number: int, draw: random.Random, keys: Keyspace) -> None:
        self._number = number
        self._draw = draw
        self._keys = keys
        self._single = keys.strict + keys.vanishing
        self._values = 0
        self._versions: dict[str, tuple[str | None, int]] = {}

    def choose(self) -> Request:
        """Anything."""
        draw = self._draw.random()
        if self._keys.plain:
            return self.single(self._draw.choice(self._single))
        if draw < 0.1:
            return self._stale(self._draw.choice(self._single))
        if draw < 0.25:
            return self._pair(self._draw.choice(self._keys.pairs))
        return self.single(self._draw.choice(self._single))

    def several(self) -> list[Request]:
        """For one batch that is not atomic: on different keys. A third of them only read."""
        requests = [self.single(key) for key in self._draw.sample(self._single, 3)]
        if requests[0].op == "get":
            return [Request("get", x.key, (), (Get(x.key.encode()),)) for x in requests]
        return requests

    def filler(self) -> Set | None:
        """Something big that nobody reads, where memory is small."""
        if not self._keys.filler or self._draw.random() > 0.3:
            return None
        return Set(self._draw.choice(self._keys.filler).encode(), bytes(FILLER_BYTES))

    def single(self, key: str) -> Request:
        """On one key, of its kind."""
        draw, raw = self._draw.random(), key.encode()
        if draw < 0.35:
            lease = self._draw.random() < 0.3 and not self._keys.plain
            level = Consistency.LEASE if lease else Consistency.LINEARIZABLE
            return Request("get", key, (), (Get(raw),), level)
        if key in self._keys.counters:
            by = self._draw.choice((1, 1, 1, 5, -2))
            return Request("incr", key, (by,), (Incr(raw, by),))
        if draw < 0.45:
            return Request("del", key, (), (Delete(raw),))
        value = self._value()
        if key in self._keys.expiring:
            ttl_ms = self._draw.choice(TTLS_MS)
            return Request("set", key, (value, ttl_ms), (Set(raw, value.encode(), ttl_ms),))
        if draw < 0.7:
            return Request("set", key, (value,), (Set(raw, value.encode()),))
        known, condition = self._known(key)
        write = Set(raw, value.encode(), condition=condition)
        return Request("cas", key, (known, value), (write,))

    def _stale(self, key: str) -> Request:
        bound_ms = self._draw.choice(STALENESS_MS)
        return Request("stale", key, (bound_ms,), (Get(key.encode()),), Consistency.STALE)

    def _pair(self, key: str) -> Request:
        """The condition of a cas is on either key: whichever it is, it holds for both writes."""
        one, other = pair_of(key)
        if self._draw.random() < 0.4:
            return Request("get", key, (), (Get(one), Get(other)))
        value = self._value()
        raw = value.encode()
        if self._draw.random() < 0.5:
            return Request("set", key, (value,), (Set(one, raw), Set(other, raw)))
        known, condition = self._known(key)
        writes = (Set(one, raw), Set(other, raw, condition=condition))
        return Request("cas", key, (known, value), writes)

    def _value(self) -> str:
        self._values += 1
        return f"{self._number}.{self._values}"

    def _known(self, key: str) -> tuple[str | None, Condition]:
        known, version = self._versions.get(key, (None, 0))
        return known, Condition(Match.VERSION_IN, (version,)) if version else Condition(
            Match.ABSENT
        )

    def learn(self, operation: Operation, result: Result) -> None:
        """Keep the version for a later cas: the last one seen, of the key that it will test."""
        key = operation.key
        if operation.op == "get" and result.status is Status.OK:
            self._versions[key] = ((result.value or b"").decode(), result.version)
        elif operation.op in ("get", "del"):
            self._versions[key] = (None, 0)
        elif operation.op == "set" or (operation.op == "cas" and result.status <= Status.CREATED):
            self._versions[key] = (operation.args[-1], result.version)


def combined(results: list[Result]) -> Result:
    """What an atomic batch on a pair says of it as one register; ``ValueError`` when its halves
    contradict each other."""
    one, other = results
    failed = [r for r in results if r.status is Status.PRECONDITION_FAILED]
    if failed:
        return failed[0]
    if one.status is not other.status or one.value != other.value:
        raise ValueError(f"a torn atomic batch: {one} and {other}")
    return other


def answer(operation: Operation, result: Result) -> Any:
    """What the history says of a result; ``ValueError`` when the operation cannot have it."""
    match operation.op, result.status:
        case "get" | "stale", Status.OK if result.value is not None:
            return result.value.decode()
        case "get" | "stale", Status.NOT_FOUND:
            return None
        case "set", (Status.OK | Status.CREATED) as status:
            return status is Status.CREATED
        case "cas", Status.OK | Status.CREATED:
            return True
        case "cas", Status.PRECONDITION_FAILED:
            return False
        case "incr", Status.OK | Status.CREATED:
            return result.number
        case "del", (Status.OK | Status.NOT_FOUND) as status:
            return status is Status.OK
    raise ValueError(f"{result}")
