"""Decides key by key, while the run goes on, in a process of its own that runs when no other would,
and what is left when it is over, with all processors.

What was not decided when the time is up is undecided, never valid.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Final

from jepsen_like.checkers import staleness
from jepsen_like.checkers.history import Operation, parse
from jepsen_like.checkers.linearizability import Budget, KeyReport, Verdict, check_key
from jepsen_like.checkers.models import CacheModel
from jepsen_like.run.subjects import may_vanish
from jepsen_like.run.system import System

NICENESS: Final = 10
"""When the run is over."""
KEYS_EACH: Final = 100
"""Fewer keys that are left are not worth one process more."""
KEY_SECONDS: Final = 60.0
"""Of CPU time, for one key. Measured: milliseconds; seconds where many clients overlap on it for
long."""
MOST_ACCUSATIONS: Final = 5
"""Kept for each key."""
MOST_REPORTS: Final = 50
"""Kept of a run; a system that is wrong all the time would fill the memory with them."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How exact the system's clocks promise to be."""

    slack_ns: int
    drift: float

    @classmethod
    def of(cls, system: System) -> Rules:
        """What ``system`` promises."""
        return cls(int(system.ttl_slack_ms * 1e6), system.ttl_drift)


@dataclass(frozen=True, slots=True)
class Ruling:
    """On one key. ``report`` has its operations only when it is not valid."""

    key: str
    verdict: Verdict
    operations: int
    report: KeyReport | None
    too_stale: tuple[str, ...]
    seconds: float


def judge(lines: list[str], first: int, rules: Rules, seconds: float = KEY_SECONDS) -> Ruling:
    """The history of one key; ``first`` is its first line's place in the whole."""
    started = time.monotonic()
    history = [parse(line, first + place) for place, line in enumerate(lines)]
    key = history[0].key
    ordered = sorted(history, key=lambda x: x.start)
    model = CacheModel(rules.slack_ns, rules.drift, may_vanish)
    linear = [x for x in ordered if x.op != "stale"]
    # Of CPU time: on a busy machine, which comes first for others, a key is no harder.
    report = check_key(key, linear, model, Budget.of(seconds, clock=time.process_time))
    accusations = staleness.check(
        ordered, slack_ns=rules.slack_ns, drift=rules.drift, may_vanish=may_vanish
    )
    verdict = Verdict.INVALID if accusations else report.verdict
    kept = report if report.verdict is not Verdict.VALID else None
    too_stale = tuple(str(accusation) for accusation in accusations[:MOST_ACCUSATIONS])
    return Ruling(key, verdict, len(history), kept, too_stale, time.monotonic() - started)


@dataclass(frozen=True, slots=True)
class Stored:
    """The history of one key in a file: where its lines are, in bytes, and which is its first."""

    key: str
    path: Path
    offset: int
    size: int
    first: int


def judge_stored(stored: Stored, rules: Rules) -> Ruling:
    """``judge`` of what is in a file."""
    with stored.path.open("rb") as file:
        file.seek(stored.offset)
        lines = file.read(stored.size).decode().splitlines()
    return judge(lines, stored.first, rules)


def _give_way() -> None:
    """Run when nobody else would (sched(7), ``SCHED_IDLE``): what is under test comes first. There
    is no way back from that without privileges."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@dataclass(slots=True)
class Judge:
    """Writes closed histories to a file, and has them judged. What waits is in the file only."""

    path: Path
    rules: Rules
    rulings: int = 0
    operations: int = 0
    seconds: float = 0.0
    slowest_s: float = 0.0
    bad: list[Ruling] = field(default_factory=list)
    undecided: list[str] = field(default_factory=list)
    on_bad: Callable[[Ruling], None] = lambda ruling: None
    _lines: int = 0
    _bytes: int = 0
    _pool: ProcessPoolExecutor | None = None
    _pending: dict[Future[Ruling], Stored] = field(default_factory=dict)
    _file: IO[bytes] | None = None

    def start(self) -> None:
        """Open the file and start the process."""
        self._file = self.path.open("wb")
        self._pool = _pool(1, _give_way)

    def submit(self, operations: list[Operation]) -> None:
        """All operations of one key."""
        if not operations:
            return
        assert self._file is not None
        operations.sort(key=lambda x: x.start)
        text = "".join(operation.to_json() + "\n" for operation in operations).encode()
        self._file.write(text)
        self._file.flush()
        stored = Stored(operations[0].key, self.path, self._bytes, len(text), self._lines)
        self._lines += len(operations)
        self._bytes += len(text)
        self._hand_over(stored)

    def _hand_over(self, stored: Stored) -> None:
        assert self._pool is not None
        try:
            future = self._pool.submit(judge_stored, stored, self.rules)
        except BrokenProcessPool:
            self.undecided.append(stored.key)
            return
        self._pending[future] = stored

    def collect(self) -> None:
        """Take the rulings that are there."""
        while self._pending and (future := next(iter(self._pending))).done():
            stored = self._pending.pop(future)
            if future.cancelled() or future.exception() is not None:
                self.undecided.append(stored.key)
                continue
            ruling = future.result()
            self.rulings += 1
            self.operations += ruling.operations
            self.seconds += ruling.seconds
            self.slowest_s = max(self.slowest_s, ruling.seconds)
            if ruling.verdict is Verdict.INVALID:
                self.on_bad(ruling)
                kept = len(self.bad) < MOST_REPORTS
                self.bad.append(ruling if kept else replace(ruling, report=None))
            elif ruling.verdict is Verdict.UNDECIDED:
                self.undecided.append(ruling.key)

    @property
    def pending(self) -> int:
        """Keys that wait for their ruling."""
        return len(self._pending)

    async def finish(self, seconds: float) -> None:
        """Wait for all rulings, at most so long; what is missing then is undecided."""
        assert self._file is not None
        self._file.close()
        self.collect()
        left = list(self._pending.values())
        self._end_pool()
        if left:
            processes = min(os.cpu_count() or 1, -(-len(left) // KEYS_EACH))
            self._pool = _pool(processes, os.nice, NICENESS)
            for stored in left:
                self._hand_over(stored)
        deadline = time.monotonic() + seconds
        while self._pending and time.monotonic() < deadline:
            self.collect()
            await asyncio.sleep(0.02)
        self.collect()
        self.undecided += [stored.key for stored in self._pending.values()]
        self._end_pool()

    def _end_pool(self) -> None:
        assert self._pool is not None
        if self._pending:
            for process in (self._pool._processes or {}).values():
                process.kill()  # it searches, and would be waited for
        self._pool.shutdown(cancel_futures=True)
        self._pending.clear()


def _pool(processes: int, prepare: Callable[..., object], *args: object) -> ProcessPoolExecutor:
    # Not forked: a copy of a process with threads and an event loop is none of either.
    return ProcessPoolExecutor(processes, get_context("spawn"), prepare, args)
