"""One run: a cluster, clients and faults for some virtual time, then peace, then judgement.

Order of events: all nodes start; faults from second 1 to second ``seconds``; everything is repaired
and restarted; within a few seconds every node must serve writes and linearizable reads of every
group, and what clients begin later must succeed; the clients stop; all keys are read through every
node; replicas must be equal; the history must be linearizable and stale reads fresh enough.
"""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from jepsen_like.checkers import staleness
from jepsen_like.checkers.history import Operation
from jepsen_like.checkers.linearizability import Report, Verdict, check
from jepsen_like.checkers.models import CacheModel
from jepsen_like.sim import guards
from jepsen_like.sim.cluster import Cluster, SimNode, trace_logs
from jepsen_like.sim.faults import FAMILIES, Fault, applicable, schedule
from jepsen_like.sim.injector import Injector
from jepsen_like.sim.invariants import Watcher
from jepsen_like.sim.keys import keyspace, pair_of
from jepsen_like.sim.recorder import Recorder
from jepsen_like.sim.requests import combined
from jepsen_like.sim.scheduler import Scheduler, StandstillError, Violation
from jepsen_like.sim.systems import RAFTCACHE, System
from jepsen_like.sim.workload import Client
from raftcache.ops import Get, Result, Set, Status
from raftcache.partition import SlotMap

PROBE_S: Final = 1.0
"""How long each operation may take that shows the recovery."""
LOOK_S: Final = 0.05
DRIFT: Final = 0.05
"""Clocks run up to 2 % fast or slow; a time to live may end early by no more than this."""
SLACK_NS: Final = 2_000_000
"""Clocks are read in milliseconds."""
MOST_VIOLATIONS: Final = 20
THINK_S: Final = (0.04, 0.12, 0.12, 0.3)
"""Mean pauses of a client, one of which a seed draws: about 140, 50 and 20 operations per second
of six. Measured: with a guard removed, 50 a second find twice as many bad seeds per CPU second as
140, since more faults fit in; some seeds stay busy, for what shows only then."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is, apart from its seed."""

    seconds: float = 60.0
    nodes: int = 3
    replication: int = 0
    """Nodes of each group; 0: all."""
    groups: int = 2
    durable: bool = True
    families: tuple[str, ...] = FAMILIES
    clients: int = 6
    think_s: float | None = None
    """Mean pause of a client between two operations; ``None``: drawn from the seed."""
    system: System = RAFTCACHE
    without: tuple[str, ...] = ()
    """Guards that are switched off (``jepsen_like.sim.guards``)."""

    def command(self, seed: int) -> str:
        """The command line that replays a run of these options."""
        families = "all" if self.families == FAMILIES else ",".join(self.families) or "none"
        mode = "--durable" if self.durable else "--memory"
        replication = f" --replication {self.replication}" if self.replication else ""
        without = f" --without {','.join(self.without)}" if self.without else ""
        return (
            f"python -m jepsen_like sim --seed {seed} --faults {families}"
            f" --seconds {self.seconds:g} --nodes {self.nodes} --groups {self.groups} {mode}"
            f" --clients {self.clients} {self.system.flag}".rstrip()
            + replication
            + without
        )


@dataclass(slots=True)
class Outcome:
    """What came of a run. CPU seconds: ``cpu_s`` without ``check_s``, which the checker took."""

    seed: int
    violations: list[Violation]
    counts: Counter[str] = field(default_factory=Counter)
    callbacks: int = 0
    virtual_s: float = 0.0
    cpu_s: float = 0.0
    check_s: float = 0.0
    undecided: bool = False
    history: list[Operation] = field(default_factory=list)
    report: Report = Report()  # noqa: RUF009  (immutable)

    @property
    def operations(self) -> int:
        """How many the clients began."""
        return self.counts["operations"]

    @property
    def succeeded(self) -> int:
        """How many of them have an answer."""
        return self.counts["succeeded"]

    @property
    def elections(self) -> int:
        """How many leaders there were."""
        return self.counts["elections"]


def drawn(seed: int, options: Options) -> list[Fault]:
    """The faults of a seed."""
    stands = [name for name in options.families if name in options.system.families]
    families = applicable(stands, options.nodes, options.durable)
    return schedule(Scheduler(f"sim/{seed}").generator("faults"), options.seconds, families)


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
            scheduler,
            options.nodes,
            options.groups,
            durable_mode=options.durable,
            node_type=options.system.node_type,
            replication=options.replication or None,
        )
        self.faults = drawn(seed, options) if faults is None else faults
        self.cluster.network.recording = any(fault.family == "replay" for fault in self.faults)
        self.watcher = Watcher(self.cluster)
        self.recorder = Recorder(self.cluster)
        keys = keyspace(options.groups, small_memory=self.cluster.small_memory)
        self.keys = keys.plainly() if options.system.plain else keys
        think_s = options.think_s or scheduler.generator("load").choice(THINK_S)
        self.clients = [
            Client(number, self.cluster, self.recorder, self.keys, think_s)
            for number in range(options.clients)
        ]
        self._looks = 0

    def play(self) -> None:
        """Everything but the judgement of the history."""
        scheduler, cluster = self.scheduler, self.cluster
        cluster.start_all()
        self._look()
        if not scheduler.run_until(self._all_ready, self.options.system.start_s):
            self._not_ready("the cluster does not start")
        for client in self.clients:
            client.start()
        injector = Injector(cluster, self.faults)
        scheduler.run(self.options.seconds)
        injector.end()
        scheduler.run(scheduler.now + self.options.system.recovery_s - PROBE_S)
        self._probe()
        self.recorder.must_succeed_from = int(scheduler.now * 1e9)
        scheduler.run(scheduler.now + PROBE_S)
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
        """Every group must take writes and answer linearizable reads through every node: what is
        asked now is done when ``RECOVERY_S`` is over."""
        slots = SlotMap(self.options.groups)
        keys = [
            next(key for i in range(10_000) if slots.group_of(key := b"probe%d" % i) == group)
            for group in range(self.options.groups)
        ]
        answers: dict[tuple[str, int, str], Result] = {}

        def ask(node: SimNode, group: int, kind: str) -> None:
            deadline, key = node.now() + PROBE_S, keys[group]
            write = kind == "write"
            future = node.write(Set(key, b"x"), deadline) if write else node.read(key, deadline)
            place = (node.settings.node, group, kind)
            future.add_done_callback(lambda done: answers.__setitem__(place, done.result()))

        places = [
            (name, group, kind)
            for name in self.cluster.names
            for group in range(self.options.groups)
            for kind in ("write", "read")
        ]
        for name, group, kind in places:
            node = self.cluster.nodes.get(name)
            if node is not None:
                node.process.call_soon(ask, node, group, kind)
        self.scheduler.run(self.scheduler.now + PROBE_S)
        for place in places:
            answer = answers.get(place)
            if answer is None or answer.status > Status.NOT_FOUND:
                name, group, kind = place
                self.scheduler.violation(
                    "no recovery",
                    f"{self.options.system.recovery_s:g} s after the last fault {name} does not"
                    f" serve {kind}s of group {group}: {answer and answer.status.name};"
                    f" {self._roles(group)}",
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
                got: Result | list[Result] = future.result()
                result = combined(got) if isinstance(got, list) else got
                if result.status not in (Status.OK, Status.NOT_FOUND):
                    self.scheduler.violation("no recovery", f"read of {key}: {result.status.name}")
                    return
                value = None if result.value is None else result.value.decode()
                self.recorder.end(index, True, value)

            deadline = node.now() + PROBE_S
            future: Any
            if key in self.keys.pairs:
                future = node.batch([Get(half) for half in pair_of(key)], deadline, atomic=True)
            else:
                future = node.read(key.encode(), deadline)
            future.add_done_callback(done)

        for place, node in enumerate(self.cluster.nodes.values()):
            for key in self.keys.all:
                node.process.call_soon(read, node, key, 1000 + place)

    def count(self) -> Counter[str]:
        """What the run has been through."""
        counts, history = self.cluster.counts, self.recorder.operations
        counts["operations"] = len(history)
        counts["succeeded"] = sum(1 for operation in history if operation.ok)
        counts["elections"] = self.watcher.elections
        counts["late pieces of old connections"] = self.cluster.network.late_pieces
        counts["evictions"] = sum(
            replica.machine.stats.evictions
            for node in self.cluster.nodes.values()
            for replica in node.replicas.values()
        )
        counts["reads at followers"] = sum(
            metrics.read_here
            for node in self.cluster.nodes.values()
            for metrics in node.group_metrics.values()
        )
        return counts


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
    started = time.process_time()
    collecting = gc.isenabled()
    gc.disable()  # when garbage is collected must not depend on what ran before
    game = Run(seed, options, faults, trace)
    logging_before = trace_logs(game.cluster)
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
        options.system.judged(scheduler.violations)[:MOST_VIOLATIONS],
        counts=game.count(),
        callbacks=scheduler.callbacks,
        virtual_s=scheduler.now,
        cpu_s=time.process_time() - started,
        history=history,
    )
    _judge(outcome, game.keys.vanishing, check_seconds)
    return outcome


def _judge(outcome: Outcome, vanishing: tuple[str, ...], seconds: float) -> None:
    started, history = time.process_time(), outcome.history
    may_vanish = vanishing.__contains__
    model = CacheModel(slack_ns=SLACK_NS, drift=DRIFT, may_vanish=may_vanish)
    outcome.report = report = check(history, model=model, seconds=seconds)
    accusations = staleness.check(history, slack_ns=SLACK_NS, drift=DRIFT, may_vanish=may_vanish)
    outcome.check_s = time.process_time() - started
    outcome.undecided = report.verdict is Verdict.UNDECIDED
    for bad in report.bad:
        culprit = "" if bad.culprit is None else f"; no order explains {bad.culprit}"
        at = outcome.virtual_s if bad.culprit is None else (bad.culprit.end or 0) / 1e9
        outcome.violations.append(
            Violation(at, "not linearizable", f"key {bad.key}{culprit}; value {bad.state.value!r}")
        )
    for accusation in accusations[:MOST_VIOLATIONS]:
        at = (accusation.read.end or 0) / 1e9
        outcome.violations.append(Violation(at, "a stale read is too old", str(accusation)))
