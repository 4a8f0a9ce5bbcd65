"""``report.html``: one page that needs nothing but itself."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any, Final

from jepsen_like.report import timeline
from jepsen_like.report.charts import STYLE, Curve, Span, chart
from jepsen_like.run.runner import Outcome

KINDS: Final = {
    "partition": "network",
    "reset": "network",
    "orphan": "network",
    "delay": "network",
    "loss": "network",
    "duplicate": "network",
    "reorder": "network",
    "rate": "network",
    "kill": "process",
    "pause": "process",
    "wipe": "process",
    "rolling": "process",
    "transfer": "leader",
}
"""Colours, by the part of a family's name before the dash."""
WORDS: Final = {"valid": "valid", "invalid": "violation", "undecided": "could not be judged"}
PICTURES: Final = 8
"""Keys that are drawn; all are in ``verdict.json``."""
OWN_STYLE: Final = """
.verdict { display: inline-block; padding: .2em .7em; border-radius: .3em; color: #fff }
.verdict.valid { background: #23705a } .verdict.invalid { background: #c0392b }
.verdict.undecided { background: #b07a10 }
table { border-collapse: collapse; margin: .6em 0 } td, th { padding: .2em .8em; text-align: right }
th { color: #5b6473; font-weight: 600; border-bottom: 1px solid #d6dae2 }
td:first-child, th:first-child { text-align: left } tr:nth-child(even) td { background: #f6f7f9 }
.violation { border-left: 4px solid #c0392b; padding-left: .8em }
"""


def kind_of(family: str) -> str:
    """The colour of a family."""
    return KINDS.get(family.split("-", 1)[0], "other")


def spans_of(outcome: Outcome) -> list[Span]:
    """The faults of a run, and when some part had no majority."""
    found = [
        Span(
            band.start_s,
            band.start_s if band.end_s is None else band.end_s,
            kind_of(band.family),
            band.family,
            f"{band.family}: {band.what}, from {band.start_s:.2f} s",
        )
        for band in outcome.bands
    ]
    return found + [
        Span(start, end, "minority", "no majority", f"no majority, from {start:.2f} s")
        for start, end in outcome.minority_s
    ]


def page(facts: dict[str, Any], outcome: Outcome) -> str:
    """The whole page."""
    verdict = facts["verdict"]
    title = f"{facts['system']}, {facts['nodes']} nodes, seed {facts['seed']}"
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        f"<title>{html.escape(title)}: {WORDS[verdict]}</title>",
        f"<style>{timeline.STYLE}{STYLE}{OWN_STYLE}</style>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p><b class='verdict {verdict}'>{WORDS[verdict]}</b> {_sentence(facts)}</p>",
    ]
    parts += _violations(facts, outcome)
    parts += _curves(outcome)
    parts += _tables(facts)
    parts.append(f"<h2>How it was run</h2>{_definitions(facts)}")
    return "\n".join(parts) + "</html>\n"


def _sentence(facts: dict[str, Any]) -> str:
    latency = facts["latency_ms"]
    return (
        f"{facts['operations']:,} operations in {facts['load_s']:.0f} s"
        f" ({facts['operations_per_s']:,.0f} a second) on {facts['keys_judged']:,} keys;"
        f" {percent(facts['availability'])} succeeded,"
        f" {percent(facts['availability_with_majority'])} of those that began while every part"
        f" had a majority; p50 {latency['p50']} ms, p99 {latency['p99']} ms."
    )


def _violations(facts: dict[str, Any], outcome: Outcome) -> list[str]:
    parts = []
    if facts["violations"]:
        parts.append("<h2>Violations</h2>")
    for violation in facts["violations"]:
        parts.append(
            f"<p class='violation'>{violation['at_s']:.2f} s, <b>{html.escape(violation['kind'])}"
            f"</b>: <code>{html.escape(violation['what'])}</code></p>"
        )
    reports = [ruling.report for ruling in outcome.judge.bad if ruling.report is not None]
    parts += [timeline.section(report) for report in reports[:PICTURES]]
    if facts["undecided_keys"]:
        keys = ", ".join(facts["undecided_keys"][:100])
        parts.append(f"<h2>Undecided keys</h2><p>{html.escape(keys)}</p>")
    return parts


def _curves(outcome: Outcome) -> list[str]:
    seconds, spans = outcome.meter.seconds, spans_of(outcome)
    length = max(1.0, float(len(seconds)))
    done = Curve("c0", [float(x.ok) for x in seconds])
    failed = Curve("bad", [float(x.refused + x.unknown) for x in seconds], bars=True)
    latencies = [
        Curve("c2", [x.max_s * 1000 for x in seconds]),
        Curve("c1", [x.p99_s * 1000 for x in seconds]),
        Curve("c0", [x.p50_s * 1000 for x in seconds]),
    ]
    return [
        "<h2>Throughput</h2>",
        _key(("c0", "succeeded"), ("bad", "failed, or of unknown outcome")),
        chart("operations per second", [failed, done], spans, length),
        "<h2>Latency</h2>",
        _key(("c0", "p50"), ("c1", "p99"), ("c2", "longest")),
        chart("of those that succeeded", latencies, spans, length, logarithmic=True, unit=" ms"),
        _key(
            ("network", "network"),
            ("process", "processes"),
            ("leader", "leadership"),
            ("other", "memory, disk, clock"),
            ("minority", "some part has no majority"),
            fill=True,
        ),
    ]


def _key(*styles: tuple[str, str], fill: bool = False) -> str:
    """What the colours mean."""
    if fill:
        mark = "<svg width='14' height='9'><rect class='{}' width='14' height='9'/></svg> {}"
        return "<p>" + " &nbsp; ".join(mark.format(*style) for style in styles) + "</p>"
    marks = "".join(f"<i class='{style}'></i>{name}" for style, name in styles)
    return f"<p class='key'>{marks}</p>"


def _tables(facts: dict[str, Any]) -> list[str]:
    parts = []
    if facts["faults"]:
        rows = [
            (
                family,
                row["times"],
                f"{row['seconds']:.1f} s",
                f"{row['operations']:,}",
                percent(row["availability"]),
                percent(row["availability_with_majority"]),
            )
            for family, row in facts["faults"].items()
        ]
        heads = ("fault", "times", "lasted", "operations", "succeeded", "with a majority")
        parts += ["<h2>Availability under each fault</h2>", _table(heads, rows)]
    if facts["episodes"]:
        slowest = sorted(facts["episodes"], key=lambda x: -x["recovery_s"])[:20]
        recovered = [
            (
                ", ".join(x["faults"]),
                f"{x['start_s']:.1f} s",
                f"{x['end_s']:.1f} s",
                f"{x['recovery_s']:.2f} s",
            )
            for x in slowest
        ]
        recovery = facts["recovery_s"]
        parts += [
            "<h2>Recovery</h2>",
            f"<p>After {len(facts['episodes'])} episodes of faults: median {recovery['median']} s,"
            f" longest {recovery['max']} s until the last operation that failed or took more than"
            " half a second had ended, of those that began when all was repaired. The slowest:</p>",
            _table(("faults", "from", "to", "recovered after"), recovered),
        ]
    full = facts["storage_full"]
    if full["attempts"]:
        parts += [
            "<h2>Full disks</h2>",
            f"<p>{full['attempts']:,} attempts were refused because there was no space on disk;"
            f" {full['operations']:,} operations failed for that:</p>",
            _table(("operation", "number"), full["by_operation"].items()),
        ]
    numbers = sorted(facts["by_operation"].items())
    parts += ["<h2>Operations</h2>", _table(("operation", "number"), numbers)]
    if facts["failed_attempts"]:
        reasons = list(facts["failed_attempts"].items())
        parts += ["<h2>Why attempts failed</h2>", _table(("answer", "times"), reasons)]
    return parts


def _definitions(facts: dict[str, Any]) -> str:
    names = ("system", "nodes", "durable", "seed", "seconds", "rate", "concurrency", "workloads")
    shown = [(name, facts[name]) for name in (*names, "started", "stopped_early")]
    rows = [(name, ", ".join(x) if isinstance(x, tuple | list) else str(x)) for name, x in shown]
    return _table(("option", "value"), rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def percent(share: float | None) -> str:
    """A share of what there was; nothing has none."""
    return "-" if share is None else f"{share:.3%}"
