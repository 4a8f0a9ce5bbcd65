"""Clients: each one operation at a time, through the router of any node, everything written down.

Keys ``r*`` are registers (get, set, cas by version, conditional creation, del), ``c*`` counters
(incr, get), ``e*`` registers with a time to live. Values are unique, so that a version stands for
the value that came with it. Some writes carry a session and sequence number, and are sent again,
also through another node, when their outcome is unknown: still one operation, from the first
attempt to the last answer.

Every instant written down is unique and in true order: the simulation runs one callback at a time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from jepsen_like.checkers.history import Operation
from jepsen_like.sim.cluster import Cluster, SimNode
from raftcache.ops import (
    REFUSED,
    Condition,
    Delete,
    Get,
    Incr,
    Match,
    Once,
    Op,
    Result,
    Set,
    Status,
    Write,
)
from raftcache.service import Consistency

HANG_SLACK_S: Final = 1.0
"""A future must be done so long after its deadline, by the clock of a node that is running."""
ATTEMPTS: Final = 4
"""Of a write with a session."""


class Recorder:
    """The history of a run, and the clock that dates it."""

    def __init__(self, cluster: Cluster) -> None:
        self._scheduler = cluster.scheduler
        self._last = 0
        self.operations: list[Operation] = []

    def stamp(self) -> int:
        """Now, in nanoseconds; later every time."""
        self._last = max(self._last + 1, int(self._scheduler.now * 1e9))
        return self._last

    def begin(self, process: int, op: str, key: str, args: Sequence[Any]) -> int:
        """Write down that an operation starts; what is never ended has an unknown outcome."""
        index = len(self.operations)
        self.operations.append(
            Operation(process, op, key, tuple(args), None, self.stamp(), None, None, index)
        )
        return index

    def end(self, index: int, ok: bool | None, result: Any) -> None:
        end = None if ok is None else self.stamp()
        operation = replace(self.operations[index], end=end, ok=ok, result=result)
        self.operations[index] = operation
        if self._scheduler.trace is not None:
            outcome = {True: "", False: " (not done)", None: " (unknown)"}[ok]
            self._scheduler.say("client", f"{operation.key} {operation}{outcome}")


class Client:
    """One client. ``think_s``: mean pause between two operations."""

    def __init__(
        self, number: int, cluster: Cluster, recorder: Recorder, keys: Sequence[str], think_s: float
    ) -> None:
        self._number = number
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._recorder = recorder
        self._random: random.Random = cluster.scheduler.generator(f"client/{number}")
        self._keys = keys
        self._think_s = think_s
        self._versions: dict[str, tuple[str | None, int]] = {}
        self._values = 0
        self._sequence = 0
        self._stopped = False
        self._serial = 0  # of attempts: late answers are told from current ones
        self.succeeded = 0

    def start(self) -> None:
        self._later()

    def stop(self) -> None:
        self._stopped = True

    def _later(self) -> None:
        if not self._stopped:
            pause = self._random.expovariate(1.0 / self._think_s)
            self._scheduler.call_later(pause, self._next)

    def _next(self) -> None:
        if self._stopped:
            return
        if not self._cluster.nodes:
            self._later()
            return
        if self._random.random() < 0.1:
            self._batch()
        else:
            op, name, key, args = self._choose(self._random.choice(self._keys))
            self._single(op, name, key, args)

    # -- what to ask

    def _choose(self, key: str) -> tuple[Op, str, str, tuple[Any, ...]]:
        """An operation, and how the history calls it."""
        draw, raw = self._random.random(), key.encode()
        if draw < 0.35:
            return Get(raw), "get", key, ()
        if key.startswith("c"):
            by = self._random.choice((1, 1, 1, 5, -2))
            return Incr(raw, by), "incr", key, (by,)
        if draw < 0.45:
            return Delete(raw), "del", key, ()
        self._values += 1
        value = f"{self._number}.{self._values}"
        if key.startswith("e"):
            ttl_ms = self._random.choice((20, 100, 300, 1000, 3000))
            return Set(raw, value.encode(), ttl_ms), "set", key, (value, ttl_ms)
        if draw < 0.7:
            return Set(raw, value.encode()), "set", key, (value,)
        known, version = self._versions.get(key, (None, 0))
        match = Condition(Match.VERSION_IN, (version,)) if version else Condition(Match.ABSENT)
        return Set(raw, value.encode(), condition=match), "cas", key, (known, value)

    # -- one operation

    def _single(self, op: Op, name: str, key: str, args: tuple[Any, ...]) -> None:
        index = self._recorder.begin(self._number, name, key, args)
        attempts = 1
        if not isinstance(op, Get) and self._random.random() < 0.4:
            assert isinstance(op, (Set, Delete, Incr))
            self._sequence += 1
            op = Once(f"client {self._number}".encode(), self._sequence, op)
            attempts = ATTEMPTS
        self._attempt(op, index, attempts)

    def _attempt(self, op: Op, index: int, attempts: int, doubt: bool = False) -> None:
        lease = self._random.random() < 0.3

        def call(node: SimNode, deadline: float) -> asyncio.Future[Any]:
            if isinstance(op, Get):
                level = Consistency.LEASE if lease else Consistency.LINEARIZABLE
                return node.read(op.key, deadline, level)
            return node.write(_write(op), deadline)

        def ended(result: Result | None) -> None:
            unknown = result is None or result.status is Status.UNKNOWN
            in_doubt = doubt or unknown
            sure = result is not None and result.status not in REFUSED and not unknown
            if attempts > 1 and not sure and not self._stopped:
                pause = self._random.uniform(0.0, 0.3)
                again = (op, index, attempts - 1, in_doubt)
                self._scheduler.call_later(pause, self._attempt, *again)
                return
            self._record(index, result, in_doubt)
            self._later()

        self._call(call, ended)

    def _batch(self) -> None:
        """A few operations on different keys in one request."""
        keys = self._random.sample(list(self._keys), min(3, len(self._keys)))
        chosen = [self._choose(key) for key in keys]
        ops = [item[0] for item in chosen]
        indexes = [self._recorder.begin(self._number, *item[1:]) for item in chosen]

        def call(node: SimNode, deadline: float) -> asyncio.Future[Any]:
            return node.batch([op for op in ops if isinstance(op, Get | Write)], deadline)

        def ended(results: list[Result] | None) -> None:
            for place, index in enumerate(indexes):
                self._record(index, None if results is None else results[place], False)
            self._later()

        self._call(call, ended)

    def _call(
        self,
        call: Callable[[SimNode, float], asyncio.Future[Any]],
        ended: Callable[[Any], None],
    ) -> None:
        """Ask any node; ``ended`` gets the answer, or ``None`` when there will be none."""
        names = [name for name in self._cluster.names if name in self._cluster.nodes]
        if not names:
            ended(None)
            return
        node = self._cluster.nodes[self._random.choice(names)]
        timeout = self._random.choice((0.3, 1.0, 3.0))
        self._serial += 1
        serial = self._serial

        def answer(value: Any) -> None:
            if self._serial == serial:
                self._serial += 1
                ended(value)

        def ask() -> None:
            future = call(node, node.now() + timeout)
            future.add_done_callback(lambda done: answer(done.result()))

        node.process.call_soon(ask)
        self._watch(node, serial, timeout + HANG_SLACK_S, answer)

    def _watch(
        self, node: SimNode, serial: int, seconds: float, answer: Callable[[Any], None]
    ) -> None:
        """Give up on a dead node at once, on a paused one after a while; a running one that does
        not answer in time has broken its promise."""
        limit = self._scheduler.now + seconds
        disturbed = False

        def look() -> None:
            nonlocal disturbed
            if self._serial != serial:
                return
            process = node.process
            disturbed = disturbed or process.disturbed
            if not process.alive or (self._scheduler.now >= limit and disturbed):
                answer(None)
            elif self._scheduler.now >= limit:
                name = node.settings.node
                self._scheduler.violation("a request hangs", f"client {self._number} at {name}")
                answer(None)
            else:
                self._scheduler.call_later(0.1, look)

        self._scheduler.call_later(0.1, look)

    # -- what came back

    def _record(self, index: int, result: Result | None, doubt: bool) -> None:
        operation = self._recorder.operations[index]
        if result is None or result.status is Status.UNKNOWN:
            self._recorder.end(index, None, None)
            return
        if result.status in REFUSED:
            # Of a read or after a doubtful attempt that tells nothing of what happened before.
            self._recorder.end(index, None if doubt else False, None)
            return
        try:
            answer = _answer(operation, result)
        except ValueError as error:
            self._scheduler.violation("a wrong answer", f"{error} to {operation}")
            self._recorder.end(index, None, None)
            return
        self.succeeded += 1
        self._recorder.end(index, True, answer)
        self._learn(operation, result)

    def _learn(self, operation: Operation, result: Result) -> None:
        """Keep the version for a later cas."""
        key = operation.key
        if operation.op == "get" and result.status is Status.OK:
            self._versions[key] = ((result.value or b"").decode(), result.version)
        elif operation.op in ("get", "del"):
            self._versions[key] = (None, 0)
        elif operation.op == "set" or (operation.op == "cas" and result.status <= Status.CREATED):
            self._versions[key] = (operation.args[-1], result.version)


def _write(op: Op) -> Write:
    assert isinstance(op, Write)
    return op


def _answer(operation: Operation, result: Result) -> Any:
    """What the history says of a result; ``ValueError`` when the operation cannot have it."""
    match operation.op, result.status:
        case "get", Status.OK if result.value is not None:
            return result.value.decode()
        case "get", Status.NOT_FOUND:
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
