"""Entries, versions, the byte budget, eviction and expiry.

An entry whose deadline is not after machine time is absent, whether it is still held or not; the
dead are removed a bounded number per batch, so that no mass expiry makes a batch slow. In the same
way a smaller budget is reached over several batches; otherwise the budget holds after each
operation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain, islice
from typing import Final

from raftcache.machine.costs import Entry, entry_cost
from raftcache.machine.expiry import Deadlines
from raftcache.machine.policies import Lru, Policy, rebuild
from raftcache.ops import Result, Status

PURGES_PER_BATCH: Final = 1024
"""About a millisecond and a half."""


class Cache:
    """``time_ms`` is machine time: set it before each batch, never back."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.policy: Policy = Lru(self.entries)
        self.deadlines = Deadlines(self.entries)
        self.time_ms = 0
        self.version = 0
        """Of the last change: the mutation counter."""
        self.used = 0
        self.budget = 0
        """In bytes; 0: no limit."""
        self.evictions = 0
        self.expirations = 0

    def live(self, key: bytes) -> Entry | None:
        """The entry, unless it is past its deadline."""
        entry = self.entries.get(key)
        if entry is not None and 0 < entry[2] <= self.time_ms:
            return None
        return entry

    def cost(self, key: bytes, entry: Entry) -> int:
        """In bytes."""
        return entry_cost(key, entry, self.policy.overhead)

    def fits(self, cost: int) -> bool:
        """Whether so many bytes could ever be held."""
        return not self.budget or cost <= self.budget

    def store(self, key: bytes, entry: Entry, room_made: bool = False) -> None:
        """Create or replace an entry that ``fits``. Whatever must go for it goes first; never
        ``key`` itself."""
        old = self.entries.get(key)
        if old is not None and 0 < old[2] <= self.time_ms:
            self._expire(key)
            old = None
        overhead = self.policy.overhead
        delta = entry_cost(key, entry, overhead)
        before = 0
        if old is not None:
            delta -= entry_cost(key, old, overhead)
            before = old[2]
        if delta > 0 and 0 < self.budget < self.used + delta and not room_made:
            self._make_room(delta, (key,))
        self.used += delta
        if old is None:
            self.entries[key] = entry
            self.policy.added(key)
        else:
            self.policy.replaced(key, entry, delta)
        if before or entry[2]:
            self.deadlines.change(key, before, entry[2])

    def store_all(self, written: dict[bytes, Entry]) -> None:
        """Several entries that together ``fit``; none of them has to go for another."""
        delta = 0
        for key, entry in written.items():
            old = self.entries.get(key)
            if old is not None and 0 < old[2] <= self.time_ms:
                self._expire(key)
                old = None
            delta += self.cost(key, entry) - (0 if old is None else self.cost(key, old))
        if 0 < self.budget < self.used + delta:
            self._make_room(delta, written)
        for key, entry in written.items():
            self.store(key, entry, room_made=True)

    def _make_room(self, needed: int, keep: Collection[bytes]) -> None:
        """Evict until ``needed`` bytes more are within the budget; while a smaller budget has not
        been reached yet, until they leave no more in use than there is. The caller has checked that
        what is kept fits the budget, so there is always a victim."""
        self._evict(keep, max(self.budget, self.used) - needed, None)

    def _evict(self, keep: Collection[bytes], limit: int, count: int | None) -> None:
        """Until no more than ``limit`` bytes are in use, or ``count`` are gone."""
        entries, evict, overhead = self.entries, self.policy.evict, self.policy.overhead
        evicted = 0
        while self.used > limit and evicted != count:
            key = evict(keep)
            entry = entries.pop(key)
            self.used -= entry_cost(key, entry, overhead)
            if entry[2]:
                self.deadlines.change(key, entry[2], 0)
            evicted += 1
        self.evictions += evicted

    def remove(self, key: bytes) -> None:
        """Take out a key that is there."""
        entry = self.entries.pop(key)
        cost = entry_cost(key, entry, self.policy.overhead)
        self.used -= cost
        if entry[2]:
            self.deadlines.change(key, entry[2], 0)
        self.policy.removed(key, cost)

    def _expire(self, key: bytes) -> None:
        self.remove(key)
        self.expirations += 1

    def clear(self) -> None:
        """Remove every entry: one change. Takes a few ten milliseconds for a million."""
        self.entries.clear()
        self.policy = rebuild(self.policy.name, self.entries, [])
        self.policy.resize(self.budget)
        self.deadlines = Deadlines(self.entries)
        self.used = 0
        self.version += 1

    def random_key(self, draw: int) -> Result:
        """Some key that is not past its deadline. Takes milliseconds for a million."""
        count = len(self.entries)
        if count:
            start = draw % count
            for key in chain(islice(self.entries, start, None), islice(self.entries, start)):
                if self.live(key) is not None:
                    return Result(Status.OK, value=key)
        return Result(Status.NOT_FOUND)

    def touch(self, keys: Iterable[bytes]) -> None:
        """Count a use of each of the keys that are there."""
        if not self.policy.uses_recency:
            return
        entries, time_ms, used = self.entries, self.time_ms, self.policy.used
        for key in keys:
            entry = entries.get(key)
            if entry is not None and not 0 < entry[2] <= time_ms:
                used(key)

    def settle(self, ops: int) -> None:
        """Before a batch of ``ops`` operations: remove what is dead, approach a smaller budget; of
        each a bounded number."""
        first = self.deadlines.first
        for _ in range(PURGES_PER_BATCH):
            due = first()
            if due is None or due[0] > self.time_ms:
                break
            self._expire(due[1])
        self.deadlines.tidy(ops)
        if self.over_budget():
            self._evict((), self.budget, PURGES_PER_BATCH)

    def over_budget(self) -> bool:
        """After the budget was made smaller: there is more to evict."""
        return 0 < self.budget < self.used

    def next_deadline_ms(self) -> int | None:
        """When ``settle`` has something to do."""
        if self.over_budget():
            return self.time_ms
        due = self.deadlines.first()
        return None if due is None else due[0]

    def configure(self, budget: int, policy: str) -> None:
        """A new policy starts from the old one's order. Takes time in proportion to the number of
        entries, about a microsecond each."""
        if policy != self.policy.name:
            keys = self.policy.freeze().keys
            entries = self.entries
            reordered = {key: entries[key] for key in keys}
            entries.clear()
            entries.update(reordered)
            self.used -= self.policy.overhead * len(entries)
            self.policy = rebuild(policy, entries, keys)
            self.used += self.policy.overhead * len(entries)
        self.budget = budget
        self.policy.resize(budget)
