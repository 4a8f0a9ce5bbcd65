"""The faults of a run: what, when and how long, drawn from the seed before it starts.

A schedule is plain data (``Fault``), so that a run can be told, replayed and cut down; ``injector``
carries it out.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

FAMILIES: Final = (
    "partition-halves",
    "partition-one",
    "partition-leader",
    "partition-bridge",
    "partition-ring",
    "partition-one-way",
    "reset",
    "reorder",
    "replay",
    "duplicate",
    "delay",
    "loss",
    "crash-kill",
    "crash-power",
    "crash-all",
    "pause",
    "slow",
    "clock-jump",
    "clock-drift",
    "transfer",
    "transfer-storm",
    "snapshot",
    "disk-slow",
    "disk-full",
    "disk-error",
    "disk-torn",
    "disk-flip",
    "disk-wipe",
)
"""What ``--faults`` may name, or the part before the first dash (``partition``, ``disk``) for all
that begin so."""
NEEDS_DISK: Final = tuple(name for name in FAMILIES if name.startswith("disk-"))
"""Families that mean nothing to a memory-only cluster."""
NEEDS_PEERS: Final = (
    *(name for name in FAMILIES if name.startswith("partition-")),
    "reset",
    "reorder",
    "replay",
    "duplicate",
    "delay",
    "loss",
    "transfer",
    "transfer-storm",
    "snapshot",
    "disk-flip",
    "disk-wipe",
)
"""Families that mean nothing to a single node, or that it cannot survive."""

LEAST_S: Final = {"snapshot": 1.0, "disk-flip": 0.3, "disk-wipe": 0.3, "reorder": 0.5}
"""Families that need some time to be what they are called."""


def expand(names: Iterable[str], known: Sequence[str] = FAMILIES) -> tuple[str, ...]:
    """The families meant by ``names``, in the order of those ``known``; ``ValueError`` with a name
    that is none."""
    wanted: dict[str, None] = {}
    for name in names:
        found = [family for family in known if family == name or family.startswith(name + "-")]
        if not found:
            raise ValueError(name)
        wanted.update(dict.fromkeys(found))
    return tuple(family for family in known if family in wanted)


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
    mean_gap = draw.choice((0.1, 0.2, 0.5, 2.0))
    longest = draw.choice((0.5, 2.0, 6.0))
    faults = []
    at = 1.0 + draw.expovariate(1.0 / mean_gap)
    while at < seconds:
        family, length = draw.choice(chosen), draw.uniform(0.02, longest)
        length = min(max(length, LEAST_S.get(family, 0.0)), seconds - at)
        faults.append(Fault(at, length, family, draw.getrandbits(32)))
        at += draw.expovariate(1.0 / mean_gap)
    return faults
