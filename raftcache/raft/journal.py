"""The log of one group, as PySyncObj's Journal: entries, term, vote and commit index.

``Journal`` keeps all of it in memory and calls everything durable at once: right for a memory-only
cluster, and the base of the durable one (``DurableJournal``). The journal drops its own prefix
(``trim``) once the state machine has applied it: PySyncObj always asks for the first index anew,
so its own compaction is never used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from raftcache.raft.entries import Entry, SnapshotHeader, StoredSnapshot


class Journal:
    """A log in memory. Indexes are Raft's; those that PySyncObj uses are positions from
    ``first_index``."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._term = 0
        self._vote: str | None = None
        self._commit = 1
        self.bytes = 0
        """Commands held in memory."""
        self.last_index = 0
        self.durable_index = 0
        """Every entry up to here survives a crash with this content."""
        self.meta_durable = True
        """Whether the current term and vote survive a crash."""
        self.blank = True
        """Nothing was found to start from: this replica's earlier promises, if any, are
        forgotten."""
        self.backlog = 0
        """Commands added and not yet on disk, in bytes."""
        self.stored: StoredSnapshot | None = None
        """The state to start from, until ``restoring`` is over."""
        self.on_durable: Callable[[], None] = lambda: None
        """Called after ``durable_index`` or ``meta_durable`` advanced."""
        self.on_append: Callable[[bytes, int, int], None] = lambda command, index, term: None
        """Called with every entry that is added."""
        self.on_truncate: Callable[[int], None] = lambda index: None
        """Called with the index of the first entry that is removed from the end."""

    # -- what PySyncObj calls

    def add(self, command: bytes, idx: int, term: int) -> None:
        self._entries.append((command, idx, term))
        self.bytes += len(command)
        self.last_index = self.durable_index = idx
        self.on_append(command, idx, term)

    def clear(self) -> None:
        self._entries = []
        self.bytes = 0
        self.last_index = self.durable_index = 0

    def deleteEntriesFrom(self, entryFrom: int) -> None:  # noqa: N802, N803
        if entryFrom < len(self._entries):
            self.on_truncate(self._entries[entryFrom][1])
        for entry in self._entries[entryFrom:]:
            self.bytes -= len(entry[0])
        del self._entries[entryFrom:]
        self.last_index = self._entries[-1][1] if self._entries else 0
        self.durable_index = min(self.durable_index, self.last_index)

    def deleteEntriesTo(self, entryTo: int) -> None:  # noqa: N802, N803
        for entry in self._entries[:entryTo]:
            self.bytes -= len(entry[0])
        del self._entries[:entryTo]

    def __getitem__(self, item: Any) -> Any:
        return self._entries[item]

    def __len__(self) -> int:
        return len(self._entries)

    def _destroy(self) -> None:
        pass

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:  # noqa: N802, N803
        self._commit = raftCommitIndex

    def getRaftCommitIndex(self) -> int:  # noqa: N802
        # A commit index beyond the log would make a leader acknowledge without replicating.
        return min(self._commit, self.last_index) if self._entries else 1

    def setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None:  # noqa: N802, N803
        self._term, self._vote = term, votedForNodeId

    def getCurrentTerm(self) -> int:  # noqa: N802
        return self._term

    def getVotedForNodeId(self) -> str | None:  # noqa: N802
        return self._vote

    def onOneSecondTimer(self) -> None:  # noqa: N802
        pass

    # -- ours

    @property
    def first_index(self) -> int:
        """Index of the oldest entry kept; it and everything before it is committed and applied."""
        return self._entries[0][1]

    def at(self, index: int) -> Entry | None:
        """The entry at ``index``, ``None`` when it is not kept."""
        position = index - self._entries[0][1]
        return self._entries[position] if 0 <= position < len(self._entries) else None

    def after(self, index: int) -> list[Entry]:
        """All entries behind the one at ``index``, which is kept."""
        return self._entries[index + 1 - self._entries[0][1] :]

    def term_at(self, index: int) -> int | None:
        """The term of the entry at ``index``, ``None`` when it is not kept."""
        entry = self.at(index)
        return None if entry is None else entry[2]

    @property
    def last_term(self) -> int:
        """The term of the last entry."""
        return self._entries[-1][2]

    def trim(self, applied: int, keep_bytes: int, pinned: int | None) -> None:
        """Drop the oldest entries until at most ``keep_bytes`` of commands are kept, but none at or
        after ``pinned`` - 1 (a snapshot on its way ends there), nor the last two up to
        ``applied``."""
        limit = applied - 1 if pinned is None else min(applied, pinned) - 1
        excess, count = self.bytes - keep_bytes, 0
        while excess > 0 and self._entries[count][1] < limit:
            excess -= len(self._entries[count][0])
            count += 1
        if count:
            self.deleteEntriesTo(count)

    # -- the disk, which a log in memory has none of

    @property
    def has_room(self) -> bool:
        """Whether what is added will be durable soon: the disk is neither full nor failing."""
        return True

    @property
    def snapshot_due(self) -> bool:
        """Whether the log has grown enough to be replaced by a snapshot."""
        return False

    async def store(self, header: SnapshotHeader, chunks: Iterable[bytes]) -> bool:
        """Make a snapshot durable; False when that failed."""
        return True

    def restoring(self, active: bool) -> None:
        """While the engine installs the stored snapshot."""

    def installing(self, active: bool) -> None:
        """While the engine replaces the log by a stored snapshot of the leader's."""

    def compact(self, snapshot_index: int) -> None:
        """The snapshot stored last replaces the log up to its index."""

    def end_recovery(self) -> bool:
        """What is here from now on is all that the group relies on. False: it cannot be said
        yet."""
        return True

    def close(self) -> None:
        """Nothing is written afterwards."""
