"""The double of a node for the front end's tests: one machine, no Raft, answers on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

from raftcache.machine import Machine
from raftcache.ops import (
    Atomic,
    Batch,
    Delete,
    Expire,
    Get,
    Incr,
    Once,
    Op,
    Read,
    Result,
    Set,
    Status,
    Write,
)
from raftcache.service import ClusterStatus, Consistency, GroupStatus, MemberStatus

NOW_MS = 1_000_000


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
        return self.machine.read(key).value

    def apply(self, op: Op) -> Result:
        """One operation, now."""
        return self.machine.apply(Batch(NOW_MS, (), (op,)))[0]

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
        return self.apply(op) if self.fail_with is None else Result(self.fail_with)

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

    def submit(
        self,
        ops: Sequence[Read | Write],
        deadline: float,
        finish: Callable[[Sequence[Result]], None],
        *,
        group: int | None = None,
        max_staleness: float | None = None,
    ) -> None:
        (op,) = ops
        if isinstance(op, Get):
            self.reads.append((op.key, deadline, Consistency.LINEARIZABLE, max_staleness))
        else:
            self.writes.append((cast(Write, op), deadline))
        answer = self._answer(self._apply(op))
        if answer.done():
            finish((answer.result(),))
        else:
            answer.add_done_callback(lambda done: finish((done.result(),)))

    def batch(
        self, ops: Sequence[Get | Write], deadline: float, *, atomic: bool = False
    ) -> asyncio.Future[list[Result]]:
        self.batches.append((list(ops), atomic))
        future: asyncio.Future[list[Result]] = self._loop.create_future()
        if atomic and self.fail_with is None:
            plain = [op.op if isinstance(op, Once) else op for op in ops]
            simple = tuple(op for op in plain if isinstance(op, Get | Set | Delete | Incr | Expire))
            whole: Atomic | Once = Atomic(simple)
            first = next((op for op in ops if isinstance(op, Once)), None)
            if first is not None:
                whole = Once(first.session, first.seq, Atomic(simple))
            future.set_result(list(self.apply(whole).parts))
        else:
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
                has_room=True,
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
