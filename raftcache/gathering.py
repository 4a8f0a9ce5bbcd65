"""Requests of one turn of the event loop that take the same way, as one ticket.

Fifty clients that ask one thing each need not cost a router more than one client that asks fifty:
what they ask of one group in one turn becomes one log entry, or one read, anyway. So it is sent,
given to the replica and ended as one, and is taken apart where the fate of one request need not be
the others'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftcache.forwarding import Ended, Ticket, size_of
from raftcache.ops import Get, Read, Result, Set, Write
from raftcache.payloads import Kind
from raftcache.runtime import Runtime
from raftcache.scattering import Share, Whole

MAX_GATHERED_OPERATIONS: Final = 1024
MAX_GATHERED_BYTES: Final = 256 * 1024
"""Of keys and values; one larger request still goes whole, and what a request for several groups
asks of one of them goes with what is there, as long as that is less."""
NO_GROUP: Final = -1
SAME_DEADLINE_S: Final = 0.005
"""Requests whose deadlines differ by less have that of the first."""

Done = Callable[[Sequence[Result]], None]


class Gathered(Ticket):
    """``parts``: of each request, how many operations, and who waits for their results; of one that
    has others elsewhere, its share."""

    __slots__ = ("_gathered", "_open", "_replace", "parts")

    def __init__(
        self,
        group: int,
        kind: Kind,
        deadline: float,
        ended: Ended,
        replace: Callable[[Gathered, list[Ticket]], None],
    ) -> None:
        self._gathered: list[Read | Write] = []
        super().__init__(group, kind, self._gathered, 0, deadline, _nobody, ended)
        self.parts: list[tuple[int, Done] | Share] = []
        self._open: Share | None = None
        """Of the request that was added to last."""
        self._replace = replace

    def add(self, ops: Sequence[Read | Write], size: int, done: Done) -> None:
        """One more request."""
        self._gathered.extend(ops)
        self.size += size
        self.parts.append((len(ops), done))

    def add_one(self, op: Read | Write, size: int, whole: Whole, position: int) -> None:
        """One operation of a request for several groups."""
        share = self._open
        if share is None or share.whole is not whole:
            share = self._open = Share(whole)
            self.parts.append(share)
        share.positions.append(position)
        self._gathered.append(op)
        self.size += size

    def shares(self, whole: Whole) -> bool:
        """Whether that request was added to last."""
        return self._open is not None and self._open.whole is whole

    def answer(self, results: Sequence[Result]) -> None:
        """See ``Ticket``. That one part's end fails is no reason to leave others waiting
        (``calls.for_each``)."""
        failure: Exception | None = None
        at = 0
        for part in self.parts:
            start = at
            try:
                if isinstance(part, Share):
                    at += len(part.positions)
                    part.place(results, start)
                else:
                    count, done = part
                    at += count
                    done(results[start:at])
            except Exception as error:
                failure = error
        if failure is not None:
            raise failure

    def split(self) -> Sequence[Ticket]:
        """A ticket for each request instead of this one, which is finished."""
        if self.finished:
            return ()  # at its deadline, while it waited
        if len(self.parts) < 2:
            return (self,)
        tickets: list[Ticket] = []
        at = 0
        for part in self.parts:
            count, done = (len(part.positions), part.done) if isinstance(part, Share) else part
            ops = self.ops[at : at + count]
            at += count
            size = sum([size_of(op) for op in ops])
            ticket = Ticket(self.group, self.kind, ops, size, self.deadline, done, self.ended)
            ticket.exposed, ticket.tainted, ticket.alone = self.exposed, self.tainted, True
            tickets.append(ticket)
        self._replace(self, tickets)
        return tickets


class Joint(Gathered):
    """Reads of one turn, ``Get`` alone, of several groups (``joint_reads`` says which go together):
    answered in their order, with nothing taken apart, once all groups that they concern may be
    read. ``groups``: that of each operation. ``asked``: groups that were asked; ``left``: those
    that have not answered."""

    __slots__ = ("asked", "groups", "left", "started")

    def __init__(
        self,
        deadline: float,
        ended: Ended,
        replace: Callable[[Gathered, list[Ticket]], None],
        started: float,
    ) -> None:
        super().__init__(NO_GROUP, Kind.READ, deadline, ended, replace)
        self.groups: list[int] = []
        self.asked: list[int] = []
        self.left = 0
        self.started = started

    def split(self) -> Sequence[Ticket]:
        """A ticket for each request and group instead of this one, which is finished."""
        if self.finished:
            return ()
        tickets: list[Ticket] = []
        at = 0
        for part in self.parts:
            assert not isinstance(part, Share)
            count, done = part
            whole, shares = Whole(count, done), dict[int, tuple[Share, list[Read | Write]]]()
            for place in range(count):
                group, op = self.groups[at + place], self.ops[at + place]
                if group not in shares:
                    shares[group] = (Share(whole), [])
                share, ops = shares[group]
                share.positions.append(place)
                ops.append(op)
            at += count
            for group, (share, ops) in shares.items():
                size = sum([size_of(op) for op in ops])
                tickets.append(
                    Ticket(group, self.kind, ops, size, self.deadline, share.done, self.ended)
                )
        self._replace(self, tickets)
        return tickets


class Gatherer:
    """``begun`` and ``complete`` are given each ticket: at once, and at the end of the turn."""

    def __init__(
        self,
        runtime: Runtime,
        ended: Ended,
        begun: Callable[[Gathered], None],
        complete: Callable[[Gathered], None],
        replace: Callable[[Gathered, list[Ticket]], None],
    ) -> None:
        self._runtime = runtime
        self._ended = ended
        self._begun = begun
        self._complete = complete
        self._replace = replace
        self._open: dict[Kind, dict[int, Gathered]] = {Kind.READ: {}, Kind.WRITE: {}}
        self._turn: list[Gathered] = []
        self._joint: dict[int, Joint] = {}

    def joint(self, way: int, size: int, deadline: float) -> Joint:
        """What takes linearizable reads of one key each, of so many bytes, in this turn, with
        others of that number (``joint_reads``): to be added to it, and their groups."""
        joint = self._joint.get(way)
        if joint is None or not (
            joint.size + size <= MAX_GATHERED_BYTES and _takes_more(joint, deadline)
        ):
            joint = Joint(deadline, self._ended, self._replace, self._runtime.now())
            self._joint[way] = joint
            self._add_to_turn(joint)
        return joint

    def add(
        self,
        group: int,
        kind: Kind,
        ops: Sequence[Read | Write],
        size: int,
        deadline: float,
        done: Done,
    ) -> None:
        """Linearizable reads, or writes of which none may be repeated."""
        tickets = self._open[kind]
        ticket = tickets.get(group)
        if ticket is None or not (
            ticket.size + size <= MAX_GATHERED_BYTES and _takes_more(ticket, deadline)
        ):
            ticket = self._begin(group, kind, deadline)
        ticket.add(ops, size, done)

    def spread(
        self,
        kind: Kind,
        ops: Sequence[Read | Write],
        group_of: Callable[[bytes], int],
        deadline: float,
        done: Done,
    ) -> None:
        """A request for several groups, of nothing but ``Get``, or nothing but ``Set``. What it
        asks of one group stays together, so that its writes take effect in their order."""
        tickets, whole = self._open[kind], Whole(len(ops), done)
        for position, op in enumerate(ops):
            if type(op) is Set:
                size = len(op.key) + len(op.value)
            else:
                assert type(op) is Get
                size = len(op.key)
            group = group_of(op.key)
            ticket = tickets.get(group)
            if ticket is None or not (ticket.shares(whole) or _takes_more(ticket, deadline)):
                ticket = self._begin(group, kind, deadline)
            ticket.add_one(op, size, whole, position)

    def _begin(self, group: int, kind: Kind, deadline: float) -> Gathered:
        ticket = Gathered(group, kind, deadline, self._ended, self._replace)
        self._open[kind][group] = ticket
        self._add_to_turn(ticket)
        return ticket

    def _add_to_turn(self, ticket: Gathered) -> None:
        self._begun(ticket)
        if not self._turn:
            self._runtime.call_soon(self._end_turn)
        self._turn.append(ticket)

    def _end_turn(self) -> None:
        turn, self._turn = self._turn, []
        self._joint.clear()
        for tickets in self._open.values():
            tickets.clear()
        for ticket in turn:
            self._complete(ticket)


def _nobody(_results: Sequence[Result]) -> None:
    raise AssertionError("the parts of a gathered ticket are answered, not the ticket")


def _takes_more(ticket: Gathered, deadline: float) -> bool:
    """Whether another request may join it, as far as that does not hang on its size."""
    return (
        not ticket.finished
        and len(ticket.ops) < MAX_GATHERED_OPERATIONS
        and ticket.size < MAX_GATHERED_BYTES
        and -SAME_DEADLINE_S < deadline - ticket.deadline < SAME_DEADLINE_S
    )
