"""One run: a system, clients and faults for some time, then peace, then judgement.

Order of events: all nodes start and serve; clients; faults, to second ``seconds``; everything is
repaired and restarted, and every node has to serve again; the clients go on in peace for a while;
all keys are read for the last time; the nodes are stopped; what is not judged yet is waited for.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from jepsen_like.run import nemeses
from jepsen_like.run.filler import Filler
from jepsen_like.run.injector import Injector
from jepsen_like.run.judge import Judge, Rules, Ruling
from jepsen_like.run.meter import Meter
from jepsen_like.run.stage import Band, Stage
from jepsen_like.run.subjects import Subject, Subjects
from jepsen_like.run.system import System
from jepsen_like.run.worker import Pace, Shared, Worker
from jepsen_like.run.workloads import Chooser, kinds_of
from jepsen_like.sim.faults import Fault

CLOSING_S: Final = 30.0
"""Within so long some key more has to be read for the last time, until all are."""
TURN_S: Final = 0.1
MOST_VIOLATIONS: Final = 50
LIVENESS: Final = frozenset({"no recovery", "a node ended"})
"""Kinds of violations of what ``System.live`` promises."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is. ``rate``: operations per second of all workers together; 0: as many as go."""

    seconds: float
    seed: int
    durable: bool
    workloads: tuple[str, ...]
    faults: tuple[Fault, ...]
    rate: float = 1000.0
    concurrency: int = 20
    operation_s: float = 3.0
    attempt_s: float = 1.0
    check_seconds: float = 300.0
    peace_s: float = 3.0
    """Load without faults at the end."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken: ``at_s`` seconds after the run began."""

    at_s: float
    kind: str
    what: str


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    violations: list[Violation]
    undecided: list[str]
    meter: Meter
    judge: Judge
    bands: list[Band]
    minority_s: list[tuple[float, float]]
    load_s: tuple[float, float]
    """From when to when clients worked, the last operations not counted."""
    cpu_s: dict[str, float]
    """CPU seconds of this process (clients, proxies), and of those that it started."""
    ended: bool = True
    """False: somebody stopped it early."""
    story: list[tuple[float, str]] = field(default_factory=list)


class _Done(BaseException):
    """Everything was played: ends the wait for those that would go on."""


class Run:
    """One run under way. ``play`` raises ``StartError`` when the system does not start."""

    def __init__(self, system: System, plan: Plan, directory: Path) -> None:
        self.system = system
        self.plan = plan
        self.directory = directory
        self.meter = Meter()
        self.violations: list[Violation] = []
        self.story: list[tuple[float, str]] = []
        self.phase = "starting"
        self.judge = Judge(directory / "history.jsonl", Rules.of(system))
        self.judge.on_bad = self._on_bad
        self.stage = Stage(system, self.clock, self._say, self.violation, durable=plan.durable)
        self.subjects = Subjects(kinds_of(plan.workloads), system.crowded, self._closed)
        self._epoch_ns = time.monotonic_ns()
        self._stop = asyncio.Event()
        self._workers: list[Worker] = []
        self._load_s = (0.0, 0.0)

    def clock(self) -> float:
        """Seconds since the run began."""
        return (time.monotonic_ns() - self._epoch_ns) / 1e9

    def stop(self) -> None:
        """End early, but in order: what was done so far is judged."""
        self._stop.set()

    def violation(self, kind: str, what: str) -> None:
        """A promise is broken, unless the system has not given it."""
        if kind in LIVENESS and not self.system.live:
            self._say(f"not promised: {kind}: {what}")
            return
        self._say(f"VIOLATION: {kind}: {what}")
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(Violation(self.clock(), kind, what))

    def _say(self, text: str) -> None:
        self.story.append((self.clock(), text))

    def _on_bad(self, ruling: Ruling) -> None:
        report = ruling.report
        if report is not None:
            culprit = "" if report.culprit is None else f"; no order explains {report.culprit}"
            value = report.state.value
            self.violation("not linearizable", f"key {ruling.key}{culprit}; value {value!r}")
        for text in ruling.too_stale:
            self.violation("a stale read is too old", text)

    def _closed(self, subject: Subject) -> None:
        self.judge.submit(subject.operations)

    async def play(self) -> Outcome:
        """Everything."""
        nodes = self.directory / "nodes"
        nodes.mkdir(parents=True, exist_ok=True)
        self.judge.start()
        try:
            try:
                await self.system.start(nodes)
                await self._load()
            finally:
                self.phase = "stopping the nodes"
                await self.system.stop()
        finally:
            self.phase = "judging"
            self.subjects.close_all()
            self.meter.flush()
            await self.judge.finish(self.plan.check_seconds)
        return Outcome(
            violations=self.violations,
            undecided=self.judge.undecided,
            meter=self.meter,
            judge=self.judge,
            bands=self.stage.bands,
            minority_s=self.stage.minority_s,
            load_s=self._load_s,
            cpu_s={
                "clients and proxies": _cpu_s(resource.RUSAGE_SELF),
                "nodes and judge": _cpu_s(resource.RUSAGE_CHILDREN),
            },
            ended=not self._stop.is_set(),
            story=self.story,
        )

    async def _load(self) -> None:
        self._epoch_ns = time.monotonic_ns()
        self.phase = "load and faults"
        self.subjects.fill(self.clock())
        self._workers = self._make_workers()
        filler = Filler(self.system, self.stage, self.plan.seed)
        helpers = [asyncio.create_task(self._turn()), asyncio.create_task(filler.run())]
        tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
        acts = asyncio.create_task(self._acts())
        try:
            # Workers and helpers go on until they are told to end, unless they fail.
            await asyncio.wait([acts, *helpers, *tasks], return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self.stage.end()
            for worker in self._workers:
                worker.stopped = True
            for task in (acts, *helpers):
                task.cancel()
            ends = await asyncio.gather(acts, *helpers, *tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _acts(self) -> None:
        """From the first fault to the last read; then the workers stop."""
        await self._faults()
        self.phase = "peace"
        await self._repair()
        if not self._stop.is_set():
            await asyncio.sleep(self.plan.peace_s)
        self._load_s = (0.0, self.clock())
        self.phase = "last reads"
        await self._close()
        for worker in self._workers:
            worker.stopped = True
        raise _Done

    async def _faults(self) -> None:
        """Until the time for faults is over, or somebody stops the run."""
        plan = self.plan
        injecting = asyncio.create_task(Injector(self.stage, plan.faults).run(self.clock()))
        try:
            async with asyncio.timeout(max(0.0, plan.seconds - self.clock())):
                await self._stop.wait()
        except TimeoutError:
            pass
        finally:
            self.stage.end()
            await injecting

    async def _repair(self) -> None:
        """Nothing is wrong any more; every node has to serve within a while."""
        self.stage.end()
        await asyncio.gather(*(self.stage.back(node) for node in self.system.nodes))

    async def _close(self) -> None:
        self.subjects.end()
        waiting, deadline = self.subjects.waiting, self.clock() + CLOSING_S
        while waiting and self.clock() < deadline:
            await asyncio.sleep(TURN_S)
            if self.subjects.waiting < waiting:
                waiting, deadline = self.subjects.waiting, self.clock() + CLOSING_S
        if waiting:
            self.violation("no recovery", f"{waiting} keys cannot be read for the last time")

    def _make_workers(self) -> list[Worker]:
        plan, system = self.plan, self.system
        shared = Shared(
            system=system,
            subjects=self.subjects,
            meter=self.meter,
            pace=Pace(plan.rate / plan.concurrency, plan.operation_s, plan.attempt_s),
            epoch_ns=self._epoch_ns,
            wrong=lambda text: self.violation("a wrong answer", text),
            token=f"{plan.seed}-{time.time_ns():x}",
        )
        workers = []
        for number in range(plan.concurrency):
            draw = random.Random(f"run/{plan.seed}/worker/{number}")
            protocol = system.protocols[number % len(system.protocols)]
            chooser = Chooser(number, draw, self.subjects, system, protocol, plan.workloads)
            workers.append(Worker(number, plan.concurrency, protocol, draw, shared, chooser))
        return workers

    async def _turn(self) -> None:
        """What has to be looked at now and then."""
        while True:
            now = self.clock()
            self.subjects.fill(now)
            self.subjects.age(now)
            self.stage.check_alive()
            self.judge.collect()
            await asyncio.sleep(TURN_S)


def _cpu_s(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def faults_of(seed: int, seconds: float, families: Sequence[str]) -> tuple[Fault, ...]:
    """The schedule that a seed draws."""
    return tuple(nemeses.schedule(random.Random(f"run/{seed}/faults"), seconds, families))
