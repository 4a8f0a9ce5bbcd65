"""One Raft group on one node: propose, read, transfer; the parts of this package joined.

Every proposal ends: applied, with the state machine's result; surely not applied (it entered no
log, or another entry was committed at its index); or unknown (a snapshot covered its index). One
that stays undecided while this node is cut off is bounded by its proposer's own deadline.

A leader whose disk takes no more hands over to a replica whose disk does; while there is no
majority of such it refuses all proposals, and reads go on.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Any, Final

from raftcache.calls import for_each
from raftcache.raft import wire
from raftcache.raft.clock import GroupClock
from raftcache.raft.durable import CorruptJournalError
from raftcache.raft.election import Election
from raftcache.raft.engine import COMMAND, Engine
from raftcache.raft.follower_reads import FollowerReads
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.reads import Confirmed, Reads
from raftcache.raft.recovery import Recovery
from raftcache.raft.replay import WHAT_TO_DO
from raftcache.raft.room import MAKE_WAY_INTERVAL, Room
from raftcache.raft.snapshots import Snapshots, StateMachine
from raftcache.raft.transport import GroupTransport, Network, TransportEvents
from raftcache.runtime import Runtime

TRANSFER_LIMIT: Final = 2.0
"""A transfer that takes longer than this many election timeouts is given up."""
_TRIM_SLACK: Final = 1.25
APPLY_ENTRIES: Final = 1000
APPLY_BYTES: Final = 256 * 1024
"""No more of the log is applied in one turn of the event loop. A replica may have much of it to
apply, after a restart all that follows its snapshot, and a leader that hears nobody meanwhile steps
down."""
CLOSE_ENTRIES: Final = 16
"""A replica that is further behind its leader sends reads on."""


class Outcome(enum.Enum):
    """How a proposal ended."""

    APPLIED = 0
    NOT_APPLIED = 1
    UNKNOWN = 2
    FULL = 3
    """Not applied, because disks are full."""
    AT_LEADER = 4
    """Not answered here: only the leader may."""


_RECOVERY: Final = (wire.RecoveryRequest, wire.RecoveryReply)
_NO_TICK: Final = (wire.Probe, wire.ProbeReply, wire.ReadIndex, wire.ReadIndexReply)

Done = Callable[[Outcome, Any], None]


class _Proposal:
    __slots__ = ("command", "done", "hint", "term")

    def __init__(self, command: bytes, hint: Any, done: Done) -> None:
        self.command = command
        self.hint = hint
        self.done = done
        self.term = 0


class RaftGroup:
    """``on_change`` is called when the leader, the term or readiness changed."""

    def __init__(
        self,
        group: int,
        node: str,
        replicas: Sequence[str],
        runtime: Runtime,
        options: RaftOptions,
        journal: Journal,
        machine: StateMachine,
        network: Network,
        clock: GroupClock,
        on_change: Callable[[], None],
    ) -> None:
        self.group = group
        self._runtime = runtime
        self._options = options
        self._journal = journal
        self._machine = machine
        self._network = network
        self._on_change = on_change
        self._submitted: dict[int, _Proposal] = {}
        self._appended: dict[int, _Proposal] = {}
        self._scheduled = False
        self._tick_due = True
        self._contact_at: dict[str, float] = {}
        self._closed = False
        self._transfer: tuple[str | None, float, int] | None = None
        self._seen: tuple[str | None, bool, int, bool] = (None, False, -1, False)
        events = TransportEvents()
        others = [replica for replica in replicas if replica != node]
        self._transport = GroupTransport(
            group, journal, runtime, options, network, events, clock, others
        )
        journal.on_append = self._on_append
        journal.on_durable = self._on_durable
        self.engine = Engine(
            node,
            replicas,
            journal,
            self._transport.outgoing,
            runtime.now,
            options.heartbeat_s,
            2 * options.election_timeout_s,
        )
        self._transport.engine = self.engine
        self._room = Room(
            self.engine,
            journal,
            self._transport,
            network.connected,
            runtime.now,
            MAKE_WAY_INTERVAL * options.election_timeout_s,
        )
        self._restore()
        self.applied_index = self.engine.last_applied
        self._election = Election(
            group,
            self.engine,
            journal,
            runtime,
            options,
            list(replicas).index(node),
            network.send,
            network.connected,
        )
        self.reads = Reads(
            group,
            self.engine,
            journal,
            runtime,
            options,
            network.send,
            lambda: self.applied_index,
            network.pace,
            self._go_on_reading,
        )
        self._follower_reads = FollowerReads(
            group,
            self.engine,
            runtime,
            network.send,
            lambda: self.applied_index,
            self.reads,
            self._term_followed,
            self._transport.announce_commit_to,
            network.pace,
            self._go_on_reading,
        )
        self.snapshots = Snapshots(
            group,
            self.engine,
            journal,
            self._transport,
            machine,
            runtime,
            options,
            network.send,
            lambda: self.applied_index,
            self._on_installed,
        )
        self._recovery = Recovery(
            group, self.engine, journal, runtime, network.send, self._on_recovered
        )
        self._election.barred = lambda: self._recovery.active
        events.heard_leader = self._election.heard_leader
        events.voted = self._election.voted
        events.higher_term = self._election.on_term_notice
        events.snapshot_needed = self.snapshots.start
        events.not_appended = self._on_not_appended
        events.vote_allowed = self._vote_allowed
        events.transfer_election = lambda: self._election.transferring
        for other in self.engine.others:
            self._transport.bar(other, "connection")
        if journal.blank:
            self._recovery.begin()
        self._handlers: dict[type, Callable[[str, Any], None]] = {
            wire.Append: self._transport.on_append,
            wire.AppendReply: self._transport.on_append_reply,
            wire.RequestVote: self._transport.on_request_vote,
            wire.Vote: self._transport.on_vote,
            wire.PreVote: self._election.on_pre_vote,
            wire.PreVoteGranted: self._election.on_pre_vote_granted,
            wire.TermNotice: lambda _, message: self._election.on_term_notice(message.term),
            wire.TimeoutNow: self._election.on_timeout_now,
            wire.Probe: self._on_probe,
            wire.ProbeReply: self._on_probe_reply,
            wire.RecoveryRequest: self._recovery.on_request,
            wire.RecoveryReply: self._recovery.on_reply,
            wire.ReadIndex: self._on_read_index,
            wire.ReadIndexReply: self._on_read_index_reply,
            wire.SnapshotChunk: self._on_snapshot_chunk,
            wire.SnapshotReply: self.snapshots.on_reply,
        }

    def _restore(self) -> None:
        """Start from the snapshot on disk, when there is one; ``CorruptJournalError`` when it
        cannot be read."""
        stored, journal = self._journal.stored, self._journal
        if stored is not None:
            try:
                prepared = self._machine.prepare(stored.state)
            except ValueError as error:
                raise CorruptJournalError(
                    f"the snapshot of group {self.group} up to entry {stored.header.index} is"
                    f" damaged: {error}; {WHAT_TO_DO}"
                ) from error
            self._machine.install(prepared)
            journal.restoring(True)
            header = stored.header
            self.engine.install(None, self.engine.term, header.previous, header.last)
            journal.restoring(False)

    def _on_recovered(self, anew: bool) -> None:
        if anew:
            self._election.begin_anew()
        self.schedule()

    def _vote_allowed(self, transfer: bool) -> bool:
        return not self._recovery.active and self._election.vote_allowed(transfer)

    # -- state

    @property
    def recovering(self) -> bool:
        """Whether this replica has lost its state and not got it back yet."""
        return self._recovery.active

    @property
    def is_leader(self) -> bool:
        """Whether this node leads, as far as it knows."""
        return self.engine.is_leader

    @property
    def leader_ready(self) -> bool:
        """Whether this node leads and has applied an entry of its own term, hence all earlier
        ones."""
        leading = self.engine.is_leader
        return leading and self._journal.term_at(self.applied_index) == self.engine.term

    @property
    def leader(self) -> str | None:
        """The leader as far as known."""
        return self.engine.leader

    @property
    def accepts(self) -> bool:
        """Whether a proposal would be taken now."""
        return self.engine.is_leader and self._transfer is None and not self.full

    @property
    def has_room(self) -> bool:
        """Whether this node's disk takes more of the log."""
        return self._journal.has_room

    @property
    def full(self) -> bool:
        """Whether, as far as this leader knows, there is no room for proposals."""
        return self._room.full

    def lacks_room(self, node: str) -> bool:
        """Whether ``node`` has said so."""
        return node in self._transport.without_room

    @property
    def campaigns(self) -> int:
        """Elections this node started."""
        return self._election.campaigns

    @property
    def highest_commit(self) -> int:
        """The highest commit index this node has heard of."""
        return max(self._transport.heard_commit or 0, self.engine.commit_index)

    @property
    def caught_up(self) -> bool:
        """Whether this replica has applied what its leader had committed when last heard."""
        return self.leader_ready if self.engine.is_leader else self._within(0)

    @property
    def close_behind(self) -> bool:
        """Whether this replica follows a leader and has applied nearly all that it has heard to be
        committed: what it must wait for to be read comes soon."""
        return not self._recovery.active and self._within(CLOSE_ENTRIES)

    def _within(self, entries: int) -> bool:
        """Whether it follows a leader, and has applied all but so many of the entries that it has
        heard to be committed."""
        heard = self._transport.heard_commit
        if heard is None or self.engine.leader is None:
            return False
        return heard - self.applied_index <= entries

    @property
    def last_index(self) -> int:
        """Index of the last entry of the log."""
        return self._journal.last_index

    # -- requests

    def propose(self, payload: bytes, hint: Any, done: Done) -> None:
        """Replicate ``payload``; ``done`` is called exactly once, unless this node stays cut
        off."""
        if not self.accepts:
            done(self.refusal(), None)
            return
        command = COMMAND + payload
        proposal = _Proposal(command, hint, done)
        self._submitted[id(command)] = proposal
        self.engine.submit(command, lambda _result, _error: self._on_not_appended(command))
        self.schedule()

    def refusal(self) -> Outcome:
        """How a proposal ends that is not accepted now."""
        if not self.engine.is_leader or not self.full:
            return Outcome.NOT_APPLIED
        self._make_way()
        return Outcome.FULL if self._transfer is None else Outcome.NOT_APPLIED

    def _make_way(self) -> None:
        """Let a replica with room lead, when there are enough of them to go on."""
        if self._transfer is None and (successor := self._room.successor()) is not None:
            self.transfer(successor)

    def confirm_read(self, confirmed: Confirmed, *, lease: bool = False) -> None:
        """``confirmed(True)`` when the state machine may be read linearizably; False: not the
        leader."""
        if not self.engine.is_leader:
            confirmed(False)
        elif lease:
            self.reads.confirm_by_lease(confirmed)
            if self.reads.due:
                self.schedule(tick=False)
        else:
            self.reads.confirm(confirmed)
            self.schedule(tick=False)

    def confirm_here(self, confirmed: Confirmed) -> None:
        """``confirm_read`` at a replica that need not lead; False: it hears of no leader."""
        if self.engine.is_leader:
            self.confirm_read(confirmed)
        else:
            self._follower_reads.confirm_now(confirmed)
            self.schedule(tick=False)

    def _term_followed(self) -> int:
        """The term in which this replica follows a leader, which may count on that as on an answer
        to ``Probe``; -1: it does not."""
        return -1 if self._recovery.active else self.engine.term

    def _on_read_index_reply(self, node: str, message: wire.ReadIndexReply) -> None:
        self._follower_reads.on_reply(node, message)
        if self._follower_reads.due:
            self.schedule(tick=False)

    def _on_read_index(self, node: str, message: wire.ReadIndex) -> None:
        self._follower_reads.on_request(node, message)
        if self.reads.due:
            self.schedule(tick=False)

    def confirm_fresh(self, max_staleness_s: float, confirmed: Confirmed) -> None:
        """``confirmed(True)`` when the state here is no older than that; False: no leader to
        ask."""
        self._follower_reads.confirm(max_staleness_s, confirmed)
        self.schedule()

    def transfer(self, target: str | None) -> None:
        """Hand leadership to ``target`` (``None``: whoever has the most of the log). Proposals are
        refused until that has happened or failed."""
        if self.engine.is_leader and self._transfer is None and self.engine.others:
            limit = TRANSFER_LIMIT * self._options.election_timeout_s
            self._transfer = (target, self._runtime.now() + limit, -1)
            self.schedule()

    @property
    def transferring(self) -> bool:
        """Whether a transfer is under way."""
        return self._transfer is not None

    # -- the turn

    def schedule(self, *, tick: bool = True) -> None:
        """Run once at the end of this turn of the event loop. Reads need no tick of the engine."""
        self._tick_due = self._tick_due or tick
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._runtime.call_soon(self._run)

    def _go_on_reading(self) -> None:
        self.schedule(tick=False)

    def _run(self) -> None:
        self._scheduled = False
        if self._closed:
            return
        ticked, self._tick_due = self._tick_due, False
        if ticked:
            self.engine.tick()
            if self.engine.is_leader:
                self._transport.offer()
            self._apply()
            self._recovery.advance()
        self._follower_reads.advance()
        self.reads.advance()
        if self._transfer is not None:
            self._advance_transfer()
        if ticked:
            self._tell_change()
            if self._uncommitted_alone():
                self.schedule()

    def _uncommitted_alone(self) -> bool:
        """PySyncObj commits before it appends, and no answer will wake a lone leader."""
        engine = self.engine
        alone = not engine.others and engine.is_leader
        return alone and engine.commit_index < self._journal.last_index

    def _tell_change(self) -> None:
        engine = self.engine
        leading = engine.is_leader
        seen = (engine.leader, leading, engine.term, leading and self.leader_ready)
        if seen != self._seen:
            self._seen = seen
            if not leading:
                self.snapshots.stop_all()
            self._on_change()

    def _idle(self) -> bool:
        """Whether a turn of this follower, or candidate, would change nothing.

        Of a follower PySyncObj's tick does no more than apply what is committed and hand back what
        was submitted: its own elections are off, and so are its compaction and its snapshots. The
        rest of a turn looks at what is applied, at reads (which ask for a turn themselves), at the
        way back of a recovery, and at the size of the log, for which the timer is often enough."""
        engine, seen = self.engine, self._seen
        return not (
            engine.commit_index > engine.last_applied
            or engine.last_applied > self.applied_index
            or engine.leader != seen[0]
            or engine.term != seen[2]
            or seen[1]
            or self._submitted
            or self._recovery.active
            or self._transfer is not None
            or not engine.others
        )

    @property
    def _log_too_long(self) -> bool:
        return self._journal.bytes > self._options.log_retention_bytes * _TRIM_SLACK

    def _apply(self) -> None:
        engine, journal = self.engine, self._journal
        limit = engine.last_applied
        if not engine.others:
            # Nobody's acknowledgement stands between a lone leader and its disk.
            limit = min(limit, journal.durable_index)
        until, left = min(limit, self.applied_index + APPLY_ENTRIES), APPLY_BYTES
        while self.applied_index < until and left > 0:
            index = self.applied_index + 1
            entry = journal.at(index)
            assert entry is not None
            left -= len(entry[0])
            self.applied_index = index
            proposal = self._proposal_at(index, entry[2])
            if entry[0][:1] == COMMAND:
                hint = None if proposal is None else proposal.hint
                result = self._machine.apply(index, memoryview(entry[0])[1:], hint)
                if proposal is not None:
                    proposal.done(Outcome.APPLIED, result)
        if self.applied_index < limit:
            self.schedule()
        if journal.snapshot_due:
            self._runtime.spawn(self.snapshots.store(), f"store snapshot {self.group}")
        if self._log_too_long:
            self._trim()

    def _trim(self) -> None:
        """Keep what connected followers still need, up to a bound."""
        journal, keep = self._journal, self._options.log_retention_bytes
        self._transport.send_all()
        pinned = self.snapshots.pinned
        if self.engine.is_leader and journal.bytes < 4 * keep:
            behind = [
                self.engine.match_index(node)
                for node in self.engine.others
                if self._network.connected(node)
            ]
            pinned = min([*behind, pinned or journal.last_index])
        journal.trim(self.applied_index, keep, pinned)

    # -- outcomes

    def _proposal_at(self, index: int, term: int) -> _Proposal | None:
        """The proposal that was committed at ``index``. One of ours that another entry took the
        place of is surely not applied."""
        proposal = self._appended.pop(index, None)
        if proposal is not None and proposal.term != term:
            proposal.done(Outcome.NOT_APPLIED, None)
            return None
        return proposal

    def _on_append(self, command: bytes, index: int, term: int) -> None:
        proposal = self._submitted.pop(id(command), None)
        if proposal is not None:
            proposal.term = term
            earlier = self._appended.pop(index, None)
            self._appended[index] = proposal
            if earlier is not None:
                # Ours of an earlier term was cut off the log and may still be elsewhere.
                earlier.done(Outcome.UNKNOWN, None)

    def _on_not_appended(self, command: bytes) -> None:
        proposal = self._submitted.pop(id(command), None)
        if proposal is not None:
            proposal.done(Outcome.NOT_APPLIED, None)

    def _on_durable(self) -> None:
        counts = self._transport.holds_acks
        self._transport.release()
        # A leader commits what others have acknowledged; a tick is due only when that counts now.
        if counts or not (self.engine.is_leader or self._idle()) or not self.engine.others:
            self.schedule()

    def _on_installed(self, index: int) -> None:
        self.applied_index = index
        self._end_covered(index)
        self.schedule()

    def _end_covered(self, index: int) -> None:
        """The entries that would tell what became of proposals up to ``index`` are gone."""
        covered = [self._appended.pop(i) for i in [i for i in self._appended if i <= index]]
        for_each(covered, lambda proposal: proposal.done(Outcome.UNKNOWN, None))

    # -- messages and connections

    def on_message(self, node: str, message: wire.GroupMessage) -> None:
        """A message of a member, on the current connection."""
        self._check_member(node)
        handler = self._handlers.get(type(message))
        if handler is None:
            raise wire.WireError(f"unexpected {type(message).__name__}")
        if self._recovery.deaf and not isinstance(message, _RECOVERY):
            return
        handler(node, message)
        if self._needs_tick(message):
            self.schedule()

    def _check_member(self, node: str) -> None:
        if node not in self.engine.others:
            raise wire.WireError(f"{node!r} is not a replica of group {self.group}")

    def _needs_tick(self, message: wire.GroupMessage) -> bool:
        """Measured: half of the ticks under load would be for messages that change nothing."""
        if isinstance(message, wire.Append):
            return self.engine.is_leader or not self._idle()
        if isinstance(message, wire.AppendReply):
            late = message.success and message.next_index - 1 <= self.engine.commit_index
            return not late or self._transfer is not None
        return not isinstance(message, _NO_TICK)

    def _on_probe(self, node: str, message: wire.Probe) -> None:
        if message.term < self.engine.term:
            self._network.send(node, wire.TermNotice(self.group, self.engine.term))
            return
        if message.term > self.engine.term or self.engine.leader != node:
            self._transport.contact(node, message.term, 0)
            self.schedule()
        self._election.heard_leader()
        if message.lease_ms > 0:
            self._election.promise(message.lease_ms / 1000.0)
        self._network.send(node, wire.ProbeReply(self.group, message.term, message.round))

    def _on_probe_reply(self, node: str, message: wire.ProbeReply) -> None:
        if message.term == self.engine.term and self.engine.is_leader:
            now = self._runtime.now()
            if now - self._contact_at.get(node, 0.0) > 0.5 * self._options.heartbeat_s:
                self._contact_at[node] = now
                self._transport.keep_contact(node)
            self.reads.on_probe_reply(node, message)
            if self.reads.due:
                self.schedule(tick=False)

    def _on_snapshot_chunk(self, node: str, message: wire.SnapshotChunk) -> None:
        if message.term < self.engine.term:
            self._network.send(node, wire.TermNotice(self.group, self.engine.term))
            return
        self._election.heard_leader()
        self._transport.contact(node, message.term, 0)
        self.snapshots.on_chunk(node, message)

    def on_up(self, node: str) -> None:
        """A new connection to ``node``."""
        self._transport.reset(node)
        self._transport.lift(node, "connection")
        self._recovery.on_connection_change()
        self.reads.repeat(node)
        self.schedule()

    def on_down(self, node: str) -> None:
        """The connection to ``node`` ended."""
        self._transport.reset(node)
        self._transport.bar(node, "connection")
        self._transport.lift(node, "congestion")
        self.snapshots.stop(node)
        self._follower_reads.on_down(node)
        self._recovery.on_connection_change()
        self._election.on_disconnected(node)
        self.schedule()

    def on_congested(self, node: str, congested: bool) -> None:
        """``node`` does not take what it is sent quickly enough, or does again."""
        if congested:
            self._transport.bar(node, "congestion")
        else:
            self._transport.lift(node, "congestion")
            self.schedule()

    def on_timer(self) -> None:
        """To be called every half heartbeat."""
        self._recovery.on_timer()
        self._election.on_timer()
        if self.engine.is_leader:
            self.snapshots.keep_alive()
            self._transport.announce_commit()
            self.reads.remind()
            self._make_way()
            self.schedule()
        elif not self._idle() or self._log_too_long or self._journal.snapshot_due:
            self.schedule()

    # -- transfer and the end

    def _advance_transfer(self) -> None:
        assert self._transfer is not None
        target, deadline, asked_in = self._transfer
        engine = self.engine
        if not engine.is_leader or self._runtime.now() >= deadline:
            self._transfer = None
            return
        if asked_in == engine.term or self._submitted:
            return
        if target is None:
            up = [node for node in engine.others if self._network.connected(node)]
            if not up:
                return
            target = max(up, key=engine.match_index)
        if self._room.match(target) == self._journal.last_index:
            # No lease from here on: the next leader may be elected at any moment.
            self.reads.give_up_lease()
            if engine.match_index(target) < self._journal.last_index:
                # The engine knows only of what this node's own disk has, too.
                self._network.send(target, wire.TimeoutNow(self.group, engine.term))
            elif not engine.transfer(target):
                return
            self._transfer = (target, deadline, engine.term)

    def close(self) -> None:
        """Stop; undecided proposals end as unknown."""
        self._closed = True
        self._election.barred = lambda: True
        submitted, self._submitted = self._submitted, {}
        appended, self._appended = self._appended, {}
        for_each(submitted.values(), lambda proposal: proposal.done(Outcome.NOT_APPLIED, None))
        for_each(appended.values(), lambda proposal: proposal.done(Outcome.UNKNOWN, None))
        self.engine.close()
        self._journal.close()
