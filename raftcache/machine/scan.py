"""Iteration over all keys (``SCAN``), in the order of their hash.

That order is the same on every replica and whatever was written meanwhile, so a cursor is nothing
but a hash: it may go on at another leader, and a key that is there from the first call to the last
one is returned. The index is no part of the replicated state. A replica builds it when an iteration
begins, a slice at a time, so that a million keys stop the event loop for milliseconds only, and
forgets it after a while.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from typing import Final

import mmh3
from cachetools import LRUCache, cached

from raftcache.partition import slot_of

HASH_BITS: Final = 52
_BUCKET_BITS: Final = 10
_SHIFT: Final = HASH_BITS - _BUCKET_BITS
MAX_PATTERNS: Final = 64
"""Kept compiled: an iteration brings its pattern with each of its calls."""
_SLICE: Final = 4096
"""Keys hashed at a time: about two milliseconds."""


def place(key: bytes) -> int:
    """Where an iteration meets ``key``: 1 to 2**52."""
    return (mmh3.mmh3_x64_128_uintdigest(key) >> (128 - HASH_BITS)) + 1


class KeyIndex:
    """The keys that there were when it was made. Exhaust ``steps`` before the first ``page``."""

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._buckets: list[list[tuple[int, bytes]]] = [[] for _ in range(1 << _BUCKET_BITS)]
        self._sorted = [False] * len(self._buckets)
        self._keys = list(keys)

    def steps(self) -> Iterator[None]:
        """Build it, a slice at a time."""
        buckets = self._buckets
        for start in range(0, len(self._keys), _SLICE):
            for key in self._keys[start : start + _SLICE]:
                at = place(key)
                buckets[(at - 1) >> _SHIFT].append((at, key))
            yield
        self._keys = []

    def page(self, start: int, count: int, here: Container[bytes]) -> tuple[list[bytes], int]:
        """Keys from place ``start`` on, about ``count`` of them, less those not ``here`` any more;
        and the place to go on from, 0 at the end."""
        found: list[bytes] = []
        looked_at = last = 0
        for number in range(max(0, start - 1) >> _SHIFT, len(self._buckets)):
            bucket = self._buckets[number]
            if not self._sorted[number]:
                bucket.sort()
                self._sorted[number] = True
            for at, key in bucket:
                if at < start:
                    continue
                if looked_at >= count and at != last:
                    return found, at
                last = at
                looked_at += 1
                if key in here:
                    found.append(key)
        return found, 0


def matcher(pattern: bytes | None, slot: int) -> Callable[[bytes], bool]:
    """Whether a key matches a glob-style pattern as Redis has them (``None``: any), and is in
    ``slot`` (negative: any)."""
    if pattern is None or pattern == b"*":
        return lambda key: slot < 0 or slot_of(key) == slot
    matches = _compiled(pattern).match
    return lambda key: matches(key) is not None and (slot < 0 or slot_of(key) == slot)


@cached(LRUCache(MAX_PATTERNS))
def _compiled(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(_expression(pattern), re.DOTALL)


def _expression(pattern: bytes) -> bytes:
    """``stringmatchlen`` of Redis as a regular expression. What stands between two stars is matched
    as early as possible and never again, so no pattern takes more than quadratic time."""
    pieces = [b""]
    at = 0
    while at < len(pattern):
        char = pattern[at : at + 1]
        at += 1
        if char == b"*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append(b"")
        elif char == b"?":
            pieces[-1] += b"."
        elif char == b"[":
            text, at = _set(pattern, at)
            pieces[-1] += text
        else:
            if char == b"\\" and at < len(pattern):
                char = pattern[at : at + 1]
                at += 1
            pieces[-1] += re.escape(char)
    first, *rest = pieces
    if not rest:
        return first + rb"\Z"
    middle = b"".join(b"(?>.*?" + piece + b")" for piece in rest[:-1])
    return first + middle + b".*" + rest[-1] + rb"\Z"


def _set(pattern: bytes, at: int) -> tuple[bytes, int]:
    """``[...]`` from after its bracket: an expression, and where it ends. Redis takes a set that is
    not closed as one that ends with the pattern."""
    negated = pattern[at : at + 1] == b"^"
    at += negated
    members: set[int] = set()
    while at < len(pattern) and pattern[at : at + 1] != b"]":
        if pattern[at : at + 1] == b"\\" and at + 1 < len(pattern):
            members.add(pattern[at + 1])
            at += 2
        elif at + 2 < len(pattern) and pattern[at + 1 : at + 2] == b"-":
            low, high = sorted((pattern[at], pattern[at + 2]))
            members.update(range(low, high + 1))
            at += 3
        else:
            members.add(pattern[at])
            at += 1
    if negated:
        members = set(range(256)) - members
    if not members:
        return b"(?!)", at + 1
    return b"[" + b"".join(b"\\x%02x" % each for each in sorted(members)) + b"]", at + 1
