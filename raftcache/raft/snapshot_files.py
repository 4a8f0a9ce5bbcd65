"""A group's snapshots on disk: ``snapshot-INDEX`` files, a header block and the state as it is.

A file counts only once the log says that it is complete, which it does when the file is durable.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable
from typing import Final

import msgspec

from raftcache.raft.blocks import CorruptJournalError, blocks, encode_block
from raftcache.raft.entries import SnapshotHeader, StoredSnapshot
from raftcache.runtime import Runtime

_PREFIX: Final = "snapshot-"
_header_decoder = msgspec.msgpack.Decoder(SnapshotHeader)


class SnapshotFiles:
    """Those of one directory. ``storing``: indexes of the ones being written."""

    def __init__(self, runtime: Runtime, directory: str) -> None:
        self._runtime = runtime
        self._directory = directory
        self.storing: set[int] = set()

    def path(self, index: int) -> str:
        """Where the snapshot up to ``index`` is."""
        return f"{self._directory}/{_PREFIX}{index:020d}"

    def load(self, index: int) -> tuple[StoredSnapshot, int]:
        """A snapshot that the log needs, and the size of its file. ``CorruptJournalError``."""
        path = self.path(index)
        try:
            data = self._runtime.disk.read(path)
        except FileNotFoundError:
            raise CorruptJournalError(f"{path}: missing, though the journal needs it") from None
        first = next(blocks(data, 0), None)
        if first is None:
            raise CorruptJournalError(f"{path}: corrupt header")
        header = _header_decoder.decode(first[0])
        return StoredSnapshot(header, data[first[1] :]), len(data)

    async def store(self, header: SnapshotHeader, chunks: Iterable[bytes]) -> int:
        """Write one, durably, off the loop; the size of its file. ``OSError``, and then there is
        no file."""
        path = self.path(header.index)
        self.storing.add(header.index)
        try:
            return await self._write(path, header, chunks)
        except OSError:
            with contextlib.suppress(OSError):
                self._runtime.disk.delete(path)
            raise
        finally:
            self.storing.discard(header.index)

    async def _write(self, path: str, header: SnapshotHeader, chunks: Iterable[bytes]) -> int:
        in_thread, disk = self._runtime.in_thread, self._runtime.disk
        file = await in_thread(lambda: disk.create(path))
        try:
            head = encode_block(0, 0, 0, msgspec.msgpack.encode(header))
            await in_thread(lambda: file.write(head, 0))
            size = len(head)
            for chunk in chunks:
                await in_thread(functools.partial(file.write, chunk, size))
                size += len(chunk)
            await in_thread(file.sync)
        finally:
            file.close()
        return size

    def drop_unrecorded(self, names: Iterable[str], newest: int) -> None:
        """At start: delete what the log does not know of. Ones before ``newest`` may yet be needed,
        since the record of that one is in doubt."""
        for name in names:
            if name.startswith(_PREFIX) and int(name[len(_PREFIX) :]) > newest:
                self._runtime.disk.delete(f"{self._directory}/{name}")

    def covered(self, names: Iterable[str], newest: int) -> list[str]:
        """Paths of the ones before ``newest`` that nobody writes to."""
        indexes = [int(name[len(_PREFIX) :]) for name in names if name.startswith(_PREFIX)]
        return [self.path(i) for i in indexes if i < newest and i not in self.storing]
