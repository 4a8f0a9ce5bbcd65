"""The log on disk: a write-ahead log in blocks, fdatasync off the loop, snapshots, recovery.

A group's directory holds ``journal-N`` segments and ``snapshot-INDEX`` files. A segment is a series
of blocks ``magic number:u32 length:u32 crc32:u32 payload``, the CRC over the block's number in its
segment, its length and its payload, a MessagePack list of records. Blocks are written one at a
time: the next one only after the one before is durable, so that everything that waits shares one
fdatasync (group commit), and a torn write can only be the last block. A bad block with a good one
anywhere after it, or in an earlier segment, is corruption of what was acknowledged, and the node
refuses to start.

Term and vote are records of the same log. A snapshot counts once the log says that it is complete;
the segment that says so begins with everything the snapshot does not cover, so older ones can go.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
import structlog

from raftcache.raft.journal import Journal, SnapshotHeader, StoredSnapshot
from raftcache.runtime import AppendFile, Runtime

_RECOVERING: Final = b"recovering\n"
_WHOLE: Final = b"whole\n"
RETRY_S: Final = 0.5
"""After a failed write (disk full, say) it is tried again this much later."""
STORE_RETRY_S: Final = 5.0
"""After a snapshot that could not be stored the next one is tried so much later."""
SNAPSHOT_AFTER_BYTES: Final = 64 * 1024 * 1024
"""A segment longer than this, and than the snapshot before, makes the next snapshot due."""

_MAGIC: Final = b"\xc5RCB"
"""Where a block may begin, when the length of the one before it cannot be trusted."""
_HEADER: Final = struct.Struct("<4sIII")
_log = structlog.get_logger()


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
    """``snapshot-INDEX`` is durable and the log begins anew after it, with the entries that
    follow."""

    index: int


_Record = EntryRecord | Truncate | Meta | SnapshotComplete
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Record])
_header_decoder = msgspec.msgpack.Decoder(SnapshotHeader)


def _crc(number: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack("<II", number, len(payload))))


def _block(number: int, payload: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, number, len(payload), _crc(number, payload)) + payload


def _read_block(data: bytes, at: int) -> tuple[int, bytes] | None:
    """(number, payload) of the block that starts there, ``None`` when it is none or damaged."""
    if at + _HEADER.size > len(data):
        return None
    magic, number, length, crc = _HEADER.unpack_from(data, at)
    payload = data[at + _HEADER.size : at + _HEADER.size + length]
    good = magic == _MAGIC and len(payload) == length > 0 and _crc(number, payload) == crc
    return (number, payload) if good else None


def _blocks(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(payload, end offset) of every good block from the start; ends at the first bad one."""
    at = expected = 0
    while (block := _read_block(data, at)) is not None and block[0] == expected:
        at += _HEADER.size + len(block[1])
        expected += 1
        yield block[1], at


def _good_block_after(data: bytes, start: int, number: int) -> bool:
    """Whether a later good block follows the bad one at ``start``, whose length, too, may be
    wrong."""
    at = data.find(_MAGIC, start + 1)
    while at >= 0:
        block = _read_block(data, at)
        if block is not None and block[0] > number:
            return True
        at = data.find(_MAGIC, at + 1)
    return False


class _Install(enum.Enum):
    """Which snapshot the engine is installing."""

    NONE = 0
    STORED = 1
    RECEIVED = 2


class DurableJournal(Journal):
    """A log on disk, cached in memory. ``open`` recovers it."""

    def __init__(self, runtime: Runtime, directory: str) -> None:
        super().__init__()
        self._runtime = runtime
        self._disk = runtime.disk
        self._directory = directory
        self._segment = 0
        self._blocks_written = 0
        self._good_size = 0
        self._file: AppendFile | None = None
        self._pending: list[_Record] = []
        self._writing = False
        self._scheduled = False
        self._closed = False
        self._install = _Install.NONE
        self._in_flight_limit = 0
        self._stores: set[int] = set()
        self._rotation: int | None = None
        self._rotating: int | None = None
        self._store_again_at = 0.0
        self._snapshot_index = 0
        self._snapshot_bytes = 0

    # -- recovery

    @classmethod
    def open(cls, runtime: Runtime, directory: str) -> DurableJournal:
        """Read what is there. ``CorruptJournalError`` when it cannot be trusted, ``OSError`` when
        it cannot be read."""
        journal = cls(runtime, directory)
        runtime.disk.make_directory(directory)
        names = journal._names()
        if journal._incomplete(names):
            # All but the file that says so: it must outlive what it speaks of.
            for name in names:
                if name != "state":
                    runtime.disk.delete(f"{directory}/{name}")
            names = []
        segments = sorted(name for name in names if name.startswith("journal-"))
        journal.blank = not segments
        if journal.blank:
            runtime.disk.replace(f"{directory}/state", _RECOVERING)
        for name in segments:
            journal._replay(name, last=name == segments[-1])
        journal._drop_strangers(names)
        journal._load_snapshot()
        journal.durable_index = journal.last_index
        if not segments:
            journal._segment = 1
        journal._file = journal._disk.append(journal._path(journal._segment))
        journal._file.sync()
        return journal

    def _names(self) -> list[str]:
        """The files here, without what a replacement that was cut short left behind."""
        names = self._disk.list(self._directory)
        for name in names:
            if name.endswith(".tmp"):
                self._disk.delete(f"{self._directory}/{name}")
        return [name for name in names if not name.endswith(".tmp")]

    def _incomplete(self, names: list[str]) -> bool:
        """Whether an earlier process had not recovered yet: what it left must not be relied on."""
        if "state" not in names:
            return False
        path = f"{self._directory}/state"
        found = self._disk.read(path)
        if found not in (_RECOVERING, _WHOLE):
            raise CorruptJournalError(f"{path}: neither {_WHOLE!r} nor {_RECOVERING!r}")
        return found == _RECOVERING

    def end_recovery(self) -> None:
        """Remember that this directory holds all that the group relies on."""
        self._disk.replace(f"{self._directory}/state", _WHOLE)

    def _path(self, segment: int) -> str:
        return f"{self._directory}/journal-{segment:010d}"

    def _snapshot_path(self, index: int) -> str:
        return f"{self._directory}/snapshot-{index:020d}"

    def _replay(self, name: str, *, last: bool) -> None:
        path = f"{self._directory}/{name}"
        data = self._disk.read(path)
        self._segment = int(name.removeprefix("journal-"))
        self._blocks_written = self._good_size = 0
        for payload, end in _blocks(data):
            try:
                records = _decoder.decode(payload)
            except msgspec.MsgspecError as error:
                raise CorruptJournalError(f"{path}: unreadable record: {error}") from None
            for record in records:
                self._redo(path, record)
            self._blocks_written += 1
            self._good_size = end
        if self._good_size < len(data):
            if not last or _good_block_after(data, self._good_size, self._blocks_written):
                raise CorruptJournalError(
                    f"{path}: corrupt at byte {self._good_size}, before its end; restore the data "
                    "directory from a copy, or empty it to let this node start anew from the others"
                )
            _log.warning("torn write at the end of the journal cut off", file=path)
        if last:
            self._make_durable(path, data)

    def _make_durable(self, path: str, data: bytes) -> None:
        """What was read may be in the page cache only: a process killed before its sync leaves it
        there, and after a failed sync the cache even calls it clean, so that another sync would do
        nothing. A new copy is surely on the disk; on a full disk a sync is the best there is."""
        try:
            self._disk.replace(path, data[: self._good_size])
        except OSError as error:
            _log.warning("journal not copied at start", file=path, error=str(error))
            if self._good_size < len(data):
                self._disk.truncate(path, self._good_size)

    def _redo(self, path: str, record: _Record) -> None:
        entries = self._entries
        if isinstance(record, EntryRecord):
            if entries and record.index != entries[-1][1] + 1:
                raise CorruptJournalError(f"{path}: entry {record.index} follows {entries[-1][1]}")
            Journal.add(self, record.command, record.index, record.term)
        elif isinstance(record, Truncate):
            if entries:
                Journal.deleteEntriesFrom(self, max(0, record.index - entries[0][1]))
        elif isinstance(record, Meta):
            self._term, self._vote = record.term, record.vote
        else:
            self._snapshot_index = record.index
            Journal.clear(self)

    def _drop_strangers(self, names: list[str]) -> None:
        """Snapshots that were not finished, or are superseded."""
        current = f"snapshot-{self._snapshot_index:020d}"
        for name in names:
            if name.startswith("snapshot-") and name != current:
                self._disk.delete(f"{self._directory}/{name}")

    def _load_snapshot(self) -> None:
        if not self._snapshot_index:
            return
        path = self._snapshot_path(self._snapshot_index)
        try:
            data = self._disk.read(path)
        except FileNotFoundError:
            raise CorruptJournalError(f"{path}: missing, though the journal needs it") from None
        first = next(_blocks(data), None)
        if first is None:
            raise CorruptJournalError(f"{path}: corrupt header")
        header = _header_decoder.decode(first[0])
        self._snapshot_bytes = len(data)
        self.stored = StoredSnapshot(header, data[first[1] :])
        start = header.index - 1
        kept = self._entries
        if kept and kept[0][1] != header.index + 1:
            raise CorruptJournalError(
                f"{path}: the journal continues at {kept[0][1]}, not at {header.index + 1}"
            )
        Journal.clear(self)
        Journal.add(self, b"\x01", start, header.previous_term)
        Journal.add(self, header.command, header.index, header.term)
        for entry in kept:
            Journal.add(self, *entry)
        self._commit = header.index

    def restoring(self, active: bool) -> None:
        """While the engine installs the stored snapshot, what is here already stays."""
        self._install = _Install.STORED if active else _Install.NONE
        if not active:
            self.stored = None

    # -- what PySyncObj calls

    def add(self, command: bytes, idx: int, term: int) -> None:
        if self._install is _Install.STORED:
            return
        durable = self.durable_index
        super().add(command, idx, term)
        self.durable_index = durable
        if self._install is _Install.NONE:
            self._record(EntryRecord(idx, term, command))

    def clear(self) -> None:
        if self._install is not _Install.STORED:
            super().clear()
            self._in_flight_limit = 0

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        if entryFrom < len(self._entries):
            self._record(Truncate(self._entries[entryFrom][1]))
        super().deleteEntriesFrom(entryFrom)
        self._in_flight_limit = min(self._in_flight_limit, self.last_index)

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        super().setCurrentTerm(term, votedForNodeId)
        self.meta_durable = False
        self._record(Meta(term, votedForNodeId))

    # -- writing

    def _record(self, record: _Record) -> None:
        self._pending.append(record)
        self._schedule()

    def _schedule(self) -> None:
        if not self._writing and not self._scheduled:
            self._scheduled = True
            self._runtime.call_soon(self._write)

    def _write(self) -> None:
        self._scheduled = False
        if self._closed or self._writing:
            return
        if self._rotation is not None:
            self._rotate()
        elif self._pending:
            records, self._pending = self._pending, []
            self._attempt(_block(self._blocks_written, _encoder.encode(records)))

    def _attempt(self, block: bytes) -> None:
        file = self._file
        assert file is not None
        self._writing = True
        self._in_flight_limit = self.last_index

        def write() -> None:
            file.write(block)
            file.sync()

        def written(future: asyncio.Future[None]) -> None:
            error = future.exception()
            if error is not None:
                self._failed(error, lambda: self._again(block))
                return
            self._blocks_written += 1
            self._good_size += len(block)
            self._advance()

        self._runtime.in_thread(write).add_done_callback(written)

    def _advance(self) -> None:
        """What was written is durable, as far as it has not been truncated since."""
        self._writing = False
        if self._closed:
            self._close_file()
            return
        self.durable_index = max(self.durable_index, self._in_flight_limit)
        self.meta_durable = not any(isinstance(each, Meta) for each in self._pending)
        self.on_durable()
        if self._pending or self._rotation is not None:
            self._schedule()

    def _failed(self, error: BaseException, again: Callable[[], None]) -> None:
        """Nothing is durable until a later attempt succeeds; acknowledgements wait for that."""
        _log.error("journal write failed, will be repeated", error=str(error))
        if self._closed:
            self._close_file()
        else:
            self._runtime.call_later(RETRY_S, again)

    def _again(self, block: bytes) -> None:
        """Cut off what the failed attempt may have written, and repeat it."""
        self._close_file()
        if self._closed:
            return
        try:
            path = self._path(self._segment)
            self._disk.truncate(path, self._good_size)
            self._file = self._disk.append(path)
        except OSError as error:
            self._failed(error, lambda: self._again(block))
            return
        limit = self._in_flight_limit
        self._attempt(block)
        self._in_flight_limit = min(limit, self.last_index)

    # -- snapshots

    @property
    def snapshot_due(self) -> bool:
        """Whether the log has grown enough to be replaced by a snapshot."""
        limit = max(SNAPSHOT_AFTER_BYTES, 2 * self._snapshot_bytes)
        if self._good_size <= limit or self._stores or self._rotation is not None:
            return False
        return self._runtime.now() >= self._store_again_at

    async def store(self, header: SnapshotHeader, chunks: Iterable[bytes]) -> bool:
        """Write a snapshot, durably; False when that failed or the journal was closed meanwhile."""
        path = self._snapshot_path(header.index)
        if header.index in self._stores:
            return False
        if header.index in (self._snapshot_index, self._rotation, self._rotating):
            # Equal indexes, equal states: never touch the file that recovery needs.
            return not self._closed
        self._stores.add(header.index)
        self._keep()
        try:
            self._disk.delete(path)
            file = self._disk.append(path)
            try:
                head = _block(0, _encoder.encode(header))
                await self._runtime.in_thread(lambda: file.write(head))
                size = len(head)
                for chunk in chunks:
                    size += len(chunk)
                    await self._runtime.in_thread(functools.partial(file.write, chunk))
                await self._runtime.in_thread(file.sync)
            finally:
                file.close()
        except OSError as error:
            _log.error("snapshot not stored", error=str(error), file=path)
            self._store_again_at = self._runtime.now() + STORE_RETRY_S
            with contextlib.suppress(OSError):
                self._disk.delete(path)
            return False
        finally:
            self._stores.discard(header.index)
            self._keep()
        self._snapshot_bytes = size
        return not self._closed

    def installing(self, active: bool) -> None:
        """While the engine replaces the log by a snapshot of the leader's, nothing is recorded: the
        next segment begins with that snapshot."""
        self._install = _Install.RECEIVED if active else _Install.NONE

    def begin_segment(self, snapshot_index: int) -> None:
        """The stored snapshot replaces the log up to its index."""
        if self.first_index > snapshot_index + 1:
            # Overtaken by a snapshot of the leader's: what follows ours is not here any more.
            return
        self._rotation = snapshot_index
        self._keep()
        self._schedule()

    def _keep(self) -> None:
        """What follows a snapshot stays in memory until the segment that begins with it is
        durable."""
        needed = [*self._stores, self._rotation, self._rotating]
        self.keep_from = min((index for index in needed if index is not None), default=None)

    def _rotate(self) -> None:
        if self._closed:
            self._close_file()
            return
        if self._rotation is not None:
            # The newest: the log that an earlier one goes with may be gone since it failed.
            self._rotating, self._rotation = self._rotation, None
        index = self._rotating
        assert index is not None
        records: list[_Record] = [Meta(self._term, self._vote), SnapshotComplete(index)]
        records += [EntryRecord(i, t, command) for command, i, t in self._entries if i > index]
        # All that is pending is part of what the new segment begins with.
        self._pending = []
        self._writing = True
        self._in_flight_limit = self.last_index
        block, path = _block(0, _encoder.encode(records)), self._path(self._segment + 1)

        def write() -> AppendFile:
            self._disk.delete(path)
            file = self._disk.append(path)
            file.write(block)
            file.sync()
            return file

        def written(future: asyncio.Future[AppendFile]) -> None:
            error = future.exception()
            if error is not None:
                self._failed(error, self._rotate)
                return
            self._rotating = None
            self._keep()
            self._close_file()
            self._file = future.result()
            self._snapshot_index = index
            self._segment += 1
            self._blocks_written, self._good_size = 1, len(block)
            self._forget()
            self._advance()

        self._runtime.in_thread(write).add_done_callback(written)

    def _forget(self) -> None:
        """Delete what the new segment makes superfluous. Failing to is harmless."""
        needed = {self._snapshot_index, self._rotation, *self._stores}
        with contextlib.suppress(OSError):
            for name in self._names():
                kind, _, number = name.partition("-")
                if not number.isdigit():
                    continue  # ours, or what a failed replacement left: gone at the next start
                old = kind == "journal" and int(number) < self._segment
                if old or (kind == "snapshot" and int(number) not in needed):
                    self._disk.delete(f"{self._directory}/{name}")

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """Nothing is written afterwards, but for what is being written now."""
        self._closed = True
        if not self._writing:
            self._close_file()
