"""etcd, over its HTTP gateway.

What its own clients speak is gRPC, which costs it less: the gateway turns every JSON request into a
gRPC call to itself. Debian packages no gRPC load generator for etcd; ``notes`` says so next to the
figures.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from measuring.servers import HOST, Servers, ask
from measuring.wire import Address, WireRunning

from peers import Peer, PeerError, Running, Setup, output_of
from raftcache.bench.dialects import Dialect, HttpClient, http_message
from raftcache.ports import free_ports

SHARED_MEMORY = Path("/dev/shm")
QUOTA_BYTES = 8 * 1024**3
_KEY = "a2V5Onh4e{}A=="
"""Base64 of a key of 16 bytes: the twelve digits of its number are base64 themselves."""


class GatewayClient(HttpClient):
    """A range that found nothing is no 404, but has no ``kvs``."""

    def found(self, data: bytes, head: int, end: int) -> bool:
        return not self._run.only_reads or data.find(b'"kvs"', head, end) >= 0


def request(op: str, number: str, value: bytes) -> bytes:
    """``/v3/kv/range`` (linearizable by default) or ``/v3/kv/put``."""
    key = _KEY.format(number)
    if op == "get":
        return http_message("POST", "/v3/kv/range", json.dumps({"key": key}).encode())
    if op != "set":
        raise PeerError(f"etcd: no workload {op!r} here")
    put = {"key": key, "value": base64.b64encode(value).decode()}
    return http_message("POST", "/v3/kv/put", json.dumps(put).encode())


GATEWAY = Dialect(GatewayClient, request)


class Etcd(Peer):
    """Three members."""

    name = "etcd"
    about = "three members, JSON over its HTTP gateway, keep-alive connections"
    programs = ("etcd",)
    packages = ("etcd-server",)

    def version(self) -> str:
        return output_of("etcd", "--version").rpartition(" ")[2]

    def notes(self, setup: Setup) -> Sequence[str]:
        return (
            "Measured through its HTTP gateway, which costs it CPU time that gRPC clients save.",
            "The gateway takes no pipelines.",
            "fsync before every acknowledgement."
            if setup.durable
            else "It knows no mode without a disk: its files are in shared memory (tmpfs).",
        )

    @contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        with (
            TemporaryDirectory(
                prefix="raftcache-etcd-", dir=setup.directory if setup.durable else SHARED_MEMORY
            ) as data,
            Servers(setup.directory) as servers,
        ):
            ports = free_ports(6)
            members = [
                (f"m{i + 1}", f"http://{HOST}:{peer}", f"http://{HOST}:{client}")
                for i, (peer, client) in enumerate(zip(ports[:3], ports[3:], strict=True))
            ]
            cluster = ",".join(f"{name}={peer}" for name, peer, _ in members)
            for name, peer, client in members:
                servers.start(
                    "etcd",
                    *("--name", name, "--data-dir", f"{data}/{name}"),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--initial-cluster", cluster, "--initial-cluster-state", "new"),
                    *("--quota-backend-bytes", str(QUOTA_BYTES), "--log-level", "error"),
                )
            clients = ports[3:]
            servers.wait(lambda: _leader(clients) is not None, "etcd should elect a leader")
            yield WireRunning(
                servers.pids, lambda: _leader_first(clients), GATEWAY, pipelines=False
            )


def _status(port: int) -> dict[str, str]:
    """(member id, leader's id); empty when the member does not answer or knows no leader."""
    answer = ask(port, http_message("POST", "/v3/maintenance/status", b"{}"))
    try:
        found = json.loads(answer.partition(b"\r\n\r\n")[2])
        return {"id": found["header"]["member_id"], "leader": found["leader"]}
    except (ValueError, KeyError):
        return {}


def _leader(ports: Sequence[int]) -> int | None:
    """The port of the leader, once all members agree on one."""
    statuses = [_status(port) for port in ports]
    leaders = {status.get("leader") for status in statuses}
    if len(leaders) != 1 or None in leaders:
        return None
    return next((p for p, s in zip(ports, statuses, strict=True) if s["id"] == s["leader"]), None)


def _leader_first(ports: Sequence[int]) -> list[Address]:
    leader = _leader(ports)
    if leader is None:
        raise PeerError("etcd: its members agree on no leader")
    return [(HOST, port) for port in sorted(ports, key=lambda port: port != leader)]


PEERS: list[Peer] = [Etcd()]
