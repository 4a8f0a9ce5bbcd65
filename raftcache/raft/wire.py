"""What nodes say to each other: frames, and the typed messages inside.

A frame is ``length:u32 tag:16? body``: the body's length in bytes (little endian), a keyed BLAKE2b
tag when the cluster has a secret, and the body, a MessagePack list of messages. All messages that
one turn of the event loop produced for a peer share a frame. Messages are decoded into the types
below and nothing else: unknown tags, wrong types and trailing bytes are errors, and no byte
received is ever unpickled.
"""

from __future__ import annotations

from typing import Final

import msgspec

PROTOCOL_VERSION: Final = 1
LENGTH_BYTES: Final = 4
TAG_BYTES: Final = 16
HANDSHAKE_FRAME_BYTES: Final = 4096
"""Longest frame accepted from somebody who has not authenticated yet."""


Bytes = bytes | bytearray | memoryview


class WireError(Exception):
    """The peer broke the protocol; the connection is closed with this message."""


class Append(msgspec.Struct, array_like=True, gc=False, tag=1):
    """AppendEntries (Raft figure 2). Entry ``i`` of ``entries`` has index ``prev_index + 1 + i``;
    an entry is (command, term). ``clock_ms``: the leader's reading of the group's clock."""

    group: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: list[tuple[bytes, int]]
    clock_ms: int


class AppendReply(msgspec.Struct, array_like=True, gc=False, tag=2):
    """``success``: the log matches the leader's below ``next_index``. ``reset``: send from there.
    Neither: only a sign of life. ``room``: the sender's disk takes more."""

    group: int
    term: int
    next_index: int
    success: bool
    reset: bool
    room: bool = True


class RequestVote(msgspec.Struct, array_like=True, gc=False, tag=3):
    """RequestVote. ``transfer``: on request of the leader, who has given up its lease."""

    group: int
    term: int
    last_index: int
    last_term: int
    transfer: bool


class Vote(msgspec.Struct, array_like=True, gc=False, tag=4):
    """A granted vote. ``known``: the latest incarnations that the voter has heard of."""

    group: int
    term: int
    known: dict[str, int]


class PreVote(msgspec.Struct, array_like=True, gc=False, tag=5):
    """Would you vote for me? (Raft dissertation, section 9.6.) ``term`` is the asker's current
    term."""

    group: int
    term: int
    last_index: int
    last_term: int
    transfer: bool = False


class PreVoteGranted(msgspec.Struct, array_like=True, gc=False, tag=6):
    """Yes. ``term`` is that of the request."""

    group: int
    term: int


class TermNotice(msgspec.Struct, array_like=True, gc=False, tag=7):
    """Your message came from an older term than mine."""

    group: int
    term: int


class Probe(msgspec.Struct, array_like=True, gc=False, tag=8):
    """ReadIndex round: am I still your leader? With ``lease_ms`` > 0 the answer is also a promise
    to vote for nobody else for so long."""

    group: int
    term: int
    round: int
    lease_ms: int


class ProbeReply(msgspec.Struct, array_like=True, gc=False, tag=9):
    """Yes, in ``term``."""

    group: int
    term: int
    round: int


class TimeoutNow(msgspec.Struct, array_like=True, gc=False, tag=10):
    """Leadership transfer (Raft dissertation, section 3.10): campaign at once."""

    group: int
    term: int


class ReadIndex(msgspec.Struct, array_like=True, gc=False, tag=11):
    """A follower asks its leader for an index that a read at least as fresh as now must have
    applied. ``term``: in which it follows; -1: it does not say."""

    group: int
    id: int
    term: int = -1


class ReadIndexReply(msgspec.Struct, array_like=True, gc=False, tag=12):
    """``index`` 0: refused, not a (confirmed) leader."""

    group: int
    id: int
    index: int


class SnapshotChunk(msgspec.Struct, array_like=True, gc=False, tag=13):
    """InstallSnapshot (Raft figure 13). The snapshot covers the log up to ``index``; ``command`` is
    that entry, of ``last_term``, and ``prev_term`` the term of the one before."""

    group: int
    term: int
    index: int
    last_term: int
    prev_term: int
    command: bytes
    offset: int
    data: bytes
    last: bool


class SnapshotReply(msgspec.Struct, array_like=True, gc=False, tag=14):
    """``offset``: bytes received in order so far. ``done``: the transfer is over (installed, not
    needed any more, or given up); it says nothing about the log, an ``AppendReply`` does."""

    group: int
    term: int
    index: int
    offset: int
    done: bool


class RecoveryRequest(msgspec.Struct, array_like=True, gc=False, tag=16):
    """The sender has lost its state: what is known of the group?"""

    group: int
    round: int


class RecoveryReply(msgspec.Struct, array_like=True, gc=False, tag=17):
    """This much; ``phase`` is a ``recovery.Phase``."""

    group: int
    round: int
    phase: int
    term: int
    leader: bool
    last_index: int


class Payload(msgspec.Struct, array_like=True, gc=False, tag=15):
    """Not Raft's: a message between the routers of two nodes."""

    data: bytes


GroupMessage = (
    Append
    | AppendReply
    | RequestVote
    | Vote
    | PreVote
    | PreVoteGranted
    | TermNotice
    | Probe
    | ProbeReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
    | SnapshotChunk
    | SnapshotReply
    | RecoveryRequest
    | RecoveryReply
)
Message = GroupMessage | Payload


class Hello(msgspec.Struct, array_like=True):
    """First frame of both sides. ``topology`` is a digest of what all nodes must agree on;
    ``known`` is the receiver's latest incarnation that the sender has heard of."""

    magic: str
    version: int
    cluster: str
    sender: str
    receiver: str
    incarnation: int
    known: int
    topology: str
    nonce: bytes


class Proof(msgspec.Struct, array_like=True):
    """Second frame of both sides: HMAC-SHA256 over both hellos, by the cluster's secret."""

    mac: bytes


MAGIC: Final = "raftcache"

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Message])
_hello_decoder = msgspec.msgpack.Decoder(Hello)
_proof_decoder = msgspec.msgpack.Decoder(Proof)
_MALFORMED: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding raises: the last when fields that nobody knows are nested too deep to skip."""


def encode_body(value: list[Message] | Hello | Proof) -> bytes:
    """MessagePack of a frame's body."""
    return _encoder.encode(value)


def decode_messages(body: Bytes) -> list[Message]:
    """Inverse of ``encode_body``; ``WireError`` on anything else."""
    try:
        return _decoder.decode(body)
    except _MALFORMED as error:
        raise WireError(f"malformed frame: {error}") from None


def decode_hello(body: Bytes) -> Hello:
    """A handshake's first frame; ``WireError`` on anything else."""
    try:
        return _hello_decoder.decode(body)
    except _MALFORMED as error:
        raise WireError(f"malformed hello: {error}") from None


def decode_proof(body: Bytes) -> Proof:
    """A handshake's second frame; ``WireError`` on anything else."""
    try:
        return _proof_decoder.decode(body)
    except _MALFORMED as error:
        raise WireError(f"malformed proof: {error}") from None
