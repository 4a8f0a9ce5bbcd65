"""raftcache under test: ``raftcache serve`` processes as a user starts them.

``local`` puts them on loopback behind the fault proxy. Any other ``Network`` serves as well:
``Raftcache(options, network)``.
"""

from __future__ import annotations

import json
import os
import random
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import raftcache
from jepsen_like.run.http_client import HttpClient, Versions
from jepsen_like.run.machine_faults import Machine
from jepsen_like.run.processes import PROCESS_FAULTS, ProcessSystem
from jepsen_like.run.proxy import ProxyNetwork
from jepsen_like.run.resp_client import RespClient
from jepsen_like.run.system import (
    OPERATIONS,
    Client,
    FaultKind,
    Network,
    Options,
    Refused,
    Unknown,
)
from raftcache.config.settings import ENV_PREFIX
from raftcache.demo import serve_command, settings_toml, write_private
from raftcache.partition import SlotMap, place_groups
from raftcache.units import parse_duration_ms

RESP_OPERATIONS: Final = frozenset(OPERATIONS) - {"lease", "once"}
HTTP_OPERATIONS: Final = frozenset(OPERATIONS) - {"append", "order"}
ASK_TIMEOUT_S: Final = 0.5
"""Of questions about the cluster's state."""
SMALL: Final = {"max_memory": "48mb", "log_retention": "12mb"}
"""A group gets 7 to 9 MB: a thousand large values more and it evicts; sessions enough for minutes
of idempotency keys still fit."""
LOG_RETENTION: Final = "2mb"
"""Little: a node that was away for seconds is sent a snapshot."""
READONLY_MS: Final = (20, 100, 1000)
"""How old what a READONLY connection reads may be: one of these, by the seed."""
TIMEOUT: Final = "1s"
"""Of a command that names none, as those of Redis's protocol."""


class Raftcache(ProcessSystem):
    """Implements ``system.System``."""

    name = "raftcache"
    services = ("peer", "http", "resp")
    operations = frozenset(OPERATIONS)
    protocols = ("http", "resp")
    ttl_slack_ms = 2.0
    """Clocks are read in milliseconds."""
    ttl_drift = 0.05
    """``max_clock_drift``'s default."""

    def __init__(self, options: Options, network: Network) -> None:
        nodes = [f"n{i + 1}" for i in range(options.nodes)]
        machine = Machine(nodes, durable=options.durable, small_disks=options.small_disks)
        super().__init__(options.nodes, network, machine)
        self._groups = options.groups or (4 if options.nodes <= 3 else 8)
        self._replication = int(options.settings.get("replication", min(3, options.nodes)))
        self._durable = options.durable
        # The group that is filled is not the only one: others hold what must not vanish.
        self._small_memory = options.small_memory and self._groups > 1
        drawn = random.Random(f"run/{options.seed}/readonly").choice(READONLY_MS)
        readonly = options.settings.get("readonly_staleness", f"{drawn}ms")
        self._own_settings = {**options.settings, "readonly_staleness": readonly}
        self.staleness_ms = {"http": (10, 100, 1000), "resp": (parse_duration_ms(readonly),)}
        self._slots = SlotMap(self._groups)
        self._versions = Versions()
        self._askers: dict[str, HttpClient] = {}
        self.replicas = tuple(
            tuple(nodes) for nodes in place_groups(self._groups, self.nodes, self._replication)
        )
        self.tolerated = (self._replication - 1) // 2
        own = {FaultKind.TRANSFER} | ({FaultKind.PRESSURE} if self._small_memory else set())
        faults = PROCESS_FAULTS | own | network.faults | machine.faults
        self.faults = faults if options.durable else faults - {FaultKind.WIPE}

    async def prepare(self) -> None:
        """Write a settings file for each node, as it sees the others."""
        secret = secrets.token_urlsafe(32)
        for node in self.nodes:
            where: dict[str, object] = {"memory": True}
            if self._durable:
                where = {"data_dir": str(self.data(node))}
            settings: dict[str, object] = {
                "node": node,
                **where,
                "groups": self._groups,
                "replication": self._replication,
                "secret": secret,
                "peer_bind": _text(self.network.listen(node, "peer")),
                "http_bind": _text(self.network.listen(node, "http")),
                "resp_bind": _text(self.network.listen(node, "resp")),
                "default_timeout_s": TIMEOUT,
                "log_retention": LOG_RETENTION,
                "log_format": "json",
                **(SMALL if self._small_memory else {}),
                **self._own_settings,
            }
            members = [self._member(node, other) for other in self.nodes]
            write_private(self.directory / f"{node}.toml", settings_toml(settings, members))

    def _member(self, node: str, other: str) -> tuple[str, ...]:
        """``other``, as ``node`` reaches it."""
        peer = self.network.reach(node, other, "peer")
        clients = [_text(self.network.client(other, service)) for service in ("http", "resp")]
        return (other, _text(peer), *clients)

    def commands(self, node: str) -> Sequence[Sequence[str]]:
        """One process."""
        return [serve_command(self.directory / f"{node}.toml")]

    def environment(self, node: str) -> Mapping[str, str]:
        """The nodes run the code that is imported here. Their settings are in the file, whatever
        the environment says: empty variables are ignored."""
        source = str(Path(raftcache.__file__).parent.parent)
        paths = [source, *filter(None, [os.environ.get("PYTHONPATH")])]
        empty = {name: "" for name in os.environ if name.startswith(ENV_PREFIX)}
        # A node that comes back is not to compile all that it imports.
        empty["PYTHONDONTWRITEBYTECODE"] = ""
        # Nor to read the machine's certificates, as aiohttp does when it is imported.
        empty["SSL_CERT_FILE"] = os.devnull
        return {**empty, "PYTHONPATH": os.pathsep.join(paths)}

    async def serves(self, node: str) -> bool:
        """Ready for traffic: its groups have leaders, and it has caught up."""
        answer = await self._ask(node, "GET", "/readyz")
        return answer is not None and answer[0] == 200

    async def stop(self) -> None:
        """End all nodes."""
        for asker in self._askers.values():
            await asker.close()
        await super().stop()

    def supports(self, protocol: str, op: str) -> bool:
        """Tokens and leases are HTTP's; only Redis's protocol can append, and promises an order."""
        return op in (HTTP_OPERATIONS if protocol == "http" else RESP_OPERATIONS)

    def connect(self, node: str, protocol: str) -> Client:
        """A client of one node."""
        address = self.network.client(node, protocol)
        if protocol == "http":
            return HttpClient(address, self._versions)
        return RespClient(address, ifeq=True)

    def crowded(self, key: str) -> bool:
        """With little memory, the last group is filled until it evicts."""
        return self._small_memory and self._slots.group_of(key.encode()) == self._groups - 1

    async def leaders(self) -> list[str]:
        """By the view of the first node that answers."""
        status = await self.status()
        if status is None:
            return []
        leads = Counter(group["leader"] for group in status["groups"] if group["leader"])
        return [node for node, _ in leads.most_common()]

    async def status(self) -> dict[str, Any] | None:
        """``GET /v1/cluster`` of the first node that answers; ``None`` when none does."""
        for node in self.nodes:
            answer = await self._ask(node, "GET", "/v1/cluster")
            if answer is not None and answer[0] == 200:
                status: dict[str, Any] = json.loads(answer[1])
                return status
        return None

    async def transfer(self, part: int, target: str | None) -> None:
        """Through the first node that takes the request."""
        path = f"/v1/cluster/groups/{part % self._groups}/transfer"
        query = f"?timeout=300ms{'' if target is None else f'&to={target}'}"
        for node in self.nodes:
            answer = await self._ask(node, "POST", path + query)
            if answer is not None and answer[0] in (204, 404):
                return

    async def _ask(self, node: str, method: str, target: str) -> tuple[int, bytes] | None:
        """Status and body; ``None`` when the node does not answer."""
        if not self.running(node) or node in self._paused:
            return None
        asker = self._askers.get(node)
        if asker is None:
            asker = HttpClient(self.network.client(node, "http"), self._versions)
        self._askers.pop(node, None)  # one question at a time on a connection
        try:
            answer = await asker.request(method, target, b"", ASK_TIMEOUT_S)
        except (Refused, Unknown):
            return None
        finally:
            self._askers[node] = asker
        return answer.status, answer.body


def _text(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def local(options: Options) -> Raftcache:
    """``--system local``."""
    return Raftcache(options, ProxyNetwork(options.seed))
