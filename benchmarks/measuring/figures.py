"""Runs that were repeated, as medians with their spread, and tables of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Run = Mapping[str, Any]
"""Of one load, once: ``raftcache.bench.report.Report.summary`` or a part of it."""

MEDIANS = (
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "server_cpu_us_per_op",
    "client_cpu_us_per_op",
    "other_cpu",
)
SUMS = ("errors", "misses")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def figures(runs: Sequence[Run]) -> dict[str, Any]:
    """What repeated runs say together: throughput with its spread, medians of the rest, sums of
    what went wrong. What some generator does not tell is ``None``."""
    found: dict[str, Any] = {"ops_per_s": spread([run["ops_per_s"] for run in runs])}
    for name in MEDIANS:
        values = [run[name] for run in runs if run.get(name) is not None]
        found[name] = round(statistics.median(values), 3) if values else None
    for name in SUMS:
        found[name] = sum(run.get(name, 0) for run in runs)
    found["first_error"] = next((run["first_error"] for run in runs if run.get("first_error")), "")
    found["runs"] = [dict(run) for run in runs]
    return found


def number(value: float | None, digits: int = 0) -> str:
    """For a table; a dash for what is not known."""
    return "-" if value is None else f"{value:,.{digits}f}"


def rate(value: float) -> str:
    """Operations a second, to three digits, more of which would be noise."""
    if value <= 0:
        return "0"
    unit = 10 ** max(0, len(str(int(value))) - 3)
    return f"{round(value / unit) * unit:,.0f}"


Row = Sequence[str]


def text_table(heads: Row, rows: Sequence[Row], left: int = 1) -> str:
    """Columns as wide as they need; the first ``left`` of them to the left."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = []
    for row in [heads, *rows]:
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(heads: Row, rows: Sequence[Row], left: int = 1) -> str:
    """The same in Markdown."""
    rule = ["---" if place < left else "---:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(row)} |" for row in [heads, rule, *rows])
