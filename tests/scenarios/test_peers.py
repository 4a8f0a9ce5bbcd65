"""What a connection may carry, and whose it is: S11, S16, S16b; guarantees 1, 6 and 11."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

from raftcache.raft import wire
from raftcache.raft.authentication import Seal, session_key
from raftcache.raft.core import CoreNode
from raftcache.raft.wire import Payload
from tests.raft.harness import GROUP
from tests.raft.test_peers import LIMIT, SECRET, Intruder, Net, hello, proof_for
from tests.raft.test_wire import Bomb

from .story import cluster, scenario


@scenario("command-types")
def test_no_peer_shrinks_the_cluster(guarded: bool) -> None:
    """S11: PySyncObj obeys membership entries though they are switched off. Whoever gets one into
    the log of a removes c from what a calls the cluster, and from its majority."""
    c = cluster("abc", guarded=guarded)
    c.elect("b")
    a = c["a"]
    entry = (b"\x02" + pickle.dumps(["rem", "c", CoreNode("c", 2)]), a.term)
    last = a.journal.last_index
    append = wire.Append(GROUP, a.term, last, a.journal.last_term, last + 1, [entry], 0)
    if guarded:
        with pytest.raises(wire.WireError, match="command of type"):
            a.group.on_message("b", append)
    else:
        a.group.on_message("b", append)
    c.turn()
    members = {node.id for node in a.group.engine._core.otherNodes}
    assert (members == {"b", "c"}) is guarded


@scenario("command-types")
def test_no_entry_of_a_peer_is_unpickled(guarded: bool, tmp_path: Any) -> None:
    """S16: PySyncObj's regular commands are pickles; unpickling one runs whatever it likes."""
    c = cluster("abc", guarded=guarded)
    c.elect("b")
    a, mark = c["a"], str(tmp_path / "exploded")
    last = a.journal.last_index
    entry = (b"\x00" + pickle.dumps((0, (Bomb(mark),))), a.term)
    append = wire.Append(GROUP, a.term, last, a.journal.last_term, last + 1, [entry], 0)
    if guarded:
        with pytest.raises(wire.WireError, match="command of type"):
            a.group.on_message("b", append)
    else:
        a.group.on_message("b", append)
    c.turn()
    assert os.path.exists(mark) is not guarded


def authenticated(net: Net, host: str, incarnation: int) -> tuple[Intruder, Seal]:
    """A connection to b by somebody who knows the secret and says that it is a; what it sends must
    be sealed with the seal returned."""
    peer = net.intruder("b", host)
    own = hello(incarnation=incarnation)
    peer.say(own)
    net.run(0.1)
    peer.say(proof_for(peer, own))
    net.run(0.1)
    return peer, Seal(session_key(SECRET, b"dialer", own, peer.frames()[0]))


def sealed(seal: Seal, *messages: wire.Message) -> bytes:
    body = wire.encode_body(list(messages))
    return len(body).to_bytes(wire.LENGTH_BYTES, "little") + seal.tag(body) + body


def write(peer: Intruder, data: bytes) -> None:
    assert peer.transport is not None
    peer.transport.write(data)


@scenario("peer-authentication")
def test_who_does_not_know_the_secret_does_not_replace_a_peer(guarded: bool) -> None:
    """S16: in PySyncObj saying that one is a member is enough, and the real one is cut off."""
    net = Net().start_all()
    intruder = net.intruder("b")
    intruder.say(hello(incarnation=1 << 62))
    net.run(0.1)
    intruder.say(proof_for(intruder, hello(incarnation=1 << 62), secret=b"a guess"))
    net.run(0.1)
    assert (net.events["b"].changes("a") == ["up"]) is guarded, "it lost its connection to it"
    if guarded:
        assert intruder.closed and net.peers["b"].incarnation_of("a") < 1 << 62


@scenario("frame-seal")
def test_a_recorded_frame_is_not_heard_again(guarded: bool) -> None:
    """S16b: with PySyncObj's password a frame that is repeated within a second is accepted."""
    net = Net("ab")
    net.start("b")
    net.run(0.1)
    peer, seal = authenticated(net, "a", 2000)
    frame = sealed(seal, Payload(b"x"))
    write(peer, frame)
    write(peer, frame)
    net.run(0.1)
    assert net.events["b"].messages("a") == [Payload(b"x")] * (1 if guarded else 2)
    assert peer.closed is guarded


@scenario("frame-limit")
def test_a_frame_beyond_the_limit_is_not_waited_for(guarded: bool) -> None:
    """S16: announced by its length alone, nothing of it is collected."""
    net = Net("ab")
    net.start("b")
    net.run(0.1)
    peer, _ = authenticated(net, "a", 2000)
    write(peer, (2**31).to_bytes(wire.LENGTH_BYTES, "little") + bytes(LIMIT))
    net.run(0.1)
    assert peer.closed is guarded
    if not guarded:
        (link,) = net.peers["b"]._all
        assert len(link._buffer) > LIMIT, "it grows for as long as anything comes"


@scenario("one-connection")
def test_an_old_connection_is_not_heard_beside_the_new_one(guarded: bool) -> None:
    """S16: PySyncObj goes on to hear it. What was sent on it long ago arrives after what was sent
    later: an acknowledgement, say, of before a restart."""
    net = Net("ab")
    net.start("b")
    net.run(0.1)
    old, old_seal = authenticated(net, "a", 2000)
    new, new_seal = authenticated(net, "x", 3000)
    write(new, sealed(new_seal, Payload(b"later")))
    net.run(0.1)
    write(old, sealed(old_seal, Payload(b"of long ago")))
    net.run(0.1)
    heard = net.events["b"].messages("a")
    assert heard == [Payload(b"later")] + ([] if guarded else [Payload(b"of long ago")])


@scenario("incarnation-order")
def test_the_connection_of_a_dead_process_replaces_nobody(guarded: bool) -> None:
    """It was on its way while its process died and started again. Were it to replace that of its
    successor, votes and acknowledgements of the dead would count."""
    net = Net("ab")
    net.start("b")
    net.run(0.1)
    for host, incarnation, welcome in (
        ("a", 2000, True),
        ("x", 1000, not guarded),
        ("y", 3000, True),
    ):
        peer, _ = authenticated(net, host, incarnation)
        assert peer.closed is not welcome
        if incarnation == 1000:
            assert net.peers["b"].incarnation_of("a") == (2000 if guarded else 1000)
    assert net.peers["b"].incarnation_of("a") == 3000
