"""Links of nodes that know each other by one address: the proxy finds out who is asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from jepsen_like.run.controls.networks import HttpNetwork, SourceNetwork, chosen
from jepsen_like.run.namespaces import Namespaces
from jepsen_like.run.proxy import ProxyNetwork
from jepsen_like.run.system import HEALTHY, Cut, Link, Options, StartError

NODES = ("n1", "n2", "n3")
STALLED = Link(cut=Cut.STALL)


@asynccontextmanager
async def serving(network: ProxyNetwork, node: str) -> AsyncIterator[None]:
    """What the node hears it repeats, after its own name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(node.encode() + b" " + data)
        writer.close()

    async with await asyncio.start_server(serve, *network.listen(node, "peer")):
        yield


async def said(
    place: tuple[str, int], source: str | None, words: bytes, patience_s: float = 5.0
) -> bytes | None:
    """What is answered to ``words``; ``None``: nothing in time."""
    local = None if source is None else (source, 0)
    reader, writer = await asyncio.open_connection(*place, local_addr=local)
    try:
        writer.write(words)
        async with asyncio.timeout(patience_s):
            return await reader.read(65536)
    except TimeoutError:
        return None
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_a_connections_source_address_tells_whose_it_is() -> None:
    network = SourceNetwork()
    await network.open(NODES, ("peer",))
    try:
        async with serving(network, "n2"):
            there = network.reach("n1", "n2", "peer")
            assert there == network.reach("n3", "n2", "peer") != network.listen("n2", "peer")
            await network.shape("n1", "n2", STALLED)
            assert await said(there, network.source("n1"), b"a", 0.3) is None
            assert await said(there, network.source("n3"), b"b") == b"n2 b"
            assert await said(there, network.source("n2"), b"c") == b"n2 c"  # itself
            await network.shape("n1", "n2", HEALTHY)
            assert await said(there, network.source("n1"), b"d") == b"n2 d"
            assert await said(there, None, b"e") == b""  # no node's
    finally:
        await network.close()


async def test_an_http_proxy_of_its_own_tells_whose_a_request_is() -> None:
    network = HttpNetwork()
    await network.open(NODES, ("peer",))

    def proxy(node: str) -> tuple[str, int]:
        url = network.environment(node)["HTTP_PROXY"]
        host, _, port = url.removeprefix("http://").partition(":")
        return host, int(port)

    request = f"POST {network.url('n2')}/raft?x=1 HTTP/1.1\r\n".encode()
    request += b"Host: n2\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody"
    seen = (
        b"POST /raft?x=1 HTTP/1.1\r\nHost: n2\r\nContent-Length: 4\r\nConnection: close\r\n\r\nbody"
    )
    try:
        async with serving(network, "n2"):
            await network.shape("n1", "n2", STALLED)
            assert await said(proxy("n1"), None, request, 0.3) is None
            assert await said(proxy("n3"), None, request) == b"n2 " + seen
            await network.shape("n1", "n2", HEALTHY)
            assert await said(proxy("n1"), None, request) == b"n2 " + seen
            stranger = request.replace(b"n2.", b"n9.", 1)
            assert await said(proxy("n1"), None, stranger) == b""
    finally:
        await network.close()


def test_the_network_is_chosen_by_a_setting() -> None:
    assert isinstance(chosen(Options(), SourceNetwork), SourceNetwork)
    there = Options(settings={"network": "netns"})
    assert isinstance(chosen(there, SourceNetwork), Namespaces)
    with pytest.raises(StartError, match="proxy or netns"):
        chosen(Options(settings={"network": "moon"}), SourceNetwork)
