"""Which entry expires next.

A heap with one item per key in the usual case: an entry whose deadline moves *later*, as a
refreshed one's does, keeps its item, which is put right when it surfaces. So every entry with a
deadline has an item at or before that deadline. Items without such an entry are garbage; when it
grows, the heap is replaced by a clean one, some items per operation, since rebuilding one of a
million items at once would stall the event loop for a second.

None of this is visible outside: the order of expiry is that of (deadline, key), whatever the
heap's history, so it needs no place in snapshots.

An item is one bytes object, the deadline in eight bytes before the key: half the memory of a tuple,
since it keeps neither a dead entry's key nor its deadline alive, and quicker to compare.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

from raftcache.machine.costs import Entry

_SLACK: Final = 256
_MOVES_PER_OPERATION: Final = 8


def _item(deadline: int, key: bytes) -> bytes:
    return deadline.to_bytes(8, "big") + key


class Deadlines:
    """Relies on being told of every change of an entry's deadline, removal included."""

    def __init__(self, entries: Mapping[bytes, Entry]) -> None:
        """``entries``: may have deadlines already."""
        self.entries = entries
        self._heap = [_item(entry[2], key) for key, entry in entries.items() if entry[2]]
        heapq.heapify(self._heap)
        self._outgoing: list[bytes] = []
        self._moved: set[bytes] = set()
        self._live = len(self._heap)

    def __len__(self) -> int:
        """Items held, garbage included."""
        return len(self._heap) + len(self._outgoing)

    def change(self, key: bytes, before: int, after: int) -> None:
        """``key``'s deadline was ``before`` and is ``after``; 0: none."""
        if before:
            self._live -= 1
        if after:
            self._live += 1
            if not 0 < before <= after:
                heapq.heappush(self._heap, _item(after, key))

    def first(self) -> tuple[int, bytes] | None:
        """The earliest deadline and its key."""
        while True:
            heap, outgoing = self._heap, self._outgoing
            if outgoing and (not heap or outgoing[0] < heap[0]):
                heap = outgoing
            if not heap:
                return None
            due, key = int.from_bytes(heap[0][:8], "big"), heap[0][8:]
            entry = self.entries.get(key)
            if entry is not None and entry[2] == due:
                return due, key
            item = heapq.heappop(heap)
            while heap and heap[0] == item:
                heapq.heappop(heap)
            if entry is not None and entry[2] > due:
                heapq.heappush(self._heap, _item(entry[2], key))

    def tidy(self, ops: int) -> None:
        """To be called once per batch of ``ops`` operations: keeps garbage below about half."""
        if self._outgoing:
            self._move(_MOVES_PER_OPERATION * (ops + 2))
        elif len(self._heap) > self._live + self._live // 2 + _SLACK:
            self._heap, self._outgoing = [], self._heap

    def _move(self, count: int) -> None:
        # Taking a heap's last items leaves a heap: both stay usable all the time. A key may have
        # several items at or before its deadline, after it was shortened; one of them is enough.
        outgoing, moved = self._outgoing, self._moved
        for _ in range(min(count, len(outgoing))):
            item = outgoing.pop()
            key = item[8:]
            entry = self.entries.get(key)
            if entry is None:
                continue
            due = int.from_bytes(item[:8], "big")
            if due == entry[2]:
                heapq.heappush(self._heap, item)
            elif due < entry[2] and key not in moved:
                moved.add(key)
                heapq.heappush(self._heap, _item(entry[2], key))
        if not outgoing:
            moved.clear()
