"""Is there an order of the operations that explains every answer? (Wing & Gong, Lowe.)

**The search.** Linearize one operation after another, depth first; go back when stuck. What may
come next in a configuration (what is linearized so far, and the model's state) is any operation
that started no later than every other one still open has ended. *Closed intervals*: an operation
that starts at the very instant at which another ends counts as concurrent with it. Clocks have a
resolution, and two equal readings do not tell which came first; taking the more permissive view
can only acquit, never convict wrongly. Operations with equal starts are concurrent for the same
reason, so their order in the file does not matter.

**Pipelines**: an operation that was sent in one message with others, and after them, does not come
before they are linearized (those that certainly happened; one of unknown outcome may come later).

**Never twice** (Lowe): a configuration that was visited is not visited again. The operations that
certainly happened are kept as (how many leading ones are linearized, bits of those beyond), so a
configuration is small however long the history is.

**No choice where none matters**: an operation that changes nothing in any state (a read, a failed
cas) is linearized as soon as it can come next. In any explanation that places it later, it can be
moved here: it may come next, nobody misses it there, and what has to follow it still does. (Not so
a write that happens to leave the state as it is here: later it might have changed it.)

**Unknown outcomes** never end: they may come anywhere after their start, or not at all. They are
tried last, when nothing that certainly happened fits; those that would change nothing are not
tried. Two reductions keep them from multiplying: of several that are alike (same op, same
arguments) the one that started first is used first, since it can stand wherever another one stands;
and a configuration is hopeless if the same one with fewer of them used up was.

**Running out** of time or configurations is never "valid": the verdict is ``UNDECIDED``.
"""

from __future__ import annotations

import enum
import math
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from jepsen_like.checkers.foresight import traceless
from jepsen_like.checkers.history import Operation, by_key
from jepsen_like.checkers.models import INITIAL, CacheModel, Model, State

NEVER: Final = math.inf
CHECK_CLOCK_EVERY: Final = 1024


class Verdict(enum.IntEnum):
    """The exit status of ``python -m jepsen_like check``; of several parts, see ``combine``."""

    VALID = 0
    INVALID = 1
    UNDECIDED = 2


@dataclass(frozen=True, slots=True)
class KeyReport:
    """The verdict on one key. When ``INVALID``: ``prefix`` explains (in this order) everything up
    to the return of ``culprit``, which is the first that no order explains; ``stuck`` are the
    operations that could have come next where the best attempt ended, in ``state``. When nothing
    more precise could be found in time, ``culprit`` is ``None``."""

    key: str
    verdict: Verdict
    operations: int
    configurations: int
    prefix: tuple[Operation, ...] = ()
    culprit: Operation | None = None
    stuck: tuple[Operation, ...] = ()
    state: State = INITIAL


@dataclass(frozen=True, slots=True)
class Report:
    """The verdict on a history: invalid if any key is, valid if all are, else undecided."""

    keys: tuple[KeyReport, ...] = field(default_factory=tuple)

    @property
    def verdict(self) -> Verdict:
        verdicts = [key.verdict for key in self.keys]
        if Verdict.INVALID in verdicts:
            return Verdict.INVALID
        return Verdict.UNDECIDED if Verdict.UNDECIDED in verdicts else Verdict.VALID

    @property
    def bad(self) -> list[KeyReport]:
        return [key for key in self.keys if key.verdict is Verdict.INVALID]


class _OutOfBudgetError(Exception):
    """No time or no room left."""


@dataclass(slots=True)
class Budget:
    """What a judgement may cost: until ``deadline`` by ``clock``, and ``configurations`` remembered
    at a time (some hundred bytes each)."""

    deadline: float
    configurations: int
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def of(
        cls,
        seconds: float,
        configurations: int = 1_000_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> Budget:
        return cls(clock() + seconds, configurations, clock)


class _Search:
    """One depth-first search over the operations of one key."""

    def __init__(self, operations: Sequence[Operation], model: Model, budget: Budget) -> None:
        happened = [x for x in operations if x.ok is True]
        self.known = sorted(happened, key=lambda x: (x.start, x.end))
        self.starts = [x.start for x in self.known]
        self.ends = [NEVER if x.end is None else x.end for x in self.known]
        self.pipelined_after = _pipelined_after(self.known)
        self.pure = [model.changes_nothing(x) for x in self.known]
        self.unknown = sorted(_useful_unknowns(operations), key=lambda x: x.start)
        self.unknown_starts = [x.start for x in self.unknown]
        self.alike_before = _alike_before(self.unknown)
        self.foresight, self.readers = model.foresight(self.known, self.unknown)
        self.model = model
        self.budget = budget
        self.steps = 0
        self.visited: dict[tuple[int, int, State], list[int]] = {}
        self.configurations = 0
        self.path: list[Operation] = []
        self.best: list[Operation] = []
        self.best_depth = -1
        self.best_at: tuple[int, int, State] = (0, 0, model.initial)

    def run(self) -> bool:
        """Whether there is an order that explains everything; then ``path`` is one."""
        stack: list[tuple[Iterator[tuple[int, int, int, State]], int]] = []
        low, mask, used, state = 0, 0, 0, self.model.initial
        while True:
            mark = len(self.path)
            low, mask, state = self._absorb(low, mask, state)
            if low == len(self.known):
                return True
            if self._promises(low, mask, state) and self._is_new(low, mask, used, state):
                self._remember_best(low, mask, state)
                stack.append((self._moves(low, mask, used, state), mark))
            else:
                del self.path[mark:]
                self._undo_move(stack)
            while stack:
                move = next(stack[-1][0], None)
                if move is not None:
                    low, mask, used, state = move
                    break
                _, mark = stack.pop()
                del self.path[mark:]
                self._undo_move(stack)
            else:
                return False

    def _undo_move(self, stack: Sequence[object]) -> None:
        """Take back the operation that led here (the first configuration has none)."""
        if stack:
            self.path.pop()

    def candidates(self, low: int, mask: int) -> tuple[list[int], float]:
        """The known operations that may come next, and until when an unknown one must have started
        to come now: the earliest end of all that are open."""
        found: list[int] = []
        horizon = NEVER
        index, bits = low, mask
        starts, ends, pipelined_after = self.starts, self.ends, self.pipelined_after
        while index < len(starts) and starts[index] <= horizon:
            if not bits & 1:
                before = pipelined_after[index]
                if before < low or mask >> (before - low) & 1:
                    found.append(index)
                if ends[index] < horizon:
                    horizon = ends[index]
            bits >>= 1
            index += 1
        return found, horizon

    def _absorb(self, low: int, mask: int, state: State) -> tuple[int, int, State]:
        """Linearize what may come next and never changes anything, as long as there is any."""
        step = self.model.step
        progress = True
        while progress:
            progress = False
            for index in self.candidates(low, mask)[0]:
                if self.pure[index] and step(state, self.known[index]) is not None:
                    self.path.append(self.known[index])
                    mask |= 1 << (index - low)
                    progress = True
            while mask & 1:
                mask >>= 1
                low += 1
        return low, mask, state

    def _promises(self, low: int, mask: int, state: State) -> bool:
        """Whether later answers allow the state."""
        return self.foresight is None or self.foresight.allows(low, mask, state.value)

    def _lets_go(self, low: int, mask: int, before: State, after: State) -> bool:
        """Whether later answers allow that the value ends here."""
        readers = self.readers
        return (
            readers is None
            or before.value == after.value
            or readers.lets_go(low, mask, before.value)
        )

    def _is_new(self, low: int, mask: int, used: int, state: State) -> bool:
        """Remember a configuration; false when it, or one with fewer unknowns used up, has been
        here."""
        self.steps += 1
        if self.steps % CHECK_CLOCK_EVERY == 0 and self.budget.clock() > self.budget.deadline:
            raise _OutOfBudgetError
        seen = self.visited.setdefault((low, mask, state), [])
        if any(other & used == other for other in seen):
            return False
        self.configurations += 1
        if self.configurations > self.budget.configurations:
            raise _OutOfBudgetError
        seen.append(used)
        return True

    def _moves(
        self, low: int, mask: int, used: int, state: State
    ) -> Iterator[tuple[int, int, int, State]]:
        """The configurations one operation further; the path is extended by it."""
        step = self.model.step
        found, horizon = self.candidates(low, mask)
        for index in self._in_turn(found, state):
            if self.pure[index]:
                continue  # it does not fit in this state, or it would have been absorbed
            after = step(state, self.known[index])
            if after is not None:
                new_low, new_mask = low, mask | 1 << (index - low)
                while new_mask & 1:
                    new_mask >>= 1
                    new_low += 1
                if not self._lets_go(new_low, new_mask, state, after):
                    continue
                self.path.append(self.known[index])
                yield new_low, new_mask, used, after
        for index in range(bisect_right(self.unknown_starts, horizon)):
            bit = 1 << index
            if used & bit or self.alike_before[index] & ~used:
                continue
            after = step(state, self.unknown[index])
            if after is None or after == state:
                continue
            if self._lets_go(low, mask, state, after):
                self.path.append(self.unknown[index])
                yield low, mask, used | bit, after

    def _in_turn(self, found: list[int], state: State) -> list[int]:
        """What ends first comes first; but where there is no value, what says that there was none:
        others fit elsewhere, too."""
        ends = self.ends
        if state.value is not None:
            return sorted(found, key=ends.__getitem__)
        known = self.known
        return sorted(found, key=lambda index: (known[index].result is not True, ends[index]))

    def _remember_best(self, low: int, mask: int, state: State) -> None:
        depth = low + mask.bit_count()
        if depth > self.best_depth:
            self.best_depth = depth
            self.best = list(self.path)
            self.best_at = (low, mask, state)


def _pipelined_after(known: Sequence[Operation]) -> list[int]:
    """For each the place of the one before it in its pipeline, which has the same start and end;
    -1 when there is none."""
    last: dict[int, int] = {}
    before: list[int] = []
    for place, operation in enumerate(known):
        number = operation.pipeline
        before.append(-1 if number is None else last.get(number, -1))
        if number is not None:
            last[number] = place
    return before


def _useful_unknowns(operations: Sequence[Operation]) -> list[Operation]:
    """Operations of unknown outcome that could explain an answer. Reads explain nothing. In a
    history of reads and plain writes alone, neither does a write whose value nobody read; the same
    goes for transactions of such."""
    unknown = [x for x in operations if x.ok is None and x.op != "get"]
    if all(x.op == "get" or (x.op == "set" and _blind(x)) for x in operations):
        values = {x.result for x in operations if x.ok is True and x.op == "get"}
        return [x for x in unknown if x.args[0] in values]
    if all(x.op == "txn" for x in operations):
        return [x for x in unknown if not traceless(x, operations)]
    return unknown


def _blind(write: Operation) -> bool:
    """A plain write that says nothing of what it overwrote."""
    return len(write.args) == 1 and write.result is None


def _alike_before(unknown: Sequence[Operation]) -> list[int]:
    """For each the bit of the one before it (by start) that has the same op and arguments."""
    last: dict[tuple[object, ...], int] = {}
    before: list[int] = []
    for index, operation in enumerate(unknown):
        # A set with a time to live is unlike any other: its expiry is its own.
        own = operation.index if operation.op == "set" and len(operation.args) == 2 else None
        alike = (operation.op, operation.args, own)
        before.append(last.get(alike, 0))
        last[alike] = 1 << index
    return before


def _up_to(operations: Sequence[Operation], instant: int) -> list[Operation]:
    """What was known of the history at ``instant``: what had not ended has an unknown outcome."""
    return [
        x if x.end is None or x.end <= instant else replace(x, end=None, ok=None, result=None)
        for x in operations
        if x.start <= instant
    ]


def check_key(key: str, history: Sequence[Operation], model: Model, budget: Budget) -> KeyReport:
    """Judge the operations of one key."""
    operations = model.prepare([x for x in history if x.ok is not False])
    search = _Search(operations, model, budget)
    try:
        verdict = Verdict.VALID if search.run() else Verdict.INVALID
    except _OutOfBudgetError:
        verdict = Verdict.UNDECIDED
    report = KeyReport(key, verdict, len(history), search.configurations)
    if verdict is Verdict.INVALID:
        return _explain(report, operations, search, model, budget)
    return report


def _explain(
    report: KeyReport,
    operations: Sequence[Operation],
    search: _Search,
    model: Model,
    budget: Budget,
) -> KeyReport:
    """Find the first return that no order explains: every history before it is linearizable, none
    after it is (linearizability is prefix-closed), so it can be found by bisection."""
    low, mask, state = search.best_at
    stuck = tuple(search.known[index] for index in search.candidates(low, mask)[0])
    report = replace(report, prefix=tuple(search.best), stuck=stuck, state=state)
    returns = sorted((x for x in search.known), key=lambda x: (x.end or 0, x.start))
    good, bad = -1, len(returns) - 1
    best: list[Operation] = []
    try:
        while bad - good > 1:
            middle = (good + bad) // 2
            attempt = _Search(_up_to(operations, returns[middle].end or 0), model, budget)
            if attempt.run():
                good, best = middle, attempt.path
            else:
                bad = middle
        final = _Search(_up_to(operations, returns[bad].end or 0), model, budget)
        final.run()
    except _OutOfBudgetError:
        return report
    low, mask, state = final.best_at
    stuck = tuple(final.known[index] for index in final.candidates(low, mask)[0])
    return replace(report, prefix=tuple(best), culprit=returns[bad], stuck=stuck, state=state)


def check(
    history: Sequence[Operation],
    *,
    model: Model | None = None,
    seconds: float = 60.0,
    configurations: int = 1_000_000,
) -> Report:
    """Judge a history key by key, but for ``stale`` reads (see ``staleness``). ``seconds`` and
    ``configurations`` bound the whole."""
    model = model or CacheModel()
    numbered = [x if x.index >= 0 else replace(x, index=i) for i, x in enumerate(history)]
    budget = Budget.of(seconds, configurations)
    parts = by_key(x for x in numbered if x.op != "stale")
    return Report(tuple(check_key(key, part, model, budget) for key, part in parts.items()))
