"""Appends, acknowledgements, durability, snapshots: what PySyncObj does instead."""

from __future__ import annotations

from typing import Any, Final

from jepsen_like.sim.guards.catalogue import Guard
from raftcache.raft import wire
from raftcache.raft.election import Election
from raftcache.raft.group import RaftGroup
from raftcache.raft.snapshots import Snapshots, _Incoming
from raftcache.raft.transport import GroupTransport

FLOOD: Final = 1000
"""So often a snapshot is announced in one tick without its guard; PySyncObj would go on for 50 ms
of a clock that stands still here."""


def _count_any_ack(self: GroupTransport, node: str, message: wire.AppendReply) -> None:
    if not self.engine.is_leader:
        return
    if message.success:
        self._count_ack(node, self.engine.term, message.next_index)
        return
    if message.reset:
        self._sent.pop(node, None)
        self._sent_commit.pop(node, None)
    self._up_reply(node, message.next_index, success=False, reset=message.reset)


def _take_as_it_comes(self: GroupTransport, node: str, message: wire.Append) -> None:
    self._up_append(node, message, message.prev_index, message.prev_term, message.entries)


def _back_by_one(self: GroupTransport, node: str, message: wire.Append) -> None:
    self._check_uncommitted(message.prev_index)
    self._refuse(node, message.term, message.prev_index)


def _answer_the_last(self: GroupTransport, term: int, default: int) -> int:
    return default


def _move_commit(self: RaftGroup, node: str, message: wire.SnapshotChunk) -> None:
    if message.term >= self.engine.term:
        self._election.heard_leader()
        self._transport.contact(node, message.term, message.index)
        self.snapshots.on_chunk(node, message)


def _acknowledge_failure(self: Snapshots, incoming: _Incoming) -> None:
    self._incoming = None
    term, last = self._engine.term, self._journal.last_index
    self._transport._acknowledge(incoming.leader, term, last + 1)
    self._reply(incoming.leader, incoming.first, 0, done=True)


def _flood(self: GroupTransport, node: str) -> None:
    count = self.__dict__.setdefault("flood", {})
    at = self._runtime.now()
    when, so_many = count.get(node, (at, 0))
    count[node] = (at, so_many + 1 if when == at else 1)
    if count[node][1] >= FLOOD:
        self.bar(node, "snapshot")


def _everything(self: GroupTransport, node: str, term: int, next_index: int) -> int:
    return next_index


def _nothing(*_arguments: Any) -> None:
    pass


def _send_at_once(self: GroupTransport, node: str, message: wire.Message) -> None:
    self._send(node, message)


GUARDS: Final = (
    Guard(
        "ack-terms",
        ("S1",),
        (1,),
        "an acknowledgement given in an earlier term commits what a minority holds",
        ((GroupTransport, "on_append_reply", _count_any_ack),),
    ),
    Guard(
        "held-terms",
        ("S1", "S4g"),
        (1, 4),
        "an acknowledgement that waited for the disk is given in a later term, of another log",
        ((GroupTransport, "_still_means", lambda self, held_term: True),),
    ),
    Guard(
        "matching-prefix",
        ("S2",),
        (2,),
        "a late append removes acknowledged entries that match",
        ((GroupTransport, "_match", _take_as_it_comes),),
    ),
    Guard(
        "committed-entries",
        ("S2",),
        (2,),
        "a peer that breaks the protocol replaces a committed entry",
        ((GroupTransport, "_check_uncommitted", _nothing),),
    ),
    Guard(
        "no-send-twice",
        ("S2",),
        (2,),
        "entries on their way are sent again with the heartbeat after an acknowledgement",
        ((GroupTransport, "_on_its_way", lambda self, node, term, previous: 0),),
    ),
    Guard(
        "conflict-answer",
        ("S20", "S21"),
        (2,),
        "a divergent follower backs up one entry per round trip, or never catches up",
        (
            (GroupTransport, "_on_conflict", _back_by_one),
            (GroupTransport, "_resume_index", _answer_the_last),
        ),
    ),
    Guard(
        "term-notice",
        ("S6",),
        (7,),
        "a node in a higher term than its leader's is stuck: neither ever hears of it",
        ((Election, "on_term_notice", _nothing),),
    ),
    Guard(
        "ack-durability",
        ("S4g",),
        (4,),
        "a power failure at a follower undoes what it acknowledged",
        ((GroupTransport, "_durable_part", _everything),),
    ),
    Guard(
        "leader-durability",
        ("S4g",),
        (4,),
        "a power failure at the leader undoes what it counted itself for",
        ((GroupTransport, "_durable_here", _everything),),
    ),
    Guard(
        "vote-durability",
        ("S4a", "S4g"),
        (3, 4),
        "a voter that loses power votes again in the same term: two leaders",
        ((GroupTransport, "_send_durable", _send_at_once),),
    ),
    Guard(
        "snapshot-commit",
        ("S7",),
        (2,),
        "the first part of a snapshot commits a deposed leader's own tail",
        ((RaftGroup, "_on_snapshot_chunk", _move_commit),),
    ),
    Guard(
        "snapshot-failure",
        ("S8",),
        (1, 2),
        "a snapshot that could not be installed counts as a match",
        ((Snapshots, "_give_up", _acknowledge_failure),),
    ),
    Guard(
        "snapshot-regress",
        ("S9",),
        (2,),
        "a late snapshot puts older state over newer",
        ((Snapshots, "_known", lambda self, message: False),),
    ),
    Guard(
        "snapshot-flood",
        ("S15",),
        (),
        "a follower far behind is told so without end, in one tick",
        ((GroupTransport, "_stop_feeding", _flood),),
    ),
)
