"""A cluster of real nodes (groups and router, no front end) under simulated effects.

Nodes are ``raftcache.node.Node`` as in production, but for the sizes at which logs are trimmed,
segments end and snapshots are taken, which are small in most of the runs, so that all of it happens
often, and for the memory that they may use, which in some runs is so little that entries are
evicted.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import structlog

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.network import Network
from jepsen_like.sim.runtime import SimRuntime
from jepsen_like.sim.scheduler import Process, Scheduler
from raftcache.config import Member, Settings
from raftcache.node import Node
from raftcache.raft import durable, segments, wire
from raftcache.raft import group as raft_group
from raftcache.raft.durable import CorruptJournalError
from raftcache.raft.group import RaftGroup
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.storage import StorageError
from raftcache.replica import Replica

PEER_PORT: Final = 7000
RESTART_S: Final = 0.5
"""After so long a process that ended on its own is started again."""
SMALL_MEMORY: Final = 1024 * 1024
"""The least that a node may be configured with."""
USUAL_MEMORY: Final = 256 * 1024 * 1024
DUPLICATES_AFTER_S: Final = (0.0, 0.001, 0.02, 0.3, 2.0)
"""How late a message is delivered again."""


@lru_cache(maxsize=64)
def settings_of(
    node: str,
    names: tuple[str, ...],
    groups: int,
    durable_mode: bool,
    small_memory: bool,
    replication: int,
) -> Settings:
    """The settings of one node; the same objects for every run of a process (they cost 1 ms)."""
    return Settings(
        node=node,
        members=tuple(
            Member(id=name, peer=f"{name}:{PEER_PORT}", http=f"{name}:8000") for name in names
        ),
        groups=groups,
        replication=replication,
        secret="a secret of the simulation",
        memory=not durable_mode,
        data_dir=Path("/data") if durable_mode else None,
        max_memory=SMALL_MEMORY if small_memory else USUAL_MEMORY,
    )


class SimNode(Node):
    """One incarnation of a node. ``retention_bytes``: log kept in memory for replicas that lag;
    ``None``: as configured."""

    def __init__(
        self,
        settings: Settings,
        runtime: SimRuntime,
        retention_bytes: int | None,
        cluster: Cluster,
    ) -> None:
        self.journals: dict[int, Journal] = {}
        self.process: Process = runtime.process
        self._retention_bytes = retention_bytes
        self._sim = cluster
        self._connections: Counter[str] = Counter()
        self.proposed_at: dict[tuple[int, int, int], float] = {}
        """Of what was appended here as a leader: (group, index, term), and the true time in seconds
        at which it was proposed."""
        self._applied: dict[int, int] = {}
        self._entries = 0
        super().__init__(settings, runtime)
        self.process.progress = self._entries_applied
        for group, replica in self.replicas.items():
            if isinstance(replica.raft, RaftGroup):
                self._tell_proposals(group, replica.raft)

    def _entries_applied(self) -> int:
        """What takes a slow machine time. A snapshot, which moves the index further than a turn
        does, is not among it."""
        for group, replica in self.replicas.items():
            before, now = self._applied.get(group, 0), replica.raft.applied_index
            self._applied[group] = now
            if before < now <= before + self._sim.apply_entries:
                self._entries += now - before
        return self._entries

    def _tell_proposals(self, group: int, raft: RaftGroup) -> None:
        """Neither class may be derived from: they may be compiled."""
        core, journal = raft.engine._core, self.journals[group]
        submit, append = core._applyCommand, journal.on_append
        made: dict[int, tuple[bytes, float]] = {}
        """With the command itself: what is never appended must not lend its number to another."""

        def submitted(command: bytes, callback: Any) -> None:
            made[id(command)] = command, self.process.scheduler.now
            submit(command, callback)

        def appended(command: bytes, index: int, term: int) -> None:
            if (proposed := made.pop(id(command), None)) is not None:
                self.proposed_at[group, index, term] = proposed[1]
            append(command, index, term)

        core._applyCommand, journal.on_append = submitted, appended

    def _journal(self, group: int) -> Journal:
        return self.watched(group, super()._journal(group))

    def watched(self, group: int, journal: Journal) -> Journal:
        """Tell of every entry that this log loses from its end."""
        self.journals[group] = journal

        def tell(index: int) -> None:
            if group in self.replicas:
                self._sim.on_truncate(self, group, index)

        journal.on_truncate = tell
        return journal

    def _raft_options(self, hosted: int) -> RaftOptions:
        options = super()._raft_options(hosted)
        if self._retention_bytes is not None:
            options = RaftOptions(
                heartbeat_s=options.heartbeat_s,
                election_timeout_s=options.election_timeout_s,
                lease_s=options.lease_s,
                max_clock_drift=options.max_clock_drift,
                log_retention_bytes=self._retention_bytes,
            )
        return options

    def _on_group_change(self, group: int) -> None:
        self._sim.on_group_change(self, group)
        super()._on_group_change(group)

    # -- messages, as the faults see them

    def on_message(self, node: str, message: wire.Message) -> None:
        super().on_message(node, message)
        sim = self._sim
        if sim.duplication and not isinstance(message, wire.Payload):
            self._maybe_again(node, message)
        if sim.ambush is not None and isinstance(message, wire.SnapshotChunk):
            sim.ambush(self, node)

    def _maybe_again(self, node: str, message: wire.Message) -> None:
        draw = self._sim.draw
        if draw.random() < self._sim.duplication:
            connection = self._connections[node]

            def again() -> None:
                if self._connections[node] == connection and not self.stopping:
                    self._sim.counts["duplicates"] += 1
                    super(SimNode, self).on_message(node, message)

            self.runtime.call_later(draw.choice(DUPLICATES_AFTER_S), again)

    def on_up(self, node: str) -> None:
        self._connections[node] += 1
        super().on_up(node)

    def on_down(self, node: str) -> None:
        self._connections[node] += 1
        super().on_down(node)


class Cluster:
    """Nodes ``n1`` to ``nN`` on one network. Names are hosts. ``nodes`` has the incarnations that
    are up; ``node_type`` is the system under test."""

    def __init__(
        self,
        scheduler: Scheduler,
        size: int,
        groups: int,
        *,
        durable_mode: bool,
        node_type: type[SimNode] = SimNode,
        replication: int | None = None,
    ) -> None:
        """``replication``: nodes of each group; all by default."""
        self.scheduler = scheduler
        self.network = Network(scheduler)
        self.names = tuple(f"n{i + 1}" for i in range(size))
        self.groups = groups
        self.replication = size if replication is None else replication
        self.durable_mode = durable_mode
        self._node_type = node_type
        self.disks = {name: SimDisk(scheduler.generator(f"disk/{name}")) for name in self.names}
        self.nodes: dict[str, SimNode] = {}
        self.starting: dict[str, SimRuntime] = {}
        self.wall_errors = dict.fromkeys(self.names, 0.0)
        """How wrong the wall clock of each machine is, in seconds; it stays so over a restart."""
        self._costs = dict.fromkeys(self.names, (0.0, 0.0))
        self.on_group_change: Callable[[SimNode, int], None] = lambda node, group: None
        self.on_truncate: Callable[[SimNode, int, int], None] = lambda node, group, index: None
        self.counts: Counter[str] = Counter()
        """What happened in the run, see ``coverage``."""
        self.draw = scheduler.generator("duplicates")
        self.duplication = 0.0
        """Probability that a group's message is delivered again."""
        self.ambush: Callable[[SimNode, str], None] | None = None
        """Hears of every chunk of a snapshot: who got it, and from whom."""
        self._damaged: dict[str, None] = {}
        self._refused: dict[str, None] = {}
        self.attended = False
        """Whether an operator sees at once that a node refuses to start."""
        draw = scheduler.generator("sizes")
        self._small = draw.random() < 0.8
        self._retention_bytes = draw.randint(200, 5_000) if self._small else None
        self._snapshot_bytes = draw.randint(2_000, 50_000) if self._small else 64 * 1024 * 1024
        self._segment_bytes = draw.randint(4_096, 40_000) if self._small else 256 * 1024
        self.apply_entries = draw.randint(1, 40)
        """The most that a group applies in one turn."""
        self._rates = {name: 1.0 + draw.uniform(-0.01, 0.01) for name in self.names}
        self.small_memory = groups > 1 and draw.random() < 0.3
        """Whether entries are evicted for want of memory."""

    def start(self, name: str) -> None:
        """Start a new incarnation of ``name``, which is down."""
        if name in self.starting:
            return
        self.scheduler.say(name, "starts")
        runtime = SimRuntime(
            self.scheduler, self.network, self.disks[name], name, self._rates[name]
        )
        self.starting[name] = runtime
        runtime.process.clock.jump(self.wall_errors[name])
        runtime.process.slow(*self._costs[name])
        runtime.call_soon(self._boot, name, runtime)

    def slow(self, name: str, seconds: float, entry_seconds: float = 0.0) -> None:
        """Let every callback on the machine ``name`` take so long, and every entry that is applied
        there, also after a restart; 0 ends it."""
        self._costs[name] = seconds, entry_seconds
        process = self.process(name)
        if process is not None:
            process.slow(seconds, entry_seconds)

    def _boot(self, name: str, runtime: SimRuntime) -> None:
        settings = settings_of(
            name,
            self.names,
            self.groups,
            self.durable_mode,
            self.small_memory,
            self.replication,
        )
        durable.SNAPSHOT_AFTER_BYTES = self._snapshot_bytes  # type: ignore[misc]
        segments.SEGMENT_BYTES = self._segment_bytes  # type: ignore[misc]
        raft_group.APPLY_ENTRIES = self.apply_entries  # type: ignore[misc]
        try:
            node = self._node_type(settings, runtime, self._retention_bytes, self)
        except Exception as error:
            self._not_started(name, error)
            return
        self._refused.pop(name, None)
        self.nodes[name] = node
        runtime.spawn(node.start(), f"start {name}")

    def _not_started(self, name: str, error: Exception) -> None:
        """A node that cannot reach its disk is started again; one that finds it damaged refuses."""
        if isinstance(error, OSError) or isinstance(error.__cause__, OSError):
            # The process ends, and whoever watches over it starts it again.
            self.scheduler.say(name, f"cannot start: {error}")
            self.crash(name, power=False)
            self.scheduler.call_later(RESTART_S, self.start, name)
        elif isinstance(error, (CorruptJournalError, StorageError)) and name in self._damaged:
            self.scheduler.say(name, f"refuses to start: {error}")
            self.counts["corruptions refused"] += 1
            self._refused[name] = None
            self.crash(name, power=False)
            if self.attended:
                self.scheduler.call_later(RESTART_S, self.replace_disk, name)
        else:
            story = "".join(traceback.format_exception(error))
            self.scheduler.violation("a node cannot start", f"{name}: {story}")

    # -- damaged disks

    def damage(self, name: str) -> None:
        """The disk of ``name``, which is down, is not what it was."""
        self._damaged[name] = None

    def damaged(self) -> dict[str, None]:
        """The nodes that may have lost what was on their disks and have not got it back."""
        for name in list(self._damaged):
            if name in self.nodes and not self._recovering(name):
                del self._damaged[name]
        return self._damaged

    def replace_disk(self, name: str) -> None:
        """What an operator does when ``name`` has refused to start: an empty disk, and another
        start. Nothing otherwise."""
        if name in self._refused:
            self.wipe(name)
            self.start(name)

    def wipe(self, name: str) -> None:
        """Another machine with an empty disk takes the place of ``name``, which goes down."""
        self.scheduler.say(name, "gets an empty disk")
        self.crash(name, power=True)
        self._refused.pop(name, None)
        self._damaged[name] = None
        self.disks[name].wipe()
        self.counts["disks wiped"] += 1

    def _recovering(self, name: str) -> bool:
        return any(replica.raft.recovering for replica in self.nodes[name].replicas.values())

    def crash(self, name: str, *, power: bool) -> None:
        """Kill the node's process, or its machine."""
        runtime = self.starting.pop(name, None)
        self.nodes.pop(name, None)
        if runtime is not None:
            self.scheduler.say(name, "loses power" if power else "is killed")
            runtime.process.crash(power)

    @property
    def lame(self) -> int:
        """How many nodes are down, or have not got back all of their state."""
        return sum(name not in self.nodes or self._recovering(name) for name in self.names)

    def process(self, name: str) -> Process | None:
        """The process of ``name``, when it is up."""
        runtime = self.starting.get(name)
        return None if runtime is None else runtime.process

    def start_all(self) -> None:
        for name in self.names:
            self.start(name)

    def leader(self, group: int) -> str | None:
        """The node that leads ``group`` in the highest term, by its own account."""
        best: tuple[int, str] | None = None
        for name, node in self.nodes.items():
            replica = node.replicas.get(group)
            if replica is not None and replica.raft.is_leader:
                term = replica.raft.engine.term
                best = max(best, (term, name)) if best is not None else (term, name)
        return None if best is None else best[1]

    def replicas(self, group: int) -> list[tuple[SimNode, Replica]]:
        """The replicas of ``group`` that are up."""
        pairs = [(node, node.replicas.get(group)) for node in self.nodes.values()]
        return [(node, replica) for node, replica in pairs if replica is not None]


COUNTED_LOGS: Final = {
    "torn write at the end of the journal cut off": "torn tails cut",
    "snapshot installed": "snapshots installed",
    "recovered": "recoveries without disk",
}
"""Events of the nodes' logs that count as coverage."""


def trace_logs(cluster: Cluster | None) -> dict[str, Any]:
    """Send the nodes' structured logs to the story of the run (``None``: nowhere), and count some;
    returns the configuration before."""
    before: dict[str, Any] = structlog.get_config()

    def tell(_logger: object, method: str, event: Any) -> str:
        if cluster is not None:
            counted = COUNTED_LOGS.get(event.get("event"))
            if counted is not None:
                cluster.counts[counted] += 1
            scheduler = cluster.scheduler
            if scheduler.trace is not None:
                who = "log" if scheduler.current is None else scheduler.current.name
                details = " ".join(f"{k}={v}" for k, v in event.items() if k != "event")
                scheduler.say(who, f"{method}: {event.get('event')} {details}")
        raise structlog.DropEvent

    structlog.configure(processors=[tell], cache_logger_on_first_use=False)
    return before


def side(names: Sequence[str], members: Sequence[str]) -> list[list[str]]:
    """Two sides: ``members`` and all others."""
    return [list(members), [name for name in names if name not in members]]
