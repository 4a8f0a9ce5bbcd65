"""Recovery: from the files of a log to what it says.

The newest segment in use is the last one that begins with a good block; each says where the one
before it ends. Followed back as far as there are files, and read forwards from there, they must
make one log without a gap from the newest snapshot on. A torn write can only be the last block of
the last segment, since a block is written only when the one before it is durable: that is cut off.
Anything else that is bad is corruption of what was acknowledged, and the node refuses to start.

The last good block is *in doubt*: a process killed before its fdatasync leaves it in the page cache
only, and after a failed one the cache even calls it clean. So it counts as not durable until it has
been written once more (``Doubt``), the very same bytes at the very same place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import structlog

from raftcache.raft.blocks import (
    CorruptJournalError,
    EntryRecord,
    Installed,
    Meta,
    Record,
    SegmentStart,
    SnapshotComplete,
    Tail,
    Truncate,
    blocks,
    decode_records,
    good_block_after,
    read_block,
)
from raftcache.raft.entries import Entry
from raftcache.raft.segments import Segment, segment_path
from raftcache.runtime import Disk

WHAT_TO_DO: Final = (
    "restore the data directory from a copy, or empty it to let this node start anew from the "
    "others"
)

_log = structlog.get_logger()


@dataclass(slots=True)
class Doubt:
    """The last block: ``block`` is what stands at byte ``at`` of ``segment``, ``rest`` the number
    of bytes after it when these are not all zeros."""

    segment: Segment
    at: int
    block: bytes
    rest: int
    records: list[Record]


@dataclass(slots=True)
class Recovered:
    """What a log says. ``entries`` follow ``tail.snapshot``; ``tail_before`` and
    ``durable_index`` are without the block in doubt; ``bytes`` were logged since the snapshot."""

    entries: list[Entry] = field(default_factory=list)
    tail: Tail = Tail()  # noqa: RUF009  (immutable)
    tail_before: Tail = Tail()  # noqa: RUF009
    durable_index: int = 0
    bytes: int = 0
    segments: list[Segment] = field(default_factory=list)
    doubt: Doubt | None = None


def recover(disk: Disk, directory: str, numbers: list[int]) -> Recovered:
    """Read the segments ``numbers``. ``CorruptJournalError`` when they cannot be trusted."""
    replay = _Replay(disk, directory)
    chain = replay.chain(sorted(numbers, reverse=True))
    for position, (number, _) in enumerate(chain):
        following = chain[position + 1][1] if position + 1 < len(chain) else None
        replay.segment(number, following)
    return replay.result()


class _Replay:
    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._directory = directory
        self._entries: list[Entry] = []
        self._tail: Tail | None = None
        self._base = 0
        """Entries up to here are in no segment that is left."""
        self._last = self._snapshot = 0
        self._found = Recovered()

    def _read(self, number: int) -> bytes:
        return self._disk.read(segment_path(self._directory, number))

    def _start(self, number: int, data: bytes) -> SegmentStart | None:
        """The first record of a segment, ``None`` when it has no good first block."""
        block = read_block(data, 0, number)
        if block is None or block[0] != 0:
            return None
        path = segment_path(self._directory, number)
        records = decode_records(path, block[1])
        if not records or not isinstance(records[0], SegmentStart):
            raise CorruptJournalError(f"{path}: does not begin as a segment does")
        return records[0]

    def chain(self, numbers: list[int]) -> list[tuple[int, SegmentStart]]:
        """The segments in use, oldest first. ``numbers``: of all there are, newest first."""
        chain: list[tuple[int, SegmentStart]] = []
        unused: int | None = None
        wanted: int | None = None
        for number in numbers:
            if wanted is not None and number != wanted:
                if number < wanted:
                    break  # it is missing: whether it is needed will be seen
                continue  # the remains of a write that failed
            data = self._read(number)
            start = self._start(number, data)
            if start is None:
                if wanted is not None or good_block_after(data, 0, number, 0):
                    raise self._corrupt(number, 0)
                unused = number  # allocated ahead, or its first write was torn
                continue
            if wanted is None and unused is not None and unused != number + 1:
                path = segment_path(self._directory, number + 1)
                raise CorruptJournalError(f"{path}: missing; {WHAT_TO_DO}")
            chain.append((number, start))
            wanted = start.previous
            if wanted == 0:
                break
        chain.reverse()
        return chain

    def _corrupt(self, number: int, at: int) -> CorruptJournalError:
        path = segment_path(self._directory, number)
        return CorruptJournalError(f"{path}: corrupt at byte {at}, before its end; {WHAT_TO_DO}")

    def segment(self, number: int, following: SegmentStart | None) -> None:
        """Replay one segment: up to where the following one says that it ends, or to its end."""
        data, path = self._read(number), segment_path(self._directory, number)
        segment = Segment(number, len(data))
        last_payload: memoryview | None = None
        last_at = 0
        for payload, end in blocks(data, number):
            if following is not None and segment.blocks == following.blocks:
                break
            if last_payload is not None:
                self._redo(segment, path, last_payload)
            last_payload, last_at = payload, segment.end
            segment.blocks += 1
            segment.end = end
        assert last_payload is not None
        if following is not None:
            if (segment.blocks, segment.end) != (following.blocks, following.end):
                raise self._corrupt(number, segment.end)
        else:
            self._end(segment, path, data, last_payload, last_at)
        self._redo(segment, path, last_payload)
        self._found.segments.append(segment)

    def _end(self, segment: Segment, path: str, data: bytes, payload: memoryview, at: int) -> None:
        """The last segment's last block is in doubt, and what follows it was torn."""
        rest = len(data) - segment.end
        if data.count(0, segment.end) == rest:
            rest = 0
        elif good_block_after(data, segment.end, segment.number, segment.blocks):
            raise self._corrupt(segment.number, segment.end)
        else:
            _log.warning("torn write at the end of the journal cut off", file=path)
        records = decode_records(path, payload)
        self._found.doubt = Doubt(segment, at, data[at : segment.end], rest, records)
        self._found.tail_before = self._now(records)
        self._found.durable_index = self._surely(records)

    def _now(self, records: list[Record]) -> Tail:
        """What the log says before the block in doubt."""
        if isinstance(records[0], SegmentStart):
            start = records[0]
            return Tail(start.last_index, start.term, start.vote, start.snapshot)
        tail = self._tail
        assert tail is not None
        return Tail(self._last, tail.term, tail.vote, self._snapshot)

    def _surely(self, records: list[Record]) -> int:
        """Up to which index the log is the same with and without the block in doubt."""
        index = self._found.tail_before.last_index
        for record in records:
            if isinstance(record, Truncate):
                index = min(index, record.index - 1)
            elif isinstance(record, Installed):
                index = 0
        return index

    def _redo(self, segment: Segment, path: str, payload: memoryview) -> None:
        entries, last, top = self._entries, self._last, segment.top
        size = len(payload)
        for record in decode_records(path, payload):
            if type(record) is EntryRecord:
                index = record.index
                if index != last + 1:
                    raise CorruptJournalError(f"{path}: entry {index} follows {last}; {WHAT_TO_DO}")
                entries.append((record.command, index, record.term))
                last = index
                if index > top:
                    top = index
                continue
            if isinstance(record, SegmentStart):
                last = self._begin(path, record)
            elif isinstance(record, Meta):
                assert self._tail is not None
                self._tail = Tail(0, record.term, record.vote)
            elif isinstance(record, Truncate):
                last = record.index - 1
                while entries and entries[-1][1] > last:
                    entries.pop()
                self._base = min(self._base, last)
            elif isinstance(record, SnapshotComplete):
                self._snapshot = record.index
                self._found.bytes = 0
                self._drop_covered(record.index)
            else:
                self._snapshot = self._base = last = top = record.index
                self._found.bytes = 0
                entries.clear()
                for earlier in self._found.segments:
                    earlier.top = 0
        self._last, segment.top = last, top
        self._found.bytes += size

    def _begin(self, path: str, start: SegmentStart) -> int:
        tail = Tail(0, start.term, start.vote)
        if self._tail is None:
            self._base, self._snapshot = start.last_index, start.snapshot
        elif (start.last_index, start.snapshot) != (self._last, self._snapshot) or (
            tail != self._tail
        ):
            raise CorruptJournalError(f"{path}: does not continue the segment before; {WHAT_TO_DO}")
        self._tail = tail
        return start.last_index

    def _drop_covered(self, index: int) -> None:
        entries = self._entries
        if entries and entries[0][1] <= index:
            del entries[: index + 1 - entries[0][1]]

    def result(self) -> Recovered:
        """All of it, once every segment has been replayed."""
        found = self._found
        if self._tail is None:
            return found
        if self._base > self._snapshot:
            oldest = segment_path(self._directory, found.segments[0].number)
            raise CorruptJournalError(
                f"{oldest}: the log begins after entry {self._base}, and what was before it is "
                f"missing; {WHAT_TO_DO}"
            )
        self._drop_covered(self._snapshot)
        found.entries = self._entries
        found.tail = Tail(self._last, self._tail.term, self._tail.vote, self._snapshot)
        return found
