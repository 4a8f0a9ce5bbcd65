"""From an operation to the leader of its group: here, or on another node in batches.

A ticket is the part of one front-end request that belongs to one group, or several such requests
of one turn of the event loop (``gathering``). It is given to the local replica, or sent with all
others of this turn to the node that leads; when the leader is unknown or has changed it waits. What
was surely not applied is tried again until the request's deadline; what may have been applied is
not, unless repeating it is harmless: reads, and writes with an idempotency key. What full disks
keep from being applied ends at once, as ``STORAGE_FULL``. At the deadline a ticket ends as
``UNAVAILABLE`` or, if any attempt may have had an effect, as ``UNKNOWN``; no future is left
hanging.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from raftcache.forwarding import Forwarder, Ticket, size_of
from raftcache.gathering import Done, Gathered, Gatherer, Joint
from raftcache.joint_reads import APART, JointReads
from raftcache.limits import Limits
from raftcache.metrics import GroupMetrics
from raftcache.ops import (
    Get,
    Once,
    Read,
    Result,
    Scan,
    Set,
    Status,
    Write,
)
from raftcache.partition import SlotMap
from raftcache.payloads import Forward, Kind, Uses, encode_payload
from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.peers import Peers
from raftcache.replica import Replica
from raftcache.requests import Call, Finish, Request
from raftcache.runtime import Runtime
from raftcache.scattering import alike, key_of, scatter
from raftcache.service import Consistency

AVOID_S: Final = 1.0
"""How long a node that did not answer is not asked, unless there is no other. It may lead all the
same, and be slow."""

_READ_KIND: Final = {
    Consistency.LEASE: Kind.LEASE_READ,
    Consistency.STALE: Kind.STALE_READ,
}


# Looking a member up in its enumeration takes a while; on the way of every operation it counts.
_READ: Final = Kind.READ
_WRITE: Final = Kind.WRITE
_APPLIED: Final = Outcome.APPLIED
_READS: Final = frozenset(Read.__args__)
_REPEATABLE: Final = _READS | {Once}
_APART: Final = frozenset((Once, Scan))
"""Operations that are tried again in another way than others, or take long."""
_UNAVAILABLE: Final = Result(Status.UNAVAILABLE)
_UNKNOWN: Final = Result(Status.UNKNOWN)
_STORAGE_FULL: Final = Result(Status.STORAGE_FULL)


class Router:
    """One node's router. ``replicas``: group -> the replica on this node; ``placement``: group ->
    its nodes, preferred leader first."""

    def __init__(
        self,
        node: str,
        runtime: Runtime,
        peers: Peers,
        slots: SlotMap,
        placement: Sequence[Sequence[str]],
        replicas: Mapping[int, Replica],
        metrics: Mapping[int, GroupMetrics],
        limits: Limits,
    ) -> None:
        self._node = node
        self._runtime = runtime
        self._peers = peers
        self._slots = slots
        self._placement = placement
        self._replicas = replicas
        self._limits = limits
        self._outstanding: dict[Ticket, None] = {}
        self._operations = 0
        self._bytes = 0
        self._parked: dict[int, list[Ticket]] = {}
        self._forwarder = Forwarder(
            runtime,
            peers,
            metrics,
            self._serve,
            self.leader_of,
            self._redirect,
            self._on_uses,
        )
        self._on_end = self._ended
        """Bound once, not for every ticket."""
        self._gatherer = Gatherer(
            runtime, self._ended, self._take_up, self._dispatch, self._take_apart
        )
        self._joint_reads = JointReads(
            runtime, replicas, slots.groups, self._dispatch, self._finish
        )
        self._hints: dict[int, str] = {}
        self._silent: dict[str, float] = {}
        """Nodes that leave unanswered what they were asked, and until when they are not asked."""
        self._transfers: list[tuple[int, Callable[[Outcome], None], float]] = []

    # -- what front ends ask

    def write(self, op: Write, deadline: float) -> asyncio.Future[Result]:
        """See ``Service.write``."""
        future: asyncio.Future[Result] = self._runtime.future()

        def finish(results: Sequence[Result]) -> None:
            if not future.done():
                future.set_result(results[0])

        self.submit((op,), deadline, finish)
        return future

    def read(
        self, key: bytes, deadline: float, consistency: Consistency, max_staleness: float | None
    ) -> asyncio.Future[Result]:
        """See ``Service.read``."""
        future: asyncio.Future[Result] = self._runtime.future()

        def finish(results: Sequence[Result]) -> None:
            if not future.done():
                future.set_result(results[0])

        if consistency is Consistency.LINEARIZABLE:
            self.submit((Get(key),), deadline, finish)
            return future
        group, kind = self._slots.group_of(key), _READ_KIND[consistency]
        ticket = Ticket(group, kind, (Get(key),), len(key), deadline, finish, self._on_end)
        ticket.max_staleness_s = max_staleness
        self._admit(ticket)
        return future

    def batch(
        self, ops: Sequence[Get | Write], deadline: float, atomic: bool
    ) -> asyncio.Future[list[Result]]:
        """See ``Service.batch``."""
        future: asyncio.Future[list[Result]] = self._runtime.future()

        def finish(results: Sequence[Result]) -> None:
            if not future.done():
                future.set_result(list(results))

        self.submit(ops, deadline, finish, atomic=atomic)
        return future

    def submit(
        self,
        ops: Sequence[Read | Write],
        deadline: float,
        finish: Callable[[Sequence[Result]], None],
        *,
        atomic: bool = False,
        group: int | None = None,
        max_staleness: float | None = None,
    ) -> None:
        """See ``Service.submit``."""
        if len(ops) == 1 and max_staleness is None:
            # The commonest case, in half of the time.
            op = ops[0]
            if type(op) is Get:
                group, size = self._slots.group_of(op.key), len(op.key)
                way = self._joint_reads.ways[group]
                if way == APART:
                    self._gather(group, _READ, ops, size, deadline, finish)
                else:
                    self._join(way, (group,), ops, size, deadline, finish)
                return
            if type(op) is Set:
                group, size = self._slots.group_of(op.key), len(op.key) + len(op.value)
                self._gather(group, _WRITE, ops, size, deadline, finish)
                return
        plain = not atomic and max_staleness is None and len(ops) > 0
        if plain and group is None and type(ops[0]) is Get and self._slots.groups > 1:
            kind, size = alike(ops)
            if kind is _READ:
                groups = [self._slots.group_of(cast(Get, op).key) for op in ops]
                way = self._joint_reads.way_of(groups)
                if way != APART:
                    self._join(way, groups, ops, size, deadline, finish)
                    return
        if group is None:
            group = self._only_group(ops)
        if group is not None and not atomic:
            # The common case, in a third of the time.
            self._start(group, ops, deadline, finish, max_staleness)
            return
        if plain:
            kind, size = alike(ops)
            if kind is not None:
                if self._full(len(ops), size):
                    finish([_UNAVAILABLE] * len(ops))
                else:
                    self._gatherer.spread(kind, ops, self._slots.group_of, deadline, finish)
                return
        for number, part in scatter(ops, self._slots.group_of, finish).items():
            asked = part.as_one() if atomic else part.ops
            self._start(number, asked, deadline, part.done, max_staleness)

    def _only_group(self, ops: Sequence[Read | Write]) -> int | None:
        """The group of all keys; ``None``: of several, or some operation has no key."""
        only, group_of = None, self._slots.group_of
        for op in ops:
            key = op.key if type(op) is Get or type(op) is Set else key_of(op)
            if key is None:
                return None
            group = group_of(key)
            if only is None:
                only = group
            elif group != only:
                return None
        return only

    def _start(
        self,
        group: int,
        ops: Sequence[Read | Write],
        deadline: float,
        done: Done,
        max_staleness_s: float | None,
    ) -> None:
        """Operations of one group; reads, where a bound is given, as old as that."""
        size, reading, plain, repeatable = 0, True, True, True
        for op in ops:
            if type(op) is Get:
                size += len(op.key)
            elif type(op) is Set:
                size += len(op.key) + len(op.value)
                reading = repeatable = False
            else:
                size += size_of(op)
                reading = reading and type(op) in _READS
                plain = plain and type(op) not in _APART
                repeatable = repeatable and type(op) in _REPEATABLE
        kind = _READ if reading else _WRITE
        if plain and (max_staleness_s is None or kind is _WRITE):
            self._gather(group, kind, ops, size, deadline, done)
            return
        if type(ops[0]) is Scan:
            kind = Kind.SCAN
        ticket = Ticket(group, kind, ops, size, deadline, done, self._on_end)
        ticket.repeatable = repeatable
        if max_staleness_s is not None and kind is _READ:
            ticket.kind, ticket.max_staleness_s = Kind.STALE_READ, max_staleness_s
        self._admit(ticket)

    def transfer(self, group: int, target: str, deadline: float) -> asyncio.Future[Result]:
        """See ``Service.transfer``."""
        future: asyncio.Future[Result] = self._runtime.future()

        def finish(results: Sequence[Result]) -> None:
            if not future.done():
                future.set_result(results[0])

        ticket = Ticket(group, Kind.TRANSFER, (Get(b""),), 0, deadline, finish, self._on_end)
        ticket.target = target
        self._admit(ticket)
        return future

    def leader_of(self, group: int) -> str | None:
        """Who leads ``group``, as far as known here."""
        replica = self._replicas.get(group)
        return self._hints.get(group) if replica is None else replica.raft.leader

    # -- a ticket's way

    def _admit(self, ticket: Ticket) -> None:
        if self._full(len(ticket.ops), ticket.size):
            ticket.finished = True
            ticket.answer([_UNAVAILABLE] * len(ticket.ops))
            return
        self._take_up(ticket)
        self._dispatch(ticket)

    def _gather(
        self,
        group: int,
        kind: Kind,
        ops: Sequence[Read | Write],
        size: int,
        deadline: float,
        done: Done,
    ) -> None:
        """The same for what may go as one with other requests of this turn."""
        if self._full(len(ops), size):
            done([_UNAVAILABLE] * len(ops))
        else:
            self._gatherer.add(group, kind, ops, size, deadline, done)

    def _join(
        self,
        way: int,
        groups: Sequence[int],
        ops: Sequence[Read | Write],
        size: int,
        deadline: float,
        done: Done,
    ) -> None:
        """The same for nothing but ``Get``, of these groups, with others that go the same way."""
        if self._full(len(ops), size):
            done([_UNAVAILABLE] * len(ops))
        else:
            joint = self._gatherer.joint(way, size, deadline)
            joint.groups.extend(groups)
            joint.add(ops, size, done)

    def _full(self, count: int, size: int) -> bool:
        """Whether so many more operations and bytes are too many; if not, they are counted."""
        limits = self._limits
        operations, total = self._operations + count, self._bytes + size
        full = operations > limits.max_queued_operations or total > limits.max_queued_bytes
        if full and self._outstanding:
            return True
        self._operations, self._bytes = operations, total
        return False

    def _take_up(self, ticket: Ticket) -> None:
        self._outstanding[ticket] = None

    def _take_apart(self, ticket: Gathered, parts: list[Ticket]) -> None:
        """Its requests go on by themselves."""
        ticket.finished = True
        del self._outstanding[ticket]
        self._outstanding.update(dict.fromkeys(parts))

    def _dispatch(self, ticket: Ticket) -> None:
        if ticket.finished:
            return
        if isinstance(ticket, Joint):
            self._joint_reads.begin(ticket)
            return
        group = ticket.group
        replica = self._replicas.get(group)
        if replica is not None:
            if replica.leader == self._node or ticket.kind is Kind.STALE_READ:
                self._give(replica, ticket)
                return
            if ticket.kind is _READ and not ticket.at_leader and replica.raft.close_behind:
                replica.read_here(ticket)
                return
        leader = self._leader(group, replica)
        if leader is not None and self._peers.connected(leader):
            self._forwarder.add(leader, ticket)
        else:
            self._parked.setdefault(group, []).append(ticket)

    def _leader(self, group: int, replica: Replica | None) -> str | None:
        if replica is not None:
            return replica.leader
        hint = self._hints.get(group)
        if hint is not None and self._peers.connected(hint) and hint not in self._silent:
            return hint
        connected = [node for node in self._placement[group] if self._peers.connected(node)]
        if connected:
            answering = [node for node in connected if node not in self._silent]
            hint = self._hints[group] = self._runtime.random.choice(answering or connected)
        return hint

    def _redirect(self, group: int, leader: str) -> None:
        """A node that does not lead ``group`` says who does."""
        if leader in self._placement[group]:
            self._hints[group] = leader

    def _look_elsewhere(self) -> None:
        """What a node does not answer and may be repeated is asked of another one: the present
        leader where that is known, else whoever answers."""
        forwarder, now = self._forwarder, self._runtime.now()
        silent = {node: until for node, until in self._silent.items() if until > now}
        silent |= dict.fromkeys(forwarder.silent(), now + AVOID_S)
        self._silent = silent
        if not silent:
            return

        def elsewhere(group: int, node: str) -> bool:
            replica = self._replicas.get(group)
            if replica is not None:
                return replica.leader is not None and replica.leader != node
            if node not in silent:
                return False
            others = [other for other in self._placement[group] if other not in silent]
            return any(self._peers.connected(other) for other in others)

        forwarder.take_back(elsewhere)

    def _give(self, replica: Replica, ticket: Ticket) -> None:
        ticket.exposed = ticket.kind is _WRITE
        ask(replica, ticket.kind, ticket, ticket.max_staleness_s, ticket.target, self)

    def _ended(self, ticket: Ticket, outcome: Outcome, results: Sequence[Result]) -> None:
        """An attempt ended."""
        ticket.exposed = False
        if ticket.finished:
            return
        if outcome is _APPLIED:
            self._finish(ticket, results)
            return
        if outcome is Outcome.FULL:
            if ticket.kind is _READ and len(parts := ticket.split()) > 1:
                # Only some of them asked for what would have to be written.
                for part in parts:
                    self._dispatch(part)
                return
            # Another try would not help before somebody has made room.
            self._finish(ticket, [_UNKNOWN if ticket.tainted else _STORAGE_FULL] * len(ticket.ops))
            return
        if outcome is Outcome.AT_LEADER:
            for part in ticket.split():
                part.at_leader = True
                self._dispatch(part)
            return
        self._hints.pop(ticket.group, None)
        if outcome is Outcome.UNKNOWN:
            if not ticket.repeatable:
                self._finish(ticket, [_UNKNOWN] * len(ticket.ops))
                return
            ticket.tainted = ticket.kind is Kind.WRITE
        self._parked.setdefault(ticket.group, []).append(ticket)

    def _finish(self, ticket: Ticket, results: Sequence[Result]) -> None:
        ticket.finished = True
        del self._outstanding[ticket]
        self._operations -= len(ticket.ops)
        self._bytes -= ticket.size
        ticket.answer(results)

    def on_payload(self, node: str, data: bytes) -> None:
        """A message of another node's router; ``WireError`` when it is none."""
        if self._silent:
            self._silent.pop(node, None)
        self._forwarder.on_payload(node, data)

    def _serve(self, message: Forward, finish: Finish) -> None:
        """What another node asks of the replica here."""
        replica = self._replicas.get(message.group)
        if replica is None:
            finish(Outcome.NOT_APPLIED, ())
            return
        staleness = message.max_staleness_ms / 1000 if message.max_staleness_ms >= 0 else None
        size = sum([size_of(op) for op in message.ops])
        request = Call(message.ops, size, finish)
        ask(replica, message.kind, request, staleness, message.target, self)

    def _on_uses(self, message: Uses) -> None:
        replica = self._replicas.get(message.group)
        if replica is not None:
            replica.note_uses(message.keys)

    def _tell_uses(self) -> None:
        """Leaders write down what was read here."""
        for group, replica in self._replicas.items():
            leader = replica.leader
            if leader == self._node:
                continue
            for keys in replica.take_uses():
                # What nobody can be told is forgotten: it would keep others from being noted.
                if leader is not None and self._peers.connected(leader):
                    message = wire.Payload(encode_payload(Uses(group, keys)))
                    self._peers.send(leader, message)

    def on_down(self, node: str) -> None:
        """The connection to ``node`` ended, with the answers that were to come on it."""
        self._silent.pop(node, None)
        self._forwarder.on_down(node)
        self._hints = {group: hint for group, hint in self._hints.items() if hint != node}

    # -- waiting

    def on_change(self, group: int) -> None:
        """The group has another leader, or none: what waited for that is tried again."""
        self._joint_reads.on_change(group)
        self._unpark(group)
        self._check_transfers()

    def _unpark(self, group: int) -> None:
        parked = self._parked.pop(group, None)
        if parked:
            for ticket in parked:
                self._dispatch(ticket)

    def on_timer(self) -> None:
        """To be called every half heartbeat: deadlines, and another try of what waits."""
        now = self._runtime.now()
        due = [ticket for ticket in self._outstanding if ticket.deadline <= now]
        for ticket in due:
            doubt = ticket.exposed or ticket.tainted
            self._finish(ticket, [_UNKNOWN if doubt else _UNAVAILABLE] * len(ticket.ops))
        self._joint_reads.on_timer()
        self._look_elsewhere()
        self._tell_uses()
        for group in list(self._parked):
            self._unpark(group)
        self._check_transfers()

    # -- transfers

    def begin_transfer(self, replica: Replica, target: str, finish: Callable[..., None]) -> None:
        """On the leader: hand over, and tell when it has happened or failed."""
        if not replica.raft.is_leader:
            finish(Outcome.NOT_APPLIED, ())
            return
        if target == self._node:
            finish(Outcome.APPLIED, (Result(Status.OK),))
            return
        replica.raft.transfer(target or None)

        def ended(outcome: Outcome) -> None:
            status = Status.OK if outcome is Outcome.APPLIED else Status.UNAVAILABLE
            finish(Outcome.APPLIED, (Result(status),))

        self._transfers.append((replica.id, ended, self._runtime.now()))

    def _check_transfers(self) -> None:
        for item in list(self._transfers):
            raft = self._replicas[item[0]].raft
            if not raft.is_leader and raft.leader is not None:
                self._transfers.remove(item)
                item[1](Outcome.APPLIED)
            elif not raft.transferring and raft.is_leader:
                self._transfers.remove(item)
                item[1](Outcome.NOT_APPLIED)

    def close(self) -> None:
        """Every ticket ends."""
        for ticket in list(self._outstanding):
            doubt = ticket.exposed or ticket.tainted
            self._finish(ticket, [_UNKNOWN if doubt else _UNAVAILABLE] * len(ticket.ops))


def ask(
    replica: Replica,
    kind: Kind,
    request: Request,
    max_staleness_s: float | None,
    target: str,
    router: Router,
) -> None:
    """Give a request to the replica on this node."""
    if kind is _READ or kind is Kind.SCAN:
        replica.read(request)
    elif kind is _WRITE:
        replica.write(request)
    elif kind is Kind.LEASE_READ:
        replica.read(request, lease=True)
    elif kind is Kind.STALE_READ:
        replica.read_stale(request, max_staleness_s)
    else:
        router.begin_transfer(replica, target, request.finish)
