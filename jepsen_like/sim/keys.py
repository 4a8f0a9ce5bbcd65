"""Which keys the clients use, and for what.

=========  =====================================================================================
registers  ``r*``: get, set, cas by version, conditional creation, del
counters   ``c*``: get, incr
expiring   ``e*``: get, set with a time to live, del
pairs      ``p*``: a register kept twice, in two keys of one slot, by atomic batches
vanishing  ``v*``: get, set, del; beside them so much filler that the group must evict
=========  =====================================================================================

In runs with little memory the last group is the one that evicts: the vanishing keys and the filler
live there and nothing else does, so that no key of the other kinds is ever evicted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from raftcache.partition import SlotMap

FILLERS = 100
FILLER_BYTES = 8 * 1024


@dataclass(frozen=True, slots=True)
class Keyspace:
    """``vanishing`` and ``filler`` are empty unless the run has little memory."""

    registers: tuple[str, ...]
    counters: tuple[str, ...]
    expiring: tuple[str, ...]
    pairs: tuple[str, ...]
    vanishing: tuple[str, ...] = ()
    filler: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Registers and counters only: what any store that replicates a log must get right."""
        return not self.expiring

    def plainly(self) -> Keyspace:
        """The same without all other keys."""
        return Keyspace(self.registers, self.counters, (), ())

    @property
    def strict(self) -> tuple[str, ...]:
        """Single keys that are never evicted."""
        return self.registers + self.counters + self.expiring

    @property
    def all(self) -> tuple[str, ...]:
        """What the history speaks of."""
        return self.strict + self.pairs + self.vanishing


def pair_of(name: str) -> tuple[bytes, bytes]:
    """The two keys of a pair."""
    return f"{{{name}}}a".encode(), f"{{{name}}}b".encode()


def keyspace(groups: int, *, small_memory: bool) -> Keyspace:
    """Names for a cluster of so many groups."""
    slots = SlotMap(groups)

    def take(prefix: str, number: int, wanted: Callable[[int], bool]) -> tuple[str, ...]:
        names = (f"{prefix}{i}" for i in count())
        fitting = (name for name in names if wanted(slots.group_of(name.encode())))
        return tuple(name for name, _ in zip(fitting, range(number), strict=False))

    def strict(group: int) -> bool:
        return not small_memory or group < groups - 1

    def evicting(group: int) -> bool:
        return small_memory and group == groups - 1

    return Keyspace(
        registers=take("r", 4, strict),
        counters=take("c", 2, strict),
        expiring=take("e", 2, strict),
        pairs=take("p", 2, strict),
        vanishing=take("v", 2, evicting) if small_memory else (),
        filler=take("f", FILLERS, evicting) if small_memory else (),
    )
