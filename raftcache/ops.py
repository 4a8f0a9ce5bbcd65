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
    """``Incr`` on a value that is not a decimal 64-bit integer; nothing changed."""
    OVERFLOW = 5
    """``Incr`` would leave the signed 64-bit range; nothing changed."""
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
    """Kinds of condition (RFC 9110 section 13.1)."""

    EXISTS = 0
    """``If-Match: *``"""
    ABSENT = 1
    """``If-None-Match: *``"""
    VERSION_IN = 2
    """``If-Match: "1", "2"``; a missing key does not match."""
    VERSION_NOT_IN = 3
    """``If-None-Match: "1", "2"``; a missing key matches."""


class Condition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What must hold of the entry for a write to happen."""

    match: Match
    versions: tuple[int, ...] = ()


class Get(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=0):
    """Read one key. In the log it also counts as a use of the key (recency)."""

    key: bytes


class Set(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=1):
    """Store a value. ``ttl_ms`` 0: no expiry. ``keep_ttl`` keeps the deadline of the old entry."""

    key: bytes
    value: bytes
    ttl_ms: int = 0
    flags: int = 0
    condition: Condition | None = None
    keep_ttl: bool = False


class Delete(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=2):
    """Remove a key."""

    key: bytes
    condition: Condition | None = None


class Incr(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=3):
    """Add ``by`` to a decimal signed 64-bit integer; a missing key counts as 0. Keeps the
    expiry."""

    key: bytes
    by: int = 1
    condition: Condition | None = None


class Expire(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=4):
    """Set the time to live from now; 0 removes the expiry. A new version: the entry changed."""

    key: bytes
    ttl_ms: int
    condition: Condition | None = None


class Configure(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=5):
    """Set the machine's limits. Proposed by a leader whose settings differ from the machine's, so
    that replicas stay identical whatever their own configuration files say."""

    budget_bytes: int
    policy: str
    session_ttl_ms: int
    max_sessions: int


Simple = Get | Set | Delete | Incr | Expire


class Atomic(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=6):
    """Several operations applied together, all or nothing: when one fails (any status but ``OK``,
    ``CREATED``, or ``NOT_FOUND`` of a ``Get``/``Delete``/``Expire``) none is applied. Results in
    ``parts``."""

    ops: tuple[Simple, ...]


class Once(msgspec.Struct, array_like=True, frozen=True, gc=False, tag=7):
    """Exactly-once (Raft dissertation, section 6.3): a repetition of the session's last sequence
    number returns the first result and does nothing."""

    session: bytes
    seq: int
    op: Set | Delete | Incr | Expire | Atomic


Write = Set | Delete | Incr | Expire | Atomic | Once
Op = Get | Set | Delete | Incr | Expire | Configure | Atomic | Once


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
_batch_decoder = msgspec.msgpack.Decoder(Batch)


def encode_batch(batch: Batch) -> bytes:
    """MessagePack of a batch: ``[now_ms, [key...], [[tag, field...]...]]``."""
    return _encoder.encode(batch)


def decode_batch(payload: bytes) -> Batch:
    """Inverse of ``encode_batch``; raises ``msgspec.MsgspecError`` on anything else."""
    return _batch_decoder.decode(payload)
