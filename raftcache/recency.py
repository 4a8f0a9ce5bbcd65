"""What was read, on its way to the log: recency is part of the state that replicas have in common.

A leader writes the keys that were read into its next entry; another replica tells the leader. What
that costs is bounded for a node, however many groups it has: a key's further uses are not noted for
a while, and when too much is waiting, some uses are forgotten. Recency is then of a sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from raftcache.ops import Get, Op, Result

MAX_WAITING: Final = 4096
"""Keys whose use waits to be written down, in all groups of a node; further ones go without."""
MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Of keys in one message to the leader."""
MAX_NOTED: Final = 65_536
"""Keys of a group remembered as noted lately, twice."""
NOTED_FOR: Final = 5
"""A key's further uses within so many touch intervals, or up to twice as many, are not noted: 1 to
2 s by default. Redis's own clock for this has 1 s, memcached moves an item once a minute."""


class Room:
    """One node's: how many uses ``wait``."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0


class Recency:
    """One group's uses on one replica. ``interval_s``: how long one waits to be written down where
    no write takes it along."""

    __slots__ = (
        "_before",
        "_interval_s",
        "_noted",
        "_noted_since",
        "_now",
        "_room",
        "_since",
        "_waiting",
    )

    def __init__(self, now: Callable[[], float], interval_s: float, room: Room) -> None:
        self._now = now
        self._interval_s = interval_s
        self._room = room
        self._waiting: dict[bytes, None] = {}
        self._since = 0.0
        """When the first of these came."""
        self._noted: set[bytes] = set()
        self._before: set[bytes] = set()
        """Keys whose use was noted lately, in two generations."""
        self._noted_since = now()

    def note(self, key: bytes) -> None:
        """It was used. Call ``age`` now and then."""
        if key not in self._noted and key not in self._before:
            self._note(key)

    def note_found(self, ops: Sequence[Op], results: Sequence[Result]) -> None:
        """The same for what these found."""
        noted, before = self._noted, self._before
        for op, result in zip(ops, results, strict=True):
            if result.value is None or type(op) is not Get:
                continue
            key = op.key
            if key not in noted and key not in before:
                self._note(key)

    def _note(self, key: bytes) -> None:
        room, waiting = self._room, self._waiting
        if room.waiting < MAX_WAITING:
            if not waiting:
                self._since = self._now()
            room.waiting += 1
            waiting[key] = None
            self._noted.add(key)

    def age(self) -> None:
        """Keys noted long ago are noted again."""
        now = self._now()
        old = now - self._noted_since >= NOTED_FOR * self._interval_s
        if old or len(self._noted) >= MAX_NOTED:
            self._before, self._noted, self._noted_since = self._noted, set(), now

    @property
    def due(self) -> bool:
        """Whether some have waited for long enough."""
        return bool(self._waiting) and self._now() - self._since >= self._interval_s

    def take(self) -> tuple[bytes, ...]:
        """All that wait, to be written down."""
        keys = tuple(self._waiting)
        self._room.waiting -= len(keys)
        self._waiting.clear()
        return keys

    def messages(self) -> Iterator[list[bytes]]:
        """The same in pieces of bounded size, for the leader."""
        piece, size = list[bytes](), 0
        for key in self.take():
            if piece and size + len(key) > MAX_MESSAGE_BYTES:
                yield piece
                piece, size = [], 0
            piece.append(key)
            size += len(key)
        if piece:
            yield piece
