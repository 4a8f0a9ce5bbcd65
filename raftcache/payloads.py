"""What routers say to each other: operations for a replica, and how they ended."""

from __future__ import annotations

import enum

import msgspec

from raftcache.ops import Read, Result, Write
from raftcache.raft import wire


class Kind(enum.IntEnum):
    """What is asked of a replica."""

    WRITE = 0
    READ = 1
    LEASE_READ = 2
    STALE_READ = 3
    TRANSFER = 4
    SCAN = 5


class Forward(msgspec.Struct, array_like=True, gc=False, tag=0):
    """Operations for another node's replica. ``target``: of a transfer, empty for any."""

    id: int
    group: int
    kind: Kind
    ops: list[Read | Write]
    max_staleness_ms: int = -1
    target: str = ""


class ForwardReply(msgspec.Struct, array_like=True, gc=False, tag=1):
    """``outcome`` is an ``Outcome``; results as many as operations when it is ``APPLIED``, and
    otherwise who leads the group, as far as the sender knows."""

    id: int
    outcome: int
    results: list[Result]
    leader: str = ""


class Uses(msgspec.Struct, array_like=True, gc=False, tag=2):
    """Keys that were read at the sender, for the leader to write down. Nobody answers."""

    group: int
    keys: list[bytes]


Payload = Forward | ForwardReply | Uses

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Payload)


def encode_payload(message: Payload) -> bytes:
    """MessagePack, as it travels in a ``wire.Payload``."""
    return _encoder.encode(message)


def decode_payload(data: bytes) -> Payload:
    """Inverse of ``encode_payload``; ``WireError`` on anything else."""
    try:
        message: Payload = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise wire.WireError(f"malformed payload: {error}") from None
    return message
