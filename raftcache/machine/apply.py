"""The state machine: batches of operations in, results out.

Deterministic and total: the same batches give the same state and results on every replica, and
nothing that decodes makes ``apply`` raise; a bad operation is a result. Each operation is first
evaluated, which changes nothing, and then its effect is carried out. That is what makes an atomic
batch all or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from raftcache.machine import snapshot
from raftcache.machine.cache import Cache
from raftcache.machine.costs import Entry
from raftcache.machine.evaluate import (
    CREATED,
    EVALUATE,
    INVALID,
    MAX_FLAGS,
    MAY_MISS,
    NOT_FOUND,
    NOTHING,
    OK,
    Effect,
    found,
)
from raftcache.machine.policies import POLICIES
from raftcache.machine.sessions import Sessions, fingerprint
from raftcache.ops import (
    INT64_MAX,
    MAX_TTL_MS,
    Append,
    Atomic,
    Batch,
    Clear,
    Configure,
    Count,
    Delete,
    Expire,
    Get,
    Incr,
    IncrFloat,
    Move,
    Once,
    RandomKey,
    Result,
    Set,
    SetMany,
    SetRange,
    Status,
    decode_batch,
)

MAX_TIME_MS: Final = 2**62
"""Machine time stops here, so that every deadline fits 64 bits."""
NEVER_MS: Final = 2**63 - 1
"""Later than any deadline."""
_MISSING: Final = Result(NOT_FOUND)
SMALL: Final = 1024
"""More than what an entry costs beside its key and value."""

WRITES: Final = (Set, Delete, Incr, Expire, Append, SetRange, IncrFloat, Move, SetMany, Atomic)
"""What may be asked for exactly once."""


class Overlay:
    """What an atomic batch would leave behind: an entry, or ``None`` where it removes one."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.version = cache.version
        self.changed: dict[bytes, Entry | None] = {}
        self.read: dict[bytes, None] = {}
        self.cost = 0
        """Of the entries it writes; together they must fit."""

    def live(self, key: bytes) -> Entry | None:
        """The entry as the operations so far leave it."""
        return self.changed[key] if key in self.changed else self.cache.live(key)

    def evaluate(self, op: Any) -> Result:
        """One operation on top of those before it."""
        if type(op) is Move:
            return self._move(op)
        if type(op) is SetMany:
            return self._set_many(op)
        evaluate = EVALUATE.get(type(op))
        if evaluate is None:
            return Result(INVALID)
        key: bytes = op.key
        result, effect = evaluate(self.cache, op, self.live(key), self.version + 1)
        if effect is Effect.USE:
            self.read[key] = None
        elif effect is not NOTHING:
            fits = self._change({key: None if isinstance(effect, Effect) else effect})
            return result if fits else Result(Status.TOO_LARGE)
        return result

    def _move(self, op: Move) -> Result:
        entry, target = self.live(op.key), self.live(op.to)
        if entry is None:
            return Result(NOT_FOUND)
        if target is not None and not op.replace:
            return Result(Status.PRECONDITION_FAILED, target[1])
        if op.key == op.to:
            return Result(OK, entry[1])
        moved = (entry[0], self.version + 1, *entry[2:])
        change: dict[bytes, Entry | None] = {} if op.copy else {op.key: None}
        if not self._change({**change, op.to: moved}):
            return Result(Status.TOO_LARGE)
        return Result(CREATED if target is None else OK, moved[1])

    def _set_many(self, op: SetMany) -> Result:
        if op.only_new and any(self.live(key) is not None for key, _ in op.items):
            return Result(Status.PRECONDITION_FAILED)
        version = self.version + 1
        # A key that is named twice gets the last value.
        entries: dict[bytes, Entry | None] = {k: (value, version, 0) for k, value in op.items}
        if not self._change(entries):
            return Result(Status.TOO_LARGE)
        return Result(OK, version)

    def _change(self, entries: dict[bytes, Entry | None]) -> bool:
        """One operation's effect, a new version; False, and nothing changed, when it does not
        fit."""
        cost = self.cost
        for key, entry in entries.items():
            before = self.changed.get(key)
            cost += 0 if entry is None else self.cache.cost(key, entry)
            cost -= 0 if before is None else self.cache.cost(key, before)
        if cost > self.cost and not self.cache.fits(cost):
            return False
        self.version, self.cost = self.version + 1, cost
        for key, entry in entries.items():
            self.changed.pop(key, None)
            self.changed[key] = entry
        return True

    def commit(self) -> None:
        """Removals first, then uses, then the writes, so that these are the most recent."""
        cache = self.cache
        cache.version = self.version
        for key, entry in self.changed.items():
            if entry is None and cache.live(key) is not None:
                cache.remove(key)
        cache.touch(key for key in self.read if key not in self.changed)
        cache.store_all({key: entry for key, entry in self.changed.items() if entry is not None})


class Stats:
    """Counters of this replica, not replicated. ``bytes``: entries by the cost model;
    ``session_bytes`` are beside them."""

    __slots__ = (
        "bytes",
        "entries",
        "evictions",
        "expirations",
        "hits",
        "misses",
        "session_bytes",
        "sessions",
    )

    def __init__(self) -> None:
        self.hits = self.misses = self.evictions = self.expirations = 0
        self.entries = self.bytes = self.sessions = self.session_bytes = 0


class Machine:
    """One group's cache. Not thread-safe; a restored one may be built in another thread."""

    def __init__(self) -> None:
        self.settings = Configure(
            budget_bytes=0, policy="lru", session_ttl_ms=600_000, max_sessions=100_000
        )
        self.cache = Cache()
        self.sessions = Sessions(self.settings)
        self.stats = Stats()

    @property
    def time_ms(self) -> int:
        """Machine time: the highest clock reading of any batch."""
        return self.cache.time_ms

    @property
    def uses_recency(self) -> bool:
        """Whether the policy wants to know what is read (``touched``)."""
        return self.cache.policy.uses_recency

    def apply_payload(self, payload: bytes | memoryview) -> list[Result]:
        """Apply an encoded batch. What does not decode has no effect and no results."""
        try:
            batch = decode_batch(payload)  # type: ignore[arg-type]  # any buffer will do
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []
        return self.apply(batch)

    def apply(self, batch: Batch) -> list[Result]:
        """One result per operation, in order. A batch without operations is a tick of the clock."""
        cache = self.cache
        if batch.now_ms > cache.time_ms:
            cache.time_ms = min(batch.now_ms, MAX_TIME_MS)
        self._settle(len(batch.ops))
        if batch.touched:
            cache.touch(batch.touched)
        results = self._run(batch.ops)
        self._count()
        return results

    def _run(self, ops: Sequence[Any]) -> list[Result]:
        """Operations in order. A new value of the same size for a key without expiry, the commonest
        write by far, is laid flat: 0.8 us instead of 1.2."""
        results: list[Result] = []
        cache, execute, set_plain = self.cache, self._execute, self._set_plain
        entries, replaced = cache.entries, cache.policy.replaced
        for op in ops:
            if type(op) is not Set or op.condition is not None:
                results.append(execute(op))
                replaced = cache.policy.replaced  # it may be another policy now
                continue
            key, value, old = op.key, op.value, entries.get(op.key)
            plain = not (op.ttl_ms or op.flags or op.keep_ttl or op.get)
            same = old is not None and len(old) == 3 and not old[2] and len(old[0]) == len(value)
            if plain and same:
                cache.version = version = cache.version + 1
                replaced(key, (value, version, 0), 0)
                results.append(Result(OK, version))
            else:
                results.append(set_plain(op))
        return results

    def _set_plain(self, op: Set) -> Result:
        """``_execute`` of a ``Set`` without condition, laid flat where nothing else is special: the
        commonest write, in 1.2 us instead of 2.2 (fresh keys, 20,000 entries)."""
        cache, ttl_ms = self.cache, op.ttl_ms
        if op.flags or op.keep_ttl or op.get or not 0 <= ttl_ms <= MAX_TTL_MS:
            return self._execute(op)
        key, value, now_ms = op.key, op.value, cache.time_ms
        deadline = now_ms + ttl_ms if ttl_ms else 0
        old = cache.entries.get(key)
        if old is None:
            if cache.budget and len(key) + len(value) + SMALL > cache.budget:
                return self._execute(op)
            version = cache.version + 1
            cache.store(key, (value, version, deadline))
            cache.version = version
            return Result(CREATED, version, None, ttl_ms or -1)
        before = old[2]
        if (
            len(old) != 3
            or len(old[0]) != len(value)
            or not (now_ms < before <= deadline or before == deadline)
        ):
            return self._execute(op)
        # The same cost, and the item in the expiry heap may stay: only the entry changes.
        cache.version = version = cache.version + 1
        cache.policy.replaced(key, (value, version, deadline), 0)
        return Result(OK, version, None, ttl_ms or -1)

    def _settle(self, ops: int) -> None:
        self.cache.settle(ops)
        self.sessions.settle(self.cache.time_ms)

    def _count(self) -> None:
        stats, cache, sessions = self.stats, self.cache, self.sessions
        stats.evictions += cache.evictions
        stats.expirations += cache.expirations
        cache.evictions = cache.expirations = 0
        stats.entries, stats.bytes = len(cache.entries), cache.used
        stats.sessions, stats.session_bytes = len(sessions.table), sessions.bytes

    def _execute(self, op: Any) -> Result:
        evaluate = EVALUATE.get(type(op))
        if evaluate is None:
            return self._execute_other(op)
        cache = self.cache
        key: bytes = op.key
        entry = cache.entries.get(key)
        if entry is not None and 0 < entry[2] <= cache.time_ms:
            entry = None
        result, effect = evaluate(cache, op, entry, cache.version + 1)
        if type(effect) is tuple:
            cache.version += 1
            cache.store(key, effect)
        elif effect is Effect.REMOVE:
            cache.version += 1
            cache.remove(key)
        elif type(op) is Get:
            self._count_read(result)
            if effect is Effect.USE and cache.policy.uses_recency:
                cache.policy.used(key)
        return result

    def _execute_other(self, op: Any) -> Result:
        """What is not about one key's entry alone."""
        match op:
            case Atomic():
                return self._atomic(op)
            case Once():
                return self._once(op)
            case Move() | SetMany():
                overlay = Overlay(self.cache)
                result = overlay.evaluate(op)
                overlay.commit()
                return result
            case Clear():
                self.cache.clear()
                return Result(OK)
            case Count() | RandomKey():
                return self._query_other(op)
            case Configure():
                return self._configure(op)
        return Result(INVALID)

    def _count_read(self, result: Result) -> None:
        if result.status is OK:
            self.stats.hits += 1
        else:
            self.stats.misses += 1

    def _atomic(self, op: Atomic) -> Result:
        overlay = Overlay(self.cache)
        for key, version in op.watched:
            entry = overlay.live(key)
            if version != (0 if entry is None else entry[1]):
                return Result(Status.PRECONDITION_FAILED)
        parts: list[Result] = []
        for part in op.ops:
            result = overlay.evaluate(part)
            status = result.status
            missed = status is NOT_FOUND and type(part) in MAY_MISS
            if status > CREATED and not missed and not op.independent:
                aborted = [Result(Status.ABORTED) for _ in op.ops]
                aborted[len(parts)] = result
                return Result(status, result.version, parts=tuple(aborted))
            parts.append(result)
        for part, result in zip(op.ops, parts, strict=True):
            if type(part) is Get:
                self._count_read(result)
        overlay.commit()
        return Result(OK, parts=tuple(parts))

    def _once(self, op: Once) -> Result:
        if not 0 <= op.seq <= INT64_MAX or type(op.op) not in WRITES:
            return Result(INVALID)
        sessions, now_ms = self.sessions, self.cache.time_ms
        print_ = fingerprint(op.op)
        record = sessions.find(op.session, now_ms)
        if record is not None and op.seq <= record.seq:
            if op.seq < record.seq:
                return Result(Status.STALE_SEQUENCE)
            if print_ != record.fingerprint:
                return Result(Status.SESSION_MISMATCH)
            sessions.use(op.session, now_ms)
            return record.result
        result = self._execute(op.op)
        if result.status is not INVALID:
            sessions.remember(op, print_, result, now_ms)
        return result

    def _configure(self, op: Configure) -> Result:
        if not valid_settings(op):
            return Result(INVALID)
        self.settings = op
        self.cache.configure(op.budget_bytes, op.policy)
        self.sessions.configure(op)
        self._settle(0)
        return Result(OK)

    def query(self, ops: Sequence[Any]) -> tuple[list[Result], int]:
        """Answer reads outside the log: changes nothing but the hit and miss counters. Also the
        first deadline, in machine time, of what was found (``NEVER_MS``: of none)."""
        cache = self.cache
        entries, time_ms = cache.entries, cache.time_ms
        results: list[Result] = []
        due_ms, misses, gets = NEVER_MS, 0, len(ops)
        for op in ops:
            if type(op) is not Get:
                gets -= 1
                results.append(self._query_other(op))
                continue
            entry = entries.get(op.key)
            if entry is None or 0 < entry[2] <= time_ms:
                misses += 1
                results.append(_MISSING)
            elif len(entry) == 3 and not entry[2]:
                results.append(Result(OK, entry[1], entry[0]))
            else:
                if 0 < entry[2] < due_ms:
                    due_ms = entry[2]
                results.append(found(entry, time_ms))
        self.stats.misses += misses
        self.stats.hits += gets - misses
        return results, due_ms

    def look(self, key: bytes, now_ms: int) -> Result | None:
        """``query`` of one ``Get``; ``None`` of what is due at ``now_ms``, in machine time, though
        the log does not say so yet."""
        cache = self.cache
        entry = cache.entries.get(key)
        if entry is None or 0 < entry[2] <= cache.time_ms:
            self.stats.misses += 1
            return _MISSING
        if 0 < entry[2] <= now_ms:
            return None
        self.stats.hits += 1
        if len(entry) == 3 and not entry[2]:
            return Result(OK, entry[1], entry[0])
        return found(entry, cache.time_ms)

    def _query_other(self, op: Any) -> Result:
        if type(op) is Count:
            return Result(OK, number=len(self.cache.entries))
        return self.cache.random_key(op.draw) if type(op) is RandomKey else Result(INVALID)

    def read(self, key: bytes) -> Result:
        """``query`` of one ``Get``."""
        return self.query((Get(key),))[0][0]

    def next_deadline_ms(self) -> int | None:
        """When a tick (an empty batch) would have something to do; may be in the past."""
        if self.sessions.over():
            return self.time_ms
        deadlines = (self.cache.next_deadline_ms(), self.sessions.next_expiry_ms())
        return min((d for d in deadlines if d is not None), default=None)

    def snapshot(self) -> Iterator[bytes]:
        """The state as it is now, in pieces of at most 256 KiB. Equal states give equal bytes. The
        machine may change while the pieces are taken."""
        return snapshot.write(snapshot.State(self.settings, self.cache, self.sessions))

    @classmethod
    def restore(cls, data: bytes) -> Machine:
        """The machine that wrote ``data``; raises ``SnapshotError`` when it is not whole."""
        machine = cls()
        state = snapshot.read(data, valid_settings)
        machine.settings, machine.cache, machine.sessions = state
        machine._count()
        return machine


def valid_settings(op: Configure) -> bool:
    """Whether the machine can run with these."""
    return (
        op.policy in POLICIES
        and 0 <= op.budget_bytes <= INT64_MAX
        and 0 <= op.session_ttl_ms <= MAX_TTL_MS
        and 0 <= op.max_sessions <= MAX_FLAGS
    )
