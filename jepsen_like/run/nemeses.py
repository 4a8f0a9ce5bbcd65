"""The faults: which there are, what each needs, and what it does.

A schedule is drawn from a seed before the run starts, and is plain data (the simulator's
``Fault``), so that it can be told, kept and given again. Faults come in episodes, alone or a few
together, with some quiet in between, in which the cluster has to recover.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from jepsen_like.partitions import Pair, both_ways, bridge, majorities_ring
from jepsen_like.run.stage import Stage
from jepsen_like.run.system import Cut, FaultKind, Link, System
from jepsen_like.sim.faults import Fault

Action = Callable[[Stage, random.Random, float], Awaitable[None]]
FIRST_S: Final = 2.0
"""Peace before the first fault."""
LONGEST_S: Final = 8.0
FULL_DISK_S: Final = 10.0
QUIET_S: Final = (2.0, 4.0)


def _shuffled(stage: Stage, draw: random.Random) -> list[str]:
    names = list(stage.nodes)
    draw.shuffle(names)
    return names


def _others(stage: Stage, node: str) -> list[str]:
    return [other for other in stage.nodes if other != node]


async def _cut(
    stage: Stage,
    draw: random.Random,
    seconds: float,
    family: str,
    pairs: list[Pair],
    what: str,
    *,
    refusing: bool = True,
) -> None:
    refuse = refusing and stage.able(FaultKind.REFUSE) and draw.random() < 0.3
    cut = Cut.REFUSE if refuse else Cut.STALL
    async with stage.band(family, f"{what} ({cut.value})"), stage.links(pairs, Link(cut=cut)):
        await stage.sleep(seconds)


async def _halves(stage: Stage, draw: random.Random, seconds: float) -> None:
    names = _shuffled(stage, draw)
    half = len(names) // 2
    pairs = both_ways(names[:half], names[half:])
    what = f"{' '.join(names[:half])} | {' '.join(names[half:])}"
    await _cut(stage, draw, seconds, "partition-halves", pairs, what)


async def _one(stage: Stage, draw: random.Random, seconds: float) -> None:
    node = draw.choice(stage.nodes)
    pairs = both_ways([node], _others(stage, node))
    await _cut(stage, draw, seconds, "partition-one", pairs, node)


async def _leader(stage: Stage, draw: random.Random, seconds: float) -> None:
    node = await stage.leader(draw)
    pairs = both_ways([node], _others(stage, node))
    await _cut(stage, draw, seconds, "partition-leader", pairs, node)


async def _bridge(stage: Stage, draw: random.Random, seconds: float) -> None:
    names = _shuffled(stage, draw)
    what = f"over {names[len(names) // 2]}"
    await _cut(stage, draw, seconds, "partition-bridge", bridge(names), what)


async def _ring(stage: Stage, draw: random.Random, seconds: float) -> None:
    names = _shuffled(stage, draw)
    pairs = majorities_ring(names)
    await _cut(stage, draw, seconds, "partition-ring", pairs, " ".join(names), refusing=False)


async def _one_way(stage: Stage, draw: random.Random, seconds: float) -> None:
    node = await stage.leader(draw) if draw.random() < 0.5 else draw.choice(stage.nodes)
    others = _others(stage, node)
    some = draw.sample(others, draw.randint(1, len(others)))
    outward = draw.random() < 0.5
    pairs = [(node, other) if outward else (other, node) for other in some]
    what = f"{node} {'->' if outward else '<-'} {' '.join(some)}"
    await _cut(stage, draw, seconds, "partition-one-way", pairs, what, refusing=False)


async def _reset(stage: Stage, draw: random.Random, seconds: float) -> None:
    """All connections between two nodes, once or again and again."""
    a, b = draw.sample(stage.nodes, 2)
    times = draw.choice((1, 4, 16))
    async with stage.band("reset", f"{a} {b}, {times} times"):
        for _ in range(times):
            await stage.system.network.reset(a, b)
            await stage.sleep(seconds / times)


async def _orphan(stage: Stage, draw: random.Random, seconds: float) -> None:
    """One end is reset and dials again, while its old bytes are still on their way."""
    a, b = draw.sample(stage.nodes, 2)
    late_s = draw.choice((0.1, 0.3, 1.0))
    async with stage.band("orphan", f"{a} -> {b}, {late_s} s late"):
        rounds = max(1, int(seconds / (2 * late_s)))
        for _ in range(rounds):
            async with stage.links([(a, b)], Link(delay_s=late_s)):
                await stage.sleep(late_s / 2)
                await stage.system.network.orphan(a, b, late_s)
            await stage.sleep(1.5 * late_s)


async def _delay(stage: Stage, draw: random.Random, seconds: float) -> None:
    node = await stage.leader(draw) if draw.random() < 0.5 else draw.choice(stage.nodes)
    pairs = [(node, other) for other in _others(stage, node)]
    if draw.random() < 0.7:
        pairs += [(b, a) for a, b in pairs]
    link = Link(delay_s=draw.choice((0.005, 0.05, 0.2)), jitter_s=draw.choice((0.0, 0.01, 0.1)))
    what = f"{node}: {link.delay_s * 1000:g} ms, up to {link.jitter_s * 1000:g} more"
    async with stage.band("delay", what), stage.links(pairs, link):
        await stage.sleep(seconds)


def _everywhere(family: str, links: Sequence[Link]) -> Action:
    """One of these on all directions."""

    async def act(stage: Stage, draw: random.Random, seconds: float) -> None:
        link = draw.choice(links)
        pairs = [(a, b) for a in stage.nodes for b in stage.nodes if a != b]
        value = link.loss or link.duplicate or link.reorder
        async with stage.band(family, f"{value:.0%}"), stage.links(pairs, link):
            await stage.sleep(seconds)

    return act


async def _rate(stage: Stage, draw: random.Random, seconds: float) -> None:
    node = draw.choice(stage.nodes)
    pairs = both_ways([node], _others(stage, node))
    link = Link(bytes_per_s=draw.choice((50_000, 300_000)))
    what = f"{node}: {(link.bytes_per_s or 0) / 1000:g} kB/s"
    async with stage.band("rate", what), stage.links(pairs, link):
        await stage.sleep(seconds)


async def _kill(
    stage: Stage, family: str, nodes: list[str], seconds: float, draw: random.Random
) -> None:
    """Sometimes the nodes are back at once, as under a supervisor."""
    if not stage.durable:
        nodes = stage.take(nodes)
    if nodes:
        async with stage.band(family, " ".join(nodes)), stage.down(nodes):
            await stage.sleep(seconds if draw.random() < 0.7 else 0.0)


async def _kill_one(stage: Stage, draw: random.Random, seconds: float) -> None:
    await _kill(stage, "kill-one", [draw.choice(stage.nodes)], seconds, draw)


async def _kill_leader(stage: Stage, draw: random.Random, seconds: float) -> None:
    await _kill(stage, "kill-leader", [await stage.leader(draw)], seconds, draw)


async def _kill_minority(stage: Stage, draw: random.Random, seconds: float) -> None:
    nodes = _shuffled(stage, draw)[: (len(stage.nodes) - 1) // 2]
    await _kill(stage, "kill-minority", nodes, seconds, draw)


async def _kill_all(stage: Stage, draw: random.Random, seconds: float) -> None:
    await _kill(stage, "kill-all", list(stage.nodes), min(seconds, 2.0), draw)


async def _pause(stage: Stage, family: str, nodes: list[str], seconds: float) -> None:
    async with stage.band(family, " ".join(nodes)), stage.paused(nodes):
        await stage.sleep(seconds)


async def _pause_one(stage: Stage, draw: random.Random, seconds: float) -> None:
    await _pause(stage, "pause-one", [draw.choice(stage.nodes)], seconds)


async def _pause_leader(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Often short: it comes back while others elect, and may believe that it still leads."""
    seconds = min(seconds, draw.choice((0.3, 0.6, 1.0, 10.0)))
    await _pause(stage, "pause-leader", [await stage.leader(draw)], seconds)


async def _pause_all(stage: Stage, draw: random.Random, seconds: float) -> None:
    await _pause(stage, "pause-all", list(stage.nodes), min(seconds, draw.choice((0.5, 2.0))))


async def _wipe(stage: Stage, draw: random.Random, seconds: float) -> None:
    nodes = stage.take([draw.choice(stage.nodes)])
    if nodes:
        async with stage.band("wipe", " ".join(nodes)), stage.down(nodes):
            for node in nodes:
                await stage.system.wipe(node)
            await stage.sleep(min(seconds, 2.0))


async def _rolling_restart(stage: Stage, draw: random.Random, seconds: float) -> None:
    """As an operator does it: each node is stopped, started, and waited for."""
    del seconds
    async with stage.band("rolling-restart", "all"):
        for node in _shuffled(stage, draw):
            if stage.over or (not stage.durable and not stage.take([node])):
                continue
            async with stage.down([node], gently=True):
                pass


async def _transfer(stage: Stage, draw: random.Random, seconds: float) -> None:
    await _transfers(stage, draw, seconds, "transfer", (0.3, 1.0))


async def _storm(stage: Stage, draw: random.Random, seconds: float) -> None:
    await _transfers(stage, draw, seconds, "transfer-storm", (0.0, 0.02))


async def _transfers(
    stage: Stage, draw: random.Random, seconds: float, family: str, gap_s: tuple[float, float]
) -> None:
    end = asyncio.get_running_loop().time() + seconds
    async with stage.band(family, "all groups"):
        while not stage.over and asyncio.get_running_loop().time() < end:
            target = draw.choice((None, *stage.nodes))
            await stage.system.transfer(draw.randrange(1024), target)
            await stage.sleep(draw.uniform(*gap_s))


async def _pressure(stage: Stage, draw: random.Random, seconds: float) -> None:
    del draw
    async with stage.band("pressure", "memory filled"):
        stage.pressure += 1
        try:
            await stage.sleep(seconds)
        finally:
            stage.pressure -= 1


async def _slow_disk(stage: Stage, draw: random.Random, seconds: float) -> None:
    node, slow_s = draw.choice(stage.nodes), draw.choice((0.02, 0.1, 0.5))
    async with stage.band("disk-slow", f"{node}: {slow_s * 1000:g} ms"):
        await stage.system.slow_disk(node, slow_s)
        try:
            await stage.sleep(seconds)
        finally:
            await stage.system.slow_disk(node, 0.0)


async def _full_disks(stage: Stage, family: str, nodes: Sequence[str], seconds: float) -> None:
    """Long enough for what was allocated ahead to be used up (``filler``)."""
    async with stage.band(family, " ".join(nodes)):
        await stage.full_disks(nodes, max(seconds, FULL_DISK_S))


async def _full_disk(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Others have space, so that they are to lead."""
    await _full_disks(stage, "disk-full-one", [draw.choice(stage.nodes)], seconds)


async def _full_majority(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Of some part, which has to refuse writes then."""
    part = draw.choice(stage.system.replicas)
    nodes = draw.sample(part, len(part) // 2 + 1)
    await _full_disks(stage, "disk-full-majority", nodes, seconds)


async def _clock(stage: Stage, draw: random.Random, seconds: float) -> None:
    """Jumps to and fro, several times."""
    node = draw.choice(stage.nodes)
    async with stage.band("clock", node):
        try:
            for _ in range(draw.choice((1, 5))):
                await stage.system.shift_clock(
                    node, draw.choice((-3600.0, -5.0, 0.5, 30.0, 86400.0))
                )
                await stage.sleep(seconds / 5)
        finally:
            await stage.system.shift_clock(node, 0.0)


class Nemesis(NamedTuple):
    """``needs``: what the system must be able to be given. ``peers``: it means nothing to a single
    node."""

    action: Action
    needs: frozenset[FaultKind]
    peers: bool = True


def _of(action: Action, *needs: FaultKind, peers: bool = True) -> Nemesis:
    return Nemesis(action, frozenset(needs), peers)


_K = FaultKind
NEMESES: Final[dict[str, Nemesis]] = {
    "partition-halves": _of(_halves, _K.CUT),
    "partition-one": _of(_one, _K.CUT),
    "partition-leader": _of(_leader, _K.CUT),
    "partition-bridge": _of(_bridge, _K.CUT),
    "partition-ring": _of(_ring, _K.CUT),
    "partition-one-way": _of(_one_way, _K.CUT, _K.ONE_WAY),
    "reset": _of(_reset, _K.RESET),
    "orphan": _of(_orphan, _K.ORPHAN, _K.DELAY),
    "delay": _of(_delay, _K.DELAY),
    "loss": _of(_everywhere("loss", [Link(loss=x) for x in (0.01, 0.1, 0.3)]), _K.LOSS),
    "duplicate": _of(
        _everywhere("duplicate", [Link(duplicate=x) for x in (0.05, 0.5)]), _K.DUPLICATE
    ),
    "reorder": _of(_everywhere("reorder", [Link(reorder=x) for x in (0.05, 0.3)]), _K.REORDER),
    "rate": _of(_rate, _K.RATE),
    "kill-one": _of(_kill_one, _K.KILL),
    "kill-leader": _of(_kill_leader, _K.KILL),
    "kill-minority": _of(_kill_minority, _K.KILL),
    "kill-all": _of(_kill_all, _K.KILL, peers=False),
    "pause-one": _of(_pause_one, _K.PAUSE),
    "pause-leader": _of(_pause_leader, _K.PAUSE),
    "pause-all": _of(_pause_all, _K.PAUSE, peers=False),
    "wipe": _of(_wipe, _K.WIPE, _K.KILL),
    "rolling-restart": _of(_rolling_restart, _K.RESTART),
    "transfer": _of(_transfer, _K.TRANSFER),
    "transfer-storm": _of(_storm, _K.TRANSFER),
    "pressure": _of(_pressure, _K.PRESSURE, peers=False),
    "disk-slow": _of(_slow_disk, _K.SLOW_DISK),
    "disk-full-one": _of(_full_disk, _K.FULL_DISK),
    "disk-full-majority": _of(_full_majority, _K.FULL_DISK, peers=False),
    "clock": _of(_clock, _K.CLOCK, peers=False),
}
"""What ``--faults`` may name, or the part before the first dash (``partition``, ``kill``)."""
FAMILIES: Final = tuple(NEMESES)


def possible(system: System, *, durable: bool) -> tuple[str, ...]:
    """The families that a system can be given. One that would lose the data of more nodes than it
    promises to survive is none of them."""
    able = []
    for family, nemesis in NEMESES.items():
        if not nemesis.needs <= system.faults or (nemesis.peers and len(system.nodes) < 2):
            continue
        loses = family == "wipe" or (
            not durable and (family.startswith("kill") or family == "rolling-restart")
        )
        if loses and (system.tolerated == 0 or family == "kill-all"):
            continue
        able.append(family)
    return tuple(able)


def schedule(draw: random.Random, seconds: float, families: Sequence[str]) -> list[Fault]:
    """Episodes until ``seconds``. Every family comes before any comes again; the same draw gives
    the same schedule."""
    faults: list[Fault] = []
    deck: list[str] = []
    at = FIRST_S
    while families and at < seconds:
        length = draw.uniform(0.5, LONGEST_S)
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            if not deck:
                deck = list(families)
                draw.shuffle(deck)
            start = draw.uniform(at, at + length * 0.4)
            end = draw.uniform(start + 0.3, at + length + 0.3)
            faults.append(Fault(start, end - start, deck.pop(), draw.getrandbits(32)))
        at += length + draw.uniform(*QUIET_S)
    return sorted(faults, key=lambda fault: fault.start)
