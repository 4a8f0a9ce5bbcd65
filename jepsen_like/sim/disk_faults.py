"""Faults of disks: slow, full, failing, torn, rotten, replaced.

A flipped bit must be refused at the next start or be harmless; a node that refuses gets what an
operator would give it, an empty disk, and recovers from the others. One place is spared: the last
complete block of the newest journal. Rot there cannot be told from a torn write (nothing after it
says that it was ever complete), and is cut off like one; no log without a second copy of its end
can do better.
"""

from __future__ import annotations

import random
from typing import Final

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.stage import Action, Stage
from raftcache.raft.blocks import blocks

QUICK_SYNC_S: Final = (0.0002, 0.002)
"""How long a sync takes on a healthy disk."""


def _slow(stage: Stage, draw: random.Random, seconds: float) -> None:
    victim = stage.victim(draw)
    disk = stage.cluster.disks[victim]
    disk.sync_seconds = (0.01, draw.choice((0.05, 0.5)))
    stage.say(f"disk of {victim} is slow")
    stage.until(seconds, lambda: setattr(disk, "sync_seconds", QUICK_SYNC_S))


def _full(stage: Stage, draw: random.Random, seconds: float) -> None:
    victim = stage.victim(draw)
    disk = stage.cluster.disks[victim]
    disk.free_bytes = draw.randint(0, 5000)
    stage.say(f"disk of {victim} has {disk.free_bytes} bytes left")
    stage.until(seconds, lambda: setattr(disk, "free_bytes", None))


def _error(stage: Stage, draw: random.Random, seconds: float) -> None:
    victim = stage.victim(draw)
    disk = stage.cluster.disks[victim]
    disk.fail_syncs = draw.randint(1, 3)
    stage.say(f"disk of {victim}: the next {disk.fail_syncs} syncs fail")
    stage.until(seconds, lambda: setattr(disk, "fail_syncs", 0))


def _torn(stage: Stage, draw: random.Random, seconds: float) -> None:
    """The power fails while a write is under way, and a part of it is on the disk."""
    victim = stage.victim(draw)
    disk = stage.cluster.disks[victim]
    disk.sync_seconds = (0.02, 0.05)
    crash = stage.crash_of(victim, True, seconds * draw.uniform(0.5, 1.0))

    def fail() -> None:
        disk.sync_seconds, disk.tear_next = QUICK_SYNC_S, True
        crash()

    stage.until(draw.uniform(0.05, 0.1), fail)


def _flip(stage: Stage, draw: random.Random, seconds: float) -> None:
    """A node goes down, bits rot, it is started again; if it refuses, an operator helps."""
    victim, cluster = stage.victim(draw), stage.cluster
    if not stage.may_damage(victim) or cluster.process(victim) is None:
        return
    cluster.crash(victim, power=draw.random() < 0.5)
    for _ in range(draw.choice((1, 1, 1, 8))):
        path = flip_bit(cluster.disks[victim], draw)
        if path is not None:
            stage.say(f"a bit of {path} on the disk of {victim} is flipped")
            cluster.damage(victim)
    stage.until(seconds * 0.4, lambda: cluster.start(victim))
    stage.until(seconds, lambda: cluster.replace_disk(victim))


def _wipe(stage: Stage, draw: random.Random, seconds: float) -> None:
    """The machine is replaced by a new one with an empty disk."""
    victim, cluster = stage.victim(draw), stage.cluster
    if stage.may_damage(victim):
        cluster.wipe(victim)
        stage.until(seconds, lambda: cluster.start(victim))


def flip_bit(disk: SimDisk, draw: random.Random) -> str | None:
    """Flip one bit where it can be noticed; the file's path, ``None`` when there is no such
    place."""
    contents = disk.contents()
    places = {path: len(data) for path, data in contents.items()}
    for directory in {path.rpartition("/")[0]: None for path in contents}:
        newest = True
        prefix = f"{directory}/journal-"
        for path in sorted((p for p in contents if p.startswith(prefix)), reverse=True):
            ends = _ends(path, contents[path])
            places[path] = ends[-2 if newest else -1]
            newest = newest and ends[-1] == 0
    places = {path: size for path, size in places.items() if size}
    if not places:
        return None
    path = draw.choice(sorted(places))
    disk.flip(path, draw.randrange(places[path]), draw.randrange(8))
    return path


def _ends(path: str, journal: bytes) -> list[int]:
    """Where the blocks of a segment end, after two zeros: behind them is nothing yet."""
    digits = path.rpartition("-")[2]
    if not digits.isdigit():
        return [0, 0]
    return [0, 0, *(end for _, end in blocks(journal, int(digits)))]


ACTIONS: Final[dict[str, Action]] = {
    "disk-slow": _slow,
    "disk-full": _full,
    "disk-error": _error,
    "disk-torn": _torn,
    "disk-flip": _flip,
    "disk-wipe": _wipe,
}
