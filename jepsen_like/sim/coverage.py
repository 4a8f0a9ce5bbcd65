"""What a run has been through. Faults that never bite prove nothing, so every run counts what
happened, and the summary of many shows it."""

from __future__ import annotations

from collections import Counter
from typing import Final

COUNTERS: Final = (
    "elections",
    "transfers",
    "snapshots installed",
    "snapshots disturbed",
    "recoveries without disk",
    "disks wiped",
    "corruptions refused",
    "torn tails cut",
    "partitions",
    "resets",
    "late pieces of old connections",
    "replays refused",
    "duplicates",
    "evictions",
    "reads at followers",
    "unknown outcomes",
    "retries after an unknown outcome",
    "operations",
    "succeeded",
)
"""In the order in which they are shown; beside them there is ``fault FAMILY`` for each family."""


def summary(runs: list[Counter[str]]) -> list[str]:
    """Totals over all runs, and in how many of them each counter moved."""
    total: Counter[str] = Counter()
    reached: Counter[str] = Counter()
    for counts in runs:
        total.update(counts)
        reached.update(name for name, value in counts.items() if value)
    if not runs:
        return []
    share = 100.0 * total["succeeded"] / max(1, total["operations"])
    names = [*COUNTERS, *sorted(name for name in total if name.startswith("fault "))]
    lines = [f"  {name:<34} {total[name]:>9} in {reached[name]} runs" for name in names]
    return [*lines, f"  {'operations that succeeded':<34} {share:>8.1f} %"]
