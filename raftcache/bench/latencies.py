"""Latencies in buckets two percent wide: any number of them in constant memory."""

from __future__ import annotations

import math
from typing import Final

_WIDTH: Final = math.log(1.02)
_SMALLEST_S: Final = 1e-6
_BUCKETS: Final = int(math.log(1000.0 / _SMALLEST_S) / _WIDTH) + 2


class Latencies:
    """``add`` is for the hot path."""

    def __init__(self) -> None:
        self.counts = [0] * _BUCKETS
        self.count = 0
        self.largest_s = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """``times`` answers took ``seconds`` each."""
        at = int(math.log(max(seconds, _SMALLEST_S) / _SMALLEST_S) / _WIDTH)
        self.counts[min(at, _BUCKETS - 1)] += times
        self.count += times
        if seconds > self.largest_s:
            self.largest_s = seconds

    def percentile_s(self, percent: float) -> float:
        """The latency that ``percent`` of the answers do not exceed, within two percent; NaN
        without answers."""
        left = self.count * percent / 100.0
        for at, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return min(self.largest_s, _SMALLEST_S * math.exp((at + 1) * _WIDTH))
        return math.nan if not self.count else self.largest_s
