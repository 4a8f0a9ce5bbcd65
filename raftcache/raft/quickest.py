"""Which replicas to ask first, when not all have to answer: one list for each kind of question.

Now and then all are asked at the same time, and who answers first goes first from then on. Who
lets the asker wait goes last.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

RACE_EVERY_S: Final = 0.1
"""Something that is asked so long after the last race is asked of all: the next race."""


class Quickest:
    """The members ``nodes``, the one to ask first in front."""

    def __init__(self, nodes: Sequence[str], now: Callable[[], float]) -> None:
        self._order = list(nodes)
        self._now = now
        self._raced_at = -1e18

    def __len__(self) -> int:
        return len(self._order)

    @property
    def all(self) -> Sequence[str]:
        """All of them, in order."""
        return self._order

    def first(self, count: int, able: Callable[[str], bool]) -> Sequence[str]:
        """The first ``count`` of those that are able to answer; all, when these are no more than
        that."""
        those = [node for node in self._order if able(node)]
        return those[:count] if len(those) > count else self._order

    def race(self) -> bool:
        """Whether it is time to ask all; then this is the race."""
        now = self._now()
        due = now - self._raced_at >= RACE_EVERY_S
        if due:
            self._raced_at = now
        return due

    def won(self, node: str) -> None:
        """``node`` was the first to answer in a race."""
        self._order.remove(node)
        self._order.insert(0, node)

    def slow(self, nodes: Collection[str]) -> None:
        """These have not answered in the time that they were given."""
        self._order.sort(key=nodes.__contains__)
