"""What one operation would answer and do, given its key's entry. Nothing here changes anything."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

from raftcache.machine.cache import Cache
from raftcache.machine.costs import Entry
from raftcache.ops import (
    INT64_MAX,
    INT64_MIN,
    MAX_TTL_MS,
    Condition,
    Delete,
    Expire,
    Get,
    Incr,
    Match,
    Result,
    Set,
    Status,
)

MAX_FLAGS: Final = 2**32 - 1
OK: Final = Status.OK
CREATED: Final = Status.CREATED
NOT_FOUND: Final = Status.NOT_FOUND
INVALID: Final = Status.INVALID


class Effect(enum.Enum):
    """What an operation does to its key; or else an ``Entry`` to store."""

    NOTHING = enum.auto()
    USE = enum.auto()
    REMOVE = enum.auto()


NOTHING: Final = Effect.NOTHING

Evaluated = tuple[Result, Entry | Effect]
Evaluate = Callable[[Cache, Any, Entry | None, int], Evaluated]
"""(cache, operation, the key's entry, the version a change would get); changes nothing."""


def holds(condition: Condition, entry: Entry | None) -> bool:
    """Whether the condition is true of the entry."""
    match condition.match:
        case Match.EXISTS:
            return entry is not None
        case Match.ABSENT:
            return entry is None
        case Match.VERSION_IN:
            return entry is not None and entry[1] in condition.versions
        case Match.VERSION_NOT_IN:
            return entry is None or entry[1] not in condition.versions


def _refused(entry: Entry | None) -> Evaluated:
    return Result(Status.PRECONDITION_FAILED, 0 if entry is None else entry[1]), NOTHING


def _invalid() -> Evaluated:
    return Result(INVALID), NOTHING


def _make_entry(value: bytes, version: int, deadline: int, flags: int) -> Entry:
    return (value, version, deadline, flags) if flags else (value, version, deadline)


def _stored(
    cache: Cache, key: bytes, old: Entry | None, entry: Entry, number: int = 0
) -> Evaluated:
    if cache.budget and not cache.fits(cache.cost(key, entry)):
        return Result(Status.TOO_LARGE), NOTHING
    ttl_ms = entry[2] - cache.time_ms if entry[2] else -1
    status = CREATED if old is None else OK
    return Result(status, entry[1], None, ttl_ms, 0, number), entry


def _get(cache: Cache, op: Get, entry: Entry | None, version: int) -> Evaluated:
    if entry is None:
        return Result(NOT_FOUND), NOTHING
    return found(entry, cache.time_ms), Effect.USE


def found(entry: Entry, time_ms: int) -> Result:
    """The answer to a read."""
    ttl_ms = entry[2] - time_ms if entry[2] else -1
    return Result(OK, entry[1], entry[0], ttl_ms, entry[3] if len(entry) == 4 else 0)


def _set(cache: Cache, op: Set, entry: Entry | None, version: int) -> Evaluated:
    ttl_ms = op.ttl_ms
    if not 0 <= ttl_ms <= MAX_TTL_MS or not 0 <= op.flags <= MAX_FLAGS:
        return _invalid()
    if op.keep_ttl and ttl_ms:
        return _invalid()
    if op.condition is not None and not holds(op.condition, entry):
        return _refused(entry)
    deadline = cache.time_ms + ttl_ms if ttl_ms else 0
    if op.keep_ttl and entry is not None:
        deadline = entry[2]
    return _stored(cache, op.key, entry, _make_entry(op.value, version, deadline, op.flags))


def _delete(cache: Cache, op: Delete, entry: Entry | None, version: int) -> Evaluated:
    if op.condition is not None and not holds(op.condition, entry):
        return _refused(entry)
    if entry is None:
        return Result(NOT_FOUND), NOTHING
    return Result(OK), Effect.REMOVE


def parse_integer(value: bytes) -> int | None:
    """A signed 64-bit integer as Redis writes and accepts it: canonical decimal."""
    if len(value) > 20:  # before int(), which refuses thousands of digits
        return None
    digits = value[1:] if value[:1] == b"-" else value
    if not digits.isdigit() or (digits[:1] == b"0" and value != b"0"):
        return None
    number = int(value)
    return number if INT64_MIN <= number <= INT64_MAX else None


def _incr(cache: Cache, op: Incr, entry: Entry | None, version: int) -> Evaluated:
    if not INT64_MIN <= op.by <= INT64_MAX:
        return _invalid()
    if op.condition is not None and not holds(op.condition, entry):
        return _refused(entry)
    number = 0 if entry is None else parse_integer(entry[0])
    if number is None:
        return Result(Status.NOT_AN_INTEGER), NOTHING
    number += op.by
    if not INT64_MIN <= number <= INT64_MAX:
        return Result(Status.OVERFLOW), NOTHING
    deadline = 0 if entry is None else entry[2]
    flags = entry[3] if entry is not None and len(entry) == 4 else 0
    changed = _make_entry(b"%d" % number, version, deadline, flags)
    return _stored(cache, op.key, entry, changed, number)


def _expire(cache: Cache, op: Expire, entry: Entry | None, version: int) -> Evaluated:
    if not 0 <= op.ttl_ms <= MAX_TTL_MS:
        return _invalid()
    if op.condition is not None and not holds(op.condition, entry):
        return _refused(entry)
    if entry is None:
        return Result(NOT_FOUND), NOTHING
    deadline = cache.time_ms + op.ttl_ms if op.ttl_ms else 0
    flags = entry[3] if len(entry) == 4 else 0
    return _stored(cache, op.key, entry, _make_entry(entry[0], version, deadline, flags))


EVALUATE: Final[dict[type, Evaluate]] = {
    Get: _get,
    Set: _set,
    Delete: _delete,
    Incr: _incr,
    Expire: _expire,
}
MAY_MISS: Final = (Get, Delete, Expire)
