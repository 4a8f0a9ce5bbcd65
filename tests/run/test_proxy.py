"""The fault proxy: what is done to a direction happens to it, and to nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from jepsen_like.run.proxy import ProxyNetwork
from jepsen_like.run.system import HEALTHY, Cut, Link

NODES = ("a", "b", "c")


class Listener:
    """A node's listener: takes connections, keeps what it gets."""

    def __init__(self) -> None:
        self.received = asyncio.Queue[bytes]()
        self.writers: list[asyncio.StreamWriter] = []
        self.connected = asyncio.Queue[asyncio.StreamWriter]()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.connected.put_nowait(writer)
        try:
            while data := await reader.read(65536):
                self.received.put_nowait(data)
            self.received.put_nowait(b"<end>")
        except (ConnectionError, asyncio.CancelledError):
            self.received.put_nowait(b"<reset>")

    async def get(self, size: int = 1) -> bytes:
        """Wait for so many bytes."""
        found = b""
        while len(found) < size:
            async with asyncio.timeout(5):
                found += await self.received.get()
        return found


class Net:
    """The network with a listener for each node."""

    def __init__(self) -> None:
        self.network = ProxyNetwork()
        self.listeners = {node: Listener() for node in NODES}

    async def dial(
        self, source: str, target: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.network.reach(source, target, "peer"))


@pytest.fixture
async def net() -> AsyncIterator[Net]:
    net = Net()
    await net.network.open(NODES, ("peer",))
    servers = [
        await asyncio.start_server(listener.serve, *net.network.listen(node, "peer"))
        for node, listener in net.listeners.items()
    ]
    yield net
    await net.network.close()
    for server in servers:
        server.close()
    for listener in net.listeners.values():
        for writer in listener.writers:
            writer.close()


async def nothing(reader: asyncio.StreamReader, seconds: float = 0.15) -> bool:
    """Whether nothing is heard for a while, neither data nor an end."""
    try:
        async with asyncio.timeout(seconds):
            await reader.read(1)
    except TimeoutError:
        return True
    return False


async def test_a_healthy_link_carries_both_directions_and_the_end(net: Net) -> None:
    reader, writer = await net.dial("a", "b")
    writer.write(b"ping")
    assert await net.listeners["b"].get(4) == b"ping"
    net.listeners["b"].writers[0].write(b"pong")
    assert await reader.readexactly(4) == b"pong"
    writer.close()
    assert await net.listeners["b"].get(5) == b"<end>"


async def test_much_data_arrives_whole_and_in_order(net: Net) -> None:
    _, writer = await net.dial("a", "b")
    await net.network.shape("a", "b", Link(delay_s=0.001, jitter_s=0.005, loss=0.05))
    sent = b"".join(b"%07d " % i for i in range(100_000))
    writer.write(sent)
    assert await net.listeners["b"].get(len(sent)) == sent


async def test_a_stalled_direction_holds_data_back_until_it_is_healed(net: Net) -> None:
    reader, writer = await net.dial("a", "b")
    writer.write(b"1")
    assert await net.listeners["b"].get() == b"1"
    await net.network.shape("a", "b", Link(cut=Cut.STALL))
    writer.write(b"2")
    net.listeners["b"].writers[0].write(b"back")
    assert await reader.readexactly(4) == b"back"  # the other direction goes on
    assert net.listeners["b"].received.empty()
    await net.network.shape("a", "b", HEALTHY)
    assert await net.listeners["b"].get() == b"2"


async def test_nobody_hears_of_an_end_beyond_a_cut(net: Net) -> None:
    _, writer = await net.dial("a", "b")
    writer.write(b"1")
    assert await net.listeners["b"].get() == b"1"
    await net.network.shape("a", "b", Link(cut=Cut.STALL))
    writer.transport.abort()
    await asyncio.sleep(0.1)
    assert net.listeners["b"].received.empty()
    await net.network.shape("a", "b", HEALTHY)
    assert (await net.listeners["b"].get()).startswith(b"<")


async def test_who_dials_across_a_cut_hears_nothing_and_is_connected_when_it_heals(
    net: Net,
) -> None:
    await net.network.shape("b", "a", Link(cut=Cut.STALL))
    reader, writer = await net.dial("a", "b")
    writer.write(b"hello")
    assert await nothing(reader)
    assert net.listeners["b"].connected.empty()
    await net.network.shape("b", "a", HEALTHY)
    assert await net.listeners["b"].get(5) == b"hello"


async def test_a_stalled_sender_is_held_back_not_buffered_for_ever(net: Net) -> None:
    _, writer = await net.dial("a", "b")
    writer.write(b"1")
    assert await net.listeners["b"].get() == b"1"
    await net.network.shape("a", "b", Link(cut=Cut.STALL))
    chunk = bytes(1024 * 1024)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            for _ in range(256):
                writer.write(chunk)
                await writer.drain()


async def test_other_pairs_are_not_touched(net: Net) -> None:
    await net.network.shape("a", "b", Link(cut=Cut.STALL))
    await net.network.shape("b", "a", Link(cut=Cut.REFUSE))
    pairs = (("a", "c"), ("c", "b"), ("b", "c"))
    connections = [await net.dial(*pair) for pair in pairs]
    for (_, target), (_, writer) in zip(pairs, connections, strict=True):
        writer.write(b"x")
        assert await net.listeners[target].get() == b"x"


async def test_a_refused_link_resets_connections_and_takes_no_new_ones(net: Net) -> None:
    reader, writer = await net.dial("a", "b")
    writer.write(b"1")
    assert await net.listeners["b"].get() == b"1"
    await net.network.shape("a", "b", Link(cut=Cut.REFUSE))
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert await net.listeners["b"].get() == b"<reset>"
    with pytest.raises(ConnectionError):
        again, _ = await net.dial("a", "b")
        if await again.read(1) == b"":
            raise ConnectionError
    await net.network.shape("a", "b", HEALTHY)
    _, writer = await net.dial("a", "b")
    writer.write(b"2")
    assert await net.listeners["b"].get() == b"2"


async def test_reset_ends_both_ends_of_the_pair_only(net: Net) -> None:
    reader, writer = await net.dial("a", "b")
    other, witness = await net.dial("a", "c")
    for each in (writer, witness):
        each.write(b"1")
    assert await net.listeners["b"].get() == await net.listeners["c"].get() == b"1"
    await net.network.reset("b", "a")
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    assert await net.listeners["b"].get() == b"<reset>"
    assert await nothing(other)


async def test_delay_is_of_one_direction(net: Net) -> None:
    reader, writer = await net.dial("a", "b")
    writer.write(b"1")
    assert await net.listeners["b"].get() == b"1"
    await net.network.shape("a", "b", Link(delay_s=0.3))
    started = time.monotonic()
    writer.write(b"2")
    net.listeners["b"].writers[0].write(b"x")
    await reader.readexactly(1)
    assert net.listeners["b"].received.empty()
    await net.listeners["b"].get()
    assert time.monotonic() - started >= 0.29


async def test_bandwidth_is_what_is_asked_for(net: Net) -> None:
    _, writer = await net.dial("a", "b")
    await net.network.shape("a", "b", Link(bytes_per_s=1_000_000))
    started = time.monotonic()
    writer.write(bytes(400_000))
    await net.listeners["b"].get(400_000)
    assert time.monotonic() - started >= 0.35


async def test_an_orphan_s_bytes_arrive_after_those_of_its_successor(net: Net) -> None:
    reader, writer = await net.dial("a", "b")
    writer.write(b"0")
    assert await net.listeners["b"].get() == b"0"
    await net.network.shape("a", "b", Link(delay_s=0.5))
    writer.write(b"late")
    await asyncio.sleep(0.1)  # the bytes are in the network
    await net.network.orphan("a", "b", 1.0)
    await net.network.shape("a", "b", HEALTHY)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    _, successor = await net.dial("a", "b")
    successor.write(b"new")
    assert await net.listeners["b"].get(3) == b"new"
    assert await net.listeners["b"].get(4) == b"late"
    assert (await net.listeners["b"].get()).startswith(b"<")  # and then it ends
