"""Was a stale read fresh enough? Its value must have been current at some instant of its window.

A read with ``max_staleness`` that lasted from ``start`` to ``end`` may show any state of the key
from ``start - max_staleness - slack`` until ``end``. When exactly a value was current is not known,
so it is bounded by what is: a value was certainly *not* current from some instant on if an
operation that began after the value was certainly there shows another one, and nothing that could
have brought it back exists. Every doubt acquits: unknown outcomes, values that several writes
bring, times to live. So nobody is accused wrongly, and with unique values a replica that serves
what was overwritten before the window is convicted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from jepsen_like.checkers.history import Operation, by_key

EVER: Final = math.inf


@dataclass(frozen=True, slots=True)
class Accusation:
    """A stale read that no instant of its window explains."""

    read: Operation
    why: str

    def __str__(self) -> str:
        return f"key {self.read.key}: {self.read}: {self.why}"


@dataclass(frozen=True, slots=True)
class _Source:
    """Something that brings a value: not before ``start``, certainly by ``latest``."""

    start: float
    latest: float


def check(
    history: Sequence[Operation],
    *,
    slack_ns: int = 0,
    drift: float = 0.0,
    may_vanish: Callable[[str], bool] = lambda key: False,
) -> list[Accusation]:
    """All stale reads that are too old or show what was never written. ``drift``: how much longer
    than the bound a clock may take it to be; ``may_vanish(key)``: the key may be evicted."""
    accusations: list[Accusation] = []
    for key, operations in by_key(history).items():
        if any(x.op == "stale" for x in operations):
            judge = _Key(operations, may_vanish(key))
            accusations += judge.accusations(slack_ns, drift)
    return accusations


class _Key:
    """The operations of one key."""

    def __init__(self, operations: Sequence[Operation], may_vanish: bool) -> None:
        self._reads = [x for x in operations if x.op == "stale" and x.ok is True]
        self._sources: dict[Any, list[_Source]] = {None: [_Source(-EVER, -EVER)]}
        self._any_number_from = EVER
        others = [x for x in operations if x.op != "stale" and x.ok is not False]
        for operation in others:
            self._add_sources(operation, may_vanish)
        shown = [x for x in others if x.ok is True and _shows(x) is not _NOTHING]
        self._tighten(shown)
        shown.sort(key=lambda x: x.end or 0)
        self._ends = [x.end or 0 for x in shown]
        self._latest_two = list(_latest_two(shown))

    def _add_sources(self, operation: Operation, may_vanish: bool) -> None:
        latest = EVER if operation.end is None else operation.end
        if operation.op == "incr" and operation.ok is None:
            self._any_number_from = min(self._any_number_from, operation.start)
            return
        if operation.op == "get" or (operation.op == "cas" and operation.result is False):
            return
        value = operation.args[-1] if operation.op == "cas" else _shows(operation)
        if operation.op in ("set", "del"):
            value = operation.args[0] if operation.op == "set" else None
        if value is _NOTHING:
            return
        self._sources.setdefault(value, []).append(_Source(operation.start, latest))
        expires = operation.op == "set" and len(operation.args) == 2 and operation.args[1] > 0
        if expires or (may_vanish and value is not None):
            self._sources[None].append(_Source(operation.start, EVER))

    def _tighten(self, shown: Sequence[Operation]) -> None:
        """Whoever saw a value that only one write brings came after that write."""
        for operation in shown:
            value = _shows(operation)
            sources = self._sources.get(value, [])
            if len(sources) == 1 and operation.end is not None:
                source = sources[0]
                if operation.end < source.latest:
                    sources[0] = _Source(source.start, operation.end)

    def accusations(self, slack_ns: int, drift: float) -> Iterator[Accusation]:
        """Of each read that nothing explains."""
        for read in self._reads:
            bound = read.args[0]
            window = -EVER
            if bound is not None:
                window = read.start - bound * 1e6 * (1.0 + drift) - slack_ns
            why = self._why_not(read.result, window, read.end or 0)
            if why is not None:
                yield Accusation(read, why)

    def _why_not(self, value: Any, window: float, end: float) -> str | None:
        if value is not None and self._any_number_from <= end and _is_number(value):
            return None
        sources = [x for x in self._sources.get(value, []) if x.start <= end]
        if not sources:
            return "nobody has written that yet"
        place = bisect_left(self._ends, window)  # operations that ended before the window
        if place == 0:
            return None
        later = max(start for start, seen in self._latest_two[place - 1] if seen != value)
        if any(later <= source.latest for source in sources):
            return None
        return "it was overwritten before the window began"


_NOTHING: Final = object()


def _shows(operation: Operation) -> Any:
    """The value that the key certainly had when the operation took effect; ``_NOTHING`` when it
    does not say."""
    match operation.op:
        case "get":
            return operation.result
        case "set":
            return operation.args[0]
        case "del":
            return None
        case "cas" if operation.result is True:
            return operation.args[1]
        case "incr" if operation.result is not None:
            return str(operation.result)
    return _NOTHING


def _latest_two(shown: Sequence[Operation]) -> Iterator[tuple[tuple[float, Any], ...]]:
    """For each prefix (by end) the latest start, and the latest one that shows another value."""
    best: tuple[float, Any] = (-EVER, _NOTHING)
    second: tuple[float, Any] = (-EVER, _NOTHING)
    for operation in shown:
        item = (float(operation.start), _shows(operation))
        if item[1] == best[1]:
            best = max(best, item, key=lambda x: x[0])
        elif item[0] > best[0]:
            best, second = item, best
        elif item[0] > second[0]:
            second = item
        # Whoever looks for a value that both show finds that nothing speaks against it.
        yield best, second, (-EVER, _NOTHING)


def _is_number(value: str) -> bool:
    return value.removeprefix("-").isdigit()
