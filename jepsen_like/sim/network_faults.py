"""Faults of the network: who cannot reach whom, and what happens to connections.

The shapes of partitions are those of ``jepsen_like.partitions``.
"""

from __future__ import annotations

import random
from typing import Final

from jepsen_like.partitions import Pair, both_ways, bridge, majorities_ring
from jepsen_like.sim.cluster import side
from jepsen_like.sim.intruder import Intruder
from jepsen_like.sim.network import Cut
from jepsen_like.sim.stage import Action, Stage


def _cut(stage: Stage, draw: random.Random, seconds: float, shape: str, pairs: list[Pair]) -> None:
    network, cut = stage.cluster.network, draw.choice((Cut.STALL, Cut.STALL, Cut.REJECT))
    stage.say(f"partition {shape} {cut.value} {pairs}")
    stage.cluster.counts["partitions"] += 1
    for a, b in pairs:
        network.block(a, b, cut)
    stage.until(seconds, lambda: network.unblock(*pairs))


def _shuffled(stage: Stage, draw: random.Random) -> list[str]:
    names = list(stage.cluster.names)
    draw.shuffle(names)
    return names


def _halves(stage: Stage, draw: random.Random, seconds: float) -> None:
    names = _shuffled(stage, draw)
    half = len(names) // 2
    _cut(stage, draw, seconds, "halves", both_ways(names[:half], names[half:]))


def _one(stage: Stage, draw: random.Random, seconds: float) -> None:
    alone, rest = side(stage.cluster.names, [draw.choice(stage.cluster.names)])
    _cut(stage, draw, seconds, "one", both_ways(alone, rest))


def _leader(stage: Stage, draw: random.Random, seconds: float) -> None:
    leader = stage.leader(draw) or draw.choice(stage.cluster.names)
    _cut(stage, draw, seconds, "leader", both_ways([leader], stage.others(leader)))


def _bridge(stage: Stage, draw: random.Random, seconds: float) -> None:
    _cut(stage, draw, seconds, "bridge", bridge(_shuffled(stage, draw)))


def _ring(stage: Stage, draw: random.Random, seconds: float) -> None:
    _cut(stage, draw, seconds, "ring", majorities_ring(_shuffled(stage, draw)))


def _one_way(stage: Stage, draw: random.Random, seconds: float) -> None:
    network, victim = stage.cluster.network, stage.victim(draw)
    others = stage.others(victim)
    some = draw.sample(others, draw.randint(1, len(others)))
    outward = draw.random() < 0.5
    pairs = [(victim, other) if outward else (other, victim) for other in some]
    stage.say(f"one way cut {pairs}")
    stage.cluster.counts["partitions"] += 1
    for a, b in pairs:
        network.block(a, b)
    stage.until(seconds, lambda: network.unblock(*pairs))


def _reset(stage: Stage, draw: random.Random, seconds: float) -> None:
    """All connections between two nodes at once; sometimes again and again."""
    a, b = draw.sample(stage.cluster.names, 2)
    for number in range(draw.choice((1, 1, 4))):
        stage.until(seconds * number / 4, lambda: reset(stage, a, b))


def reset(stage: Stage, a: str, b: str) -> None:
    """Reset what there is between two nodes."""
    stage.say(f"reset {a} {b}")
    stage.cluster.counts["resets"] += stage.cluster.network.reset(a, b)


def _reorder(stage: Stage, draw: random.Random, seconds: float) -> None:
    """The dialing end of a connection is reset and dials again, while what it had sent is still on
    its way and the other end knows nothing: bytes of the old connection arrive after the new one
    was accepted."""
    network = stage.cluster.network
    dialer, acceptor = sorted(draw.sample(stage.cluster.names, 2))
    late = draw.choice((0.1, 0.3, 1.0))
    network.delay(dialer, acceptor, late)

    def cut() -> None:
        stage.say(f"connections {dialer}->{acceptor} orphaned, their bytes {late} s late")
        network.delay(dialer, acceptor, 0.0)
        network.orphan(dialer, acceptor)

    stage.until(min(seconds, late / 2), cut)


def _replay(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Recorded bytes of an old connection, sent to the listener once more."""
    del seconds
    records = [record for record in stage.cluster.network.records if record.data]
    if records:
        Intruder(stage, draw.choice(records)).start()


def _delay(stage: Stage, draw: random.Random, seconds: float) -> None:
    network, victim = stage.cluster.network, stage.victim(draw)
    extra = draw.choice((0.01, 0.1, 0.5))
    pairs = [(victim, other) for other in stage.others(victim)]
    if draw.random() < 0.7:
        pairs += [(b, a) for a, b in pairs]
    stage.say(f"delay {extra} s {pairs}")

    def set_delay(value: float) -> None:
        for a, b in pairs:
            network.delay(a, b, value)

    set_delay(extra)
    stage.until(seconds, lambda: set_delay(0.0))


def _loss(stage: Stage, draw: random.Random, seconds: float) -> None:
    network = stage.cluster.network
    network.loss = draw.choice((0.01, 0.1, 0.3))
    stage.say(f"loss {network.loss}")
    stage.until(seconds, lambda: setattr(network, "loss", 0.0))


ACTIONS: Final[dict[str, Action]] = {
    "partition-halves": _halves,
    "partition-one": _one,
    "partition-leader": _leader,
    "partition-bridge": _bridge,
    "partition-ring": _ring,
    "partition-one-way": _one_way,
    "reset": _reset,
    "reorder": _reorder,
    "replay": _replay,
    "delay": _delay,
    "loss": _loss,
}
