"""Which entry expires next.

A heap of (deadline, key) with one item per key in the usual case: an entry whose deadline moves
*later*, as a refreshed one's does, keeps its item, which is put right when it surfaces. So every
entry with a deadline has an item at or before that deadline. Items without such an entry are
garbage; when garbage dominates, the heap is replaced by a clean one a few items per batch, since
rebuilding a million items at once would stall the event loop for a second.

None of this is visible outside: the order of expiry is that of (deadline, key), whatever the
heap's history, so it needs no place in snapshots.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

from raftcache.machine.costs import Entry

_SLACK: Final = 1024
_MOVES_PER_BATCH: Final = 1024

Item = tuple[int, bytes]


class Deadlines:
    """Relies on being told of every change of an entry's deadline, removal included."""

    def __init__(self, entries: Mapping[bytes, Entry]) -> None:
        """``entries``: may have deadlines already."""
        self.entries = entries
        self._heap: list[Item] = [(entry[2], key) for key, entry in entries.items() if entry[2]]
        heapq.heapify(self._heap)
        self._outgoing: list[Item] = []
        self._moved: set[bytes] = set()
        self.live = len(self._heap)

    def __len__(self) -> int:
        """Items held, garbage included."""
        return len(self._heap) + len(self._outgoing)

    def change(self, key: bytes, before: int, after: int) -> None:
        """``key``'s deadline was ``before`` and is ``after``; 0: none."""
        if before:
            self.live -= 1
        if after:
            self.live += 1
            if not 0 < before <= after:
                heapq.heappush(self._heap, (after, key))

    def first(self) -> Item | None:
        """The earliest deadline and its key."""
        while True:
            heap, outgoing = self._heap, self._outgoing
            if outgoing and (not heap or outgoing[0] < heap[0]):
                heap = outgoing
            if not heap:
                return None
            item = heap[0]
            entry = self.entries.get(item[1])
            if entry is not None and entry[2] == item[0]:
                return item
            heapq.heappop(heap)
            if entry is not None and entry[2] > item[0]:
                heapq.heappush(self._heap, (entry[2], item[1]))

    def tidy(self, ops: int) -> None:
        """To be called once per batch of ``ops`` operations."""
        if self._outgoing:
            self._move(max(_MOVES_PER_BATCH, 2 * ops))
        elif len(self._heap) > 2 * self.live + _SLACK:
            self._heap, self._outgoing = [], self._heap

    def _move(self, count: int) -> None:
        # Taking a heap's last items leaves a heap: both stay usable all the time.
        outgoing, moved = self._outgoing, self._moved
        for _ in range(min(count, len(outgoing))):
            due, key = outgoing.pop()
            entry = self.entries.get(key)
            if entry is not None and entry[2] >= due and key not in moved:
                moved.add(key)
                heapq.heappush(self._heap, (entry[2], key))
        if not outgoing:
            self._moved = set()
