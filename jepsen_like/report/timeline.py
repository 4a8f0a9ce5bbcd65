"""A picture of the operations around a violation: one self-contained HTML page, no script.

Time runs from left to right. Each bar is an operation from its start to its end (to the right edge
when its outcome is unknown); a process has as many rows as its names need to be legible. The number
before a name is its place in the longest order that explains what came before; the red one is what
no order explains.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Final, NamedTuple

from jepsen_like.checkers.history import Operation
from jepsen_like.checkers.linearizability import KeyReport, Report

WIDTH: Final = 1200
LEFT: Final = 90
RIGHT: Final = 190
"""Room for the names of the last operations."""
ROW: Final = 24
CHARACTER: Final = 6.7
"""Width of one, in pixels: names must not lie on each other."""
AROUND: Final = 32
"""Operations shown: the last ones that started before the culprit ended."""

STYLE: Final = """
body { font: 14px system-ui, sans-serif; margin: 2em; max-width: 1250px; color: #1d2330 }
svg { background: #fafbfc; border: 1px solid #d6dae2; display: block; margin: 1em 0 }
text { font: 11px ui-monospace, monospace }
.explained { fill: #cfe3f7; stroke: #5b8fc4 }
.other { fill: #e8eaee; stroke: #9aa3b2 }
.unknown { fill: #fbeecb; stroke: #c9a13b; stroke-dasharray: 4 2 }
.axis { fill: #6b7385 }
.culprit { fill: #f8c8c4; stroke: #c0392b; stroke-width: 2 }
.stuck { stroke: #c0392b; stroke-width: 2 }
code { background: #f0f2f5; padding: 0 .3em }
li { margin: .2em 0 }
"""


def page(report: Report, title: str = "history") -> str:
    """The whole page: the verdict, and a picture for each key that is not linearizable."""
    verdict = report.verdict.name.lower()
    total = sum(key.operations for key in report.keys)
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>{html.escape(title)}: {verdict}</title><style>{STYLE}</style>",
        f"<h1>{html.escape(title)}: {verdict}</h1>",
        f"<p>{total} operations on {len(report.keys)} keys; "
        f"not linearizable: {', '.join(html.escape(x.key) for x in report.bad) or 'none'}.</p>",
    ]
    parts.extend(section(key) for key in report.bad)
    return "\n".join(parts) + "</html>\n"


def section(report: KeyReport) -> str:
    """The picture of one key, and in words what does not fit."""
    operations = _around(report)
    value = json.dumps(report.state.value)
    lines = [f"<h2>Key <code>{html.escape(report.key)}</code></h2>"]
    if report.culprit is not None:
        lines.append(f"<p>No order explains <code>{html.escape(str(report.culprit))}</code>.</p>")
    lines.append(_picture(report, operations))
    lines.append(
        f"<p>The best attempt ends with the value <code>{html.escape(value)}</code>; none of these "
        "can come next:</p><ul>"
    )
    lines.extend(f"<li><code>{html.escape(str(x))}</code></li>" for x in report.stuck)
    return "\n".join(lines) + "</ul>"


def _around(report: KeyReport) -> list[Operation]:
    """The operations of the key worth showing, by start."""
    shown = {x.index: x for x in (*report.prefix, *report.stuck) if x.op != "expire"}
    if report.culprit is not None:
        shown[report.culprit.index] = report.culprit
    end = report.culprit.end if report.culprit is not None else None
    operations = sorted(shown.values(), key=lambda x: (x.start, x.index))
    if end is not None:
        operations = [x for x in operations if x.start <= end]
    return operations[-AROUND:]


def _picture(report: KeyReport, operations: Sequence[Operation]) -> str:
    if not operations:
        return ""
    places = {x.index: place for place, x in enumerate(report.prefix, 1)}
    stuck = {x.index for x in report.stuck}
    culprit = -1 if report.culprit is None else report.culprit.index
    first = min(x.start for x in operations)
    last = max(x.start if x.end is None else x.end for x in operations)
    scale = (WIDTH - LEFT - RIGHT) / max(1, last - first)
    bars = [_bar(x, places, LEFT + (x.start - first) * scale, scale, last) for x in operations]
    rows = _rows(bars)
    labels = {row: f"process {bar.operation.process}" for bar, row in zip(bars, rows, strict=True)}
    height = ROW * (1 + max(rows)) + 30
    lines = [f"<svg width='{WIDTH}' height='{height}' role='img' aria-label='timeline'>"]
    shown = ""
    for row, label in sorted(labels.items()):
        if label != shown:
            lines.append(
                f"<text class='axis' x='4' y='{row * ROW + 19}'>{html.escape(label)}</text>"
            )
        shown = label
    for bar, row in zip(bars, rows, strict=True):
        style, y = _style(bar.operation, culprit, stuck, places), 5 + row * ROW
        lines.append(
            f"<g><title>{html.escape(str(bar.operation))}</title>"
            f"<rect class='{style}' x='{bar.x:.1f}' y='{y}' width='{bar.width:.1f}'"
            f" height='{ROW - 5}' rx='3'/>"
            f"<text x='{bar.x + 3:.1f}' y='{y + 14}'>{html.escape(bar.name)}</text></g>"
        )
    for at, x, anchor in ((first, LEFT, "start"), (last, WIDTH - RIGHT, "end")):
        lines.append(
            f"<text class='axis' x='{x}' y='{height - 8}' text-anchor='{anchor}'>"
            f"{at / 1e9:.6f} s</text>"
        )
    return "\n".join(lines) + "</svg>"


class _Bar(NamedTuple):
    """An operation where it is drawn; ``reach``: where its bar and its name have ended."""

    operation: Operation
    name: str
    x: float
    width: float
    reach: float


def _bar(operation: Operation, places: dict[int, int], x: float, scale: float, last: int) -> _Bar:
    end = last if operation.end is None else operation.end
    width = max(3.0, (end - operation.start) * scale)
    place = f"{places[operation.index]}. " if operation.index in places else ""
    answer = "?" if operation.ok is None else json.dumps(operation.result)
    arguments = ",".join(map(json.dumps, operation.args))
    name = f"{place}{operation.op}({arguments})→{answer}"
    return _Bar(operation, name, x, width, max(x + width, x + 3 + len(name) * CHARACTER) + 4)


def _rows(bars: Sequence[_Bar]) -> list[int]:
    """For each bar its row: processes one under the other, each with as many as it needs."""
    rows: list[tuple[int, float]] = []  # (process, where the last one ends)
    chosen: list[int] = []
    for bar in bars:
        process = bar.operation.process
        for row, (owner, busy_until) in enumerate(rows):
            if owner == process and busy_until <= bar.x:
                rows[row] = (process, bar.reach)
                chosen.append(row)
                break
        else:
            rows.append((process, bar.reach))
            chosen.append(len(rows) - 1)
    order = sorted(range(len(rows)), key=lambda row: (rows[row][0], row))
    place = {row: at for at, row in enumerate(order)}
    return [place[row] for row in chosen]


def _style(operation: Operation, culprit: int, stuck: set[int], places: dict[int, int]) -> str:
    if operation.index == culprit:
        return "culprit"
    style = "explained" if operation.index in places else "other"
    if operation.ok is None:
        style = "unknown"
    return f"{style} stuck" if operation.index in stuck else style
