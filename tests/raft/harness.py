"""Raft groups under a microscope: every message waits until the test lets it go.

``Cluster`` is a few real ``RaftGroup``s on virtual time and simulated disks. What they send is kept
in one FIFO queue per direction, as on one connection, and moves only when the test says so:
``deliver`` hands over particular messages, ``flow`` lets time pass and everything arrive. So a test
reads as the story of one schedule: who was cut off, which message was late, who crashed.

Whatever happens, some promises are watched: no two replicas apply different commands at one
index, no state goes backwards, no term has two leaders, and no callback raises. A cluster that is
crippled on purpose (``crippled``) goes on after breaking one; ``broken`` says which.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.network import Network as SimNetwork
from jepsen_like.sim.runtime import SimRuntime
from jepsen_like.sim.scheduler import Scheduler
from raftcache.raft import wire
from raftcache.raft.clock import GroupClock
from raftcache.raft.durable import DurableJournal
from raftcache.raft.engine import COMMAND
from raftcache.raft.group import Outcome, RaftGroup
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.pace import Pace

STEP_S = 0.001
"""``flow`` moves every message one hop in so much virtual time."""
GROUP = 7


class ListMachine:
    """A state machine whose state is the list of what was applied."""

    def __init__(self, cluster: Cluster, clock: GroupClock) -> None:
        self.state: list[bytes] = []
        self.index = 0
        self.clock = clock
        self._cluster = cluster

    def apply(self, index: int, payload: memoryview, hint: Any) -> tuple[int, Any]:
        command = bytes(payload)
        if index <= self.index:
            self._cluster.breaks(f"applied twice: {index} after {self.index}")
        agreed = self._cluster.decided.setdefault(index, command)
        if agreed != command:
            self._cluster.breaks(f"two commands at index {index}: {agreed!r} and {command!r}")
        self.index = index
        self.state.append(command)
        return index, hint

    def snapshot(self) -> Iterator[bytes]:
        data = msgspec.msgpack.encode((self.index, self.state))
        return iter([data[i : i + 64] for i in range(0, len(data), 64)])

    def prepare(self, data: bytes) -> tuple[int, list[bytes]]:
        try:
            return msgspec.msgpack.decode(data, type=tuple[int, list[bytes]])
        except msgspec.MsgspecError as error:
            raise ValueError(str(error)) from error

    def install(self, prepared: tuple[int, list[bytes]]) -> None:
        if prepared[0] < self.index:
            self._cluster.breaks(f"the state went backwards, from {self.index} to {prepared[0]}")
        self.index, self.state = prepared[0], list(prepared[1])


class Proposal:
    """What became of a proposal. ``outcome`` is ``None`` while it is open."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.outcome: Outcome | None = None
        self.result: Any = None

    def __call__(self, outcome: Outcome, result: Any) -> None:
        assert self.outcome is None, f"{self.payload!r} ended twice"
        self.outcome, self.result = outcome, result


class Read:
    """A read barrier. ``confirmed`` is ``None`` while it is open; ``seen`` is the state that a read
    would have returned."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.confirmed: bool | None = None
        self.seen: list[bytes] = []

    def __call__(self, confirmed: bool) -> None:
        assert self.confirmed is None, "a read ended twice"
        self.confirmed = confirmed
        self.seen = list(self._member.machine.state)


class Member:
    """One incarnation of a node with its one group. Also the group's ``Network``."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster = cluster
        self.name = name
        self.runtime = cluster.make_runtime(name)
        self.incarnation = self.runtime.process.incarnation
        self.known: dict[str, int] = {}
        self.pace = Pace(self.runtime)
        self.journal = cluster.make_journal(self.runtime)
        self.clock = GroupClock(self.runtime.now, cluster.options.max_clock_drift)
        self.machine = cluster.machine_type(cluster, self.clock)
        self.group = RaftGroup(
            GROUP,
            name,
            cluster.names,
            self.runtime,
            cluster.options,
            self.journal,
            self.machine,
            self,
            self.clock,
            self._changed,
        )
        self.runtime.call_soon(self._timer)

    def _timer(self) -> None:
        self.group.on_timer()
        self.runtime.call_later(self.cluster.options.heartbeat_s / 2, self._timer)

    def _changed(self) -> None:
        if self.group.is_leader:
            leader = self.cluster.leaders.setdefault(self.group.engine.term, self.name)
            if leader != self.name:
                self.cluster.breaks(f"two leaders in term {self.term}: {leader} and {self.name}")

    def send(self, node: str, message: wire.Message) -> bool:
        return self.cluster.post(self.name, node, message)

    def connected(self, node: str) -> bool:
        return self.cluster.joined(self.name, node)

    def incarnation_of(self, node: str) -> int:
        return self.cluster.members[node].incarnation if self.connected(node) else 0

    def learn(self, known: dict[str, int]) -> None:
        for node, incarnation in known.items():
            if node != self.name:
                self.known[node] = max(incarnation, self.known.get(node, 0))

    # -- shorthand

    @property
    def leads(self) -> bool:
        return self.group.is_leader

    @property
    def term(self) -> int:
        return self.group.engine.term

    @property
    def commit(self) -> int:
        return self.group.engine.commit_index

    @property
    def log(self) -> list[tuple[int, bytes]]:
        """(term, payload) of every entry kept, no-ops included."""
        return [(term, command[1:]) for command, _, term in self.journal[:]]

    @property
    def state(self) -> list[bytes]:
        return self.machine.state

    def propose(self, *payloads: bytes) -> list[Proposal]:
        proposals = [Proposal(payload) for payload in payloads]
        for proposal in proposals:
            self.group.propose(proposal.payload, None, proposal)
        self.cluster.turn()
        return proposals

    def read(self, *, lease: bool = False) -> Read:
        read = Read(self)
        self.group.confirm_read(read, lease=lease)
        self.cluster.turn()
        return read

    def read_here(self) -> Read:
        """A linearizable read, whoever leads."""
        read = Read(self)
        self.group.confirm_here(read)
        self.cluster.turn()
        return read

    def read_fresh(self, max_staleness_s: float) -> Read:
        read = Read(self)
        self.group.confirm_fresh(max_staleness_s, read)
        self.cluster.turn()
        return read


class Cluster:
    """``names`` are one letter per node: ``Cluster("abc")``. All are up and connected. ``rates``:
    how fast the clocks run, where not right. ``machine_type``: what is replicated."""

    def __init__(
        self,
        names: str = "abc",
        *,
        durable: bool = False,
        options: RaftOptions | None = None,
        seed: int = 1,
        start: bool = True,
        crippled: bool = False,
        rates: Mapping[str, float] | None = None,
        machine_type: type[ListMachine] = ListMachine,
    ) -> None:
        self.machine_type = machine_type
        self.crippled = crippled
        self.broken: list[str] = []
        """Promises broken so far, in words."""
        self.rates = rates or {}
        self.names = tuple(names)
        self.durable = durable
        self.options = options or RaftOptions()
        self.scheduler = Scheduler(seed)
        self.network = SimNetwork(self.scheduler)
        self.disks = {name: SimDisk(self.scheduler.generator(f"disk/{name}")) for name in names}
        self.decided: dict[int, bytes] = {}
        self.leaders: dict[int, str] = {}
        self.queues: dict[tuple[str, str], deque[wire.Message]] = {
            (x, y): deque() for x in names for y in names if x != y
        }
        self.held: set[tuple[str, str]] = set()
        """Directions in which ``flow`` delivers nothing: messages wait."""
        self.sent: list[tuple[str, str, wire.Message]] = []
        """Everything ever sent, in order."""
        self._joined: set[frozenset[str]] = set()
        self._hung_up: set[tuple[str, str]] = set()
        self.members: dict[str, Member] = {}
        if start:
            for name in names:
                self.start(name)

    def __getitem__(self, name: str) -> Member:
        return self.members[name]

    @property
    def now(self) -> float:
        return self.scheduler.now

    # -- processes

    def make_runtime(self, name: str) -> SimRuntime:
        rate = self.rates.get(name, 1.0)
        return SimRuntime(self.scheduler, self.network, self.disks[name], name, rate)

    def make_journal(self, runtime: SimRuntime) -> Journal:
        return DurableJournal.open(runtime, "/data/group") if self.durable else Journal()

    def start(self, name: str, *, connect: bool = True) -> Member:
        """Start (a new incarnation of) ``name``; with ``connect``, joined to all that are up."""
        member = self.members[name] = Member(self, name)
        if connect:
            for other in self.members:
                if other != name:
                    self.join(name, other)
        self.turn()
        return member

    def crash(self, name: str, *, power: bool = False) -> None:
        """Kill the process; what it sent and nobody received is lost with its connections."""
        member = self.members.pop(name)
        member.runtime.process.crash(power)
        for other in list(self.members):
            self.cut(name, other)

    # -- connections

    def joined(self, name: str, other: str) -> bool:
        """Whether ``name`` takes its connection to ``other`` for up."""
        return frozenset((name, other)) in self._joined and (name, other) not in self._hung_up

    def join(self, name: str, other: str) -> None:
        """A new connection; a present one ends first."""
        self.cut(name, other)
        self._joined.add(frozenset((name, other)))
        for one, two in ((name, other), (other, name)):
            self.members[one].learn({two: self.members[two].incarnation})
        self.members[name].group.on_up(other)
        self.members[other].group.on_up(name)
        self.turn()

    def cut(self, name: str, other: str) -> None:
        """End the connection; both ends hear of it, and what was under way is lost."""
        pair = frozenset((name, other))
        self._hung_up -= {(name, other), (other, name)}
        if pair in self._joined:
            self._joined.remove(pair)
            self.queues[name, other].clear()
            self.queues[other, name].clear()
            for one, two in ((name, other), (other, name)):
                if one in self.members:
                    self.members[one].group.on_down(two)
            self.turn()

    def hang_up(self, name: str, other: str) -> None:
        """``name`` sees its connection to ``other`` end; ``other`` does not notice."""
        self._hung_up.add((name, other))
        self.queues[name, other].clear()
        self.queues[other, name].clear()
        self.members[name].group.on_down(other)
        self.turn()

    def isolate(self, name: str) -> None:
        """``name`` can neither send nor receive, and no connection is seen to end."""
        self.held |= {pair for pair in self.queues if name in pair}

    def heal(self) -> None:
        """What was held goes on its way. Connections that were cut are made anew."""
        self.held.clear()
        for name in self.members:
            for other in self.members:
                if name < other and not self.joined(name, other):
                    self.join(name, other)

    def reconnect(self, name: str) -> None:
        """End an isolation as TCP would: with new connections, what was held is lost."""
        self.held -= {pair for pair in self.queues if name in pair}
        for other in self.members:
            if other != name:
                self.join(name, other)

    # -- messages

    def post(self, source: str, target: str, message: wire.Message) -> bool:
        if not self.joined(source, target) or target not in self.members:
            return False
        if (target, source) in self._hung_up:
            return True
        # Over the wire and back, so that no object is shared.
        self.sent.append((source, target, message))
        self.queues[source, target].extend(
            wire.decode_messages(wire.encode_body([message]))  # type: ignore[arg-type]
        )
        return True

    def deliver(self, source: str, target: str, count: int | None = None) -> int:
        """Hand over the oldest ``count`` messages (default: those sent so far)."""
        queue = self.queues[source, target]
        for done in range(len(queue) if count is None else count):
            if not queue:
                return done
            message = queue.popleft()
            self.members[target].group.on_message(source, message)  # type: ignore[arg-type]
            self.turn()
        return len(queue) if count is None else count

    def pending(self, source: str, target: str, kind: type | None = None) -> list[Any]:
        """What waits in that direction."""
        return [m for m in self.queues[source, target] if kind is None or isinstance(m, kind)]

    def drop(self, source: str, target: str, kind: type | None = None) -> list[Any]:
        """Lose what waits in that direction, or one kind of it."""
        dropped = self.pending(source, target, kind)
        kept = [m for m in self.queues[source, target] if m not in dropped]
        self.queues[source, target] = deque(kept)
        return dropped

    def count_sent(self, source: str, target: str, kind: type) -> int:
        return sum(s == source and t == target and isinstance(m, kind) for s, t, m in self.sent)

    # -- time

    def turn(self) -> None:
        """Let everything run that is due at the present moment."""
        self.scheduler.run(self.scheduler.now)
        self.check()

    def breaks(self, promise: str) -> None:
        """A promise was broken."""
        self.broken.append(promise)

    def check(self) -> None:
        violations = self.scheduler.violations
        self.broken += [str(violation) for violation in violations]
        violations.clear()
        assert self.crippled or not self.broken, "\n".join(self.broken)

    def pass_time(self, seconds: float) -> None:
        """Clocks and timers go on; no message arrives."""
        self.scheduler.run(self.scheduler.now + seconds)
        self.check()

    def hop(self) -> None:
        """Everything that waits arrives (but for ``held`` directions); one step of time passes."""
        for pair in [pair for pair in self.queues if pair not in self.held]:
            if pair[1] in self.members and self.queues[pair]:
                self.deliver(*pair)
        self.pass_time(STEP_S)

    def flow(self, seconds: float) -> None:
        """Time passes and messages arrive."""
        for _ in range(round(seconds / STEP_S)):
            self.hop()

    def until(self, predicate: Callable[[], bool], limit_s: float = 10.0) -> float:
        """Like ``flow``, until ``predicate()``; returns how long it took in virtual seconds."""
        started = self.now
        while not predicate():
            assert self.now - started < limit_s, f"not within {limit_s} s"
            self.hop()
        return self.now - started

    # -- whole-cluster shorthand

    @property
    def leader(self) -> Member | None:
        """The leader of the highest term, by its own account."""
        leaders = [m for m in self.members.values() if m.leads]
        return max(leaders, key=lambda m: m.term, default=None)

    def elect(self, name: str | None = None) -> Member:
        """Wait for a leader that is ready; with ``name``, hand leadership over to that one."""
        self.until(lambda: self.leader is not None and self.leader.group.leader_ready)
        leader = self.leader
        assert leader is not None
        if name is not None and leader.name != name:
            leader.group.transfer(name)
            self.until(lambda: self[name].leads and self[name].group.leader_ready)
            leader = self[name]
        self.flow(0.06)
        return leader

    def write(self, name: str, *payloads: bytes) -> list[Proposal]:
        """Propose at ``name`` and wait until all are applied there."""
        proposals = self[name].propose(*payloads)
        self.until(lambda: all(p.outcome is not None for p in proposals))
        assert all(p.outcome is Outcome.APPLIED for p in proposals), [p.outcome for p in proposals]
        return proposals

    def converge(self, limit_s: float = 10.0) -> None:
        """Wait until every replica has applied the same, and the leader has nothing more."""
        self.until(self._same, limit_s)

    def _same(self) -> bool:
        states = [member.state for member in self.members.values()]
        commits = {member.commit for member in self.members.values()}
        leader = self.leader
        if leader is None or commits != {leader.journal.last_index}:
            return False
        return all(state == states[0] for state in states)


def outcomes(proposals: Sequence[Proposal]) -> list[Outcome | None]:
    return [proposal.outcome for proposal in proposals]


def command(payload: bytes) -> bytes:
    """The log entry of a proposal."""
    return COMMAND + payload
