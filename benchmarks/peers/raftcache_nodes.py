"""raftcache itself, over both of its protocols."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from measuring.wire import Address, WireRunning

from peers import Peer, PeerError, Running, Setup
from raftcache.bench.dialects import DIALECTS
from raftcache.demo import Cluster, DemoError, Plan, cluster_status
from raftcache.ports import PortsError

MAX_MEMORY = "2gb"
COMPILED = Path(__file__).parents[2] / ".venv" / "compiled"


class Raftcache(Peer):
    """Over Redis's protocol."""

    name = "raftcache"
    about = "three nodes, Redis's protocol"
    protocol: ClassVar[str] = "resp"
    redis_benchmark: ClassVar[Sequence[str]] = ("set", "get")
    pipelines: ClassVar[bool] = True
    environment: ClassVar[Mapping[str, str]] = {}

    def version(self) -> str:
        return version("raftcache")

    def notes(self, setup: Setup) -> Sequence[str]:
        if setup.durable:
            return ("fdatasync on a majority before every acknowledgement.",)
        return ("In memory; a node that restarts recovers from a majority.",)

    @contextmanager
    def start(self, setup: Setup) -> Iterator[Running]:
        plan = Plan(
            nodes=3,
            groups=setup.groups,
            port=0,
            directory=setup.directory,
            memory=not setup.durable,
            settings={"max_memory": MAX_MEMORY},
            environment=dict(self.environment),
        )
        try:
            with Cluster(plan) as cluster:
                cluster.wait_until_ready()
                yield WireRunning(
                    cluster.pids,
                    lambda: leader_first(cluster, self.protocol),
                    DIALECTS[self.protocol],
                    pipelines=self.pipelines,
                    redis_benchmark=self.redis_benchmark,
                )
        except (DemoError, PortsError) as error:
            raise PeerError(f"raftcache: {error}") from error


class RaftcacheCompiled(Raftcache):
    """The same with its busiest modules compiled."""

    name = "raftcache-compiled"
    about = "the same, its busiest modules compiled (make compiled)"
    environment: ClassVar[Mapping[str, str]] = {
        "PYTHONPATH": str(COMPILED),
        "PYTHONSAFEPATH": "1",
    }
    install = "make compiled"

    def missing(self) -> str:
        return "" if (COMPILED / "done").exists() else f"no {COMPILED}"


class RaftcacheHttp(Raftcache):
    """Over HTTP."""

    name = "raftcache-http"
    about = "three nodes, the HTTP API"
    protocol = "http"
    redis_benchmark = ()
    pipelines = False

    def notes(self, setup: Setup) -> Sequence[str]:
        return (*super().notes(setup), "Many at a time over HTTP are a batch, not a pipeline.")


def leader_first(cluster: Cluster, protocol: str) -> list[Address]:
    """The addresses of the nodes, first of the one that leads most groups."""
    status = cluster_status(cluster.urls[0])
    if status is None:
        raise PeerError("raftcache: a node does not answer")
    led = [group["leader"] for group in status["groups"]]
    nodes = sorted(cluster.nodes, key=lambda node: -led.count(node.id))
    texts = [node.resp if protocol == "resp" else node.url for node in nodes]
    parts = [text.removeprefix("http://").rpartition(":") for text in texts]
    return [(host, int(port)) for host, _, port in parts]


PEERS: list[Peer] = [Raftcache(), RaftcacheCompiled(), RaftcacheHttp()]
