"""Keys with a history of their own, from their first operation to the judge.

The checker's work grows with what may have happened at the same time, so that no history is long
and none has many unknown outcomes: a key is used for a while, then rests, and another takes its
place. When it has rested long enough for any fault around it to be over, it is read again (what was
acknowledged must still be there), deleted, and its history goes to the judge. So a run may last for
hours and hold no more than the histories of the last minute.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from jepsen_like.checkers.history import Operation

MOST_OPERATIONS: Final = 600
MOST_UNKNOWN: Final = 6
"""Each doubles, at worst, what the checker has to look at."""
LIFE_S: Final = 25.0
"""From a key's first operation to its last ones."""
FINAL_READS: Final = 2


class Kind(enum.Enum):
    """What a key is used for: (start of its name, keys in use at a time)."""

    REGISTER = ("r", 8)
    COUNTER = ("c", 4)
    ELEMENT = ("s", 0)
    """Written once and read until the end: a set whose members are its keys."""
    TRANSACTION = ("t", 4)
    """A tag; the keys of transactions are ``{tag}a`` and so on."""
    EXPIRING = ("e", 32)
    """Many, so that most are left alone until they expire."""
    VANISHING = ("v", 4)
    """Where memory is short; may be evicted."""
    ONCE_REGISTER = ("o", 3)
    ONCE_COUNTER = ("p", 3)
    """Every write carries a token and is repeated until its outcome is known."""
    BATCH_REGISTER = ("b", 12)
    BATCH_COUNTER = ("d", 6)
    """Mostly asked in batches."""

    def __init__(self, prefix: str, width: int) -> None:
        self.prefix: Final = prefix
        self.width: Final = width


def may_vanish(key: str) -> bool:
    """Whether keys of that name may be evicted."""
    return key.startswith(Kind.VANISHING.prefix)


@dataclass(slots=True, eq=False)
class Subject:
    """One key. ``value`` is the last one that somebody saw, which a later cas expects."""

    key: str
    kind: Kind
    born_s: float
    begun: int = 0
    open: int = 0
    unknown: int = 0
    value: str | None = None
    closing: int = -1
    """Last operations still to be begun; -1: it is not that far."""
    operations: list[Operation] = field(default_factory=list)

    @property
    def worn(self) -> bool:
        """Whether another one should take its place."""
        return self.begun >= MOST_OPERATIONS or self.unknown >= MOST_UNKNOWN


class Subjects:
    """All keys of a run. ``closed`` takes each history that is complete; ``crowded`` says where
    memory is short."""

    def __init__(
        self,
        kinds: frozenset[Kind],
        crowded: Callable[[str], bool],
        closed: Callable[[Subject], None],
    ) -> None:
        self._kinds = kinds
        self._crowded = crowded
        self._closed = closed
        self._numbers = dict.fromkeys(Kind, 0)
        self._all: dict[Subject, None] = {}
        self._resting: deque[Subject] = deque()
        self._last: deque[Subject] = deque()
        self.live: dict[Kind, list[Subject]] = {kind: [] for kind in kinds}
        self.ending = False

    def fill(self, now: float) -> None:
        """Make as many keys as are to be in use; called again when some are worn."""
        for kind in Kind:
            if kind not in self._kinds or self.ending:
                continue
            live = self.live[kind]
            for place, subject in enumerate(live):
                if subject.worn:
                    self._resting.append(subject)
                    live[place] = self.new(kind, now)
            while len(live) < kind.width:
                live.append(self.new(kind, now))

    def new(self, kind: Kind, now: float) -> Subject:
        """A key that was never used; an element is put among the live ones later."""
        while True:
            self._numbers[kind] += 1
            key = f"{kind.prefix}{self._numbers[kind]}"
            if self._crowded(key) is (kind is Kind.VANISHING):
                subject = Subject(key, kind, now)
                self._all[subject] = None
                return subject

    def age(self, now: float) -> None:
        """Whoever has rested long enough is to be read for the last time."""
        elements = self.live.get(Kind.ELEMENT, [])
        gone = 0
        for subject in elements:  # in order of age
            if now - subject.born_s < LIFE_S and not self.ending:
                break
            gone += 1
            self._close(subject)
        del elements[:gone]
        while self._resting and (self.ending or now - self._resting[0].born_s >= LIFE_S):
            self._close(self._resting.popleft())

    def end(self) -> None:
        """No new keys; all that there are come to their last operations."""
        self.ending = True
        for live in self.live.values():
            for subject in live:
                self._close(subject)
            live.clear()

    def _close(self, subject: Subject) -> None:
        subject.closing = FINAL_READS + 1
        self._last.append(subject)

    def next_last(self) -> Subject | None:
        """A key that waits for one of its last operations: reads, then (``closing`` is 0 then) its
        deletion."""
        while self._last:
            subject = self._last[0]
            if subject.closing == 0:
                self._last.popleft()
                continue
            if subject.closing == 1 and subject.open:
                # Deleted alone: nobody may miss it by that.
                self._last.rotate(-1)
                return None
            subject.closing -= 1
            return subject
        return None

    def begin(self, subject: Subject) -> None:
        """An operation starts."""
        subject.begun += 1
        subject.open += 1

    def end_operation(self, subject: Subject, operation: Operation) -> None:
        """It is over."""
        subject.open -= 1
        subject.unknown += operation.ok is None
        subject.operations.append(operation)
        if subject.closing == 0 and subject.open == 0 and subject in self._all:
            del self._all[subject]
            self._closed(subject)

    @property
    def waiting(self) -> int:
        """Keys that have not come to their end."""
        return len(self._all)

    def close_all(self) -> None:
        """Close what never came to its end: of a run that ends early, or a cluster that does not
        answer any more."""
        for subject in self._all:
            self._closed(subject)
        self._all.clear()


@dataclass(frozen=True, slots=True)
class Request:
    """What a worker is to do. ``op`` is the client's name for it, ``once`` whether to repeat."""

    subject: Subject
    op: str
    args: tuple[Any, ...]
    once: bool = False

    @property
    def reads(self) -> bool:
        """Whether it changes nothing, and may be repeated freely."""
        if self.op == "txn":
            return all(micro[0] == "get" for micro in self.args)
        return self.op in ("get", "lease", "stale")

    @property
    def recorded(self) -> str:
        """Its name in the history."""
        return {"lease": "get", "ttl": "set"}.get(self.op, self.op)


@dataclass(frozen=True, slots=True)
class Batch:
    """What a worker is to ask in one message; each part is an operation of its own."""

    parts: tuple[Request, ...]
