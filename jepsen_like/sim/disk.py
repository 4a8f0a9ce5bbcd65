"""The files of one node: what a crash keeps, what it tears, what it loses.

``SimDisk`` outlives the node's processes; each process works on it through a ``DiskView``
(``raftcache.runtime.Disk``), which does nothing once its process is dead. The model is a Linux file
system with a page cache, seen through the calls of ``raftcache.runtime.RealDisk``:

- Written data is readable at once, and durable after ``sync``. A killed process loses none of it; a
  power failure keeps any of the un-synced sectors of 512 bytes, each as it was or as it was to be,
  and one in a while as noise where the two differ. A file that grew may be back at its old size,
  or at any in between.
- ``sync`` off the loop covers what was written before it began, not what came in meanwhile.
- After a failed ``sync`` the pages count as clean: a later successful ``sync`` does not cover them
  ("fsyncgate"), only what is written anew. They may even read as they were before, from then on.
- ``replace``, ``create`` and ``allocate`` are durable on return; the first is atomic, an
  ``allocate`` cut short leaves a file of any size with any of what was in it. One that fails
  leaves no new file.
  ``delete`` is durable only after the next of these in the directory: until then a power failure
  may bring the file back.
- ``make_directory`` is durable at once (simpler than life).
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final

from jepsen_like.sim.scheduler import Process

SECTOR: Final = 512


class _CutOffError(BaseException):
    """The machine went down in the middle of a blocking call."""


@dataclass(slots=True)
class _File:
    """``data`` is what a reader sees, ``disk`` what a power failure keeps for sure. ``dirty``:
    sector -> the disk's write counter when it was last written, of those that no sync has covered;
    ``lost``: sectors whose sync failed."""

    data: bytearray = field(default_factory=bytearray)
    disk: bytearray = field(default_factory=bytearray)
    dirty: dict[int, int] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    grown: int = 0
    """The counter at the last growth that no sync has covered; 0: none."""

    def settle(self) -> None:
        """All of it is durable."""
        self.disk = bytearray(self.data)
        self.dirty.clear()
        self.lost.clear()
        self.grown = 0

    def copy_sectors(self, sectors: Collection[int], source: bytearray, target: bytearray) -> None:
        """Sectors of ``source`` into ``target``, which is extended when it is shorter."""
        if not sectors:
            return
        end = min(len(source), (max(sectors) + 1) * SECTOR)
        target.extend(bytes(max(0, end - len(target))))
        if len(sectors) == max(sectors) - min(sectors) + 1:
            start = min(sectors) * SECTOR
            target[start:end] = source[start:end]
            return
        for sector in sectors:
            start = sector * SECTOR
            piece = source[start : start + SECTOR]
            target[start : start + len(piece)] = piece


class SimDisk:
    """Files of one node, and its faults."""

    def __init__(self, generator: random.Random) -> None:
        self.random = generator
        self._files: dict[str, _File] = {}
        self._directories: dict[str, None] = {"/": None}
        self._deleted: dict[str, _File] = {}  # deletions that a power failure may undo
        self._locks: dict[str, Process] = {}
        self._counter = 0  # of writes
        self._thread_mark: int | None = None  # set while a call runs off the loop
        self._fuse = -1  # changes still allowed before the machine goes down; -1: no end
        self.sync_seconds = (0.0002, 0.002)
        """Shortest and longest duration of a blocking call off the loop."""
        self.free_bytes: int | None = None
        """What may still be written before ENOSPC; ``None``: no limit."""
        self.fail_syncs = 0
        """So many of the next syncs fail with EIO."""
        self.fail_writes = 0
        """So many of the next writes fail with EIO."""
        self.tear_next = False
        """The next power failure finds a blocking call half done."""

    # -- files -----------------------------------------------------------------------------------

    def file(self, path: str) -> _File:
        found = self._files.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return found

    def _entry(self, path: str) -> _File:
        """The file at ``path``, made when it does not exist."""
        found = self._files.get(path)
        if found is None:
            self._need_directory(_parent(path))
            self._change()
            found = self._files[path] = _File()
            self._settle_directory(_parent(path))
        return found

    def create(self, path: str) -> _File:
        if path in self._files:
            self.delete(path)
        return self._entry(path)

    def allocate(self, path: str, size: int) -> _File:
        new = path not in self._files
        file = self._entry(path)
        try:
            if self.free_bytes is not None and size - len(file.data) > self.free_bytes:
                raise OSError(errno.ENOSPC, "no space left on device")
            self.write(file, bytes(size), 0)
            if len(file.data) > size:
                self._release(len(file.data) - size)
                del file.data[size:]
            self._change()
            self._maybe_fail_sync(file)
        except OSError:
            if new:
                self.delete(path)
            raise
        file.settle()
        return file

    def write(self, file: _File, data: bytes, offset: int) -> None:
        self._change()
        if self.fail_writes > 0:
            self.fail_writes -= 1
            raise OSError(errno.EIO, "input/output error")
        growth = max(0, offset + len(data) - len(file.data))
        if self.free_bytes is not None and growth:
            room = max(0, self.free_bytes)
            self.free_bytes = max(0, room - growth)
            if growth > room:  # a short write first, as the system call does
                self._put(file, data[: max(0, len(data) - growth + room)], offset)
                raise OSError(errno.ENOSPC, "no space left on device")
        self._put(file, data, offset)

    def _put(self, file: _File, data: bytes, offset: int) -> None:
        if not data:
            return
        self._counter += 1
        mark = self._counter if self._thread_mark is None else self._thread_mark
        end = offset + len(data)
        if end > len(file.data):
            file.data.extend(bytes(end - len(file.data)))
            file.grown = mark
        file.data[offset:end] = data
        sectors = range(offset // SECTOR, (end - 1) // SECTOR + 1)
        file.dirty.update(dict.fromkeys(sectors, mark))
        file.lost.difference_update(sectors)

    def sync(self, file: _File) -> None:
        self._change()
        self._maybe_fail_sync(file)
        covered = self._covered(file)
        file.copy_sectors(covered, file.data, file.disk)
        if file.grown and self._in_time(file.grown):
            file.disk.extend(file.data[len(file.disk) :])
            file.grown = 0
        for sector in covered:
            del file.dirty[sector]

    def _in_time(self, mark: int) -> bool:
        return self._thread_mark is None or mark <= self._thread_mark

    def _covered(self, file: _File) -> list[int]:
        """The sectors that a sync that began now, or with this blocking call, is about."""
        return [sector for sector, mark in file.dirty.items() if self._in_time(mark)]

    def replace(self, path: str, data: bytes) -> None:
        """Write a temporary file, sync it, rename it. What fails leaves the temporary behind."""
        self._need_directory(_parent(path))
        temporary = self._files[path + ".tmp"] = _File()
        self.write(temporary, data, 0)
        self._maybe_fail_sync(temporary)
        temporary.settle()
        self._change()
        old = self._files.get(path)
        self._release(0 if old is None else len(old.data))
        self._files[path] = self._files.pop(path + ".tmp")
        self._settle_directory(_parent(path))

    def delete(self, path: str) -> None:
        self._change()
        file = self._files.pop(path, None)
        if file is not None:
            self._deleted[path] = file
            self._release(len(file.data))

    def make_directory(self, path: str) -> None:
        while path not in self._directories:
            self._directories[path] = None
            path = _parent(path)

    def list(self, directory: str) -> list[str]:
        self._need_directory(directory)
        prefix = directory.rstrip("/") + "/"
        paths = [*self._files, *self._directories]
        names = {path[len(prefix) :] for path in paths if path.startswith(prefix)}
        return sorted(name for name in names if name and "/" not in name)

    def lock(self, path: str, process: Process) -> Callable[[], None]:
        holder = self._locks.get(path)
        if holder is not None and holder.alive:
            raise BlockingIOError(errno.EAGAIN, "held by another process", path)
        self._entry(path)
        self._locks[path] = process

        def release() -> None:
            if self._locks.get(path) is process:
                del self._locks[path]

        return release

    def _release(self, size: int) -> None:
        """So much space is free again."""
        if self.free_bytes is not None:
            self.free_bytes += size

    def _need_directory(self, path: str) -> None:
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)

    def _settle_directory(self, directory: str) -> None:
        for path in [path for path in self._deleted if _parent(path) == directory]:
            del self._deleted[path]

    def _maybe_fail_sync(self, file: _File) -> None:
        if self.fail_syncs <= 0:
            return
        self.fail_syncs -= 1
        covered = self._covered(file)
        file.lost.update(covered)
        for sector in covered:
            del file.dirty[sector]
        if self.random.random() < 0.5:
            # The pages are dropped from the cache: a reader finds what the disk has.
            before = bytearray(file.disk)
            before.extend(bytes(max(0, len(file.data) - len(before))))
            file.copy_sectors(covered, before, file.data)
        raise OSError(errno.EIO, "input/output error")

    def _change(self) -> None:
        if self._fuse == 0:
            raise _CutOffError
        self._fuse -= self._fuse > 0

    # -- blocking calls off the loop -------------------------------------------------------------

    def mark(self) -> int:
        """The present moment, for ``run``."""
        return self._counter

    def run(self, mark: int, function: Callable[[], Any]) -> Any:
        """Run a blocking call that began at ``mark``: its syncs cover what was written by then,
        and what it writes itself."""
        self._thread_mark = mark
        try:
            return function()
        finally:
            self._thread_mark = None

    @property
    def in_blocking_call(self) -> bool:
        """Whether a call runs off the loop now: it has its effects even if its process is dead."""
        return self._thread_mark is not None

    def cut_off(self, mark: int, function: Callable[[], Any]) -> None:
        """Run a blocking call that the crash overtakes: all of it, none, or its first changes."""
        self._fuse = 1 if self.tear_next else self.random.choice((-1, 0, 0, 1, 2, 3))
        try:
            self.run(mark, function)
        except (_CutOffError, Exception):  # its process is dead: nobody hears of its errors
            pass
        finally:
            self._fuse = -1

    # -- faults ----------------------------------------------------------------------------------

    def power_failure(self) -> None:
        """Lose what is not durable: any of it survives, and recent deletions may be undone."""
        for path, file in list(self._deleted.items()):
            if path not in self._files and self.random.random() < 0.5:
                self._files[path] = file
        self._deleted.clear()
        for file in self._files.values():
            if file.dirty or file.lost or file.grown:
                self._lose(file)
            file.settle()
        self.tear_next = False

    def _lose(self, file: _File) -> None:
        draw, new, old = self.random, file.data, file.disk
        unsure = sorted(file.dirty.keys() | file.lost)
        how = draw.choice(("none", "all", "first", "some"))
        kept = {
            "none": [],
            "all": unsure,
            "first": unsure[: draw.randint(0, len(unsure))],
            "some": [sector for sector in unsure if draw.random() < 0.5],
        }[how]
        size = len(new)
        if size > len(old):
            size = draw.choice((len(old), size, draw.randint(len(old), size)))
        after = old + bytes(max(0, len(new) - len(old)))
        if len(new) < len(old):
            del after[len(new) :]
        file.copy_sectors(kept, new, after)
        if unsure and draw.random() < 0.2:
            # The drive was cut off in the middle of a sector.
            start = draw.choice(unsure) * SECTOR
            for at in range(start, min(start + SECTOR, len(new))):
                if at >= len(old) or new[at] != old[at]:
                    after[at] = draw.getrandbits(8)
        if unsure and self.tear_next:
            self._tear(draw.choice(unsure) * SECTOR, new, old, after)
        file.data = after[:size]

    def _tear(self, start: int, new: bytearray, old: bytearray, after: bytearray) -> None:
        """Of one sector the first bytes are as they were to be, the others as they were."""
        end = min(start + SECTOR, len(new))
        differ = [at for at in range(start, end) if at >= len(old) or new[at] != old[at]]
        if len(differ) > 1:
            cut = self.random.choice(differ[1:])
            after[start:cut] = new[start:cut]
            after[cut:end] = old[cut:end].ljust(end - cut, b"\0")

    def contents(self) -> dict[str, bytes]:
        """Every file, by path."""
        return {path: bytes(file.data) for path, file in sorted(self._files.items())}

    def flip(self, path: str, at: int, bit: int) -> None:
        """Let one bit of a file rot."""
        file = self.file(path)
        file.data[at] ^= 1 << bit
        if at < len(file.disk):
            file.disk[at] ^= 1 << bit

    def wipe(self) -> None:
        """An empty disk, as after a replacement of the machine."""
        self._files.clear()
        self._deleted.clear()
        self._directories = {"/": None}


def _parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] or "/"


class SimFile:
    """``raftcache.runtime.DataFile`` of one process."""

    def __init__(self, disk: SimDisk, process: Process, file: _File) -> None:
        self._disk = disk
        self._process = process
        self._file = file
        self._open = True

    def write(self, data: bytes, offset: int) -> None:
        if self._usable():
            self._disk.write(self._file, bytes(data), offset)

    def sync(self) -> None:
        if self._usable():
            self._disk.sync(self._file)

    def close(self) -> None:
        self._open = False

    def _usable(self) -> bool:
        if not self._open:
            raise OSError(errno.EBADF, "bad file descriptor")
        return self._process.alive or self._disk.in_blocking_call


class DiskView:
    """``raftcache.runtime.Disk`` of one process."""

    def __init__(self, disk: SimDisk, process: Process) -> None:
        self._disk = disk
        self._process = process

    def make_directory(self, path: str) -> None:
        if self._usable():
            self._disk.make_directory(path)

    def list(self, directory: str) -> list[str]:
        return self._disk.list(directory)

    def read(self, path: str) -> bytes:
        return bytes(self._disk.file(path).data)

    def open(self, path: str) -> SimFile:
        return SimFile(self._disk, self._process, self._disk.file(path))

    def create(self, path: str) -> SimFile:
        file = self._disk.create(path) if self._usable() else _File()
        return SimFile(self._disk, self._process, file)

    def allocate(self, path: str, size: int) -> SimFile:
        file = self._disk.allocate(path, size) if self._usable() else _File()
        return SimFile(self._disk, self._process, file)

    def replace(self, path: str, data: bytes) -> None:
        if self._usable():
            self._disk.replace(path, bytes(data))

    def delete(self, path: str) -> None:
        if self._usable():
            self._disk.delete(path)

    def lock(self, path: str) -> Callable[[], None]:
        return self._disk.lock(path, self._process)

    def _usable(self) -> bool:
        return self._process.alive or self._disk.in_blocking_call
