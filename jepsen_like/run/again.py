"""``python -m jepsen_like judge DIR``: a run's history once more, with more time and all cores.

A run whose verdict was "could not judge" has said all that it has to say in ``history.jsonl``: what
it did not decide can be decided later, by the rules of the run's own system.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Final

from jepsen_like.checkers.linearizability import Verdict
from jepsen_like.run.command import failed
from jepsen_like.run.judge import Rules, Ruling, judge
from jepsen_like.run.system import Options
from jepsen_like.run.systems import SYSTEMS, make

AHEAD: Final = 64
"""Keys given out for each process."""
PROGRESS_S: Final = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("directory", type=Path, help="of a run's report")
    parser.add_argument(
        "--key-seconds", type=float, default=300.0, help="time limit of each key (default 300)"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.set_defaults(run=command)


def command(arguments: argparse.Namespace) -> int:
    """Exit status: 0 every key is valid, 1 a violation, 2 could not judge."""
    try:
        facts = json.loads((arguments.directory / "verdict.json").read_text("utf-8"))
        history = (arguments.directory / "history.jsonl").open(encoding="utf-8")
        if facts["system"] not in SYSTEMS:
            raise ValueError(f"no system {facts['system']!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return failed("judge", f"{arguments.directory}: {error}")
    rules = Rules.of(make(facts["system"], Options()))
    counts = dict.fromkeys(Verdict, 0)
    operations = 0
    try:
        with history:
            for ruling in _rulings(history, rules, arguments.key_seconds, max(1, arguments.jobs)):
                counts[ruling.verdict] += 1
                operations += ruling.operations
                _tell(ruling)
    except ValueError as error:
        return failed("judge", f"{history.name}: {error}")
    verdict = Verdict.VALID if operations else Verdict.UNDECIDED
    for worse in (Verdict.UNDECIDED, Verdict.INVALID):
        verdict = worse if counts[worse] else verdict
    print(
        f"{verdict.name.lower()}: {operations} operations, {sum(counts.values())} keys:"
        f" {counts[Verdict.VALID]} valid, {counts[Verdict.INVALID]} not,"
        f" {counts[Verdict.UNDECIDED]} undecided"
    )
    return int(verdict)


def _tell(ruling: Ruling) -> None:
    if ruling.verdict is Verdict.UNDECIDED:
        print(f"undecided: key {ruling.key}, {ruling.operations} operations")
    if ruling.report is not None and ruling.verdict is Verdict.INVALID:
        print(f"NOT LINEARIZABLE: key {ruling.key}: no order explains {ruling.report.culprit}")
    for text in ruling.too_stale:
        print(f"A STALE READ IS TOO OLD: {text}")


def _rulings(history: IO[str], rules: Rules, seconds: float, jobs: int) -> Iterator[Ruling]:
    """On one key after the other, with progress on standard error."""
    waiting: list[Future[Ruling]] = []
    told, done = time.monotonic(), 0
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for first, lines in _keys(history):
            waiting.append(pool.submit(judge, lines, first, rules, seconds))
            if len(waiting) < AHEAD * jobs:
                continue
            yield waiting.pop(0).result()
            done += 1
            if time.monotonic() - told >= PROGRESS_S:
                told = time.monotonic()
                print(f"\r{done} keys", end="", file=sys.stderr, flush=True)
        for future in waiting:
            yield future.result()
    print("\r", end="", file=sys.stderr)


def _keys(history: IO[str]) -> Iterator[tuple[int, list[str]]]:
    """The lines of each key, which a run writes one after the other, and the first one's place."""
    key, first, lines = None, 0, list[str]()
    for place, line in enumerate(history):
        found = json.loads(line)["key"]
        if found != key and lines:
            yield first, lines
            lines = []
        if not lines:
            key, first = found, place
        lines.append(line)
    if lines:
        yield first, lines
