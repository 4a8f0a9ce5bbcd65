"""What the groups on one node have in common, so that what they send goes together.

Requests come in for many groups in one turn of the event loop. Were each of these to ask whom it
likes best and when it likes to, most of their messages would be frames of their own, and each of
these wakes another process. So they ask the same nodes first, and start rounds of reads together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from raftcache.lull import Lull
from raftcache.raft.quickest import Quickest
from raftcache.runtime import Runtime

MAX_ROUNDS_IN_FLIGHT: Final = 2
"""Of one group."""
ROUND_APART_S: Final = 0.001
"""While a round is younger than this, what comes waits for its end: where answers take less, fewer
and fuller rounds are quicker. Measured on loopback with 50 clients: 9 % less CPU per read."""


class Pace:
    """One node's."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._readers: dict[tuple[str, ...], Quickest] = {}
        self._followers: dict[tuple[str, ...], Quickest] = {}
        self.rounds = Rounds(runtime)
        """Of leaders that ask whether they still lead."""
        self.questions = Rounds(runtime)
        """Of followers that ask how far their state must be."""

    def to_read(self, nodes: Sequence[str]) -> Quickest:
        """Whom of ``nodes`` to ask first whether this node leads."""
        return self._of(self._readers, nodes)

    def to_append(self, nodes: Sequence[str]) -> Quickest:
        """Whom of ``nodes`` to send entries first."""
        return self._of(self._followers, nodes)

    def _of(self, lists: dict[tuple[str, ...], Quickest], nodes: Sequence[str]) -> Quickest:
        key = tuple(sorted(nodes))
        if key not in lists:
            lists[key] = Quickest(nodes, self._runtime.now)
        return lists[key]


class Rounds:
    """Rounds of one kind: of all groups together, unless one of them takes long, and with a rest
    after those that have ended."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._number = 0
        self._started = -1e18
        self._left = 0
        """Of those that started together last: how many have not ended."""
        self._open = False
        """Whether more may join them: in the same turn."""
        self._waiting: dict[Callable[[], None], None] = {}
        self._timed = False
        self._lull = Lull(runtime, self._wake)

    def may_start(self, under_way: int, last: float, wake: Callable[[], None]) -> bool:
        """Whether a group may start a round now that has so many under way, the last one started at
        ``last``. If it is for what groups have in common that it may not, ``wake`` is called when
        it may."""
        if under_way:
            apart = self._runtime.now() - last >= ROUND_APART_S
            if not apart or under_way >= MAX_ROUNDS_IN_FLIGHT:
                return False
        if self._open:
            return True
        if not self._lull.active:
            left = self._started + ROUND_APART_S - self._runtime.now()
            if self._left == 0 or left <= 0:
                return True
            self._limit(left)
        self._waiting[wake] = None
        return False

    def _limit(self, seconds: float) -> None:
        """Wait no longer than that for rounds to end."""
        if not self._timed:
            self._timed = True
            number = self._number
            self._runtime.call_later(seconds, lambda: self._on_time(number))

    def start(self) -> int:
        """A round starts. What names those that start with it, for ``end``."""
        if not self._open:
            self._open = True
            self._number += 1
            self._left = 0
            self._started = self._runtime.now()
            self._runtime.call_soon(self._close)
        self._left += 1
        return self._number

    def _close(self) -> None:
        self._open = False

    def end(self, number: int) -> None:
        """A round of these has ended."""
        if number == self._number and self._left > 0:
            self._left -= 1
            if self._left == 0:
                self._lull.begin()

    def _on_time(self, number: int) -> None:
        self._timed = False
        if number == self._number:
            # Timers may be early, by less than what clocks of event loops tell apart.
            self._left = 0
            self._wake()
        elif self._waiting:
            self._limit(ROUND_APART_S)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()
