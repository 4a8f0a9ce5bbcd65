"""Votes, campaigns and restarts without a disk: what PySyncObj does instead, or plain Raft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from jepsen_like.sim.guards.catalogue import Guard
from raftcache.raft import wire
from raftcache.raft.election import Election
from raftcache.raft.engine import Engine
from raftcache.raft.group import RaftGroup
from raftcache.raft.journal import Journal
from raftcache.raft.recovery import Recovery
from raftcache.raft.transport import GroupTransport

STOCK_FALLBACK_S: Final = 30.0

_engine_init = Engine.__init__


def _count_messages(self: GroupTransport, node: str, message: wire.Vote) -> None:
    self._network.learn(message.known)
    if message.term == self.engine.term and self._alive(node, self._network.incarnation_of(node)):
        self.engine.deliver(node, {"type": "response_vote", "term": message.term})


def _campaign_at_once(self: Election) -> None:
    self._deadline = self._runtime.now() + self._timeout()
    self._campaign(transfer=False)


def _fall_back_late(
    self: Engine,
    node: str,
    members: Sequence[str],
    journal: Journal,
    outgoing: Callable[[str, dict[str, Any]], None],
    clock: Callable[[], float],
    heartbeat_s: float,
    fallback_s: float,
) -> None:
    del fallback_s
    _engine_init(self, node, members, journal, outgoing, clock, heartbeat_s, STOCK_FALLBACK_S)


def _begin_as_if_nothing_happened(self: Recovery) -> None:
    self._finish(anew=False)


def _nothing(*_arguments: Any) -> None:
    pass


GUARDS: Final = (
    Guard(
        "one-vote-per-voter",
        ("S5",),
        (3,),
        "one vote seen twice counts as two: two leaders in a term",
        ((GroupTransport, "on_vote", _count_messages),),
    ),
    Guard(
        "members-only",
        ("S11", "S22"),
        (3, 11),
        "a message of a stranger raises out of the group",
        ((RaftGroup, "_check_member", _nothing),),
    ),
    Guard(
        "pre-vote",
        ("S6",),
        (7,),
        "a node that comes back from a partition deposes a healthy leader",
        ((Election, "_ask", _campaign_at_once),),
    ),
    Guard(
        "stickiness",
        ("S6",),
        (7,),
        "a node that alone has lost the leader deposes it",
        ((Election, "_leader_lost", lambda self: True),),
    ),
    Guard(
        "check-quorum",
        ("S6",),
        (7,),
        "a leader that is cut off takes proposals for half a minute",
        ((Engine, "__init__", _fall_back_late),),
    ),
    Guard(
        "fast-failover",
        (),
        (8,),
        "a crashed leader is waited for as long as a silent one",
        ((Election, "on_disconnected", _nothing),),
    ),
    Guard(
        "transfer-flag",
        ("S18",),
        (7,),
        "an order to campaign that could not be followed is followed later, against a healthy"
        " leader",
        ((Engine, "_reachable", lambda self: True),),
    ),
    Guard(
        "diskless-recovery",
        ("S3",),
        (6,),
        "a node that forgot everything helps to elect a leader without acknowledged writes",
        ((Recovery, "begin", _begin_as_if_nothing_happened),),
    ),
    Guard(
        "recovery-deaf",
        ("S3",),
        (6,),
        "a node that forgot its term acknowledges entries of a deposed leader",
        ((Recovery, "deaf", property(lambda self: False)),),
    ),
    Guard(
        "crash-vector",
        ("S3",),
        (3, 6),
        "a vote of a dead incarnation counts beside that of its successor: two leaders in a term",
        ((GroupTransport, "_alive", lambda self, voter, incarnation: True),),
    ),
    Guard(
        "recovered-vote",
        ("S3",),
        (3, 6),
        "a recovered node votes in a term in which its earlier incarnation has voted",
        ((Engine, "vote", _nothing),),
    ),
)
