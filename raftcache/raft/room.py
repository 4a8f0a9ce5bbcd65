"""Which replicas of a group have room on their disks, as its leader knows.

Followers say so with every reply (``transport.without_room``). While no majority has room, nothing
that is proposed could be made durable; while others have and the leader has not, one of them should
lead instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftcache.raft.engine import Engine
from raftcache.raft.journal import Journal
from raftcache.raft.transport import GroupTransport

MAKE_WAY_INTERVAL: Final = 10.0
"""A leader without room tries to hand over once in so many election timeouts."""


class Room:
    """One group's disks. ``interval_s``: between two tries to hand over."""

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        transport: GroupTransport,
        connected: Callable[[str], bool],
        now: Callable[[], float],
        interval_s: float,
    ) -> None:
        self._engine = engine
        self._journal = journal
        self._transport = transport
        self._connected = connected
        self._now = now
        self._interval_s = interval_s
        self._next_at = -1e18

    @property
    def full(self) -> bool:
        """Whether a proposal could not be made durable: this leader's own disk takes no more, or
        those of so many others do not that there is no majority."""
        if not self._journal.has_room:
            return True
        return bool(self._transport.without_room) and not self._majority()

    def _others(self) -> list[str]:
        lacking, connected = self._transport.without_room, self._connected
        return [node for node in self._engine.others if connected(node) and node not in lacking]

    def _majority(self) -> bool:
        return len(self._others()) + self._journal.has_room >= self._engine.majority

    def match(self, node: str) -> int:
        """How far ``node`` has the log, whatever this leader's own disk has of it."""
        return max(self._engine.match_index(node), self._transport.held_match(node))

    def successor(self) -> str | None:
        """Who should lead instead of this node, now; ``None``: nobody."""
        if self._journal.has_room or self._now() < self._next_at:
            return None
        able = self._others()
        if not able or not self._majority():
            return None
        self._next_at = self._now() + self._interval_s
        return max(able, key=self.match)
