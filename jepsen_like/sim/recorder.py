"""The history of a run: every operation, dated by one clock.

Every instant written down is unique and in true order: the simulation runs one callback at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from jepsen_like.checkers.history import Operation
from jepsen_like.sim.cluster import Cluster


class Recorder:
    """``must_succeed_from``: what begins later (nanoseconds) has to succeed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._scheduler = cluster.scheduler
        self._last = 0
        self.operations: list[Operation] = []
        self.must_succeed_from: int | None = None

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
        """Write down how it ended."""
        end = None if ok is None else self.stamp()
        operation = replace(self.operations[index], end=end, ok=ok, result=result)
        self.operations[index] = operation
        self.cluster.counts["unknown outcomes"] += ok is None
        strict = self.must_succeed_from
        if ok is not True and strict is not None and operation.start >= strict:
            self._scheduler.violation("no recovery", f"{operation.key} {operation}")
        if self._scheduler.trace is not None:
            outcome = {True: "", False: " (not done)", None: " (unknown)"}[ok]
            self._scheduler.say("client", f"{operation.key} {operation}{outcome}")
