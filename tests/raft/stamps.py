"""A group in which every proposal is the proposer's reading of the group's clock.

So the committed log tells machine time, and the test knows when each entry was made.
"""

from __future__ import annotations

from typing import Any

from .harness import Cluster, ListMachine, Member

DRIFT = 0.05
TICK_MS = 1
"""Readings are whole milliseconds."""


def stamp_of(payload: bytes) -> int:
    """A proposal is its number, which tells it from others, and its stamp."""
    return int(payload.split(b"@")[1])


class Stamped(ListMachine):
    """Its time is the highest stamp applied."""

    def time_ms(self) -> int:
        return max(map(stamp_of, self.state), default=0)

    def apply(self, index: int, payload: memoryview, hint: Any) -> tuple[int, Any]:
        result = super().apply(index, payload, hint)
        self.clock.reach(self.time_ms())
        return result

    def install(self, prepared: tuple[int, list[bytes]]) -> None:
        super().install(prepared)
        self.clock.restart(self.time_ms())


class Watch:
    """Proposes stamps, and compares what they say with the time that has passed."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.made_at: dict[bytes, float] = {}

    def stamp(self, member: Member) -> None:
        payload = b"%d@%d" % (len(self.made_at), member.clock.now_ms())
        self.made_at[payload] = self.cluster.now
        member.propose(payload)

    def seen_by(self, member: Member) -> bool:
        """Whether it has applied all stamps."""
        return len(member.state) == len(self.made_at)

    def leaps_ms(self) -> float:
        """By how much more machine time ever advanced than time did, drift allowed for."""
        member = self.cluster.leader
        assert member is not None
        worst, time_ms, lowest = 0.0, 0, float("inf")
        for payload in member.state:
            time_ms = max(time_ms, stamp_of(payload))
            ahead = time_ms - self.made_at[payload] * 1000 * (1 + DRIFT)
            worst, lowest = max(worst, ahead - lowest), min(lowest, ahead)
        return worst


def stamped(**options: Any) -> tuple[Cluster, Watch]:
    cluster = Cluster(machine_type=Stamped, **options)
    return cluster, Watch(cluster)
