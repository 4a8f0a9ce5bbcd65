"""PySyncObj's own journals, for the control: its ``MemoryJournal`` as it is, and its
``FileJournal`` over the simulated disk.

``StockJournal`` keeps what ``FileJournal`` promises and what it does not: entries are appended and
never synced; term, vote and commit index go to a second file, never synced, the commit index once
a second or with the next change of term, and it is read back as it was stored, be it beyond the
last entry.

Kinder than the original on a real machine, so that nobody is convicted by the model of a disk: what
was written is on the disk within ``WRITE_BACK_S`` (Linux: what is 30 s old, looked at every 5 s),
and whatever a power failure leaves of the rest is told by checksums and cut cleanly
(``FileJournal`` has none).
"""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from pysyncobj.journal import MemoryJournal

from raftcache.runtime import Runtime

WRITE_BACK_S: Final = 5
"""Interval at which the kernel writes everything to the disk."""
_FRAME: Final = struct.Struct("<II")  # length, CRC-32
_ENTRY: Final = struct.Struct("<QQ")  # index, term


class _Positions:
    """What our own parts want to know of a journal, by Raft's indexes."""

    def __getitem__(self, item: Any) -> Any:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def first_index(self) -> int:
        return int(self[0][1])

    @property
    def last_index(self) -> int:
        return int(self[-1][1]) if len(self) else 0

    @property
    def durable_index(self) -> int:
        """It takes everything for durable."""
        return self.last_index

    def at(self, index: int) -> tuple[bytes, int, int] | None:
        position = index - self.first_index
        found: tuple[bytes, int, int] | None
        found = self[position] if 0 <= position < len(self) else None
        return found

    def term_at(self, index: int) -> int | None:
        entry = self.at(index)
        return None if entry is None else entry[2]


class StockMemoryJournal(MemoryJournal, _Positions):  # type: ignore[misc]
    """PySyncObj's own: a restart forgets everything, term and vote too."""


class _Records:
    """An append-only file of records."""

    def __init__(self, runtime: Runtime, path: str) -> None:
        disk = runtime.disk
        directory, _, name = path.rpartition("/")
        if name in disk.list(directory):
            self._file = disk.open(path)
        else:
            self._file = disk.create(path)
        data = disk.read(path)
        self.found = list(_whole(data))
        self._end = sum(_FRAME.size + len(record) for record in self.found)
        if self._end < len(data):
            self._file.write(bytes(len(data) - self._end), self._end)

    def add(self, record: bytes) -> None:
        data = _FRAME.pack(len(record), zlib.crc32(record)) + record
        self._file.write(data, self._end)
        self._end += len(data)

    def write_back(self) -> None:
        """As the kernel does from time to time, whatever comes of it."""
        with suppress(OSError):
            self._file.sync()


def _whole(data: bytes) -> Iterator[bytes]:
    """Records up to the first that is torn."""
    at = 0
    while at + _FRAME.size <= len(data):
        length, checksum = _FRAME.unpack_from(data, at)
        record = data[at + _FRAME.size : at + _FRAME.size + length]
        if length == 0 or len(record) < length or zlib.crc32(record) != checksum:
            return
        yield record
        at += _FRAME.size + length


class StockJournal(_Positions):
    """``pysyncobj.journal.FileJournal``, see above."""

    def __init__(self, runtime: Runtime, path: str) -> None:
        self._entries: list[tuple[bytes, int, int]] = []
        self._records = _Records(runtime, path)
        self._metas = _Records(runtime, path + ".meta")
        self._meta: dict[str, Any] = {}
        self._meta_saved = True
        self._age_s = 0
        for record in self._records.found:
            self._replay(record)
        if self._metas.found:
            self._meta = pickle.loads(self._metas.found[-1])

    def _replay(self, record: bytes) -> None:
        if record[:1] == b"A":
            index, term = _ENTRY.unpack_from(record, 1)
            self._entries.append((record[1 + _ENTRY.size :], index, term))
        else:
            del self._entries[int.from_bytes(record[1:], "little") :]

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._entries.append((command, idx, term))
        self._records.add(b"A" + _ENTRY.pack(idx, term) + bytes(command))

    def clear(self) -> None:
        self.deleteEntriesFrom(0)

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        del self._entries[entryFrom:]
        self._records.add(b"T" + entryFrom.to_bytes(8, "little"))

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803
        entries = self._entries[entryTo:]
        self.clear()
        for entry in entries:
            self.add(*entry)

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def _destroy(self) -> None:
        pass

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        self._meta["raftCommitIndex"] = raftCommitIndex
        self._meta_saved = False

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        return int(self._meta.get("raftCommitIndex", 1))

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        self._meta["currentTerm"] = term
        self._meta["votedForNodeId"] = votedForNodeId
        self._store_meta()

    def getCurrentTerm(self) -> int:  # noqa: N802
        return int(self._meta.get("currentTerm", 0))

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        voted: str | None = self._meta.get("votedForNodeId")
        return voted

    def onOneSecondTimer(self) -> None:  # noqa: N802
        if not self._meta_saved:
            self._store_meta()
        self._age_s += 1
        if self._age_s % WRITE_BACK_S == 0:
            self._records.write_back()
            self._metas.write_back()

    def _store_meta(self) -> None:
        self._metas.add(pickle.dumps(self._meta))
        self._meta_saved = True
