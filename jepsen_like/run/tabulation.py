"""Runs with one nemesis each, as a table: what each is good at finding, and what came of it on each
system. Read from the runs' ``verdict.json``, drawn as Markdown, as JSON and as a page.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.report import timeline
from jepsen_like.run.page import OWN_STYLE, percent
from jepsen_like.run.report import Facts
from jepsen_like.run.runner import LIVENESS
from jepsen_like.run.systems import CONTROLS

FINDS: Final = {
    "partition-halves": "two leaders, a minority that acknowledges writes",
    "partition-one": "a node that answers alone, or deposes a healthy leader when it is back",
    "partition-leader": "reads that ask nobody, replies of a deposed leader, writes it took alone",
    "partition-bridge": "two majorities that share one node, and what it tells both",
    "partition-ring": "votes of majorities that are all different, elections without end",
    "partition-one-way": "a leader that is heard and does not hear, or the other way round",
    "reset": "acknowledgements of an old connection, lost or repeated batches",
    "orphan": "bytes of an old connection that arrive after those of the new one",
    "delay": "timeouts that are shorter than the network is slow, elections without need",
    "loss": "timeouts that are shorter than a few retransmissions",
    "duplicate": "connections that do not survive packets that come twice",
    "reorder": "connections that do not survive packets that overtake others",
    "rate": "heartbeats that wait behind snapshots and long batches",
    "kill-one": "acknowledged writes that are not on a majority",
    "kill-leader": "acknowledged writes that nobody else has, outcomes told wrong",
    "kill-minority": "acknowledged writes that are not on every majority",
    "kill-all": "acknowledged writes that are not on disk",
    "pause-one": "a node that takes what it knew before it slept for fresh",
    "pause-leader": "leases that outlive their leader, leaders that do not know they are none",
    "pause-all": "leases and timeouts that run on while nobody does",
    "wipe": "votes and acknowledgements that a node has forgotten",
    "rolling-restart": "requests dropped on the way down, nodes that serve too early",
    "transfer": "outcomes told wrong when a leader steps down",
    "transfer-storm": "leaders that are deposed before they have settled",
    "pressure": "stale entries after eviction",
    "disk-slow": "acknowledgements before the disk's, elections without need",
    "disk-full-one": "writes that hang, or are acknowledged and not there",
    "disk-full-majority": "writes that are refused and done all the same, or the other way round",
    "clock": "keys that expire early or rise again, leases that trust wall clocks",
}
"""What each nemesis is good at finding."""
NEVER_GIVEN: Final = "the fault was never given"
NOT_ALL_JUDGED: Final = "some keys were not judged in time"
NO_VERDICT: Final = "no verdict"
NOT_GIVEN: Final = "-"
"""Where a system cannot be given a nemesis."""
STYLE: Final = """
body { max-width: none }
td, th { text-align: left; vertical-align: top } td .verdict { padding: 0 .5em }
"""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one run."""

    seed: int
    verdict: Verdict
    kinds: tuple[str, ...] = ()
    """Of the violations it is convicted of, as the judges name them."""
    late: tuple[str, ...] = ()
    """Of those that convict no control: it did not come back, or not in time."""
    why: str = ""
    """Why it is not judged."""
    operations: int = 0
    """Begun under the nemesis."""
    availability: float | None = None
    """The share of these that succeeded; ``None`` when there were none."""
    report: str = ""
    """Its page, relative to the table's directory."""


def result_of(facts: Facts | None, system: str, nemesis: str, seed: int) -> Result:
    """The result that a run's ``verdict.json`` states; ``None``: the run has none.

    A run is not judged by what never happened: without the nemesis nothing is valid."""
    if facts is None:
        return Result(seed, Verdict.UNDECIDED, why=NO_VERDICT)
    kinds = {violation["kind"] for violation in facts["violations"]}
    late = kinds & LIVENESS if system in CONTROLS else frozenset()
    row = facts["faults"].get(nemesis)
    why = ""
    if facts["undecided_keys"] or not facts["keys_judged"]:
        why = NOT_ALL_JUDGED
    elif row is None:
        why = NEVER_GIVEN
    verdict = Verdict.UNDECIDED if why else Verdict.VALID
    if kinds - late:
        verdict, why = Verdict.INVALID, ""
    return Result(
        seed=seed,
        verdict=verdict,
        kinds=tuple(sorted(kinds - late)),
        late=tuple(sorted(late)),
        why=why,
        operations=0 if row is None else row["operations"],
        availability=None if row is None else row["availability"],
        report=(run_directory(Path(), system, nemesis, seed) / "report.html").as_posix(),
    )


def run_directory(out: Path, system: str, nemesis: str, seed: int) -> Path:
    """Where a run is, of the table in ``out``."""
    return out / system / nemesis / f"seed-{seed}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One nemesis on one system, with each seed."""

    results: tuple[Result, ...]

    @property
    def verdict(self) -> Verdict:
        """One conviction convicts; valid is only what is valid with every seed."""
        verdicts = {result.verdict for result in self.results}
        for verdict in (Verdict.INVALID, Verdict.UNDECIDED):
            if verdict in verdicts:
                return verdict
        return Verdict.VALID

    @property
    def text(self) -> str:
        """The verdict in words."""
        parts = []
        for verdict, word in ((Verdict.INVALID, "convicted"), (Verdict.UNDECIDED, "not judged")):
            found = [result for result in self.results if result.verdict is verdict]
            if found:
                reasons = {x for result in found for x in (*result.kinds, result.why) if x}
                count = f"{len(found)} of {len(self.results)}"
                parts.append(f"{word} {count}: {', '.join(sorted(reasons))}")
        late = [result for result in self.results if result.late]
        if late:
            kinds = sorted({kind for result in late for kind in result.late})
            parts.append(f"{', '.join(kinds)} {len(late)} of {len(self.results)}")
        if self.verdict is Verdict.VALID:
            parts.insert(0, "valid")
        return "; ".join(parts)

    @property
    def availability(self) -> float | None:
        """The share of all operations that began under the nemesis, and succeeded."""
        counted = [x for x in self.results if x.availability is not None and x.operations]
        begun = sum(x.operations for x in counted)
        done = sum((x.availability or 0.0) * x.operations for x in counted)
        return round(done / begun, 5) if begun else None


@dataclass(frozen=True, slots=True)
class Table:
    """``rows``: nemesis -> system -> cell, ``None`` where the system cannot be given it."""

    seconds: float
    seeds: int
    systems: tuple[str, ...]
    rows: Mapping[str, Mapping[str, Cell | None]]

    @property
    def verdict(self) -> Verdict:
        """Of raftcache: what the controls do wrong is expected of them."""
        own = [
            result
            for row in self.rows.values()
            for system, cell in row.items()
            if cell is not None and system not in CONTROLS
            for result in cell.results
        ]
        return Cell(tuple(own)).verdict

    @property
    def caption(self) -> str:
        """How it was made, and what the numbers are."""
        runs = "one run" if self.seeds == 1 else f"{self.seeds} runs"
        return (
            f"Each nemesis alone, {runs} of {self.seconds:g} s on three nodes, with data on disk;"
            " the share is that of operations which succeeded, of those begun under the nemesis."
            f" {NOT_GIVEN}: the system cannot be given it."
        )


def markdown(table: Table) -> str:
    """For a README."""
    heads = ("nemesis", "what it is good at finding", *table.systems)
    lines = [_line(heads), _line(["---"] * len(heads))]
    for nemesis, row in table.rows.items():
        cells = [_shown(row[system]) for system in table.systems]
        lines.append(_line((nemesis, FINDS[nemesis], *(x.replace("|", "\\|") for x in cells))))
    return "\n".join([table.caption, "", *lines]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return NOT_GIVEN
    if cell.availability is None:
        return cell.text
    return f"{cell.text} ({percent(cell.availability)})"


def as_json(table: Table) -> str:
    """Everything, each run for itself."""
    facts = {
        "seconds": table.seconds,
        "seeds": table.seeds,
        "systems": table.systems,
        "rows": [
            {
                "nemesis": nemesis,
                "finds": FINDS[nemesis],
                "cells": {
                    system: None if cell is None else _cell_facts(cell)
                    for system, cell in row.items()
                },
            }
            for nemesis, row in table.rows.items()
        ],
    }
    return json.dumps(facts, indent=2) + "\n"


def _cell_facts(cell: Cell) -> dict[str, Any]:
    return {
        "verdict": cell.verdict.name.lower(),
        "text": cell.text,
        "availability": cell.availability,
        "runs": [
            {
                "seed": result.seed,
                "verdict": result.verdict.name.lower(),
                "kinds": result.kinds,
                "late": result.late,
                "why": result.why,
                "operations": result.operations,
                "availability": result.availability,
                "report": result.report,
            }
            for result in cell.results
        ],
    }


def page(table: Table) -> str:
    """A page that needs nothing but itself; its links lead to the reports of the runs."""
    heads = ("nemesis", "what it is good at finding", *table.systems)
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = "\n".join(
        f"<tr><td>{html.escape(nemesis)}</td><td>{html.escape(FINDS[nemesis])}</td>"
        + "".join(f"<td>{_drawn(row[system])}</td>" for system in table.systems)
        + "</tr>"
        for nemesis, row in table.rows.items()
    )
    return "\n".join(
        (
            "<!doctype html><html lang='en'><meta charset='utf-8'>",
            "<title>Each nemesis alone</title>",
            f"<style>{timeline.STYLE}{OWN_STYLE}{STYLE}</style>",
            f"<h1>Each nemesis alone</h1><p>{html.escape(table.caption)}</p>",
            f"<table><tr>{head}</tr>\n{body}</table></html>\n",
        )
    )


def _drawn(cell: Cell | None) -> str:
    if cell is None:
        return NOT_GIVEN
    links = " ".join(
        f"<a href='{html.escape(result.report)}'>{result.seed}</a>"
        for result in cell.results
        if result.report
    )
    verdict = cell.verdict.name.lower()
    parts = [f"<b class='verdict {verdict}'>{html.escape(cell.text)}</b>"]
    if cell.availability is not None:
        parts.append(percent(cell.availability))
    if links:
        parts.append(f"seed {links}")
    return "<br>".join(parts)


def write(out: Path, table: Table) -> None:
    """``table.md``, ``table.json`` and ``table.html`` in ``out``."""
    for name, text in (
        ("table.md", markdown(table)),
        ("table.json", as_json(table)),
        ("table.html", page(table)),
    ):
        (out / name).write_text(text, encoding="utf-8")
