"""The control that must be acquitted: etcd, Debian's etcd-server, through its JSON gateway.

Reads and writes are linearizable by default. What etcd has no request for (``incr``, transactions
that compute) is done as etcd's own library does it: read, compute, and write in a transaction if no
key that was read has changed since (``concurrency.STM``).

``--setting network=netns`` for namespaces; on loopback the members' requests take the proxy.
"""

from __future__ import annotations

import json
import shutil
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from jepsen_like.run.controls.networks import HttpNetwork, chosen
from jepsen_like.run.http_answers import Answer, Answers
from jepsen_like.run.processes import PROCESS_FAULTS, ProcessSystem
from jepsen_like.run.system import FaultKind, Options, Refused, StartError, Unknown
from jepsen_like.run.wire import Connection

ASK_TIMEOUT_S: Final = 0.5
PROGRAMS: Final = {"etcd": "etcd-server"}
"""What it runs, and Debian's package that has it."""
OPERATIONS: Final = frozenset({"get", "set", "cas", "incr", "del", "txn", "append"})

Values = dict[str, str | None]
"""Key -> value; ``None``: absent."""


class EtcdClient:
    """Implements ``system.Client``."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._connection = Connection(address, Answers)
        self._host = f"{address[0]}:{address[1]}"

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        """See ``system.Client``."""
        del once
        name = _encoded(key)
        match op:
            case "get":
                answer = await self.ask("/v3/kv/range", {"key": name}, timeout_s)
                return _value(answer)
            case "set":
                body = {"key": name, "value": _encoded(args[0]), "prev_kv": True}
                return "prev_kv" not in await self.ask("/v3/kv/put", body, timeout_s)
            case "del":
                answer = await self.ask("/v3/kv/deleterange", {"key": name}, timeout_s)
                return int(answer.get("deleted", 0)) == 1
            case "cas":
                return await self._cas(name, args[0], args[1], timeout_s)
            case "incr":
                (number,) = await self._atomically([["incr", key, args[0]]], timeout_s)
                return number
            case "txn":
                return await self._atomically(args, timeout_s)
        raise ValueError(f"etcd cannot {op}")

    async def _cas(self, name: str, expected: str | None, new: str, timeout_s: float) -> bool:
        condition: dict[str, Any] = {"key": name, "target": "VALUE", "result": "EQUAL"}
        if expected is None:
            condition |= {"target": "CREATE", "create_revision": "0"}
        else:
            condition["value"] = _encoded(expected)
        put = {"request_put": {"key": name, "value": _encoded(new)}}
        body = {"compare": [condition], "success": [put]}
        return bool((await self.ask("/v3/kv/txn", body, timeout_s)).get("succeeded", False))

    async def _atomically(self, micros: Sequence[Any], timeout_s: float) -> list[Any]:
        """Optimistic concurrency. ``Refused`` when others were quicker every time."""
        names = sorted({micro[1] for micro in micros})
        reads = [{"request_range": {"key": _encoded(name)}} for name in names]
        deadline = time.monotonic() + timeout_s
        while (left := deadline - time.monotonic()) > 0:
            try:
                seen = await self.ask("/v3/kv/txn", {"success": reads}, left)
            except Unknown as error:
                raise Refused(f"nothing was written: {error}") from None
            found = [answer["response_range"] for answer in seen["responses"]]
            before: Values = {n: _value(answer) for n, answer in zip(names, found, strict=True)}
            after = dict(before)
            results = [_done(micro, after) for micro in micros]
            conditions = [
                {
                    "key": _encoded(name),
                    "target": "MOD",
                    "result": "EQUAL",
                    "mod_revision": _revision(answer),
                }
                for name, answer in zip(names, found, strict=True)
            ]
            writes = [_write(name, value) for name, value in after.items() if value != before[name]]
            body = {"compare": conditions, "success": writes}
            left = max(0.05, deadline - time.monotonic())
            if (await self.ask("/v3/kv/txn", body, left)).get("succeeded", False):
                return results
        raise Refused("others were quicker every time")

    async def ask(self, path: str, body: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
        """A request of etcd's; its answer. Any error of etcd's is ``Unknown``: it says too little
        of what became of the request."""
        return await self._exchange("POST", path, json.dumps(body).encode(), timeout_s)

    async def healthy(self) -> bool:
        """Whether the member can read linearizably."""
        try:
            answer = await self._exchange("GET", "/health", b"", ASK_TIMEOUT_S)
        except (Refused, Unknown):
            return False
        return answer.get("health") == "true"

    async def _exchange(
        self, method: str, path: str, content: bytes, timeout_s: float
    ) -> dict[str, Any]:
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Length: {len(content)}"
        request = head.encode() + b"\r\n\r\n" + content
        answer: Answer = await self._connection.exchange(request, timeout_s)
        if answer.status != 200:
            raise Unknown(answer.body.decode(errors="replace"))
        fields: dict[str, Any] = json.loads(answer.body)
        return fields

    async def close(self) -> None:
        """Drop the connection."""
        self._connection.abort()


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


def _value(answer: Mapping[str, Any]) -> str | None:
    found = answer.get("kvs")
    return b64decode(found[0].get("value", "")).decode() if found else None


def _revision(answer: Mapping[str, Any]) -> str:
    """Of the last change; "0" of an absent key."""
    found = answer.get("kvs")
    return str(found[0]["mod_revision"]) if found else "0"


def _write(name: str, value: str | None) -> dict[str, Any]:
    """Part of a transaction."""
    if value is None:
        return {"request_delete_range": {"key": _encoded(name)}}
    return {"request_put": {"key": _encoded(name), "value": _encoded(value)}}


def _done(micro: Sequence[Any], values: Values) -> Any:
    """The result of one micro-operation, which changes ``values``."""
    name, key, *arguments = micro
    before = values[key]
    match name:
        case "get":
            return before
        case "set":
            values[key] = arguments[0]
            return None
        case "del":
            values[key] = None
            return None
        case "append":
            values[key] = (before or "") + arguments[0]
            return None
        case "incr":
            number = int(before or 0) + arguments[0]
            values[key] = str(number)
            return number
    raise ValueError(f"transactions cannot {name}")


class Etcd(ProcessSystem):
    """Implements ``system.System``. Always on disk: etcd knows nothing else."""

    name = "etcd"
    operations = OPERATIONS
    protocols: tuple[str, ...] = ("http",)
    services = ("peer", "client")
    staleness_ms: Mapping[str, tuple[int, ...]] = {}
    ttl_slack_ms = 0.0
    ttl_drift = 0.0

    def __init__(self, options: Options) -> None:
        for program, package in PROGRAMS.items():
            if shutil.which(program) is None:
                raise StartError(f"there is no {program} (Debian: apt-get install {package})")
        super().__init__(options.nodes, chosen(options, HttpNetwork))
        # A member whose disk is lost has to be replaced by a new one: not covered by its promises.
        own = (PROCESS_FAULTS - {FaultKind.WIPE}) | {FaultKind.TRANSFER}
        self.faults = own | self.network.faults
        self.tolerated = (options.nodes - 1) // 2

    def commands(self, node: str) -> Sequence[Sequence[str]]:
        """One process. Elections take half of the default time."""
        peer = "http://{}:{}".format(*self.network.listen(node, "peer"))
        client = "http://{}:{}".format(*self.network.listen(node, "client"))
        members = ",".join(f"{other}={self._url(other)}" for other in self.nodes)
        flags = {
            "name": node,
            "data-dir": str(self.data(node) / "etcd"),
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": self._url(node),
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "initial-cluster": members,
            "heartbeat-interval": "50",
            "election-timeout": "500",
            "logger": "zap",
        }
        return [["etcd", *(f"--{name}={value}" for name, value in flags.items())]]

    def environment(self, node: str) -> Mapping[str, str]:
        network = self.network
        return network.environment(node) if isinstance(network, HttpNetwork) else {}

    def _url(self, node: str) -> str:
        """What all members call a member."""
        if isinstance(self.network, HttpNetwork):
            return self.network.url(node)
        return "http://{}:{}".format(*self.network.reach(node, node, "peer"))

    def supports(self, protocol: str, op: str) -> bool:
        del protocol
        return op in self.operations

    def connect(self, node: str, protocol: str) -> EtcdClient:
        del protocol
        return EtcdClient(self.network.client(node, "client"))

    async def serves(self, node: str) -> bool:
        return bool(await self._with(node, lambda client: client.healthy()))

    async def leaders(self) -> list[str]:
        """As the members say, newest term first."""
        terms: dict[str, int] = {}
        for node in self.nodes:
            status = await self._status(node)
            if status and status.get("leader") == status["header"]["member_id"]:
                terms[node] = int(status["raftTerm"])
        return sorted(terms, key=lambda node: -terms[node])

    async def transfer(self, part: int, target: str | None) -> None:
        """Ask the leader to hand over; to the next member when no target is named."""
        del part
        leading = await self.leaders()
        if not leading:
            return
        others = [node for node in self.nodes if node != leading[0]]
        status = await self._status(target if target in others else others[0])
        if status:
            body = {"targetID": status["header"]["member_id"]}
            path = "/v3/maintenance/transfer-leadership"
            await self._with(leading[0], lambda client: client.ask(path, body, ASK_TIMEOUT_S))

    async def _status(self, node: str | None) -> dict[str, Any] | None:
        path = "/v3/maintenance/status"
        status: dict[str, Any] | None = None
        if node is not None:
            status = await self._with(node, lambda client: client.ask(path, {}, ASK_TIMEOUT_S))
        return status

    async def _with(self, node: str, do: Callable[[EtcdClient], Any]) -> Any:
        """Ask a member with a client of its own; ``None`` when there is no answer."""
        if not self.running(node) or node in self._paused:
            return None
        client = EtcdClient(self.network.client(node, "client"))
        try:
            return await do(client)
        except (Refused, Unknown):
            return None
        finally:
            await client.close()


def etcd(options: Options) -> Etcd:
    """``system.Factory``."""
    return Etcd(options)
