"""The server: listening, who is connected, and what commands need of the node."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

from raftcache.limits import Limits
from raftcache.metrics import RespCounters
from raftcache.ops import Read, Result, Status, Write
from raftcache.partition import SlotMap, slot_of
from raftcache.resp.commands import Command
from raftcache.resp.connection import Connection
from raftcache.resp.replies import RedisError, Reply, error
from raftcache.resp.session import Session
from raftcache.resp.slowlog import MAX_ENTRIES, SLOWER_THAN_S, SlowLog
from raftcache.service import Service

CROSS_SLOT: Final = "CROSSSLOT Keys in request don't hash to the same slot"
SWEEP_S: Final = 5.0
STALL_LIMIT_S: Final = 60.0
"""A client that has not read its replies for so long is cut off."""
_COMMAND_OVERHEAD_BYTES: Final = 64 * 1024
_MAX_COMMAND_VALUES: Final = 4


class RespServer:
    """The Redis front end of one node. ``addresses``: host and port of every node's; ``placement``:
    the nodes of every group."""

    def __init__(
        self,
        service: Service,
        limits: Limits,
        groups: int,
        slots: SlotMap,
        placement: Sequence[Sequence[str]],
        addresses: Mapping[str, tuple[str, int]],
        max_clients: int = 10_000,
        max_staleness_s: float = 1.0,
        counters: RespCounters | None = None,
    ) -> None:
        self.service = service
        self.limits = limits
        self.groups = groups
        self.placement = placement
        self.addresses = addresses
        self.max_clients = max_clients
        self.max_command_bytes = (
            _MAX_COMMAND_VALUES * (limits.max_value_bytes + limits.max_key_bytes)
            + _COMMAND_OVERHEAD_BYTES
        )
        """A command that is longer is refused while it comes."""
        self._slots = slots
        self._max_staleness_s = max_staleness_s
        self.started = service.now()
        node = service.status().node
        self.run_id = hashlib.sha1(f"{node} {self.started}".encode()).hexdigest()
        self.port = 0
        self._connections: dict[Connection, None] = {}
        self._clients = 0
        self.counters = RespCounters() if counters is None else counters
        self.slow = SlowLog()
        self.counters.connections = lambda: len(self._connections)
        self._empty = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    # -- lifecycle

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the real port when ``port`` is 0."""
        loop = asyncio.get_running_loop()
        listener: Any = await loop.create_server(
            lambda: cast(asyncio.Protocol, Connection(self)), host, port, backlog=1024
        )
        self._listener = listener
        # Not by asyncio's types: its tuple of sockets is a list in uvloop.
        self.port = listener.sockets[0].getsockname()[1]
        self._sweep()
        return self.port

    def _sweep(self) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        limit = self.service.now() - STALL_LIMIT_S
        for connection in list(self._connections):
            if connection.stalled_since is not None and connection.stalled_since < limit:
                connection.abort()

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, answer what is under way, then close."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.close()
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._empty.wait()
        self.close()

    def close(self) -> None:
        """Stop at once."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            connection.abort()

    def admit(self, connection: Connection, transport: asyncio.Transport) -> Session | None:
        """A new connection's session; ``None`` when there are too many."""
        if len(self._connections) >= self.max_clients:
            self.counters.rejected += 1
            transport.write(error("ERR max number of clients reached"))
            transport.close()
            return None
        self._clients += 1
        self.counters.accepted += 1
        self._connections[connection] = None
        peer = transport.get_extra_info("peername")
        address = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "unknown"
        return Session(self, self._clients, address)

    def forget(self, connection: Connection) -> None:
        """It is closed."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._empty.set()

    def sessions(self) -> list[Session]:
        """Of all that are connected."""
        return [each.session for each in self._connections if each.session is not None]

    # -- what commands need

    def value(self, value: bytes) -> bytes:
        """A value that may be stored; ``RedisError`` when it is too long."""
        if len(value) > self.limits.max_value_bytes:
            limit = self.limits.max_value_bytes
            raise RedisError(f"ERR value has {len(value)} bytes, max_value_bytes is {limit}")
        return value

    def check_keys(self, session: Session, command: Command, args: list[bytes]) -> None:
        """Lengths, and for a client that routes by itself whether it came to the right node."""
        keys = command.keys(args)
        longest = self.limits.max_key_bytes
        for key in keys:
            if len(key) > longest:
                raise RedisError(f"ERR key has {len(key)} bytes, max_key_bytes is {longest}")
        if keys and session.cluster_aware and not (session.read_only and command.reads):
            self._check_slot(keys)

    def _check_slot(self, keys: Sequence[bytes]) -> None:
        slot = slot_of(keys[0])
        if any(slot_of(key) != slot for key in keys[1:]):
            raise RedisError(CROSS_SLOT)
        leader = self.service.leader_of(self._slots.group_of(keys[0]))
        if leader is not None and leader != self.service.name and leader in self.addresses:
            host, port = self.addresses[leader]
            raise RedisError(f"MOVED {slot} {host}:{port}")

    def same_group(self, keys: Sequence[bytes]) -> None:
        """``RedisError`` unless one group has all of them."""
        if len({self._slots.group_of(key) for key in keys}) > 1:
            raise RedisError(CROSS_SLOT)

    def same_slot(self, keys: Sequence[bytes]) -> None:
        """``RedisError`` unless all are in one slot."""
        if len({slot_of(key) for key in keys}) > 1:
            raise RedisError(CROSS_SLOT)

    def group_of_slot(self, slot: int) -> int:
        """The group that has it."""
        return self._slots.table[slot]

    def replicas_of_a_write(self) -> int:
        """On how many nodes beside the leader every acknowledged write is."""
        return len(self.placement[0]) // 2

    def configuration(self) -> dict[str, Reply]:
        """What ``CONFIG GET`` shows."""
        status = self.service.status()
        limit = sum(group.budget_bytes for group in status.groups)
        policy = status.groups[0].policy if status.groups else "lru"
        return {
            "maxmemory": str(limit),
            "maxmemory-policy": f"allkeys-{policy}",
            "maxclients": str(self.max_clients),
            "proto-max-bulk-len": str(self.limits.max_value_bytes),
            "slowlog-log-slower-than": str(int(SLOWER_THAN_S * 1e6)),
            "slowlog-max-len": str(MAX_ENTRIES),
            "databases": "1",
            "save": "",
            "appendonly": "yes" if self.service.durable else "no",
            "timeout": "0",
            "port": str(self.port),
        }

    def submit(
        self,
        session: Session,
        ops: Sequence[Read | Write],
        finish: Callable[[Sequence[Result]], None],
        group: int | None = None,
    ) -> None:
        """Have operations done for one client; ``group`` of those that have no key."""
        deadline = self.service.now() + self.limits.default_timeout_s
        stale = self._max_staleness_s if session.read_only else None
        self.service.submit(ops, deadline, finish, group=group, max_staleness=stale)

    def ask_everywhere(self, op: Read | Write, finish: Callable[[Sequence[Result]], None]) -> None:
        """Have one operation done by every group; one result of each."""
        deadline = self.service.now() + self.limits.default_timeout_s
        results: list[Result] = [Result(Status.UNAVAILABLE)] * self.groups
        left = self.groups

        def into(group: int) -> Callable[[Sequence[Result]], None]:
            def ended(got: Sequence[Result]) -> None:
                nonlocal left
                results[group] = got[0]
                left -= 1
                if left == 0:
                    finish(results)

            return ended

        for group in range(self.groups):
            self.service.submit((op,), deadline, into(group), group=group)
