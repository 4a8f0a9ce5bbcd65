"""Defects that cannot occur, because what has them is not used: S4e, S4f, S10, S11, S14, S16, S17.

See ``jepsen_like.sim.guards.catalogue.CONSTRUCTIONS``; those about outcomes are in
``test_outcomes``.
"""

from __future__ import annotations

from typing import Any

import pysyncobj.pickle as core_pickle
import pytest
from pysyncobj.journal import FileJournal, MemoryJournal
from pysyncobj.serializer import Serializer

from raftcache.raft import durable, wire
from tests.raft.harness import GROUP, Cluster

from .story import TINY_LOG, construction, entries_sent, other_leader


def eventful(c: Cluster) -> None:
    """Elections, a divergent tail, a snapshot sent, snapshots stored, a restart."""
    c.elect("a")
    c.isolate("a")
    c["a"].propose(b"lost")
    leader = c[other_leader(c, c["a"].term)]
    for i in range(150):
        c.write(leader.name, b"entry-%03d" % i)
    c.reconnect("a")
    c.converge()
    c.elect("a")
    c.crash("b")
    c.start("b")
    c.until(lambda: not c["b"].group.recovering)
    c.write("a", b"last")
    c.converge()
    assert sum(member.group.snapshots.received for member in c.members.values()) > 0


@construction("own-log-and-snapshots")
@pytest.mark.parametrize("on_disk", [True, False])
def test_pysyncobjs_journals_and_dumps_are_never_used(
    on_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S4b, S4e, S4f, S8: neither of its journals is ever made, no state is ever dumped by it; a
    commit index is stored by nobody, no offset is written anywhere. (What it has left of a snapshot
    that we let it install, it would send; its transmissions are no messages of ours.)"""

    def forbidden(*_arguments: Any, **_named: Any) -> None:
        raise AssertionError("PySyncObj's own")

    for owner in (FileJournal, MemoryJournal):
        monkeypatch.setattr(owner, "__init__", forbidden)
    monkeypatch.setattr(Serializer, "serialize", forbidden)
    monkeypatch.setattr(durable, "SNAPSHOT_AFTER_BYTES", 1500)
    c = Cluster("abc", durable=on_disk, options=TINY_LOG)
    eventful(c)


@construction("nothing-unpickled")
def test_pysyncobj_unpickles_only_what_was_pickled_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """S16: two log entries, by ``Engine.install``, of typed values."""
    seen: list[Any] = []
    load = core_pickle.load

    def loads(_data: bytes) -> None:
        raise AssertionError("unpickled")

    def remember(file: Any) -> Any:
        seen.append(load(file))
        return seen[-1]

    monkeypatch.setattr(core_pickle, "loads", loads)
    monkeypatch.setattr(core_pickle, "load", remember)
    c = Cluster("abc", options=TINY_LOG)
    eventful(c)
    assert seen
    for state, last, previous, members in seen:
        assert state is None and members == ()
        for command, index, term in (last, previous):
            assert (type(command), type(index), type(term)) == (bytes, int, int)


@construction("fixed-members")
def test_no_entry_and_no_peer_changes_who_the_members_are() -> None:
    """S10, S11, S17. The members are those of the configuration, before and after a restart. Of
    every kind of entry only no-ops and our own commands enter a log, by append or by snapshot."""
    c = Cluster("abc", options=TINY_LOG)
    c.elect("a")
    b, before = c["b"], c["b"].log
    last, term = b.journal.last_index, b.term
    for kind in (b"", b"\x00", b"\x02", b"\x03", b"\x41", b"\x01more"):
        append = wire.Append(GROUP, term, last, term, 0, [(kind + b"...", term)], 0)
        with pytest.raises(wire.WireError, match="command of type"):
            b.group.on_message("a", append)
        chunk = wire.SnapshotChunk(
            GROUP, term, last + 9, term, term, kind + b"...", 0, b"state", True
        )
        with pytest.raises(wire.WireError, match="command of type"):
            b.group.on_message("a", chunk)
    assert b.log == before
    eventful(c)
    for member in c.members.values():
        others = {node.id for node in member.group.engine._core.otherNodes}
        assert others == set("abc") - {member.name}
        assert member.group.engine._core.conf.dynamicMembershipChange is False


@construction("whole-entries")
@pytest.mark.parametrize("size", [70_000, 131_072 - 60, 1_000_000, 5_000_000])
def test_a_large_entry_arrives_whole_and_at_once(size: int) -> None:
    """S14: PySyncObj pickles entries beyond its batch size and mistakes the last piece."""
    c = Cluster("abc")
    c.elect("a")
    payload = b"\xff\x00\x80" * (size // 3)
    c.sent.clear()
    c.write("a", b"before", payload, b"after")
    c.converge()
    assert c["b"].state == [b"before", payload, b"after"]
    assert len(entries_sent(c, "a", "b")) == 3
