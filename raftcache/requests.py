"""What a replica is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftcache.ops import Op, Result
from raftcache.raft.group import Outcome

Finish = Callable[[Outcome, Sequence[Result]], None]


class Request:
    """Operations that end together. ``size``: bytes of their keys and values."""

    __slots__ = ("ops", "size")

    def __init__(self, ops: Sequence[Op], size: int) -> None:
        self.ops = ops
        self.size = size

    def finish(self, outcome: Outcome, results: Sequence[Result]) -> None:
        """Called once: with one result each when ``APPLIED``, else with none."""
        raise NotImplementedError

    def split(self) -> Sequence[Request]:
        """The requests that are in it and still waited for, each to be finished instead of this
        one."""
        return (self,)


class Call(Request):
    """A request whose end a function hears of."""

    __slots__ = ("_finish",)

    def __init__(self, ops: Sequence[Op], size: int, finish: Finish) -> None:
        super().__init__(ops, size)
        self._finish = finish

    def finish(self, outcome: Outcome, results: Sequence[Result]) -> None:
        """See ``Request``."""
        self._finish(outcome, results)
