"""The files of one node: what a crash keeps, what it tears, what it loses.

``SimDisk`` outlives the node's processes; each process works on it through a ``DiskView``
(``raftcache.runtime.Disk``), which does nothing once its process is dead. The model is a Linux file
system with a page cache, seen through the calls of ``raftcache.runtime.RealDisk``:

- Appended data is readable at once, and durable after ``sync``. A killed process loses none of it;
  a power failure keeps a prefix of the un-synced tail, drawn from the seed, whose last sector may
  read as zeros or as noise.
- ``sync`` off the loop covers what was written before it began, not what came in meanwhile.
- After a failed ``sync`` the pages count as clean: a later successful ``sync`` covers nothing of
  the file ("fsyncgate"), until it is truncated or replaced.
- ``replace`` and the creation of a file are atomic and durable on return, ``truncate`` too.
  ``delete`` is durable only after the next creation or replacement in the directory: until then a
  power failure may bring the file back.
- ``make_directory`` is durable at once (simpler than life).
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from jepsen_like.sim.scheduler import Process

SECTOR: Final = 512


class _CutOffError(BaseException):
    """The machine went down in the middle of a blocking call."""


@dataclass(slots=True)
class _File:
    """``data`` is what a reader sees, ``data[:synced]`` what a power failure keeps for sure.
    ``marks`` are (disk's write counter, length after that write) of un-synced writes."""

    data: bytearray = field(default_factory=bytearray)
    synced: int = 0
    marks: list[tuple[int, int]] = field(default_factory=list)
    poisoned: bool = False

    def settle(self) -> None:
        """All of it is durable."""
        self.synced = len(self.data)
        self.marks.clear()
        self.poisoned = False


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

    def create(self, path: str) -> _File:
        """The file at ``path``, made when it does not exist."""
        found = self._files.get(path)
        if found is None:
            self._need_directory(_parent(path))
            self._change()
            found = self._files[path] = _File()
            self._settle_directory(_parent(path))
        return found

    def write(self, file: _File, data: bytes) -> None:
        self._change()
        if self.fail_writes > 0:
            self.fail_writes -= 1
            raise OSError(errno.EIO, "input/output error")
        if self.free_bytes is not None:
            room = max(0, self.free_bytes)
            self.free_bytes = max(0, room - len(data))
            if len(data) > room:  # a short write first, as the system call does
                self._append(file, data[:room])
                raise OSError(errno.ENOSPC, "no space left on device")
        self._append(file, data)

    def _append(self, file: _File, data: bytes) -> None:
        file.data += data
        self._counter += 1
        mark = self._counter if self._thread_mark is None else self._thread_mark
        file.marks.append((mark, len(file.data)))

    def sync(self, file: _File) -> None:
        self._change()
        self._maybe_fail_sync(file)
        if file.poisoned:
            return
        if self._thread_mark is None:
            file.settle()
            return
        later = [entry for entry in file.marks if entry[0] > self._thread_mark]
        file.synced = max(
            [file.synced] + [end for mark, end in file.marks if mark <= self._thread_mark]
        )
        file.marks = later

    def truncate(self, path: str, size: int) -> None:
        file = self.file(path)
        self._change()
        if size <= len(file.data):
            if self.free_bytes is not None:
                self.free_bytes += len(file.data) - size
            del file.data[size:]
        else:
            file.data += bytes(size - len(file.data))
        self._maybe_fail_sync(file)
        file.settle()

    def replace(self, path: str, data: bytes) -> None:
        """Write a temporary file, sync it, rename it. What fails leaves the temporary behind."""
        self._need_directory(_parent(path))
        temporary = self._files[path + ".tmp"] = _File()
        self.write(temporary, data)
        self._maybe_fail_sync(temporary)
        temporary.settle()
        self._change()
        self._release(self._files.get(path))
        self._files[path] = self._files.pop(path + ".tmp")
        self._settle_directory(_parent(path))

    def delete(self, path: str) -> None:
        self._change()
        file = self._files.pop(path, None)
        if file is not None:
            self._deleted[path] = file
            self._release(file)

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
        self.create(path)
        self._locks[path] = process

        def release() -> None:
            if self._locks.get(path) is process:
                del self._locks[path]

        return release

    def _release(self, file: _File | None) -> None:
        """The space of ``file`` is free again."""
        if file is not None and self.free_bytes is not None:
            self.free_bytes += len(file.data)

    def _need_directory(self, path: str) -> None:
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)

    def _settle_directory(self, directory: str) -> None:
        for path in [path for path in self._deleted if _parent(path) == directory]:
            del self._deleted[path]

    def _maybe_fail_sync(self, file: _File) -> None:
        if self.fail_syncs > 0:
            self.fail_syncs -= 1
            file.poisoned = True
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
        """Lose what is not durable: of each file a prefix of the un-synced tail survives, and
        recent deletions may be undone."""
        for path, file in list(self._deleted.items()):
            if path not in self._files and self.random.random() < 0.5:
                self._files[path] = file
        self._deleted.clear()
        for file in self._files.values():
            tail = len(file.data) - file.synced
            if tail > 0:
                kept = self.random.choice((0, tail, self.random.randint(0, tail)))
                if self.tear_next:
                    kept = self.random.randint(0, tail)
                del file.data[file.synced + kept :]
                self._tear(file, kept)
            file.settle()
        self.tear_next = False

    def _tear(self, file: _File, kept: int) -> None:
        """The size may be on disk before the data: the last sector reads as zeros or noise."""
        draw = self.random.random()
        size = min(kept, self.random.randint(1, SECTOR))
        if size and draw < 0.3:
            file.data[-size:] = bytes(size) if draw < 0.2 else self.random.randbytes(size)

    def contents(self) -> dict[str, bytes]:
        """Every file, by path."""
        return {path: bytes(file.data) for path, file in sorted(self._files.items())}

    def flip(self, path: str, at: int, bit: int) -> None:
        """Let one bit of a file rot."""
        self.file(path).data[at] ^= 1 << bit

    def wipe(self) -> None:
        """An empty disk, as after a replacement of the machine."""
        self._files.clear()
        self._deleted.clear()
        self._directories = {"/": None}


def _parent(path: str) -> str:
    return path.rstrip("/").rpartition("/")[0] or "/"


class SimAppendFile:
    """``raftcache.runtime.AppendFile`` of one process."""

    def __init__(self, disk: SimDisk, process: Process, file: _File) -> None:
        self._disk = disk
        self._process = process
        self._file = file
        self._open = True

    def write(self, data: bytes) -> None:
        if self._usable():
            self._disk.write(self._file, bytes(data))

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

    def append(self, path: str) -> SimAppendFile:
        file = self._disk.create(path) if self._usable() else _File()
        return SimAppendFile(self._disk, self._process, file)

    def truncate(self, path: str, size: int) -> None:
        if self._usable():
            self._disk.truncate(path, size)

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
