"""Redis: a primary with two replicas and WAIT, and one server alone.

Every pipeline of writes ends with ``WAIT 1``, so that a majority of the three has what the client
is told. That is no consensus: a primary that is cut off, and a replica that is made one in its
place, lose acknowledged writes, and a read at an old primary is stale. The server alone shows what
the machine gives without any replication.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import hiredis
from measuring.servers import HOST, Servers, ask
from measuring.wire import WireRunning

from peers import Peer, Running, Setup, output_of
from raftcache.bench.dialects import DIALECTS, Dialect, RespClient, resp_command, resp_request
from raftcache.ports import free_ports

WAIT_TIMEOUT_MS = 5_000


class WaitingClient(RespClient):
    """Its pipelines of writes end with a WAIT that has to find a replica."""

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        run = self._run
        closing = run.replies > run.depth
        while (reply := self._reader.gets()) is not False:
            if reply is None:
                self.missed()
            elif isinstance(reply, hiredis.ReplyError):
                self.failed(str(reply))
            elif closing and self._left == 1 and not reply:
                self.failed("WAIT: no replica has it")
            self.answered()


def closing(workload: str) -> bytes:
    """WAIT after writes."""
    if workload == "get":
        return b""
    return resp_command(b"WAIT", b"1", b"%d" % WAIT_TIMEOUT_MS)


WAIT_DIALECT = Dialect(WaitingClient, resp_request, closing, fill_pipeline=64)


class Redis(Peer):
    """One server, no replicas."""

    name = "redis-alone"
    about = "one Redis server, not replicated: what the machine gives at best"
    linearizable = False
    programs = ("redis-server",)
    packages = ("redis-server",)

    def version(self) -> str:
        words = output_of("redis-server", "--version").split()
        return next((word[2:] for word in words if word.startswith("v=")), "")

    def notes(self, setup: Setup) -> Sequence[str]:
        kept = "appendfsync always." if setup.durable else "Nothing kept on disk."
        return ("Not replicated: a server that dies takes what it had.", kept)

    @contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        with Servers(setup.directory) as servers:
            ports = self.start_servers(setup, servers)
            yield self.running(servers, ports)

    def running(self, servers: Servers, ports: Sequence[int]) -> Running:
        return WireRunning(
            servers.pids,
            lambda: [(HOST, port) for port in ports[:1]],
            DIALECTS["resp"],
            redis_benchmark=("set", "get"),
        )

    def start_servers(self, setup: Setup, servers: Servers) -> list[int]:
        """Their ports."""
        ports = free_ports(1)
        launch(servers, setup, ports[0])
        servers.wait(lambda: ask(ports[0], b"PING\r\n").startswith(b"+PONG"), "Redis should answer")
        return ports


class RedisWait(Redis):
    """A primary and two replicas."""

    name = "redis-wait"
    about = "Redis, a primary with two replicas, WAIT 1 after every write (or pipeline of writes)"

    def notes(self, setup: Setup) -> Sequence[str]:
        return (
            "WAIT is no consensus: a failover can lose acknowledged writes, and reads are the"
            " primary's own, which nobody confirms.",
            "appendfsync always on all three." if setup.durable else "Nothing kept on disk.",
            "redis-benchmark cannot send WAIT, so that it measures reads only.",
        )

    def start_servers(self, setup: Setup, servers: Servers) -> list[int]:
        ports = free_ports(3)
        launch(servers, setup, ports[0])
        for port in ports[1:]:
            launch(servers, setup, port, "--replicaof", f"{HOST} {ports[0]}")
        servers.wait(lambda: _online(ports[0]) == 2, "both replicas should be in sync")
        return ports

    def running(self, servers: Servers, ports: Sequence[int]) -> Running:
        return WireRunning(
            servers.pids,
            lambda: [(HOST, port) for port in ports[:1]],
            WAIT_DIALECT,
            redis_benchmark=("get",),
        )


def launch(servers: Servers, setup: Setup, port: int, *more: str) -> None:
    """One redis-server."""
    directory = setup.directory / str(port)
    directory.mkdir()
    kept = ["--appendonly", "yes", "--appendfsync", "always"] if setup.durable else []
    common = ["--port", str(port), "--bind", HOST, "--save", "", "--dir", str(directory)]
    quick = ["--repl-diskless-sync-delay", "0"]
    servers.start("redis-server", *common, *quick, *kept, *more)


def _online(port: int) -> int:
    """Replicas in sync with the primary."""
    return ask(port, b"INFO replication\r\n").count(b"state=online")


PEERS: list[Peer] = [RedisWait(), Redis()]
