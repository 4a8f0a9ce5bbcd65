"""One run: a cluster, clients and faults for some virtual time, then peace, then judgement.

Order of events: all nodes start; faults from second 1 to second ``seconds``; everything is repaired
and restarted; ``RECOVERY_S`` later every node must serve every group; the clients stop; all keys
are read through every node; replicas must be equal; the history must be linearizable.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from jepsen_like.checkers.history import Operation
from jepsen_like.checkers.linearizability import Report, Verdict, check
from jepsen_like.checkers.models import CacheModel
from jepsen_like.sim import guards
from jepsen_like.sim.cluster import Cluster, SimNode, trace_logs
from jepsen_like.sim.faults import FAMILIES, Fault, Injector, applicable, schedule
from jepsen_like.sim.invariants import Watcher
from jepsen_like.sim.scheduler import Scheduler, StandstillError, Violation
from jepsen_like.sim.workload import Client, Recorder
from raftcache.ops import Result, Set, Status
from raftcache.partition import SlotMap

START_S: Final = 5.0
RECOVERY_S: Final = 3.0
LOOK_S: Final = 0.05
DRIFT: Final = 0.05
"""Clocks run up to 2 % fast or slow; a time to live may end early by no more than this."""
MOST_VIOLATIONS: Final = 20

KEYS: Final = ("r0", "r1", "r2", "r3", "c0", "c1", "e0", "e1")


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is, apart from its seed."""

    seconds: float = 60.0
    nodes: int = 3
    groups: int = 2
    durable: bool = True
    families: tuple[str, ...] = FAMILIES
    clients: int = 6
    think_s: float = 0.04
    without: tuple[str, ...] = ()
    """Guards that are switched off (``jepsen_like.sim.guards``)."""

    def command(self, seed: int) -> str:
        """The command line that replays a run of these options."""
        families = "all" if self.families == FAMILIES else ",".join(self.families) or "none"
        mode = "--durable" if self.durable else "--memory"
        without = f" --without {','.join(self.without)}" if self.without else ""
        return (
            f"python -m jepsen_like sim --seed {seed} --faults {families}"
            f" --seconds {self.seconds:g} --nodes {self.nodes} --groups {self.groups} {mode}"
            f"{without}"
        )


@dataclass(slots=True)
class Outcome:
    """What came of a run. ``wall_s`` without ``check_s``, the time the checker took."""

    seed: int
    violations: list[Violation]
    operations: int = 0
    succeeded: int = 0
    elections: int = 0
    callbacks: int = 0
    virtual_s: float = 0.0
    wall_s: float = 0.0
    check_s: float = 0.0
    undecided: bool = False
    history: list[Operation] = field(default_factory=list)
    report: Report = Report()  # noqa: RUF009  (immutable)


class Run:
    """One seed under way."""

    def __init__(
        self,
        seed: int,
        options: Options,
        faults: list[Fault] | None = None,
        trace: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options
        self.scheduler = scheduler = Scheduler(f"sim/{seed}")
        scheduler.trace = trace
        self.cluster = Cluster(
            scheduler, options.nodes, options.groups, durable_mode=options.durable
        )
        families = applicable(options.families, options.nodes, options.durable)
        drawn = schedule(scheduler.generator("faults"), options.seconds, families)
        self.faults = drawn if faults is None else faults
        self.watcher = Watcher(self.cluster)
        self.recorder = Recorder(self.cluster)
        self.clients = [
            Client(number, self.cluster, self.recorder, KEYS, options.think_s)
            for number in range(options.clients)
        ]
        self._looks = 0

    def play(self) -> None:
        """Everything but the judgement of the history."""
        scheduler, cluster = self.scheduler, self.cluster
        cluster.start_all()
        self._look()
        if not scheduler.run_until(self._all_ready, START_S):
            self._not_ready("the cluster does not start")
        for client in self.clients:
            client.start()
        injector = Injector(cluster, self.faults)
        scheduler.run(self.options.seconds)
        injector.end()
        scheduler.run(scheduler.now + RECOVERY_S)
        self._probe()
        for client in self.clients:
            client.stop()
        scheduler.run(scheduler.now + 5.0)
        self._read_everything()
        scheduler.run(scheduler.now + 2.0)
        self.watcher.look(states=True)
        for problem in self.watcher.converged():
            scheduler.violation("replicas do not converge", problem)

    def _look(self) -> None:
        self._looks += 1
        self.watcher.look(states=self._looks % 10 == 0)
        self.scheduler.call_later(LOOK_S, self._look)

    def _all_ready(self) -> bool:
        nodes = self.cluster.nodes
        return len(nodes) == len(self.cluster.names) and all(
            node.not_ready() is None for node in nodes.values()
        )

    def _not_ready(self, kind: str) -> None:
        for name in self.cluster.names:
            node = self.cluster.nodes.get(name)
            why = "down" if node is None else node.not_ready()
            if why is not None:
                self.scheduler.violation(kind, f"{name}: {why}")

    def _probe(self) -> None:
        """Every node must serve every group within a second."""
        slots = SlotMap(self.options.groups)
        keys = [
            next(key for i in range(10_000) if slots.group_of(key := b"probe%d" % i) == group)
            for group in range(self.options.groups)
        ]
        answers: dict[tuple[str, int], Result] = {}

        def ask(node: SimNode, group: int) -> None:
            future = node.write(Set(keys[group], b"x"), node.now() + 1.0)
            place = (node.settings.node, group)
            future.add_done_callback(lambda done: answers.__setitem__(place, done.result()))

        for node in self.cluster.nodes.values():
            for group in range(self.options.groups):
                node.process.call_soon(ask, node, group)
        self.scheduler.run(self.scheduler.now + 1.5)
        for name in self.cluster.names:
            for group in range(self.options.groups):
                answer = answers.get((name, group))
                if answer is None or answer.status not in (Status.OK, Status.CREATED):
                    self.scheduler.violation(
                        "no recovery",
                        f"{RECOVERY_S:g} s after the last fault {name} does not serve group"
                        f" {group}: {answer and answer.status.name}; {self._roles(group)}",
                    )

    def _roles(self, group: int) -> str:
        return ", ".join(
            f"{node.settings.node}: leader {r.raft.leader} term {r.raft.engine.term}"
            f" last {r.raft.last_index} commit {r.raft.engine.commit_index}"
            for node, r in self.cluster.replicas(group)
        )

    def _read_everything(self) -> None:
        """Read all keys through every node: what was acknowledged must be there."""

        def read(node: SimNode, key: str, process: int) -> None:
            index = self.recorder.begin(process, "get", key, ())

            def done(future: Any) -> None:
                result: Result = future.result()
                if result.status not in (Status.OK, Status.NOT_FOUND):
                    self.scheduler.violation("no recovery", f"read of {key}: {result.status.name}")
                    return
                value = None if result.value is None else result.value.decode()
                self.recorder.end(index, True, value)

            node.read(key.encode(), node.now() + 1.0).add_done_callback(done)

        for place, node in enumerate(self.cluster.nodes.values()):
            for key in KEYS:
                node.process.call_soon(read, node, key, 1000 + place)


def run(
    seed: int,
    options: Options,
    *,
    faults: list[Fault] | None = None,
    trace: Callable[[str], None] | None = None,
    check_seconds: float = 30.0,
) -> Outcome:
    """Play one seed and judge it. Deterministic, but for the time limit of the checker."""
    with guards.without(*options.without):
        return _run(seed, options, faults, trace, check_seconds)


def _run(
    seed: int,
    options: Options,
    faults: list[Fault] | None,
    trace: Callable[[str], None] | None,
    check_seconds: float,
) -> Outcome:
    started = time.monotonic()
    collecting = gc.isenabled()
    gc.disable()  # when garbage is collected must not depend on what ran before
    game = Run(seed, options, faults, trace)
    logging_before = trace_logs(game.scheduler)
    try:
        game.play()
    except StandstillError:
        pass  # it is among the violations
    finally:
        structlog.configure(**logging_before)
        if collecting:
            gc.enable()
    scheduler, history = game.scheduler, game.recorder.operations
    outcome = Outcome(
        seed,
        scheduler.violations[:MOST_VIOLATIONS],
        operations=len(history),
        succeeded=sum(1 for operation in history if operation.ok),
        elections=game.watcher.elections,
        callbacks=scheduler.callbacks,
        virtual_s=scheduler.now,
        wall_s=time.monotonic() - started,
        history=history,
    )
    _judge(outcome, check_seconds)
    return outcome


def _judge(outcome: Outcome, seconds: float) -> None:
    started = time.monotonic()
    model = CacheModel(slack_ns=2_000_000, drift=DRIFT)
    outcome.report = report = check(outcome.history, model=model, seconds=seconds)
    outcome.check_s = time.monotonic() - started
    outcome.undecided = report.verdict is Verdict.UNDECIDED
    for bad in report.bad:
        culprit = "" if bad.culprit is None else f"; no order explains {bad.culprit}"
        at = outcome.virtual_s if bad.culprit is None else (bad.culprit.end or 0) / 1e9
        outcome.violations.append(
            Violation(at, "not linearizable", f"key {bad.key}{culprit}; value {bad.state.value!r}")
        )
