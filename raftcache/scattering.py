"""A request for several groups: one part for each, and the results back in their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftcache.ops import Atomic, Get, Once, Op, Read, Result, Set, Simple, Status, Write
from raftcache.payloads import Kind

_INVALID: Final = Result(Status.INVALID)
_UNAVAILABLE: Final = Result(Status.UNAVAILABLE)


class Whole:
    """The results of a request for several groups, in its order; ``finish`` is called with them
    once no share is left. It does not know its shares: they know it, and a cycle would be left to
    the garbage collector, which took half of the CPU time of pipelines of 16."""

    __slots__ = ("_finish", "left", "results")

    def __init__(self, count: int, finish: Callable[[Sequence[Result]], None]) -> None:
        self.results: list[Result] = [_UNAVAILABLE] * count
        self.left = 0
        self._finish = finish

    def finish(self) -> None:
        """All results are in their places."""
        self._finish(self.results)


class Share:
    """Where in the results of the whole those of one group belong."""

    __slots__ = ("positions", "whole")

    def __init__(self, whole: Whole) -> None:
        whole.left += 1
        self.whole = whole
        self.positions: list[int] = []

    def place(self, got: Sequence[Result], at: int) -> None:
        """Its results are those in ``got`` from ``at`` on. Called once."""
        whole = self.whole
        results = whole.results
        for position in self.positions:
            results[position] = got[at]
            at += 1
        whole.left -= 1
        if whole.left == 0:
            whole.finish()

    def done(self, got: Sequence[Result]) -> None:
        """Its results are these."""
        self.place(got, 0)


class Part:
    """What one group is asked for, where that is not all alike."""

    __slots__ = ("_share", "ops")

    def __init__(self, whole: Whole) -> None:
        self.ops: list[Read | Write] = []
        self._share = Share(whole)

    def add(self, op: Read | Write, position: int) -> None:
        """One operation more, that stands there in the whole."""
        self.ops.append(op)
        self._share.positions.append(position)

    def done(self, got: Sequence[Result]) -> None:
        """Of an atomic part there is one result, which stands for all unless it has theirs."""
        count = len(self._share.positions)
        if len(got) != count:
            got = got[0].parts if len(got[0].parts) == count else [got[0]] * count
        self._share.place(got, 0)

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


def scatter(
    ops: Sequence[Read | Write],
    group_of: Callable[[bytes], int],
    finish: Callable[[Sequence[Result]], None],
) -> dict[int, Part]:
    """``ops`` by their groups. ``finish`` is called with the results of all, in their order, once
    every part is done. An operation without a key is of no group, and invalid."""
    whole = Whole(len(ops), finish)
    parts: dict[int, Part] = {}
    for position, op in enumerate(ops):
        key = key_of(op)
        if key is None:
            whole.results[position] = _INVALID
            continue
        group = group_of(key)
        part = parts.get(group)
        if part is None:
            part = parts[group] = Part(whole)
        part.add(op, position)
    if not parts:
        whole.finish()
    return parts


def alike(ops: Sequence[Read | Write]) -> tuple[Kind | None, int]:
    """``READ`` of nothing but ``Get``, ``WRITE`` of nothing but ``Set``, which is most of all there
    is, with the bytes of their keys and values; ``None`` of anything else."""
    size = 0
    if type(ops[0]) is Get:
        for op in ops:
            if type(op) is not Get:
                return None, 0
            size += len(op.key)
        return Kind.READ, size
    for op in ops:
        if type(op) is not Set:
            return None, 0
        size += len(op.key) + len(op.value)
    return Kind.WRITE, size


def key_of(op: Op) -> bytes | None:
    """The key that decides the group; ``None`` when there is none."""
    if isinstance(op, Once):
        return key_of(op.op)
    if isinstance(op, Atomic):
        if op.ops:
            return op.ops[0].key
        return op.watched[0][0] if op.watched else None
    return getattr(op, "key", None)
