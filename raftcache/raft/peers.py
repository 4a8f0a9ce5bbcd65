"""The connections between nodes: one per pair, authenticated, carrying every group's messages.

Of two nodes the one with the smaller id dials. A connection counts as up after both sides have
shown that they belong to the same cluster, agree on its topology and know its secret; from then on
all messages of one turn of the event loop leave as one frame. At most one connection per peer is
heard: a newer one replaces the older. A silent connection is closed, so that half-open ones end.
"""

from __future__ import annotations

import asyncio
import enum
import hmac
import struct
from typing import Final, NamedTuple, Protocol, cast

import structlog

from raftcache.raft import authentication, wire
from raftcache.raft.authentication import Seal
from raftcache.raft.pace import Pace
from raftcache.raft.wire import Message, WireError
from raftcache.runtime import Cancellable, Listener, Runtime

DIAL_BACKOFF_MIN_S: Final = 0.02
DIAL_BACKOFF_MAX_S: Final = 0.25
HANDSHAKE_TIMEOUT_S: Final = 1.5
"""Enough for round trips of a second. Nothing else ends a connection to a machine that lost its
power after it had accepted: nobody sends on it."""
PING_INTERVAL_S: Final = 0.5
"""A connection on which nothing was sent for so long carries an empty frame."""
SILENCE_LIMIT_S: Final = 4.0
"""A connection on which nothing was received for so long is closed."""
WRITE_HIGH_WATER_BYTES: Final = 4 * 1024 * 1024
"""More unsent bytes than this and the peer is congested: Raft stops feeding it until they drain."""

_LENGTH: Final = struct.Struct("<I")
_log = structlog.get_logger()


class PeerOptions(NamedTuple):
    """Who this node is and whom it talks to. ``addresses``: id -> (host, port) of every other
    node."""

    node: str
    cluster: str
    topology: str
    addresses: dict[str, tuple[str, int]]
    secret: bytes
    """Empty: no authentication (allowed by ``config`` on loopback only)."""
    max_frame_bytes: int


class PeerEvents(Protocol):
    """Who hears of messages and of connections coming and going."""

    def on_message(self, node: str, message: Message) -> None: ...

    def on_turn_end(self) -> None:
        """All messages of a received chunk of bytes were handed over."""
        ...

    def on_up(self, node: str) -> None: ...

    def on_down(self, node: str) -> None: ...

    def on_congested(self, node: str, congested: bool) -> None: ...


class _State(enum.Enum):
    HELLO = 0
    PROOF = 1
    LIVE = 2
    CLOSED = 3


_HELLO, _PROOF, _LIVE, _CLOSED = _State
# Names of their own: an enum's members cost as much to look up as a call.


class Link:
    """One connection, either side: handshake, then frames. An ``asyncio.Protocol``, though not by
    its base: a compiled class has none."""

    def __init__(self, peers: Peers, dialing: str | None) -> None:
        self._peers = peers
        self._options = peers.options
        self._dialing = dialing
        self.node = dialing
        self._state = _HELLO
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._own_hello = b""
        self._hellos: tuple[bytes, bytes] = (b"", b"")
        self._seal: Seal | None = None
        self._check: Seal | None = None
        self.incarnation = self._known_here = 0
        now = peers.runtime.now()
        self.opened = self.last_received = self.last_sent = now

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not derive from asyncio.Transport.
        self._transport = transport = cast(asyncio.Transport, transport)
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self._peers.adopt(self)
        if self._dialing is not None:
            self._send_hello(self._dialing)

    def data_received(self, data: bytes) -> None:
        self.last_received = self._peers.runtime.now()
        rest = self._buffer
        try:
            if rest:
                rest += data
                del rest[: self._parse(rest)]
            elif (used := self._parse(data)) < len(data) and self._state is not _CLOSED:
                rest += data[used:]
        except WireError as error:
            _log.warning("peer connection refused", peer=self.node, reason=str(error))
            if self._state is _LIVE:
                self.abort()
            else:
                # The little that was said must arrive: a node learns from it that it has to take
                # a later incarnation.
                self.finish()
        if self._state is _LIVE:
            self._peers.events.on_turn_end()

    def eof_received(self) -> None:
        """The transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._close()

    def pause_writing(self) -> None:
        if self._state is _LIVE and self.node is not None:
            self._peers.events.on_congested(self.node, True)

    def resume_writing(self) -> None:
        if self._state is _LIVE and self.node is not None:
            self._peers.events.on_congested(self.node, False)

    # -- frames

    def _parse(self, data: bytes | bytearray) -> int:
        """Handle all whole frames; how many bytes they took."""
        start, end = 0, len(data)
        while end - start >= wire.LENGTH_BYTES:
            (length,) = _LENGTH.unpack_from(data, start)
            self._check_length(length)
            tag_at = start + wire.LENGTH_BYTES
            sealed = self._state is _LIVE and self._check is not None
            body_at = tag_at + wire.TAG_BYTES if sealed else tag_at
            if end < body_at + length:
                break
            start = body_at + length
            self._on_frame(data[tag_at:body_at], data[body_at:start])
            if self._state is _CLOSED:
                break
        return start

    def _check_length(self, length: int) -> None:
        """Before a byte of the frame is kept."""
        live = self._state is _LIVE
        limit = self._options.max_frame_bytes if live else wire.HANDSHAKE_FRAME_BYTES
        if length > limit:
            raise WireError(f"frame of {length} bytes, limit {limit}")

    def _on_frame(self, tag: bytes | bytearray, body: bytes | bytearray) -> None:
        if self._state is _LIVE:
            if self._check is not None:
                self._check.check(tag, body)
            on_message, node = self._peers.events.on_message, self.node
            assert node is not None
            for message in wire.decode_messages(body):
                on_message(node, message)
                if self._state is not _LIVE:
                    return
        elif self._state is _HELLO:
            self._on_hello(bytes(body))
        elif self._state is _PROOF:
            self._on_proof(bytes(body))

    def write_frame(self, body: bytes) -> None:
        """One frame, sealed when the connection is authenticated."""
        assert self._transport is not None
        tag = self._seal.tag(body) if self._state is _LIVE and self._seal else b""
        self._transport.write(_LENGTH.pack(len(body)) + tag + body)
        self.last_sent = self._peers.runtime.now()

    # -- handshake

    def _send_hello(self, receiver: str) -> None:
        options = self._options
        self._own_hello = wire.encode_body(
            wire.Hello(
                wire.MAGIC,
                wire.PROTOCOL_VERSION,
                options.cluster,
                options.node,
                receiver,
                self._peers.incarnation,
                self._peers.known.get(receiver, 0),
                options.topology,
                self._peers.runtime.random.randbytes(16),
            )
        )
        self.write_frame(self._own_hello)

    def _on_hello(self, body: bytes) -> None:
        hello, options = wire.decode_hello(body), self._options
        if hello.magic != wire.MAGIC or hello.version != wire.PROTOCOL_VERSION:
            raise WireError(f"protocol {hello.magic!r} version {hello.version}")
        if hello.cluster != options.cluster:
            raise WireError(f"cluster is {hello.cluster!r} there, {options.cluster!r} here")
        if hello.topology != options.topology:
            raise WireError("members, groups or replication are configured differently there")
        if hello.receiver != options.node or hello.sender not in options.addresses:
            raise WireError(f"connection from {hello.sender!r} to {hello.receiver!r}")
        if self._dialing is None:
            if hello.sender > options.node:
                raise WireError(f"{hello.sender!r} must be dialed, not dial")
            self.node = hello.sender
            self._send_hello(hello.sender)
            self._hellos = (body, self._own_hello)
        else:
            if hello.sender != self._dialing:
                raise WireError(f"{hello.sender!r} answers for {self._dialing!r}")
            self._hellos = (self._own_hello, body)
        self.incarnation, self._known_here = hello.incarnation, hello.known
        self._state = _PROOF
        self.write_frame(wire.encode_body(wire.Proof(self._mac(self._role(own=True)))))

    def _role(self, own: bool) -> bytes:
        return b"dialer" if (self._dialing is not None) == own else b"acceptor"

    def _mac(self, role: bytes) -> bytes:
        return authentication.proof(self._options.secret, role, *self._hellos)

    def _session_key(self, own: bool) -> bytes:
        role = self._role(own)
        return authentication.session_key(self._options.secret, role, *self._hellos)

    def _on_proof(self, body: bytes) -> None:
        self._check_proof(wire.decode_proof(body))
        if self._known_here > self._peers.incarnation:
            # This node's clock was set back between two starts.
            self._peers.renumber(self._known_here + 1)
            raise WireError("an earlier start had a later incarnation; trying again with a new one")
        self._check_incarnation()
        if self._options.secret:
            self._seal = Seal(self._session_key(own=True))
            self._check = Seal(self._session_key(own=False))
        self._state = _LIVE
        self._peers.on_link_live(self)

    def _check_proof(self, proof: wire.Proof) -> None:
        if not hmac.compare_digest(proof.mac, self._mac(self._role(own=False))):
            raise WireError("the cluster secret is different there")

    def _check_incarnation(self) -> None:
        """This connection may have been on its way while its process died and started again."""
        if self.incarnation < self._peers.known.get(self.node or "", 0):
            raise WireError("connection of an earlier incarnation")

    # -- the end

    @property
    def live(self) -> bool:
        return self._state is _LIVE

    def abort(self) -> None:
        """Close at once; what is unsent is lost."""
        if self._transport is not None:
            self._transport.abort()
        self._close()

    def finish(self) -> None:
        """Close after what was written has left."""
        if self._transport is not None:
            self._transport.close()
        self._close()

    def _close(self) -> None:
        if self._state is not _CLOSED:
            was_live, self._state = self._state is _LIVE, _CLOSED
            self._buffer.clear()
            self._peers.on_link_closed(self, was_live)


class Peers:
    """All connections of one node. ``incarnation`` is new at every start and grows."""

    def __init__(self, runtime: Runtime, options: PeerOptions, events: PeerEvents) -> None:
        self.runtime = runtime
        self.options = options
        self.events = events
        self.incarnation = int(runtime.wall() * 1000) << 10 | runtime.random.getrandbits(10)
        self.known: dict[str, int] = {}
        """Latest incarnation of each node that this one has heard of."""
        self.pace = Pace(runtime)
        """What the groups have in common."""
        self._links: dict[str, Link] = {}
        self._all: dict[Link, None] = {}
        self._queues: dict[str, list[Message]] = {node: [] for node in options.addresses}
        self._flushing = False
        self._stopped = False
        self._listener: Listener | None = None
        self._backoff = dict.fromkeys(options.addresses, DIAL_BACKOFF_MIN_S)
        self._timer: Cancellable | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen and dial; returns the port listened on."""
        self._listener = await self.runtime.listen(
            host, port, lambda: cast(asyncio.Protocol, Link(self, None))
        )
        for node in self.options.addresses:
            if self.options.node < node:
                self._dial(node)
        self._timer = self.runtime.call_later(PING_INTERVAL_S, self._on_timer)
        return self._listener.port

    def stop(self) -> None:
        """Close everything, in good order."""
        self._stopped = True
        self._flush()
        if self._listener is not None:
            self._listener.close()
        if self._timer is not None:
            self._timer.cancel()
        for link in list(self._all):
            link.finish()

    def connected(self, node: str) -> bool:
        """Whether there is a live, authenticated connection to ``node``."""
        return node in self._links

    def incarnation_of(self, node: str) -> int:
        """The incarnation at the other end of the live connection; 0 when there is none."""
        link = self._links.get(node)
        return 0 if link is None else link.incarnation

    def renumber(self, incarnation: int) -> None:
        """Be another incarnation from now on, to everybody: connections made as the earlier one
        end, or what is said on them would be taken for a dead process's."""
        self.incarnation = incarnation
        for link in list(self._all):
            link.abort()

    def learn(self, known: dict[str, int]) -> None:
        """Somebody else's knowledge of incarnations."""
        for node, incarnation in known.items():
            if node in self.options.addresses and incarnation > self.known.get(node, 0):
                self.known[node] = incarnation

    def send(self, node: str, message: Message) -> bool:
        """Queue a message for the frame that leaves at the end of this turn; False when not
        connected. The order of messages to one peer is kept; a lost connection loses a suffix of
        them."""
        if node not in self._links:
            return False
        self._queues[node].append(message)
        if not self._flushing:
            self._flushing = True
            self.runtime.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        self._flushing = False
        for node, queue in self._queues.items():
            if queue:
                self._queues[node] = []
                link = self._links.get(node)
                if link is not None:
                    self._write(link, queue)

    def _write(self, link: Link, messages: list[Message]) -> None:
        body = wire.encode_body(messages)
        if len(body) <= self.options.max_frame_bytes:
            link.write_frame(body)
        elif len(messages) > 1:
            middle = len(messages) // 2
            self._write(link, messages[:middle])
            self._write(link, messages[middle:])
        else:
            # Later messages must not overtake a lost one: the stream ends here.
            _log.error("message exceeds max_frame", peer=link.node, bytes=len(body))
            link.abort()

    # -- connections

    def _dial(self, node: str) -> None:
        if not self._stopped:
            self.runtime.spawn(self._connect(node), f"dial {node}")

    async def _connect(self, node: str) -> None:
        host, port = self.options.addresses[node]
        try:
            await self.runtime.connect(host, port, lambda: cast(asyncio.Protocol, Link(self, node)))
        except OSError:
            self._redial(node)

    def _redial(self, node: str) -> None:
        delay = self._backoff[node]
        self._backoff[node] = min(2 * delay, DIAL_BACKOFF_MAX_S)
        if not self._stopped:
            delay *= 0.5 + self.runtime.random.random()
            self.runtime.call_later(delay, self._dial, node)

    def adopt(self, link: Link) -> None:
        """A connection was opened, not yet authenticated."""
        self._all[link] = None
        if self._stopped:
            link.abort()

    def on_link_live(self, link: Link) -> None:
        """The handshake is done: from now on this is the connection to the peer."""
        node = link.node
        assert node is not None
        self._end_older(node)
        self.learn({node: link.incarnation})
        self._backoff[node] = DIAL_BACKOFF_MIN_S
        self._links[node] = link
        self._queues[node] = []
        self.events.on_up(node)

    def _end_older(self, node: str) -> None:
        """At most one connection per peer is heard."""
        old = self._links.get(node)
        if old is not None:
            old.abort()

    def on_link_closed(self, link: Link, was_live: bool) -> None:
        """A connection ended, whatever the reason."""
        self._all.pop(link, None)
        node = link.node
        if node is None:
            return
        if was_live and self._links.get(node) is link:
            del self._links[node]
            self._queues[node] = []
            self.events.on_down(node)
        if self.options.node < node:
            self._redial(node)

    def _on_timer(self) -> None:
        self._timer = self.runtime.call_later(PING_INTERVAL_S, self._on_timer)
        now = self.runtime.now()
        for link in list(self._all):
            if not link.live:
                if now - link.opened > HANDSHAKE_TIMEOUT_S:
                    link.abort()
            elif now - link.last_received > SILENCE_LIMIT_S:
                _log.warning("peer silent, connection closed", peer=link.node)
                link.abort()
            elif now - link.last_sent >= PING_INTERVAL_S:
                link.write_frame(wire.encode_body([]))
