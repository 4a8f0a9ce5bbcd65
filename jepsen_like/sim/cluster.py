"""A cluster of real nodes (groups and router, no front end) under simulated effects.

Nodes are ``raftcache.node.Node`` as in production, but for the sizes at which logs are trimmed,
segments end and snapshots are taken, which are small in half of the runs, so that all of it happens
often.
"""

from __future__ import annotations

import traceback
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
from raftcache.raft import durable, segments
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.replica import Replica

PEER_PORT: Final = 7000
RESTART_S: Final = 0.5
"""After so long a process that ended on its own is started again."""


@lru_cache(maxsize=64)
def settings_of(node: str, names: tuple[str, ...], groups: int, durable_mode: bool) -> Settings:
    """The settings of one node; the same objects for every run of a process (they cost 1 ms)."""
    return Settings(
        node=node,
        members=tuple(
            Member(id=name, peer=f"{name}:{PEER_PORT}", http=f"{name}:8000") for name in names
        ),
        groups=groups,
        replication=len(names),
        secret="a secret of the simulation",
        memory=not durable_mode,
        data_dir=Path("/data") if durable_mode else None,
    )


class SimNode(Node):
    """One incarnation of a node. ``retention_bytes``: log kept in memory for replicas that lag;
    ``None``: as configured."""

    def __init__(
        self,
        settings: Settings,
        runtime: SimRuntime,
        retention_bytes: int | None,
        on_group_change: Callable[[SimNode, int], None],
    ) -> None:
        self.journals: dict[int, Journal] = {}
        self.process: Process = runtime.process
        self._retention_bytes = retention_bytes
        self._changed = on_group_change
        super().__init__(settings, runtime)

    def _journal(self, group: int) -> Journal:
        journal = self.journals[group] = super()._journal(group)
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
        self._changed(self, group)
        super()._on_group_change(group)


class Cluster:
    """Nodes ``n1`` to ``nN`` on one network. Names are hosts. ``nodes`` has the incarnations that
    are up."""

    def __init__(self, scheduler: Scheduler, size: int, groups: int, *, durable_mode: bool) -> None:
        self.scheduler = scheduler
        self.network = Network(scheduler)
        self.names = tuple(f"n{i + 1}" for i in range(size))
        self.groups = groups
        self.durable_mode = durable_mode
        self.disks = {name: SimDisk(scheduler.generator(f"disk/{name}")) for name in self.names}
        self.nodes: dict[str, SimNode] = {}
        self.starting: dict[str, SimRuntime] = {}
        self.wall_errors = dict.fromkeys(self.names, 0.0)
        """How wrong the wall clock of each machine is, in seconds; it stays so over a restart."""
        self.on_group_change: Callable[[SimNode, int], None] = lambda node, group: None
        draw = scheduler.generator("sizes")
        self._small = draw.random() < 0.5
        self._retention_bytes = draw.randint(2_000, 50_000) if self._small else None
        self._snapshot_bytes = draw.randint(5_000, 100_000) if self._small else 64 * 1024 * 1024
        self._segment_bytes = draw.randint(4_096, 40_000) if self._small else 1024 * 1024
        self._rates = {name: 1.0 + draw.uniform(-0.01, 0.01) for name in self.names}

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
        runtime.call_soon(self._boot, name, runtime)

    def _boot(self, name: str, runtime: SimRuntime) -> None:
        settings = settings_of(name, self.names, self.groups, self.durable_mode)
        durable.SNAPSHOT_AFTER_BYTES = self._snapshot_bytes  # type: ignore[misc]
        segments.SEGMENT_BYTES = self._segment_bytes  # type: ignore[misc]
        try:
            node = SimNode(settings, runtime, self._retention_bytes, self._group_changed)
        except OSError as error:
            # The disk fails: the process ends, and whoever watches over it starts it again.
            self.scheduler.say(name, f"cannot start: {error}")
            self.crash(name, power=False)
            self.scheduler.call_later(RESTART_S, self.start, name)
            return
        except Exception:
            self.scheduler.violation("a node cannot start", f"{name}: {traceback.format_exc()}")
            return
        self.nodes[name] = node
        runtime.spawn(node.start(), f"start {name}")

    def _group_changed(self, node: SimNode, group: int) -> None:
        self.on_group_change(node, group)

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
        return sum(
            name not in self.nodes
            or any(replica.raft.recovering for replica in self.nodes[name].replicas.values())
            for name in self.names
        )

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


def trace_logs(scheduler: Scheduler | None) -> dict[str, Any]:
    """Send the nodes' structured logs to the story of the run (``None``: nowhere); returns the
    configuration before."""
    before: dict[str, Any] = structlog.get_config()

    def tell(_logger: object, method: str, event: Any) -> str:
        if scheduler is not None and scheduler.trace is not None:
            who = "log" if scheduler.current is None else scheduler.current.name
            details = " ".join(f"{k}={v}" for k, v in event.items() if k != "event")
            scheduler.say(who, f"{method}: {event.get('event')} {details}")
        raise structlog.DropEvent

    structlog.configure(processors=[tell], cache_logger_on_first_use=False)
    return before


def side(names: Sequence[str], members: Sequence[str]) -> list[list[str]]:
    """Two sides: ``members`` and all others."""
    return [list(members), [name for name in names if name not in members]]
