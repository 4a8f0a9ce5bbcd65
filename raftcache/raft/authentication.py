"""Who is at the other end of a connection: proofs that it knows the cluster's secret, and a tag on
every frame thereafter."""

from __future__ import annotations

import hashlib
import hmac

from raftcache.raft import wire


class Seal:
    """One direction of an authenticated connection: every frame carries a keyed BLAKE2b-128 tag
    over its position in the stream and its body, so that frames cannot be forged, replayed, dropped
    or reordered."""

    def __init__(self, key: bytes) -> None:
        self._state = hashlib.blake2b(digest_size=wire.TAG_BYTES, key=key)
        self._sequence = 0

    def tag(self, body: wire.Bytes) -> bytes:
        """The next frame's tag."""
        state = self._state.copy()
        state.update(self._sequence.to_bytes(8, "little"))
        state.update(body)
        self._sequence += 1
        return state.digest()

    def check(self, tag: wire.Bytes, body: wire.Bytes) -> None:
        """``WireError`` unless ``tag`` is the next frame's."""
        if not hmac.compare_digest(bytes(tag), self.tag(body)):
            raise wire.WireError("frame authentication failed")


def proof(secret: bytes, role: bytes, dialer: bytes, acceptor: bytes) -> bytes:
    """HMAC-SHA256 by which ``role`` (``b"dialer"`` or ``b"acceptor"``) proves that it knows the
    secret; both hellos, nonces included, are covered, so that a proof is worth nothing on another
    connection."""
    return hmac.digest(secret, b"|".join((b"raftcache-proof", role, dialer, acceptor)), "sha256")


def session_key(secret: bytes, role: bytes, dialer: bytes, acceptor: bytes) -> bytes:
    """The key that seals the frames sent by ``role``."""
    return hmac.digest(secret, b"|".join((b"raftcache-seal", role, dialer, acceptor)), "sha256")
