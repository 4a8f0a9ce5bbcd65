"""The vocabulary: every operation a front end may ask for, and every answer it can get.

Operations are plain data. A front end builds them, the router carries them, the leader writes them
to the log (MessagePack, see ``encode_batch``), every replica applies them. They are never trusted:
the state machine answers a bad one with an error status and never raises.

All keys and values are bytes; all durations are integer milliseconds. ``version`` is the group's
mutation counter at the last change of an entry: strictly increasing inside a group and never
reused, so that it serves as ETag, CAS token and fencing token (no ABA).
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

MAX_TTL_MS: Final = 2**53
"""Largest TTL: 285,000 years. Larger ones are refused where they enter."""

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1


class Status(enum.IntEnum):
    """How an operation ended. The state machine gives all but the last three."""

    OK = 0
    """Done: read found, value replaced, deleted, incremented, expiry set."""
    CREATED = 1
    """Done, and the key did not exist before."""
    NOT_FOUND = 2
    """The key does not exist; nothing changed."""
    PRECONDITION_FAILED = 3
    """The operation's condition does not hold; nothing changed. ``version`` is the entry's (0:
    none)."""
    NOT_AN_INTEGER = 4
    """``Incr`` on a value that is not a decimal 64-bit integer, ``IncrFloat`` on one that is no
    number; nothing changed."""
    OVERFLOW = 5
    """``Incr`` would leave the signed 64-bit range, ``IncrFloat`` that of numbers; nothing
    changed."""
    TOO_LARGE = 6
    """The entry could never fit the group's byte budget; nothing changed, nothing was evicted."""
    SESSION_MISMATCH = 7
    """The idempotency key was used before for another operation; nothing changed."""
    STALE_SEQUENCE = 8
    """The session has already gone past this sequence number; nothing changed."""
    INVALID = 9
    """The operation is malformed (a bug in whoever built it); nothing changed."""
    ABORTED = 10
    """Part of an atomic batch that another of its operations made fail; nothing changed."""
    UNAVAILABLE = 11
    """Given by the router: no leader took the operation. It was surely not applied."""
    UNKNOWN = 12
    """Given by the router: the operation may or may not have been applied, now or later."""
    STORAGE_FULL = 13
    """Given by the router: disks are full, or fail. The operation was surely not applied."""


REFUSED: Final = frozenset((Status.UNAVAILABLE, Status.STORAGE_FULL))
"""Surely not applied, for reasons that may pass."""


class Match(enum.IntEnum):
    """Kinds of condition: RFC 9110 section 13.1, and those of Redis's ``SET`` and ``EXPIRE``."""

    EXISTS = 0
    """``If-Match: *``"""
    ABSENT = 1
    """``If-None-Match: *``"""
    VERSION_IN = 2
    """``If-Match: "1", "2"``; a missing key does not match."""
    VERSION_NOT_IN = 3
    """``If-None-Match: "1", "2"``; a missing key matches."""
    VALUE = 4
    """``SET ... IFEQ value``; a missing key does not match."""
    PERSISTENT = 5
    """``EXPIRE ... NX``: the key has no expiry. As the next four, not of a missing key."""
    VOLATILE = 6
    """``EXPIRE ... XX``, ``PERSIST``: it has one."""
    LATER = 7
    """``EXPIRE ... GT``: it has one, and the new one is later."""
    SOONER = 8
    """``EXPIRE ... LT``: it has none, or the new one is sooner."""
    VOLATILE_SOONER = 9
    """``EXPIRE ... XX LT``: it has one, and the new one is sooner."""


class Condition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What must hold of the entry for a write to happen."""

    match: Match
    versions: tuple[int, ...] = ()
    value: bytes = b""


class Get(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=0):
    """Read one key. In the log it also counts as a use of the key (recency)."""

    key: bytes


class Set(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Store a value. ``ttl_ms`` 0: no expiry. ``keep_ttl`` keeps the deadline of the old entry.
    ``get``: the result has the value before, also when the condition fails."""

    key: bytes
    value: bytes
    ttl_ms: int = 0
    flags: int = 0
    condition: Condition | None = None
    keep_ttl: bool = False
    get: bool = False


class Delete(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Remove a key. ``get``: the result has its value."""

    key: bytes
    condition: Condition | None = None
    get: bool = False


class Incr(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """Add ``by`` to a decimal signed 64-bit integer; a missing key counts as 0. Keeps the
    expiry."""

    key: bytes
    by: int = 1
    condition: Condition | None = None


class Expire(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """Set the time to live from now; 0 removes the expiry. A new version: the entry changed.
    ``get``: the result has the value."""

    key: bytes
    ttl_ms: int
    condition: Condition | None = None
    get: bool = False


class Configure(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Set the machine's limits. Proposed by a leader whose settings differ from the machine's, so
    that replicas stay identical whatever their own configuration files say."""

    budget_bytes: int
    policy: str
    session_ttl_ms: int
    max_sessions: int


class Append(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=8):
    """Add to the end of a value; a missing key counts as empty. Keeps the expiry. ``number`` of the
    result is the length, which may not pass ``max_bytes``."""

    key: bytes
    value: bytes
    max_bytes: int


class SetRange(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=9):
    """Overwrite from ``offset`` on, zero bytes before that where there is nothing yet. An empty
    ``value`` changes nothing. Otherwise as ``Append``."""

    key: bytes
    offset: int
    value: bytes
    max_bytes: int


class IncrFloat(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=10):
    """Add ``by``, a decimal number as text; ``value`` of the result is the sum, as text. Keeps the
    expiry. ``machine.floats`` has the arithmetic."""

    key: bytes
    by: bytes


class Move(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=11):
    """Give ``to`` (of the same group) the entry of ``key``, flags and expiry too. ``copy``: ``key``
    keeps it. An existing ``to`` is ``PRECONDITION_FAILED`` unless ``replace``."""

    key: bytes
    to: bytes
    copy: bool = False
    replace: bool = True


class SetMany(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=14):
    """Store (key, value) pairs of one group, without expiry, all of them or none. ``only_new``:
    none when one of the keys exists (``PRECONDITION_FAILED``)."""

    items: tuple[tuple[bytes, bytes], ...]
    only_new: bool = False

    @property
    def key(self) -> bytes:
        """The one that decides the group."""
        return self.items[0][0]


class Clear(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=12):
    """Remove every entry of the group."""


class Count(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=13):
    """How many entries the group has (``number``). A read."""


class Scan(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=15):
    """About ``count`` keys from ``place`` on (``machine.scan``), those that match. ``value`` of the
    result is ``encode_keys`` of them, ``number`` the place to go on from, 0 at the end. A read."""

    place: int
    count: int
    pattern: bytes | None = None
    slot: int = -1


class RandomKey(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=16):
    """Some key (``value``); ``draw`` decides which. A read."""

    draw: int


Simple = Get | Set | Delete | Incr | Expire | Append | SetRange | IncrFloat | Move | SetMany


class Atomic(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """Several operations applied together, results in ``parts``. All or nothing: when one fails
    (any status but ``OK``, ``CREATED``, or ``NOT_FOUND`` of a ``Get``/``Delete``/``Expire``) none
    is applied. With ``independent`` each stands for itself, as in Redis's ``EXEC``.

    ``watched`` are (key, version) pairs, 0 for a missing key: unless all still hold, nothing is
    applied and the result is ``PRECONDITION_FAILED`` without parts."""

    ops: tuple[Simple, ...]
    independent: bool = False
    watched: tuple[tuple[bytes, int], ...] = ()


class Once(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """Exactly-once (Raft dissertation, section 6.3): a repetition of the session's last sequence
    number returns the first result and does nothing."""

    session: bytes
    seq: int
    op: Set | Delete | Incr | Expire | Append | SetRange | IncrFloat | Move | SetMany | Atomic


Read = Get | Count | Scan | RandomKey
Write = (
    Set
    | Delete
    | Incr
    | Expire
    | Append
    | SetRange
    | IncrFloat
    | Move
    | SetMany
    | Clear
    | Atomic
    | Once
)
Op = Read | Write | Configure


class Result(msgspec.Struct, array_like=True, gc=False):
    """The answer to one operation. Fields that an operation does not speak of keep their default.

    ``version``: of the entry after the operation. ``value``: of a ``Get`` that found the key.
    ``ttl_ms``: time left (-1: no expiry). ``number``: the counter after ``Incr``.
    ``parts``: the results of an ``Atomic``, in order. Treat as immutable: sessions keep it.
    """

    status: Status
    version: int = 0
    value: bytes | None = None
    ttl_ms: int = -1
    flags: int = 0
    number: int = 0
    parts: tuple[Result, ...] = ()


class Batch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One log entry of a group: the leader's clock reading, the keys read since the last batch
    (recency is in the log), and the operations of one turn of the leader's event loop, in order."""

    now_ms: int
    touched: tuple[bytes, ...]
    ops: tuple[Op, ...]


_encoder = msgspec.msgpack.Encoder()
_keys_decoder = msgspec.msgpack.Decoder(list[bytes])
_batch_decoder = msgspec.msgpack.Decoder(Batch)


def encode_batch(batch: Batch) -> bytes:
    """MessagePack of a batch: ``[now_ms, [key...], [[tag, field...]...]]``."""
    return _encoder.encode(batch)


def decode_batch(payload: bytes) -> Batch:
    """Inverse of ``encode_batch``; raises ``msgspec.MsgspecError`` on anything else."""
    return _batch_decoder.decode(payload)


def encode_keys(keys: list[bytes]) -> bytes:
    """The keys that a ``Scan`` found, as one value."""
    return _encoder.encode(keys)


def decode_keys(value: bytes) -> list[bytes]:
    """Inverse of ``encode_keys``."""
    return _keys_decoder.decode(value)
