"""One process: its connections, the replicas it holds, its router and front ends, from start to
stop.

``Node`` is the cache without any front end, which is what the simulator runs; ``run`` adds HTTP and
the signals of a real process. A graceful stop first takes the node out of service, hands over
every leadership it holds, answers what is in flight, and only then closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import signal
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import structlog

from raftcache import __version__
from raftcache.config import Settings, split_address
from raftcache.metrics import GroupMetrics, Metrics
from raftcache.ops import Configure, Get, Read, Result, Status, Write
from raftcache.partition import SlotMap, place_groups
from raftcache.raft import wire
from raftcache.raft.group import RaftGroup
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.peers import PeerOptions, Peers
from raftcache.raft.storage import DataDirectory, Identity
from raftcache.recency import Room
from raftcache.replica import Replica, ReplicaOptions
from raftcache.router import Router
from raftcache.runtime import AsyncioRuntime, Cancellable, Runtime
from raftcache.service import ClusterStatus, Consistency, GroupStatus, MemberStatus

DATA_FORMAT: Final = 2
"""Of data directories."""
BALANCE_INTERVAL_S: Final = 2.0
"""How long a group's preferred leader must have been ready before leadership is handed to it."""

_log = structlog.get_logger()


class Node:
    """One member of the cluster. Implements ``service.Service``. Making one reads its data
    directory: ``StorageError`` or ``CorruptJournalError`` when that cannot be used."""

    def __init__(self, settings: Settings, runtime: Runtime) -> None:
        self.settings = settings
        self.runtime = runtime
        self.limits = settings.limits
        members = {member.id: member for member in settings.members}
        self.slots = SlotMap(settings.groups, settings.virtual_nodes)
        self._slot_counts = self.slots.counts()
        self._slot_ranges = self.slots.ranges()
        placement = place_groups(settings.groups, tuple(members), settings.replication)
        self.placement = placement
        secret = (settings.secret or "").encode()
        addresses = {
            node: split_address(member.peer)
            for node, member in members.items()
            if node != settings.node
        }
        topology = topology_digest(settings)
        # Not this node's own number: the budget of a group must not depend on who leads it.
        most_hosted = max(sum(m in nodes for nodes in placement) for m in members)
        options = PeerOptions(
            settings.node, settings.cluster, topology, addresses, secret, settings.max_frame
        )
        self._data: DataDirectory | None = None
        if settings.data_dir is not None:
            identity = Identity(DATA_FORMAT, settings.cluster, settings.node, topology)
            self._data = DataDirectory(runtime, str(settings.data_dir.absolute()), identity)
        self.peers = Peers(runtime, options, self)
        hosted = [group for group, nodes in enumerate(placement) if settings.node in nodes]
        self.group_metrics = {group: GroupMetrics() for group in range(settings.groups)}
        self.replicas: dict[int, Replica] = {}
        room = Room()
        for group in hosted:
            self.replicas[group] = Replica(
                group,
                placement[group],
                runtime,
                self.peers,
                self._journal(group),
                self._raft_options(most_hosted),
                self._replica_options(most_hosted),
                self._on_group_change,
                room,
                self._group_type,
            )
            self.group_metrics[group] = self.replicas[group].metrics
        self.router = Router(
            settings.node,
            runtime,
            self.peers,
            self.slots,
            placement,
            self.replicas,
            self.group_metrics,
            self.limits,
        )
        self.metrics = Metrics(self.status, self.group_metrics)
        self.stopping = False
        self._balanced_at = 0.0
        self._timer: Cancellable | None = None

    def _journal(self, group: int) -> Journal:
        return Journal() if self._data is None else self._data.journal(group)

    @property
    def _group_type(self) -> type[RaftGroup]:
        return RaftGroup

    def _raft_options(self, hosted: int) -> RaftOptions:
        settings = self.settings
        return RaftOptions(
            heartbeat_s=settings.heartbeat_interval,
            election_timeout_s=settings.election_timeout,
            lease_s=settings.lease_duration,
            max_clock_drift=settings.max_clock_drift,
            log_retention_bytes=max(64 * 1024, settings.log_retention // hosted),
        )

    def _replica_options(self, hosted: int) -> ReplicaOptions:
        settings = self.settings
        # What operators limit is the process: the logs' share is not the entries'.
        available = max(settings.max_memory - settings.log_retention, settings.max_memory // 2)
        configure = Configure(
            budget_bytes=available // hosted,
            policy=settings.policy,
            session_ttl_ms=int(settings.session_ttl * 1000),
            max_sessions=settings.max_sessions,
        )
        return ReplicaOptions(configure, settings.touch_interval, settings.max_in_flight)

    # -- lifecycle

    async def start(self) -> None:
        """Listen for peers and take part. ``OSError`` when the address is taken."""
        await self.peers.start(*self.settings.peer_listen)
        self._on_timer()

    async def retire(self) -> None:
        """Hand over every leadership held here, as far as others can take them."""
        self.stopping = True
        deadline = self.runtime.now() + 4 * self.settings.election_timeout
        while self.runtime.now() < deadline:
            led = [replica for replica in self.replicas.values() if replica.raft.is_leader]
            if not led or not any(self.peers.connected(m.id) for m in self.settings.members):
                return
            for replica in led:
                replica.raft.transfer(None)
            await self._sleep(self.settings.heartbeat_interval / 4)

    async def _sleep(self, seconds: float) -> None:
        future = self.runtime.future()
        self.runtime.call_later(seconds, future.set_result, None)
        await future

    def close(self) -> None:
        """Stop taking part; everything that waits ends."""
        self.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        self.router.close()
        self.peers.stop()
        for replica in self.replicas.values():
            replica.close()
        if self._data is not None:
            self._data.close()

    def _on_timer(self) -> None:
        self._timer = self.runtime.call_later(self.settings.heartbeat_interval / 2, self._on_timer)
        for replica in self.replicas.values():
            replica.on_timer()
        self.router.on_timer()
        self._balance()

    def _balance(self) -> None:
        """Hand a group to its preferred leader, one group at a time, when that one is up to
        date."""
        now = self.runtime.now()
        if self.stopping or now - self._balanced_at < BALANCE_INTERVAL_S:
            return
        self._balanced_at = now
        for group, replica in self.replicas.items():
            raft, preferred = replica.raft, self.placement[group][0]
            if preferred == self.settings.node or not raft.leader_ready or not raft.accepts:
                continue
            if raft.lacks_room(preferred):
                continue
            behind = raft.last_index - raft.engine.match_index(preferred)
            if self.peers.connected(preferred) and behind < 1000:
                _log.info("handing over to the preferred leader", group=group, to=preferred)
                raft.transfer(preferred)
                return

    # -- PeerEvents

    def on_message(self, node: str, message: wire.Message) -> None:
        """Dispatch to the group or the router."""
        if isinstance(message, wire.Payload):
            self.router.on_payload(node, message.data)
            return
        replica = self.replicas.get(message.group)
        if replica is None:
            raise wire.WireError(f"group {message.group} is not here")
        replica.raft.on_message(node, message)

    def on_turn_end(self) -> None:
        """Nothing waits for it: groups schedule themselves."""

    def on_up(self, node: str) -> None:
        """A peer is connected."""
        _log.info("peer connected", peer=node)
        for group, replica in self.replicas.items():
            if node in self.placement[group]:
                replica.raft.on_up(node)

    def on_down(self, node: str) -> None:
        """A peer is not connected any more."""
        _log.info("peer disconnected", peer=node)
        for group, replica in self.replicas.items():
            if node in self.placement[group]:
                replica.raft.on_down(node)
        self.router.on_down(node)

    def on_congested(self, node: str, congested: bool) -> None:
        """A peer's connection is full, or has room again."""
        for group, replica in self.replicas.items():
            if node in self.placement[group]:
                replica.raft.on_congested(node, congested)

    def _on_group_change(self, group: int) -> None:
        self.router.on_change(group)

    # -- Service

    def now(self) -> float:
        """See ``Service.now``."""
        return self.runtime.now()

    def wall(self) -> float:
        """See ``Service.wall``."""
        return self.runtime.wall()

    def draw(self) -> int:
        """See ``Service.draw``."""
        return self.runtime.random.getrandbits(63)

    @property
    def name(self) -> str:
        """See ``Service.name``."""
        return self.settings.node

    @property
    def durable(self) -> bool:
        """See ``Service.durable``."""
        return self._data is not None

    def leader_of(self, group: int) -> str | None:
        """See ``Service.leader_of``."""
        return self.router.leader_of(group)

    def write(self, op: Write, deadline: float) -> asyncio.Future[Result]:
        """See ``Service.write``."""
        return self.router.write(op, deadline)

    def read(
        self,
        key: bytes,
        deadline: float,
        consistency: Consistency = Consistency.LINEARIZABLE,
        max_staleness: float | None = None,
    ) -> asyncio.Future[Result]:
        """See ``Service.read``."""
        return self.router.read(key, deadline, consistency, max_staleness)

    def batch(
        self, ops: Sequence[Get | Write], deadline: float, *, atomic: bool = False
    ) -> asyncio.Future[list[Result]]:
        """See ``Service.batch``."""
        return self.router.batch(ops, deadline, atomic)

    def submit(
        self,
        ops: Sequence[Read | Write],
        deadline: float,
        finish: Callable[[Sequence[Result]], None],
        *,
        group: int | None = None,
        max_staleness: float | None = None,
    ) -> None:
        """See ``Service.submit``."""
        self.router.submit(ops, deadline, finish, group=group, max_staleness=max_staleness)

    def transfer(self, group: int, target: str | None, deadline: float) -> asyncio.Future[Result]:
        """See ``Service.transfer``."""
        known = 0 <= group < self.settings.groups
        if not known or (target is not None and target not in self.placement[group]):
            future: asyncio.Future[Result] = self.runtime.future()
            future.set_result(Result(Status.NOT_FOUND))
            return future
        return self.router.transfer(group, target or "", deadline)

    def not_ready(self) -> str | None:
        """See ``Service.not_ready``."""
        if self.stopping:
            return "the node is stopping"
        for group, replica in self.replicas.items():
            raft = replica.raft
            if raft.recovering:
                return f"group {group} is recovering its state from the other replicas"
            if raft.leader is None:
                return f"group {group} has no known leader"
            if raft.is_leader and not raft.leader_ready:
                return f"group {group} has a new leader that is not ready"
            if raft.engine.commit_index - raft.applied_index > 0 or not raft.caught_up:
                return f"group {group} has not caught up"
        return None

    def status(self) -> ClusterStatus:
        """See ``Service.status``."""
        settings = self.settings
        members = tuple(
            MemberStatus(
                member.id,
                member.http,
                member.peer,
                member.id == settings.node or self.peers.connected(member.id),
                member.id == settings.node,
            )
            for member in settings.members
        )
        return ClusterStatus(
            cluster=settings.cluster,
            node=settings.node,
            version=__version__,
            ready=self.not_ready() is None,
            members=members,
            groups=tuple(self._group_status(group) for group in self.replicas),
            slot_ranges=self._slot_ranges,
        )

    def _group_status(self, group: int) -> GroupStatus:
        replica = self.replicas[group]
        raft, machine = replica.raft, replica.machine
        if raft.is_leader:
            role = "leader"
        else:
            role = "follower" if raft.leader is not None else "candidate"
        stats = machine.stats
        return GroupStatus(
            id=group,
            replicas=self.placement[group],
            leader=raft.leader,
            role=role,
            term=raft.engine.term,
            last_index=raft.last_index,
            commit_index=raft.engine.commit_index,
            applied_index=raft.applied_index,
            lag=max(0, raft.highest_commit - raft.applied_index),
            has_room=raft.has_room,
            slots=self._slot_counts[group],
            policy=machine.settings.policy,
            entries=stats.entries,
            bytes=stats.bytes,
            budget_bytes=machine.settings.budget_bytes,
            hits=stats.hits,
            misses=stats.misses,
            evictions=stats.evictions,
            expirations=stats.expirations,
        )


def topology_digest(settings: Settings) -> str:
    """What all nodes must agree on, as a hash: they refuse each other, and data directories, when
    it differs. Addresses may change."""
    agreed = (
        [member.id for member in settings.members],
        settings.groups,
        settings.replication,
        settings.virtual_nodes,
    )
    return hashlib.blake2b(msgspec.json.encode(agreed), digest_size=16).hexdigest()


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then stop gracefully. ``OSError`` when an address is taken."""
    # Imported here: the simulator and tests of the core need no front end.
    from raftcache.http import HttpServer
    from raftcache.resp import RespServer

    runtime = AsyncioRuntime()
    node = Node(settings, runtime)
    server = HttpServer(node, node.limits, node.metrics.front_end("http"))
    redis = RespServer(
        node,
        node.limits,
        settings.groups,
        node.slots,
        node.placement,
        {m.id: split_address(m.resp) for m in settings.members if m.resp is not None},
        settings.max_clients,
        settings.readonly_staleness,
        node.metrics.resp,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    host, port = settings.http_listen
    try:
        await node.start()
        await server.start(host, port)
        if settings.resp_listen is not None:
            await redis.start(*settings.resp_listen)
        _log.info("serving", http=f"{host}:{port}", groups=sorted(node.replicas))
        gc.freeze()
        await stop.wait()
        _log.info("stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(settings.shutdown_grace):
                await node.retire()
                await redis.drain(settings.shutdown_grace / 4)
                await server.drain(settings.shutdown_grace / 2)
    finally:
        redis.close()
        await server.close()
        node.close()
        runtime.close()
    # Let what was written last leave the sockets.
    await asyncio.sleep(0.05)
    _log.info("stopped")
