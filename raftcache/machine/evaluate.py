"""What one operation would answer and do, given its key's entry. Nothing here changes anything."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final

from raftcache.machine.cache import Cache
from raftcache.machine.costs import Entry
from raftcache.machine.floats import FloatError, add_floats
from raftcache.ops import (
    INT64_MAX,
    INT64_MIN,
    MAX_TTL_MS,
    Append,
    Condition,
    Delete,
    Expire,
    Get,
    Incr,
    IncrFloat,
    Match,
    Result,
    Set,
    SetRange,
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


def holds(condition: Condition, entry: Entry | None, deadline: int = 0) -> bool:
    """Whether the condition is true of the entry, which is to get that ``deadline``."""
    match condition.match:
        case Match.EXISTS:
            return entry is not None
        case Match.ABSENT:
            return entry is None
        case Match.VERSION_IN:
            return entry is not None and entry[1] in condition.versions
        case Match.VERSION_NOT_IN:
            return entry is None or entry[1] not in condition.versions
        case Match.VALUE:
            return entry is not None and entry[0] == condition.value
        case Match.PERSISTENT:
            return entry is not None and not entry[2]
        case Match.VOLATILE:
            return entry is not None and entry[2] > 0
        case Match.LATER:
            return entry is not None and 0 < entry[2] < deadline
        case Match.SOONER:
            return entry is not None and (not entry[2] or deadline < entry[2])
        case Match.VOLATILE_SOONER:
            return entry is not None and deadline < entry[2]


def _refused(entry: Entry | None, get: bool = False) -> Evaluated:
    if entry is None:
        return Result(Status.PRECONDITION_FAILED), NOTHING
    return Result(Status.PRECONDITION_FAILED, entry[1], entry[0] if get else None), NOTHING


def _invalid() -> Evaluated:
    return Result(INVALID), NOTHING


def _make_entry(value: bytes, version: int, deadline: int, flags: int) -> Entry:
    return (value, version, deadline, flags) if flags else (value, version, deadline)


def _stored(
    cache: Cache,
    key: bytes,
    old: Entry | None,
    entry: Entry,
    number: int = 0,
    value: bytes | None = None,
) -> Evaluated:
    if cache.budget and not cache.fits(cache.cost(key, entry)):
        return Result(Status.TOO_LARGE), NOTHING
    ttl_ms = entry[2] - cache.time_ms if entry[2] else -1
    status = CREATED if old is None else OK
    return Result(status, entry[1], value, ttl_ms, 0, number), entry


def _changed(
    cache: Cache,
    key: bytes,
    old: Entry | None,
    content: bytes,
    version: int,
    number: int = 0,
    value: bytes | None = None,
) -> Evaluated:
    """Another content; expiry and flags stay."""
    deadline = 0 if old is None else old[2]
    flags = old[3] if old is not None and len(old) == 4 else 0
    entry = _make_entry(content, version, deadline, flags)
    return _stored(cache, key, old, entry, number, value)


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
    deadline = cache.time_ms + ttl_ms if ttl_ms else 0
    if op.condition is not None and not holds(op.condition, entry, deadline):
        return _refused(entry, op.get)
    if op.keep_ttl and entry is not None:
        deadline = entry[2]
    before = entry[0] if op.get and entry is not None else None
    changed = _make_entry(op.value, version, deadline, op.flags)
    return _stored(cache, op.key, entry, changed, value=before)


def _delete(cache: Cache, op: Delete, entry: Entry | None, version: int) -> Evaluated:
    if op.condition is not None and not holds(op.condition, entry):
        return _refused(entry, op.get)
    if entry is None:
        return Result(NOT_FOUND), NOTHING
    return Result(OK, value=entry[0] if op.get else None), Effect.REMOVE


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
    return _changed(cache, op.key, entry, b"%d" % number, version, number)


def _incr_float(cache: Cache, op: IncrFloat, entry: Entry | None, version: int) -> Evaluated:
    try:
        text = add_floats(b"0" if entry is None else entry[0], op.by)
    except FloatError as error:
        status = Status.OVERFLOW if error.overflow else Status.NOT_AN_INTEGER
        return Result(status), NOTHING
    return _changed(cache, op.key, entry, text, version, value=text)


def _append(cache: Cache, op: Append, entry: Entry | None, version: int) -> Evaluated:
    content = op.value if entry is None else entry[0] + op.value
    if len(content) > op.max_bytes:
        return Result(Status.TOO_LARGE), NOTHING
    return _changed(cache, op.key, entry, content, version, len(content))


def _set_range(cache: Cache, op: SetRange, entry: Entry | None, version: int) -> Evaluated:
    content = b"" if entry is None else entry[0]
    if op.offset < 0:
        return _invalid()
    if not op.value:
        status = NOT_FOUND if entry is None else OK
        return Result(status, number=len(content)), NOTHING
    end = op.offset + len(op.value)
    if end > op.max_bytes:
        return Result(Status.TOO_LARGE), NOTHING
    content = content[: op.offset].ljust(op.offset, b"\0") + op.value + content[end:]
    return _changed(cache, op.key, entry, content, version, len(content))


def _expire(cache: Cache, op: Expire, entry: Entry | None, version: int) -> Evaluated:
    if not 0 <= op.ttl_ms <= MAX_TTL_MS:
        return _invalid()
    deadline = cache.time_ms + op.ttl_ms if op.ttl_ms else 0
    if op.condition is not None and not holds(op.condition, entry, deadline):
        return _refused(entry, op.get)
    if entry is None:
        return Result(NOT_FOUND), NOTHING
    flags = entry[3] if len(entry) == 4 else 0
    changed = _make_entry(entry[0], version, deadline, flags)
    return _stored(cache, op.key, entry, changed, value=entry[0] if op.get else None)


EVALUATE: Final[dict[type, Evaluate]] = {
    Get: _get,
    Set: _set,
    Delete: _delete,
    Incr: _incr,
    Expire: _expire,
    Append: _append,
    SetRange: _set_range,
    IncrFloat: _incr_float,
}
MAY_MISS: Final = (Get, Delete, Expire)
