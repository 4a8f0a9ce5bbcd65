"""One stream connection: two endpoints that applications hold, two pipes that the network carries.

Bytes arrive in order or not at all, cut anywhere. Between ``write`` and ``data_received`` they are
in the sender's transport (``get_write_buffer_size``), then on the way (at most ``WINDOW`` bytes,
which the death of the sending process does not take back), then in the receiver's kernel. So an old
connection's bytes may reach a receiver long after a newer connection was opened.

What is not modelled: half-closed connections (``write_eof``), urgent data, keep-alive probes (an
end that only listens never learns that the other machine is gone).
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from jepsen_like.sim.loop import Handle
from jepsen_like.sim.scheduler import Process

if TYPE_CHECKING:
    from jepsen_like.sim.network import Network

WINDOW: Final = 256 * 1024
"""Bytes on the way and unread: about what two kernels buffer for one direction."""

HIGH_WATER: Final = 64 * 1024
"""asyncio's default limit of a transport's own buffer."""

RECORDED: Final = 16 * 1024
"""Bytes of a connection that are recorded (``Network.recording``)."""

Address = tuple[str, int]


class Pipe:
    """One direction. ``flight`` is what is on the way: (arrival, bytes), ``None`` for a FIN."""

    def __init__(self, network: Network, source: Endpoint, target: Endpoint) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._hosts = (source.host, target.host)
        self._flight: deque[tuple[float, bytes | None]] = deque()
        self._size = 0  # bytes in flight
        self._unacknowledged = 0  # delivered, but no acknowledgement came back
        self._last = 0.0  # arrival of the last segment
        self._alarm = Handle(None, self._arrive)
        """The timer of the next arrival, the same every time unless it had to be cancelled."""
        self._armed = False
        self._stuck_since: float | None = None
        self._finished = False
        self.record: bytearray | None = None
        """What was sent, while somebody records it."""

    @property
    def idle(self) -> bool:
        return not self._flight

    def pump(self) -> None:
        """Take from the source's buffer what the window allows; then its FIN, if it closes."""
        source = self._source
        buffer = source.buffer
        while buffer and (room := self.room()) > 0:
            piece = bytes(buffer[:room])
            del buffer[: len(piece)]
            self.take(piece)
        source.acknowledged()
        if source.closing and not source.lost and not buffer:
            self.finish()
            source.finish(None)

    def room(self) -> int:
        """So many bytes the window allows now."""
        return WINDOW - self._size - self._unacknowledged - self._target.unread

    def take(self, piece: bytes) -> None:
        """Send ``piece``, which fits into the window, whole or in two."""
        network = self._network
        if len(piece) > 1 and network.random.random() < network.cut:
            cut = network.random.randint(1, len(piece) - 1)
            self._send(piece[:cut])
            self._send(piece[cut:])
        else:
            self._send(piece)

    def finish(self) -> None:
        """Send a FIN after what is on the way, once."""
        if not self._finished:
            self._finished = True
            self._send(None)

    def _send(self, piece: bytes | None) -> None:
        network = self._network
        size = 0 if piece is None else len(piece)
        arrival = network.scheduler.now + network.travel(*self._hosts)
        if network.bandwidth is not None:
            arrival = max(arrival, self._last) + size / network.bandwidth
        if arrival > self._last:
            self._last = arrival
        self._size += size
        if self.record is not None and piece is not None:
            self.record += piece
            if len(self.record) > RECORDED:
                self.record = None
        self._flight.append((self._last, piece))
        if not self._armed:
            self._arm()

    def _arm(self) -> None:
        if not self._armed and self._flight and self._stuck_since is None:
            self._armed = True
            scheduler, alarm = self._network.scheduler, self._alarm
            alarm.when = max(self._flight[0][0], scheduler.now)
            scheduler.push(alarm)

    def _disarm(self) -> None:
        if self._armed:
            self._armed = False
            self._alarm.cancel()
            self._alarm = Handle(None, self._arrive)

    def _arrive(self) -> None:
        self._armed = False
        network, flight = self._network, self._flight
        if not network.passes(*self._hosts):
            self._stall()
            return
        now = network.scheduler.now
        while flight and flight[0][0] <= now:
            self._deliver(flight.popleft()[1])
        if flight:
            self._arm()
        if self._source.buffer:
            self.pump()
        if self._target.lost and not flight:
            self._target.connection.maybe_forget()

    def _deliver(self, piece: bytes | None) -> None:
        network, target = self._network, self._target
        size = 0 if piece is None else len(piece)
        self._size -= size
        if network.scheduler.trace is not None:
            what = "FIN" if piece is None else f"{size} bytes"
            network.scheduler.say("net", f"{target.connection} {self._source.host}: {what}")
        if target.connection.orphaned and piece is not None:
            network.late(target.connection)
        if target.lost:
            if piece is not None and not target.connection.orphaned:
                self.drop()
                self._source.answer_reset()
            return
        target.receive(piece)
        if size and not network.passes(target.host, self._source.host):
            self._unacknowledged += size
            self._watch(network.scheduler.now)

    def _stall(self) -> None:
        """The head cannot get in: it is sent again until it does, or the connection dies."""
        if self._stuck_since is None:
            self._stuck_since = self._network.scheduler.now
            self._watch(self._stuck_since)

    def _watch(self, since: float) -> None:
        network = self._network
        network.scheduler.call_at(since + network.tcp_timeout, self._expire, since)

    def _expire(self, since: float) -> None:
        stuck = self._stuck_since == since or self._unacknowledged > 0
        if stuck and not self._source.gone:
            self.drop()
            self._source.finish(TimeoutError(errno.ETIMEDOUT, "connection timed out"))
        elif self._stuck_since == since:
            self.drop()  # closed long ago, and the kernel has tried long enough

    def retransmit(self) -> None:
        """The network has changed: go on soon if the way is free. TCP waits longer the longer it
        has waited (up to ``rto_max``), so that connections do not all wake at once."""
        network, source, target = self._network, self._source, self._target
        if self._unacknowledged and network.passes(target.host, source.host):
            self._unacknowledged = 0
            self.pump()
        since = self._stuck_since
        if since is None or not network.passes(source.host, target.host):
            return
        now = network.scheduler.now
        self._stuck_since = None
        wait = network.random.random() * min(max(now - since, 0.05), network.rto_max)
        first = now + wait + network.travel(source.host, target.host)
        self._flight = deque((max(arrival, first), piece) for arrival, piece in self._flight)
        self._last = max(self._last, first)
        self._arm()

    def hasten(self) -> None:
        """The network is well again: what is late arrives with the next retransmission."""
        latest = self._network.scheduler.now + self._network.random.random() * self._network.rto_max
        if self._last > latest:
            self._last = latest
            self._flight = deque((min(arrival, latest), piece) for arrival, piece in self._flight)
            self._disarm()
            self._arm()

    def stop_retransmitting(self) -> None:
        """The sending machine is off: what has not got through never will."""
        if self._stuck_since is not None:
            self.drop()

    def drop(self) -> None:
        """Lose what is on the way."""
        self._flight.clear()
        self._size = 0
        self._unacknowledged = 0
        self._stuck_since = None
        self._disarm()


class Endpoint(asyncio.Transport):
    """One end of a connection, as its process sees it. ``lost``: the protocol has been, or is about
    to be, told ``connection_lost``. ``gone``: the kernel knows no such socket any more."""

    def __init__(self, network: Network, process: Process, address: Address, peer: Address) -> None:
        super().__init__({"sockname": address, "peername": peer})
        self._network = network
        self.process = process
        self.host = process.name
        self.buffer = bytearray()
        self.unread = 0
        self.closing = False
        self.lost = False
        self.connection: Connection
        self.pipe: Pipe
        self._peer: Endpoint
        self._protocol: asyncio.Protocol | None = None
        self._received: deque[bytes] = deque()
        self._ended = False  # a FIN has arrived
        self._reading = True
        self._read_handle = Handle(process, self._read)  # the same every time: nobody cancels it
        self._read_scheduled = False
        self._write_paused = False
        self._high = HIGH_WATER
        self._low = HIGH_WATER // 4

    def join(self, connection: Connection, peer: Endpoint) -> None:
        self.connection = connection
        self._peer = peer
        self.pipe = Pipe(self._network, self, peer)

    @property
    def gone(self) -> bool:
        return self.lost

    def start(self, factory: Callable[[], asyncio.Protocol]) -> None:
        """Give it to the application."""
        if self.lost:
            return
        protocol = self._protocol = factory()
        protocol.connection_made(self)
        self._schedule_read()

    # -- from the kernel -------------------------------------------------------------------------

    def receive(self, piece: bytes | None) -> None:
        if piece is None:
            self._ended = True
        else:
            self._received.append(piece)
            self.unread += len(piece)
        self._schedule_read()

    def _schedule_read(self) -> None:
        ready = (self._received or self._ended) and self._protocol is not None
        if ready and self._reading and not self.closing and not self._read_scheduled:
            self._read_scheduled = True
            if self.process.alive:
                self.process.scheduler.ready.append(self._read_handle)

    def _read(self) -> None:
        self._read_scheduled = False
        protocol = self._protocol
        if self.lost or self.closing or not self._reading or protocol is None:
            return
        if self._received:
            data = self._take()
            self._peer.drained()
            protocol.data_received(data)
            if self._received or self._ended:
                self._schedule_read()
        elif self._ended and not protocol.eof_received():
            self.close()

    def _take(self) -> bytes:
        """What the application reads at once: all there is, or a part of it."""
        received, network = self._received, self._network
        if len(received) == 1:
            data = received.popleft()
        else:
            data = b"".join(received)
            received.clear()
        if len(data) > 1 and network.random.random() < network.cut:
            cut = network.random.randint(1, len(data) - 1)
            received.append(data[cut:])
            data = data[:cut]
        self.unread -= len(data)
        return data

    def drained(self) -> None:
        """The other end has read: its window is open for what waits here."""
        if self.buffer or self.closing or self._write_paused:
            self.pipe.pump()

    def finish(self, error: OSError | None) -> None:
        """The socket is gone; tell the application once."""
        if self.lost:
            return
        self.lost = self.closing = True
        self.buffer.clear()
        self._received.clear()
        self.unread = 0
        if self._protocol is not None:
            self.process.call_soon(self._protocol.connection_lost, error)
        self.connection.maybe_forget()

    def answer_reset(self) -> None:
        """The other end does not know this connection: a RST is on its way to this one."""
        self._network.later(self._peer.host, self.host, self._reset_arrives)

    def _reset_arrives(self) -> None:
        if self._network.passes(self._peer.host, self.host):
            self.finish(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))

    def died(self, silent: bool) -> None:
        """The process is dead. Its kernel sends FIN (RST when there was something unread), or
        nothing when the power failed."""
        self.buffer.clear()
        if silent:
            self.pipe.stop_retransmitting()
        elif not self.lost:
            if self.unread:
                self._peer.answer_reset()
            else:
                self.pipe.finish()
        self.finish(None)

    def acknowledged(self) -> None:
        """The transport's buffer has got smaller."""
        if self._write_paused and len(self.buffer) <= self._low:
            self.process.call_soon(self._resume_writing)

    def _resume_writing(self) -> None:
        if self._write_paused and len(self.buffer) <= self._low and not self.lost:
            self._write_paused = False
            if self._protocol is not None:
                self._protocol.resume_writing()

    # -- from the application (asyncio.Transport) ------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.closing or not self.process.alive or not data:
            return
        if not self.buffer and not self._write_paused and len(data) <= self.pipe.room():
            self.pipe.take(bytes(data))
            return
        self.buffer += data
        self.pipe.pump()
        if len(self.buffer) > self._high and not self._write_paused:
            self._write_paused = True
            if self._protocol is not None:
                self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if not self.closing and self.process.alive:
            self.closing = True
            self.pipe.pump()

    def abort(self) -> None:
        if not self.lost and self.process.alive:
            self._peer.answer_reset()
            self.finish(None)

    def is_closing(self) -> bool:
        return self.closing

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._schedule_read()

    def is_reading(self) -> bool:
        return self._reading and not self.closing

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        self._high = high
        self._low = high // 4 if low is None else low

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol


class Connection:
    """A pair of endpoints. ``number`` is the order of creation."""

    def __init__(
        self,
        network: Network,
        number: int,
        client: Process,
        client_address: Address,
        server: Process,
        server_address: Address,
    ) -> None:
        self._network = network
        self.number = number
        self.orphaned = False
        self.client = Endpoint(network, client, client_address, server_address)
        self.server = Endpoint(network, server, server_address, client_address)
        self.client.join(self, self.server)
        self.server.join(self, self.client)

    def __str__(self) -> str:
        return f"#{self.number} {self.client.host}->{self.server.host}"

    def joins(self, host: str, other: str) -> bool:
        return (self.client.host, self.server.host) in ((host, other), (other, host))

    def kill(self) -> None:
        """Reset both ends now; what is on the way is lost."""
        self._network.scheduler.say("net", f"reset {self}")
        for end in (self.client, self.server):
            end.pipe.drop()
            end.finish(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))

    def orphan(self) -> None:
        """Reset the client's end only, and let nobody tell the server: what the client sent still
        arrives, what the server sends is lost (as when a firewall on the way forgets it)."""
        self._network.scheduler.say("net", f"orphan {self}")
        self.orphaned = True
        self.client.finish(ConnectionResetError(errno.ECONNRESET, "connection reset by peer"))

    def process_died(self, process: Process, silent: bool) -> None:
        for end in (self.client, self.server):
            if end.process is process:
                end.died(silent)

    def hasten(self) -> None:
        self.client.pipe.hasten()
        self.server.pipe.hasten()

    def retransmit(self) -> None:
        self.client.pipe.retransmit()
        self.server.pipe.retransmit()

    def maybe_forget(self) -> None:
        """Once both ends are gone and nothing is on the way, nobody asks any more."""
        ends = (self.client, self.server)
        if all(end.gone and end.pipe.idle for end in ends):
            self._network.forget(self)
