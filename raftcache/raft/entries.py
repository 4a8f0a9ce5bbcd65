"""What a log consists of, and what stands for the part of it that a snapshot covers."""

from __future__ import annotations

import msgspec

Entry = tuple[bytes, int, int]
"""(command, index, term), as PySyncObj has it."""


class SnapshotHeader(msgspec.Struct, array_like=True, frozen=True):
    """The log position that a snapshot stands for: its last entry, and the term of the one
    before."""

    index: int
    term: int
    previous_term: int
    command: bytes

    @property
    def last(self) -> Entry:
        """The last entry covered."""
        return (self.command, self.index, self.term)

    @property
    def previous(self) -> Entry:
        """The one before. Its command is never sent to anybody: it is the first entry kept."""
        return (b"\x01", self.index - 1, self.previous_term)


class StoredSnapshot(msgspec.Struct, frozen=True):
    """A snapshot found on disk."""

    header: SnapshotHeader
    state: bytes
