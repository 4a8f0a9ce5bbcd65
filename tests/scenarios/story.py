"""How the scenarios are told: once with a guard, once without it.

``@scenario("name")`` runs a story twice. With ``guarded`` the promise must hold; without it the
very same schedule must show the harm, and the story says which: a guard whose absence nobody
notices protects nothing. ``@construction("name")`` marks a test of a defect that cannot occur.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from raftcache.raft import wire
from raftcache.raft.group import Outcome
from raftcache.raft.options import RaftOptions
from tests.raft.harness import Cluster, Proposal

Test = TypeVar("Test", bound=Callable[..., Any])

TINY_LOG = RaftOptions(log_retention_bytes=200)
SMALL_MESSAGES = RaftOptions(max_append_bytes=30)


def scenario(*guards: str) -> Callable[[Test], Test]:
    """The test takes ``guarded``: with and without ``guards``."""

    def mark(test: Test) -> Test:
        modes = pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "without"])
        return modes(pytest.mark.guards(*guards)(test))

    return mark


def construction(name: str) -> Callable[[Test], Test]:
    """The test shows that the defects of this construction cannot occur."""
    return pytest.mark.construction(name)


def cluster(names: str, *, guarded: bool, **options: Any) -> Cluster:
    """A cluster that goes on after breaking a promise when it may break one."""
    return Cluster(names, crippled=not guarded, **options)


def lost(proposals: Sequence[Proposal], state: Sequence[bytes]) -> list[bytes]:
    """What was acknowledged and is not there."""
    told = [p.payload for p in proposals if p.outcome is Outcome.APPLIED]
    return [payload for payload in told if payload not in state]


def broke(c: Cluster, promise: str) -> bool:
    """Whether ``promise`` was broken."""
    c.turn()
    return any(promise in broken for broken in c.broken)


def slow_disk(c: Cluster, name: str, seconds: float = 0.2) -> None:
    """Every write at ``name`` takes so long from now on."""
    c.disks[name].sync_seconds = (seconds, seconds)


class _Worst(random.Random):
    """Of what a power failure may leave of a file, the least."""

    def choice(self, seq: Any) -> Any:
        return min(seq, key=abs)


def nothing_unsynced_survives(c: Cluster, *names: str) -> None:
    """By luck some of it could."""
    for name in names:
        c.disks[name].random = _Worst(1)


class _Torn(random.Random):
    """The write under way is in the file, in all its length; its last sector is zeros."""

    def choice(self, seq: Any) -> Any:
        return 1 if -1 in seq else max(seq)

    def random(self) -> float:
        return 0.1

    def randint(self, a: int, b: int) -> int:
        return b


def tear_the_last_write(c: Cluster, name: str) -> None:
    """What is being written when the power fails gets on the disk in part."""
    c.disks[name].random = _Torn(1)


def alone(c: Cluster, *names: str) -> None:
    """Nobody hears or reaches anybody but within ``names``; no connection is seen to end."""
    c.held = {(x, y) for x, y in c.queues if (x in names) != (y in names)}


def campaign(c: Cluster, name: str) -> int:
    """Make ``name`` a candidate of the next term, whatever it thinks; returns the term."""
    c[name].group.engine.campaign()
    c.turn()
    return c[name].term


def other_leader(c: Cluster, term: int) -> str:
    """Wait until somebody leads in a later term than ``term``."""
    c.until(lambda: c.leader is not None and c.leader.term > term and c.leader.group.leader_ready)
    assert c.leader is not None
    return c.leader.name


def lost_without(c: Cluster, gone: str, proposals: Sequence[Proposal]) -> list[bytes]:
    """What was acknowledged and is not there once the nodes ``gone``, the leader first, have
    crashed and the others have gone on, hearing all that is said."""
    term = c[gone[0]].term
    for name in gone:
        c.crash(name)
    c.held.clear()
    survivor = c[other_leader(c, term)]
    c.write(survivor.name, b"z")
    return lost(proposals, survivor.state)


def entries_sent(c: Cluster, source: str, target: str) -> list[int]:
    """The index of every entry sent from ``source`` to ``target``, in order."""
    return [
        message.prev_index + 1 + i
        for s, t, message in c.sent
        if (s, t) == (source, target) and isinstance(message, wire.Append)
        for i in range(len(message.entries))
    ]
