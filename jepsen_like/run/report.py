"""The facts of a run, in all the files of its report."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.run import page, plots
from jepsen_like.run.meter import Meter
from jepsen_like.run.runner import Outcome, Plan
from jepsen_like.run.stage import Band
from jepsen_like.run.system import System

Facts = dict[str, Any]
Span = tuple[float, float]


def facts(name: str, system: System, plan: Plan, outcome: Outcome, started: float) -> Facts:
    """Everything that ``verdict.json`` says."""
    meter, judge, load = outcome.meter, outcome.judge, outcome.load_s
    begun, failed = meter.availability([load])
    majority = _without([load], outcome.minority_s)
    begun_majority, failed_majority = meter.availability(majority)
    episodes = recoveries(meter, outcome.bands, load)
    found = [episode["recovery_s"] for episode in episodes]
    seconds = [second for second in meter.seconds if second.ok]
    return {
        "verdict": verdict(outcome).name.lower(),
        "violations": [
            {"at_s": round(x.at_s, 3), "kind": x.kind, "what": x.what} for x in outcome.violations
        ],
        "undecided_keys": outcome.undecided,
        "system": name,
        "nodes": len(system.nodes),
        "durable": plan.durable,
        "seed": plan.seed,
        "seconds": plan.seconds,
        "rate": plan.rate,
        "concurrency": plan.concurrency,
        "workloads": plan.workloads,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "stopped_early": not outcome.ended,
        "load_s": round(load[1], 3),
        "operations": begun,
        "operations_per_s": round(begun / load[1], 1) if load[1] else 0.0,
        "by_operation": dict(sorted(meter.by_op.items())),
        "failed": failed,
        "availability": _share(begun, failed),
        "availability_with_majority": _share(begun_majority, failed_majority),
        "without_majority_s": round(sum(end - start for start, end in outcome.minority_s), 3),
        "latency_ms": {
            "p50": _ms([second.p50_s for second in seconds], statistics.median),
            "p99": _ms([second.p99_s for second in seconds], statistics.median),
            "max": _ms([second.max_s for second in seconds], max),
        },
        "recovery_s": {
            "median": round(statistics.median(found), 3) if found else None,
            "max": round(max(found), 3) if found else None,
        },
        "episodes": episodes,
        "faults": families(meter, outcome.bands, outcome.minority_s),
        "cpu_s": {name: round(seconds, 1) for name, seconds in outcome.cpu_s.items()},
        "keys_judged": judge.rulings,
        "operations_judged": judge.operations,
        "judge_cpu_s": round(judge.seconds, 1),
        "judge_slowest_key_s": round(judge.slowest_s, 3),
        "storage_full": {
            "attempts": meter.full_attempts,
            "operations": meter.full_by_op.total(),
            "by_operation": dict(sorted(meter.full_by_op.items())),
        },
        "failed_attempts": dict(meter.reasons.most_common(20)),
    }


def verdict(outcome: Outcome) -> Verdict:
    """A violation is one however early the run ended; valid is only what was judged, and all."""
    if outcome.violations:
        return Verdict.INVALID
    if outcome.undecided or outcome.judge.rulings == 0:
        return Verdict.UNDECIDED
    return Verdict.VALID


def families(meter: Meter, bands: list[Band], minority: list[Span]) -> Facts:
    """For each family: how often, and how many operations succeeded that began meanwhile; with
    and without those that began while some part had no majority."""
    rows: Facts = {}
    for family in sorted({band.family for band in bands}):
        spans = [_span(band) for band in bands if band.family == family]
        begun, failed = meter.availability(spans)
        begun_majority, failed_majority = meter.availability(_without(spans, minority))
        rows[family] = {
            "times": len(spans),
            "seconds": round(sum(end - start for start, end in spans), 2),
            "operations": begun,
            "availability": _share(begun, failed),
            "availability_with_majority": _share(begun_majority, failed_majority),
        }
    return rows


def recoveries(meter: Meter, bands: list[Band], load: Span) -> list[Facts]:
    """For each episode of faults the time from its end until the last operation that failed or
    was slow had ended; operations count that began after the end, and before the next episode."""
    spans = merged([_span(band) for band in bands])
    starts = [start for start, _ in [*spans, (load[1], load[1])][1:]]
    return [
        {
            "faults": sorted({x.family for x in bands if start <= x.start_s <= end}),
            "start_s": round(start, 2),
            "end_s": round(end, 2),
            "recovery_s": round(meter.recovered_after(end, until), 3),
        }
        for (start, end), until in zip(spans, starts, strict=True)
        if until - end >= 1.0
    ]


def merged(spans: list[Span]) -> list[Span]:
    """Spans that overlap as one."""
    found: list[Span] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def _without(spans: list[Span], holes: list[Span]) -> list[Span]:
    left = spans
    for hole_start, hole_end in holes:
        cut: list[Span] = []
        for start, end in left:
            if hole_end <= start or hole_start >= end:
                cut.append((start, end))
                continue
            if start < hole_start:
                cut.append((start, hole_start))
            if hole_end < end:
                cut.append((hole_end, end))
        left = cut
    return left


def _span(band: Band) -> Span:
    return band.start_s, band.start_s if band.end_s is None else band.end_s


def _share(begun: int, failed: int) -> float | None:
    return round(1 - failed / begun, 5) if begun else None


def _ms(values: list[float], how: Any) -> float | None:
    return round(how(values) * 1000, 2) if values else None


def write(directory: Path, facts: Facts, outcome: Outcome) -> None:
    """All files of the report but the history, which is there."""
    text = json.dumps(facts, indent=2, default=list)
    (directory / "verdict.json").write_text(text + "\n", encoding="utf-8")
    story = "".join(f"{at:10.3f} s  {text}\n" for at, text in outcome.story)
    (directory / "story.txt").write_text(story, encoding="utf-8")
    (directory / "report.html").write_text(page.page(facts, outcome), encoding="utf-8")
    plots.write(directory, facts, outcome)


def summary(facts: Facts) -> str:
    """For the terminal."""
    lines = [
        f"{violation['kind'].upper()} at {violation['at_s']:.2f} s: {violation['what']}"
        for violation in facts["violations"]
    ]
    if facts["undecided_keys"]:
        lines.append(f"undecided keys: {', '.join(facts['undecided_keys'][:20])}")
    latency, recovery = facts["latency_ms"], facts["recovery_s"]
    lines += [
        f"{facts['verdict']}: {facts['operations']} operations in {facts['load_s']:.0f} s"
        f" ({facts['operations_per_s']:.0f}/s), {facts['keys_judged']} keys judged",
        f"succeeded: {page.percent(facts['availability'])} of all,"
        f" {page.percent(facts['availability_with_majority'])} of those begun while every part had"
        f" a majority ({facts['without_majority_s']:.1f} s without)",
        f"latency p50 {latency['p50']} ms, p99 {latency['p99']} ms (medians of seconds),"
        f" longest {latency['max']} ms",
        f"recovery after {len(facts['episodes'])} episodes of faults:"
        f" median {recovery['median']} s, longest {recovery['max']} s",
    ]
    full = facts["storage_full"]
    if full["attempts"]:
        lines.append(
            f"refused because disks were full: {full['operations']} operations"
            f" ({full['attempts']} attempts)"
        )
    for family, row in facts["faults"].items():
        lines.append(
            f"  {family:<18} {row['times']:>3} times {row['seconds']:>7.1f} s"
            f"  succeeded {page.percent(row['availability'])},"
            f" with majority {page.percent(row['availability_with_majority'])}"
        )
    return "\n".join(lines)
