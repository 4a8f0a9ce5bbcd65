"""Iterations over one replica's keys: an index, built in slices, for all who wait for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from raftcache.machine import Machine
from raftcache.machine.scan import KeyIndex, matcher
from raftcache.ops import Result, Scan, Status, encode_keys
from raftcache.raft.group import Outcome
from raftcache.requests import Request
from raftcache.runtime import Runtime

KEEP_S: Final = 60.0
"""An index that nobody has used for so long is forgotten."""
MAX_COUNT: Final = 10_000
"""Keys looked at by one ``Scan``."""


class Scans:
    """``machine()`` is the replica's present state."""

    def __init__(self, runtime: Runtime, machine: Callable[[], Machine]) -> None:
        self._runtime = runtime
        self._machine = machine
        self._index: KeyIndex | None = None
        self._used_at = 0.0
        self._building: list[Request] = []
        self._next: list[Request] = []

    def serve(self, request: Request) -> None:
        """Answer a request that consists of one ``Scan``. One that begins an iteration needs an
        index that was begun after it came; for the others any will do."""
        op = request.ops[0]
        assert isinstance(op, Scan)
        if op.place > 0 and self._index is not None:
            self._answer(request)
        elif self._building:
            self._next.append(request)
        else:
            self._build([request])

    def _build(self, waiting: list[Request]) -> None:
        self._building = waiting
        index = KeyIndex(self._machine().cache.entries)
        self._slice(index, index.steps())

    def _slice(self, index: KeyIndex, steps: Iterator[None]) -> None:
        if next(steps, self) is not self:
            self._runtime.call_soon(self._slice, index, steps)
            return
        self._index = index
        waiting, self._building = self._building, []
        for request in waiting:
            self._answer(request)
        if self._next:
            following, self._next = self._next, []
            self._build(following)

    def _answer(self, request: Request) -> None:
        op, index, cache = request.ops[0], self._index, self._machine().cache
        assert isinstance(op, Scan) and index is not None
        self._touch()
        count = min(max(1, op.count), MAX_COUNT)
        found, place = index.page(op.place, count, cache.entries)
        matches = matcher(op.pattern, op.slot)
        keys = [key for key in found if matches(key) and cache.live(key) is not None]
        value = encode_keys(keys)
        request.finish(Outcome.APPLIED, [Result(Status.OK, value=value, number=place)])

    def _touch(self) -> None:
        first, self._used_at = self._used_at == 0.0, self._runtime.now()
        if first:
            self._runtime.call_later(KEEP_S, self._forget)

    def _forget(self) -> None:
        left = self._used_at + KEEP_S - self._runtime.now()
        if left > 0:
            self._runtime.call_later(left, self._forget)
        else:
            self._index, self._used_at = None, 0.0
