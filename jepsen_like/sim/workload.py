"""Clients: each one request at a time, through the router of any node, everything written down.

Values are unique, so that a version stands for the value that came with it. Some writes carry a
session and sequence number, and are sent again, also through another node, when their outcome is
unknown: still one operation, from the first attempt to the last answer.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

from jepsen_like.sim.cluster import Cluster, SimNode
from jepsen_like.sim.keys import Keyspace
from jepsen_like.sim.recorder import Recorder
from jepsen_like.sim.requests import Chooser, Request, answer, combined
from raftcache.ops import REFUSED, Get, Result, Set, Status, Write

HANG_SLACK_S: Final = 1.0
"""A future must be done so long after its deadline, by the clock of a node that is running."""
ATTEMPTS: Final = 4
"""Of a write with a session."""


class Client:
    """One client. ``think_s``: mean pause between two requests."""

    def __init__(
        self, number: int, cluster: Cluster, recorder: Recorder, keys: Keyspace, think_s: float
    ) -> None:
        self._number = number
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._recorder = recorder
        self._random: random.Random = cluster.scheduler.generator(f"client/{number}")
        self._chooser = Chooser(number, self._random, keys)
        self._think_s = think_s
        self._plain = keys.plain
        self._sequence = 0
        self._stopped = False
        self._serial = 0  # of attempts: late answers are told from current ones

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
        filler = self._chooser.filler()
        if filler is not None:
            self._fill(filler)
        elif self._random.random() < 0.1:
            self._batch(self._chooser.several())
        else:
            self._one(self._chooser.choose())

    # -- one request

    def _one(self, request: Request) -> None:
        index = self._recorder.begin(self._number, request.op, request.key, request.args)
        session, attempts = None, 1
        if not request.reads and not self._plain and self._random.random() < 0.4:
            self._sequence += 1
            session, attempts = (f"client {self._number}".encode(), self._sequence), ATTEMPTS
        self._attempt(request, index, session, attempts)

    def _attempt(
        self,
        request: Request,
        index: int,
        session: tuple[bytes, int] | None,
        attempts: int,
        doubt: bool = False,
    ) -> None:
        def call(node: SimNode, deadline: float) -> asyncio.Future[Any]:
            return request.send(node, deadline, session)

        def ended(got: Result | list[Result] | None) -> None:
            outcome = _worst(got)
            unknown = outcome is None or outcome is Status.UNKNOWN
            if attempts > 1 and (unknown or outcome in REFUSED) and not self._stopped:
                self._cluster.counts["retries after an unknown outcome"] += unknown
                pause = self._random.uniform(0.0, 0.3)
                again = (request, index, session, attempts - 1, doubt or unknown)
                self._scheduler.call_later(pause, self._attempt, *again)
                return
            self._record(index, got, doubt or unknown)
            self._later()

        self._call(call, ended)

    def _batch(self, requests: list[Request]) -> None:
        """A few operations on different keys in one request, each on its own."""
        ops = [request.ops[0] for request in requests]
        indexes = [self._recorder.begin(self._number, x.op, x.key, x.args) for x in requests]

        def call(node: SimNode, deadline: float) -> asyncio.Future[Any]:
            return node.batch([op for op in ops if isinstance(op, Get | Write)], deadline)

        def ended(results: list[Result] | None) -> None:
            for place, index in enumerate(indexes):
                self._record(index, None if results is None else results[place], False)
            self._later()

        self._call(call, ended)

    def _fill(self, filler: Set) -> None:
        """Nobody asks what became of it."""
        self._call(lambda node, deadline: node.write(filler, deadline), lambda _: self._later())

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

        def answered(value: Any) -> None:
            if self._serial == serial:
                self._serial += 1
                ended(value)

        def ask() -> None:
            future = call(node, node.now() + timeout)
            future.add_done_callback(lambda done: answered(done.result()))

        node.process.call_soon(ask)
        self._watch(node, serial, timeout + HANG_SLACK_S, answered)

    def _watch(
        self, node: SimNode, serial: int, seconds: float, answered: Callable[[Any], None]
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
                answered(None)
            elif self._scheduler.now >= limit:
                name = node.settings.node
                self._scheduler.violation("a request hangs", f"client {self._number} at {name}")
                answered(None)
            else:
                self._scheduler.call_later(0.1, look)

        self._scheduler.call_later(0.1, look)

    # -- what came back

    def _record(self, index: int, got: Result | list[Result] | None, doubt: bool) -> None:
        """``doubt``: an attempt may have been applied, whatever the last one says."""
        operation = self._recorder.operations[index]
        outcome = _worst(got)
        if got is None or outcome is None or outcome is Status.UNKNOWN:
            self._recorder.end(index, None, None)
            return
        if outcome in REFUSED:
            # Of a read or after a doubtful attempt that tells nothing of what happened before.
            self._recorder.end(index, None if doubt else False, None)
            return
        try:
            result = combined(got) if isinstance(got, list) else got
            said = answer(operation, result)
        except ValueError as error:
            self._scheduler.violation("a wrong answer", f"{error} to {operation}")
            self._recorder.end(index, None, None)
            return
        self._recorder.end(index, True, said)
        self._chooser.learn(operation, result)


def _worst(got: Result | list[Result] | None) -> Status | None:
    """How a request ended: of an atomic batch the worst of its parts; ``None``: nobody knows."""
    if got is None:
        return None
    results = got if isinstance(got, list) else [got]
    statuses = [result.status for result in results]
    return max(statuses)
