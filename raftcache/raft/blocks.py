"""How a log is written down: records, and the blocks that hold them.

A segment file is a series of blocks ``magic number:u32 length:u32 crc32:u32 payload``, the payload
a MessagePack list of records. The CRC also covers the segment's number, the block's own number and
its place, so that nothing but the segment's own blocks, each where it was written, passes for one:
no zeros, no remains of something else, no block copied elsewhere, no value that looks like one.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

MAGIC: Final = b"\xc5RCB"
"""Where a block may begin, when the length of the one before it cannot be trusted."""
_HEADER: Final = struct.Struct("<4sIII")
HEADER_BYTES: Final = _HEADER.size
_PLACE: Final = struct.Struct("<IIII")


class CorruptJournalError(Exception):
    """What is on disk cannot be what was written; the message names the file and what to do."""


class EntryRecord(msgspec.Struct, array_like=True, gc=False, tag=0):
    """An appended entry."""

    index: int
    term: int
    command: bytes


class Truncate(msgspec.Struct, array_like=True, gc=False, tag=1):
    """Entries from ``index`` on are gone."""

    index: int


class Meta(msgspec.Struct, array_like=True, gc=False, tag=2):
    """Current term and vote."""

    term: int
    vote: str | None


class SnapshotComplete(msgspec.Struct, array_like=True, gc=False, tag=3):
    """``snapshot-INDEX`` is durable: entries up to there are not needed any more."""

    index: int


class Installed(msgspec.Struct, array_like=True, gc=False, tag=4):
    """``snapshot-INDEX`` of the leader's is durable, and no entry before this record counts."""

    index: int


class SegmentStart(msgspec.Struct, array_like=True, gc=False, tag=5):
    """First record of every segment: all that earlier ones say, but for the entries.

    The log before ends after ``blocks`` blocks, at byte ``end``, of segment ``previous`` (0: there
    is none). Whatever follows there, and every segment in between, is the remains of writes that
    failed. ``last_index`` is that of the log so far, ``snapshot`` the newest one (0: none)."""

    previous: int
    blocks: int
    end: int
    last_index: int
    term: int
    vote: str | None
    snapshot: int


Record = EntryRecord | Truncate | Meta | SnapshotComplete | Installed | SegmentStart

encode_records: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[Record]).decode


def decode_records(path: str, payload: bytes | memoryview) -> list[Record]:
    """The records of a block of ``path``; ``CorruptJournalError`` when it has others."""
    try:
        return _decode(payload)
    except msgspec.MsgspecError as error:
        raise CorruptJournalError(f"{path}: unreadable record: {error}") from None


def record_bytes(record: Record) -> int:
    """At most so many bytes of a payload."""
    if type(record) is EntryRecord:
        return 32 + len(record.command)
    # A vote is at most 255 bytes, the numbers at most nine each.
    return 64 + (len((record.vote or "").encode()) if type(record) is Meta else 0)


class Tail(msgspec.Struct, frozen=True):
    """What a log says at its end."""

    last_index: int = 0
    term: int = 0
    vote: str | None = None
    snapshot: int = 0

    def after(self, records: Sequence[Record]) -> Tail:
        """The same, ``records`` later."""
        last_index, term, vote, snapshot = self.last_index, self.term, self.vote, self.snapshot
        for record in records:
            if type(record) is EntryRecord:
                last_index = record.index
            elif type(record) is Meta:
                term, vote = record.term, record.vote
            elif type(record) is Truncate:
                last_index = record.index - 1
            elif type(record) is SnapshotComplete:
                snapshot = record.index
            elif type(record) is Installed:
                last_index = snapshot = record.index
        return Tail(last_index, term, vote, snapshot)


def _crc(segment: int, at: int, number: int, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(_PLACE.pack(segment, at, number, len(payload))))


def encode_block(segment: int, at: int, number: int, payload: bytes) -> bytes:
    """The ``number``-th block of ``segment``, to be written at byte ``at``."""
    crc = _crc(segment, at, number, payload)
    return _HEADER.pack(MAGIC, number, len(payload), crc) + payload


def read_block(data: bytes, at: int, segment: int) -> tuple[int, memoryview] | None:
    """(number, payload) of the block that starts there, ``None`` when it is none or damaged."""
    if at + HEADER_BYTES > len(data):
        return None
    magic, number, length, crc = _HEADER.unpack_from(data, at)
    if magic != MAGIC or not 0 < length <= len(data) - at - HEADER_BYTES:
        return None
    payload = memoryview(data)[at + HEADER_BYTES : at + HEADER_BYTES + length]
    return (number, payload) if _crc(segment, at, number, payload) == crc else None


def blocks(data: bytes, segment: int) -> Iterator[tuple[memoryview, int]]:
    """(payload, end offset) of every good block from the start; ends at the first bad one."""
    at = expected = 0
    while (block := read_block(data, at, segment)) is not None and block[0] == expected:
        at += HEADER_BYTES + len(block[1])
        expected += 1
        yield block[1], at


def good_block_after(data: bytes, start: int, segment: int, number: int) -> bool:
    """Whether a good block later than the ``number``-th follows the bad one at ``start``, whose
    length, too, may be wrong."""
    at = data.find(MAGIC, start + 1)
    while at >= 0:
        block = read_block(data, at, segment)
        if block is not None and block[0] > number:
            return True
        at = data.find(MAGIC, at + 1)
    return False
