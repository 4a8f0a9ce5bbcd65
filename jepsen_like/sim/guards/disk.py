"""The log on disk and whose it is: what PySyncObj's journal does instead."""

from __future__ import annotations

from typing import Any, Final

from jepsen_like.sim.guards.catalogue import Guard
from raftcache.raft import blocks, replay
from raftcache.raft.durable import DurableJournal
from raftcache.raft.journal import Journal
from raftcache.raft.storage import DataDirectory

_compact = DurableJournal.compact


def _discard_the_log(self: DurableJournal, active: bool) -> None:
    if not active:
        self.stored = None


def _old_first(self: DurableJournal, snapshot_index: int) -> None:
    """Delete what the snapshot replaces before the log says that it does."""
    for name in self._disk.list(self._directory):
        if name.startswith("journal-"):
            self._disk.delete(f"{self._directory}/{name}")
    _compact(self, snapshot_index)


def _nothing(*_arguments: Any) -> None:
    pass


GUARDS: Final = (
    Guard(
        "journal-checksums",
        ("S4h",),
        (5,),
        "a flipped bit or a torn write in the journal becomes a write that nobody made",
        ((blocks, "_crc", lambda segment, at, number, payload: 0),),
    ),
    Guard(
        "corruption-refusal",
        ("S4h",),
        (5,),
        "a node whose journal is damaged in the middle starts without what it had acknowledged",
        ((replay, "good_block_after", lambda data, start, segment, number: False),),
    ),
    Guard(
        "meta-durability",
        ("S4a",),
        (3, 5),
        "a node forgets its vote at a restart and votes again in the same term: two leaders",
        ((DurableJournal, "setCurrentTerm", Journal.setCurrentTerm),),
    ),
    Guard(
        "commit-clamp",
        ("S4b",),
        (4,),
        "a leader whose commit index exceeds its log acknowledges without replicating",
        ((Journal, "getRaftCommitIndex", lambda self: self._commit),),
    ),
    Guard(
        "snapshot-keeps-log",
        ("S4c",),
        (4, 5),
        "a restart with a snapshot forgets the entries that follow it",
        ((DurableJournal, "restoring", _discard_the_log),),
    ),
    Guard(
        "compaction-order",
        ("S4d",),
        (4, 5),
        "a process that dies while its log is compacted has lost the log",
        ((DurableJournal, "compact", _old_first),),
    ),
    Guard(
        "recovery-mark",
        ("S3",),
        (5, 6),
        "a node that died while it recovered takes the part that it has for the whole",
        ((DurableJournal, "_incomplete", lambda self, names: False),),
    ),
    Guard(
        "data-directory",
        ("S4h",),
        (5,),
        "a node starts with the log of another, and acknowledged writes are in one log less",
        ((DataDirectory, "_claim", _nothing),),
    ),
)
