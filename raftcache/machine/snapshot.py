"""State to bytes and back.

Equal states give equal bytes, so replicas are compared by their snapshots. Format, version 1
(integers big-endian):

    magic       10 bytes  "raftcache\\n"
    version      2 bytes  1
    frames, each
      kind       1 byte
      length     4 bytes  of the payload
      checksum   4 bytes  CRC-32 of kind, length and payload
      payload             MessagePack

    kind 1, head      first: [settings, time_ms, version, entries, split, ghosts, sessions];
                      settings as ``ops.Configure``, then machine time, the mutation counter, how
                      many entries there are, how many of them are in the first of the policy's
                      two queues, and how many ghosts and sessions there are
    kind 2, entries   in the policy's order, by columns: [keys, values, versions, deadlines, marks,
                      flags]; marks are the policy's numbers or empty, flags pairs of position
                      and flags where they are not 0
    kind 3, ghosts    hashes, oldest first
    kind 4, sessions  least recently used first: [name, seq, fingerprint, result, used_ms] each
    kind 5, end       last: [frames before it, CRC-32 of their checksums one after another]

A later release reads this version; a change of the format gets a new number. Columns, because
MessagePack and ``zip`` then do all the work per entry in C.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from raftcache.machine.cache import Cache
from raftcache.machine.costs import Entry, entry_cost
from raftcache.machine.expiry import Deadlines
from raftcache.machine.policies import POLICIES, Frozen, Lru
from raftcache.machine.sessions import Record, Sessions
from raftcache.ops import Configure, Result

MAGIC: Final = b"raftcache\n"
VERSION: Final = 1
HEAD, ENTRIES, GHOSTS, SESSIONS, END = range(1, 6)
PIECE_BYTES: Final = 256 * 1024

_FRAME_BYTES: Final = 128 * 1024
_FRAME_ENTRIES: Final = 1024
_FRAME_SESSIONS: Final = 256

_frame_head = struct.Struct(">BI")
_checksum = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()

_SessionRow = tuple[bytes, int, bytes, Result, int]
_T = TypeVar("_T")


class SnapshotError(Exception):
    """These bytes are no whole snapshot of a kind this release reads; the message says why."""


class State(NamedTuple):
    """All that is replicated; machine time and the mutation counter are in ``cache``."""

    settings: Configure
    cache: Cache
    sessions: Sessions


class _Columns(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    keys: list[bytes]
    values: list[bytes]
    versions: list[int]
    deadlines: list[int]
    marks: list[int]
    flags: list[tuple[int, int]]


class _Head(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    settings: Configure
    time_ms: int
    version: int
    entries: int
    split: int
    ghosts: int
    sessions: int


def write(state: State) -> Iterator[bytes]:
    """Freeze the state and return the pieces, which are made as they are taken. Entries are
    immutable, so only references are copied: 20 to 100 ns each, as memory is near or far."""
    cache = state.cache
    frozen = cache.policy.freeze()
    entries: list[Entry] | dict[bytes, Entry]
    if isinstance(cache.policy, Lru):
        entries = list(cache.entries.values())
    else:
        entries = cache.entries.copy()
    sessions = list(state.sessions.table.items())
    head = _Head(
        state.settings,
        cache.time_ms,
        cache.version,
        len(entries),
        frozen.split,
        len(frozen.ghosts),
        len(sessions),
    )
    return _pieces(head, frozen, entries, sessions)


def _pieces(
    head: _Head,
    frozen: Frozen,
    entries: list[Entry] | dict[bytes, Entry],
    sessions: list[tuple[bytes, Record]],
) -> Iterator[bytes]:
    yield MAGIC + struct.pack(">H", VERSION)
    frames = checksums = 0

    def frame(kind: int, content: Any) -> Iterator[bytes]:
        nonlocal frames, checksums
        payload = _encoder.encode(content)
        start = _frame_head.pack(kind, len(payload))
        checksum = _checksum.pack(zlib.crc32(payload, zlib.crc32(start)))
        frames += 1
        checksums = zlib.crc32(checksum, checksums)
        data = b"".join((start, checksum, payload))
        if len(data) <= PIECE_BYTES:
            yield data
        else:
            for at in range(0, len(data), PIECE_BYTES):
                yield data[at : at + PIECE_BYTES]

    yield from frame(HEAD, head)
    start = 0
    while start < len(entries):
        columns = _columns(frozen, entries, start)
        yield from frame(ENTRIES, columns)
        start += len(columns.keys)
    for start in range(0, len(frozen.ghosts), _FRAME_ENTRIES):
        yield from frame(GHOSTS, frozen.ghosts[start : start + _FRAME_ENTRIES])
    for start in range(0, len(sessions), _FRAME_SESSIONS):
        rows = [
            (session, record.seq, record.fingerprint, record.result, record.used_ms)
            for session, record in sessions[start : start + _FRAME_SESSIONS]
        ]
        yield from frame(SESSIONS, rows)
    yield from frame(END, (frames, checksums))


def _columns(frozen: Frozen, entries: list[Entry] | dict[bytes, Entry], start: int) -> _Columns:
    """The entries from ``start`` on that fill a frame."""
    keys = frozen.keys[start : start + _FRAME_ENTRIES]
    if isinstance(entries, list):
        run = entries[start : start + _FRAME_ENTRIES]
    else:
        run = [entries[key] for key in keys]
    size = 0
    for at, entry in enumerate(run):
        size += len(keys[at]) + len(entry[0])
        if size > _FRAME_BYTES:
            del keys[at + 1 :], run[at + 1 :]
            break
    return _Columns(
        keys,
        [entry[0] for entry in run],
        [entry[1] for entry in run],
        [entry[2] for entry in run],
        frozen.marks[start : start + len(keys)],
        [(at, entry[3]) for at, entry in enumerate(run) if len(entry) == 4],
    )


def read(data: bytes, valid_settings: Callable[[Configure], bool]) -> State:
    """The state that was written; raises ``SnapshotError``."""
    try:
        return _read(data, valid_settings)
    except (msgspec.MsgspecError, struct.error, ValueError, IndexError) as error:
        raise SnapshotError(f"snapshot is damaged: {error}") from error


def _read(data: bytes, valid_settings: Callable[[Configure], bool]) -> State:
    frames = _frames(memoryview(data))
    kind, payload = next(frames)
    if kind != HEAD:
        raise SnapshotError("snapshot is damaged: it does not start with its head")
    head = _decode(payload, _Head)
    if not valid_settings(head.settings):
        raise SnapshotError(f"snapshot has settings this release does not know: {head.settings}")
    cache = Cache()
    cache.time_ms, cache.version = head.time_ms, head.version
    sessions = Sessions(head.settings)
    marks: list[int] = []
    ghosts: list[int] = []
    for kind, payload in frames:
        if kind == ENTRIES:
            marks += _add_entries(cache, _decode(payload, _Columns))
        elif kind == GHOSTS:
            ghosts += _decode(payload, list[int])
        elif kind == SESSIONS:
            for session, seq, fingerprint, result, used_ms in _decode(payload, list[_SessionRow]):
                sessions.insert(session, Record(seq, fingerprint, result, used_ms))
        else:
            raise SnapshotError(f"snapshot has an unexpected frame of kind {kind}")
    counts = (len(cache.entries), len(ghosts), len(sessions.table))
    if counts != (head.entries, head.ghosts, head.sessions):
        raise SnapshotError(f"snapshot has {counts} entries, ghosts and sessions, not as announced")
    _finish(cache, head, marks, ghosts)
    return State(head.settings, cache, sessions)


def _decode(payload: memoryview, kind: type[_T]) -> _T:
    decoded: _T = msgspec.msgpack.decode(payload, type=kind)
    return decoded


def _add_entries(cache: Cache, columns: _Columns) -> list[int]:
    entries: list[Any]
    entries = list(zip(columns.values, columns.versions, columns.deadlines, strict=True))
    for at, flags in columns.flags:
        entries[at] = (*entries[at], flags)
    cache.entries.update(zip(columns.keys, entries, strict=True))
    return columns.marks


def _finish(cache: Cache, head: _Head, marks: list[int], ghosts: list[int]) -> None:
    """Everything that follows from the entries."""
    policy = POLICIES[head.settings.policy](cache.entries)
    policy.thaw(Frozen(list(cache.entries), marks, head.split, ghosts))
    cache.policy = policy
    cache.budget = head.settings.budget_bytes
    policy.resize(cache.budget)
    cache.deadlines = Deadlines(cache.entries)
    overhead = policy.overhead
    cache.used = sum([entry_cost(key, entry, overhead) for key, entry in cache.entries.items()])


def _frames(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Every frame but the last, checked; the last, which checks them all, has been met when this
    ends."""
    if bytes(data[: len(MAGIC)]) != MAGIC:
        raise SnapshotError("this is no raftcache snapshot")
    (version,) = struct.unpack_from(">H", data, len(MAGIC))
    if version != VERSION:
        raise SnapshotError(f"snapshot has format {version}; this release reads format {VERSION}")
    at = len(MAGIC) + 2
    frames = checksums = 0
    while True:
        kind, length = _frame_head.unpack_from(data, at)
        payload_at = at + _frame_head.size + _checksum.size
        payload = data[payload_at : payload_at + length]
        checksum = data[at + _frame_head.size : payload_at]
        actual = zlib.crc32(payload, zlib.crc32(data[at : at + _frame_head.size]))
        if len(payload) != length or _checksum.pack(actual) != checksum:
            raise SnapshotError(f"snapshot is damaged or cut short in its frame at byte {at}")
        at = payload_at + length
        if kind == END:
            break
        yield kind, payload
        frames += 1
        checksums = zlib.crc32(checksum, checksums)
    if at != len(data) or _decode(payload, tuple[int, int]) != (frames, checksums):
        raise SnapshotError("snapshot is damaged: its end does not match its frames")
