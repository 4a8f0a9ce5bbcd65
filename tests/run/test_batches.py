"""Batches: what is asked in them, what is asked again, and how each part is recorded."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from jepsen_like.checkers.history import Operation
from jepsen_like.run.meter import Meter
from jepsen_like.run.subjects import Batch, Kind, Request, Subject, Subjects
from jepsen_like.run.system import Client, Refused, StorageFull, Unknown
from jepsen_like.run.worker import Pace, Shared, Worker
from jepsen_like.run.workloads import (
    MOST_OPEN,
    MOST_OPEN_HARD,
    MOST_PARTS,
    NAMES,
    Chooser,
    kinds_of,
)
from tests.run.fake import Fake

STRIDE = 10


class Told(Fake):
    """Answers batches as a script says, and keeps what was asked."""

    def __init__(self, script: list[list[Any]], ordered: bool) -> None:
        super().__init__()
        self.script = iter(script)
        self.ordered = ordered
        self.asked: list[list[str]] = []

    def supports(self, protocol: str, op: str) -> bool:
        return op != "order" or self.ordered

    def connect(self, node: str, protocol: str) -> Client:
        return self

    async def close(self) -> None:
        pass

    async def invoke(
        self, op: str, key: str, args: tuple[Any, ...], timeout_s: float, once: str | None = None
    ) -> Any:
        self.asked.append([name for name, _, _ in args])
        return next(self.script)


class Single(Chooser):
    """Has one batch to do."""

    def __init__(self, batch: Batch) -> None:
        self.batch: Batch | None = batch
        self.worker: Worker | None = None

    def next(self, now: float) -> Request | Batch | None:
        batch, self.batch = self.batch, None
        if batch is None and self.worker is not None:
            self.worker.stopped = True
        return batch


async def recorded(
    system: Told, *parts: tuple[str, tuple[Any, ...]]
) -> tuple[list[Operation], Meter, list[str]]:
    """What a worker makes of a batch on one key: operations, figures, wrong answers."""
    subject, wrong, meter = Subject("b1", Kind.BATCH_REGISTER, 0.0), list[str](), Meter()
    chooser = Single(Batch(tuple(Request(subject, op, args) for op, args in parts)))
    shared = Shared(
        system=system,
        subjects=Subjects(frozenset(), lambda key: False, lambda closed: None),
        meter=meter,
        pace=Pace(0.0),
        epoch_ns=time.monotonic_ns(),
        wrong=wrong.append,
        token="",
    )
    chooser.worker = Worker(3, STRIDE, "one", random.Random(1), shared, chooser)
    await chooser.worker.run()
    return subject.operations, meter, wrong


PARTS = (("set", ("1",)), ("set", ("2",)), ("set", ("3",)), ("get", ()), ("get", ()))
SCRIPT = [[True, Refused("no"), Unknown("?"), Unknown("?"), "1"], [StorageFull("no"), "2"], [False]]


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_was_not_done_is_asked_again_and_what_may_be_done_is_not(ordered: bool) -> None:
    system = Told(SCRIPT, ordered)
    operations, meter, wrong = await recorded(system, *PARTS)
    assert wrong == []
    assert system.asked == [["set", "set", "set", "get", "get"], ["set", "get"], ["set"]]
    assert [x.ok for x in operations] == [True, True, None, True, True]
    assert [x.result for x in operations] == [True, False, None, "2", "1"]
    assert len({x.start for x in operations}) == 1
    ends = [x.end for x in operations]
    assert ends[2] is None and ends[0] == ends[4]
    assert (ends[0] or 0) < (ends[3] or 0) < (ends[1] or 0)
    assert meter.by_op == {"batched set": 3, "batched get": 2}
    assert meter.full_attempts == 1 and not meter.full_by_op


async def test_only_what_was_done_in_one_pipeline_has_an_order() -> None:
    operations, _, _ = await recorded(Told(SCRIPT, ordered=True), *PARTS)
    first, second, _, fourth, fifth = (x.pipeline for x in operations)
    assert first == fifth and len({first, second, fourth}) == 3 and None not in (first, second)


async def test_without_an_order_each_part_is_of_a_process_of_its_own() -> None:
    operations, _, _ = await recorded(Told(SCRIPT, ordered=False), *PARTS)
    assert {x.pipeline for x in operations} == {None}
    processes = [x.process for x in operations]
    assert len(set(processes)) == len(PARTS) and {x % STRIDE for x in processes} == {3}


async def test_an_answer_that_is_none_leaves_everything_open() -> None:
    class Broken(Told):
        async def invoke(self, *arguments: Any, **more: Any) -> Any:
            for results in self.script:
                return results
            raise ValueError("gibberish")

    refusals = [[Refused("no")] * len(PARTS)]
    operations, _, wrong = await recorded(Broken(refusals, ordered=True), *PARTS)
    assert [x.ok for x in operations] == [None] * len(PARTS)
    assert len(wrong) == 1 and "gibberish" in wrong[0]


def test_batches_are_of_their_own_keys_and_often_of_one() -> None:
    fake = Fake()
    subjects = Subjects(kinds_of(NAMES), fake.crowded, lambda closed: None)
    subjects.fill(0.0)
    chooser = Chooser(0, random.Random(1), subjects, fake, "one", NAMES)
    drawn = [chooser.next(0.0) for _ in range(4000)]
    batches = [x for x in drawn if isinstance(x, Batch)]
    assert {x.op for batch in batches for x in batch.parts} == {"get", "set", "incr", "del"}
    assert {len(batch.parts) for batch in batches} == set(range(1, MOST_PARTS + 1))
    assert {x.subject.kind for batch in batches for x in batch.parts} == {
        Kind.BATCH_REGISTER,
        Kind.BATCH_COUNTER,
    }
    keys = [[x.subject.key for x in batch.parts] for batch in batches]
    assert any(len(set(each)) < len(each) for each in keys)
    assert any(len(set(each)) > 1 for each in keys)


def test_batches_leave_keys_alone_that_are_busy() -> None:
    fake = Fake()
    subjects = Subjects(kinds_of(["batch"]), fake.crowded, lambda closed: None)
    subjects.fill(0.0)
    calm = {subjects.live[kind][-1].key for kind in kinds_of(["batch"])}
    for kind in kinds_of(["batch"]):
        for subject in subjects.live[kind][:-1]:
            for _ in range(MOST_OPEN):
                subjects.begin(subject)
    chooser = Chooser(0, random.Random(1), subjects, fake, "one", ["batch"])
    batches = [x for x in (chooser.next(0.0) for _ in range(100)) if isinstance(x, Batch)]
    assert {x.subject.key for batch in batches for x in batch.parts} == calm


@pytest.mark.parametrize("workload", ["txn", "eviction"])
def test_keys_that_are_hard_to_judge_are_left_alone_when_too_busy(workload: str) -> None:
    fake = Fake()
    subjects = Subjects(kinds_of([workload]), fake.crowded, lambda closed: None)
    subjects.fill(0.0)
    (kind,) = kinds_of([workload])
    live = subjects.live[kind]
    for subject in live[:-1]:
        for _ in range(MOST_OPEN_HARD):
            subjects.begin(subject)
    chooser = Chooser(0, random.Random(1), subjects, fake, "one", [workload])
    drawn = [x for x in (chooser.next(0.0) for _ in range(100)) if isinstance(x, Request)]
    assert {x.subject.key for x in drawn} == {live[-1].key}
    for _ in range(MOST_OPEN_HARD):
        subjects.begin(live[-1])
    assert {chooser.next(0.0) for _ in range(100)} == {None}


@pytest.mark.parametrize(("protocol", "bounds"), [("one", {10, 100}), ("two", {50})])
def test_stale_reads_have_the_bounds_of_their_protocol(protocol: str, bounds: set[int]) -> None:
    fake = Fake()
    subjects = Subjects(kinds_of(NAMES), fake.crowded, lambda closed: None)
    subjects.fill(0.0)
    chooser = Chooser(0, random.Random(1), subjects, fake, protocol, NAMES)
    drawn = [chooser.next(0.0) for _ in range(2000)]
    assert {x.args[0] for x in drawn if isinstance(x, Request) and x.op == "stale"} == bounds
