"""Who can reach whom, how fast, and who listens: the network between the hosts of a simulation.

Faults are set on directed pairs of hosts and last until they are lifted. A blocked pair *stalls*
(bytes wait as TCP retransmits them; the connection dies after ``tcp_timeout`` seconds) or *rejects*
(connections are reset at once, new ones refused). ``connection.py`` has the streams themselves.

The simplest host is a node: its name. Every random choice comes from one generator.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from jepsen_like.sim.connection import Connection, Endpoint
from jepsen_like.sim.scheduler import Process, Scheduler

SYN_RETRIES: Final = (0.0, 1.0, 2.0, 4.0, 8.0)
"""Waits before each attempt to open a connection through a stalling network (RFC 6298), each at
most ``rto_max``."""

RETRANSMISSION: Final = 0.2
"""Seconds until a lost segment is sent again the first time."""


class Cut(enum.Enum):
    """What a blocked direction does to the segments it is given."""

    STALL = "stall"
    REJECT = "reject"


RECORDS: Final = 16
"""So many recorded connections are kept."""


@dataclass(frozen=True, slots=True)
class Record:
    """The first bytes that a client sent to ``target``."""

    target: tuple[str, int]
    data: bytearray


class SimListener:
    """``raftcache.runtime.Listener``."""

    def __init__(
        self,
        network: Network,
        process: Process,
        address: tuple[str, int],
        factory: Callable[[], asyncio.Protocol],
    ) -> None:
        self._network = network
        self.process = process
        self.address = address
        self.factory = factory

    @property
    def port(self) -> int:
        return self.address[1]

    def close(self) -> None:
        self._network.unlisten(self)


class Network:
    """All hosts, listeners and connections. Times are virtual seconds."""

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        latency: float = 0.0003,
        jitter: float = 0.0002,
        tcp_timeout: float = 15.0,
        rto_max: float = 1.0,
    ) -> None:
        self.scheduler = scheduler
        self.random: random.Random = scheduler.generator("network")
        self._draw = self.random.random
        self.latency = latency
        self.jitter = jitter
        self.tcp_timeout = tcp_timeout
        """Seconds of no progress after which a connection with data on the way dies."""
        self.rto_max = rto_max
        """Longest wait between two retransmissions (and SYNs): a healed network is noticed by
        then."""
        self.loss = 0.0
        """Probability that a segment is lost, and so comes later (each retransmission too)."""
        self.cut = 0.15
        """Probability that a write is cut at an arbitrary byte boundary."""
        self.bandwidth: float | None = None
        """Bytes per second in each direction of each connection; ``None``: no limit."""
        self.recording = False
        """Whether to keep what clients send first, in ``records``."""
        self.records: deque[Record] = deque(maxlen=RECORDS)
        self.late_pieces = 0
        """Pieces of an old connection that arrived after a newer one was accepted."""
        self.connections: dict[int, Connection] = {}
        self._listeners: dict[tuple[str, int], SimListener] = {}
        self._blocked: dict[tuple[str, str], Cut] = {}
        self._down: dict[str, None] = {}
        self._delays: dict[tuple[str, str], float] = {}
        self._ports = 40_000
        self._created = 0
        self._packets: dict[int, tuple[float, Callable[[], object], Callable[[], object]]] = {}
        self._packet = 0

    # -- what the processes see ------------------------------------------------------------------

    def attach(self, process: Process) -> None:
        """Let ``process`` (whose name is its host) use the network; brings its host up."""
        self._down.pop(process.name, None)
        process.closers.append(lambda power: self._crashed(process, power))
        self._retransmit()

    def listen(
        self, process: Process, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> SimListener:
        """Accept connections to ``port`` (0: any free one) of the process's host. ``host`` is the
        interface: ``0.0.0.0``, ``127.0.0.1`` and the host's own name are all the same here."""
        del host
        address = (process.name, port or self.new_port())
        if address in self._listeners:
            raise OSError(errno.EADDRINUSE, f"address already in use: {address}")
        listener = SimListener(self, process, address, factory)
        if process.alive:
            self._listeners[address] = listener
        return listener

    def unlisten(self, listener: SimListener) -> None:
        if self._listeners.get(listener.address) is listener:
            del self._listeners[listener.address]

    async def connect(
        self, process: Process, host: str, port: int, factory: Callable[[], asyncio.Protocol]
    ) -> asyncio.Transport:
        """Open a connection; ``OSError`` when nobody listens or nothing comes back."""
        target = process.name if host in ("127.0.0.1", "localhost", "::1") else host
        waiter: asyncio.Future[asyncio.Transport] = process.loop.create_future()
        self._attempt(process, (target, port), factory, waiter, 0)
        return await waiter

    def new_port(self) -> int:
        self._ports += 1
        return self._ports

    # -- opening a connection --------------------------------------------------------------------

    def _attempt(
        self,
        process: Process,
        address: tuple[str, int],
        factory: Callable[[], asyncio.Protocol],
        waiter: asyncio.Future[asyncio.Transport],
        tries: int,
    ) -> None:
        """Send a SYN; one that stalls is sent again, a few times."""
        source, target = process.name, address[0]

        def fail(error: OSError) -> None:
            if not waiter.done():
                waiter.set_exception(error)

        def arrive() -> None:
            if not process.alive:
                return
            cut = self._blocked.get((source, target)) or self._blocked.get((target, source))
            if cut is Cut.REJECT:
                process.call_soon(fail, OSError(errno.EHOSTUNREACH, f"no route to {address}"))
            elif cut is Cut.STALL or target in self._down:
                self._attempt(process, address, factory, waiter, tries + 1)
            elif (listener := self._listeners.get(address)) is None:
                error = ConnectionRefusedError(errno.ECONNREFUSED, f"refused by {address}")
                self.later(target, source, process.call_soon, fail, error)
            else:
                self._accept(process, listener, factory, waiter)

        if tries >= len(SYN_RETRIES):
            process.call_soon(fail, TimeoutError(errno.ETIMEDOUT, f"no answer from {address}"))
            return
        delay = min(SYN_RETRIES[tries], self.rto_max) + self.travel(source, target)
        self._send(delay, arrive)

    def _accept(
        self,
        process: Process,
        listener: SimListener,
        factory: Callable[[], asyncio.Protocol],
        waiter: asyncio.Future[asyncio.Transport],
    ) -> None:
        """The SYN is here: the kernel accepts, the server hears of it, the client one way later."""
        self._created += 1
        client_address = (process.name, self.new_port())
        connection = Connection(
            self, self._created, process, client_address, listener.process, listener.address
        )
        self.connections[self._created] = connection
        if self.recording:
            record = connection.client.pipe.record = bytearray()
            self.records.append(Record(listener.address, record))
        self.scheduler.say("net", f"connection {connection}")
        listener.process.call_soon(connection.server.start, listener.factory)

        def established() -> None:
            client = connection.client
            if waiter.done():  # cancelled: the caller has given up
                client.abort()
            elif client.lost:
                waiter.set_exception(ConnectionResetError(errno.ECONNRESET, "reset"))
            else:
                client.start(factory)
                waiter.set_result(client)

        def answer() -> None:
            if self.passes(listener.address[0], process.name):
                process.call_soon(established)
            else:
                self.scheduler.call_later(1.0, answer)

        self.later(listener.address[0], process.name, answer)

    # -- what the connections ask ----------------------------------------------------------------

    def travel(self, source: str, target: str) -> float:
        """Seconds that one segment takes from ``source`` to ``target``, retransmissions
        included."""
        draw = self._draw
        seconds = self.latency + self.jitter * draw()
        if self._delays:
            seconds += self._delays.get((source, target), 0.0) * (0.5 + draw())
        if self.loss:
            wait = RETRANSMISSION
            while draw() < self.loss and seconds < 10.0:
                seconds += wait
                wait = min(2 * wait, self.rto_max)
        return seconds

    def later(
        self, source: str, target: str, function: Callable[..., object], *args: object
    ) -> None:
        """Call ``function`` one travel time from now."""
        self._send(self.travel(source, target), lambda: function(*args))

    def _send(self, seconds: float, arrive: Callable[[], object]) -> None:
        """A packet outside of the streams is on its way (SYN, its answers, RST)."""
        self._packet += 1
        number = self._packet

        def arrived() -> None:
            del self._packets[number]
            arrive()

        cancel = self.scheduler.call_later(seconds, arrived).cancel
        self._packets[number] = (self.scheduler.now + seconds, cancel, arrived)

    def _hasten(self) -> None:
        """What was lost again and again while the network was bad is sent once more soon."""
        for number, (when, cancel, arrived) in list(self._packets.items()):
            latest = self.scheduler.now + self.random.random() * self.rto_max
            if when > latest:
                cancel()
                cancel = self.scheduler.call_at(latest, arrived).cancel
                self._packets[number] = (latest, cancel, arrived)

    def passes(self, source: str, target: str) -> bool:
        """Whether a segment from ``source`` that is at the door of ``target`` gets in."""
        if not self._blocked and not self._down:
            return True
        return (source, target) not in self._blocked and target not in self._down

    def late(self, connection: Connection) -> None:
        """Something arrived on an orphaned connection."""
        client, server = connection.client.host, connection.server.host
        self.late_pieces += any(
            other.number > connection.number and other.joins(client, server)
            for other in self.connections.values()
        )

    def forget(self, connection: Connection) -> None:
        self.connections.pop(connection.number, None)

    # -- faults ----------------------------------------------------------------------------------

    def block(self, source: str, target: str, cut: Cut = Cut.STALL) -> None:
        """Let nothing pass from ``source`` to ``target`` (one direction)."""
        self._blocked[source, target] = cut
        if cut is Cut.REJECT:
            self.reset(source, target)

    def unblock(self, *pairs: tuple[str, str]) -> None:
        for pair in pairs:
            self._blocked.pop(pair, None)
        self._retransmit()

    def partition(self, sides: Sequence[Iterable[str]], cut: Cut = Cut.STALL) -> None:
        """Let nothing pass between hosts of different sides, in either direction."""
        numbered = [(number, host) for number, side in enumerate(sides) for host in side]
        for number, host in numbered:
            for other_number, other in numbered:
                if number != other_number:
                    self.block(host, other, cut)

    def heal(self) -> None:
        """Lift all blocks, delays and losses, also for what is on the way already."""
        self._blocked.clear()
        self._delays.clear()
        self.loss = 0.0
        for connection in list(self.connections.values()):
            connection.hasten()
        self._hasten()
        self._retransmit()

    def delay(self, source: str, target: str, seconds: float) -> None:
        """Let every segment from ``source`` to ``target`` take about ``seconds`` longer; 0 ends
        it."""
        if seconds > 0:
            self._delays[source, target] = seconds
        else:
            self._delays.pop((source, target), None)

    def reset(self, host: str, other: str) -> int:
        """Reset every connection between two hosts at both ends, what is in flight is lost. How
        many there were."""
        found = [c for c in self.connections.values() if c.joins(host, other)]
        for connection in found:
            connection.kill()
        return len(found)

    def orphan(self, client: str, server: str) -> None:
        """See ``Connection.orphan``, for every connection that ``client`` has opened to
        ``server``."""
        for connection in list(self.connections.values()):
            if (connection.client.host, connection.server.host) == (client, server):
                connection.orphan()

    def _crashed(self, process: Process, power: bool) -> None:
        """Close what the kernel closes for a killed process; say nothing when the power failed."""
        for listener in [x for x in self._listeners.values() if x.process is process]:
            self.unlisten(listener)
        if power:
            self._down[process.name] = None
        for connection in list(self.connections.values()):
            connection.process_died(process, silent=power)

    def _retransmit(self) -> None:
        """The network has changed: what was stalled is tried again soon."""
        for connection in list(self.connections.values()):
            connection.retransmit()


def endpoints(network: Network, process: Process) -> list[Endpoint]:
    """The open endpoints of ``process``, oldest connection first."""
    ends = [end for c in network.connections.values() for end in (c.client, c.server)]
    return [end for end in ends if end.process is process and not end.lost]
