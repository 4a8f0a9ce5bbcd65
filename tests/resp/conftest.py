"""A whole node in this process, its Redis port on loopback, and where there is one a real Redis."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from raftcache.config import Member, Settings
from raftcache.limits import Limits
from raftcache.node import Node
from raftcache.ports import free_ports
from raftcache.resp import RespServer
from raftcache.runtime import AsyncioRuntime
from tests.programs import program

from .wire import Wire

GROUPS = 4


def free_port() -> int:
    return free_ports(1)[0]


class Served:
    """The node, its Redis front end, and connections to it."""

    def __init__(self, node: Node, server: RespServer) -> None:
        self.node = node
        self.server = server
        self._wires: list[Wire] = []

    async def connect(self) -> Wire:
        wire = await Wire.open(self.server.port)
        self._wires.append(wire)
        return wire

    async def ask(self, *args: bytes | str | int) -> bytes:
        """One command on a connection of its own."""
        wire = await self.connect()
        return await wire.ask(*args)

    def close(self) -> None:
        for wire in self._wires:
            wire.close()


SMALL = Limits(max_value_bytes=100_000, max_key_bytes=200)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    member = Member(
        id="n1", peer=f"127.0.0.1:{free_port()}", http="127.0.0.1:1", resp="127.0.0.1:2"
    )
    settings = Settings(node="n1", members=(member,), memory=True, groups=GROUPS)
    runtime = AsyncioRuntime()
    node = Node(settings, runtime)
    await node.start()
    async with asyncio.timeout(10):
        while node.not_ready() is not None:
            await asyncio.sleep(0.001)
    addresses = {"n1": ("127.0.0.1", 2)}
    server = RespServer(node, SMALL, GROUPS, node.slots, node.placement, addresses, max_clients=50)
    await server.start("127.0.0.1", 0)
    running = Served(node, server)
    yield running
    running.close()
    server.close()
    node.close()
    runtime.close()


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """A real Redis server to compare with."""
    server = program("redis-server", "redis-server")
    port = free_port()
    arguments = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([server, *arguments], stdout=subprocess.DEVNULL)
    try:
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, "redis-server ended"
        yield port
    finally:
        process.kill()
        process.wait()
