"""Somebody who recorded an old connection and plays it to the listener again.

The handshake must refuse it: its proof answers another nonce than the one it is given now. Were it
accepted, the node would begin to send frames after its hello and proof.
"""

from __future__ import annotations

import asyncio
from typing import Final

from jepsen_like.sim.network import Record
from jepsen_like.sim.stage import Stage
from raftcache.raft.wire import LENGTH_BYTES

HANDSHAKE_FRAMES: Final = 2
"""What a listener says to anybody who sends a hello: its own hello, and its proof."""
PATIENCE_S: Final = 30.0


class Intruder(asyncio.Protocol):
    """One attempt, from a machine of its own."""

    def __init__(self, stage: Stage, record: Record) -> None:
        self._stage = stage
        self._record = record
        self._process = stage.scheduler.process("intruder")
        self._received = bytearray()

    def start(self) -> None:
        self._stage.say(f"{self._record.target} is sent {len(self._record.data)} old bytes again")
        self._stage.cluster.network.attach(self._process)
        self._process.call_soon(lambda: self._process.loop.create_task(self._connect()))
        # Whatever becomes of it, it is gone in the end.
        self._stage.scheduler.call_later(PATIENCE_S, self._process.crash, True)

    async def _connect(self) -> None:
        host, port = self._record.target
        try:
            await self._stage.cluster.network.connect(self._process, host, port, lambda: self)
        except OSError:
            self._process.crash()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(bytes(self._record.data))

    def data_received(self, data: bytes) -> None:
        self._received += data
        frames = at = 0
        while at + LENGTH_BYTES <= len(self._received):
            length = self._received[at : at + LENGTH_BYTES]
            at += LENGTH_BYTES + int.from_bytes(length, "little")
            frames += at <= len(self._received)
        if frames > HANDSHAKE_FRAMES:
            self._stage.scheduler.violation(
                "a replayed connection was accepted", f"by {self._record.target}"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._stage.cluster.counts["replays refused"] += 1
