"""Bytes from the network become typed messages or a ``WireError``; never code or a crash (S16)."""

from __future__ import annotations

import contextlib
import os
import pickle
import typing
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftcache.raft import wire
from raftcache.raft.authentication import Seal, proof, session_key
from raftcache.raft.transport import check_commands
from raftcache.raft.wire import WireError

from .harness import GROUP, Cluster

MESSAGES: tuple[type, ...] = typing.get_args(wire.Message)
NUMBERS = st.integers(0, 2**63)
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    int: NUMBERS,
    bool: st.booleans(),
    bytes: st.binary(max_size=200),
    str: st.text(max_size=20),
    list[tuple[bytes, int]]: st.lists(st.tuples(st.binary(max_size=50), NUMBERS), max_size=5),
    dict[str, int]: st.dictionaries(st.text(max_size=10), NUMBERS, max_size=5),
}


def instances(kind: type) -> st.SearchStrategy[Any]:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: FIELDS[hints[name]] for name in kind.__struct_fields__})  # type: ignore[attr-defined]


ANY_MESSAGE = st.one_of([instances(kind) for kind in MESSAGES])


@given(st.lists(ANY_MESSAGE, max_size=8))
def test_every_message_comes_back_as_it_was(messages: list[Any]) -> None:
    body = wire.encode_body(messages)
    for view in (body, bytearray(body), memoryview(body)):
        decoded = wire.decode_messages(view)
        assert decoded == messages
        assert [type(message) for message in decoded] == [type(message) for message in messages]


@given(instances(wire.Hello), instances(wire.Proof))
def test_the_handshake_comes_back_as_it_was(hello: wire.Hello, proof: wire.Proof) -> None:
    assert wire.decode_hello(wire.encode_body(hello)) == hello
    assert wire.decode_proof(wire.encode_body(proof)) == proof


def test_every_kind_of_message_has_a_tag_of_its_own() -> None:
    tags = [msgspec.inspect.type_info(kind).tag for kind in MESSAGES]  # type: ignore[attr-defined]
    assert len(set(tags)) == len(tags)
    assert all(isinstance(tag, int) for tag in tags)


def decode_all(body: bytes) -> None:
    for decode in (wire.decode_messages, wire.decode_hello, wire.decode_proof):
        with contextlib.suppress(WireError):
            decode(body)


@settings(max_examples=1000)
@given(st.binary(max_size=300))
def test_any_bytes_are_messages_or_a_wire_error(body: bytes) -> None:
    decode_all(body)


@settings(max_examples=500)
@given(st.lists(ANY_MESSAGE, min_size=1, max_size=3), st.data())
def test_a_damaged_frame_is_messages_or_a_wire_error(messages: list[Any], data: Any) -> None:
    body = bytearray(wire.encode_body(messages))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    decode_all(bytes(body))
    decode_all(bytes(body[: data.draw(st.integers(0, len(body)))]))


@pytest.mark.parametrize("depth", [1_000, 100_000])
@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1x", b"\xdd\x00\x00\x00\x01"])
def test_deep_nesting_is_a_wire_error(depth: int, opening: bytes) -> None:
    """Wherever it is: as the frame, as a message, as a field, as a field nobody knows."""
    nested = opening * depth + b"\xc0"
    decode_all(nested)
    for prefix in (b"\x91", b"\x91\x93\x04\x01", b"\x91\x94\x0a\x01\x01", b"\x91\x93\x0f"):
        decode_all(prefix + nested)


def test_a_length_that_promises_gigabytes_is_a_wire_error() -> None:
    for huge in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"):
        for body in (huge, b"\x91\x96\x0f" + huge, b"\x91\x97\x01\x01\x01\x01\x01\x01" + huge):
            decode_all(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc0",
        b"\x90\x90",
        msgspec.msgpack.encode([[99, 1, 1]]),
        msgspec.msgpack.encode([[4, 1]]),
        msgspec.msgpack.encode([[4, "1", 1, {}]]),
        msgspec.msgpack.encode([[4, 1, None, {}]]),
        msgspec.msgpack.encode([[1, 1, 1, 1, 1, 1, [["not bytes", 1]]]]),
        msgspec.msgpack.encode([{"group": 1}]),
        msgspec.msgpack.encode("text"),
        b"\x91\x94\x04\x01\x01\x81\xa2\xff\xfe\x01",
    ],
)
def test_the_wrong_shape_is_a_wire_error(body: bytes) -> None:
    with pytest.raises(WireError, match="malformed frame"):
        wire.decode_messages(body)


# -- nothing is unpickled


class Bomb:
    """Unpickling it leaves a mark."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_as_a_frame_is_refused_unread(protocol: int, tmp_path: Any) -> None:
    mark = str(tmp_path / "exploded")
    for value in (Bomb(mark), [Bomb(mark)], ("append_entries", Bomb(mark))):
        body = pickle.dumps(value, protocol)
        for decode in (wire.decode_messages, wire.decode_hello, wire.decode_proof):
            with pytest.raises(WireError):
                decode(body)
    assert not os.path.exists(mark)


def test_a_pickle_as_an_entry_is_refused_or_only_carried(tmp_path: Any) -> None:
    """As PySyncObj's regular command (type 0) or its membership and version commands: refused. As
    the payload of one of ours: bytes like any other, at every replica."""
    mark = str(tmp_path / "exploded")
    bomb = pickle.dumps((0, (Bomb(mark),)))
    for kind in range(256):
        command = bytes([kind]) + bomb
        if kind == 0x40:
            check_commands([(command, 1)])
        else:
            with pytest.raises(WireError):
                check_commands([(command, 1)])
    c = Cluster()
    leader = c.elect()
    c.write(leader.name, bomb)
    c.converge()
    assert c["b"].state == [bomb]
    assert not os.path.exists(mark)


def test_a_pickle_as_a_snapshot_is_refused_unread(tmp_path: Any) -> None:
    mark = str(tmp_path / "exploded")
    bomb = pickle.dumps(Bomb(mark))
    c = Cluster()
    c.elect("a")
    term = c["b"].term
    chunk = wire.SnapshotChunk(GROUP, term, 50, term, term, b"\x40x", 0, bomb, True)
    c["b"].group.on_message("a", chunk)
    c.flow(0.1)
    regular = wire.SnapshotChunk(GROUP, term, 60, term, term, b"\x00" + bomb, 0, b"", True)
    with pytest.raises(WireError):
        c["b"].group.on_message("a", regular)
    c.flow(0.1)
    assert c["b"].group.snapshots.received == 0
    assert not os.path.exists(mark)


# -- seals


def sealed(*bodies: bytes, key: bytes = b"key") -> list[tuple[bytes, bytes]]:
    seal = Seal(key)
    return [(seal.tag(body), body) for body in bodies]


@given(st.lists(st.binary(max_size=100), max_size=6))
def test_frames_in_order_pass(bodies: list[bytes]) -> None:
    check = Seal(b"key")
    for tag, body in sealed(*bodies):
        check.check(tag, body)
        assert len(tag) == wire.TAG_BYTES


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_flipped_bit_is_detected(body: bytes, data: Any) -> None:
    ((tag, _),) = sealed(body)
    frame = bytearray(tag + body)
    frame[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(WireError, match="authentication"):
        Seal(b"key").check(frame[: wire.TAG_BYTES], frame[wire.TAG_BYTES :])


def test_replays_reorderings_and_gaps_are_detected() -> None:
    """S16b: every frame has its place in the stream, and passes there and once."""
    frames = sealed(b"one", b"two", b"three")
    for order in ([0, 0], [1], [0, 2], [1, 0], [0, 1, 1], [0, 1, 0]):
        check = Seal(b"key")
        with pytest.raises(WireError):
            for i in order:
                check.check(*frames[i])


def test_another_key_is_detected() -> None:
    ((tag, body),) = sealed(b"body", key=b"other")
    with pytest.raises(WireError):
        Seal(b"key").check(tag, body)


def test_an_empty_or_short_tag_is_detected() -> None:
    ((tag, body),) = sealed(b"body")
    for short in (b"", tag[:-1], tag + b"\0"):
        with pytest.raises(WireError):
            Seal(b"key").check(short, body)


def test_keys_and_proofs_depend_on_role_and_both_hellos() -> None:
    """A proof heard on one connection proves nothing on another, nor in the other direction."""
    hellos = [(b"a", b"b"), (b"b", b"a"), (b"a", b"c"), (b"c", b"b")]
    made = [
        function(b"secret", role, *pair)
        for function in (proof, session_key)
        for role in (b"dialer", b"acceptor")
        for pair in hellos
    ]
    assert len(set(made)) == len(made)
    assert proof(b"secret", b"dialer", b"a", b"b") != proof(b"other", b"dialer", b"a", b"b")


@given(instances(wire.Hello), instances(wire.Hello))
def test_no_two_pairs_of_hellos_share_a_proof(one: wire.Hello, other: wire.Hello) -> None:
    """What is authenticated is their encoding joined by a separator: that must not be ambiguous."""
    x, y = wire.encode_body(one), wire.encode_body(other)
    joined = b"|".join((x, y))
    splits = [i for i in range(len(joined)) if joined[i : i + 1] == b"|"]
    pairs = []
    for at in splits:
        try:
            wire.decode_hello(joined[:at])
            wire.decode_hello(joined[at + 1 :])
        except WireError:
            continue
        pairs.append(at)
    assert pairs == [len(x)]
