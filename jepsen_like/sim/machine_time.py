"""What must hold of a group's clock, whatever clients see: machine time, the highest stamp that is
committed, runs no faster than time does. Otherwise a key dies before its time to live has passed.

Of every entry a group tells when it was proposed, in true time (``SimNode.proposed_at``). An entry
that nobody has any more when one looks (a snapshot covers it) is a gap, over which nothing is
compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from jepsen_like.sim.cluster import SimNode
from jepsen_like.sim.scheduler import Scheduler
from raftcache.ops import decode_batch
from raftcache.raft.engine import COMMAND
from raftcache.replica import Replica

RATE: Final = 1.03
"""Clocks run up to 2 % fast or slow."""
SLACK_MS: Final = 2.0
"""They are read in milliseconds."""


class MachineTime:
    """That of one group, as far as its committed log has been seen."""

    def __init__(self, scheduler: Scheduler, group: int) -> None:
        self._scheduler = scheduler
        self._group = group
        self._index = 0
        self._time_ms = 0
        self._lowest = math.inf
        """The least that machine time was ever ahead of true time, in ms."""

    def look(self, replicas: Iterable[tuple[SimNode, Replica]]) -> None:
        """At what has been committed since."""
        running = list(replicas)
        entries: dict[int, tuple[bytes, int]] = {}
        for node, replica in running:
            journal, raft = node.journals[self._group], replica.raft
            commit = min(raft.engine.commit_index, journal.last_index)
            for index in range(max(self._index, journal.first_index) + 1, commit + 1):
                if index not in entries and (entry := journal.at(index)) is not None:
                    entries[index] = entry[0], entry[2]
        for index in sorted(entries):
            payload, term = entries[index]
            if index != self._index + 1:
                known = (replica.machine.time_ms for _, replica in running)
                self._time_ms, self._lowest = max(self._time_ms, *known), math.inf
            self._index = index
            if payload[:1] == COMMAND:
                self._time_ms = max(self._time_ms, decode_batch(payload[1:]).now_ms)
                place = (self._group, index, term)
                for node, _ in running:
                    if (at := node.proposed_at.get(place)) is not None:
                        self._compare(self._time_ms - at * 1000.0 * RATE)

    def _compare(self, ahead: float) -> None:
        if ahead > self._lowest + SLACK_MS:
            self._scheduler.violation(
                "machine time leapt",
                f"group {self._group} index {self._index}: by {ahead - self._lowest:.0f} ms more"
                " than time went on",
            )
            self._lowest = ahead
        self._lowest = min(self._lowest, ahead)
