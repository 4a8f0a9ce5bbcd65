"""What a replica is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from raftcache.ops import Op, Result
from raftcache.raft.group import Outcome

Finish = Callable[[Outcome, Sequence[Result]], None]


class Request:
    """Operations that end together. ``finish`` gets one result each when ``APPLIED``, else none."""

    __slots__ = ("finish", "ops", "size")

    def __init__(self, ops: Sequence[Op], size: int, finish: Finish) -> None:
        self.ops = ops
        self.size = size
        self.finish = finish
