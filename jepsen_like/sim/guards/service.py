"""Reads, leases and the outcomes of proposals: what PySyncObj does instead, or plain Raft."""

from __future__ import annotations

from typing import Any, Final

from jepsen_like.sim.guards.catalogue import Guard
from raftcache.gathering import Joint
from raftcache.joint_reads import JointReads
from raftcache.raft import wire
from raftcache.raft.clock import GroupClock
from raftcache.raft.election import Election
from raftcache.raft.follower_reads import FollowerReads
from raftcache.raft.group import Outcome, RaftGroup
from raftcache.raft.reads import Confirmed, Reads

_on_answer = JointReads._on_answer
_tell_change = RaftGroup._tell_change


def _ask_nobody(self: Reads, confirmed: Confirmed) -> None:
    confirmed(True)


def _join_the_last_round(self: Reads, confirmed: Confirmed) -> None:
    (self._rounds[-1].waiting if self._rounds else self._waiting).append(confirmed)


def _answer_at_once(self: FollowerReads, node: str, message: wire.ReadIndex) -> None:
    index = self._applied() if self._engine.is_leader else 0
    self._announce_commit_to(node)
    self._send(node, wire.ReadIndexReply(self._group, message.id, index))


def _the_first_answer_will_do(self: JointReads, joint: Joint, ok: bool) -> None:
    joint.left = 1
    _on_answer(self, joint, ok)


def _whatever_is_there(self: RaftGroup, index: int, term: int) -> Any:
    return self._appended.pop(index, None)


def _fail_when_deposed(self: RaftGroup) -> None:
    _tell_change(self)
    if not self.engine.is_leader:
        for index in list(self._appended):
            self._appended.pop(index).done(Outcome.NOT_APPLIED, None)


def _by_own_reading(self: GroupClock, term: int, reading_ms: int) -> None:
    now, reading = self._now(), float(reading_ms)
    if term == self._term:
        reading = max(reading, self._base_ms + (now - self._at) * self._kept_per_s)
    self._base_ms, self._at, self._term = reading, now, term


def _nothing(*_arguments: Any) -> None:
    pass


GUARDS: Final = (
    Guard(
        "read-index",
        ("S6",),
        (9,),
        "a deposed leader that does not know it yet answers reads from its old state",
        ((Reads, "confirm", _ask_nobody),),
    ),
    Guard(
        "read-rounds",
        (),
        (9,),
        "a read is answered by what a majority said before it began",
        ((Reads, "confirm", _join_the_last_round),),
    ),
    Guard(
        "own-term-reads",
        (),
        (9,),
        "a new leader answers reads before it knows what its predecessor acknowledged",
        ((Reads, "_own_term_committed", lambda self: True),),
    ),
    Guard(
        "lease-drift",
        (),
        (9,),
        "a leader with a slow clock trusts its lease after the others' promises have ended",
        ((Reads, "_lease_duration_s", lambda self: self._options.lease_s),),
    ),
    Guard(
        "lease-promise",
        (),
        (9,),
        "another leader is elected while a lease holds, and its writes are not seen",
        ((Election, "promise", _nothing),),
    ),
    Guard(
        "lease-restart",
        (),
        (9,),
        "a node that restarts breaks the promise that it has forgotten",
        ((Election, "_assume_promise", _nothing),),
    ),
    Guard(
        "lease-transfer",
        (),
        (9,),
        "the old leader answers by its lease after it handed over",
        ((Reads, "give_up_lease", _nothing),),
    ),
    Guard(
        "follower-freshness",
        (),
        (9,),
        "a deposed leader tells a follower that its old state is fresh",
        ((FollowerReads, "on_request", _answer_at_once),),
    ),
    Guard(
        "joint-reads",
        (),
        (9,),
        "keys of several groups are read once one of these is known to be fresh",
        ((JointReads, "_on_answer", _the_first_answer_will_do),),
    ),
    Guard(
        "clock-lead",
        (),
        (9,),
        "keys die early: a follower that applied the log before its leader keeps its lead",
        ((GroupClock, "heard", _by_own_reading),),
    ),
    Guard(
        "outcome-term",
        ("S19",),
        (10,),
        "a proposal is called applied because another entry was committed at its index",
        ((RaftGroup, "_proposal_at", _whatever_is_there),),
    ),
    Guard(
        "outcome-unknown",
        ("S13",),
        (10,),
        "a proposal is called failed when its leader is deposed, and is applied later",
        ((RaftGroup, "_tell_change", _fail_when_deposed),),
    ),
    Guard(
        "outcome-snapshot",
        ("S13",),
        (10,),
        "a proposal whose index a snapshot covers never ends",
        ((RaftGroup, "_end_covered", _nothing),),
    ),
)
