"""Shapes of partitions: which directions between nodes are cut.

They are Jepsen's (``jepsen.nemesis``): a *bridge* cuts the network in half but for one node that
sees everybody; in a *majorities ring* every node hears a majority and no two the same one. With
three nodes the latter cuts one direction of every pair, which no TCP connection survives.
"""

from __future__ import annotations

from collections.abc import Sequence

Pair = tuple[str, str]


def both_ways(ones: Sequence[str], others: Sequence[str]) -> list[Pair]:
    """Every direction between two sides."""
    return [pair for a in ones for b in others for pair in ((a, b), (b, a))]


def bridge(names: Sequence[str]) -> list[Pair]:
    """Two halves that only the middle node, first of the larger one, connects."""
    half = len(names) // 2
    return both_ways(names[:half], names[half + 1 :])


def majorities_ring(names: Sequence[str]) -> list[Pair]:
    """Directions (source, target) to cut: each node hears only the majority around it."""
    size = len(names)
    majority = size // 2 + 1
    cut = []
    for place, target in enumerate(names):
        heard = {names[(place - majority // 2 + i) % size] for i in range(majority)}
        cut += [(source, target) for source in names if source not in heard]
    return cut
