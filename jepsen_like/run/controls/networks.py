"""The proxy's links for systems whose nodes know each other by one address, the same for all.

raftcache's nodes can be told another address of a peer each, so that the proxy's listener tells who
is asking. Others spread one address of each node among themselves. The proxy then has to know from
the connection who has made it:

- ``SourceNetwork``: by the address it comes from. A node is to bind its connections to
  ``source(node)``, a loopback address of its own (``bind-source-addr`` of Redis and Sentinel).
- ``HttpNetwork``: nodes that speak HTTP take a proxy of their own for it (``HTTP_PROXY``, which
  Go's and most other clients heed for names that are not ``localhost``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast

from jepsen_like.run.namespaces import Namespaces
from jepsen_like.run.proxy import Connection, ProxyNetwork, _Direction
from jepsen_like.run.system import HEALTHY, Network, Options, StartError
from raftcache.ports import HOST

DOMAIN: Final = "jepsen.invalid"
"""Names of nodes end so; nothing else has such a name (RFC 2606)."""
HEAD_LIMIT_BYTES: Final = 64 * 1024


def chosen(options: Options, loopback: Callable[[int], Network]) -> Network:
    """The network that ``--setting network=proxy|netns`` asks for; ``loopback`` takes a seed."""
    name = options.settings.get("network", "proxy")
    if name == "netns":
        return Namespaces()
    if name != "proxy":
        raise StartError(f"network={name}: it should be proxy or netns")
    return loopback(options.seed)


class SourceNetwork(ProxyNetwork):
    """One listener for each service of a node; a connection's source address tells whose it is."""

    def source(self, node: str) -> str:
        """What a node has to bind its connections to."""
        return f"127.1.1.{int(node.removeprefix('n'))}"

    async def open(self, nodes: Sequence[str], services: Sequence[str]) -> None:
        await super().open(nodes, services)
        loop = asyncio.get_running_loop()
        sources = {self.source(node): node for node in nodes}
        for target in nodes:
            # A node's processes call each other as they do others.
            self._directions[target, target] = _Direction(target, target, HEALTHY, {})
            for service in services:
                server = await loop.create_server(
                    lambda target=target, service=service: _Caller(  # type: ignore[misc]
                        self, sources, target, service
                    ),
                    HOST,
                    0,
                )
                self._servers.append(server)
                for source in nodes:
                    self._reaches[source, target, service] = server.sockets[0].getsockname()[:2]

    def reach(self, source: str, target: str, service: str) -> tuple[str, int]:
        """The same for every source, itself included."""
        return self._reaches[source, target, service]


class _Caller(asyncio.Protocol):
    """A connection of which only the source address is known."""

    def __init__(
        self, network: SourceNetwork, sources: dict[str, str], target: str, service: str
    ) -> None:
        self._network = network
        self._sources = sources
        self._target = target
        self._service = service

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        source = self._sources.get(stream.get_extra_info("peername")[0])
        if source is None:
            stream.abort()
            return
        hand_over(self._network, stream, source, self._target, self._service)


class HttpNetwork(ProxyNetwork):
    """An HTTP proxy for each node. ``open`` takes the service that nodes ask each other by first;
    ``url`` is where they do so."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self._proxies: dict[str, str] = {}
        self._service = ""

    async def open(self, nodes: Sequence[str], services: Sequence[str]) -> None:
        await super().open(nodes, services)
        self._service = services[0]
        targets = {f"{node}.{DOMAIN}": node for node in nodes}
        loop = asyncio.get_running_loop()
        for source in nodes:
            server = await loop.create_server(
                lambda source=source: _ProxiedRequest(  # type: ignore[misc]
                    self, source, targets, self._service
                ),
                HOST,
                0,
            )
            self._servers.append(server)
            self._proxies[source] = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"

    def url(self, node: str) -> str:
        """How the others call a node."""
        return f"http://{node}.{DOMAIN}:80"

    def environment(self, node: str) -> dict[str, str]:
        """Of the node's process: where its requests go."""
        return {"HTTP_PROXY": self._proxies[node], "http_proxy": self._proxies[node]}


class _ProxiedRequest(asyncio.Protocol):
    """A connection to a node's proxy, until it is known where its request goes. Each request is
    told to be the last one of its connection, since the next may go elsewhere; what lasts (etcd's
    streams) is one request."""

    def __init__(
        self, network: HttpNetwork, source: str, targets: dict[str, str], service: str
    ) -> None:
        self._network = network
        self._source = source
        self._targets = targets
        self._service = service
        self._transport: asyncio.Transport | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._head += data
        head, separator, body = self._head.partition(b"\r\n\r\n")
        if not separator:
            if len(head) > HEAD_LIMIT_BYTES:
                self._transport.abort()
            return
        method, url, *lines = head.replace(b" ", b"\r\n", 2).split(b"\r\n")
        host, _, path = url.removeprefix(b"http://").partition(b"/")
        target = self._targets.get(host.decode(errors="replace").partition(":")[0])
        if target is None:
            self._transport.abort()
            return
        first = method + b" /" + path + b" " + lines[0]
        kept = [line for line in lines[1:] if not line.lower().startswith(b"connection:")]
        request = b"\r\n".join([first, *kept, b"Connection: close"]) + separator + body
        connection = hand_over(self._network, self._transport, self._source, target, self._service)
        connection.near.data_received(request)


def hand_over(
    network: ProxyNetwork, transport: asyncio.Transport, source: str, target: str, service: str
) -> Connection:
    """What comes on ``transport`` is from now on a connection of the network."""
    connection = Connection(network, source, target, network.listen(target, service))
    transport.set_protocol(connection.near)
    connection.near.connection_made(transport)
    return connection
