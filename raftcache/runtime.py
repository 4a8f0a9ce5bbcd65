"""Effects: time, randomness, tasks, network and disk reach the code through here, and nowhere else.

Production uses ``AsyncioRuntime``; the simulator (``jepsen_like/sim``) implements the same
protocols with virtual time, a simulated network and a simulated disk, so that a whole cluster runs
from one seed. No other module calls ``time``, ``random``, ``open`` or ``asyncio``'s own network
functions.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol

from raftcache.threads import Threads


class Cancellable(Protocol):
    """A scheduled call."""

    def cancel(self) -> object: ...


class Listener(Protocol):
    """A listening socket. ``port`` is the real one when 0 was asked for."""

    @property
    def port(self) -> int: ...

    def close(self) -> None: ...


class DataFile(Protocol):
    """An open file. Data is durable after ``sync`` (fdatasync), not before."""

    def write(self, data: bytes, offset: int) -> None: ...

    def sync(self) -> None: ...

    def close(self) -> None: ...


class Disk(Protocol):
    """The few file operations that the journal and snapshots need. Paths are absolute strings;
    errors are ``OSError``. ``create``, ``allocate`` and ``replace`` make directory entries that are
    durable on return; ``delete`` is durable only after the next of those in the directory."""

    def make_directory(self, path: str) -> None: ...

    def list(self, directory: str) -> list[str]: ...

    def read(self, path: str) -> bytes: ...

    def open(self, path: str) -> DataFile:
        """A file that exists."""
        ...

    def create(self, path: str) -> DataFile:
        """A new and empty file, whatever there was."""
        ...

    def allocate(self, path: str, size: int) -> DataFile:
        """A file of ``size`` zeros, durably, whatever there was: writing inside needs no more space
        and changes no size. When that fails there is no file that was not there before."""
        ...

    def replace(self, path: str, data: bytes) -> None:
        """Atomically the whole content of a file, durable on return."""
        ...

    def delete(self, path: str) -> None: ...

    def lock(self, path: str) -> Callable[[], None]:
        """Hold ``path`` exclusively until the returned function is called or the process ends;
        ``BlockingIOError`` when another process holds it."""
        ...


class Runtime(Protocol):
    """All effects of one node. ``now`` is monotonic and in seconds, ``wall`` is Unix time in
    seconds."""

    @property
    def random(self) -> random.Random: ...

    @property
    def disk(self) -> Disk: ...

    def now(self) -> float: ...

    def wall(self) -> float: ...

    def call_soon(self, function: Callable[..., object], *args: Any) -> Cancellable: ...

    def call_later(
        self, delay: float, function: Callable[..., object], *args: Any
    ) -> Cancellable: ...

    def future(self) -> asyncio.Future[Any]: ...

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Cancellable: ...

    def in_thread(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Run a blocking call (fdatasync) off the loop."""
        ...

    async def connect(
        self, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        """Open a stream connection; ``OSError`` when it cannot be opened."""
        ...

    async def listen(
        self, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> Listener: ...


class _Server:
    """``Listener`` over an asyncio server."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server

    @property
    def port(self) -> int:
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        self._server.close()


_ZEROS: Final = bytes(1024 * 1024)


class _File:
    """``DataFile`` over a file descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._descriptor, view, offset)
            view, offset = view[count:], offset + count

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class RealDisk:
    """``Disk`` over the operating system."""

    def make_directory(self, path: str) -> None:
        missing = [p for p in (Path(path), *Path(path).parents) if not p.exists()]
        Path(path).mkdir(parents=True, exist_ok=True)
        for directory in missing:
            # A directory entry, too, is lost with the power unless its parent is synced.
            _sync_directory(str(directory.parent))

    def list(self, directory: str) -> list[str]:
        return sorted(os.listdir(directory))

    def read(self, path: str) -> bytes:
        return Path(path).read_bytes()

    def open(self, path: str) -> DataFile:
        return _File(os.open(path, os.O_WRONLY))

    def create(self, path: str) -> DataFile:
        self.delete(path)
        file = _File(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        _sync_directory(os.path.dirname(path))
        return file

    def allocate(self, path: str, size: int) -> DataFile:
        new = not os.path.exists(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            # First all of the space or an error; then zeros, since an fdatasync that turns
            # unwritten extents into written ones costs as much as one that appends.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, size)
            os.ftruncate(descriptor, size)
            file = _File(descriptor)
            for at in range(0, size, len(_ZEROS)):
                file.write(_ZEROS[: size - at], at)
            os.fsync(descriptor)
            _sync_directory(os.path.dirname(path))
        except OSError:
            os.close(descriptor)
            if new:
                self.delete(path)
            raise
        return file

    def replace(self, path: str, data: bytes) -> None:
        temporary = path + ".tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            os.unlink(temporary)
            raise
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
        _sync_directory(os.path.dirname(path))

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def lock(self, path: str) -> Callable[[], None]:
        import fcntl

        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return lambda: os.close(descriptor)


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class AsyncioRuntime:
    """The real thing, on the running event loop (uvloop or asyncio)."""

    def __init__(self, seed: int | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._random = random.Random(seed)
        self._disk = RealDisk()
        self._threads = Threads(self._loop)
        self._tasks: set[asyncio.Task[None]] = set()
        self.call_soon = self._loop.call_soon
        self.call_later = self._loop.call_later
        self.future = self._loop.create_future
        self.now = time.monotonic

    @property
    def random(self) -> random.Random:
        return self._random

    @property
    def disk(self) -> Disk:
        return self._disk

    def wall(self) -> float:
        return time.time()

    def spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> Cancellable:
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def in_thread(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        return self._threads.run(function)

    def close(self) -> None:
        """No blocking call comes any more."""
        self._threads.close()

    async def connect(
        self, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        transport, _ = await self._loop.create_connection(factory, host, port)
        return transport

    async def listen(
        self, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> Listener:
        return _Server(await self._loop.create_server(factory, host, port))
