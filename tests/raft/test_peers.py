"""One authenticated connection per pair of nodes; everybody else is refused, and nobody notices.

S16 and S16b: PySyncObj unpickles what any TCP connection sends, believes who a peer says it is,
hears older connections beside newer ones, and bounds no frame. Over the simulated network, but for
the last test.
"""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

import msgspec
import pytest
import structlog

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.network import Network
from jepsen_like.sim.runtime import SimRuntime
from jepsen_like.sim.scheduler import Scheduler
from raftcache.raft import peers as peers_module
from raftcache.raft import wire
from raftcache.raft.authentication import Seal, proof, session_key
from raftcache.raft.peers import HANDSHAKE_TIMEOUT_S, SILENCE_LIMIT_S, PeerOptions, Peers
from raftcache.raft.wire import Message, Payload, WireError
from raftcache.runtime import AsyncioRuntime, Runtime

PORT = 7000
SECRET = b"a secret of the cluster"
LIMIT = 200_000


class Events:
    """What a node hears, in order."""

    def __init__(self) -> None:
        self.story: list[tuple[Any, ...]] = []
        self.refuse: type | None = None

    def on_message(self, node: str, message: Message) -> None:
        if self.refuse is not None and isinstance(message, self.refuse):
            raise WireError("not to me")
        self.story.append(("message", node, message))

    def on_turn_end(self) -> None:
        self.story.append(("turn end",))

    def on_up(self, node: str) -> None:
        self.story.append(("up", node))

    def on_down(self, node: str) -> None:
        self.story.append(("down", node))

    def on_congested(self, node: str, congested: bool) -> None:
        self.story.append(("congested", node, congested))

    @property
    def happened(self) -> list[tuple[Any, ...]]:
        """All but the ends of turns, which pings have, too."""
        return [item for item in self.story if item != ("turn end",)]

    def messages(self, node: str) -> list[Message]:
        return [item[2] for item in self.story if item[:2] == ("message", node)]

    def changes(self, node: str) -> list[str]:
        return [item[0] for item in self.story if item[0] in ("up", "down") and item[1] == node]


def options(node: str, names: str, **changed: Any) -> PeerOptions:
    addresses = {name: (name, PORT) for name in names if name != node}
    made = PeerOptions(node, "cluster", "topology", addresses, SECRET, LIMIT)
    return made._replace(**changed)


class Net:
    """Nodes named by letters, each a host of the simulated network."""

    def __init__(self, names: str = "abc", seed: int = 1) -> None:
        self.names = names
        self.scheduler = Scheduler(seed)
        self.network = Network(self.scheduler)
        self.events: dict[str, Events] = {}
        self.peers: dict[str, Peers] = {}
        self.runtimes: dict[str, SimRuntime] = {}

    def runtime(self, name: str) -> SimRuntime:
        disk = SimDisk(self.scheduler.generator(f"disk/{name}"))
        made = self.runtimes[name] = SimRuntime(self.scheduler, self.network, disk, name)
        return made

    def start(self, name: str, **changed: Any) -> Peers:
        runtime = self.runtime(name)
        events = self.events[name] = Events()
        peers = Peers(runtime, options(name, self.names, **changed), events)
        self.peers[name] = peers

        async def listen() -> None:
            await peers.start("0.0.0.0", PORT)

        runtime.spawn(listen(), "start")
        return peers

    def start_all(self) -> Net:
        for name in self.names:
            self.start(name)
        self.run(1.0)
        for name in self.names:
            for other in self.names:
                assert name == other or self.peers[name].connected(other)
        return self

    def run(self, seconds: float) -> None:
        self.scheduler.run(self.scheduler.now + seconds)
        assert not self.scheduler.violations, "\n".join(map(str, self.scheduler.violations))

    def intruder(self, target: str, name: str = "mallory") -> Intruder:
        """A raw connection to a node."""
        runtime = self.runtime(name)
        made = Intruder()

        async def connect() -> None:
            await runtime.connect(target, PORT, lambda: made)

        runtime.spawn(connect(), "connect")
        self.run(0.1)
        return made


class Intruder(asyncio.Protocol):
    """Speaks bytes. ``closed`` once the node has hung up."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.closed = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def say(self, *bodies: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"".join(frame(body) for body in bodies))

    def frames(self) -> list[bytes]:
        """What the node said, as far as it is unsealed."""
        found, at = [], 0
        while at + 4 <= len(self.received):
            length = int.from_bytes(self.received[at : at + 4], "little")
            found.append(bytes(self.received[at + 4 : at + 4 + length]))
            at += 4 + length
        return found


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(wire.LENGTH_BYTES, "little") + body


HELLO = wire.Hello(
    wire.MAGIC, wire.PROTOCOL_VERSION, "cluster", "a", "b", 1 << 60, 0, "topology", b"n" * 16
)


def hello(**changed: Any) -> bytes:
    return wire.encode_body(msgspec.structs.replace(HELLO, **changed))


def proof_for(intruder: Intruder, own_hello: bytes, secret: bytes = SECRET) -> bytes:
    """The dialer's proof, once the node has answered the hello."""
    answer = intruder.frames()[0]
    return wire.encode_body(wire.Proof(proof(secret, b"dialer", own_hello, answer)))


@pytest.fixture
def logs() -> list[dict[str, Any]]:
    """What the nodes log, instead of the quiet of the other tests."""
    captured: list[dict[str, Any]] = []

    def keep(_logger: object, _method: str, event: Any) -> str:
        captured.append(dict(event))
        raise structlog.DropEvent

    structlog.configure(processors=[keep], cache_logger_on_first_use=False)
    return captured


def reasons(logs: list[dict[str, Any]]) -> str:
    return "\n".join(str(entry.get("reason", "")) for entry in logs)


# -- the handshake


def test_nodes_of_one_cluster_connect_once_each() -> None:
    net = Net("abcde").start_all()
    for name in net.names:
        for other in net.names:
            if name != other:
                assert net.events[name].changes(other) == ["up"]
    net.run(30.0)
    for name in net.names:
        assert all(
            net.events[name].changes(other) == ["up"] for other in net.names if other != name
        )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"secret": b"another"}, "the cluster secret is different there"),
        ({"secret": b""}, "the cluster secret is different there"),
        ({"cluster": "other"}, "cluster is "),
        ({"topology": "other"}, "members, groups or replication are configured differently there"),
    ],
)
@pytest.mark.parametrize("odd", ["a", "c"])
def test_a_node_configured_differently_is_refused_with_the_reason(
    changed: dict[str, Any], reason: str, odd: str, logs: list[dict[str, Any]]
) -> None:
    """Whether it dials or is dialed; the others go on."""
    net = Net()
    for name in net.names:
        net.start(name, **(changed if name == odd else {}))
    net.run(3.0)
    for name in net.names:
        for other in net.names:
            if name != other:
                assert net.peers[name].connected(other) is (odd not in (name, other))
    assert reason in reasons(logs)
    assert net.events[odd].story == []


def test_without_a_secret_nodes_connect_unsealed() -> None:
    """Allowed on loopback only, which the settings check."""
    net = Net("ab")
    for name in "ab":
        net.start(name, secret=b"")
    net.run(1.0)
    assert net.peers["a"].connected("b") and net.peers["b"].connected("a")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"magic": "other"}, "protocol 'other' version 1"),
        ({"version": 2}, "protocol 'raftcache' version 2"),
        ({"cluster": "other"}, "cluster is 'other' there"),
        ({"topology": "other"}, "configured differently"),
        ({"receiver": "c"}, "connection from 'a' to 'c'"),
        ({"sender": "z"}, "connection from 'z' to 'b'"),
        ({"sender": "b"}, "connection from 'b' to 'b'"),
        ({"sender": "c"}, "'c' must be dialed, not dial"),
    ],
)
def test_a_wrong_hello_is_refused_and_nobody_notices(
    changed: dict[str, Any], reason: str, logs: list[dict[str, Any]]
) -> None:
    net = Net().start_all()
    before = {name: net.events[name].happened for name in net.names}
    intruder = net.intruder("b")
    assert intruder.transport is not None and not intruder.closed
    intruder.say(hello(**changed))
    net.run(0.1)
    assert intruder.closed
    assert reason in reasons(logs)
    assert not intruder.received, "it is not even told who is here"
    assert {name: net.events[name].happened for name in net.names} == before


def test_who_does_not_know_the_secret_is_refused_and_the_real_peer_stays(
    logs: list[dict[str, Any]],
) -> None:
    """Saying that one is a is not enough."""
    net = Net().start_all()
    intruder = net.intruder("b")
    intruder.say(hello())
    net.run(0.1)
    intruder.say(proof_for(intruder, hello(), secret=b"a guess"))
    net.run(0.1)
    assert intruder.closed and "secret is different" in reasons(logs)
    assert net.events["b"].changes("a") == ["up"]
    net.peers["a"].send("b", Payload(b"still here"))
    net.run(0.1)
    assert net.events["b"].messages("a") == [Payload(b"still here")]


def test_a_proof_heard_elsewhere_is_worth_nothing() -> None:
    """The other side's own proof, sent back (reflection), and one of an earlier handshake with the
    same hello (replay): nonces and roles differ."""
    net = Net().start_all()
    first = net.intruder("b")
    first.say(hello())
    net.run(0.1)
    good = proof_for(first, hello())
    first.say(first.frames()[1])
    net.run(0.1)
    assert first.closed
    second = net.intruder("b", "trudy")
    second.say(hello())
    net.run(0.1)
    second.say(good)
    net.run(0.1)
    assert second.closed
    assert net.events["b"].changes("a") == ["up"]


def test_who_knows_the_secret_is_heard_and_must_seal() -> None:
    """The positive counterpart of all the refusals here, and then a frame without a valid tag."""
    net = Net("ab")
    net.start("b")
    net.run(0.1)
    peer = net.intruder("b", "a")
    peer.say(hello())
    net.run(0.1)
    peer.say(proof_for(peer, hello()))
    net.run(0.1)
    assert net.peers["b"].connected("a")
    seal = Seal(session_key(SECRET, b"dialer", hello(), peer.frames()[0]))
    body = wire.encode_body([Payload(b"x")])
    sealed = len(body).to_bytes(4, "little") + seal.tag(body) + body
    assert peer.transport is not None
    peer.transport.write(sealed)
    net.run(0.1)
    assert net.events["b"].messages("a") == [Payload(b"x")]
    peer.transport.write(sealed)
    net.run(0.1)
    assert peer.closed, "the same frame again (S16b)"
    assert net.events["b"].messages("a") == [Payload(b"x")]
    assert net.events["b"].changes("a") == ["up", "down"]


def test_an_unauthenticated_hello_changes_nothing() -> None:
    """What a stranger claims to know of incarnations must not move ours: beyond what fits on the
    wire, this node could never say hello again."""
    net = Net().start_all()
    incarnation, known = net.peers["b"].incarnation, dict(net.peers["b"].known)
    for claim in (incarnation + 1, 2**63, 2**64 - 1):
        intruder = net.intruder("b", f"mallory-{claim}")
        intruder.say(hello(known=claim, incarnation=2**64 - 1))
        net.run(0.1)
        intruder.say(wire.encode_body(wire.Proof(b"no")))
        net.run(0.1)
        assert intruder.closed
    assert (net.peers["b"].incarnation, net.peers["b"].known) == (incarnation, known)
    net.network.reset("a", "b")
    net.run(2.0)
    assert net.peers["b"].connected("a")


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("seed", range(5))
def test_a_node_whose_clock_was_set_back_gets_a_later_incarnation(
    name: str, seed: int, logs: list[dict[str, Any]]
) -> None:
    """Incarnations must grow from start to start (see ``recovery``); an authenticated peer knows
    better than the clock, and its refusal leaves it the time to say so. (Found by the simulator,
    seed 311501: a dialer took its proof with it.)"""
    net = Net("ab", seed).start_all()
    other = "ab".replace(name, "")
    later = net.peers[name].incarnation
    net.runtimes[name].process.crash()
    net.run(0.1)
    net.start(name)
    net.peers[name].incarnation = later - 1000
    net.run(3.0)
    assert net.peers[name].connected(other)
    assert net.peers[name].incarnation > later
    assert reasons(logs).count("an earlier start had a later incarnation") == 1
    assert reasons(logs).count("connection of an earlier incarnation") <= 1


def test_a_new_incarnation_is_that_of_every_connection() -> None:
    """c met only the restarted b, and takes it for what it said it was; a knew an earlier b and
    tells. Were c's connection to stay, b's votes would count for nobody there once c heard of the
    new number. (Found by the simulator, seed 200036.)"""
    net = Net().start_all()
    earlier = net.peers["b"].incarnation
    for name in "bc":
        net.runtimes[name].process.crash()
    net.network.partition([["a"], ["b", "c"]])
    net.start("c")
    net.start("b")
    net.peers["b"].incarnation = earlier - 1000
    net.run(1.0)
    assert net.peers["c"].incarnation_of("b") == earlier - 1000
    net.network.heal()
    net.run(20.0)
    assert net.peers["b"].incarnation > earlier
    for name in "ac":
        assert net.peers[name].incarnation_of("b") == net.peers["b"].incarnation


# -- frames


GARBAGE = [
    b"\x00" * 64,
    b"\xff" * 64,
    b"GET / HTTP/1.1\r\nHost: b\r\n\r\n",
    frame(b"not a hello"),
    frame(pickle.dumps({"type": "append_entries", "term": 9})),
    frame(wire.encode_body([Payload(b"x")])),
    frame(wire.encode_body(wire.Proof(b"x" * 32))),
    frame(b"\x9f" + b"\x91" * 4000),
    (wire.HANDSHAKE_FRAME_BYTES + 1).to_bytes(4, "little"),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_before_authentication_is_refused_and_nobody_notices(garbage: bytes) -> None:
    net = Net().start_all()
    before = {name: net.events[name].happened for name in net.names}
    intruder = net.intruder("b")
    assert intruder.transport is not None
    intruder.transport.write(garbage)
    net.run(0.1)
    assert intruder.closed
    assert {name: net.events[name].happened for name in net.names} == before


def test_a_connection_that_says_nothing_is_closed() -> None:
    net = Net().start_all()
    silent, halfway = net.intruder("b", "silent"), net.intruder("b", "halfway")
    halfway.say(hello())
    net.run(HANDSHAKE_TIMEOUT_S - 0.5)
    assert not silent.closed and not halfway.closed
    net.run(1.5)
    assert silent.closed and halfway.closed


def test_a_frame_beyond_the_limit_ends_the_connection() -> None:
    """Announced by its length alone: nothing is collected."""
    net = Net("ab").start_all()
    (link,) = net.peers["a"]._all
    assert link._transport is not None
    link._transport.write((LIMIT + 1).to_bytes(4, "little"))
    net.run(0.01)
    assert net.events["b"].changes("a") == ["up", "down"]
    net.run(2.0)
    assert net.events["b"].changes("a") == ["up", "down", "up"]


def test_a_message_beyond_the_limit_is_not_skipped_over(logs: list[dict[str, Any]]) -> None:
    """Later messages must not overtake a lost one: the stream ends there."""
    net = Net("ab").start_all()
    for payload in (b"one", b"x" * (LIMIT + 1), b"three"):
        net.peers["a"].send("b", Payload(payload))
    net.run(0.01)
    assert net.events["b"].messages("a") in ([], [Payload(b"one")])
    assert any("max_frame" in str(entry["event"]) for entry in logs)
    net.run(2.0)
    assert net.peers["a"].connected("b")


def test_messages_that_exceed_a_frame_together_take_several() -> None:
    net = Net("ab").start_all()
    sent = [Payload(b"%03d" % i * 10_000) for i in range(40)]
    for message in sent:
        net.peers["a"].send("b", message)
    net.run(1.0)
    assert net.events["b"].messages("a") == sent


def test_a_message_that_the_receiver_refuses_ends_the_connection(
    logs: list[dict[str, Any]],
) -> None:
    net = Net("ab").start_all()
    net.events["b"].refuse = wire.TimeoutNow
    net.peers["a"].send("b", Payload(b"before"))
    net.peers["a"].send("b", wire.TimeoutNow(1, 1))
    net.peers["a"].send("b", Payload(b"after"))
    net.run(0.01)
    assert net.events["b"].messages("a") == [Payload(b"before")]
    assert net.events["b"].changes("a") == ["up", "down"]
    assert "not to me" in reasons(logs)


def test_messages_of_one_turn_share_a_frame_and_end_with_one_call() -> None:
    net = Net("ab").start_all()
    net.network.cut = 0.0
    (link,) = net.peers["a"]._all
    frames: list[int] = []
    write = link.write_frame
    link.write_frame = lambda body: (frames.append(len(body)), write(body))[1]  # type: ignore[method-assign]
    start = len(net.events["b"].story)
    for i in range(50):
        net.peers["a"].send("b", Payload(b"%d" % i))
    net.run(0.01)
    assert len(frames) == 1
    story = net.events["b"].story[start:]
    assert story.count(("turn end",)) == 1 and story[-1] == ("turn end",)


def test_the_order_is_kept_however_the_stream_is_cut() -> None:
    for seed in range(10):
        net = Net("ab", seed)
        net.network.cut = 1.0
        net.start_all()
        draw = net.scheduler.generator("test")
        sent = []
        for i in range(200):
            sent.append(Payload(b"%d" % i * draw.randint(1, 50)))
            net.peers["a"].send("b", sent[-1])
            if draw.random() < 0.3:
                net.run(0.0005)
        net.run(1.0)
        assert net.events["b"].messages("a") == sent


def test_nothing_can_be_sent_to_who_is_not_connected() -> None:
    net = Net("ab")
    net.start("a")
    net.run(0.5)
    assert net.peers["a"].send("b", Payload(b"x")) is False
    assert net.peers["a"].send("stranger", Payload(b"x")) is False
    net.start("b")
    net.run(2.0)
    assert net.events["b"].messages("a") == [], "nothing was kept for later"


# -- connections come and go


def test_a_lost_connection_is_made_anew() -> None:
    net = Net().start_all()
    net.network.reset("a", "b")
    net.run(1.0)
    assert net.events["a"].changes("b") == ["up", "down", "up"]
    assert net.events["b"].changes("a") == ["up", "down", "up"]
    assert net.events["c"].changes("a") == ["up"]


def test_a_lost_connection_loses_a_suffix_and_nothing_in_between() -> None:
    net = Net("ab").start_all()
    for i in range(100):
        net.peers["a"].send("b", Payload(b"%d" % i))
        if i == 60:
            net.network.reset("a", "b")
        net.run(0.0001)
    net.run(1.0)
    got = [int(m.data) for m in net.events["b"].messages("a") if isinstance(m, Payload)]
    first = [i for i in got if i <= 60]
    assert first == list(range(len(first)))
    assert got == sorted(got)


def test_a_new_connection_replaces_the_old_one() -> None:
    """The old one's host died without a word: b learns of it by the new one, and hears nothing of
    the old one any more (S16)."""
    net = Net("ab").start_all()
    old_b = net.runtimes["a"]
    net.network.block("a", "b")
    net.peers["a"].send("b", Payload(b"of the old connection"))
    net.run(0.01)
    old_b.process.crash(power=True)
    net.run(0.1)
    net.network.unblock(("a", "b"))
    net.start("a")
    net.run(2.0)
    assert net.events["b"].changes("a") == ["up", "down", "up"]
    assert net.peers["b"].connected("a")
    net.peers["a"].send("b", Payload(b"of the new one"))
    net.run(0.1)
    assert net.events["b"].messages("a") == [Payload(b"of the new one")]
    net.run(20.0)
    assert net.events["b"].changes("a") == ["up", "down", "up"]


def test_a_silent_connection_is_closed() -> None:
    """Half-open, as after a cut cable: nothing arrives, and nobody says so."""
    net = Net("ab").start_all()
    net.network.tcp_timeout = 1000.0
    net.network.partition(["a", "b"])
    net.run(SILENCE_LIMIT_S - 1.0)
    assert net.peers["a"].connected("b")
    net.run(2.0)
    assert not net.peers["a"].connected("b") and not net.peers["b"].connected("a")
    net.network.heal()
    net.run(5.0)
    assert net.peers["a"].connected("b")


def test_an_idle_connection_is_kept_alive() -> None:
    net = Net("ab").start_all()
    net.run(10 * SILENCE_LIMIT_S)
    assert net.events["a"].changes("b") == ["up"]


def test_a_node_is_found_however_late_it_starts() -> None:
    net = Net("ab")
    net.start("a")
    net.run(60.0)
    net.start("b")
    net.run(1.0)
    assert net.peers["a"].connected("b"), "the pause between attempts is bounded"


def test_a_peer_that_takes_nothing_is_congested_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that Raft stops feeding it, instead of the process's memory."""
    monkeypatch.setattr(peers_module, "WRITE_HIGH_WATER_BYTES", 100_000)
    net = Net("ab").start_all()
    net.network.block("a", "b")
    for _ in range(10):
        net.peers["a"].send("b", Payload(b"x" * 100_000))
        net.run(0.001)
    assert ("congested", "b", True) in net.events["a"].story
    assert ("congested", "b", False) not in net.events["a"].story
    net.network.unblock(("a", "b"))
    net.run(3.0)
    assert net.events["a"].story[-1] != ("congested", "b", True)
    assert ("congested", "b", False) in net.events["a"].story
    assert len(net.events["b"].messages("a")) == 10


def test_a_stopped_node_closes_what_it_has_and_dials_no_more() -> None:
    net = Net("ab").start_all()
    net.peers["a"].send("b", Payload(b"last words"))
    net.peers["a"].stop()
    net.run(0.5)
    assert net.events["b"].messages("a") == [Payload(b"last words")]
    assert net.events["b"].changes("a") == ["up", "down"]
    net.run(5.0)
    assert not net.peers["a"].connected("b") and not net.peers["b"].connected("a")


# -- real sockets


async def wait_for(predicate: Any) -> None:
    async with asyncio.timeout(5.0):
        while not predicate():
            await asyncio.sleep(0.002)


async def test_the_same_over_real_sockets() -> None:
    runtime: Runtime = AsyncioRuntime(seed=1)
    events = {name: Events() for name in "ab"}
    low = Peers(runtime, options("b", "ab"), events["b"])
    port = await low.start("127.0.0.1", 0)
    high = Peers(runtime, options("a", "ab", addresses={"b": ("127.0.0.1", port)}), events["a"])
    await high.start("127.0.0.1", 0)
    await wait_for(lambda: high.connected("b") and low.connected("a"))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(frame(pickle.dumps("garbage")))
    async with asyncio.timeout(5.0):
        assert await reader.read() == b""
    writer.close()
    sent = [Payload(b"%d" % i * 1000) for i in range(300)]
    for message in sent:
        high.send("b", message)
    await wait_for(lambda: len(events["b"].messages("a")) == 300)
    assert events["b"].messages("a") == sent
    assert events["b"].changes("a") == ["up"]
    high.stop()
    await wait_for(lambda: events["b"].changes("a") == ["up", "down"])
    low.stop()
