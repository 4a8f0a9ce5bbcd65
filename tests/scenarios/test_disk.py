"""The log on disk, and a restart from it: S4b to S4h; guarantees 4 and 5.

How ``DurableJournal`` does it is told in ``tests/raft/test_durable.py``; here it is shown what a
cluster would lose without.
"""

from __future__ import annotations

import pytest

from jepsen_like.sim.runtime import SimRuntime
from raftcache.raft import durable
from raftcache.raft.durable import CorruptJournalError, DurableJournal
from raftcache.raft.engine import COMMAND, NO_OP, Engine
from raftcache.raft.entries import SnapshotHeader
from raftcache.raft.group import Outcome
from raftcache.raft.journal import Journal
from raftcache.raft.storage import DataDirectory, Identity, StorageError
from tests.raft.harness import GROUP, Cluster
from tests.raft.test_durable import Machine, commands, fill

from .story import broke, cluster, lost, other_leader, scenario, slow_disk, tear_the_last_write


def flip_bit_of(c: Cluster, name: str, payload: bytes) -> None:
    """One bit of what was written as ``payload`` is another now."""
    for file in c.disks[name]._files.values():
        at = file.data.find(payload)
        if at >= 0:
            file.data[at] ^= 1
            return
    raise AssertionError(f"{payload!r} is not on the disk of {name}")


@scenario("journal-checksums")
def test_a_flipped_bit_becomes_no_write_that_nobody_made(guarded: bool) -> None:
    """S4h. A sector of c's disk goes bad while c is down. Checksums tell; a log without them is
    applied as it reads."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    for i in range(5):
        c.write("a", b"payload-%d" % i)
    c.converge()
    c.crash("c")
    flip_bit_of(c, "c", b"payload-2")
    if guarded:
        with pytest.raises(CorruptJournalError, match="restore"):
            c.start("c")
        return
    c.start("c")
    c.flow(1.0)
    assert broke(c, "two commands at index")
    assert c["c"].state[2] == b"qayload-2", "nobody wrote that"


@scenario("journal-checksums")
def test_a_torn_write_is_no_write(guarded: bool) -> None:
    """The power fails while c writes an entry: its length reached the disk before the last of its
    data. Checksums tell, and the tail is cut off; a log without them has an entry that nobody
    proposed, at an index and of a term at which a takes it for its own."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    c.write("a", b"before")
    c.converge()
    slow_disk(c, "c")
    tear_the_last_write(c, "c")
    c.write("a", b"x" * 700)
    c.flow(0.01)
    c.crash("c", power=True)
    slow_disk(c, "c", 0.001)
    c.start("c")
    assert (len(c["c"].log) < len(c["a"].log)) is guarded
    c.flow(1.0)
    assert broke(c, "two commands at index") is not guarded
    assert (c["c"].state == [b"before", b"x" * 700]) is guarded


@scenario("corruption-refusal")
def test_a_node_with_a_damaged_journal_does_not_start_with_less(guarded: bool) -> None:
    """S4h. PySyncObj logs a corrupt dump, and goes on without. Cut at the damage, b's log lacks
    what b has acknowledged; a is away, and c never had it: b and c decide."""
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    c.isolate("c")
    proposals = []
    for i in range(5):
        proposals += c.write("a", b"payload-%d" % i)
    c.until(lambda: c["b"].commit == c["a"].commit)
    c.crash("b")
    flip_bit_of(c, "b", b"payload-1")
    if guarded:
        with pytest.raises(CorruptJournalError, match="restore"):
            c.start("b")
        return
    term = c["a"].term
    c.start("b")
    c.held.clear()
    c.isolate("a")
    survivor = c[other_leader(c, term)]
    c.write(survivor.name, b"y")
    assert lost(proposals, survivor.state), "acknowledged, and gone"


@scenario("commit-clamp")
def test_a_leader_acknowledges_nothing_because_of_a_stored_commit_index(guarded: bool) -> None:
    """S4b: a commit index beyond the log (the log's tail was lost, the index was not). As a leader,
    PySyncObj applies and acknowledges then what nobody else has. Ours stores no commit index at
    all; the clamp is a second line of defence."""
    journal = Journal()
    journal.add(NO_OP, 1, 0)
    journal.add(COMMAND + b"x", 2, 1)
    journal.setCurrentTerm(1, None)
    journal.setRaftCommitIndex(99)
    engine = Engine("a", "abc", journal, lambda *_: None, lambda: 100.0, 0.05, 0.8)
    for other in "bc":
        engine.connect(other)
    engine.campaign()
    engine.deliver("b", {"type": "response_vote", "term": engine.term})
    engine.submit(COMMAND + b"y", lambda *_: None)
    engine.tick()
    engine.tick()
    assert journal.last_index == 4 and engine.match_index("b") == engine.match_index("c") == 0
    assert (engine.last_applied == 2) is guarded
    assert (engine.last_applied == 4) is not guarded, "acknowledged without replicating"


@scenario("snapshot-keeps-log")
def test_a_restart_from_a_snapshot_keeps_the_log_after_it(
    guarded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S4c: PySyncObj discards the whole journal when there is a dump beside it that the journal was
    not compacted for. All processes are killed; no disk loses anything."""
    monkeypatch.setattr(durable, "SNAPSHOT_AFTER_BYTES", 1500)
    c = cluster("abc", guarded=guarded, durable=True)
    c.elect("a")
    proposals = []
    for i in range(120):
        proposals += c.write("a", b"payload-%03d" % i)
    c.flow(0.2)
    assert any("snapshot-" in path for path in c.disks["a"]._files)
    for name in "abc":
        c.crash(name)
    for name in "abc":
        c.start(name)
    survivor = c.elect()
    c.write(survivor.name, b"last")
    assert bool(lost(proposals, survivor.state)) is not guarded, "acknowledged, and gone"


@scenario("compaction-order")
def test_a_process_that_dies_while_its_log_is_compacted_loses_nothing(guarded: bool) -> None:
    """S4d: PySyncObj rewrites its journal in place. Here the snapshot is complete, and what follows
    it is about to take the place of the old log, when the process is killed."""
    machine = Machine()
    journal = machine.open()
    written = [COMMAND + b"%d" % i for i in range(12)]
    fill(journal, *written)
    machine.run()
    entry, before = journal.at(8), journal.at(7)
    assert entry is not None and before is not None and journal.durable_index == 12
    header = SnapshotHeader(8, entry[2], before[2], entry[0])
    machine.store(journal, header, b"state", ended=machine.runtime.process.crash)
    machine.scheduler.run(machine.scheduler.now + 1.0)
    assert not machine.runtime.process.alive
    machine.runtime = machine._boot()
    journal = machine.open()
    assert (commands(journal)[-4:] == written[-4:]) is guarded, "on disk, and gone"
    assert journal.blank is not guarded


class Housed(Cluster):
    """Journals in data directories that say whose they are."""

    def make_journal(self, runtime: SimRuntime) -> DurableJournal:
        identity = Identity(1, "cluster", runtime.process.name, "topology")
        return DataDirectory(runtime, "/data", identity).journal(GROUP)


def copy_disk(c: Cluster, source: str, target: str) -> None:
    """As a careless operator does it."""
    files = {path: bytes(file.data) for path, file in c.disks[source]._files.items()}
    disk = c.disks[target]
    disk.wipe()
    for path, data in files.items():
        disk.make_directory(path.rpartition("/")[0])
        disk.replace(path, data)


@scenario("data-directory")
def test_a_node_does_not_start_with_another_nodes_log(guarded: bool) -> None:
    """a and b have x, which is acknowledged; c was away. Then a is given the directory of c: it has
    x no more and does not know it; b is away, a and c decide."""
    c = Housed("abc", durable=True, crippled=not guarded)
    c.elect("a")
    c.isolate("c")
    proposals = c.write("a", b"x")
    c.flow(0.1)
    term = c["a"].term
    c.crash("a")
    copy_disk(c, "c", "a")
    if guarded:
        with pytest.raises(StorageError, match="belongs to node 'c', not 'a'"):
            c.start("a")
        return
    c.start("a")
    c.held.clear()
    c.isolate("b")
    survivor = c[other_leader(c, term)]
    c.write(survivor.name, b"y")
    assert lost(proposals, survivor.state), "acknowledged, and gone"


def test_acknowledged_writes_survive_a_power_failure_of_everybody() -> None:
    """Guarantees 2 to 4 together: whatever was un-synced is lost, everywhere, at any moment."""
    for seed in range(30):
        c = Cluster("abc", durable=True, seed=seed)
        c.elect()
        draw = c.scheduler.generator("test")
        proposals = []
        for i in range(10):
            leader = c.leader
            if leader is not None:
                proposals += leader.propose(b"%d" % i)
            c.flow(draw.choice([0.001, 0.002, 0.004]))
        before = [p.payload for p in proposals if p.outcome is Outcome.APPLIED]
        for name in c.names:
            c.crash(name, power=True)
        for name in c.names:
            c.start(name)
        c.elect()
        c.converge()
        assert [x for x in c["a"].state if x in before] == before, f"seed {seed}"
