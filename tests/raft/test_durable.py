"""The log on disk keeps what it has called durable, whatever process and machine suffer.

Raft (figure 2) wants currentTerm, votedFor and log[] "updated on stable storage before responding
to RPCs". ``DurableJournal`` says through ``durable_index`` and ``meta_durable`` what is stable by
now; these tests take it at its word. They close S3 and S4a to S4h of the defects of PySyncObj's own
journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jepsen_like.sim.disk import SimDisk
from jepsen_like.sim.network import Network
from jepsen_like.sim.runtime import SimRuntime
from jepsen_like.sim.scheduler import Scheduler
from raftcache.raft import durable, segments
from raftcache.raft.blocks import encode_block, read_block
from raftcache.raft.durable import CorruptJournalError, DurableJournal
from raftcache.raft.entries import SnapshotHeader
from raftcache.raft.storage import DataDirectory, Identity, StorageError
from raftcache.runtime import AsyncioRuntime

DIRECTORY = "/data/group-0001"


class PowerCutError(BaseException):
    """The machine stops in the middle of a file operation."""


class CountingDisk(SimDisk):
    """A disk that counts changes and can stop the machine at any one of them."""

    changes = 0
    limit: int | None = None

    def _change(self) -> None:
        if self.limit is not None and self.changes >= self.limit:
            raise PowerCutError
        self.changes += 1
        super()._change()


class Machine:
    """One computer with one journal on its disk."""

    def __init__(self, seed: int | str = 1) -> None:
        self.scheduler = Scheduler(seed)
        self.network = Network(self.scheduler)
        self.disk = CountingDisk(self.scheduler.generator("disk"))
        self.runtime = self._boot()

    def _boot(self) -> SimRuntime:
        return SimRuntime(self.scheduler, self.network, self.disk, "n1")

    def open(self) -> DurableJournal:
        """Recover, as a group does it: the snapshot is taken over, what is here already stays."""
        journal = DurableJournal.open(self.runtime, DIRECTORY)
        while journal.blank and not journal.end_recovery():
            self.run(0.001)
        self.snapshot = journal.stored
        journal.restoring(True)
        journal.restoring(False)
        return journal

    def restart(self, *, power: bool = True) -> DurableJournal:
        self.runtime.process.crash(power)
        self.runtime = self._boot()
        return self.open()

    def run(self, seconds: float = 0.05) -> None:
        self.scheduler.run(self.scheduler.now + seconds)
        assert not self.scheduler.violations, self.scheduler.violations

    def store(
        self,
        journal: DurableJournal,
        header: SnapshotHeader,
        state: bytes,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        """What a group does when a snapshot is due."""

        async def store() -> None:
            if await journal.store(header, iter([state[:3], state[3:]])):
                journal.compact(header.index)
            ended()

        self.runtime.spawn(store(), "store")

    def files(self) -> list[str]:
        return self.runtime.disk.list(DIRECTORY)


def fill(journal: DurableJournal, *commands: bytes, term: int = 1) -> None:
    for command in commands:
        journal.add(command, journal.last_index + 1, term)


def end_of(journal: DurableJournal) -> int:
    """Bytes written to the segment at hand."""
    assert journal._segments.current is not None
    return journal._segments.current.end


def commands(journal: DurableJournal) -> list[bytes]:
    return [entry[0] for entry in journal[:]]


@pytest.fixture(autouse=True, scope="module")
def small_segments() -> Iterator[None]:
    """So that a few entries fill some."""
    before, segments.SEGMENT_BYTES = segments.SEGMENT_BYTES, 4096  # type: ignore[misc]
    yield
    segments.SEGMENT_BYTES = before  # type: ignore[misc]


@pytest.fixture
def machine() -> Machine:
    return Machine()


# -- the law: what was called durable is there after any crash


@dataclass(frozen=True)
class State:
    """A log as it was at some moment; ``entries``: index -> (command, term)."""

    term: int
    vote: str | None
    entries: dict[int, tuple[bytes, int]] = field(hash=False)
    last: int = 0


class Model:
    """The journal's history, kept beside it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.journal = machine.open()
        self.clock = 0
        self.storing: DurableJournal | None = None
        self.installing: DurableJournal | None = None
        self.promised: dict[int, tuple[bytes, int]] = {}
        self.promised_meta: tuple[int, str | None] | None = None
        self.committed = 1
        """What is in a snapshot was committed: nobody truncates it."""
        self._begin()
        self.history = [self.state()]

    def _begin(self) -> None:
        """PySyncObj's constructor gives an empty log its first entry."""
        if len(self.journal) == 0:
            fill(self.journal, b"\x01", term=0)

    def state(self) -> State:
        journal = self.journal
        entries = {index: (command, term) for command, index, term in journal[:]}
        vote = journal.getVotedForNodeId()
        return State(journal.getCurrentTerm(), vote, entries, journal.last_index)

    def do(self, step: tuple[Any, ...]) -> None:
        kind, journal = step[0], self.journal
        if kind == "add":
            self.clock += 1
            fill(journal, b"%d" % self.clock * step[1], term=journal.getCurrentTerm())
        elif kind == "truncate":
            first_free = max(self.committed, journal.first_index + 1) + 1
            index = max(first_free, journal.last_index + 1 - step[1])
            journal.deleteEntriesFrom(index - journal.first_index)
        elif kind == "term":
            journal.setCurrentTerm(journal.getCurrentTerm() + 1, step[1])
        elif kind == "run":
            self.machine.run(step[1])
        elif kind == "snapshot":
            self._snapshot()
        elif kind == "trim":
            journal.trim(journal.last_index, 10, None)
        elif kind == "install":
            self._install(step[1])
        elif kind == "fail":
            self.machine.disk.fail_writes, self.machine.disk.fail_syncs = step[1], step[2]
        elif kind == "full":
            self.machine.disk.free_bytes = step[1]
        elif kind == "crash":
            self.crash(power=step[1])
        journal = self.journal
        if not (journal._pending or journal._writing or journal._doubt):
            self.history.clear()  # nothing earlier can come back
        self.history.append(self.state())

    def _snapshot(self) -> None:
        journal = self.journal
        entry, before = journal.at(journal.last_index - 1), journal.at(journal.last_index - 2)
        if entry is not None and before is not None and self.storing is not journal:
            self.storing = journal
            header = SnapshotHeader(entry[1], entry[2], before[2], entry[0])
            self.committed = max(self.committed, entry[1])
            self.machine.store(journal, header, b"state at %d" % entry[1], self._stored)

    def _stored(self) -> None:
        self.storing = None

    def _install(self, distance: int) -> None:
        """A snapshot of the leader, ``distance`` entries from the end of our log (before it: the
        tail that we have beyond is not the leader's)."""
        journal = self.journal
        if self.installing is journal:
            return
        self.installing = journal
        index = max(journal.last_index + distance, self.committed + 2, journal.first_index + 3)
        term = journal.getCurrentTerm() + 1
        journal.setCurrentTerm(term, None)
        self.history.append(self.state())
        header = SnapshotHeader(index, term, term, b"installed")

        async def install() -> None:
            stored = await journal.store(header, [b"state at %d" % index])
            self.installing = None
            if not stored or self.journal is not journal or self.committed >= index - 1:
                return
            self.committed = index
            journal.installing(True)
            journal.clear()
            journal.add(*header.previous)
            journal.add(*header.last)
            journal.installing(False)
            self.history.append(self.state())

        self.machine.runtime.spawn(install(), "install")

    def crash(self, *, power: bool) -> None:
        before = self.state()
        self.machine.disk.fail_writes = self.machine.disk.fail_syncs = 0
        self.machine.disk.free_bytes = None
        assert self.journal.durable_index <= before.last, "more is durable than there is"
        self._promise(before)
        self.journal = self.machine.restart(power=power)
        self._begin()
        after = self.state()
        # Everything called durable is there, unchanged.
        for index, entry in self.promised.items():
            if index > self.journal.first_index:
                assert after.entries.get(index) == entry, f"entry {index} changed"
        if self.promised_meta is not None:
            assert (after.term, after.vote) == self.promised_meta
        # The rest is what was true at some moment before, never a mixture; but while the disk takes
        # no entries a term and a vote are written ahead of them: as if they had not arrived yet.
        logs = [i for i, moment in enumerate(self.history) if self._agree(moment, after)]
        assert logs, "no such log ever was"
        later = [(moment.term, moment.vote) for moment in self.history[logs[0] :]]
        assert (after.term, after.vote) in later, "a term or a vote older than the log"
        stored = self.machine.snapshot
        if stored is not None:
            assert stored.state == b"state at %d" % stored.header.index
            assert self.journal.at(stored.header.index) == stored.header.last
        self.history.append(after)

    def _promise(self, before: State) -> None:
        """What has been called durable, now or before an earlier crash, and is still so."""
        journal, meta = self.journal, (before.term, before.vote)
        old = {i: entry for i, entry in self.promised.items() if before.entries.get(i) == entry}
        durable = {i: e for i, e in before.entries.items() if i <= journal.durable_index}
        self.promised = old | durable
        if journal.meta_durable or self.promised_meta != meta:
            self.promised_meta = meta if journal.meta_durable else None

    def _agree(self, moment: State, after: State) -> bool:
        if moment.last != after.last:
            return False
        # The first entry kept stands for everything before it; its command is nobody's.
        known = [i for i in after.entries if i in moment.entries and i > self.journal.first_index]
        return all(after.entries[i] == moment.entries[i] for i in known)


STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 40)),
    st.tuples(st.just("add"), st.integers(1, 3)),
    st.tuples(st.just("add"), st.sampled_from([300, 2500])),
    st.tuples(st.just("truncate"), st.integers(1, 4)),
    st.tuples(st.just("term"), st.sampled_from([None, "n1", "n2"])),
    st.tuples(st.just("run"), st.sampled_from([0.0, 0.0004, 0.001, 0.003, 0.02, 0.6])),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("trim")),
    st.tuples(st.just("install"), st.sampled_from([-2, -1, 3, 10])),
    st.tuples(st.just("fail"), st.integers(0, 2), st.integers(0, 2)),
    st.tuples(st.just("full"), st.sampled_from([None, 0, 100, 5000])),
    st.tuples(st.just("crash"), st.booleans()),
)


AHEAD = [("add", 2500)] * 2 + [("run", 0.003), ("install", -2), ("fail", 0, 1), ("run", 0.0004)]
"""The second entry is not written yet, and has no room where the new term has."""


@settings(max_examples=400, deadline=None)
@example(AHEAD, 1)
@given(st.lists(STEPS, max_size=25), st.integers(0, 1_000_000))
def test_a_crash_at_any_moment_keeps_everything_that_was_called_durable(
    steps: list[tuple[Any, ...]], seed: int
) -> None:
    """Raft section 5.2 and figure 2, "persistent state on all servers"; S3, S4a to S4d, S4g."""
    model = Model(Machine(seed))
    for step in steps:
        model.do(step)
    model.crash(power=True)
    # The survivor goes on working, and is found again as it was left.
    fill(model.journal, b"after all")
    model.machine.run(0.2)
    model.history.append(model.state())
    assert model.journal.durable_index == model.journal.last_index
    model.crash(power=True)
    assert commands(model.journal)[-1] == b"after all"


# -- torn tails and flipped bits


def written(machine: Machine, count: int = 6) -> tuple[str, list[int]]:
    """A journal of ``count`` blocks, closed; its path and where each block ends."""
    journal = machine.open()
    ends = []
    for i in range(count):
        if i == 0:
            journal.setCurrentTerm(3, "n2")
        fill(journal, b"command-%d" % i, term=3)
        machine.run()
        ends.append(end_of(journal))
    journal.close()
    return f"{DIRECTORY}/journal-0000000001", ends


def test_a_tail_torn_at_any_byte_is_cut_off_and_everything_before_it_kept() -> None:
    """A power failure in the middle of the last write: what was acknowledged is there."""
    whole = Machine()
    path, ends = written(whole)
    data = whole.runtime.disk.read(path)
    for size in range(ends[-2] + 1, ends[-1]):
        machine = Machine()
        machine.open().close()
        machine.runtime.disk.replace(path, data[:size] + bytes(len(data) - size))
        journal = machine.open()
        assert commands(journal) == [b"command-%d" % i for i in range(5)], f"cut at {size}"
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (3, "n2")
        machine.run()
        assert machine.runtime.disk.read(path).rstrip(b"\0") == data[: ends[-2]].rstrip(b"\0")
        fill(journal, b"next", term=3)
        machine.run()
        assert commands(machine.restart())[-1] == b"next"


@pytest.mark.parametrize("filler", [b"\x00", b"\xff", b"\xc5RCB"])
def test_a_tail_of_rubbish_is_cut_off(filler: bytes) -> None:
    """The size may reach the disk before the data."""
    machine = Machine()
    path, ends = written(machine)
    data = machine.runtime.disk.read(path)
    machine.runtime.disk.replace(path, data[: ends[-2]] + filler * 200 + data[2000:])
    assert commands(machine.open()) == [b"command-%d" % i for i in range(5)]


def test_any_flipped_bit_before_the_last_block_refuses_to_start() -> None:
    """S4h: what was acknowledged is damaged, and dropping it in silence would undo it: the node
    stops, says which file and what to do. Lengths, checksums and contents alike."""
    machine = Machine()
    path, ends = written(machine)
    data = machine.runtime.disk.read(path)
    for at in range(ends[-2]):
        for bit in (0, 7):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            machine.runtime.disk.replace(path, bytes(flipped))
            with pytest.raises(CorruptJournalError, match=r"journal-0000000001.*restore"):
                DurableJournal.open(machine.runtime, DIRECTORY)


def test_several_damaged_blocks_in_a_row_refuse_to_start() -> None:
    """A bad sector takes more than one small block."""
    machine = Machine()
    path, ends = written(machine)
    data = machine.runtime.disk.read(path)
    damaged = data[: ends[1]] + bytes(ends[4] - ends[1]) + data[ends[4] :]
    machine.runtime.disk.replace(path, damaged)
    with pytest.raises(CorruptJournalError):
        DurableJournal.open(machine.runtime, DIRECTORY)


def test_a_damaged_last_block_cannot_be_told_from_a_torn_one() -> None:
    """The known limit: it is cut off."""
    machine = Machine()
    path, ends = written(machine)
    flipped = bytearray(machine.runtime.disk.read(path))
    flipped[ends[-2] + 20] ^= 1
    machine.runtime.disk.replace(path, bytes(flipped))
    assert commands(machine.open()) == [b"command-%d" % i for i in range(5)]


def several_segments(machine: Machine) -> list[str]:
    """A journal of some, closed; their paths."""
    journal = machine.open()
    journal.setCurrentTerm(3, "n2")
    while journal._segments.next_number <= 5:
        fill(journal, b"x" * 700, term=3)
        machine.run()
    journal.close()
    return [f"{DIRECTORY}/{name}" for name in machine.files() if name.startswith("journal-")]


def test_a_damaged_earlier_segment_refuses_to_start(machine: Machine) -> None:
    """Even at its very end: it was complete when the next one began."""
    path = several_segments(machine)[1]
    data = machine.runtime.disk.read(path)
    end = len(data.rstrip(b"\0"))
    for damaged in (data[: end - 1] + bytes(len(data) - end + 1), data[: end - 1], b""):
        machine.runtime.disk.replace(path, damaged)
        with pytest.raises(CorruptJournalError, match=r"journal-0000000002: corrupt.*restore"):
            DurableJournal.open(machine.runtime, DIRECTORY)


def test_a_missing_segment_refuses_to_start(machine: Machine) -> None:
    paths = several_segments(machine)
    for missing in range(len(paths) - 1):
        data = machine.runtime.disk.read(paths[missing])
        machine.runtime.disk.delete(paths[missing])
        with pytest.raises(CorruptJournalError, match=r"missing; restore"):
            DurableJournal.open(machine.runtime, DIRECTORY)
        machine.runtime.disk.replace(paths[missing], data)
    DurableJournal.open(machine.runtime, DIRECTORY).close()


def test_a_segment_of_another_log_refuses_to_start(machine: Machine) -> None:
    """Copied from somewhere else: each of its blocks is good, but they are no continuation."""
    other = Machine()
    paths = several_segments(machine)
    journal = other.open()
    journal.setCurrentTerm(8, "n1")
    while journal._segments.next_number <= 3:
        fill(journal, b"other" * 100, term=8)
        other.run()
    machine.runtime.disk.replace(paths[0], other.runtime.disk.read(paths[0]))
    with pytest.raises(CorruptJournalError):
        DurableJournal.open(machine.runtime, DIRECTORY)


def test_a_block_of_another_place_is_not_taken_for_the_next() -> None:
    """The number in each block is part of its checksum: a block written twice is damage."""
    machine = Machine()
    path, ends = written(machine, count=3)
    data = machine.runtime.disk.read(path)
    again = data[: ends[2]] + data[ends[0] : ends[1]]
    machine.runtime.disk.replace(path, again + bytes(len(data) - len(again)))
    assert commands(machine.open()) == [b"command-0", b"command-1", b"command-2"]


@pytest.mark.parametrize(("segment", "at", "number"), [(2, 100, 3), (1, 101, 3), (1, 100, 4)])
def test_a_block_counts_only_in_its_segment_at_its_place_under_its_number(
    segment: int, at: int, number: int
) -> None:
    """So neither what an earlier file left on the disk nor a value made to look like a block can
    pass for one."""
    block = encode_block(1, 100, 3, b"payload")
    other = bytearray(bytes(at) + block)
    other[at + 4 : at + 8] = number.to_bytes(4, "little")
    assert read_block(bytes(100) + block, 100, 1) == (3, b"payload")
    assert read_block(bytes(other), at, segment) is None


# -- snapshots and compaction


def snapshot_at(journal: DurableJournal, index: int) -> SnapshotHeader:
    entry, before = journal.at(index), journal.at(index - 1)
    assert entry is not None and before is not None
    return SnapshotHeader(index, entry[2], before[2], entry[0])


def test_a_snapshot_makes_the_segments_before_it_superfluous(machine: Machine) -> None:
    """Nothing is rewritten: what follows the snapshot stays where it is."""
    journal = machine.open()
    journal.setCurrentTerm(4, "n1")
    values = [b"%d" % i * 300 for i in range(20)]
    fill(journal, *values, term=4)
    machine.run()
    before = {name: machine.runtime.disk.read(f"{DIRECTORY}/{name}") for name in machine.files()}
    machine.store(journal, snapshot_at(journal, 15), b"the state")
    machine.run()
    after = machine.files()
    assert after[-2:] == ["snapshot-00000000000000000015", "state"]
    assert "journal-0000000001" not in after
    for name in after[:-3]:
        assert machine.runtime.disk.read(f"{DIRECTORY}/{name}").startswith(
            before[name].rstrip(b"\0")
        )
    fill(journal, b"after", term=4)
    machine.run()
    journal = machine.restart()
    assert machine.snapshot is not None
    assert machine.snapshot.state == b"the state"
    assert machine.snapshot.header.index == 15
    assert journal.first_index == 14
    assert commands(journal)[1:] == [*values[14:], b"after"]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (4, "n1")
    assert journal.getRaftCommitIndex() == 15, "what a snapshot covers is committed"


def test_a_crash_at_every_step_of_storing_and_compacting_loses_nothing() -> None:
    """S4c, S4d: the machine stops before each change of a file that a snapshot makes; the log and
    the state are found whole, old or new."""
    steps = found_new = 0
    while True:
        machine = Machine(steps)
        journal = machine.open()
        journal.setCurrentTerm(2, "n3")
        fill(journal, *[b"%d" % i for i in range(10)], term=2)
        machine.run()
        machine.store(journal, snapshot_at(journal, 5), b"state at 5")
        machine.run()
        fill(journal, *[b"%d" % i for i in range(10, 20)], term=2)
        machine.run()
        before = machine.disk.changes
        machine.disk.limit = before + steps
        machine.store(journal, snapshot_at(journal, 12), b"state at 12")
        fill(journal, b"meanwhile", term=2)
        cut = False
        try:
            machine.run()
        except PowerCutError:
            cut = True
        machine.disk.limit = None
        durable_index = journal.durable_index
        journal = machine.restart()
        stored = machine.snapshot
        assert stored is not None and stored.header.index in (5, 12), f"step {steps}"
        assert stored.state == b"state at %d" % stored.header.index
        assert journal.last_index >= durable_index >= 20
        assert commands(journal)[1:21] == [
            b"%d" % i for i in range(stored.header.index - 1, 20)
        ] + ([b"meanwhile"] if journal.last_index > 20 else [])
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (2, "n3")
        found_new += stored.header.index == 12
        if not cut:
            break
        steps += 1
    assert steps >= 8 and found_new >= 1


def test_a_snapshot_is_kept_until_the_record_of_the_next_one_is_no_more_in_doubt() -> None:
    """A killed process leaves that record in the page cache; a power failure takes it away."""
    found = set()
    for seed in range(100):
        machine = Machine(seed)
        journal = machine.open()
        fill(journal, *[b"%d" % i for i in range(20)])
        machine.run()
        machine.store(journal, snapshot_at(journal, 5), b"state at 5")
        machine.run()
        machine.store(journal, snapshot_at(journal, 12), b"state at 12")
        machine.scheduler.run_until(lambda j=journal: j._writing, machine.scheduler.now + 1)
        machine.restart(power=False)
        machine.run(0.0)
        machine.runtime.disk.replace(f"{DIRECTORY}/state", b"whole\n")  # deletions are durable
        machine.restart(power=True)
        assert machine.snapshot is not None
        index = machine.snapshot.header.index
        assert machine.snapshot.state == b"state at %d" % index
        found.add(index)
    assert found == {5, 12}


def test_a_missing_snapshot_refuses_to_start(machine: Machine) -> None:
    journal = machine.open()
    fill(journal, *[b"%d" % i for i in range(10)])
    machine.store(journal, snapshot_at(journal, 5), b"state")
    machine.run()
    machine.runtime.disk.delete(f"{DIRECTORY}/snapshot-{5:020d}")
    with pytest.raises(CorruptJournalError, match="missing"):
        DurableJournal.open(machine.runtime, DIRECTORY)


def test_a_damaged_snapshot_header_refuses_to_start(machine: Machine) -> None:
    journal = machine.open()
    fill(journal, *[b"%d" % i for i in range(10)])
    machine.store(journal, snapshot_at(journal, 5), b"state")
    machine.run()
    path = f"{DIRECTORY}/snapshot-{5:020d}"
    data = bytearray(machine.runtime.disk.read(path))
    data[17] ^= 1
    machine.runtime.disk.replace(path, bytes(data))
    with pytest.raises(CorruptJournalError, match="corrupt header"):
        DurableJournal.open(machine.runtime, DIRECTORY)


def test_an_unfinished_snapshot_is_dropped(machine: Machine) -> None:
    journal = machine.open()
    fill(journal, b"x")
    machine.run()
    journal.close()
    machine.runtime.disk.replace(f"{DIRECTORY}/snapshot-{1:020d}", b"half of it")
    assert commands(machine.open()) == [b"x"]
    assert not [name for name in machine.files() if name.startswith("snapshot")]


def test_a_snapshot_is_due_when_the_segment_has_grown(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "SNAPSHOT_AFTER_BYTES", 1000)
    journal = machine.open()
    fill(journal, b"x" * 600)
    machine.run()
    assert not journal.snapshot_due
    fill(journal, b"x" * 600)
    machine.run()
    assert journal.snapshot_due
    machine.store(journal, snapshot_at(journal, 2), b"s" * 800)
    assert journal.snapshot_due
    machine.scheduler.run(machine.scheduler.now)
    assert not journal.snapshot_due, "one is being stored"
    machine.run()
    assert not journal.snapshot_due
    fill(journal, b"x" * 1200)
    machine.run()
    assert not journal.snapshot_due, "the state is large: it is worth more of the log"


def test_a_snapshot_is_due_sooner_when_the_last_one_was_long_ago(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "SNAPSHOT_AFTER_BYTES", 4000)
    journal = machine.open()
    fill(journal, b"x" * 600, b"x" * 600)
    machine.run(durable.SNAPSHOT_APART_S - 1)
    assert not journal.snapshot_due
    machine.run(2.0)
    assert journal.snapshot_due, "a quarter is enough"
    machine.store(journal, snapshot_at(journal, journal.last_index), b"s")
    machine.run()
    fill(journal, b"x" * 1800)
    machine.run(1.0)
    assert not journal.snapshot_due, "one was stored just now"
    machine.run(durable.SNAPSHOT_APART_S)
    assert journal.snapshot_due


def test_a_snapshot_overtaken_by_the_leaders_compacts_nothing(machine: Machine) -> None:
    """The log that ours goes with is void."""
    journal = machine.open()
    fill(journal, *[b"%d" % i for i in range(10)])
    machine.run()
    theirs = SnapshotHeader(50, 9, 9, b"theirs")
    ours = snapshot_at(journal, 8)

    async def install() -> None:
        assert await journal.store(theirs, [b"state at 50"])
        journal.installing(True)
        journal.clear()
        journal.add(*theirs.previous)
        journal.add(*theirs.last)
        journal.installing(False)

    machine.disk.sync_seconds = (0.001, 0.001)
    machine.runtime.spawn(install(), "install")
    machine.scheduler.run(machine.scheduler.now + 0.0015)
    machine.store(journal, ours, b"state at 8")
    machine.run()
    fill(journal, b"goes on", term=9)
    machine.run()
    journal = machine.restart()
    assert machine.snapshot is not None and machine.snapshot.state == b"state at 50"
    assert commands(journal)[1:] == [b"theirs", b"goes on"]
    assert len([name for name in machine.files() if name.startswith("snapshot")]) == 1


def test_an_installed_snapshot_is_durable_only_when_the_log_says_so(machine: Machine) -> None:
    """A write under way when the log is replaced says nothing about the new log, even if the old
    one was longer."""
    journal = machine.open()
    fill(journal, *[b"mine-%d" % i for i in range(30)])
    machine.run()
    theirs = SnapshotHeader(20, 9, 9, b"theirs")
    seen: list[tuple[int, int]] = []
    journal.on_durable = lambda: seen.append((journal.durable_index, len(machine.files())))

    async def install() -> None:
        assert await journal.store(theirs, [b"state at 20"])
        fill(journal, b"in flight")
        await machine.runtime.in_thread(lambda: None)
        machine.disk.sync_seconds = (0.02, 0.02)
        fill(journal, b"in flight, too")
        turn = machine.runtime.future()
        machine.runtime.call_later(0.005, turn.set_result, None)
        await turn
        journal.installing(True)
        journal.clear()
        journal.add(*theirs.previous)
        journal.add(*theirs.last)
        journal.installing(False)

    machine.runtime.spawn(install(), "install")
    machine.run(0.2)
    assert journal.durable_index == 20
    last_before = [index for index, _ in seen[:-1]]
    assert all(index == 0 or index > 30 for index in last_before)
    assert last_before[-1] == 0, "the old log's write counts for nothing"
    machine.restart()
    assert machine.snapshot is not None and machine.snapshot.header.index == 20


def test_a_snapshot_at_the_index_of_the_last_one_is_not_written_again() -> None:
    """Recovery needs that file: a crash in the middle of writing it anew would be the end."""
    for limit in range(8):
        machine = Machine(limit)
        journal = machine.open()
        fill(journal, *[b"%d" % i for i in range(10)])
        machine.store(journal, snapshot_at(journal, 5), b"state")
        machine.run()
        machine.disk.limit = machine.disk.changes + limit
        machine.store(journal, snapshot_at(journal, 5), b"state")
        with contextlib.suppress(PowerCutError):
            machine.run()
        machine.disk.limit = None
        journal = machine.restart()
        assert machine.snapshot is not None and machine.snapshot.state == b"state"
        assert journal.last_index == 10


def test_a_snapshot_whose_record_fails_to_be_written_gives_way_to_the_leaders(
    machine: Machine,
) -> None:
    """Meanwhile that one replaced the log: the older one goes with nothing that is still here."""
    journal = machine.open()
    fill(journal, *[b"%d" % i for i in range(10)])
    machine.run()
    machine.store(journal, snapshot_at(journal, 5), b"state at 5")
    machine.scheduler.run_until(lambda: journal._snapshot_index == 5, machine.scheduler.now + 1)
    machine.disk.fail_syncs = 3
    machine.run(0.1)
    theirs = SnapshotHeader(50, 9, 9, b"theirs")

    async def install() -> None:
        while not await journal.store(theirs, [b"state at 50"]):
            pass
        journal.installing(True)
        journal.clear()
        journal.add(*theirs.previous)
        journal.add(*theirs.last)
        journal.installing(False)

    machine.runtime.spawn(install(), "install")
    machine.run(1.0)
    assert journal.durable_index == 50
    journal = machine.restart()
    assert machine.snapshot is not None and machine.snapshot.state == b"state at 50"
    assert journal.last_index == 50


def test_what_memory_forgets_is_still_in_the_log(machine: Machine) -> None:
    """Trimming needs to wait for no snapshot."""
    journal = machine.open()
    fill(journal, *[b"%d" % i * 10 for i in range(10)])
    machine.run()
    machine.store(journal, snapshot_at(journal, 5), b"state")
    fill(journal, *[b"more" * 10 for i in range(10)])
    journal.trim(20, 10, None)
    assert journal.first_index > 15
    machine.run(1.0)
    journal = machine.restart()
    assert (journal.first_index, journal.last_index) == (4, 20)


# -- failing disks


def exhaust(machine: Machine, journal: DurableJournal) -> None:
    """Add entries on a full disk until they are not written any more."""
    machine.disk.free_bytes = 0
    while journal.durable_index == journal.last_index:
        fill(journal, b"x" * 200)
        machine.run()


def test_a_full_disk_is_known_while_there_is_room_for_all_that_was_accepted(
    machine: Machine,
) -> None:
    journal = machine.open()
    fill(journal, b"before")
    machine.run()
    assert journal.has_room
    machine.disk.free_bytes = 100
    while journal.has_room:
        fill(journal, b"x" * 100)
        machine.run()
    fill(journal, b"y" * 1000, b"z" * 1000)
    machine.run()
    assert journal.durable_index == journal.last_index and journal.backlog == 0
    assert not journal.has_room


def test_all_that_waits_is_written_within_a_second_when_there_is_space_again(
    machine: Machine,
) -> None:
    journal = machine.open()
    exhaust(machine, journal)
    fill(journal, b"y" * 10_000)
    durable_index = journal.durable_index
    machine.run(3.0)
    assert journal.durable_index == durable_index and not journal.has_room
    assert journal.backlog >= 10_000
    machine.disk.free_bytes = None
    machine.run(1.0)
    assert journal.durable_index == journal.last_index
    assert journal.has_room and journal.backlog == 0
    assert commands(machine.restart())[-1] == b"y" * 10_000


def test_a_full_disk_takes_terms_and_votes_and_the_first_entry_of_a_leader(
    machine: Machine,
) -> None:
    """A group whose disks are all full still has a leader, and reads."""
    journal = machine.open()
    machine.disk.free_bytes = 0
    while journal.has_room:
        fill(journal, b"x" * 100)
        machine.run()
    for term in range(5, 9):
        journal.setCurrentTerm(term, "n2")
        fill(journal, b"\x01", term=term)
        machine.run()
        assert journal.meta_durable and journal.durable_index == journal.last_index
    journal = machine.restart()
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (8, "n2")
    assert commands(journal)[-4:] == [b"\x01"] * 4


def test_a_term_and_a_vote_do_not_wait_for_entries_that_find_no_room(machine: Machine) -> None:
    journal = machine.open()
    exhaust(machine, journal)
    durable_index = journal.durable_index
    journal.setCurrentTerm(7, "n3")
    machine.run()
    assert journal.meta_durable and journal.durable_index == durable_index
    journal = machine.restart()
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (7, "n3")
    assert journal.last_index == durable_index


def test_a_restart_on_a_full_disk_goes_on_where_it_was(machine: Machine) -> None:
    """It needs no new space, however often: votes are still written."""
    journal = machine.open()
    machine.disk.free_bytes = 0
    while journal.has_room:
        fill(journal, b"x" * 100)
        machine.run()
    for term in range(5, 15):
        journal = machine.restart(power=term % 2 == 0)
        assert journal.getCurrentTerm() == (term - 1 if term > 5 else 0)
        journal.setCurrentTerm(term, "n2")
        machine.run(1.0)
        assert journal.meta_durable and not journal.has_room


def test_an_entry_larger_than_a_segment_gets_a_segment_that_fits(machine: Machine) -> None:
    journal = machine.open()
    fill(journal, b"small", b"L" * 20_000, b"small, too", b"M" * 9_000)
    machine.run(0.2)
    assert journal.durable_index == 4
    fill(journal, b"after")
    machine.run()
    expected = [b"small", b"L" * 20_000, b"small, too", b"M" * 9_000, b"after"]
    assert commands(machine.restart()) == expected


def test_votes_are_written_while_a_large_entry_waits_for_space(machine: Machine) -> None:
    """The segment that was ready, and too small for it, is not given up for nothing."""
    journal = machine.open()
    fill(journal, b"x" * 3500)
    machine.run()
    machine.disk.free_bytes = 6000
    fill(journal, b"L" * 20_000)
    machine.run(1.0)
    assert not journal.has_room and journal.durable_index == 1
    for term in range(5, 40):
        journal.setCurrentTerm(term, "n1")
        machine.run()
        assert journal.meta_durable
    machine.disk.free_bytes = None
    machine.run(1.0)
    assert journal.durable_index == 2
    assert commands(machine.restart())[-1] == b"L" * 20_000


def test_no_write_changes_the_size_of_a_segment(machine: Machine) -> None:
    """An fdatasync that has only data to write is the quicker one."""
    journal = machine.open()
    for _ in range(30):
        fill(journal, b"x" * 500)
        machine.run()
    sizes = {
        len(machine.runtime.disk.read(f"{DIRECTORY}/{name}"))
        for name in machine.files()
        if name.startswith("journal")
    }
    assert sizes == {segments.SEGMENT_BYTES}


def test_a_snapshot_that_finds_no_room_is_due_again_only_after_a_while(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "SNAPSHOT_AFTER_BYTES", 100)
    journal = machine.open()
    fill(journal, b"x" * 200)
    machine.run(1.0)
    assert journal.snapshot_due
    machine.disk.free_bytes = 10
    stored: list[bool] = []

    async def store() -> None:
        stored.append(await journal.store(SnapshotHeader(2, 1, 0, b"\x40"), [b"s" * 100]))

    machine.runtime.spawn(store(), "store")
    machine.run(1.0)
    assert stored == [False]
    machine.disk.free_bytes = None
    assert not journal.snapshot_due
    machine.run(durable.STORE_RETRY_S)
    assert journal.snapshot_due


def test_a_failed_sync_is_not_repeated_on_the_same_pages(machine: Machine) -> None:
    """After a failed fsync the page cache calls clean what the disk does not have: another fsync
    would say that all is well ("fsyncgate"). The block is written again in the next segment."""
    journal = machine.open()
    fill(journal, b"before")
    machine.run()
    end = end_of(journal)
    machine.disk.fail_syncs = 1
    fill(journal, b"x")
    machine.run(1.0)
    assert journal.durable_index == 2 and journal.has_room
    assert [segment.number for segment in journal._segments.kept] == [1, 2]
    assert journal._segments.kept[0].end == end
    assert commands(machine.restart(power=True)) == [b"before", b"x"]


def test_what_a_killed_process_wrote_and_did_not_sync_is_synced_before_it_counts() -> None:
    """Its successor finds it in the page cache; a power failure then must not take it away."""
    for seed in range(40):
        machine = Machine(seed)
        journal = machine.open()
        fill(journal, b"x")
        journal.setCurrentTerm(3, "n2")
        machine.run(0.0)
        journal = machine.restart(power=False)
        found, term = journal.last_index, journal.getCurrentTerm()
        assert journal.durable_index == 0, f"seed {seed}"
        assert term == 0 or not journal.meta_durable, f"seed {seed}"
        machine.run()
        assert journal.durable_index == found and journal.meta_durable, f"seed {seed}"
        journal = machine.restart(power=True)
        assert journal.last_index == found, f"seed {seed}"
        assert journal.getCurrentTerm() == term, f"seed {seed}"


def test_what_a_replacement_cut_short_left_behind_is_removed(machine: Machine) -> None:
    journal = machine.open()
    fill(journal, b"x")
    machine.run()
    machine.disk.replace(f"{DIRECTORY}/journal-0000000001.tmp", b"half of")
    journal = machine.restart()
    assert commands(journal) == [b"x"]
    assert not any(name.endswith(".tmp") for name in machine.disk.list(DIRECTORY))


def test_a_successor_does_not_trust_pages_whose_sync_failed() -> None:
    """A failed sync, then a kill, then a power failure."""
    for seed in range(10):
        machine = Machine(seed)
        journal = machine.open()
        fill(journal, b"before")
        machine.run()
        machine.disk.fail_syncs = 1
        fill(journal, b"x")
        machine.run(0.1)
        journal = machine.restart(power=False)
        machine.run()
        durable_index = journal.durable_index
        assert durable_index == journal.last_index
        assert journal.backlog == 0
        assert machine.restart(power=True).last_index == durable_index


def test_what_is_truncated_while_it_is_written_is_not_durable(machine: Machine) -> None:
    """The write under way was of other entries at these indexes."""
    machine.disk.sync_seconds = (0.01, 0.01)
    journal = machine.open()
    fill(journal, b"1", b"2", b"3")
    machine.run(0.005)
    journal.deleteEntriesFrom(1)
    fill(journal, b"other 2", b"other 3", term=2)
    machine.run(0.007)
    assert journal.durable_index == 1
    machine.run(0.05)
    assert journal.durable_index == 3
    assert commands(machine.restart()) == [b"1", b"other 2", b"other 3"]


def test_what_waits_for_the_disk_shares_one_sync(machine: Machine) -> None:
    """Group commit."""
    journal = machine.open()
    machine.disk.sync_seconds = (0.01, 0.01)
    told: list[int] = []
    journal.on_durable = lambda: told.append(journal.durable_index)
    for i in range(50):
        fill(journal, b"%d" % i)
        machine.run(0.0001)
    machine.run(0.1)
    assert told[-1] == 50 and len(told) <= 3


def test_a_closed_journal_writes_nothing_more(machine: Machine) -> None:
    """Not even what failed and would be tried again: the directory may be another process's."""
    journal = machine.open()
    fill(journal, b"before")
    machine.run()
    machine.disk.fail_writes = 1
    fill(journal, b"x")
    machine.run(0.1)
    journal.close()
    changes = machine.disk.changes
    machine.run(2.0)
    assert machine.disk.changes == changes


# -- the real file system


async def until(predicate: Callable[[], bool]) -> None:
    for _ in range(2000):
        if predicate():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("not within two seconds")


async def test_the_same_over_real_files(tmp_path: Path) -> None:
    runtime, directory = AsyncioRuntime(), str(tmp_path / "group")
    journal = DurableJournal.open(runtime, directory)
    await until(journal.end_recovery)
    journal.setCurrentTerm(2, "n1")
    fill(journal, *[b"%d" % i for i in range(20)], term=2)
    await until(lambda: journal.durable_index == 20 and journal.meta_durable)
    assert await journal.store(snapshot_at(journal, 10), iter([b"st", b"ate"]))
    journal.compact(10)
    fill(journal, b"after", term=2)
    await until(lambda: journal.durable_index == 21 and journal._tail.snapshot == 10)
    while journal._segments.next_number < 5:
        fill(journal, b"x" * 900, term=2)
        await until(lambda: journal.durable_index == journal.last_index)
    assert await journal.store(snapshot_at(journal, journal.last_index), iter([b"new state"]))
    journal.compact(journal.last_index)
    await until(lambda: len(os.listdir(directory)) == 4)
    fill(journal, b"the last", term=2)
    await until(lambda: journal.durable_index == journal.last_index)
    segment = segments.segment_path(directory, journal._segments.kept[-1].number)
    end = end_of(journal)
    journal.close()

    data = bytearray(Path(segment).read_bytes())
    data[end : end + 4] = b"torn"
    Path(segment).write_bytes(data)
    journal = DurableJournal.open(runtime, directory)
    assert journal.stored is not None and journal.stored.state == b"new state"
    assert commands(journal)[-1] == b"the last"
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (2, "n1")
    journal.close()


IDENTITY = Identity(format=1, cluster="c", node="n1", topology="t")


async def test_a_second_process_cannot_open_the_same_directory(tmp_path: Path) -> None:
    runtime = AsyncioRuntime()
    directory = DataDirectory(runtime, str(tmp_path), IDENTITY)
    code = (
        "import asyncio, sys\n"
        "from raftcache.runtime import AsyncioRuntime\n"
        "from raftcache.raft.storage import DataDirectory, Identity\n"
        "async def main():\n"
        "    identity = Identity(format=1, cluster='c', node='n1', topology='t')\n"
        "    DataDirectory(AsyncioRuntime(), sys.argv[1], identity)\n"
        "asyncio.run(main())\n"
    )

    def other_process() -> subprocess.CompletedProcess[str]:
        arguments = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=30)

    refused = await asyncio.to_thread(other_process)
    assert refused.returncode != 0
    assert "another process is using this data directory" in refused.stderr
    directory.close()
    allowed = await asyncio.to_thread(other_process)
    assert allowed.returncode == 0, allowed.stderr


@pytest.mark.parametrize("field", ["format", "cluster", "node", "topology"])
def test_another_nodes_directory_is_refused(machine: Machine, field: str) -> None:
    """A journal speaks for one node of one cluster; taken by another it would vote twice."""
    DataDirectory(machine.runtime, "/data", IDENTITY).close()
    DataDirectory(machine.runtime, "/data", IDENTITY).close()
    other: Any = 2 if field == "format" else "other"
    identity = msgspec.structs.replace(IDENTITY, **{field: other})
    with pytest.raises(StorageError, match=f"belongs to {field}"):
        DataDirectory(machine.runtime, "/data", identity)


def test_a_refused_directory_is_not_kept_locked(machine: Machine) -> None:
    DataDirectory(machine.runtime, "/data", IDENTITY).close()
    identity = msgspec.structs.replace(IDENTITY, node="other")
    with pytest.raises(StorageError):
        DataDirectory(machine.runtime, "/data", identity)
    neighbour = SimRuntime(machine.scheduler, machine.network, machine.disk, "n2")
    DataDirectory(neighbour, "/data", IDENTITY).close()


@pytest.mark.parametrize("content", [b"{", b'{"\xb0'])
def test_an_unreadable_identity_is_refused(machine: Machine, content: bytes) -> None:
    DataDirectory(machine.runtime, "/data", IDENTITY).close()
    machine.runtime.disk.replace("/data/identity.json", content)
    with pytest.raises(StorageError, match="unreadable"):
        DataDirectory(machine.runtime, "/data", IDENTITY)


def test_a_journal_of_an_unfinished_recovery_is_not_relied_on(machine: Machine) -> None:
    """A node that was killed while it recovered from the others starts that anew."""
    journal = DurableJournal.open(machine.runtime, DIRECTORY)
    assert journal.blank
    journal.setCurrentTerm(7, "n2")
    fill(journal, b"x", term=7)
    machine.run()
    machine.runtime.process.crash()
    machine.runtime = machine._boot()
    journal = DurableJournal.open(machine.runtime, DIRECTORY)
    assert journal.blank and len(journal) == 0 and journal.getCurrentTerm() == 0


def test_what_an_unfinished_recovery_left_stays_unreliable_at_every_crash() -> None:
    """The file that says so outlives what it speaks of."""
    for seed in range(20):
        for limit in range(6):
            machine = Machine(seed)
            journal = DurableJournal.open(machine.runtime, DIRECTORY)
            journal.setCurrentTerm(7, "n2")
            fill(journal, b"x", term=7)
            machine.run()
            machine.runtime.process.crash()
            machine.runtime = machine._boot()
            machine.disk.limit = machine.disk.changes + limit
            with contextlib.suppress(PowerCutError):
                DurableJournal.open(machine.runtime, DIRECTORY)
            machine.disk.limit = None
            machine.runtime.process.crash(True)
            machine.runtime = machine._boot()
            journal = DurableJournal.open(machine.runtime, DIRECTORY)
            assert journal.blank and len(journal) == 0, f"seed {seed}, change {limit}"


def test_a_damaged_recovery_mark_refuses_to_start(machine: Machine) -> None:
    machine.open().close()
    machine.runtime.disk.replace(f"{DIRECTORY}/state", b"whalf\n")
    with pytest.raises(CorruptJournalError, match="state"):
        DurableJournal.open(machine.runtime, DIRECTORY)
