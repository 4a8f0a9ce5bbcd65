"""A small world for the tests: two or three processes, one network, a disk each."""

from __future__ import annotations

import asyncio

import pytest

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.network import Network
from jepsen_like.sim.runtime import SimRuntime
from jepsen_like.sim.scheduler import Scheduler


class World:
    """Scheduler, network and processes named ``a``, ``b``, ``c``."""

    def __init__(self, seed: int = 1) -> None:
        self.scheduler = Scheduler(seed)
        self.network = Network(self.scheduler)
        self.disks: dict[str, SimDisk] = {}
        self.nodes: dict[str, SimRuntime] = {}

    def start(self, name: str) -> SimRuntime:
        disk = self.disks.get(name)
        if disk is None:
            disk = self.disks[name] = SimDisk(self.scheduler.generator(f"disk/{name}"))
        node = self.nodes[name] = SimRuntime(self.scheduler, self.network, disk, name)
        return node

    def run(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now + seconds)


class Recorder(asyncio.Protocol):
    """Keeps everything it is told."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.data = b""
        self.pieces = 0
        self.events: list[str] = []
        self.error: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.pieces += 1

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.error = exc


def link(world: World, client: str = "a", server: str = "b") -> tuple[Recorder, Recorder]:
    """An open connection from ``client`` to ``server``: both protocols."""
    accepted: list[Recorder] = []
    opened: list[Recorder] = []

    def accept() -> Recorder:
        accepted.append(Recorder())
        return accepted[-1]

    async def run() -> None:
        listener = await world.nodes[server].listen("0.0.0.0", 0, accept)
        protocol = Recorder()
        await world.nodes[client].connect(server, listener.port, lambda: protocol)
        opened.append(protocol)

    # One process's task may use another's runtime here: only the test does so.
    world.nodes[client].spawn(run(), "link")
    assert world.scheduler.run_until(lambda: bool(opened and accepted), world.scheduler.now + 20)
    return opened[0], accepted[0]


@pytest.fixture
def world() -> World:
    made = World()
    for name in "abc":
        made.start(name)
    return made
