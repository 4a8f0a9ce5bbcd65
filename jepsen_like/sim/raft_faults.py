"""Faults inside the group: leadership moves, messages come twice, snapshots are disturbed.

*Duplication*: a group's message is handed to it once more, later, on the same connection. The
sealed stream never does that; the groups must not depend on it for their safety. What the router
sends is spared: it relies on the stream.
"""

from __future__ import annotations

import random
from typing import Final

from jepsen_like.partitions import both_ways
from jepsen_like.sim.cluster import SimNode
from jepsen_like.sim.network_faults import reset
from jepsen_like.sim.stage import Action, Stage
from raftcache.ops import Result, Status

AMBUSHES: Final = 3
"""At most so many faults in the middle of snapshots that one fault causes."""


def transfer(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Ask any node to hand some group to some node, or to whoever is best."""
    cluster = stage.cluster
    group = draw.randrange(cluster.groups)
    target = draw.choice((None, *cluster.names))
    nodes = list(cluster.nodes.values())
    if not nodes:
        return
    node = draw.choice(nodes)
    stage.say(f"transfer group {group} to {target}, asked at {node.settings.node}")

    def done(result: Result) -> None:
        cluster.counts["transfers"] += result.status is Status.OK

    def ask() -> None:
        future = node.transfer(group, target, node.now() + seconds)
        future.add_done_callback(lambda ended: done(ended.result()))

    node.process.call_soon(ask)


def _storm(stage: Stage, draw: random.Random, seconds: float) -> None:
    """One after the other, before the last one has settled."""
    at, gap = 0.0, draw.choice((0.01, 0.05, 0.2))
    while at < seconds:
        stage.until(at, lambda: transfer(stage, draw, 1.0))
        at += gap * draw.uniform(0.5, 1.5)


def _duplicate(stage: Stage, draw: random.Random, seconds: float) -> None:
    cluster = stage.cluster
    cluster.duplication = draw.choice((0.05, 0.3, 1.0))
    stage.say(f"messages are delivered again, {cluster.duplication:g} of them")
    stage.until(seconds, lambda: setattr(cluster, "duplication", 0.0))


def _snapshot(stage: Stage, draw: random.Random, seconds: float) -> None:
    """A node falls behind, and when it is sent a snapshot something else happens."""
    cluster, victim = stage.cluster, draw.choice(stage.cluster.names)
    pairs = both_ways([victim], stage.others(victim))
    stage.say(f"{victim} falls behind")
    for a, b in pairs:
        cluster.network.block(a, b)

    def heal() -> None:
        cluster.network.unblock(*pairs)
        cluster.ambush = Ambush(stage, draw).meet

    stage.until(seconds * 0.7, heal)


class Ambush:
    """Waits for chunks of snapshots and strikes at some of them."""

    def __init__(self, stage: Stage, draw: random.Random) -> None:
        self._stage = stage
        self._draw = draw
        self._left = AMBUSHES

    def meet(self, receiver: SimNode, sender: str) -> None:
        """``receiver`` has got a chunk from ``sender``."""
        stage, draw = self._stage, self._draw
        if stage.over or self._left == 0 or draw.random() < 0.4:
            return
        self._left -= 1
        stage.cluster.counts["snapshots disturbed"] += 1
        name, seconds = receiver.settings.node, draw.choice((0.05, 0.3, 1.0))
        kind = draw.choice(("crash", "crash", "crash sender", "reset", "cut", "transfer", "pause"))
        stage.say(f"snapshot from {sender} to {name}: {kind}")
        if kind in ("crash", "crash sender"):
            process = stage.cluster.process(name if kind == "crash" else sender)
            if process is not None:
                crash = stage.crash_of(process.name, draw.random() < 0.7, seconds)
                process.crash_after(draw.randint(1, 60), crash)
        elif kind == "reset":
            stage.until(0.0, lambda: reset(stage, name, sender))
        elif kind == "cut":
            pairs = both_ways([name], [sender])
            for a, b in pairs:
                stage.cluster.network.block(a, b)
            stage.until(seconds, lambda: stage.cluster.network.unblock(*pairs))
        elif kind == "transfer":
            transfer(stage, draw, 1.0)
        else:
            receiver.process.pause()
            stage.until(seconds, receiver.process.resume)


ACTIONS: Final[dict[str, Action]] = {
    "transfer": transfer,
    "transfer-storm": _storm,
    "duplicate": _duplicate,
    "snapshot": _snapshot,
}
