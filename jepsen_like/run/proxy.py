"""A network of TCP links between nodes on loopback, in this process: no root, no kernel modules.

Every node reaches every other one through a listener of its own here, so that a connection's two
ends are known, and each direction of each pair can be made bad on its own (``system.Link``).

What a real network does is done to the stream: a stalled direction is not read any more, so that
the sender's buffers fill as they would; neither data nor the end of a connection cross it until it
is healed. Who dials across it gets a connection, since the kernel accepts before we are asked, but
hears nothing on it. Delays keep the order of one connection, and of no two. Loss is what TCP makes
of it: a piece, and all after it, waits for a retransmission.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, cast

from jepsen_like.run.system import HEALTHY, Cut, FaultKind, Link, StartError
from raftcache.ports import HOST, PortsError, free_ports

HIGH_WATER_BYTES: Final = 1024 * 1024
"""So much may be on its way in one direction of one connection before the sender is held back."""
RETRANSMISSION_S: Final = 0.2
"""Linux's least retransmission timeout: what a lost packet costs."""
_ABORT: Final = struct.pack("ii", 1, 0)
_EOF: Final = b""


@dataclass(slots=True)
class _Direction:
    """One direction between two nodes. ``pipes`` are its open connections' halves, in order of
    their making."""

    source: str
    target: str
    link: Link
    pipes: dict[Pipe, None]

    @property
    def stalled(self) -> bool:
        return self.link.cut is Cut.STALL


class ProxyNetwork:
    """Implements ``system.Network``. ``seed`` draws jitter and loss."""

    faults: frozenset[FaultKind] = frozenset(
        {
            FaultKind.CUT,
            FaultKind.ONE_WAY,
            FaultKind.REFUSE,
            FaultKind.RESET,
            FaultKind.ORPHAN,
            FaultKind.DELAY,
            FaultKind.LOSS,
            FaultKind.RATE,
        }
    )

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(f"proxy/{seed}")
        self.connections: dict[Connection, None] = {}
        self._directions: dict[tuple[str, str], _Direction] = {}
        self._listens: dict[tuple[str, str], tuple[str, int]] = {}
        self._reaches: dict[tuple[str, str, str], tuple[str, int]] = {}
        self._servers: list[asyncio.Server] = []

    async def open(self, nodes: Sequence[str], services: Sequence[str]) -> None:
        """Find free ports for the nodes, and listen for each pair of them."""
        loop = asyncio.get_running_loop()
        places = [(node, service) for node in nodes for service in services]
        self._listens = free_addresses(places)
        for source in nodes:
            for target in nodes:
                if source == target:
                    continue
                self._directions[source, target] = _Direction(source, target, HEALTHY, {})
                for service in services:
                    server = await loop.create_server(
                        self._acceptor(source, target, service), HOST, 0
                    )
                    self._servers.append(server)
                    address = server.sockets[0].getsockname()
                    self._reaches[source, target, service] = (HOST, address[1])

    def _acceptor(
        self, source: str, target: str, service: str
    ) -> Callable[[], asyncio.BaseProtocol]:
        """What makes the protocol of a new connection."""

        def accept() -> asyncio.Protocol:
            return Connection(self, source, target, self._listens[target, service]).near

        return accept

    def listen(self, node: str, service: str) -> tuple[str, int]:
        """Where the node's process listens."""
        return self._listens[node, service]

    def client(self, node: str, service: str) -> tuple[str, int]:
        """The same: clients are not held up."""
        return self._listens[node, service]

    def reach(self, source: str, target: str, service: str) -> tuple[str, int]:
        """The listener here that leads to ``target``; to itself a node goes straight."""
        if source == target:
            return self._listens[target, service]
        return self._reaches[source, target, service]

    def command(self, node: str, command: Sequence[str]) -> list[str]:
        """Nodes are ordinary processes."""
        del node
        return list(command)

    def direction(self, source: str, target: str) -> _Direction:
        """The state of one direction."""
        return self._directions[source, target]

    async def shape(self, source: str, target: str, link: Link) -> None:
        """See ``system.Network``."""
        direction = self._directions[source, target]
        direction.link = HEALTHY if link == HEALTHY else link
        if link.cut is Cut.REFUSE:
            await self.reset(source, target)
            return
        for pipe in list(direction.pipes):
            pipe.shaped()

    async def reset(self, a: str, b: str) -> None:
        """See ``system.Network``."""
        for connection in [x for x in self.connections if {x.source, x.target} == {a, b}]:
            connection.abort()

    async def orphan(self, source: str, target: str, late_s: float) -> None:
        """See ``system.Network``."""
        loop = asyncio.get_running_loop()
        for connection in [x for x in self.connections if {x.source, x.target} == {source, target}]:
            ours = connection.near if connection.source == source else connection.far
            other = connection.far if ours is connection.near else connection.near
            ours.deaf = other.deaf = True
            ours.out.retimed = False
            ours.abort()
            loop.call_later(late_s, connection.abort)

    async def close(self) -> None:
        """Close listeners and connections."""
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.abort()

    def refused(self, a: str, b: str) -> bool:
        """Whether connections between two nodes are refused now: either direction is."""
        directions = (self._directions[a, b], self._directions[b, a])
        return any(direction.link.cut is Cut.REFUSE for direction in directions)


class Connection:
    """One connection that ``source`` dialled: ``near`` is its end here, ``far`` ours to
    ``target``."""

    def __init__(
        self, network: ProxyNetwork, source: str, target: str, address: tuple[str, int]
    ) -> None:
        self.network = network
        self.source = source
        self.target = target
        self._address = address
        self.near = End(self, dialled=False)
        self.far = End(self, dialled=True)
        self.near.out = Pipe(network, network.direction(source, target), self.far)
        self.far.out = Pipe(network, network.direction(target, source), self.near)
        self.near.pair, self.far.pair = self.far, self.near
        self._dialling: asyncio.Task[None] | None = None
        network.connections[self] = None

    def accepted(self) -> None:
        """``source`` is connected with us: connect with ``target``, when packets get there."""
        if self.network.refused(self.source, self.target):
            self.abort()
            return
        self._dialling = asyncio.get_running_loop().create_task(self._dial())

    async def _dial(self) -> None:
        there = self.network.direction(self.source, self.target)
        back = self.network.direction(self.target, self.source)
        while there.stalled or back.stalled:  # noqa: ASYNC110
            # A handshake needs both directions; TCP repeats its first packet meanwhile.
            await asyncio.sleep(RETRANSMISSION_S)
        await asyncio.sleep(there.link.delay_s + back.link.delay_s)
        try:
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: self.far, *self._address)
        except OSError:
            self.abort()

    def abort(self) -> None:
        """Reset both ends."""
        if self._dialling is not None:
            self._dialling.cancel()
        self.network.connections.pop(self, None)
        for end in (self.near, self.far):
            end.out.close()
            end.abort()

    def ended(self) -> None:
        """Forget the connection when both of its ends are gone."""
        if self.near.gone and self.far.gone:
            self.abort()


class End(asyncio.Protocol):
    """One end of a connection: what comes in goes to the pipe ``out``."""

    def __init__(self, connection: Connection, *, dialled: bool) -> None:
        self._connection = connection
        self._dialled = dialled
        self._transport: asyncio.Transport | None = None
        self.out: Pipe
        self.pair: End
        self.gone = False
        self.deaf = False
        """Whatever comes in now goes nowhere: the other end is dead."""
        self.full = False
        """The kernel takes no more for now."""
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio.Transport.
        self._transport = cast(asyncio.Transport, transport)
        sock = self._transport.get_extra_info("socket")
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not self._dialled:
            self._connection.accepted()
        self.out.shaped()
        self.pair.out.shaped()

    def data_received(self, data: bytes) -> None:
        if not self.deaf:
            self.out.put(data)

    def eof_received(self) -> bool:
        if not self.deaf:
            self.out.put(_EOF)
        return True  # half-closed: the other direction goes on

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        self.pair.out.shaped()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True
        if not self.deaf:
            # A reset, or a close of both directions: told to the other end in its turn.
            self.out.put_end(exc is not None)
        self._connection.ended()

    @property
    def connected(self) -> bool:
        """Whether anything can be written."""
        return self._transport is not None and not self.gone

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def write_eof(self) -> None:
        assert self._transport is not None
        with suppress(OSError, RuntimeError):
            self._transport.write_eof()

    def finish(self) -> None:
        """Close in order: what was written still leaves."""
        if self._transport is not None and not self.gone:
            self._transport.close()
        self.gone = True

    def abort(self) -> None:
        """Send a reset."""
        transport, self.gone = self._transport, True
        if transport is not None and not transport.is_closing():
            sock = transport.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            transport.abort()

    def read(self, wanted: bool) -> None:
        """Read on, or leave what comes to the kernel's buffers."""
        if self._transport is None or self.gone or self._reading == wanted:
            return
        self._reading = wanted
        with suppress(RuntimeError):
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()


class Pipe:
    """One direction of one connection: pieces of data, each with the time when it is due."""

    def __init__(self, network: ProxyNetwork, direction: _Direction, sink: End) -> None:
        self._network = network
        self._direction = direction
        self._sink = sink
        self._queue: deque[tuple[float, bytes | None, bool]] = deque()
        self._bytes = 0
        self._last_due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.retimed = True
        """Whether what is late on its way hurries when the link has become healthy."""
        self.drained = False
        """The source sends no more, and the sink knows."""
        direction.pipes[self] = None

    @property
    def _source(self) -> End:
        return self._sink.pair

    def put(self, data: bytes) -> None:
        """Data from the source; empty: it will send no more."""
        sink = self._sink
        if (
            data
            and not self._queue
            and self._direction.link is HEALTHY
            and sink.connected
            and not sink.full
        ):
            sink.write(data)  # the usual case, without a detour
            return
        self._enqueue(data, False)

    def put_end(self, reset: bool) -> None:
        """The source is gone."""
        self._enqueue(None, reset)

    def _enqueue(self, data: bytes | None, reset: bool) -> None:
        if self._closed:
            return
        self._queue.append((self._due(len(data or b"")), data, reset))
        self._bytes += len(data or b"")
        self._run()

    def _due(self, size: int) -> float:
        link, draw = self._direction.link, self._network.random
        now = asyncio.get_running_loop().time()
        due = now + link.delay_s
        if link.jitter_s:
            due += draw.uniform(0.0, link.jitter_s)
        if link.loss and draw.random() < link.loss:
            due += RETRANSMISSION_S
        due = max(due, self._last_due)
        if link.bytes_per_s:
            due += size / link.bytes_per_s
        self._last_due = due
        return due

    def shaped(self) -> None:
        """The link has changed, or an end is connected, or has room again."""
        if self._closed:
            return
        if self._direction.link is HEALTHY and self.retimed and self._queue:
            self._queue = deque((0.0, data, reset) for _, data, reset in self._queue)
            self._last_due = 0.0
        self._run()

    def _run(self) -> None:
        """Deliver what is due, and wake up for what follows."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        stalled = self._direction.stalled
        now = asyncio.get_running_loop().time()
        while self._queue and not stalled and self._sink.connected and not self._sink.full:
            due, data, reset = self._queue[0]
            if due > now:
                self._timer = asyncio.get_running_loop().call_at(due, self._run)
                break
            self._queue.popleft()
            self._deliver(data, reset)
        self._source.read(not stalled and self._bytes < HIGH_WATER_BYTES)

    def _deliver(self, data: bytes | None, reset: bool) -> None:
        if data is None:
            self.close()
            if reset:
                self._sink.abort()
            else:
                self._sink.finish()
        elif data == _EOF:
            self.drained = True
            if self._source.out.drained and self._sink.out.drained:
                self._source.finish()
                self._sink.finish()
            else:
                self._sink.write_eof()
        else:
            self._bytes -= len(data)
            self._sink.write(data)

    def close(self) -> None:
        """Nothing is delivered any more."""
        if self._timer is not None:
            self._timer.cancel()
        self._closed = True
        self._queue.clear()
        self._direction.pipes.pop(self, None)


def free_addresses(places: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, int]]:
    """For each service of a node an address of loopback that it keeps. ``StartError``."""
    try:
        ports = free_ports(len(places))
    except PortsError as error:
        raise StartError(str(error)) from error
    return {place: (HOST, port) for place, port in zip(places, ports, strict=True)}
