"""The network of namespaces: what packets really do on the links that it has made bad."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jepsen_like.run.namespaces import PROGRAMS, Namespaces, why_not
from jepsen_like.run.system import HEALTHY, Cut, Link
from tests.programs import program

NODES = ("n1", "n2", "n3")
PACKETS = 400

COLLECT = """
import json, socket, sys, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
got = []
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
    here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    here.bind((host, port))
    print("ready", flush=True)
    while True:
        data = here.recv(2000)
        if data.startswith(b"end"):
            here.settimeout(seconds)
            break
        number, sent = data.split()[:2]
        got.append([int(number), time.monotonic() - float(sent)])
    try:
        while True:
            data = here.recv(2000)
            if not data.startswith(b"end"):
                number, sent = data.split()[:2]
                got.append([int(number), time.monotonic() - float(sent)])
    except TimeoutError:
        pass
print(json.dumps(got))
"""
"""Prints [number, seconds on the way] of every datagram, until ``seconds`` after the last."""

SEND = """
import socket, sys, time
there, count = (sys.argv[1], int(sys.argv[2])), int(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
    for number in range(count):
        here.sendto(b"%d %f " % (number, time.monotonic()) + b"." * 100, there)
        time.sleep(0.0005)
"""


@pytest.fixture(scope="module", autouse=True)
def possible() -> None:
    for name, package in PROGRAMS.items():
        program(name, package)
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
async def network() -> AsyncIterator[Namespaces]:
    network = Namespaces()
    try:
        await network.open(NODES, ("peer", "http"))
        yield network
    finally:
        await network.close()


async def start(
    network: Namespaces, node: str, text: str, *arguments: object
) -> asyncio.subprocess.Process:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return await asyncio.create_subprocess_exec(
        *network.command(node, command), stdout=asyncio.subprocess.PIPE
    )


async def arrivals(network: Namespaces, source: str, target: str) -> list[tuple[int, float]]:
    """Number and seconds on the way of each datagram from one node that another gets."""
    there = network.reach(source, target, "peer")
    collector = await start(network, target, COLLECT, *there, 1.0)
    assert collector.stdout is not None
    assert await collector.stdout.readline() == b"ready\n"
    sender = await start(network, source, SEND, *there, PACKETS)
    assert await sender.wait() == 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as here:
        here.sendto(b"end", network.client(target, "peer"))
    output = await collector.stdout.read()
    await collector.wait()
    return [(number, seconds) for number, seconds in json.loads(output)]


async def test_a_healthy_link_delivers_everything_once_and_in_order(network: Namespaces) -> None:
    assert [number for number, _ in await arrivals(network, "n1", "n2")] == list(range(PACKETS))


async def test_a_cut_stops_one_direction_only_and_heals(network: Namespaces) -> None:
    await network.shape("n1", "n2", Link(cut=Cut.STALL))
    assert await arrivals(network, "n1", "n2") == []
    assert len(await arrivals(network, "n2", "n1")) == PACKETS
    assert len(await arrivals(network, "n3", "n2")) == PACKETS
    await network.shape("n1", "n2", HEALTHY)
    assert len(await arrivals(network, "n1", "n2")) == PACKETS


async def test_packets_are_lost_at_random(network: Namespaces) -> None:
    await network.shape("n1", "n2", Link(loss=0.3))
    numbers = [number for number, _ in await arrivals(network, "n1", "n2")]
    assert 0.5 * PACKETS < len(numbers) < 0.9 * PACKETS and numbers == sorted(set(numbers))


async def test_packets_are_late_one_way_and_keep_their_order(network: Namespaces) -> None:
    await network.shape("n1", "n2", Link(delay_s=0.1, jitter_s=0.05))
    late = await arrivals(network, "n1", "n2")
    assert [number for number, _ in late] == list(range(PACKETS))
    assert min(seconds for _, seconds in late) >= 0.1
    assert len({round(seconds, 3) for _, seconds in late}) > 5
    assert len(await arrivals(network, "n2", "n1")) == PACKETS
    await network.shape("n1", "n2", HEALTHY)
    assert min(seconds for _, seconds in await arrivals(network, "n1", "n2")) < 0.1


async def test_packets_are_doubled_and_overtake_each_other(network: Namespaces) -> None:
    await network.shape("n1", "n2", Link(delay_s=0.05, duplicate=0.3, reorder=0.3))
    numbers = [number for number, _ in await arrivals(network, "n1", "n2")]
    assert set(numbers) == set(range(PACKETS))
    assert 1.1 * PACKETS < len(numbers) < 1.6 * PACKETS
    assert numbers != sorted(numbers)


async def test_a_metered_link_makes_packets_wait_for_each_other(network: Namespaces) -> None:
    await network.shape("n1", "n2", Link(bytes_per_s=20_000))
    late = await arrivals(network, "n1", "n2")
    assert len(late) == PACKETS
    assert late[-1][1] > 0.5 > late[0][1]


async def ask(host: str, port: int, network: Namespaces, node: str) -> str:
    """What comes of a connection from ``node``, in which one byte is sent."""
    text = f"""
import socket
import subprocess
try:
    with socket.create_connection(({host!r}, {port}), 2) as there:
        there.settimeout(2)
        there.sendall(b"x")
        print(there.recv(1).decode())
except OSError as error:
    print(type(error).__name__)
"""
    process = await start(network, node, text)
    output, _ = await process.communicate()
    return output.decode().strip()


ECHO = """
import socket, sys, threading
def serve(there):
    try:
        while data := there.recv(100):
            there.sendall(data)
    except OSError as error:
        print(type(error).__name__, flush=True)
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as here:
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=[here.accept()[0]], daemon=True).start()
"""

HOLD = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2]))) as there:
    there.sendall(b"x")
    there.recv(1)
    print("ready", flush=True)
    try:
        there.recv(1)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


@contextlib.asynccontextmanager
async def echo(network: Namespaces, node: str) -> AsyncIterator[asyncio.subprocess.Process]:
    server = await start(network, node, ECHO, *network.listen(node, "http"))
    try:
        assert server.stdout is not None and await server.stdout.readline() == b"ready\n"
        yield server
    finally:
        server.kill()
        await server.wait()


async def test_a_refusing_link_resets_what_exists_and_what_is_new_but_not_clients(
    network: Namespaces,
) -> None:
    there = network.reach("n1", "n2", "http")
    async with echo(network, "n2") as server:
        assert server.stdout is not None
        assert await ask(*there, network, "n1") == "x"
        holder = await start(network, "n1", HOLD, *there)
        assert holder.stdout is not None and await holder.stdout.readline() == b"ready\n"
        await network.shape("n1", "n2", Link(cut=Cut.REFUSE))
        async with asyncio.timeout(10):
            assert await holder.stdout.readline() == b"ConnectionAbortedError\n"
            assert await server.stdout.readline() in (
                b"ConnectionAbortedError\n",
                b"ConnectionResetError\n",
            )
        await holder.wait()
        assert await ask(*there, network, "n1") == "ConnectionRefusedError"
        back = network.reach("n2", "n1", "http")
        async with echo(network, "n1"):
            assert await ask(*back, network, "n2") == "ConnectionRefusedError"
        assert await ask(*there, network, "n3") == "x"
        reader, writer = await asyncio.open_connection(*network.client("n2", "http"))
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        writer.close()
        await network.shape("n1", "n2", HEALTHY)
        assert await ask(*there, network, "n1") == "x"


async def test_an_orphaned_connection_ends_here_at_once_and_there_later(
    network: Namespaces,
) -> None:
    there = network.reach("n1", "n2", "http")
    loop = asyncio.get_running_loop()
    async with echo(network, "n2") as server:
        holder = await start(network, "n1", HOLD, *there)
        assert holder.stdout is not None and server.stdout is not None
        assert await holder.stdout.readline() == b"ready\n"
        orphaning = loop.create_task(network.orphan("n1", "n2", 1.0))
        async with asyncio.timeout(10):
            assert await holder.stdout.readline() == b"ConnectionAbortedError\n"
            before = loop.time()
            assert await ask(*there, network, "n1") == "x"  # a new connection is not held up
            assert await server.stdout.readline() == b"ConnectionResetError\n"
        assert loop.time() - before > 0.5
        await holder.wait()
        await orphaning


async def test_nothing_is_left(network: Namespaces) -> None:
    names = [network.namespace(node) for node in (*NODES, "switch")]
    assert all(Path("/run/netns", name).exists() for name in names)
    await network.close()
    assert not any(Path("/run/netns", name).exists() for name in names)
    assert f"jl{os.getpid()}" not in [name for _, name in socket.if_nameindex()]


@pytest.fixture
def leftover() -> Path:
    """A namespace of a run that is gone."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    name = f"jepsen-{gone.pid}-n1"
    subprocess.run(["ip", "netns", "add", name], check=True)
    return Path("/run/netns", name)


async def test_what_a_killed_run_has_left_is_removed_by_the_next(leftover: Path) -> None:
    assert leftover.exists()
    network = Namespaces()
    try:
        await network.open(("n1",), ("peer",))
        assert not leftover.exists()
    finally:
        await network.close()
