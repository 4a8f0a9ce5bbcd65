"""The control: Redis, a primary and its replicas, with a Sentinel beside each that fails over.

Replication is asynchronous, as it is unless every client asks for more: a write is acknowledged
before a replica has it. Clients follow the primary as client libraries do: they ask the Sentinel
of their own node where it is when they connect, after any error, and once a second (where others
have Sentinel tell them). Redis promises no more than this; "consistent" is what some take it for.

Data on disk are an append-only file that is synced before every acknowledgement (``appendfsync
always``), so that no restart loses anything: what is lost is lost by failing over. ``--setting
network=netns`` for namespaces.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import hiredis

from jepsen_like.run.controls.networks import SourceNetwork, chosen
from jepsen_like.run.processes import PROCESS_FAULTS, ProcessSystem
from jepsen_like.run.resp_client import RespClient
from jepsen_like.run.system import FaultKind, Options, Refused, StartError, Unknown

ASK_TIMEOUT_S: Final = 0.5
LOOK_S: Final = 1.0
"""How often a client asks whether its primary still is one."""
DOWN_AFTER_MS: Final = 500
"""A primary that does not answer a Sentinel for so long is taken for dead by it."""
FAILOVER_TIMEOUT_MS: Final = 3000
PROGRAMS: Final = {"redis-server": "redis-server", "redis-sentinel": "redis-sentinel"}
"""What it runs, and Debian's packages that have it."""


class FollowingClient:
    """Implements ``system.Client``: asks the primary that its node's Sentinel names."""

    def __init__(self, system: RedisReplicated, node: str) -> None:
        self._system = system
        self._sentinel = RespClient(system.network.client(node, "sentinel"), ifeq=False)
        self._primary: RespClient | None = None
        self._node = ""
        self._looked = 0.0

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        """See ``system.Client``."""
        primary = self._primary
        if primary is None or time.monotonic() - self._looked > LOOK_S:
            primary = await self._follow(min(timeout_s, ASK_TIMEOUT_S))
        try:
            return await primary.invoke(op, key, args, timeout_s, once)
        except (Refused, Unknown):
            # It may be the primary no longer.
            await primary.close()
            self._primary = None
            raise

    async def _follow(self, timeout_s: float) -> RespClient:
        """A connection to what is the primary now; the old one if that has not changed."""
        self._looked = time.monotonic()
        node = await self._system.primary(self._sentinel, timeout_s)
        if self._primary is None or node != self._node:
            if self._primary is not None:
                await self._primary.close()
            address = self._system.network.client(node, "redis")
            self._primary, self._node = RespClient(address, ifeq=False), node
        return self._primary

    async def close(self) -> None:
        """Drop the connections."""
        await self._sentinel.close()
        if self._primary is not None:
            await self._primary.close()


class RedisReplicated(ProcessSystem):
    """Implements ``system.System``."""

    name = "redis-replicated"
    operations = frozenset(
        {"get", "set", "ttl", "cas", "incr", "del", "txn", "append", "batch", "order"}
    )
    protocols: tuple[str, ...] = ("resp",)
    services = ("redis", "sentinel")
    live = False
    staleness_ms: Mapping[str, tuple[int, ...]] = {}
    ttl_slack_ms = 2.0
    ttl_drift = 0.05

    def __init__(self, options: Options) -> None:
        for program, package in PROGRAMS.items():
            if shutil.which(program) is None:
                raise StartError(f"there is no {program} (Debian: apt-get install {package})")
        super().__init__(options.nodes, chosen(options, SourceNetwork))
        # No promise covers a disk that is lost.
        own = (PROCESS_FAULTS - {FaultKind.WIPE}) | {FaultKind.TRANSFER}
        self.faults = own | self.network.faults
        self.tolerated = (options.nodes - 1) // 2
        self._durable = options.durable

    async def prepare(self) -> None:
        """Write the files of settings, which Redis and Sentinel keep up to date themselves."""
        first = self.nodes[0]
        quorum = len(self.nodes) // 2 + 1
        for node in self.nodes:
            redis = self._shared(node, "redis")
            redis += [
                f"dir {self.data(node)}",
                'save ""',
                f"appendonly {'yes' if self._durable else 'no'}",
                "appendfsync always",
                "repl-diskless-sync-delay 0",
                "repl-timeout 5",
                "repl-ping-replica-period 1",
                *self._announced(node, "redis", "replica-announce"),
            ]
            host, port = self.network.reach(node, first, "redis")
            if node != first:
                redis.append(f"replicaof {host} {port}")
            sentinel = [
                *self._shared(node, "sentinel"),
                *self._announced(node, "sentinel", "sentinel announce"),
                f"sentinel monitor cache {host} {port} {quorum}",
                f"sentinel down-after-milliseconds cache {DOWN_AFTER_MS}",
                f"sentinel failover-timeout cache {FAILOVER_TIMEOUT_MS}",
                "sentinel parallel-syncs cache 5",
            ]
            for other in self.nodes[1:]:
                # It would ask for them in ten seconds.
                host, port = self.network.reach(node, other, "redis")
                sentinel.append(f"sentinel known-replica cache {host} {port}")
            for name, lines in (("redis", redis), ("sentinel", sentinel)):
                self._settings(node, name).write_text("\n".join(lines) + "\n")

    def _shared(self, node: str, service: str) -> list[str]:
        host, port = self.network.listen(node, service)
        lines = [f"bind {host}", f"port {port}", "protected-mode no"]
        if isinstance(self.network, SourceNetwork):
            lines.append(f"bind-source-addr {self.network.source(node)}")
        return lines

    def _announced(self, node: str, service: str, prefix: str) -> list[str]:
        """The address that the others are told."""
        host, port = self.network.reach(node, node, service)
        return [f"{prefix}-ip {host}", f"{prefix}-port {port}"]

    def _settings(self, node: str, name: str) -> Any:
        return self.directory / f"{node}.{name}.conf"

    def commands(self, node: str) -> Sequence[Sequence[str]]:
        """Redis, and the Sentinel beside it."""
        return [
            ["redis-server", str(self._settings(node, "redis"))],
            ["redis-sentinel", str(self._settings(node, "sentinel"))],
        ]

    def supports(self, protocol: str, op: str) -> bool:
        del protocol
        return op in self.operations

    def connect(self, node: str, protocol: str) -> FollowingClient:
        del protocol
        return FollowingClient(self, node)

    async def primary(self, sentinel: RespClient, timeout_s: float) -> str:
        """The node that a Sentinel takes for the primary. ``Refused`` when it does not say."""
        command = ("SENTINEL", "get-master-addr-by-name", "cache")
        try:
            (place,) = await sentinel.send([command], timeout_s)
        except Unknown as error:
            raise Refused(f"no word from Sentinel: {error}") from None
        for node in self.nodes:
            host, port = self.network.reach(node, node, "redis")
            if place == [host, str(port)]:
                return node
        raise Refused(f"Sentinel knows no primary: {place!r}")

    async def serves(self, node: str) -> bool:
        """Its Sentinel knows all others, and its Redis is the primary or follows it."""
        replies = await self._ask(node, "sentinel", ("SENTINEL", "master", "cache"))
        if not isinstance(replies, list):
            return False
        said = dict(zip(replies[::2], replies[1::2], strict=True))
        role = await self._ask(node, "redis", ("ROLE",))
        others = str(len(self.nodes) - 1)
        return (
            said["num-other-sentinels"] == said["num-slaves"] == others
            and isinstance(role, list)
            and (role[0] == "master" or role[3] == "connected")
        )

    async def leaders(self) -> list[str]:
        """Nodes that take themselves for the primary."""
        roles = [(node, await self._ask(node, "redis", ("ROLE",))) for node in self.nodes]
        return [node for node, role in roles if isinstance(role, list) and role[0] == "master"]

    async def transfer(self, part: int, target: str | None) -> None:
        """``SENTINEL failover``, by the first Sentinel that takes the order. It chooses whom."""
        del part, target
        for node in self.nodes:
            if await self._ask(node, "sentinel", ("SENTINEL", "failover", "cache")) == "OK":
                return

    async def _ask(self, node: str, service: str, command: tuple[str, ...]) -> Any:
        """The reply; ``None`` when there is none."""
        if not self.running(node) or node in self._paused:
            return None
        client = RespClient(self.network.client(node, service), ifeq=False)
        try:
            (reply,) = await client.send([command], ASK_TIMEOUT_S)
        except (Refused, Unknown):
            return None
        finally:
            await client.close()
        return None if isinstance(reply, hiredis.ReplyError) else reply


def redis_replicated(options: Options) -> RedisReplicated:
    """``system.Factory``."""
    return RedisReplicated(options)
