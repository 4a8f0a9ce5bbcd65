"""Who asks what: the next request of a worker, drawn from the workloads of the run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import accumulate
from typing import Any, Final

from jepsen_like.run.subjects import Batch, Kind, Request, Subject, Subjects
from jepsen_like.run.system import FaultKind, System

WORKLOADS: Final[dict[str, tuple[Kind, ...]]] = {
    "register": (Kind.REGISTER,),
    "counter": (Kind.COUNTER,),
    "set": (Kind.ELEMENT,),
    "txn": (Kind.TRANSACTION,),
    "expiry": (Kind.EXPIRING,),
    "eviction": (Kind.VANISHING,),
    "once": (Kind.ONCE_REGISTER, Kind.ONCE_COUNTER),
    "batch": (Kind.BATCH_REGISTER, Kind.BATCH_COUNTER),
}
"""What ``--workloads`` may name. ``stale`` and ``lease`` add such reads to the others."""
READS: Final = ("stale", "lease")
NAMES: Final = (*WORKLOADS, *READS)

NEEDS: Final = {
    "register": ("get", "set"),
    "counter": ("get", "incr"),
    "set": ("get", "set"),
    "txn": ("txn",),
    "expiry": ("get", "ttl"),
    "eviction": ("get", "set"),
    "once": ("get", "set", "incr", "once"),
    "batch": ("get", "set", "incr", "del", "batch"),
    "stale": ("stale",),
    "lease": ("lease",),
}
"""Operations that a workload cannot do without; others it leaves out where there are none."""

SHARES: Final = {
    Kind.REGISTER: 28,
    Kind.COUNTER: 12,
    Kind.ELEMENT: 14,
    Kind.TRANSACTION: 14,
    Kind.EXPIRING: 16,
    Kind.VANISHING: 8,
    Kind.ONCE_REGISTER: 4,
    Kind.ONCE_COUNTER: 4,
    Kind.BATCH_REGISTER: 5,
    Kind.BATCH_COUNTER: 3,
}
TTLS_MS: Final = (50, 100, 300, 1000, 3000)
BATCH_SHARE: Final = 0.7
"""Of what is asked of keys that are asked in batches."""
MOST_PARTS: Final = 6
MOST_OPEN: Final = 6
"""A key with so many operations under way is left alone by batches while there are others: they
bring several at a time, and the checker's work may double with each."""
HARD: Final = (Kind.TRANSACTION, Kind.VANISHING)
"""Their keys are the hardest to judge."""
MOST_OPEN_HARD: Final = 12
"""A hard key with so many operations under way gets no more. Without it 128 clients had up to 70 at
a time on one key, of which some could not be judged in a minute."""
LAST_SHARE: Final = 0.4
"""Of the requests, at most, while old keys wait for their last operations."""


def possible(system: System) -> tuple[str, ...]:
    """The workloads that a system can be given."""
    able = [name for name in NAMES if all(op in system.operations for op in NEEDS[name])]
    if FaultKind.PRESSURE not in system.faults:
        able = [name for name in able if name != "eviction"]
    return tuple(able)


def kinds_of(names: Iterable[str]) -> frozenset[Kind]:
    """The kinds of keys that workloads use."""
    return frozenset(kind for name in names for kind in WORKLOADS.get(name, ()))


class Chooser:
    """Draws the requests of one worker. ``number`` makes its values unlike any other's."""

    def __init__(
        self,
        number: int,
        draw: random.Random,
        subjects: Subjects,
        system: System,
        protocol: str,
        names: Iterable[str],
    ) -> None:
        self._number = number
        self._draw = draw
        self._subjects = subjects
        self._values = 0
        self._staleness = system.staleness_ms.get(protocol, ())
        operations, names = system.operations, tuple(names)

        def able(op: str) -> bool:
            return op in operations and system.supports(protocol, op)

        self._able: Callable[[str], bool] = able
        self._lease = "lease" in names and able("lease")
        self._stale = "stale" in names and able("stale")
        self._kinds = [
            kind
            for kind in Kind
            if kind in kinds_of(names)
            and (able("once") or kind not in (Kind.ONCE_REGISTER, Kind.ONCE_COUNTER))
            and (able("txn") or kind is not Kind.TRANSACTION)
            and (able("batch") or kind not in WORKLOADS["batch"])
        ]
        self._weights = list(accumulate(SHARES[kind] for kind in self._kinds))

    def next(self, now: float) -> Request | Batch | None:
        """``None``: there is nothing to do now."""
        subjects = self._subjects
        if subjects.ending or self._draw.random() < LAST_SHARE:
            last = subjects.next_last()
            if last is not None:
                return self._last(last)
        if subjects.ending:
            return None
        (kind,) = self._draw.choices(self._kinds, cum_weights=self._weights)
        live = subjects.live[kind]
        if kind is Kind.ELEMENT:
            return self._element(live, now)
        if kind in WORKLOADS["batch"]:
            subject = self._calm(live)
            return self._batch(subject) if self._draw.random() < BATCH_SHARE else self._on(subject)
        # Some keys are hot: what happens at the same time is where the mistakes are.
        subject = live[min(self._draw.randrange(len(live)), self._draw.randrange(len(live)))]
        if kind in HARD and subject.open >= MOST_OPEN_HARD:
            able = [x for x in live if x.open < MOST_OPEN_HARD]
            return self._on(self._calm(able)) if able else None
        return self._on(subject)

    def _calm(self, live: list[Subject]) -> Subject:
        return self._draw.choice([x for x in live if x.open < MOST_OPEN] or live)

    def _on(self, subject: Subject) -> Request:
        draw = self._draw.random()
        match subject.kind:
            case Kind.COUNTER | Kind.BATCH_COUNTER:
                return self._read(subject) if draw < 0.3 else self._incr(subject)
            case Kind.ONCE_COUNTER:
                return self._read(subject) if draw < 0.3 else self._incr(subject, once=True)
            case Kind.TRANSACTION:
                return self._transaction(subject)
            case Kind.EXPIRING:
                return self._expiring(subject, draw)
            case Kind.ONCE_REGISTER:
                return self._register(subject, draw, once=True)
        return self._register(subject, draw)

    def _register(self, subject: Subject, draw: float, once: bool = False) -> Request:
        if draw < 0.45:
            return self._read(subject)
        if draw < 0.52 and self._able("del"):
            return Request(subject, "del", (), once)
        if draw < 0.75 and self._able("cas"):
            return Request(subject, "cas", (subject.value, self._value()), once)
        return Request(subject, "set", (self._value(),), once)

    def _batch(self, subject: Subject) -> Batch:
        """The next part is often about the same key, where order matters, else about any other."""
        draw, parts = self._draw, [self._part(subject)]
        for _ in range(draw.randrange(MOST_PARTS)):
            if draw.random() < 0.5:
                subject = self._calm(self._subjects.live[draw.choice(WORKLOADS["batch"])])
            parts.append(self._part(subject))
        return Batch(tuple(parts))

    def _part(self, subject: Subject) -> Request:
        draw = self._draw.random()
        if draw < 0.45:
            return Request(subject, "get", ())
        if subject.kind is Kind.BATCH_COUNTER:
            return self._incr(subject)
        if draw < 0.55:
            return Request(subject, "del", ())
        return Request(subject, "set", (self._value(),))

    def _expiring(self, subject: Subject, draw: float) -> Request:
        """Mostly reads: what was overwritten before it expired shows nothing."""
        if draw < 0.2:
            return Request(subject, "ttl", (self._value(), self._draw.choice(TTLS_MS)))
        if draw < 0.94:
            return self._read(subject)
        if draw < 0.97 and self._able("del"):
            return Request(subject, "del", ())
        return Request(subject, "set", (self._value(),))

    def _incr(self, subject: Subject, once: bool = False) -> Request:
        return Request(subject, "incr", (self._draw.choice((1, 1, 1, 5, -2)),), once)

    def _read(self, subject: Subject) -> Request:
        draw = self._draw.random()
        if self._stale and draw < 0.15:
            return Request(subject, "stale", (self._draw.choice(self._staleness),))
        if self._lease and draw < 0.4:
            return Request(subject, "lease", ())
        return Request(subject, "get", ())

    def _element(self, live: list[Subject], now: float) -> Request:
        if not live or self._draw.random() < 0.4:
            subject = self._subjects.new(Kind.ELEMENT, now)
            live.append(subject)
            return Request(subject, "set", (self._value(),))
        return self._read(self._draw.choice(live))

    def _transaction(self, subject: Subject) -> Request:
        """One to four parts, on two lists, a register and a counter of the same slot."""
        draw, tag = self._draw, subject.key
        if draw.random() < 0.25:
            return self._read_all(subject)
        micros: list[tuple[Any, ...]] = []
        for _ in range(draw.randint(1, 4)):
            match draw.randrange(5):
                case 0 | 1 if self._able("append"):
                    micros.append(("append", f"{{{tag}}}{draw.choice('ab')}", self._value() + " "))
                case 0 | 1 | 2:
                    micros.append(("set", f"{{{tag}}}r", self._value()))
                case 3:
                    micros.append(("incr", f"{{{tag}}}n", draw.choice((1, 3))))
                case _:
                    micros.append(("get", f"{{{tag}}}{draw.choice('abrn')}"))
        return Request(subject, "txn", tuple(micros))

    @staticmethod
    def _read_all(subject: Subject) -> Request:
        return Request(subject, "txn", tuple(("get", f"{{{subject.key}}}{x}") for x in "abrn"))

    def _last(self, subject: Subject) -> Request:
        """Of a key that has rested; deletion keeps the cluster's memory free for others."""
        transaction = subject.kind is Kind.TRANSACTION
        if transaction and not self._able("txn"):
            raise AssertionError("every protocol of a system with transactions has them")
        if subject.closing:
            return self._read_all(subject) if transaction else Request(subject, "get", ())
        if transaction:
            return Request(subject, "txn", tuple(("del", f"{{{subject.key}}}{x}") for x in "abrn"))
        return Request(subject, "del" if self._able("del") else "get", ())

    def _value(self) -> str:
        self._values += 1
        return f"{self._number}.{self._values}"
