"""A process in Jepsen's sense: one operation at a time, through any node, everything recorded.

A worker behaves as a well-made client does. What was surely not done is asked again, at another
node, until the operation's time is over; so are reads, and writes that carry a token, whatever
became of the first attempt. A node that failed is left alone for a while. All attempts are one
operation, from the first one's start to the last one's answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from jepsen_like.checkers.history import Operation
from jepsen_like.run.meter import Meter
from jepsen_like.run.subjects import Batch, Request, Subject, Subjects
from jepsen_like.run.system import Client, Refused, StorageFull, System, Unknown
from jepsen_like.run.workloads import Chooser

AVOIDED_S: Final = 1.0
"""How long a node that failed is left alone, unless all have."""
BACKOFF_S: Final = (0.005, 0.05)
"""Before an operation is asked again; twice as long each time."""
MOST_BACKOFF_S: Final = 0.4
"""Where all nodes are down, a hundred clients would keep one processor busy with asking them."""
IDLE_S: Final = 0.01
BEHIND_S: Final = 0.5
"""A worker that could not keep its rate does not make up for more than this."""


@dataclass(frozen=True, slots=True)
class Pace:
    """``rate``: operations per second of one worker (0: one after the other). ``operation_s``:
    time for an operation with all its attempts; ``attempt_s``: for one of them."""

    rate: float
    operation_s: float = 3.0
    attempt_s: float = 1.0


@dataclass(slots=True)
class Shared:
    """What all workers of a run have in common. ``epoch_ns``: when it began; ``wrong``: takes
    answers that no protocol allows; ``seen``: takes every operation that is over."""

    system: System
    subjects: Subjects
    meter: Meter
    pace: Pace
    epoch_ns: int
    wrong: Callable[[str], None]
    token: str
    """Makes idempotency tokens of this run unlike those of any other."""

    def now(self) -> int:
        """Nanoseconds since the run began."""
        return time.monotonic_ns() - self.epoch_ns


class Worker:
    """``process`` is its number, as are those that follow by ``stride``: after an unknown outcome
    it goes on under another one, since the old process's operation may still be under way."""

    def __init__(
        self,
        process: int,
        stride: int,
        protocol: str,
        draw: random.Random,
        shared: Shared,
        chooser: Chooser,
    ) -> None:
        self._process = process
        self._stride = stride
        self._protocol = protocol
        self._draw = draw
        self._shared = shared
        self._chooser = chooser
        self._clients: dict[str, Client] = {}
        self._avoided: dict[str, float] = {}
        self._tokens = 0
        self._pipelines = 0
        self.stopped = False

    async def run(self) -> None:
        """Until ``stopped``."""
        rate, due = self._shared.pace.rate, time.monotonic()
        try:
            while not self.stopped:
                if rate and not self._shared.subjects.ending:
                    due = max(due + self._draw.expovariate(rate), time.monotonic() - BEHIND_S)
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                request = self._chooser.next(self._shared.now() / 1e9)
                if isinstance(request, Batch):
                    await self._do_batch(request)
                elif request is not None:
                    await self._do(request)
                else:
                    await asyncio.sleep(IDLE_S)
        finally:
            for client in self._clients.values():
                await client.close()

    async def _do(self, request: Request) -> None:
        shared, subject = self._shared, request.subject
        process, op = self._process, request.recorded
        shared.subjects.begin(subject)
        start = shared.now()
        ok: bool | None = None
        result: Any = None
        try:
            ok, result = await self._attempts(request)
        finally:
            end = shared.now()
            args, key = request.args, subject.key
            closed = None if ok is None else end
            record = Operation(process, op, key, args, result, start, closed, ok)
            shared.subjects.end_operation(subject, record)
        shared.meter.add(start / 1e9, end / 1e9, ok, request.op)
        if ok:
            learn(subject, record)
        if ok is None:
            self._process += self._stride

    async def _attempts(self, request: Request) -> tuple[bool | None, Any]:
        """Whether it happened, and its result."""
        shared, subject, pace = self._shared, request.subject, self._shared.pace
        over = time.monotonic() + pace.operation_s
        once = None
        if request.once:
            self._tokens += 1
            once = f"{shared.token}-{self._process % self._stride}-{self._tokens}"
        doubt, attempts = False, 0
        while True:
            node, client = self._client()
            timeout_s = max(0.05, min(pace.attempt_s, over - time.monotonic()))
            try:
                args = (request.op, subject.key, request.args, timeout_s, once)
                return True, await client.invoke(*args)
            except (Refused, Unknown) as failure:
                shared.meter.attempt_failed(failure)
                doubt = doubt or isinstance(failure, Unknown)
                full = isinstance(failure, StorageFull)
            except ValueError as error:
                shared.wrong(f"{node}: {error} to {request.op} {subject.key} {request.args}")
                return None, None
            self._avoided[node] = time.monotonic() + AVOIDED_S
            repeatable = request.reads or once is not None or not doubt
            if not repeatable or time.monotonic() >= over or self.stopped:
                if doubt and not request.reads:
                    return None, None
                if full:
                    shared.meter.full_by_op[request.op] += 1
                return False, None
            attempts += 1
            await asyncio.sleep(self._backoff_s(attempts))

    async def _do_batch(self, batch: Batch) -> None:
        """Each part is recorded as an operation of its own, under way for as long as the batch was.
        What has an order is of one process, what has none of as many as there are parts."""
        shared, start = self._shared, self._shared.now()
        parts = [_Part(request) for request in batch.parts]
        for part in parts:
            shared.subjects.begin(part.request.subject)
        try:
            await self._batch_attempts(parts)
        finally:
            for part in parts:
                self._record_part(part, start)
            self._process += self._stride

    def _record_part(self, part: _Part, start: int) -> None:
        shared, request = self._shared, part.request
        end = shared.now() if part.end is None else part.end
        closed = None if part.ok is None else end
        if part.pipeline is None:
            self._process += self._stride
        record = Operation(
            self._process,
            request.recorded,
            request.subject.key,
            request.args,
            part.result,
            start,
            closed,
            part.ok,
            pipeline=part.pipeline,
        )
        shared.subjects.end_operation(request.subject, record)
        shared.meter.add(start / 1e9, end / 1e9, part.ok, f"batched {request.op}")
        if part.full:
            shared.meter.full_by_op[request.op] += 1
        if part.ok:
            learn(request.subject, record)

    async def _batch_attempts(self, parts: list[_Part]) -> None:
        """Parts that were surely not done, and reads, are asked again, in a batch of their own."""
        shared, pace = self._shared, self._shared.pace
        over = time.monotonic() + pace.operation_s
        ordered = shared.system.supports(self._protocol, "order")
        left, attempts = parts, 0
        while True:
            node, client = self._client()
            timeout_s = max(0.05, min(pace.attempt_s, over - time.monotonic()))
            asked = tuple((x.request.op, x.request.subject.key, x.request.args) for x in left)
            self._pipelines += 1
            for part in left:
                part.ok = None
            try:
                results = await client.invoke("batch", "", asked, timeout_s)
            except (Refused, Unknown) as failure:
                results = [failure.with_traceback(None)] * len(left)  # it would know this frame
            except ValueError as error:
                shared.wrong(f"{node}: {error} to a batch {asked}")
                return
            end = shared.now()
            number = self._pipelines * self._stride + self._process % self._stride
            for part, result in zip(left, results, strict=True):
                part.take(result, end, number if ordered else None)
                if part.ok is not True:
                    shared.meter.attempt_failed(result)
            if any(part.ok is not True for part in left):
                self._avoided[node] = time.monotonic() + AVOIDED_S
            left = [part for part in left if part.ok is False]
            if not left or time.monotonic() >= over or self.stopped:
                return
            attempts += 1
            await asyncio.sleep(self._backoff_s(attempts))

    def _backoff_s(self, attempts: int) -> float:
        """After so many that failed."""
        low, high = BACKOFF_S
        most = min(high * 2 ** (attempts - 1), MOST_BACKOFF_S)
        return self._draw.uniform(most * low / high, most)

    def _client(self) -> tuple[str, Client]:
        """Of any node that has not failed of late; of any at all when all have."""
        now, nodes = time.monotonic(), self._shared.system.nodes
        good = [node for node in nodes if self._avoided.get(node, 0.0) <= now]
        node = self._draw.choice(good or list(nodes))
        if node not in self._clients:
            self._clients[node] = self._shared.system.connect(node, self._protocol)
        return node, self._clients[node]


@dataclass(slots=True)
class _Part:
    """One operation of a batch. ``ok``: whether it happened, ``None`` as long as nobody knows."""

    request: Request
    ok: bool | None = None
    result: Any = None
    end: int | None = None
    full: bool = False
    pipeline: int | None = None

    def take(self, result: Any, end: int, pipeline: int | None) -> None:
        """What an attempt came to, which ended at ``end``."""
        self.end, self.pipeline = end, pipeline
        self.full = isinstance(result, StorageFull)
        if isinstance(result, Refused):
            self.ok = False
        elif isinstance(result, Unknown):
            self.ok = False if self.request.reads else None
        else:
            self.ok, self.result = True, result


def learn(subject: Subject, operation: Operation) -> None:
    """Keep the value that the operation shows, for a later cas."""
    match operation.op:
        case "get":
            subject.value = operation.result
        case "set":
            subject.value = operation.args[0]
        case "cas" if operation.result:
            subject.value = operation.args[1]
        case "del":
            subject.value = None
