"""What every fault works with: the cluster, the time that is left, and the rules that keep a run
survivable.

Overlapping faults are wanted; lifting one may lift a part of another. A rule holds for all: in
memory-only mode never more than a minority of the nodes is without its state, and with disks never
more than a minority of the disks is damaged, wiped or not yet filled again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from jepsen_like.sim.cluster import Cluster


class Stage:
    """``over``: the time for faults has ended, nobody may start anything."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.scheduler = cluster.scheduler
        self.over = False

    def say(self, what: str) -> None:
        """A line of the story."""
        self.scheduler.say("fault", what)

    def until(self, seconds: float, undo: Callable[[], object]) -> None:
        """Call ``undo`` so much later; after the end of all faults everything is undone anyway."""
        self.scheduler.call_later(seconds, lambda: None if self.over else undo())

    def victim(self, draw: random.Random) -> str:
        """A node; a leader more often than not."""
        leader = self.leader(draw)
        names = self.cluster.names
        return leader if leader is not None and draw.random() < 0.6 else draw.choice(names)

    def leader(self, draw: random.Random) -> str | None:
        """The leader of some group, if it has one."""
        return self.cluster.leader(draw.randrange(self.cluster.groups))

    def others(self, name: str) -> list[str]:
        """All nodes but one."""
        return [other for other in self.cluster.names if other != name]

    # -- crashes, shared by several families

    @property
    def minority(self) -> int:
        """How many nodes every group does without, whichever they are."""
        return (self.cluster.replication - 1) // 2

    def may_crash(self) -> bool:
        """With disks any number may crash; in memory only a minority may be without its state."""
        return self.cluster.durable_mode or self.cluster.lame < self.minority

    def may_damage(self, name: str) -> bool:
        """Whether the disk of ``name`` may lose what it has."""
        damaged = self.cluster.damaged()
        return name in damaged or len(damaged) < self.minority

    def crash_of(self, name: str, power: bool, seconds: float) -> Callable[[], None]:
        """What crashes ``name`` when it is called, and restarts it ``seconds`` later."""

        def crash() -> None:
            if not self.over and self.may_crash():
                self.cluster.crash(name, power=power)
                self.until(seconds, lambda: self.cluster.start(name))

        return crash


class Action(Protocol):
    """Carries out one fault: its particulars come from ``draw``."""

    def __call__(self, stage: Stage, draw: random.Random, seconds: float) -> None: ...
