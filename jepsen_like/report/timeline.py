"""A picture of the operations around a violation: one self-contained HTML page, no script.

One row per process, time from left to right. Each bar is an operation from its start to its end (to
the right edge when its outcome is unknown). The number before a name is its place in the longest
order that explains what came before; the red one is what no order explains.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Final

from jepsen_like.checkers.history import Operation
from jepsen_like.checkers.linearizability import KeyReport, Report

WIDTH: Final = 1200
LEFT: Final = 90
ROW: Final = 26
AROUND: Final = 60
"""Operations shown: the last ones that started before the culprit ended."""

STYLE: Final = """
body { font: 14px system-ui, sans-serif; margin: 2em; max-width: 1250px; color: #1d2330 }
svg { background: #fafbfc; border: 1px solid #d6dae2; display: block; margin: 1em 0 }
text { font: 11px ui-monospace, monospace }
.explained { fill: #cfe3f7; stroke: #5b8fc4 }
.other { fill: #e8eaee; stroke: #9aa3b2 }
.unknown { fill: #fbeecb; stroke: #c9a13b; stroke-dasharray: 4 2 }
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
        f"{len(report.bad)} keys are not linearizable.</p>",
    ]
    parts.extend(_section(key) for key in report.bad)
    return "\n".join(parts) + "</html>\n"


def _section(report: KeyReport) -> str:
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
    first = min(x.start for x in operations)
    last = max(x.start if x.end is None else x.end for x in operations)
    scale = (WIDTH - LEFT - 20) / max(1, last - first)
    lanes = _lanes(operations)
    height = ROW * (1 + max(lane for lane, _ in lanes)) + 10
    culprit = -1 if report.culprit is None else report.culprit.index
    lines = [f"<svg width='{WIDTH}' height='{height}' role='img' aria-label='timeline'>"]
    for operation, (lane, label) in zip(operations, lanes, strict=True):
        x = LEFT + (operation.start - first) * scale
        end = last if operation.end is None else operation.end
        width = max(3.0, LEFT + (end - first) * scale - x)
        y = 5 + lane * ROW
        style = _style(operation, culprit, stuck, places)
        place = f"{places[operation.index]}. " if operation.index in places else ""
        answer = "?" if operation.ok is None else json.dumps(operation.result)
        arguments = ",".join(map(json.dumps, operation.args))
        name = html.escape(f"{place}{operation.op}({arguments})→{answer}")
        lines.append(
            f"<g><title>{html.escape(str(operation))}</title>"
            f"<rect class='{style}' x='{x:.1f}' y='{y}' width='{width:.1f}' height='{ROW - 6}'"
            f" rx='3'/><text x='{x + 3:.1f}' y='{y + 14}'>{name}</text></g>"
        )
        lines.append(f"<text x='4' y='{y + 14}'>{html.escape(label)}</text>")
    return "\n".join(lines) + "</svg>"


def _lanes(operations: Sequence[Operation]) -> list[tuple[int, str]]:
    """For each operation its row: processes one under the other; operations of one process that
    overlap (after one of unknown outcome) get rows of their own."""
    rows: list[tuple[int, float]] = []  # (process, end of the last operation)
    chosen: list[int] = []
    for operation in operations:
        end = float("inf") if operation.end is None else float(operation.end)
        for row, (process, busy_until) in enumerate(rows):
            if process == operation.process and busy_until <= operation.start:
                rows[row] = (process, end)
                chosen.append(row)
                break
        else:
            rows.append((operation.process, end))
            chosen.append(len(rows) - 1)
    order = sorted(range(len(rows)), key=lambda row: (rows[row][0], row))
    place = {row: lane for lane, row in enumerate(order)}
    return [(place[row], f"process {rows[row][0]}") for row in chosen]


def _style(operation: Operation, culprit: int, stuck: set[int], places: dict[int, int]) -> str:
    if operation.index == culprit:
        return "culprit"
    style = "explained" if operation.index in places else "other"
    if operation.ok is None:
        style = "unknown"
    return f"{style} stuck" if operation.index in stuck else style
