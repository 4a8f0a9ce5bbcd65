"""What a load saw."""

from __future__ import annotations

from raftcache.bench.latencies import Latencies


class Report:
    """Answers within the time of a run, one latency each (of a pipeline: the whole's)."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.seconds = 0.0
        self.client_cpu_s = 0.0
        """CPU time that the load itself took."""
        self.errors = 0
        self.first_error = ""
        self.misses = 0
        """Reads that found nothing."""

    @property
    def per_second(self) -> float:
        """Answers a second."""
        return self.latencies.count / self.seconds if self.seconds else 0.0

    def summary(self) -> dict[str, float | int | str]:
        """For tables and JSON."""
        at = self.latencies.percentile_s
        return {
            "ops_per_s": round(self.per_second, 1),
            "operations": self.latencies.count,
            "seconds": round(self.seconds, 3),
            "p50_ms": round(at(50) * 1000, 3),
            "p99_ms": round(at(99) * 1000, 3),
            "p999_ms": round(at(99.9) * 1000, 3),
            "max_ms": round(self.latencies.largest_s * 1000, 3),
            "client_cpu_us_per_op": round(
                self.client_cpu_s * 1e6 / max(1, self.latencies.count), 3
            ),
            "misses": self.misses,
            "errors": self.errors,
            "first_error": self.first_error,
        }
