"""What an entry costs in memory: a pure function of sizes, so that every replica evicts alike.

The constants model CPython's allocations on a 64-bit system (3.11 to 3.13) and were checked against
the resident size of processes with a million entries (``benchmarks/memory.py``). They are part of
the replicated semantics: replicas that disagree about them diverge. Nothing here asks the
interpreter (``sys.getsizeof``), whose answers differ between versions.

Per entry: a key and a value, each a bytes object (33 bytes more than its length, in steps of 16); a
tuple of three (64 with the collector's header); the version, an int of 32; and a share of the dict
that holds it. That dict has room for 1.3 to 4 times its entries, depending on how far the number is
from a power of two and how long ago it was resized; the share below is a little above the middle.
"""

from __future__ import annotations

from typing import Final

Entry = tuple[bytes, int, int] | tuple[bytes, int, int, int]
"""Value, version, deadline in machine time (0: none), and flags unless they are 0. Immutable, so
that a snapshot needs no copy of it; a tuple of atoms, so that the collector forgets it."""

TUPLE: Final = 64
INTEGER: Final = 32
DICT_SHARE: Final = 88
ENTRY: Final = TUPLE + INTEGER + DICT_SHARE

DEADLINE: Final = INTEGER + 16
"""The deadline's int and a place in the expiry heap, beside the item there, see below."""
FLAGS: Final = 16 + INTEGER


def entry_cost(key: bytes, entry: Entry, overhead: int) -> int:
    """Bytes that ``key`` and ``entry`` take. ``overhead``: ``ENTRY`` and what the policy adds."""
    cost = overhead + ((len(key) + 48) & -16) + ((len(entry[0]) + 48) & -16)
    if entry[2]:
        # The item is a bytes object of the key and 8 bytes; a quarter more for garbage.
        cost += DEADLINE + ((len(key) + 56) & -16) * 5 // 4
    if len(entry) == 4:
        cost += FLAGS
    return cost
