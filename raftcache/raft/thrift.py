"""Which followers get new entries at once, and which get them a little later, several at a time.

An entry is committed once a majority has it. So the leader sends it to as many followers as that
takes, those that answered first when all were sent one last, and lets the others wait for up to
``PUT_OFF_S``: they then get all that there is as one message, and answer with one ("thrifty", as in
Moraru et al., EPaxos, SOSP 2013, section 6.2). That also bounds what a slow one of the first costs:
the others have the entry by then, and go before it from then on.

Only the time changes at which something is sent. What Raft says of it holds as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftcache.raft.quickest import Quickest
from raftcache.runtime import Runtime

PUT_OFF_S: Final = 0.005
"""Counted from the full multiple of it, so that all groups of a node share frames."""
LARGE_BYTES: Final = 64 * 1024
"""Larger entries wait for nothing: what they cost is not the message."""


class Thrift:
    """One group's choice on its leader. ``able(node)``: whether its answer would count;
    ``send_rest(node)``: send what was put off."""

    def __init__(
        self,
        quickest: Quickest,
        majority: int,
        runtime: Runtime,
        able: Callable[[str], bool],
        send_rest: Callable[[str], None],
    ) -> None:
        self._needed = majority - 1
        self._quickest = quickest
        self._runtime = runtime
        self._able = able
        self._send_rest = send_rest
        self._waiting: dict[str, int] = {}
        """Who waits, and the first entry that it waits for."""
        self._acked: dict[str, int] = {}
        self._race = 0
        """The entry that all were sent and nobody has answered yet."""
        self._timed = False

    def waits(self, node: str) -> bool:
        """Whether something was put off for it."""
        return node in self._waiting

    def may_wait(self, node: str, index: int, size: int) -> bool:
        """Whether entries up to ``index``, of so many bytes, may be sent to ``node`` later; then it
        waits."""
        if size > LARGE_BYTES or self._needed >= len(self._quickest):
            return False
        if self._quickest.race():
            self._race = index
        if index == self._race or node in self._first():
            return False
        if node not in self._waiting:
            self._waiting[node] = index
            if not self._timed:
                self._timed = True
                self._runtime.call_later(PUT_OFF_S - self._runtime.now() % PUT_OFF_S, self._on_time)
        return True

    def _first(self) -> Sequence[str]:
        """Those whose answers are waited for; all, when they are too few."""
        return self._quickest.first(self._needed, self._able)

    def _on_time(self) -> None:
        self._timed = False
        if self._waiting:
            wanted = min(self._waiting.values())
            slow = {node for node in self._first() if self._acked.get(node, 0) < wanted}
            self._quickest.slow(slow)
        self.flush()

    def flush(self) -> None:
        """Nobody waits any longer."""
        for node in list(self._waiting):
            self._send_rest(node)

    def forget(self, node: str) -> None:
        """What was put off is sent, or will never be."""
        self._waiting.pop(node, None)

    def on_ack(self, node: str, index: int) -> None:
        """``node`` has the log up to ``index``."""
        self._acked[node] = index
        if 0 < self._race <= index:
            self._race = 0
            self._quickest.won(node)
