"""Who campaigns, and when: timers, pre-vote, leader stickiness, promises and transfers.

PySyncObj's own timers are off; this decides from outside. A node campaigns only after a majority
has said that it would vote for it (pre-vote, Raft dissertation section 9.6), and nobody says so who
has heard from a leader within the election timeout (section 4.2.3): a node that comes back deposes
nobody. A closed connection to the leader ends that wait at once, so that a crashed process is
replaced in tens of milliseconds, unless the node has promised its leader a lease.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raftcache.raft import wire
from raftcache.raft.engine import Engine
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.runtime import Runtime

CRASH_STAGGER_S: Final = 0.015
"""After a leader's crash the i-th of its followers asks for pre-votes this many times i later."""
FIRST_STAGGER_S: Final = 0.15
"""The same at the first start, where the first replica of a group is its preferred leader."""


class Election:
    """One group's elections. ``rank``: this node's place among the group's replicas."""

    def __init__(
        self,
        group: int,
        engine: Engine,
        journal: Journal,
        runtime: Runtime,
        options: RaftOptions,
        rank: int,
        send: Callable[[str, wire.Message], bool],
        connected: Callable[[str], bool],
    ) -> None:
        self._group = group
        self._engine = engine
        self._journal = journal
        self._runtime = runtime
        self._options = options
        self._rank = rank
        self._send = send
        self._connected = connected
        self._heard_at = -1e18
        self._promised_until = -1e18
        self._asking: tuple[int, set[str]] | None = None
        self.barred: Callable[[], bool] = lambda: False
        """Whether this replica, still recovering, may neither campaign nor grant."""
        self.transferring = False
        """The election under way was asked for by the leader."""
        self.campaigns = 0
        self._assume_promise()
        self._deadline = runtime.now() + self._timeout()

    def _timeout(self) -> float:
        return self._options.election_timeout_s * (1.0 + self._runtime.random.random())

    # -- what postpones an election

    def begin_anew(self) -> None:
        """No replica has any state: no promise is open, and the preferred leader goes first."""
        self._promised_until = -1e18
        self._deadline = self._runtime.now() + 0.005 + self._rank * FIRST_STAGGER_S

    def heard_leader(self) -> None:
        """A valid message of the current leader came."""
        self._heard_at = self._runtime.now()
        self._deadline = self._heard_at + self._timeout()
        self._asking = None

    def voted(self) -> None:
        """This node voted: the candidate gets its time to win."""
        self.heard_leader()

    def _assume_promise(self) -> None:
        """Promises are not on disk: one given before a restart may still be relied on."""
        self._promised_until = self._runtime.now() + self._options.lease_s

    def promise(self, duration_s: float) -> None:
        """Vote for nobody for so long: the leader serves reads on this."""
        self._promised_until = max(self._promised_until, self._runtime.now() + duration_s)

    def vote_allowed(self, transfer: bool) -> bool:
        """Whether a request for a vote may be considered. The leader that asks for a transfer has
        given up its lease."""
        return transfer or self._runtime.now() >= self._promised_until

    def _leader_lost(self) -> bool:
        leader = self._engine.leader
        if leader == self._engine.node:
            return False
        gone = leader is not None and not self._connected(leader)
        return gone or self._runtime.now() - self._heard_at >= self._options.election_timeout_s

    # -- campaigning

    def on_disconnected(self, node: str) -> None:
        """The connection to ``node`` closed; when it is the leader, replace it at once."""
        if node == self._engine.leader and not self._engine.is_leader:
            others = sorted({*self._engine.others, self._engine.node} - {node})
            place = others.index(self._engine.node)
            jitter = self._runtime.random.random() * CRASH_STAGGER_S / 3
            delay = 0.001 + place * CRASH_STAGGER_S + jitter
            self._deadline = min(self._deadline, self._runtime.now() + delay)
            self._runtime.call_later(delay + 0.0005, self.on_timer)

    def on_timer(self) -> None:
        """To be called often: every few tens of milliseconds."""
        now = self._runtime.now()
        if self._engine.is_leader:
            self._deadline = now + self._timeout()
            return
        if now < self._deadline or self.barred():
            return
        if now < self._promised_until:
            self._deadline = self._promised_until
            return
        self._ask()

    def _ask(self) -> None:
        engine, journal = self._engine, self._journal
        self._deadline = self._runtime.now() + self._timeout() * 0.25
        self._asking = (engine.term, {engine.node})
        request = wire.PreVote(self._group, engine.term, journal.last_index, journal.last_term)
        for node in engine.others:
            self._send(node, request)
        self._count()

    def _count(self) -> None:
        if self._asking and len(self._asking[1]) >= self._engine.majority:
            self._asking = None
            self._campaign(transfer=False)

    def _campaign(self, *, transfer: bool) -> None:
        if not self._engine.others or any(self._connected(node) for node in self._engine.others):
            self._deadline = self._runtime.now() + self._timeout() * 0.5
            self.campaigns += 1
            self.transferring = transfer
            self._engine.campaign()
            self.transferring = False

    # -- messages

    def on_pre_vote(self, node: str, message: wire.PreVote) -> None:
        """Grant it when this node, too, has lost its leader and the asker's log is long enough."""
        engine, journal = self._engine, self._journal
        if message.term < engine.term:
            self._send(node, wire.TermNotice(self._group, engine.term))
        elif self.barred():
            return
        elif self._leader_lost() and self._runtime.now() >= self._promised_until:
            last = (journal.last_term, journal.last_index)
            if (message.last_term, message.last_index) >= last:
                self._send(node, wire.PreVoteGranted(self._group, message.term))
            else:
                self._stand_instead()

    def _stand_instead(self) -> None:
        """Who asked has less of the log than this replica, and of three replicas no majority
        without it: why wait any longer?"""
        if self._engine.majority == 2 and self._asking is None:
            self._deadline = self._runtime.now()
            self.on_timer()

    def on_pre_vote_granted(self, node: str, message: wire.PreVoteGranted) -> None:
        """Campaign once a majority would vote for this node."""
        if self._asking and self._asking[0] == message.term == self._engine.term:
            self._asking[1].add(node)
            self._count()

    def on_timeout_now(self, node: str, message: wire.TimeoutNow) -> None:
        """The leader hands over: campaign without asking."""
        engine = self._engine
        if self.barred() or engine.is_leader:
            return
        if message.term == engine.term and node == engine.leader:
            self._campaign(transfer=True)

    def on_term_notice(self, term: int) -> None:
        """Somebody is in a higher term: adopt it as a follower."""
        if term > self._engine.term:
            self._engine.step_down(term)
