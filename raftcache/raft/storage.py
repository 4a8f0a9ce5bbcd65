"""A node's data directory: whose it is, and that only one process uses it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from raftcache.raft.durable import DurableJournal
from raftcache.runtime import Runtime


class StorageError(Exception):
    """The data directory cannot be used; the message says why and what to do."""


class Identity(msgspec.Struct):
    """What the directory was made for. A journal means nothing to any other node."""

    format: int
    cluster: str
    node: str
    topology: str


class DataDirectory:
    """An open data directory. Released by ``close`` or by the end of the process."""

    def __init__(self, runtime: Runtime, path: str, identity: Identity) -> None:
        """``StorageError`` when it is in use, is another node's, or cannot be read or written."""
        self._runtime = runtime
        self._path = path
        disk = runtime.disk
        try:
            disk.make_directory(path)
            self._release: Callable[[], None] = disk.lock(f"{path}/lock")
        except BlockingIOError:
            raise StorageError(f"{path}: another process is using this data directory") from None
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror or error}") from error
        try:
            self._claim(identity)
        except OSError as error:
            self._release()
            raise StorageError(f"{path}: {error.strerror or error}") from error
        except StorageError:
            self._release()
            raise

    def _claim(self, identity: Identity) -> None:
        name = f"{self._path}/identity.json"
        if "identity.json" not in self._runtime.disk.list(self._path):
            self._runtime.disk.replace(name, msgspec.json.encode(identity))
            return
        try:
            found = msgspec.json.decode(self._runtime.disk.read(name), type=Identity)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise StorageError(f"{name}: unreadable: {error}") from None
        for field in ("format", "cluster", "node", "topology"):
            there, here = getattr(found, field), getattr(identity, field)
            if there != here:
                raise StorageError(
                    f"{self._path}: this data directory belongs to {field} {there!r}, not {here!r};"
                    " use another data_dir or correct the settings"
                )

    def journal(self, group: int) -> DurableJournal:
        """The journal of one group, recovered. ``CorruptJournalError``, ``OSError``."""
        return DurableJournal.open(self._runtime, f"{self._path}/group-{group:04d}")

    def close(self) -> None:
        """Let another process use it."""
        self._release()
