"""Operations on their way to the node that leads their group, and the answers back.

All requests of one turn of the event loop for the same group, node and kind travel as one message;
after an answer they wait for a few turns, for those of clients that were just answered.
What was sent on a connection that then closed has an unknown outcome; what could not be sent was
surely not applied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from raftcache.lull import Lull
from raftcache.metrics import GroupMetrics
from raftcache.ops import Append, Atomic, Get, Once, Read, Result, Set, SetMany, SetRange, Write
from raftcache.payloads import (
    Forward,
    ForwardReply,
    Kind,
    Uses,
    decode_payload,
    encode_payload,
)
from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.peers import Peers
from raftcache.requests import Finish, Request
from raftcache.runtime import Runtime

SILENT_S: Final = 0.4
"""A node that has not answered for so long is not asked while another may know better; about what
the others take to replace a leader that is cut off."""
MAX_FORWARD_BYTES: Final = 4 * 1024 * 1024
"""Of keys and values in one forwarded message; one larger request still goes whole."""


_WRITE: Final = Kind.WRITE
_APART: Final = frozenset((Kind.STALE_READ, Kind.TRANSFER, Kind.SCAN))
"""Each has terms, or takes time, of its own."""


class Ticket(Request):
    """The part of a request that belongs to one group, through all attempts at it, of which there
    is one at a time. ``done`` is called once, with as many results as operations; ``ended`` hears
    how each attempt ended. ``alone``: not to be sent with others. ``at_leader``: to be answered
    nowhere else."""

    __slots__ = (
        "alone",
        "at_leader",
        "deadline",
        "done",
        "ended",
        "exposed",
        "finished",
        "group",
        "kind",
        "max_staleness_s",
        "repeatable",
        "tainted",
        "target",
    )

    def __init__(
        self,
        group: int,
        kind: Kind,
        ops: Sequence[Read | Write],
        size: int,
        deadline: float,
        done: Callable[[Sequence[Result]], None],
        ended: Ended,
    ) -> None:
        self.group = group
        self.kind = kind
        self.ops: Sequence[Read | Write] = ops
        self.size = size
        self.deadline = deadline
        self.done = done
        self.ended = ended
        self.finished = self.alone = self.at_leader = False
        self.exposed = False
        """The attempt under way may have an effect."""
        self.tainted = False
        """An earlier attempt may have had an effect."""
        self.repeatable = kind is not _WRITE
        self.max_staleness_s: float | None = None
        self.target = ""

    def finish(self, outcome: Outcome, results: Sequence[Result]) -> None:
        """An attempt ended."""
        self.ended(self, outcome, results)

    def split(self) -> Sequence[Ticket]:
        """See ``Request``."""
        return () if self.finished else (self,)

    def answer(self, results: Sequence[Result]) -> None:
        """The last attempt ended, or none is made any more."""
        self.done(results)


Ended = Callable[[Ticket, Outcome, Sequence[Result]], None]


class _Sent(NamedTuple):
    """A message that waits for its answer. ``at``: when it was sent; ``gone``: tickets that do not
    wait for it any more."""

    number: int
    node: str
    group: int
    tickets: list[Ticket]
    at: float
    gone: set[Ticket]

    @property
    def waiting(self) -> list[Ticket]:
        return [ticket for ticket in self.tickets if ticket not in self.gone]


class Forwarder:
    """One node's messages to other nodes' routers. ``serve`` gives what other nodes ask to the
    replica here, ``leader_of`` says who leads a group, ``redirect`` hears what others say of that
    when they do not, and ``uses`` hears what was read elsewhere."""

    def __init__(
        self,
        runtime: Runtime,
        peers: Peers,
        metrics: Mapping[int, GroupMetrics],
        serve: Callable[[Forward, Finish], None],
        leader_of: Callable[[int], str | None],
        redirect: Callable[[int, str], None],
        uses: Callable[[Uses], None],
    ) -> None:
        self._runtime = runtime
        self._peers = peers
        self._metrics = metrics
        self._serve = serve
        self._leader_of = leader_of
        self._redirect = redirect
        self._uses = uses
        self._outbox: dict[tuple[str, int, Kind], list[Ticket]] = {}
        self._flushing = False
        self._lull = Lull(runtime, self._schedule)
        self._sent: dict[int, _Sent] = {}
        self._next_id = 0

    def add(self, node: str, ticket: Ticket) -> None:
        """Send with what else goes there in this turn."""
        self._outbox.setdefault((node, ticket.group, ticket.kind), []).append(ticket)
        self._schedule()

    def _schedule(self) -> None:
        if self._outbox and not self._flushing:
            self._flushing = True
            self._runtime.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._lull.active:
            return
        outbox, self._outbox = self._outbox, {}
        for (node, group, kind), tickets in outbox.items():
            if kind in _APART:
                for ticket in tickets:
                    self._send(node, group, kind, [ticket])
                continue
            run: list[Ticket] = []
            size = 0
            for ticket in tickets:
                if ticket.alone:
                    self._send(node, group, kind, [ticket])
                    continue
                if run and size + ticket.size > MAX_FORWARD_BYTES:
                    self._send(node, group, kind, run)
                    run, size = [], 0
                run.append(ticket)
                size += ticket.size
            self._send(node, group, kind, run)

    def _send(self, node: str, group: int, kind: Kind, tickets: list[Ticket]) -> None:
        tickets = [ticket for ticket in tickets if not ticket.finished]
        if not tickets:
            return
        self._next_id += 1
        forward = Forward(self._next_id, group, kind, [op for t in tickets for op in t.ops])
        if kind is Kind.STALE_READ and tickets[0].max_staleness_s is not None:
            forward.max_staleness_ms = int(tickets[0].max_staleness_s * 1000)
        forward.target = tickets[0].target
        if self._peers.send(node, wire.Payload(encode_payload(forward))):
            self._sent[self._next_id] = _Sent(
                self._next_id, node, group, tickets, self._runtime.now(), set()
            )
            self._metrics[group].forwarded += len(forward.ops)
            for ticket in tickets:
                ticket.exposed = kind is Kind.WRITE
        else:
            for ticket in tickets:
                ticket.finish(Outcome.NOT_APPLIED, ())

    def on_payload(self, node: str, data: bytes) -> None:
        """A message of another node's router; ``WireError`` when it is none."""
        message = decode_payload(data)
        if isinstance(message, Forward):
            self._on_forward(node, message)
        elif isinstance(message, ForwardReply):
            self._on_reply(node, message)
        else:
            self._uses(message)

    def _on_forward(self, node: str, message: Forward) -> None:
        incarnation = self._peers.incarnation_of(node)

        def finish(outcome: Outcome, results: Sequence[Result]) -> None:
            if self._peers.incarnation_of(node) != incarnation:
                return  # who asked is dead, and its successor numbers its requests from 1 again
            reply = ForwardReply(message.id, outcome.value, list(results))
            if outcome is not Outcome.APPLIED:
                reply.leader = self._leader_of(message.group) or ""
            self._peers.send(node, wire.Payload(encode_payload(reply)))

        self._serve(message, finish)

    def _on_reply(self, node: str, message: ForwardReply) -> None:
        sent = self._sent.get(message.id)
        if sent is None or sent.node != node:
            return  # taken back, or asked by an earlier process
        tickets = sent.tickets
        try:
            outcome = Outcome(message.outcome)
        except ValueError:
            raise wire.WireError(f"outcome {message.outcome}") from None
        results, at = message.results, 0
        if outcome is Outcome.APPLIED and len(results) != sum(len(t.ops) for t in tickets):
            raise wire.WireError(f"{len(results)} results from {node!r}")
        del self._sent[message.id]
        self._lull.begin()
        for ticket in tickets:
            count = len(ticket.ops)
            if ticket not in sent.gone:
                ticket.finish(outcome, results[at : at + count])
            at += count
        if message.leader:
            self._redirect(sent.group, message.leader)

    def on_down(self, node: str) -> None:
        """The connection to ``node`` ended, with the answers that were to come on it."""
        for number in [i for i, sent in self._sent.items() if sent.node == node]:
            for ticket in self._sent.pop(number).waiting:
                ticket.finish(Outcome.UNKNOWN, ())

    def silent(self) -> set[str]:
        """Nodes that have left something unanswered for longer than answers take: they may be cut
        off, and their groups have other leaders, long before their connections are given up."""
        limit = self._runtime.now() - SILENT_S
        late = [sent for sent in self._sent.values() if sent.at <= limit]
        for sent in late:
            if all(ticket.finished for ticket in sent.tickets):
                del self._sent[sent.number]  # nobody waits for that any more
        late = [sent for sent in late if sent.number in self._sent]
        return {sent.node for sent in late if sent.tickets[0].kind not in _APART}

    def take_back(self, elsewhere: Callable[[int, str], bool]) -> None:
        """End attempts, as of unknown outcome, that wait for long, may be made again without harm,
        and might be answered sooner by another node: ``elsewhere(group, node)`` says that of where
        they are. What cannot be repeated stays."""
        limit = self._runtime.now() - SILENT_S
        for number, sent in list(self._sent.items()):
            if sent.at > limit or not elsewhere(sent.group, sent.node):
                continue
            back = [ticket for ticket in sent.waiting if ticket.repeatable]
            sent.gone.update(back)
            if len(sent.gone) == len(sent.tickets):
                del self._sent[number]
            for ticket in back:
                ticket.finish(Outcome.UNKNOWN, ())


def size_of(op: Read | Write) -> int:
    """Bytes of keys and values, the bulk of what an operation takes anywhere."""
    if type(op) is Get:
        return len(op.key)
    if isinstance(op, (Set, Append, SetRange)):
        return len(op.key) + len(op.value)
    if isinstance(op, SetMany):
        return sum(len(key) + len(value) for key, value in op.items)
    if isinstance(op, Once):
        return len(op.session) + size_of(op.op)
    if isinstance(op, Atomic):
        return sum(size_of(each) for each in op.ops)
    return len(getattr(op, "key", b""))
