"""The curves of a run as PNG files, where matplotlib is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from jepsen_like.report.charts import lanes
from jepsen_like.run.page import spans_of
from jepsen_like.run.runner import Outcome

COLOURS: Final = {
    "network": "#4f86c6",
    "process": "#d1653e",
    "leader": "#8a63b8",
    "other": "#7b8f3a",
    "minority": "#4a4a4a",
}
NAME_S: Final = 0.028
"""Part of the width that a lane's name needs at least."""


def write(directory: Path, facts: dict[str, Any], outcome: Outcome) -> list[Path]:
    """``throughput.png`` and ``latency.png``; none when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    seconds = outcome.meter.seconds
    at = [place + 0.5 for place in range(len(seconds))]
    title = f"{facts['system']}, {facts['nodes']} nodes, seed {facts['seed']}: {facts['verdict']}"
    paths = []
    for name in ("throughput", "latency"):
        figure = Figure(figsize=(12, 5), dpi=110, layout="constrained")
        top, axes = figure.subplots(2, 1, sharex=True, height_ratios=(1, 3))
        _faults(top, axes, outcome, float(len(seconds)))
        top.set_title(title, loc="left", fontsize=10)
        if name == "throughput":
            failed = [x.refused + x.unknown for x in seconds]
            axes.bar(at, failed, width=1.0, color="#c0392b", label="failed or unknown")
            axes.plot(at, [x.ok for x in seconds], color="#23705a", lw=1.2, label="succeeded")
            axes.set_ylabel("operations per second")
            axes.set_ylim(bottom=0)
        else:
            curves = (("max_s", "#b9bfca"), ("p99_s", "#c07a10"), ("p50_s", "#23705a"))
            for field, colour in curves:
                values = [getattr(x, field) * 1000 for x in seconds]
                axes.plot(at, values, color=colour, lw=1.2, label=field.removesuffix("_s"))
            axes.set_yscale("log")
            axes.set_ylabel("latency, ms")
        axes.set_xlabel("seconds")
        axes.set_xlim(0, max(1, len(seconds)))
        axes.legend(loc="upper right", fontsize=8)
        axes.grid(alpha=0.25)
        path = directory / f"{name}.png"
        figure.savefig(path)
        paths.append(path)
    return paths


def _faults(top: Any, axes: Any, outcome: Outcome, length: float) -> None:
    """Lanes with names above, a veil over the curves."""
    rows = lanes(spans_of(outcome))
    for row, lane in enumerate(rows):
        for span in lane:
            width = max(span.end_s - span.start_s, length / 1000)
            colour = COLOURS[span.kind]
            top.broken_barh([(span.start_s, width)], (-row - 0.9, 0.8), color=colour)
            axes.axvspan(span.start_s, span.start_s + width, color=colour, alpha=0.10, lw=0)
            if width > length * NAME_S * len(span.name) / 5:
                place = (span.start_s + width / 2, -row - 0.5)
                top.annotate(
                    span.name, place, ha="center", va="center", fontsize=6.5, color="white"
                )
    top.set_ylim(-max(1, len(rows)), 0)
    top.set_yticks([])
    for side in ("top", "right", "left"):
        top.spines[side].set_visible(False)
