"""What one key of a cache may do, as a sequential specification.

A model is a step function over immutable, hashable states. ``CacheModel`` is a register with
``cas``, ``incr``, ``del`` and expiry; and, for a tag, all of its keys (``transactions``).

**Expiry** is an operation of its own, that nobody called: every ``set`` with a time to live brings
an ``expire`` of unknown outcome that can take effect at any time after ``set.start + ttl``. The
deadline counts from the moment the ``set`` took effect, which is not before its start; so expiring
earlier is a violation. Expiring late is none (a cluster without a leader cannot expire anything),
but it happens once and for all: a reader never sees a key dead and then alive again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Protocol

from jepsen_like.checkers import transactions
from jepsen_like.checkers.foresight import Foresight, Readers
from jepsen_like.checkers.history import Operation

INT64: Final = range(-(2**63), 2**63)
_DECIMAL: Final = re.compile(r"-?(0|[1-9][0-9]*)\Z")

_REGISTER: Final = frozenset(("get", "set", "cas", "del", "expire"))


class State(NamedTuple):
    """``value`` (``None``: no such key); ``expiry``: the index of the ``set`` whose time to live
    the value has, -1 when it has none."""

    value: str | None = None
    expiry: int = -1


INITIAL: Final = State()


class Model(Protocol):
    """A sequential specification of one key."""

    initial: State

    def prepare(self, history: Sequence[Operation]) -> list[Operation]:
        """The operations to explain: with those added that nobody called."""
        ...

    def step(self, state: State, operation: Operation) -> State | None:
        """The state after ``operation``, or ``None`` when it cannot have answered what it did in
        ``state``. An operation of unknown outcome (``ok`` null) can have answered anything."""
        ...

    def changes_nothing(self, operation: Operation) -> bool:
        """Whether the operation, having answered what it did, changed no state whatever."""
        ...

    def foresight(
        self, known: Sequence[Operation], unknown: Sequence[Operation]
    ) -> tuple[Foresight | None, Readers | None]:
        """What the answers of ``known`` rule out, where that is worth a look."""
        ...


class CacheModel:
    """Register, counter and expiry. ``slack_ns`` and ``drift`` say how much earlier than a perfect
    clock the system may count a time to live as over: rounding, and the rate of its clocks.

    A key for which ``may_vanish`` says so may be evicted: whatever is written to it may be gone at
    any time after, once and for all, as if its time to live had been 0."""

    initial = INITIAL

    def __init__(
        self,
        slack_ns: int = 0,
        drift: float = 0.0,
        may_vanish: Callable[[str], bool] = lambda key: False,
    ) -> None:
        self._slack_ns = slack_ns
        self._drift = drift
        self._may_vanish = may_vanish

    def prepare(self, history: Sequence[Operation]) -> list[Operation]:
        prepared: list[Operation] = []
        for operation in history:
            prepared.append(operation)
            if operation.op in ("set", "cas") and self._may_vanish(operation.key):
                expire = replace(operation, op="expire", args=(operation.index,), result=None)
                prepared.append(replace(expire, end=None, ok=None))
            elif operation.op == "set" and len(operation.args) == 2 and operation.args[1] > 0:
                lasts = int(operation.args[1] * 1e6 * (1.0 - self._drift)) - self._slack_ns
                start = operation.start + max(0, lasts)
                expire = replace(operation, op="expire", args=(operation.index,), start=start)
                prepared.append(replace(expire, result=None, end=None, ok=None))
        return prepared

    def changes_nothing(self, operation: Operation) -> bool:
        if operation.op == "get":
            return True
        if operation.op in ("cas", "del"):
            return operation.result is False
        if operation.op == "txn":
            return transactions.reads_only(operation.args)
        return operation.op == "incr" and operation.result is None

    def foresight(
        self, known: Sequence[Operation], unknown: Sequence[Operation]
    ) -> tuple[Foresight | None, Readers | None]:
        ops = {x.op for x in [*known, *unknown]}
        if ops == {"txn"}:
            return Foresight(known, unknown), None
        if ops <= _REGISTER:
            return None, Readers(known, unknown)
        return None, None

    def step(self, state: State, operation: Operation) -> State | None:
        known, result = operation.ok is True, operation.result
        match operation.op:
            case "get":
                return state if not known or result == state.value else None
            case "set":
                if known and result is not None and result is not (state.value is None):
                    return None
                args = operation.args
                expires = (len(args) == 2 and args[1] > 0) or self._may_vanish(operation.key)
                return State(args[0], operation.index if expires else -1)
            case "cas":
                applies = state.value == operation.args[0]
                if known and applies is not result:
                    return None
                expires = self._may_vanish(operation.key)
                after = State(operation.args[1], operation.index if expires else -1)
                return after if applies else state
            case "incr":
                return _incr(state, operation.args[0], known, result)
            case "del":
                if known and result is not None and result is not (state.value is not None):
                    return None
                return State()
            case "txn":
                after_all, answers = transactions.run(state.value, operation.args)
                return State(after_all) if not known or tuple(answers) == result else None
            case "expire":
                return State() if state.expiry == operation.args[0] else state
            case other:
                raise ValueError(f"unknown op {other!r}")


def _incr(state: State, by: int, known: bool, result: Any) -> State | None:
    if state.value is None:
        number = by
    elif _DECIMAL.match(state.value) and int(state.value) in INT64:
        number = int(state.value) + by
    else:
        return None if known and result is not None else state
    if number not in INT64:
        return None if known and result is not None else state
    if known and result != number:
        return None
    return State(str(number), state.expiry)
