"""A group's clock: one for all replicas, kept by the leader, handed on with leadership.

The leader stamps what it proposes with its reading, and every append carries one. Machine time is
the highest stamp applied. What must hold is that **machine time runs no faster than time does**,
whoever leads: otherwise a key that one leader gave 300 ms to live is dead 5 ms later under the
next. Running slower is harmless (keys live longer), and is kept small.

So a replica must never be ahead of what the last entry of its log was stamped with, plus the time
since. Hence:

- a follower takes the leader's reading together with entries or heartbeats, and only when
  its log is then a beginning of the leader's (``heard``). A reading that arrives late sets it back:
  that loses time, but a follower that kept its own reading would jump when it leads, after a
  leader that was slow;
- of the readings of one term, which come from one clock that is never set back, the one that took
  the least time on its way counts, less what this node's clock may have gained since;
- what has been applied was stamped in the past (``reach``): forward only, and only until the leader
  is heard again. After a restart a follower may have applied the end of the log before its leader
  has; kept, its lead would be that of the next leader, over entries stamped by this one;
- a snapshot replaces the log, and with it everything known (``restart``).

Time is milliseconds since the group began. It does not go on while no replica runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_READING_MS: Final = 2**62
"""A leader that says more is not believed: stamps must fit 64 bits."""
_NO_TERM: Final = -1


class GroupClock:
    """One replica's reading of it. ``now()`` is the node's monotonic clock in seconds;
    ``max_drift``: how much faster, relatively, it may run than another node's."""

    def __init__(self, now: Callable[[], float], max_drift: float) -> None:
        self._now = now
        self._kept_per_s = 1000.0 * (1.0 - max_drift)
        self._base_ms, self._at = 0.0, now()
        self._term = _NO_TERM
        self._heard_ms, self._heard_at = self._base_ms, self._at
        """What the leader of that term has been heard to read, and when."""

    def now_ms(self) -> int:
        """The time of the group."""
        return int(self._base_ms + (self._now() - self._at) * 1000.0)

    def heard(self, term: int, reading_ms: int) -> None:
        """``reading_ms``: what the leader of ``term`` read when its log was as long as this
        replica's now is, or longer."""
        now, reading = self._now(), float(min(reading_ms, MAX_READING_MS))
        if term == self._term:
            reading = max(reading, self._heard_ms + (now - self._heard_at) * self._kept_per_s)
        self._base_ms, self._at, self._term = reading, now, term
        self._heard_ms, self._heard_at = reading, now

    def reach(self, time_ms: int) -> None:
        """Machine time is ``time_ms``: the clock is not behind it."""
        if time_ms > self.now_ms():
            self._base_ms, self._at = float(time_ms), self._now()

    def restart(self, time_ms: int) -> None:
        """The state was replaced by another one, whose machine time is ``time_ms``."""
        self._base_ms, self._at, self._term = float(time_ms), self._now(), _NO_TERM
