"""A request for several groups: one part for each, and the results back in their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftcache.ops import Atomic, Get, Once, Op, Read, Result, Set, Simple, Status, Write

_INVALID: Final = Result(Status.INVALID)
_UNAVAILABLE: Final = Result(Status.UNAVAILABLE)


class Scattered:
    """``ops`` by their groups. ``finish`` is called with the results of all, in their order, once
    every part is done. An operation without a key is of no group, and invalid."""

    __slots__ = ("_finish", "_left", "parts", "results")

    def __init__(
        self,
        ops: Sequence[Read | Write],
        group_of: Callable[[bytes], int],
        finish: Callable[[Sequence[Result]], None],
    ) -> None:
        self.results: list[Result] = [_UNAVAILABLE] * len(ops)
        self.parts: dict[int, Part] = {}
        self._finish = finish
        parts = self.parts
        for position, op in enumerate(ops):
            key = op.key if type(op) is Get or type(op) is Set else key_of(op)
            if key is None:
                self.results[position] = _INVALID
            else:
                group = group_of(key)
                part = parts.get(group)
                if part is None:
                    part = Part(self)
                    parts[group] = part
                part.ops.append(op)
                part.positions.append(position)
        self._left = len(parts)

    def part_done(self) -> None:
        """One part's results are in their places."""
        self._left -= 1
        if self._left == 0:
            self._finish(self.results)


class Part:
    """What one group is asked for, and where in the results of the whole that belongs."""

    __slots__ = ("ops", "positions", "whole")

    def __init__(self, whole: Scattered) -> None:
        self.ops: list[Read | Write] = []
        self.positions: list[int] = []
        self.whole = whole

    def done(self, got: Sequence[Result]) -> None:
        """Of an atomic part there is one result, which stands for all unless it has theirs."""
        positions, results = self.positions, self.whole.results
        count = len(positions)
        if len(got) != count:
            got = got[0].parts if len(got[0].parts) == count else [got[0]] * count
        for at, position in enumerate(positions):
            results[position] = got[at]
        self.whole.part_done()

    def as_one(self) -> Sequence[Read | Write]:
        """All operations of the part as one, atomic, where they are more than reads. With an
        idempotency key the first session names the whole."""
        if len(self.ops) < 2 or all(isinstance(op, Read) for op in self.ops):
            return self.ops
        plain: list[Simple] = []
        session: tuple[bytes, int] | None = None
        for op in self.ops:
            if isinstance(op, Once) and not isinstance(op.op, Atomic):
                session = session or (op.session, op.seq)
                plain.append(op.op)
            elif isinstance(op, Simple):
                plain.append(op)
        atomic = Atomic(tuple(plain))
        return (atomic if session is None else Once(session[0], session[1], atomic),)


def key_of(op: Op) -> bytes | None:
    """The key that decides the group; ``None`` when there is none."""
    if isinstance(op, Once):
        return key_of(op.op)
    if isinstance(op, Atomic):
        if op.ops:
            return op.ops[0].key
        return op.watched[0][0] if op.watched else None
    return getattr(op, "key", None)
