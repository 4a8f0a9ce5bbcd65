"""One group's messages, between PySyncObj and the peers: stale, duplicate and premature ones stop
here.

PySyncObj trusts its transport with more than TCP gives. This is where that trust is earned (the
numbers are those of the design's guarantees):

1. An acknowledgement counts only from the current connection and for the current term.
2. Appended entries that are already in the log are skipped, a committed entry is never replaced,
   and nothing is sent twice on a connection. Gaps and conflicts are answered with the first index
   of the conflicting term, not one entry at a time.
3. A vote counts once per voter and term, and only from a member.
4. Acknowledgements, votes and requests for votes leave only once what they speak of is durable; an
   acknowledgement reaches a leader only once its own log is durable that far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from raftcache.raft import wire
from raftcache.raft.clock import GroupClock
from raftcache.raft.engine import COMMAND, NO_OP, Engine
from raftcache.raft.entries import Entry
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.pace import Pace
from raftcache.raft.thrift import Thrift
from raftcache.runtime import Runtime

MAX_BACKLOG_BYTES: Final = 16 * 1024 * 1024
"""A follower with more than this to write takes no further entries until it has written some."""


class Network(Protocol):
    """The part of ``peers.Peers`` that a group needs."""

    @property
    def known(self) -> dict[str, int]: ...

    @property
    def pace(self) -> Pace: ...

    def send(self, node: str, message: wire.Message) -> bool: ...

    def connected(self, node: str) -> bool: ...

    def incarnation_of(self, node: str) -> int: ...

    def learn(self, known: dict[str, int]) -> None: ...


class TransportEvents:
    """What the transport tells the rest of its group. Replaced by the group."""

    heard_leader: Callable[[], None]
    voted: Callable[[], None]
    higher_term: Callable[[int], None]
    snapshot_needed: Callable[[str], None]
    not_appended: Callable[[bytes], None]
    vote_allowed: Callable[[bool], bool]
    transfer_election: Callable[[], bool]


class GroupTransport:
    """The guards of one group. ``engine`` is set before the first message."""

    engine: Engine

    def __init__(
        self,
        group: int,
        journal: Journal,
        runtime: Runtime,
        options: RaftOptions,
        network: Network,
        events: TransportEvents,
        clock: GroupClock,
        others: Sequence[str],
    ) -> None:
        majority = (len(others) + 1) // 2 + 1
        self._group = group
        self._journal = journal
        self._runtime = runtime
        self._options = options
        self._network = network
        self._send = network.send
        self._events = events
        self._clock = clock
        self._barred: dict[str, set[str]] = {}
        self._sent: dict[str, tuple[int, int]] = {}
        self._sent_commit: dict[str, tuple[int, float]] = {}
        self._offered = (0, 0)
        """Term and last entry of what ``offer`` was last called for."""
        self._unbarred: set[str] = set()
        """Nodes that may be sent to again, and were sent nothing since."""
        self._rewound: set[str] = set()
        """Nodes whose next index in PySyncObj is behind what they have acknowledged, perhaps: it
        moves that forward only beyond the highest acknowledgement of the term, which a node may
        have given before it lost its memory."""
        self._sent_again: dict[str, float] = {}
        """When a node was sent entries anew at once, since it had refused some."""
        self._acked: dict[str, tuple[int, int, float]] = {}
        self._votes: tuple[int, dict[str, int]] = (-1, {})
        self._counted: set[str] = set()
        self._conflict: tuple[int, int] | None = None
        self._held_out: list[tuple[str, wire.Message, int]] = []
        self._held_acks_out: dict[str, tuple[int, int]] = {}
        self._held_acks_in: dict[str, tuple[int, int]] = {}
        self.without_room: set[str] = set()
        """Followers that have said that their disks take no more."""
        quickest = network.pace.to_append(others)
        self._thrift = Thrift(quickest, majority, runtime, self._counts, self._send_rest)
        self.heard_commit: int | None = None
        """The commit index of the leader heard last; ``None``: nothing heard yet."""

    def _counts(self, node: str) -> bool:
        """Whether an acknowledgement may be expected of ``node``."""
        return not self._barred.get(node) and node not in self.without_room

    # -- to whom PySyncObj may send

    def bar(self, node: str, reason: str) -> None:
        """PySyncObj sends nothing to ``node`` until all reasons are lifted."""
        reasons = self._barred.setdefault(node, set())
        if not reasons:
            self.engine.disconnect(node)
        reasons.add(reason)
        self._thrift.flush()

    def lift(self, node: str, reason: str) -> None:
        """Undo ``bar``."""
        reasons = self._barred.setdefault(node, set())
        if reasons:
            reasons.discard(reason)
            if not reasons:
                self.engine.connect(node)
                self._unbarred.add(node)

    def reset(self, node: str) -> None:
        """The connection to ``node`` is new or gone: what was under way on the old one is
        forgotten."""
        self._thrift.forget(node)
        self._sent.pop(node, None)
        self._sent_commit.pop(node, None)
        self._sent_again.pop(node, None)
        self._acked.pop(node, None)
        self._held_acks_in.pop(node, None)
        self._held_acks_out.pop(node, None)
        self.without_room.discard(node)
        self._held_out = [held for held in self._held_out if held[0] != node]

    # -- out: PySyncObj's dictionaries become messages

    def outgoing(self, node: str, message: dict[str, Any]) -> None:
        """Everything PySyncObj sends."""
        kind = message["type"]
        if kind == "append_entries":
            if "serialized" in message:
                self._rewound.add(node)
                self._stop_feeding(node)
                self._events.snapshot_needed(node)
            else:
                self._send_append(node, message)
        elif kind == "next_node_idx":
            self._send_reply(node, message)
        elif kind == "request_vote":
            transfer = self._events.transfer_election()
            last, last_term = message["last_log_index"], message["last_log_term"]
            self._send_durable(
                node, wire.RequestVote(self._group, message["term"], last, last_term, transfer)
            )
        elif kind == "response_vote":
            self._events.voted()
            self._send_durable(node, wire.Vote(self._group, message["term"], self._network.known))
        elif kind == "timeout_now":
            self._send(node, wire.TimeoutNow(self._group, message["term"]))
        elif kind == "apply_command":
            # Operations are forwarded by the router, never by PySyncObj: it lost leadership between
            # the submission and the tick, so the command is in no log.
            self._events.not_appended(message["command"])

    def _stop_feeding(self, node: str) -> None:
        """``node`` needs a snapshot, which PySyncObj would announce for as long as its tick may
        take."""
        self.bar(node, "snapshot")

    def offer(self) -> None:
        """Send followers what this leader has appended since the last time, or tell them what is
        committed now, unless it may wait.

        PySyncObj, asked to, does this itself, for every entry and for every commit once more: with
        the sending a sixth of what an entry cost a leader in profiles of plain Python."""
        engine, journal = self.engine, self._journal
        term, last = engine.term, journal.last_index
        offered_term, offered = self._offered
        if offered_term == term and offered == last and not self._unbarred:
            self._offer_commit()
            return
        self._offered = (term, last)
        if offered_term != term or offered >= last:
            offered = last - 1
        new = journal.after(offered)
        for node in engine.others:
            if self._barred.get(node):
                continue
            sent_term, sent = self._sent.get(node, (0, 0))
            if sent_term != term:
                self._sent[node] = (term, engine.next_index(node) - 1)
            elif sent == last:
                if node not in self._unbarred:
                    continue
            elif (sent == offered or self._thrift.waits(node)) and self._may_wait(node, new):
                continue
            self._send_rest(node)
        self._unbarred.clear()

    def _offer_commit(self) -> None:
        """Under load the next entries carry it for free; when none come, ``announce_commit`` tells.
        Measured: a fifth less CPU per batch at the leader."""
        commit, now = self.engine.commit_index, self._runtime.now()
        for node in self.engine.others:
            sent_commit, sent_at = self._sent_commit.get(node, (0, 0.0))
            due = sent_commit < commit and now - sent_at >= 0.4 * self._options.heartbeat_s
            if due and not self._thrift.waits(node):
                self.announce_commit_to(node)

    def _send_append(self, node: str, message: dict[str, Any]) -> None:
        """With PySyncObj's heartbeats only: entries usually leave by ``offer``."""
        if self._thrift.waits(node):
            return  # it takes for sent what was put off
        term, previous = message["term"], message["prevLogIdx"]
        entries: list[Entry] = message["entries"]
        on_its_way = self._on_its_way(node, term, previous)
        if on_its_way:
            entries = entries[on_its_way:]
            previous += on_its_way
        commit, now = message["commit_index"], self._runtime.now()
        if entries:
            self._sent[node] = (term, entries[-1][1])
        elif now - self._sent_commit.get(node, (0, 0.0))[1] < 0.4 * self._options.heartbeat_s:
            return  # a heartbeat, after what was as good as one
        self._sent_commit[node] = (commit, now)
        previous_term = self._journal.term_at(previous)
        if previous_term is None:
            previous_term = message["prevLogTerm"]
        self._send_entries(node, term, (previous, previous_term), commit, entries)

    def send_all(self) -> None:
        """Put nothing off any longer: what is to be sent may leave the log."""
        self._thrift.flush()

    def _may_wait(self, node: str, entries: list[Entry]) -> bool:
        size = sum([len(entry[0]) for entry in entries])
        return self._thrift.may_wait(node, entries[-1][1], size)

    def _send_rest(self, node: str) -> None:
        """What was put off."""
        self._thrift.forget(node)
        engine, journal = self.engine, self._journal
        term, commit = engine.term, engine.commit_index
        sent_term, sent_index = self._sent.get(node, (0, 0))
        previous_term = journal.term_at(sent_index)
        if not engine.is_leader or sent_term != term or previous_term is None:
            return
        if self._barred.get(node):
            return
        entries = journal.after(sent_index)
        if entries:
            self._sent[node] = (term, entries[-1][1])
        self._sent_commit[node] = (commit, self._runtime.now())
        self._send_entries(node, term, (sent_index, previous_term), commit, entries)

    def _send_entries(
        self,
        node: str,
        term: int,
        previous: tuple[int, int],
        commit: int,
        entries: list[Entry],
    ) -> None:
        for run in self._runs(entries):
            pairs = [(entry[0], entry[2]) for entry in run]
            self._append(node, term, previous, commit, pairs)
            if run:
                previous = (run[-1][1], run[-1][2])

    def _append(
        self,
        node: str,
        term: int,
        previous: tuple[int, int],
        commit: int,
        pairs: list[tuple[bytes, int]],
    ) -> None:
        reading = self._clock.now_ms()
        self._send(node, wire.Append(self._group, term, *previous, commit, pairs, reading))

    def _on_its_way(self, node: str, term: int, previous: int) -> int:
        """How many entries after ``previous`` were sent on this connection already: PySyncObj
        rewinds at every acknowledgement. The connection is FIFO: what was sent arrives."""
        sent_term, sent_index = self._sent.get(node, (0, 0))
        sent = sent_term == term and sent_index > previous
        if sent and self._journal.term_at(sent_index) is not None:
            return sent_index - previous
        return 0

    def announce_commit(self) -> None:
        """Tell followers what is committed, where no entries did. The leader, every half
        heartbeat."""
        for node in self.engine.others:
            self.announce_commit_to(node)

    def announce_commit_to(self, node: str) -> None:
        """Tell one."""
        if self._thrift.waits(node):
            self._send_rest(node)
            return
        commit, term = self.engine.commit_index, self.engine.term
        sent_term, sent_index = self._sent.get(node, (0, 0))
        if sent_term != term or self._sent_commit.get(node, (0, 0.0))[0] >= commit:
            return
        sent_index_term = self._journal.term_at(sent_index)
        if sent_index_term is not None and not self._barred.get(node):
            self._sent_commit[node] = (commit, self._runtime.now())
            self._append(node, term, (sent_index, sent_index_term), commit, [])

    def _runs(self, entries: list[Entry]) -> list[list[Entry]]:
        """Split into messages of bounded size."""
        if len(entries) < 2:
            return [entries]
        runs: list[list[Entry]] = [[]]
        size, limit = 0, self._options.max_append_bytes
        for entry in entries:
            if runs[-1] and size + len(entry[0]) > limit:
                runs.append([])
                size = 0
            runs[-1].append(entry)
            size += len(entry[0])
        return runs

    def _send_reply(self, node: str, message: dict[str, Any]) -> None:
        next_index, success = message["next_node_idx"], message["success"]
        if not success:
            self._acked.pop(node, None)
            self._reply(node, self.engine.term, next_index, success=False, reset=message["reset"])
        else:
            self._acknowledge(node, self.engine.term, next_index)

    def _acknowledge(self, node: str, term: int, next_index: int) -> None:
        durable = self._durable_part(node, term, next_index)
        if durable is None:
            return
        next_index = durable
        acked_term, acked_index, acked_time = self._acked.get(node, (0, 0, 0.0))
        now = self._runtime.now()
        said = (acked_term, acked_index) == (term, next_index)
        if said and now - acked_time < 0.5 * self._options.heartbeat_s:
            return
        self._acked[node] = (term, next_index, now)
        self._reply(node, term, next_index, success=True)

    def _reply(
        self, node: str, term: int, next_index: int, *, success: bool, reset: bool = False
    ) -> None:
        room = self._journal.has_room
        self._send(node, wire.AppendReply(self._group, term, next_index, success, reset, room))

    def _durable_part(self, node: str, term: int, next_index: int) -> int | None:
        """What of an acknowledgement may leave now; the rest waits for ``release``."""
        journal = self._journal
        if journal.meta_durable and journal.durable_index >= next_index - 1:
            return next_index
        self._held_acks_out[node] = (term, next_index)
        return journal.durable_index + 1 if journal.meta_durable else None

    def _send_durable(self, node: str, message: wire.Message) -> None:
        if self._journal.meta_durable:
            self._send(node, message)
        else:
            self._held_out.append((node, message, self.engine.term))

    @property
    def holds_acks(self) -> bool:
        """Whether received acknowledgements wait for this node's own disk."""
        return bool(self._held_acks_in)

    def release(self) -> None:
        """The journal's durability advanced."""
        journal, term = self._journal, self.engine.term
        if journal.meta_durable:
            held, self._held_out = self._held_out, []
            for node, message, held_term in held:
                if self._still_means(held_term):
                    self._send(node, message)
        acks, self._held_acks_out = self._held_acks_out, {}
        for node, (held_term, next_index) in acks.items():
            if self._still_means(held_term):
                self._acknowledge(node, term, min(next_index, journal.last_index + 1))
        received, self._held_acks_in = self._held_acks_in, {}
        for node, (held_term, next_index) in received.items():
            if self._still_means(held_term) and self.engine.is_leader:
                self._count_ack(node, term, next_index)

    def _still_means(self, held_term: int) -> bool:
        """What was held under an earlier term is void: the log may be another one now."""
        return held_term == self.engine.term

    # -- in: messages become PySyncObj's dictionaries

    def on_append(self, node: str, message: wire.Append) -> None:
        """AppendEntries, entries that are here already skipped (Raft section 5.3)."""
        if message.term < self.engine.term:
            self._send(node, wire.TermNotice(self._group, self.engine.term))
            return
        self._events.heard_leader()
        self.heard_commit = message.commit
        check_commands(message.entries)
        if self._match(node, message) and self.engine.term == message.term:
            last = message.prev_index + len(message.entries)
            if self._journal.last_index <= last:
                self._clock.heard(message.term, message.clock_ms)

    def _match(self, node: str, message: wire.Append) -> bool:
        """Hand up what is new of an append; nothing of it may remove what is here and matches.
        Whether the log now matches the leader's up to the end of the message."""
        journal, previous, pairs = self._journal, message.prev_index, message.entries
        if journal.backlog > MAX_BACKLOG_BYTES:
            # The next append after this will leave a gap, and hear where to go on.
            self.contact(node, message.term, 0)
            self._reply(node, self.engine.term, 1, success=False)
            return False
        first, last = journal.first_index, journal.last_index
        if previous > last:
            self._refuse(node, message.term, self._resume_index(message.term, last + 1))
            return False
        if previous < first:
            # Covered by our snapshot, hence committed, hence equal.
            skipped = min(first - previous, len(pairs))
            previous, pairs = previous + skipped, pairs[skipped:]
            if previous < first:
                self._verified(node, message, previous)
                return True
        elif journal.term_at(previous) != message.prev_term:
            self._on_conflict(node, message)
            return False
        self._conflict = None
        known = 0
        while known < len(pairs) and journal.term_at(previous + known + 1) == pairs[known][1]:
            known += 1
        previous, pairs = previous + known, pairs[known:]
        if previous < last:
            if not pairs:
                # All known, and we have more: no append is safe to hand up, each would truncate.
                self._verified(node, message, previous)
                return True
            self._check_uncommitted(previous + 1)
        self._up_append(node, message, previous, journal.term_at(previous), pairs)
        return True

    def _up_append(
        self,
        node: str,
        message: wire.Append,
        previous: int,
        previous_term: int | None,
        pairs: list[tuple[bytes, int]],
    ) -> None:
        """PySyncObj replaces everything after ``previous`` by ``pairs``."""
        up = {
            "type": "append_entries",
            "term": message.term,
            "commit_index": message.commit,
            "entries": [(pair[0], previous + 1 + i, pair[1]) for i, pair in enumerate(pairs)],
            "prevLogIdx": previous,
            "prevLogTerm": previous_term,
        }
        self.engine.deliver(node, up)

    def _check_uncommitted(self, index: int) -> None:
        """A leader has every committed entry (Raft section 5.4.3): a peer that would replace one
        breaks the protocol."""
        if index <= max(self.engine.commit_index, self._journal.first_index):
            raise wire.WireError(f"append would replace the committed entry {index}")

    def _on_conflict(self, node: str, message: wire.Append) -> None:
        """Answer with the first index of the conflicting term (Raft section 5.3, end)."""
        journal, index = self._journal, message.prev_index
        self._check_uncommitted(index)
        floor = max(self.engine.commit_index, journal.first_index)
        term = journal.term_at(index)
        while index - 1 > floor and journal.term_at(index - 1) == term:
            index -= 1
        self._conflict = (message.term, index)
        self._refuse(node, message.term, index)

    def _resume_index(self, term: int, default: int) -> int:
        """Appends that were under way when a conflict was answered must not overrule the answer."""
        return self._conflict[1] if self._conflict and self._conflict[0] == term else default

    def _refuse(self, node: str, term: int, next_index: int) -> None:
        self.contact(node, term, 0)
        reply = {"next_node_idx": next_index, "reset": True, "success": False}
        self._send_reply(node, reply)

    def _verified(self, node: str, message: wire.Append, index: int) -> None:
        """The log equals the leader's up to ``index``, and that is all this message says."""
        self.contact(node, message.term, min(message.commit, index))
        self._acknowledge(node, self.engine.term, index + 1)

    def contact(self, node: str, term: int, commit: int) -> None:
        """A heartbeat without log effect: ``node`` leads in ``term``, and so much is committed."""
        up = {"type": "append_entries", "term": term, "commit_index": commit}
        self.engine.deliver(node, up)

    def installed(self, node: str, term: int, index: int) -> None:
        """A snapshot made the log equal to the leader's up to ``index``."""
        self.contact(node, term, index)
        self._acknowledge(node, self.engine.term, index + 1)

    def on_append_reply(self, node: str, message: wire.AppendReply) -> None:
        """Acknowledgements of this term only, none beyond what this node itself holds durably."""
        if message.term > self.engine.term:
            self._events.higher_term(message.term)
            return
        if message.term != self.engine.term or not self.engine.is_leader:
            return
        if message.room:
            self.without_room.discard(node)
        else:
            self.without_room.add(node)
        if not 1 <= message.next_index <= self._journal.last_index + 1:
            return
        if message.success:
            self._thrift.on_ack(node, message.next_index - 1)
            self._count_ack(node, message.term, message.next_index)
        else:
            if message.reset:
                self._thrift.forget(node)
                self._sent.pop(node, None)
                self._sent_commit.pop(node, None)
                self._rewound.add(node)
            self._up_reply(node, message.next_index, success=False, reset=message.reset)
            if message.reset:
                self._send_again(node, message.term, message.next_index)

    def _send_again(self, node: str, term: int, next_index: int) -> None:
        """PySyncObj would do it with the next heartbeat. Not more often than that by half: all that
        was under way is refused, one message after the other."""
        now = self._runtime.now()
        if now - self._sent_again.get(node, -1e18) >= 0.5 * self._options.heartbeat_s:
            self._sent_again[node] = now
            self._sent[node] = (term, next_index - 1)
            self._send_rest(node)

    def _count_ack(self, node: str, term: int, next_index: int) -> None:
        next_index = self._durable_here(node, term, next_index)
        rewound = node in self._rewound
        self._rewound.discard(node)
        self._up_reply(node, next_index, success=True, reset=rewound)

    def _durable_here(self, node: str, term: int, next_index: int) -> int:
        """What of another's acknowledgement may count: PySyncObj counts this node itself for
        everything in its log. The rest waits for ``release``."""
        durable = self._journal.durable_index
        if next_index - 1 > durable:
            self._held_acks_in[node] = (term, next_index)
            next_index = durable + 1
        return next_index

    def held_match(self, node: str) -> int:
        """How far ``node`` has acknowledged more than this leader has on its own disk; 0: no
        more."""
        term, next_index = self._held_acks_in.get(node, (0, 1))
        return next_index - 1 if term == self.engine.term else 0

    def _up_reply(self, node: str, next_index: int, *, success: bool, reset: bool) -> None:
        up = {"type": "next_node_idx", "next_node_idx": next_index}
        self.engine.deliver(node, {**up, "success": success, "reset": reset})

    def keep_contact(self, node: str) -> None:
        """``node`` answers, though with nothing that the log should know of."""
        self._up_reply(node, 0, success=False, reset=False)

    def on_request_vote(self, node: str, message: wire.RequestVote) -> None:
        """Votes are asked for by members, and not while this node has promised its leader
        otherwise."""
        if not self._events.vote_allowed(message.transfer):
            return
        if message.term < self.engine.term:
            self._send(node, wire.TermNotice(self._group, self.engine.term))
            return
        up = {
            "type": "request_vote",
            "term": message.term,
            "last_log_index": message.last_index,
            "last_log_term": message.last_term,
        }
        self.engine.deliver(node, up)

    def on_vote(self, node: str, message: wire.Vote) -> None:
        """Each voter counts once a term (PySyncObj counts messages), and none that is known to have
        lost its memory since (see ``recovery``). PySyncObj cannot take a vote back, so they are
        held until a majority is beyond doubt."""
        self._network.learn(message.known)
        if message.term != self.engine.term:
            return
        if self._votes[0] != message.term:
            self._votes = (message.term, {})
            self._counted.clear()
        self._votes[1][node] = self._network.incarnation_of(node)
        good = [voter for voter, given_by in self._votes[1].items() if self._alive(voter, given_by)]
        if len(good) + 1 >= self.engine.majority:
            for voter in good:
                if voter not in self._counted:
                    self._counted.add(voter)
                    self.engine.deliver(voter, {"type": "response_vote", "term": message.term})

    def _alive(self, voter: str, incarnation: int) -> bool:
        """Whether no later incarnation of ``voter`` is known, which knew nothing of its vote."""
        return incarnation >= self._network.known.get(voter, 0)


def check_commands(entries: list[tuple[bytes, int]]) -> None:
    """Only no-ops and our own commands may enter a log: PySyncObj would unpickle any other."""
    for command, _ in entries:
        if command[:1] != COMMAND and command != NO_OP:
            raise wire.WireError(f"command of type {command[:1]!r}")
