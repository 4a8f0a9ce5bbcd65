"""The faults of a run: what, when and how long, drawn from the seed before it starts.

A schedule is plain data (``Fault``), so that a run can be told, replayed and cut down. ``Injector``
turns it into blocks, crashes and the rest, and ends all of it when the time for faults is over.
Overlapping faults are wanted; lifting one may lift a part of another.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from jepsen_like.sim.cluster import Cluster, side
from jepsen_like.sim.network import Cut

FAMILIES: Final = (
    "partition",
    "one-way",
    "reset",
    "delay",
    "loss",
    "crash",
    "pause",
    "slow",
    "clock",
    "transfer",
    "disk",
)
"""What ``--faults`` may name."""
NEEDS_DISK: Final = ("disk",)
"""Families that mean nothing to a memory-only cluster."""


NEEDS_PEERS: Final = ("partition", "one-way", "reset", "delay", "loss", "transfer")
"""Families that mean nothing to a single node."""


def applicable(families: Sequence[str], nodes: int, durable: bool) -> list[str]:
    """Those of ``families`` that such a cluster can meet."""
    spared = (() if durable else NEEDS_DISK) + (NEEDS_PEERS if nodes == 1 else ())
    return [family for family in families if family not in spared]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault from ``start`` for ``seconds``. ``seed`` draws its particulars."""

    start: float
    seconds: float
    family: str
    seed: int

    def __str__(self) -> str:
        return f"{self.family} {self.start:.2f}..{self.start + self.seconds:.2f} s"


def schedule(draw: random.Random, seconds: float, families: Sequence[str]) -> list[Fault]:
    """Faults for ``seconds``, a few families of those allowed, from few faults to very many."""
    if not families:
        return []
    chosen = draw.sample(list(families), draw.randint(1, len(families)))
    mean_gap = draw.choice((0.3, 1.0, 3.0))
    longest = draw.choice((0.5, 2.0, 6.0))
    faults = []
    at = 1.0 + draw.expovariate(1.0 / mean_gap)
    while at < seconds:
        length = min(draw.uniform(0.02, longest), seconds - at)
        faults.append(Fault(at, length, draw.choice(chosen), draw.getrandbits(32)))
        at += draw.expovariate(1.0 / mean_gap)
    return faults


class Injector:
    """Carries out a schedule on a cluster."""

    def __init__(self, cluster: Cluster, faults: Sequence[Fault]) -> None:
        self._cluster = cluster
        self._scheduler = cluster.scheduler
        self._over = False
        for fault in faults:
            self._scheduler.call_at(fault.start, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        draw = random.Random(fault.seed)
        action: Callable[[random.Random, float], None]
        action = getattr(self, "_" + fault.family.replace("-", "_"))
        action(draw, fault.seconds)

    def _say(self, what: str) -> None:
        self._scheduler.say("fault", what)

    def _until(self, seconds: float, undo: Callable[[], object]) -> None:
        self._scheduler.call_later(seconds, undo)

    def end(self) -> None:
        """No more faults: everything is repaired, everybody is up."""
        self._over = True
        self._say("all faults end")
        cluster = self._cluster
        cluster.network.heal()
        for name in cluster.names:
            disk = cluster.disks[name]
            disk.free_bytes, disk.fail_syncs, disk.fail_writes = None, 0, 0
            disk.sync_seconds = (0.0002, 0.002)
            process = cluster.process(name)
            if process is None:
                cluster.start(name)
            else:
                process.slow(0.0)
                process.resume()
                process.crash_after(-1, lambda: None)

    def _victim(self, draw: random.Random) -> str:
        """A node; a leader more often than not."""
        cluster = self._cluster
        leader = cluster.leader(draw.randrange(cluster.groups))
        return leader if leader is not None and draw.random() < 0.6 else draw.choice(cluster.names)

    # -- network

    def _partition(self, draw: random.Random, seconds: float) -> None:
        names = list(self._cluster.names)
        draw.shuffle(names)
        network, cut = self._cluster.network, draw.choice((Cut.STALL, Cut.STALL, Cut.REJECT))
        shape = draw.choice(("halves", "one", "one", "bridge", "ring"))
        pairs: list[tuple[str, str]] = []
        if shape in ("halves", "one"):
            alone = names[: len(names) // 2] if shape == "halves" else [self._victim(draw)]
            sides = side(names, alone)
            pairs = [(a, b) for a in sides[0] for b in sides[1]]
        elif shape == "bridge":  # one node sees both sides
            half = (len(names) - 1) // 2
            pairs = [(a, b) for a in names[1 : 1 + half] for b in names[1 + half :]]
        else:  # everybody sees a majority, no two the same one
            size = len(names)
            pairs = [(names[i], names[(i + size // 2) % size]) for i in range(size)]
            pairs = pairs[: max(1, size - 2)]
        both = pairs + [(b, a) for a, b in pairs]
        self._say(f"partition {shape} {cut.value} {pairs}")
        for a, b in both:
            network.block(a, b, cut)
        self._until(seconds, lambda: network.unblock(*both))

    def _one_way(self, draw: random.Random, seconds: float) -> None:
        network, victim = self._cluster.network, self._victim(draw)
        others = [name for name in self._cluster.names if name != victim]
        some = draw.sample(others, draw.randint(1, len(others)))
        outward = draw.random() < 0.5
        pairs = [(victim, other) if outward else (other, victim) for other in some]
        self._say(f"one way cut {pairs}")
        for a, b in pairs:
            network.block(a, b)
        self._until(seconds, lambda: network.unblock(*pairs))

    def _reset(self, draw: random.Random, seconds: float) -> None:
        del seconds
        a, b = draw.sample(self._cluster.names, 2)
        self._say(f"reset {a} {b}")
        self._cluster.network.reset(a, b)

    def _delay(self, draw: random.Random, seconds: float) -> None:
        network, victim = self._cluster.network, self._victim(draw)
        extra = draw.choice((0.01, 0.1, 0.5))
        others = [name for name in self._cluster.names if name != victim]
        pairs = [(victim, other) for other in others]
        if draw.random() < 0.7:
            pairs += [(b, a) for a, b in pairs]
        self._say(f"delay {extra} s {pairs}")

        def set_delay(value: float) -> None:
            for a, b in pairs:
                network.delay(a, b, value)

        set_delay(extra)
        self._until(seconds, lambda: set_delay(0.0))

    def _loss(self, draw: random.Random, seconds: float) -> None:
        network = self._cluster.network
        network.loss = draw.choice((0.01, 0.1, 0.3))
        self._say(f"loss {network.loss}")
        self._until(seconds, lambda: setattr(network, "loss", 0.0))

    # -- processes

    def _crash(self, draw: random.Random, seconds: float) -> None:
        """One node, or sometimes several or all at once; at any callback; back after a while."""
        names = list(self._cluster.names)
        many = draw.random()
        victims = [self._victim(draw)]
        if many < 0.1:
            victims = names
        elif many < 0.25:
            victims = draw.sample(names, draw.randint(1, len(names)))
        power = draw.random() < 0.7
        for victim in victims:
            process = self._cluster.process(victim)
            if process is None:
                continue
            crash = self._crash_of(victim, power, seconds * draw.uniform(0.5, 1.0))
            if draw.random() < 0.5:
                process.crash_after(draw.randint(1, 300), crash)
            else:
                crash()

    def _crash_of(self, name: str, power: bool, seconds: float) -> Callable[[], None]:
        def crash() -> None:
            if not self._over and self._may_crash():
                self._cluster.crash(name, power=power)
                self._until(seconds, lambda: None if self._over else self._cluster.start(name))

        return crash

    def _may_crash(self) -> bool:
        """With disks any number may crash; in memory only a minority may be without its state."""
        cluster = self._cluster
        return cluster.durable_mode or cluster.lame < (len(cluster.names) - 1) // 2

    def _pause(self, draw: random.Random, seconds: float) -> None:
        victim = self._victim(draw)
        process = self._cluster.process(victim)
        if process is not None:
            self._say(f"pause {victim}")
            process.pause()
            self._until(seconds, process.resume)

    def _slow(self, draw: random.Random, seconds: float) -> None:
        victim = self._victim(draw)
        process = self._cluster.process(victim)
        if process is not None:
            cost = draw.choice((0.0001, 0.0005, 0.002))
            self._say(f"slow {victim} {cost} s per callback")
            process.slow(cost)
            self._until(seconds, lambda: process.slow(0.0))

    def _clock(self, draw: random.Random, seconds: float) -> None:
        process = self._cluster.process(self._victim(draw))
        if process is not None:
            if draw.random() < 0.5:
                seconds = draw.choice((-3600.0, -1.0, 1.0, 3600.0))
                process.clock.jump(seconds)
                self._cluster.wall_errors[process.name] += seconds
                self._say(f"wall clock of {process.name} jumps")
            else:
                process.clock.set_rate(1.0 + draw.uniform(-0.02, 0.02))
                self._say(f"clock of {process.name} runs at {process.clock.rate:.4f}")

    # -- the system's own

    def _transfer(self, draw: random.Random, seconds: float) -> None:
        group = draw.randrange(self._cluster.groups)
        target = draw.choice((None, *self._cluster.names))
        nodes = list(self._cluster.nodes.values())
        if nodes:
            node = draw.choice(nodes)
            self._say(f"transfer group {group} to {target}, asked at {node.settings.node}")
            node.process.call_soon(lambda: node.transfer(group, target, node.now() + seconds))

    def _disk(self, draw: random.Random, seconds: float) -> None:
        victim = self._victim(draw)
        disk = self._cluster.disks[victim]
        kind = draw.choice(("slow", "slow", "full", "eio"))
        self._say(f"disk of {victim}: {kind}")
        if kind == "slow":
            disk.sync_seconds = (0.01, draw.choice((0.05, 0.5)))
            self._until(seconds, lambda: setattr(disk, "sync_seconds", (0.0002, 0.002)))
        elif kind == "full":
            disk.free_bytes = draw.randint(0, 5000)
            self._until(seconds, lambda: setattr(disk, "free_bytes", None))
        else:
            disk.fail_syncs = draw.randint(1, 3)
            self._until(seconds, lambda: setattr(disk, "fail_syncs", 0))
