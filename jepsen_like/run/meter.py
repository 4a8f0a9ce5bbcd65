"""What clients experienced, second by second: throughput, latency, failures."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from jepsen_like.run.system import Refused, StorageFull, Unknown

SLICE_S: Final = 0.1
SLOW_S: Final = 0.5
"""An answer that took longer does not show a cluster that has recovered."""
DISTURBED_S: Final = 1.0


@dataclass(slots=True)
class Second:
    """The operations that ended in one second. Latencies in seconds, of those that succeeded."""

    ok: int = 0
    refused: int = 0
    unknown: int = 0
    p50_s: float = math.nan
    p99_s: float = math.nan
    max_s: float = math.nan


@dataclass(slots=True)
class Slice:
    """The operations that began in a tenth of a second. ``last_bad_s``: when the latest of those
    ended that failed or were slow; 0: there is none."""

    ok: int = 0
    failed: int = 0
    last_bad_s: float = 0.0


@dataclass(slots=True)
class Meter:
    """Times are seconds since the run began."""

    seconds: list[Second] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    by_op: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """Why attempts failed, the start of each message."""
    full_attempts: int = 0
    """Attempts that were refused because disks were full."""
    full_by_op: Counter[str] = field(default_factory=Counter)
    """Operations that failed because their last attempt was."""
    _latencies: list[float] = field(default_factory=list)
    _second: int = 0

    def add(self, start_s: float, end_s: float, ok: bool | None, op: str) -> None:
        """One operation is over."""
        self._turn(int(end_s))
        current, latency_s = self._at(int(end_s)), end_s - start_s
        if ok is True:
            current.ok += 1
            self._latencies.append(latency_s)
        elif ok is False:
            current.refused += 1
        else:
            current.unknown += 1
        self.by_op[op] += 1
        begun = self._slice(int(start_s / SLICE_S))
        if ok is True:
            begun.ok += 1
        else:
            begun.failed += 1
        if ok is not True or latency_s > SLOW_S:
            begun.last_bad_s = max(begun.last_bad_s, end_s)

    def attempt_failed(self, why: Refused | Unknown) -> None:
        """An attempt was refused, or its outcome is unknown."""
        word = "refused" if isinstance(why, Refused) else "unknown"
        self.reasons[f"{word}: {str(why)[:70]}"] += 1
        self.full_attempts += isinstance(why, StorageFull)

    def _at(self, second: int) -> Second:
        while len(self.seconds) <= second:
            self.seconds.append(Second())
        return self.seconds[second]

    def _slice(self, place: int) -> Slice:
        while len(self.slices) <= place:
            self.slices.append(Slice())
        return self.slices[place]

    def _turn(self, second: int) -> None:
        """Sum the latencies up when a second is over."""
        if second == self._second:
            return
        self.flush()
        self._second = second

    def flush(self) -> None:
        """Sum up what there is."""
        found = sorted(self._latencies)
        self._latencies.clear()
        if found:
            at = self._at(self._second)
            at.p50_s, at.p99_s = found[len(found) // 2], found[len(found) * 99 // 100]
            at.max_s = found[-1]

    def availability(self, spans: list[tuple[float, float]]) -> tuple[int, int]:
        """How many operations began in the spans, and how many of these failed."""
        ok = failed = 0
        for start, end in spans:
            for place in range(int(start / SLICE_S), int(end / SLICE_S)):
                if place < len(self.slices):
                    ok += self.slices[place].ok
                    failed += self.slices[place].failed
        return ok + failed, failed

    def recovered_after(self, healed_s: float, until_s: float) -> float:
        """How long after ``healed_s`` the last of the operations ended that began since then (and
        before ``until_s``) and failed or were slow; 0 when all went well. An operation that was
        under way for less than ``DISTURBED_S`` at ``until_s``, when the next fault began, was
        disturbed by that one."""
        first, last = math.ceil(healed_s / SLICE_S), int(until_s / SLICE_S)
        undisturbed = last - int(DISTURBED_S / SLICE_S)
        ends = [
            x.last_bad_s
            for place, x in enumerate(self.slices[first:last], first)
            if x.last_bad_s and (place < undisturbed or x.last_bad_s <= until_s)
        ]
        return max(0.0, max(ends, default=healed_s) - healed_s)
