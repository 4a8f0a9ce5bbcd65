"""Curves over the time of a run, with what was wrong meanwhile, as SVG: no script, no library."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

WIDTH: Final = 1200
LEFT: Final = 76
RIGHT: Final = 16
TOP: Final = 8
BOTTOM: Final = 26
LANE: Final = 15
CHARACTER: Final = 6.2
"""Width of one of a lane's letters."""

STYLE: Final = """
svg.chart { background: #fff; border: 1px solid #d6dae2; display: block; margin: .6em 0 }
svg.chart text { font: 11px system-ui, sans-serif; fill: #414a5a }
.grid { stroke: #e6e9ef } .line { fill: none; stroke-width: 1.4 } .bars { stroke: none }
.network { fill: #4f86c6 } .process { fill: #d1653e } .leader { fill: #8a63b8 }
.other { fill: #7b8f3a } .minority { fill: #4a4a4a }
.veil { opacity: .10 } svg.chart .lane { fill: #fff; font-size: 10px }
.c0 { stroke: #23705a; background: #23705a } .c1 { stroke: #c07a10; background: #c07a10 }
.c2 { stroke: #b9bfca; background: #b9bfca } .bad { fill: #c0392b; background: #c0392b }
.key i { display: inline-block; width: 1.1em; height: .7em; margin: 0 .35em 0 1em }
"""


@dataclass(frozen=True, slots=True)
class Span:
    """Something that lasted: seconds, ``kind`` for the colour (``network``, ``process``,
    ``leader``, ``other``, ``minority``), a short name, and the whole story."""

    start_s: float
    end_s: float
    kind: str
    name: str
    title: str


@dataclass(frozen=True, slots=True)
class Curve:
    """One value for each second (NaN: none), drawn as a line, or as bars from the floor."""

    style: str
    values: Sequence[float]
    bars: bool = False


def lanes(spans: Sequence[Span]) -> list[list[Span]]:
    """Spans that do not overlap share a lane."""
    found: list[list[Span]] = []
    for span in sorted(spans, key=lambda x: x.start_s):
        for lane in found:
            if lane[-1].end_s <= span.start_s:
                lane.append(span)
                break
        else:
            found.append([span])
    return found


def ticks(top: float) -> list[float]:
    """Round numbers from 0 to ``top``, five to ten."""
    if top <= 0:
        return [0.0]
    step = 10.0 ** math.floor(math.log10(top / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if step * factor * 10 >= top)
    return [step * i for i in range(int(top / step) + 1)]


def chart(
    label: str,
    curves: Sequence[Curve],
    spans: Sequence[Span],
    seconds: float,
    *,
    height: int = 190,
    logarithmic: bool = False,
    unit: str = "",
) -> str:
    """One picture: lanes of spans on top, the curves below, with a veil where something was
    wrong. ``logarithmic`` needs values above 0."""
    rows = lanes(spans)
    roof = TOP + len(rows) * LANE + (6 if rows else 0)
    floor = roof + height
    scale = (WIDTH - LEFT - RIGHT) / max(seconds, 1e-9)
    values = [value for curve in curves for value in curve.values if not math.isnan(value)]
    to_y, marks = _axis(values, roof, floor, logarithmic)

    def to_x(second: float) -> float:
        return LEFT + second * scale

    name = html.escape(label)
    lines = [
        f"<svg class='chart' viewBox='0 0 {WIDTH} {floor + BOTTOM}' role='img' aria-label='{name}'>"
    ]
    lines += [_veil(span, to_x, roof, floor) for span in spans]
    lines += _marks(marks, to_y, unit)
    lines += _seconds(seconds, to_x, floor)
    lines += [_curve(curve, to_x, to_y, floor) for curve in curves]
    for row, lane in enumerate(rows):
        lines += [_bar(span, to_x, TOP + row * LANE) for span in lane]
    lines.append(f"<text x='{LEFT + 6}' y='{roof + 12}'>{name}</text>")
    return "\n".join(lines) + "</svg>"


def _axis(
    values: Sequence[float], roof: int, floor: int, logarithmic: bool
) -> tuple[Callable[[float], float], list[float]]:
    if not logarithmic:
        top = max(values, default=1.0) * 1.05 or 1.0
        return lambda value: floor - value / top * (floor - roof), ticks(top)
    positive = [value for value in values if value > 0]
    low = math.floor(math.log10(min(positive, default=1.0)))
    high = max(low + 1, math.ceil(math.log10(max(positive, default=10.0))))

    def to_y(value: float) -> float:
        place = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return floor - place * (floor - roof)

    return to_y, [10.0**power for power in range(low, high + 1)]


def _marks(marks: Sequence[float], to_y: Callable[[float], float], unit: str) -> list[str]:
    lines = []
    for mark in marks:
        y = to_y(mark)
        lines.append(
            f"<line class='grid' x1='{LEFT}' x2='{WIDTH - RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>"
            f"<text x='{LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{mark:,.6g}{unit}</text>"
        )
    return lines


def _seconds(seconds: float, to_x: Callable[[float], float], floor: int) -> list[str]:
    return [
        f"<text x='{to_x(second):.1f}' y='{floor + 16}' text-anchor='middle'>{second:g} s</text>"
        for second in ticks(seconds)
    ]


def _curve(
    curve: Curve, to_x: Callable[[float], float], to_y: Callable[[float], float], floor: int
) -> str:
    places = [(second, value) for second, value in enumerate(curve.values)]
    if curve.bars:
        return "".join(
            f"<rect class='bars {curve.style}' x='{to_x(second):.1f}' y='{to_y(value):.1f}'"
            f" width='{max(1.0, to_x(1) - to_x(0)):.1f}' height='{floor - to_y(value):.1f}'/>"
            for second, value in places
            if value > 0
        )
    runs: list[list[str]] = [[]]
    for second, value in places:
        if math.isnan(value):
            runs.append([])
        else:
            runs[-1].append(f"{to_x(second + 0.5):.1f},{to_y(value):.1f}")
    return "".join(
        f"<polyline class='line {curve.style}' points='{' '.join(run)}'/>" for run in runs if run
    )


def _veil(span: Span, to_x: Callable[[float], float], roof: int, floor: int) -> str:
    x, width = to_x(span.start_s), (span.end_s - span.start_s) * (to_x(1) - to_x(0))
    return (
        f"<rect class='veil {span.kind}' x='{x:.1f}' y='{roof}' width='{max(1.0, width):.1f}'"
        f" height='{floor - roof}'/>"
    )


def _bar(span: Span, to_x: Callable[[float], float], y: int) -> str:
    x = to_x(span.start_s)
    width = max(2.0, (span.end_s - span.start_s) * (to_x(1) - to_x(0)))
    fitting = int((width - 4) / CHARACTER)
    name = span.name if len(span.name) <= fitting else ""
    return (
        f"<g><title>{html.escape(span.title)}</title>"
        f"<rect class='{span.kind}' x='{x:.1f}' y='{y}' width='{width:.1f}' height='{LANE - 2}'"
        f" rx='2'/><text class='lane' x='{x + 3:.1f}' y='{y + 10}'>{html.escape(name)}</text></g>"
    )
