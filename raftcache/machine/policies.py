"""Eviction policies: which entry goes when the byte budget is full.

Each is a small deterministic class that keeps an order over the keys of ``entries``, is told of
every change, and can write its whole state down and read it back: after a snapshot it chooses the
victims it would have chosen. ``cachetools`` has LRU, LFU and FIFO too and is the reference the
tests compare with; its classes show neither order nor counts, so they cannot be in a snapshot, and
cost more per operation than what an insertion-ordered dict does by itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Any, ClassVar, Final, NamedTuple, Protocol

import mmh3

from raftcache.machine.costs import ENTRY, Entry, entry_cost


class Frozen(NamedTuple):
    """A policy's state: ``keys`` in its order, first those nearest to eviction where the order says
    so. ``marks``: a number per key, or empty. ``split``: how many of the keys are in the first of
    two queues. ``ghosts``: hashes of keys evicted lately, oldest first."""

    keys: list[bytes]
    marks: list[int]
    split: int
    ghosts: list[int]


class Policy(Protocol):
    """``entries`` is shared with the cache, which adds and removes the entries; only ``Lru`` and
    ``Fifo`` reorder it."""

    name: ClassVar[str]
    overhead: ClassVar[int]
    """Bytes per entry, see ``costs``."""
    uses_recency: ClassVar[bool] = True
    """Whether reads matter, so that they have to be in the log."""

    entries: dict[bytes, Entry]

    def __init__(self, entries: dict[bytes, Entry]) -> None:
        self.entries = entries

    def resize(self, budget: int) -> None:
        """The byte budget is this now (0: none)."""
        return

    def added(self, key: bytes) -> None:
        """``key`` is new in ``entries``."""
        return

    def used(self, key: bytes) -> None:
        """``key`` was read."""

    def replaced(self, key: bytes, entry: Entry, delta: int) -> None:
        """Put ``entry``, which costs ``delta`` more than the old one, in its place: a use."""
        self.entries[key] = entry
        self.used(key)

    def removed(self, key: bytes, cost: int) -> None:
        """``key`` left ``entries``, but not by ``evict``."""

    def evict(self, keep: Collection[bytes]) -> bytes:
        """Choose the victim, which the caller then takes out of ``entries``; never one in
        ``keep``: keys that are being written. There must be another."""
        ...

    def freeze(self) -> Frozen:
        """The whole state, as copies."""
        ...

    def thaw(self, frozen: Frozen) -> None:
        """Become that state; ``entries`` holds the same keys, in that order. Raises ``ValueError``
        when it makes no sense."""


class Oldest:
    """Takes keys from the front of an insertion-ordered dict.

    ``next(iter(order))`` would step over everything ever removed from the front, each time. So a
    window of the oldest keys is cut out at once and used up; keys that move or leave must be
    dropped from it (``window.pop``). Filling walks at most about four slots per entry, for a
    window of 1/64 of the entries: well under a microsecond per key taken.
    """

    __slots__ = ("order", "window")

    def __init__(self, order: dict[Any, Any]) -> None:
        self.order = order
        self.window: dict[Any, None] = {}
        """Oldest last: ``popitem`` takes from that end."""

    def take(self) -> Any:
        """The oldest key; it leaves the window, and the caller must remove it from the dict or move
        it to the end. Raises ``KeyError`` when there is none."""
        window = self.window
        if not window:
            keys = list(islice(self.order, 16 + len(self.order) // 64))
            keys.reverse()
            window.update(dict.fromkeys(keys))
        return window.popitem()[0]


class Lru(Policy):
    """Least recently used, exactly: the order of the dict itself.

    A use takes the key out and puts it back at the end. That is as quick as ``OrderedDict``'s
    ``move_to_end`` and needs 80 bytes less per entry, since there is no linked list.
    """

    name: ClassVar[str] = "lru"
    overhead: ClassVar[int] = ENTRY

    def __init__(self, entries: dict[bytes, Entry]) -> None:
        self.entries = entries
        self._oldest = Oldest(entries)
        self._window = self._oldest.window

    def used(self, key: bytes) -> None:
        entries = self.entries
        entries[key] = entries.pop(key)
        if key in self._window:
            del self._window[key]

    def replaced(self, key: bytes, entry: Entry, delta: int) -> None:
        entries, window = self.entries, self._window
        del entries[key]
        entries[key] = entry
        if window and key in window:
            del window[key]

    def removed(self, key: bytes, cost: int) -> None:
        self._window.pop(key, None)

    def evict(self, keep: Collection[bytes]) -> bytes:
        while True:
            key: bytes = self._oldest.take()
            if key not in keep:
                return key
            self.used(key)  # as its write is about to do

    def freeze(self) -> Frozen:
        return Frozen(list(self.entries), [], 0, [])

    def thaw(self, frozen: Frozen) -> None:
        if frozen.marks or frozen.split or frozen.ghosts:
            raise ValueError(f"{self.name} keeps nothing but an order")


class Fifo(Lru):
    """First in, first out: reads do not matter. A write puts a key in anew, as in cachetools."""

    name: ClassVar[str] = "fifo"
    uses_recency: ClassVar[bool] = False


class _Bucket:
    """The keys with one count of uses, least recently used first; a link in a ring."""

    __slots__ = ("count", "keys", "next", "oldest", "prev")

    def __init__(self, count: int) -> None:
        self.count = count
        self.keys: dict[bytes, None] = {}
        self.oldest = Oldest(self.keys)
        self.prev = self.next = self

    def insert_after(self, previous: _Bucket) -> None:
        self.prev, self.next = previous, previous.next
        previous.next.prev = self
        previous.next = self

    def unlink(self) -> None:
        self.prev.next, self.next.prev = self.next, self.prev


class Lfu(Policy):
    """Least frequently used; among equals, least recently used. Counts since the entry came in,
    with no ageing. Constant time: Shah, Mitra, Matani, "An O(1) algorithm for implementing the LFU
    cache eviction scheme", 2010."""

    name: ClassVar[str] = "lfu"
    overhead: ClassVar[int] = ENTRY + 164

    def __init__(self, entries: dict[bytes, Entry]) -> None:
        self.entries = entries
        self._bucket_of: dict[bytes, _Bucket] = {}
        self._ring = _Bucket(0)

    def added(self, key: bytes) -> None:
        self._put(key, 1, self._ring)

    def _put(self, key: bytes, count: int, previous: _Bucket) -> None:
        bucket = previous.next
        if bucket.count != count:
            bucket = _Bucket(count)
            bucket.insert_after(previous)
        bucket.keys[key] = None
        self._bucket_of[key] = bucket

    def used(self, key: bytes) -> None:
        bucket = self._bucket_of[key]
        if len(bucket.keys) == 1 and bucket.next.count != bucket.count + 1:
            bucket.count += 1
            return
        self._put(key, bucket.count + 1, bucket)
        self._leave(bucket, key)

    def _leave(self, bucket: _Bucket, key: bytes) -> None:
        del bucket.keys[key]
        bucket.oldest.window.pop(key, None)
        if not bucket.keys:
            bucket.unlink()

    def removed(self, key: bytes, cost: int) -> None:
        self._leave(self._bucket_of.pop(key), key)

    def evict(self, keep: Collection[bytes]) -> bytes:
        bucket = self._ring.next
        while bucket is not self._ring:
            for _ in range(len(bucket.keys)):
                key: bytes = bucket.oldest.take()
                if key not in keep:
                    self._leave(self._bucket_of.pop(key), key)
                    return key
                bucket.keys[key] = bucket.keys.pop(key)
            bucket = bucket.next
        raise KeyError("nothing to evict")

    def freeze(self) -> Frozen:
        keys: list[bytes] = []
        counts: list[int] = []
        bucket = self._ring.next
        while bucket is not self._ring:
            keys.extend(bucket.keys)
            counts.extend([bucket.count] * len(bucket.keys))
            bucket = bucket.next
        return Frozen(keys, counts, 0, [])

    def thaw(self, frozen: Frozen) -> None:
        if frozen.split or frozen.ghosts:
            raise ValueError("lfu keeps nothing but counts")
        previous = self._ring
        for key, count in zip(frozen.keys, frozen.marks, strict=True):
            if count < max(1, previous.count):
                raise ValueError("lfu's counts must rise")
            self._put(key, count, previous.prev if count == previous.count else previous)
            previous = self._bucket_of[key]


class Sieve(Policy):
    """SIEVE (Zhang et al., NSDI 2024): a queue in order of arrival, a visited bit per entry, and a
    hand that moves from old to new, clears the bits it meets and evicts the first entry without.

    The hand is the border between two dicts: the queue is ``behind`` (already passed, older) and
    then ``ahead``. At the end of the queue the hand starts over at its oldest entry.
    """

    name: ClassVar[str] = "sieve"
    overhead: ClassVar[int] = ENTRY + 84

    def __init__(self, entries: dict[bytes, Entry]) -> None:
        self.entries = entries
        self._behind: dict[bytes, bool] = {}
        self._ahead: dict[bytes, bool] = {}
        self._oldest = Oldest(self._ahead)

    def added(self, key: bytes) -> None:
        if not self._ahead:
            self._start_over()
        self._ahead[key] = False

    def _start_over(self) -> None:
        self._ahead, self._behind = self._behind, {}
        self._oldest = Oldest(self._ahead)

    def used(self, key: bytes) -> None:
        queue = self._ahead if key in self._ahead else self._behind
        queue[key] = True

    def removed(self, key: bytes, cost: int) -> None:
        if self._ahead.pop(key, None) is None:
            del self._behind[key]
        self._oldest.window.pop(key, None)

    def evict(self, keep: Collection[bytes]) -> bytes:
        while True:
            if not self._ahead:
                self._start_over()
            key: bytes = self._oldest.take()
            visited = self._ahead.pop(key)
            if key in keep:
                self._behind[key] = visited
            elif visited:
                self._behind[key] = False
            else:
                return key

    def freeze(self) -> Frozen:
        behind, ahead = self._behind, self._ahead
        marks = [int(visited) for queue in (behind, ahead) for visited in queue.values()]
        return Frozen([*behind, *ahead], marks, len(behind), [])

    def thaw(self, frozen: Frozen) -> None:
        if frozen.ghosts or not set(frozen.marks) <= {0, 1}:
            raise ValueError("sieve keeps a queue and a bit per entry")
        marked = list(zip(frozen.keys, map(bool, frozen.marks), strict=True))
        self._behind.update(marked[: frozen.split])
        self._ahead.update(marked[frozen.split :])


class S3Fifo(Policy):
    """S3-FIFO (Yang et al., SOSP 2023), with sizes in bytes: a small queue for what is new (a tenth
    of the budget), a main queue for what was used again, and a ghost queue that remembers what left
    the small one (64-bit hashes, at most as many as there are entries).

    A key that is being written and met in the small queue counts as used again.
    """

    name: ClassVar[str] = "s3fifo"
    overhead: ClassVar[int] = ENTRY + 168

    MOST_USES: Final = 3

    def __init__(self, entries: dict[bytes, Entry]) -> None:
        self.entries = entries
        self._small: dict[bytes, int] = {}
        self._main: dict[bytes, int] = {}
        self._ghosts: dict[int, None] = {}
        self._oldest_small = Oldest(self._small)
        self._oldest_main = Oldest(self._main)
        self._oldest_ghost = Oldest(self._ghosts)
        self._small_bytes = 0
        self._small_target = 0

    def resize(self, budget: int) -> None:
        self._small_target = budget // 10

    def added(self, key: bytes) -> None:
        if self._ghosts:
            ghost = _hash(key)
            if ghost in self._ghosts:
                del self._ghosts[ghost]
                self._oldest_ghost.window.pop(ghost, None)
                self._main[key] = 0
                return
        self._small[key] = 0
        self._small_bytes += self._cost(key)

    def _cost(self, key: bytes) -> int:
        return entry_cost(key, self.entries[key], self.overhead)

    def used(self, key: bytes) -> None:
        queue = self._small if key in self._small else self._main
        uses = queue[key]
        if uses < self.MOST_USES:
            queue[key] = uses + 1

    def replaced(self, key: bytes, entry: Entry, delta: int) -> None:
        self.entries[key] = entry
        self.used(key)
        if key in self._small:
            self._small_bytes += delta

    def removed(self, key: bytes, cost: int) -> None:
        if self._small.pop(key, None) is None:
            del self._main[key]
            self._oldest_main.window.pop(key, None)
        else:
            self._small_bytes -= cost
            self._oldest_small.window.pop(key, None)

    def evict(self, keep: Collection[bytes]) -> bytes:
        queues = [self._evict_main, self._evict_small, self._evict_main]
        if self._small_bytes >= self._small_target:
            queues.insert(0, self._evict_small)
        for evict in queues:
            victim = evict(keep)
            if victim is not None:
                return victim
        raise KeyError("nothing to evict")

    def _evict_small(self, keep: Collection[bytes]) -> bytes | None:
        while self._small:
            key: bytes = self._oldest_small.take()
            self._small_bytes -= self._cost(key)
            if self._small.pop(key) > 1 or key in keep:
                self._main[key] = 0
                continue
            while len(self._ghosts) >= len(self.entries):
                del self._ghosts[self._oldest_ghost.take()]
            self._ghosts[_hash(key)] = None
            return key
        return None

    def _evict_main(self, keep: Collection[bytes]) -> bytes | None:
        main = self._main
        if len(main) <= len(keep) and all(key in keep for key in main):
            return None
        while True:
            key: bytes = self._oldest_main.take()
            uses = main.pop(key)
            if key in keep:
                main[key] = uses
            elif uses:
                main[key] = uses - 1
            else:
                return key

    def freeze(self) -> Frozen:
        small, main = self._small, self._main
        return Frozen(
            [*small, *main], [*small.values(), *main.values()], len(small), list(self._ghosts)
        )

    def thaw(self, frozen: Frozen) -> None:
        if not set(frozen.marks) <= set(range(self.MOST_USES + 1)):
            raise ValueError("s3fifo counts to three")
        marked = list(zip(frozen.keys, frozen.marks, strict=True))
        self._small.update(marked[: frozen.split])
        self._main.update(marked[frozen.split :])
        self._ghosts.update(dict.fromkeys(frozen.ghosts))
        self._small_bytes = sum(map(self._cost, self._small))


def _hash(key: bytes) -> int:
    hashed: int = mmh3.hash64(key, signed=False)[0]
    return hashed


POLICIES: Final[dict[str, type[Policy]]] = {
    policy.name: policy for policy in (Lru, Lfu, Fifo, Sieve, S3Fifo)
}


def rebuild(name: str, entries: dict[bytes, Entry], keys: Iterable[bytes]) -> Policy:
    """A policy that met ``keys`` in this order, each once; ``entries`` holds them in it."""
    policy = POLICIES[name](entries)
    for key in keys:
        policy.added(key)
    return policy
