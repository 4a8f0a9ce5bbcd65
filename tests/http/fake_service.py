"""The double of a node for the front end's tests: one machine, no Raft, answers on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from raftcache.ops import (
    INT64_MAX,
    INT64_MIN,
    Condition,
    Delete,
    Expire,
    Get,
    Incr,
    Match,
    Once,
    Op,
    Result,
    Set,
    Status,
    Write,
)
from raftcache.service import ClusterStatus, Consistency, GroupStatus, MemberStatus


class _Entry:
    def __init__(self, value: bytes, version: int, deadline: int | None, flags: int) -> None:
        self.value, self.version, self.deadline, self.flags = value, version, deadline, flags


class Machine:
    """A dictionary with the operations' semantics."""

    def __init__(self) -> None:
        self.now_ms = 1_000
        self.entries: dict[bytes, _Entry] = {}
        self.sessions: dict[bytes, tuple[Op, Result]] = {}
        self.version = 0

    def apply(self, op: Op) -> Result:
        if isinstance(op, Once):
            before = self.sessions.get(op.session)
            if before is not None:
                same = before[0] == op.op
                return before[1] if same else Result(Status.SESSION_MISMATCH)
            result = self.apply(op.op)
            self.sessions[op.session] = (op.op, result)
            return result
        assert isinstance(op, Get | Set | Delete | Incr | Expire)
        entry = self._find(op.key)
        if isinstance(op, Get):
            return self._read(entry)
        if not _holds(op.condition, entry):
            return Result(Status.PRECONDITION_FAILED, entry.version if entry else 0)
        return self._write(op, entry)

    def _find(self, key: bytes) -> _Entry | None:
        entry = self.entries.get(key)
        if entry and entry.deadline is not None and entry.deadline <= self.now_ms:
            del self.entries[key]
            return None
        return entry

    def _read(self, entry: _Entry | None) -> Result:
        if entry is None:
            return Result(Status.NOT_FOUND)
        left = -1 if entry.deadline is None else entry.deadline - self.now_ms
        return Result(Status.OK, entry.version, entry.value, left, entry.flags)

    def _deadline(self, ttl_ms: int) -> int | None:
        return self.now_ms + ttl_ms if ttl_ms else None

    def _write(self, op: Set | Delete | Incr | Expire, entry: _Entry | None) -> Result:
        status = Status.OK if entry else Status.CREATED
        if isinstance(op, Set):
            deadline = self._deadline(op.ttl_ms)
            if op.keep_ttl and entry:
                deadline = entry.deadline
            self.version += 1
            self.entries[op.key] = _Entry(op.value, self.version, deadline, op.flags)
            return Result(status, self.version)
        if isinstance(op, Incr):
            try:
                number = int(entry.value if entry else b"0") + op.by
            except ValueError:
                return Result(Status.NOT_AN_INTEGER)
            if not INT64_MIN <= number <= INT64_MAX:
                return Result(Status.OVERFLOW)
            self.version += 1
            kept = (entry.deadline, entry.flags) if entry else (None, 0)
            self.entries[op.key] = _Entry(b"%d" % number, self.version, *kept)
            return Result(status, self.version, number=number)
        if entry is None:
            return Result(Status.NOT_FOUND)
        self.version += 1
        if isinstance(op, Delete):
            del self.entries[op.key]
            return Result(Status.OK, self.version)
        entry.version, entry.deadline = self.version, self._deadline(op.ttl_ms)
        return Result(Status.OK, self.version, ttl_ms=op.ttl_ms or -1)


def _holds(condition: Condition | None, entry: _Entry | None) -> bool:
    if condition is None:
        return True
    if condition.match is Match.EXISTS:
        return entry is not None
    if condition.match is Match.ABSENT:
        return entry is None
    found = entry is not None and entry.version in condition.versions
    return found if condition.match is Match.VERSION_IN else not found


class FakeService:
    """``Service`` over one ``Machine``. ``fail_with`` makes every operation end so instead;
    ``hold`` keeps answers back until ``release``."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.fail_with: Status | None = None
        self.reason: str | None = None
        self.held: list[tuple[asyncio.Future[Result], Result]] | None = None
        self.reads: list[tuple[bytes, float, Consistency, float | None]] = []
        self.writes: list[tuple[Write, float]] = []
        self.batches: list[tuple[list[Get | Write], bool]] = []
        self.transfers: list[tuple[int, str | None]] = []
        self._loop = asyncio.get_event_loop()

    def stored(self, key: bytes) -> bytes | None:
        """The value of ``key``, asked past HTTP."""
        return self.machine.apply(Get(key)).value

    def now(self) -> float:
        return self._loop.time()

    def _answer(self, result: Result) -> asyncio.Future[Result]:
        future = self._loop.create_future()
        if self.held is None:
            future.set_result(result)
        else:
            self.held.append((future, result))
        return future

    def hold(self) -> None:
        self.held = []

    def release(self) -> None:
        held, self.held = self.held or [], None
        for future, result in held:
            if not future.done():
                future.set_result(result)

    def _apply(self, op: Op) -> Result:
        return self.machine.apply(op) if self.fail_with is None else Result(self.fail_with)

    def write(self, op: Write, deadline: float) -> asyncio.Future[Result]:
        self.writes.append((op, deadline))
        return self._answer(self._apply(op))

    def read(
        self,
        key: bytes,
        deadline: float,
        consistency: Consistency = Consistency.LINEARIZABLE,
        max_staleness: float | None = None,
    ) -> asyncio.Future[Result]:
        self.reads.append((key, deadline, consistency, max_staleness))
        return self._answer(self._apply(Get(key)))

    def batch(
        self, ops: Sequence[Get | Write], deadline: float, *, atomic: bool = False
    ) -> asyncio.Future[list[Result]]:
        self.batches.append((list(ops), atomic))
        future: asyncio.Future[list[Result]] = self._loop.create_future()
        future.set_result([self._apply(op) for op in ops])
        return future

    def status(self) -> ClusterStatus:
        members = tuple(
            MemberStatus(
                f"n{i}", f"http://127.0.0.1:{8000 + i}", f"127.0.0.1:{9000 + i}", i != 3, i == 1
            )
            for i in (1, 2, 3)
        )
        groups = tuple(
            GroupStatus(
                id=i,
                replicas=("n1", "n2", "n3"),
                leader=f"n{i % 3 + 1}" if i != 3 else None,
                role="leader" if i == 0 else "follower",
                term=4 + i,
                last_index=1000 + i,
                commit_index=1000,
                applied_index=1000 - 7 * i,
                lag=7 * i,
                slots=4096,
                policy="lru",
                entries=12_000 * (i + 1),
                bytes=(i + 1) * 14 * 2**20,
                budget_bytes=64 * 2**20,
                hits=9000 - 1500 * i,
                misses=1000,
                evictions=17 * i,
                expirations=42,
            )
            for i in range(4)
        )
        ranges = tuple((i * 4096, i * 4096 + 4095, i) for i in range(4))
        return ClusterStatus(
            cluster="demo",
            node="n1",
            version="0.1.0",
            ready=self.reason is None,
            members=members,
            groups=groups,
            slot_ranges=ranges,
        )

    def not_ready(self) -> str | None:
        return self.reason

    def transfer(self, group: int, target: str | None, deadline: float) -> asyncio.Future[Result]:
        self.transfers.append((group, target))
        known = group < 4 and target in (None, "n1", "n2", "n3")
        result = Result(Status.OK if known else Status.NOT_FOUND)
        return self._answer(Result(self.fail_with) if self.fail_with is not None else result)
