"""What each operation answers and does: by examples, and against a model without eviction."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from machine_strategies import configured, image, logs, simple

from raftcache.machine import Machine
from raftcache.ops import (
    INT64_MAX,
    INT64_MIN,
    MAX_TTL_MS,
    Append,
    Atomic,
    Batch,
    Clear,
    Condition,
    Configure,
    Count,
    Delete,
    Expire,
    Get,
    Incr,
    Match,
    Move,
    Result,
    Set,
    SetMany,
    SetRange,
    Status,
)


def do(machine: Machine, *ops: Any, now_ms: int = 0) -> list[Result]:
    return machine.apply(Batch(now_ms, (), ops))


def test_a_stored_value_is_read_with_its_version_flags_and_time_left() -> None:
    machine = Machine()
    do(machine, Set(b"k", b"v", ttl_ms=500, flags=7), now_ms=1000)
    do(machine, now_ms=1100)
    assert machine.read(b"k") == Result(Status.OK, 1, b"v", 400, 7)


def test_the_first_set_creates_and_the_second_replaces() -> None:
    first, second = do(Machine(), Set(b"k", b"1"), Set(b"k", b"2"))
    assert (first.status, second.status) == (Status.CREATED, Status.OK)
    assert first.version < second.version


def test_a_version_is_not_reused_after_a_delete() -> None:
    machine = Machine()
    created, _, again = do(machine, Set(b"k", b"1"), Delete(b"k"), Set(b"k", b"1"))
    assert again.status is Status.CREATED
    assert again.version > created.version + 1


def test_an_empty_key_and_an_empty_value_are_data() -> None:
    machine = Machine()
    do(machine, Set(b"", b""))
    assert machine.read(b"").value == b""


@pytest.mark.parametrize(
    ("condition", "on_present", "on_absent"),
    [
        (Condition(Match.EXISTS), True, False),
        (Condition(Match.ABSENT), False, True),
        (Condition(Match.VERSION_IN, (9, 1)), True, False),
        (Condition(Match.VERSION_IN, (2,)), False, False),
        (Condition(Match.VERSION_IN), False, False),
        (Condition(Match.VERSION_NOT_IN, (1,)), False, True),
        (Condition(Match.VERSION_NOT_IN, (2,)), True, True),
    ],
)
def test_a_condition_decides_whether_a_set_happens(
    condition: Condition, on_present: bool, on_absent: bool
) -> None:
    machine = Machine()
    do(machine, Set(b"present", b"old"))
    present, absent = do(
        machine,
        Set(b"present", b"new", condition=condition),
        Set(b"absent", b"new", condition=condition),
    )
    assert present.status is (Status.OK if on_present else Status.PRECONDITION_FAILED)
    assert absent.status is (Status.CREATED if on_absent else Status.PRECONDITION_FAILED)
    assert machine.read(b"present").value == (b"new" if on_present else b"old")
    if not on_present:
        assert present.version == 1
    if not on_absent:
        assert absent.version == 0


def test_incr_of_a_missing_key_counts_from_zero() -> None:
    assert do(Machine(), Incr(b"n", 5))[0] == Result(Status.CREATED, 1, number=5)


def test_incr_keeps_expiry_and_flags() -> None:
    machine = Machine()
    do(machine, Set(b"n", b"41", ttl_ms=100, flags=3), Incr(b"n"))
    assert machine.read(b"n") == Result(Status.OK, 2, b"42", 100, 3)


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"-", b"-0", b"+1", b"01", b"-01", b" 1", b"1 ", b"1_0", b"1.0", b"0x1"),
        *(b"%d" % (INT64_MAX + 1), b"%d" % (INT64_MIN - 1), b"9" * 5000, "\u0661".encode()),
    ],
)
def test_incr_refuses_what_redis_would_not_take_for_an_integer(text: bytes) -> None:
    machine = Machine()
    _, result = do(machine, Set(b"n", text), Incr(b"n"))
    assert result.status is Status.NOT_AN_INTEGER
    assert machine.read(b"n").value == text


@pytest.mark.parametrize("number", [0, -1, 10, INT64_MIN, INT64_MAX])
def test_incr_accepts_every_canonical_integer(number: int) -> None:
    machine = Machine()
    assert do(machine, Set(b"n", b"%d" % number), Incr(b"n", 0))[1].number == number
    assert machine.read(b"n").value == b"%d" % number


@pytest.mark.parametrize(("start", "by"), [(INT64_MAX, 1), (INT64_MIN, -1), (-2, INT64_MIN)])
def test_incr_beyond_64_bits_is_an_overflow_and_changes_nothing(start: int, by: int) -> None:
    machine = Machine()
    assert do(machine, Set(b"n", b"%d" % start), Incr(b"n", by))[1].status is Status.OVERFLOW
    assert machine.read(b"n").value == b"%d" % start


def test_expire_sets_the_time_left_and_zero_removes_it() -> None:
    machine = Machine()
    do(machine, Set(b"k", b"v", flags=1), Expire(b"k", 50))
    assert machine.read(b"k").ttl_ms == 50
    do(machine, Expire(b"k", 0))
    assert machine.read(b"k") == Result(Status.OK, 3, b"v", -1, 1)


def test_keep_ttl_keeps_the_deadline_of_the_old_entry() -> None:
    machine = Machine()
    do(machine, Set(b"k", b"1", ttl_ms=100))
    do(machine, Set(b"k", b"2", keep_ttl=True), Set(b"new", b"2", keep_ttl=True), now_ms=40)
    assert machine.read(b"k").ttl_ms == 60
    assert machine.read(b"new").ttl_ms == -1


@pytest.mark.parametrize(
    "op",
    [
        Set(b"k", b"v", ttl_ms=-1),
        Set(b"k", b"v", ttl_ms=MAX_TTL_MS + 1),
        Set(b"k", b"v", flags=-1),
        Set(b"k", b"v", flags=2**32),
        Set(b"k", b"v", ttl_ms=5, keep_ttl=True),
        Expire(b"k", -1),
        Expire(b"k", MAX_TTL_MS + 1),
        Incr(b"k", INT64_MAX + 1),
        Incr(b"k", INT64_MIN - 1),
        Configure(-1, "lru", 1, 1),
        Configure(1, "mru", 1, 1),
        Configure(1, "", 1, 1),
        Configure(1, "lru", -1, 1),
        Configure(1, "lru", 1, -1),
        Configure(2**63, "lru", 1, 1),
        Atomic((Set(b"k", b"v", ttl_ms=-1),)),
        Atomic((Configure(1, "lru", 1, 1),)),  # type: ignore[arg-type]
        Atomic((Atomic(()),)),  # type: ignore[arg-type]
    ],
)
def test_a_malformed_operation_is_invalid_and_changes_nothing(op: Any) -> None:
    machine = Machine()
    do(machine, Set(b"k", b"1"))
    before = image(machine)
    assert do(machine, op)[0].status is Status.INVALID
    assert image(machine) == before


class Model:
    """The same without eviction, sessions and atomics, as one would write it down first."""

    def __init__(self) -> None:
        self.entries: dict[bytes, tuple[bytes, int, int, int]] = {}
        self.now = self.version = 0

    def entry(self, key: bytes) -> tuple[bytes, int, int, int] | None:
        entry = self.entries.get(key)
        return None if entry is None or 0 < entry[2] <= self.now else entry

    def put(self, key: bytes, value: bytes, deadline: int, flags: int) -> Result:
        existed = self.entry(key) is not None
        self.version += 1
        self.entries[key] = (value, self.version, deadline, flags)
        left = deadline - self.now if deadline else -1
        return Result(Status.OK if existed else Status.CREATED, self.version, ttl_ms=left)

    def allows(self, condition: Condition | None, entry: Any, after: int = 0) -> bool:
        if condition is None:
            return True
        value, version, deadline = (None, None, 0) if entry is None else entry[:3]
        return {
            Match.VALUE: value == condition.value,
            Match.PERSISTENT: entry is not None and deadline == 0,
            Match.VOLATILE: deadline > 0,
            Match.LATER: deadline > 0 and after > deadline,
            Match.SOONER: entry is not None and (deadline == 0 or after < deadline),
            Match.VOLATILE_SOONER: deadline > 0 and after < deadline,
            Match.EXISTS: version is not None,
            Match.ABSENT: version is None,
            Match.VERSION_IN: version in condition.versions,
            Match.VERSION_NOT_IN: version not in condition.versions,
        }[condition.match]

    def do(self, op: Any) -> Result:
        if type(op) is Clear:
            self.entries.clear()
            self.version += 1
            return Result(Status.OK)
        if type(op) is Count:
            return Result(
                Status.OK, number=sum(self.entry(key) is not None for key in self.entries)
            )
        if type(op) is SetMany:
            return self.set_many(op)
        entry = self.entry(op.key)
        if type(op) is Move:
            return self.move(op, entry)
        if type(op) in (Append, SetRange):
            return self.string(op, entry)
        version = entry[1] if entry else None
        before = entry[0] if entry and getattr(op, "get", False) else None
        after = self.now + op.ttl_ms if getattr(op, "ttl_ms", 0) else 0
        if type(op) is not Get and not self.allows(op.condition, entry, after):
            return Result(Status.PRECONDITION_FAILED, version or 0, before)
        if type(op) is Set:
            deadline = self.now + op.ttl_ms if op.ttl_ms else 0
            if op.keep_ttl and entry:
                deadline = entry[2]
            result = self.put(op.key, op.value, deadline, op.flags)
            result.value = before
            return result
        if type(op) is Incr:
            return self.incr(op, entry)
        if entry is None:
            return Result(Status.NOT_FOUND)
        value, found, deadline, flags = entry
        if type(op) is Get:
            left = deadline - self.now if deadline else -1
            return Result(Status.OK, found, value, left, flags)
        if type(op) is Expire:
            deadline = self.now + op.ttl_ms if op.ttl_ms else 0
            result = self.put(op.key, value, deadline, flags)
            result.value = before
            return result
        self.version += 1
        del self.entries[op.key]
        return Result(Status.OK, value=before)

    def set_many(self, op: SetMany) -> Result:
        if op.only_new and any(self.entry(key) for key, _ in op.items):
            return Result(Status.PRECONDITION_FAILED)
        self.version += 1
        for key, value in op.items:
            self.entries[key] = (value, self.version, 0, 0)
        return Result(Status.OK, self.version)

    def move(self, op: Move, entry: Any) -> Result:
        target = self.entry(op.to)
        if entry is None:
            return Result(Status.NOT_FOUND)
        if target and not op.replace:
            return Result(Status.PRECONDITION_FAILED, target[1])
        if op.to == op.key:
            return Result(Status.OK, entry[1])
        if not op.copy:
            del self.entries[op.key]
        self.version += 1
        self.entries[op.to] = (entry[0], self.version, *entry[2:])
        return Result(Status.OK if target else Status.CREATED, self.version)

    def string(self, op: Append | SetRange, entry: Any) -> Result:
        value, _, deadline, flags = entry or (b"", 0, 0, 0)
        offset = len(value) if isinstance(op, Append) else op.offset
        if offset < 0:
            return Result(Status.INVALID)
        if isinstance(op, SetRange) and not op.value:
            return Result(Status.OK if entry else Status.NOT_FOUND, number=len(value))
        content = bytearray(value.ljust(offset, b"\0"))
        content[offset : offset + len(op.value)] = op.value
        longest = len(content) if isinstance(op, Append) else offset + len(op.value)
        if longest > op.max_bytes:
            return Result(Status.TOO_LARGE)
        result = self.put(op.key, bytes(content), deadline, flags)
        result.number = len(content)
        return result

    def incr(self, op: Incr, entry: tuple[bytes, int, int, int] | None) -> Result:
        value, _, deadline, flags = entry or (b"0", 0, 0, 0)
        try:
            number = int(value) if value == b"%d" % int(value) else None
        except ValueError:
            number = None
        if number is None:
            return Result(Status.NOT_AN_INTEGER)
        if not INT64_MIN <= number + op.by <= INT64_MAX:
            return Result(Status.OVERFLOW)
        result = self.put(op.key, b"%d" % (number + op.by), deadline, flags)
        result.number = number + op.by
        return result


SOONER = Condition(Match.SOONER)
EQUAL = (Set(b"a", b"", 1), Set(b"a", b"", 1, 0, SOONER), Set(b"a", b"", 0, 0, SOONER))


@given(logs(simple))
@example([Batch(now_ms=0, touched=(), ops=EQUAL)])
def test_without_a_budget_every_answer_is_that_of_the_model(log: list[Batch]) -> None:
    machine, model = Machine(), Model()
    for batch in log:
        model.now = max(model.now, batch.now_ms)
        assert machine.apply(batch) == [model.do(op) for op in batch.ops]


@given(logs(simple))
def test_a_read_answers_like_a_get_and_changes_nothing(log: list[Batch]) -> None:
    machine = configured(budget=2000)
    for batch in log:
        machine.apply(batch)
    before = image(machine)
    for key in (b"", b"a", b"b", b"none"):
        read = machine.read(key)
        assert image(machine) == before
        assert Machine.restore(before).apply(Batch(0, (), (Get(key),)))[0] == read
