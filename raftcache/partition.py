"""Which group holds a key, and which nodes hold a group: pure functions, the same on every node.

Keys map to 16384 slots by the Redis Cluster rule (CRC16 of the hash tag), so that clients which
know it can find a key's leader by themselves. Slots map to groups by a consistent-hash ring, so
that adding a group to G moves about 1/(G+1) of the slots and none between the old groups. Groups
map to nodes by replaying the order in which the nodes joined, so that a node added at the end of
the list takes only its share, and leaders are spread as evenly as whole numbers allow.

Changing anything here moves keys: the constants are part of the contract between nodes.
"""

from __future__ import annotations

from binascii import crc_hqx
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import mmh3

SLOTS: Final = 16384
MAX_GROUPS: Final = 1024
VIRTUAL_NODES: Final = 512
"""Points of a group on the ring. The largest group has at most 1.14 times the mean for up to 64
groups; 128 points would give 1.25, 1024 hardly less, because slots are few by then (256 each)."""

_SEED: Final = 0x72616674
_SLOT_MASK: Final = SLOTS - 1
_BRACE: Final = ord("{")  # searching a byte is five times as quick as a one-byte string


def hash_tag(key: bytes) -> bytes:
    """The part of ``key`` that is hashed: what stands between the first ``{`` and the first ``}``
    after it, or the whole key when there is no such part or it is empty (Redis Cluster
    specification, "Hash tags")."""
    start = key.find(b"{")
    if start < 0:
        return key
    end = key.find(b"}", start + 1)
    return key[start + 1 : end] if end > start + 1 else key


def slot_of(key: bytes) -> int:
    """Slot of ``key``, 0 to 16383: CRC16 (XMODEM) of its hash tag."""
    return crc_hqx(hash_tag(key) if _BRACE in key else key, 0) & _SLOT_MASK


class SlotMap:
    """Slot -> group for a number of groups. Immutable; equal on every node."""

    __slots__ = ("_virtual_nodes", "groups", "table")

    def __init__(self, groups: int, virtual_nodes: int = VIRTUAL_NODES) -> None:
        self.groups = groups
        self._virtual_nodes = virtual_nodes
        self.table = _slot_table(groups, virtual_nodes)
        """The group of each slot."""

    def group_of(self, key: bytes) -> int:
        """Group of ``key``. On the path of every operation: 0.26 us."""
        if self.groups == 1:
            return 0
        return self.table[crc_hqx(hash_tag(key) if _BRACE in key else key, 0) & _SLOT_MASK]

    def ranges(self) -> tuple[tuple[int, int, int], ...]:
        """(first slot, last slot, group) in slot order, neighbours merged, all slots covered."""
        return _ranges(self.groups, self._virtual_nodes)

    def counts(self) -> tuple[int, ...]:
        """Number of slots of each group."""
        return _counts(self.groups, self._virtual_nodes)


@lru_cache(maxsize=8)
def _counts(groups: int, virtual_nodes: int) -> tuple[int, ...]:
    counted = Counter(_slot_table(groups, virtual_nodes))
    return tuple(counted[group] for group in range(groups))


@lru_cache(maxsize=8)
def _ranges(groups: int, virtual_nodes: int) -> tuple[tuple[int, int, int], ...]:
    table = _slot_table(groups, virtual_nodes)
    found: list[tuple[int, int, int]] = []
    first = 0
    for slot in range(1, SLOTS + 1):
        if slot == SLOTS or table[slot] != table[first]:
            found.append((first, slot - 1, table[first]))
            first = slot
    return tuple(found)


@lru_cache(maxsize=8)
def _slot_table(groups: int, virtual_nodes: int) -> tuple[int, ...]:
    """Each slot belongs to the group whose point follows the slot's own on the ring."""
    if not 1 <= groups <= MAX_GROUPS or virtual_nodes < 1:
        raise ValueError(f"{groups} groups with {virtual_nodes} virtual nodes each")
    ring = sorted(
        (mmh3.hash128(f"group {group} {point}".encode(), _SEED), group)
        for group in range(groups)
        for point in range(virtual_nodes)
    )
    points = [point for point, _ in ring]
    table = []
    for slot in range(SLOTS):
        position = bisect_right(points, mmh3.hash128(f"slot {slot}".encode(), _SEED))
        table.append(ring[position % len(ring)][1])
    return tuple(table)


@lru_cache(maxsize=64)
def place_groups(
    groups: int, members: tuple[str, ...], replication: int
) -> tuple[tuple[str, ...], ...]:
    """For each group the members that hold it, its preferred leader first.

    Every member is preferred leader of ``groups // len(members)`` groups or one more. A member
    added at the end of ``members`` takes its share of replicas and leaders from the others, and
    nothing else changes place. ``ValueError`` when there are fewer members than ``replication``.
    """
    if not 1 <= replication <= len(members) or len(set(members)) != len(members):
        raise ValueError(f"cannot place {replication} replicas on {members}")
    first = members[:replication]
    placement = [
        [first[(group + i) % replication] for i in range(replication)] for group in range(groups)
    ]
    for size in range(replication + 1, len(members) + 1):
        _join(placement, members[:size], replication)
    return tuple(tuple(replicas) for replicas in placement)


def _join(placement: list[list[str]], members: Sequence[str], replication: int) -> None:
    """Give ``members[-1]`` its share, always from whoever has most."""
    *old, new = members
    order = sorted(
        range(len(placement)), key=lambda group: mmh3.hash128(f"{new} {group}".encode(), _SEED)
    )
    leading = Counter(replicas[0] for replicas in placement)
    holding = Counter(member for replicas in placement for member in replicas)

    def leaver_of(replicas: list[str]) -> str:
        return max(replicas[1:] or replicas, key=lambda member: (holding[member], member))

    for _ in range(len(placement) // len(members)):
        most = max(old, key=lambda member: (leading[member], member))
        # Of the groups that it leads the one whose leaver has most: with two replicas the group
        # leaves no choice of that.
        led = [placement[group] for group in order if placement[group][0] == most]
        replicas = max(led, key=lambda replicas: holding[leaver_of(replicas)])
        leaver = leaver_of(replicas)
        replicas.remove(leaver)
        replicas.insert(0, new)
        leading.update({most: -1, new: 1})
        holding.update({leaver: -1, new: 1})
    while replication > 1 and holding[new] < len(placement) * replication // len(members):
        leaver, replicas = next(
            (member, placement[group])
            for member in sorted(old, key=lambda member: (-holding[member], member))
            for group in order
            if member in placement[group][1:] and new not in placement[group]
        )
        replicas[replicas.index(leaver)] = new
        holding.update({leaver: -1, new: 1})
