"""What ``engine.py`` relies on in PySyncObj 0.3.17; a version that changes any of it fails here.

PySyncObj is used unmodified, through public and single-underscore names and three module globals.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import pickle
import random
from typing import Any

import pysyncobj.syncobj as core_module
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.journal import Journal as CoreJournal
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from raftcache.raft.engine import COMMAND, NO_OP, Engine
from raftcache.raft.entries import SnapshotHeader
from raftcache.raft.journal import Journal

Message = dict[str, Any]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """One engine; what it sends is in ``sent``."""

    def __init__(self, members: str = "abc", node: str = "a") -> None:
        self.clock = Clock()
        self.journal = Journal()
        self.sent: list[tuple[str, Message]] = []
        self.engine = Engine(
            node,
            list(members),
            self.journal,
            self.outgoing,
            self.clock,
            0.05,
            0.8,
        )
        for other in self.engine.others:
            self.engine.connect(other)

    def outgoing(self, to: str, message: Message) -> None:
        self.sent.append((to, message))
        if "serialized" in message:
            # PySyncObj repeats this for as long as its tick may take (S15), unless cut off.
            self.engine.disconnect(to)

    def take(self, kind: str) -> list[tuple[str, Message]]:
        found = [item for item in self.sent if item[1]["type"] == kind]
        self.sent.clear()
        return found

    def lead(self) -> None:
        """Win an election with the first other's vote (or alone)."""
        self.engine.campaign()
        for other in self.engine.others[: self.engine.majority - 1]:
            self.engine.deliver(other, {"type": "response_vote", "term": self.engine.term})
        assert self.engine.is_leader
        self.sent.clear()

    def acknowledge(self, node: str, next_index: int) -> None:
        message = {"type": "next_node_idx", "next_node_idx": next_index}
        self.engine.deliver(node, {**message, "success": True, "reset": False})

    def append(self, leader: str, term: int, *commands: bytes, commit: int = 0) -> None:
        last, last_term = self.journal.last_index, self.journal.last_term
        entries = [(command, last + 1 + i, term) for i, command in enumerate(commands)]
        self.engine.deliver(
            leader,
            {
                "type": "append_entries",
                "term": term,
                "commit_index": commit,
                "entries": entries,
                "prevLogIdx": last,
                "prevLogTerm": last_term,
            },
        )


def ignore(_result: object, _error: int) -> None:
    pass


# -- the version and the patches


def test_the_version_is_the_one_that_was_read() -> None:
    assert importlib.metadata.version("pysyncobj") == "0.3.17"


def test_the_names_that_are_used_exist() -> None:
    for name in ("createJournal", "monotonicTime", "PIPE_NOTIFIER_ENABLED"):
        assert hasattr(core_module, name)
    for name in (
        "doTick",
        "destroy",
        "getStatus",
        "transferLeadership",
        "raftCurrentTerm",
        "raftCommitIndex",
        "raftLastApplied",
        "_isLeader",
        "_getLeader",
        "_applyCommand",
    ):
        assert hasattr(SyncObj, name), name
    for name in ("_onMessageReceived", "_onNodeConnected", "_onNodeDisconnected"):
        assert hasattr(Transport, name), name


def test_our_journal_has_every_method_of_theirs() -> None:
    abstract = {
        name
        for name, member in inspect.getmembers(CoreJournal)
        if callable(member) and (not name.startswith("__") or name in ("__getitem__", "__len__"))
    }
    for name in abstract:
        ours, theirs = getattr(Journal, name), getattr(CoreJournal, name)
        assert ours is not theirs, f"{name} is not ours"
        arguments = [list(inspect.signature(method).parameters) for method in (ours, theirs)]
        assert len(arguments[0]) == len(arguments[1]), name


def test_createjournal_is_replaced_while_an_object_is_made_and_only_then() -> None:
    before = core_module.createJournal
    rig = Rig()
    assert core_module.createJournal is before
    assert len(rig.journal) == 1, "PySyncObj writes to the journal it was given"
    assert rig.journal.at(1) == (NO_OP, 1, 0)


def test_every_reading_of_the_clock_is_ours() -> None:
    """``monotonicTime`` is looked up in the module at each call; an engine says whose it is."""
    one, other = Rig(), Rig()
    one.lead()
    one.clock.now += 0.2
    other.clock.now += 1e6
    other.engine.tick()
    one.engine.tick()
    assert one.engine.is_leader, "it took 200 ms for itself, not a million seconds"
    one.clock.now += 10.0
    one.engine.tick()
    assert not one.engine.is_leader, "check-quorum"


def test_no_pipe_notifier_is_made() -> None:
    """``PIPE_NOTIFIER_ENABLED`` off: a submission touches no file descriptor."""
    assert core_module.PIPE_NOTIFIER_ENABLED is False
    rig = Rig()
    assert not hasattr(rig.engine._core, "_SyncObj__pipeNotifier")


def test_a_tick_polls_nothing() -> None:
    """``_poller`` is replaced: nothing here has a file descriptor."""
    rig = Rig()
    polled: list[float] = []
    rig.engine._core._poller.poll = polled.append
    rig.engine.tick()
    assert polled == [0.0], "a tick polls what was put there"


def test_the_settings_are_those_that_pysyncobj_knows() -> None:
    """``SyncObjConf`` swallows what it does not know."""
    conf = SyncObjConf()
    for name in (
        "autoTick",
        "commandsQueueSize",
        "commandsWaitLeader",
        "appendEntriesUseBatch",
        "appendEntriesPeriod",
        "appendEntriesBatchSizeBytes",
        "raftMinTimeout",
        "raftMaxTimeout",
        "connectionTimeout",
        "leaderFallbackTimeout",
        "logCompactionMinEntries",
        "logCompactionMinTime",
    ):
        assert hasattr(conf, name), name


# -- elections from outside


def test_stock_timers_never_elect() -> None:
    rig = Rig()
    rig.clock.now += 1e9
    for _ in range(10):
        rig.engine.tick()
    assert rig.engine.term == 0 and not rig.sent


@pytest.mark.parametrize("leader", [None, "b"])
def test_timeout_now_from_the_known_leader_or_none_makes_a_candidate(leader: str | None) -> None:
    rig = Rig()
    if leader is not None:
        rig.append(leader, 3)
        rig.sent.clear()
    term = rig.engine.term
    rig.engine.campaign()
    assert rig.engine.term == term + 1
    requests = rig.take("request_vote")
    assert [to for to, _ in requests] == ["b", "c"]
    assert requests[0][1] == {
        "type": "request_vote",
        "term": term + 1,
        "last_log_index": rig.journal.last_index,
        "last_log_term": rig.journal.last_term,
    }
    assert (rig.journal.getCurrentTerm(), rig.journal.getVotedForNodeId()) == (term + 1, "a")


def test_a_candidate_campaigns_again() -> None:
    rig = Rig()
    rig.engine.campaign()
    rig.engine.campaign()
    assert rig.engine.term == 2


def test_a_deposed_leader_campaigns_again() -> None:
    rig = Rig()
    rig.lead()
    rig.engine.step_down(5)
    rig.engine.campaign()
    assert rig.engine.term == 6


def test_votes_make_a_leader_that_appends_a_noop_of_its_term() -> None:
    rig = Rig("abcde")
    rig.engine.campaign()
    rig.engine.deliver("b", {"type": "response_vote", "term": 1})
    assert not rig.engine.is_leader
    rig.engine.deliver("c", {"type": "response_vote", "term": 1})
    assert rig.engine.is_leader and rig.engine.leader == "a"
    assert rig.journal.at(2) == (NO_OP, 2, 1)
    appends = rig.take("append_entries")
    assert {to for to, _ in appends} == {"b", "c", "d", "e"}


def test_a_leader_of_one_needs_no_vote() -> None:
    rig = Rig("a")
    rig.engine.campaign()
    rig.engine.tick()
    assert rig.engine.is_leader
    assert rig.engine.commit_index == rig.engine.last_applied == 2


def test_a_campaign_that_nobody_can_hear_is_not_remembered() -> None:
    rig = Rig()
    rig.engine.disconnect("b")
    rig.engine.disconnect("c")
    rig.engine.campaign()
    rig.engine.connect("b")
    rig.engine.tick()
    assert rig.engine.term == 0


def test_step_down_adopts_a_term_and_grants_nothing() -> None:
    """A request for votes with last_log_term -1: no log is that short."""
    rig = Rig()
    rig.lead()
    rig.engine.step_down(9)
    assert rig.engine.term == 9 and not rig.engine.is_leader and rig.engine.leader is None
    assert not rig.take("response_vote")
    assert (rig.journal.getCurrentTerm(), rig.journal.getVotedForNodeId()) == (9, None)


def test_a_vote_is_recorded_before_it_is_sent() -> None:
    rig = Rig()
    order: list[str] = []
    set_term = rig.journal.setCurrentTerm
    rig.journal.setCurrentTerm = lambda *a: (order.append(f"vote {a}"), set_term(*a))[1]  # type: ignore[method-assign]
    outlet = rig.engine._outlet
    outlet.outgoing = lambda to, message: order.append(message["type"])
    request = {"type": "request_vote", "term": 4, "last_log_index": 1, "last_log_term": 0}
    rig.engine.deliver("b", request)
    assert order[-2:] == ["vote (4, 'b')", "response_vote"]


def test_a_second_candidate_of_the_same_term_gets_no_vote() -> None:
    rig = Rig()
    request = {"type": "request_vote", "term": 4, "last_log_index": 1, "last_log_term": 0}
    rig.engine.deliver("b", request)
    rig.engine.deliver("c", request)
    rig.engine.deliver("b", request)
    assert [to for to, _ in rig.take("response_vote")] == ["b"]


def test_a_leader_that_hears_nobody_steps_down() -> None:
    """leaderFallbackTimeout, given as ``fallback_s``."""
    rig = Rig()
    rig.lead()
    for _ in range(30):
        rig.clock.now += 0.1
        message = {"type": "next_node_idx", "next_node_idx": 0}
        rig.engine.deliver("b", {**message, "success": False, "reset": False})
        rig.engine.tick()
    assert rig.engine.is_leader, "an answer without content is contact enough"
    rig.clock.now += 0.79
    rig.engine.tick()
    assert rig.engine.is_leader
    rig.clock.now += 0.02
    rig.engine.tick()
    assert not rig.engine.is_leader and rig.engine.leader is None


def test_a_transfer_sends_timeout_now_to_who_has_the_whole_log() -> None:
    rig = Rig()
    rig.lead()
    assert not rig.engine.transfer("b"), "it does not have the no-op yet"
    rig.acknowledge("b", 3)
    assert rig.engine.transfer("b")
    assert rig.take("timeout_now") == [("b", {"type": "timeout_now", "term": 1})]
    assert rig.engine.is_leader, "until the target has won"


# -- the log


def test_a_command_of_our_type_is_committed_and_not_applied() -> None:
    """0x40 is unknown to PySyncObj: nothing is unpickled, nothing is called but ``on_error``."""
    rig = Rig()
    rig.lead()
    added: list[tuple[bytes, int, int]] = []
    rig.journal.on_append = lambda *entry: added.append(entry)
    command = COMMAND + pickle.dumps((0, ()))
    ended: list[tuple[object, int]] = []
    rig.engine.submit(command, lambda result, error: ended.append((result, error)))
    rig.engine.tick()
    assert added == [(command, 3, 1)]
    assert added[0][0] is command, "the very object: that is how a proposal is found again"
    rig.acknowledge("b", 4)
    rig.engine.tick()
    assert rig.engine.commit_index == rig.engine.last_applied == 3
    assert ended == [(None, 0)], "called back, with the result of nothing"
    known = {v for k, v in vars(core_module._COMMAND_TYPE).items() if not k.startswith("_")}
    assert COMMAND[0] not in known


def test_submissions_are_appended_in_one_tick_and_sent_with_the_next_heartbeat() -> None:
    """Not before: the transport sends what is new itself."""
    rig = Rig()
    rig.lead()
    rig.engine.submit(COMMAND + b"x", ignore)
    rig.engine.submit(COMMAND + b"y", ignore)
    rig.engine.tick()
    assert [entry[0] for entry in rig.journal.after(1)] == [NO_OP, COMMAND + b"x", COMMAND + b"y"]
    rig.engine.tick()
    assert rig.take("append_entries") == []
    rig.clock.now += 0.051
    rig.engine.tick()
    (first,) = [m for to, m in rig.take("append_entries") if to == "b"]
    assert [entry[0] for entry in first["entries"]] == [COMMAND + b"x", COMMAND + b"y"]
    assert set(first) == {
        "type",
        "term",
        "commit_index",
        "entries",
        "prevLogIdx",
        "prevLogTerm",
    }


def test_an_entry_of_any_size_goes_whole() -> None:
    """appendEntriesBatchSizeBytes unbounded: PySyncObj's own splitting is broken (S14)."""
    rig = Rig()
    rig.lead()
    rig.engine.submit(COMMAND + b"x" * 10_000_000, ignore)
    rig.engine.tick()
    rig.clock.now += 0.051
    rig.engine.tick()
    sent = [m for to, m in rig.take("append_entries") if to == "b"]
    assert not any("transmission" in m for m in sent)
    assert sum(len(m["entries"]) for m in sent) == 1


def test_a_submission_without_a_leader_fails_and_with_another_is_forwarded() -> None:
    """Neither appends anything; both tell us."""
    rig = Rig()
    errors: list[int] = []
    rig.engine.submit(COMMAND + b"x", lambda _result, error: errors.append(error))
    rig.engine.tick()
    assert errors and errors != [0]
    rig.append("b", 2)
    rig.sent.clear()
    rig.engine.submit(COMMAND + b"y", ignore)
    rig.engine.tick()
    ((to, message),) = rig.take("apply_command")
    assert (to, message["command"]) == ("b", COMMAND + b"y")
    assert rig.journal.last_index == 1


def test_any_number_of_commands_can_be_submitted() -> None:
    """commandsQueueSize 0 is no limit."""
    rig = Rig()
    rig.lead()
    failed: list[int] = []
    for _ in range(200_000):
        rig.engine.submit(COMMAND, lambda _result, error: failed.append(error))
    assert not failed


def test_only_entries_of_the_own_term_are_committed_by_counting() -> None:
    """Raft section 5.4.2 and figure 8."""
    rig = Rig("abcde")
    rig.append("b", 1, COMMAND + b"old")
    rig.engine.campaign()
    for voter in "bc":
        rig.engine.deliver(voter, {"type": "response_vote", "term": rig.engine.term})
    assert rig.engine.is_leader
    rig.acknowledge("b", 3)
    rig.acknowledge("c", 3)
    rig.engine.tick()
    assert rig.engine.commit_index == 1, "a majority has it, but it is of an earlier term"
    rig.acknowledge("b", 4)
    rig.acknowledge("c", 4)
    rig.engine.tick()
    assert rig.engine.commit_index == 3


def test_an_append_without_a_previous_index_is_a_pure_heartbeat() -> None:
    """Leader, term and commit index move; the log does not, and nothing is answered."""
    rig = Rig()
    rig.append("b", 2, COMMAND + b"x", COMMAND + b"y")
    rig.sent.clear()
    rig.engine.deliver("c", {"type": "append_entries", "term": 3, "commit_index": 0})
    assert (rig.engine.term, rig.engine.leader, rig.engine.commit_index) == (3, "c", 1)
    assert rig.journal.last_index == 3 and not rig.sent
    rig.engine.deliver("c", {"type": "append_entries", "term": 3, "commit_index": 2})
    rig.engine.tick()
    assert rig.engine.commit_index == rig.engine.last_applied == 2
    rig.engine.deliver("c", {"type": "append_entries", "term": 3, "commit_index": 99})
    assert rig.engine.commit_index == 3, "never beyond the log"


def test_an_append_is_answered_with_the_next_index() -> None:
    rig = Rig()
    rig.append("b", 2, COMMAND + b"x", commit=2)
    assert rig.take("next_node_idx") == [
        ("b", {"type": "next_node_idx", "next_node_idx": 3, "reset": False, "success": True})
    ]
    assert rig.engine.commit_index == 2


def test_a_refusal_with_reset_moves_what_is_sent_next_and_counts_for_nothing() -> None:
    rig = Rig()
    rig.lead()
    for i in range(5):
        rig.engine.submit(COMMAND + b"%d" % i, ignore)
    rig.engine.tick()
    rig.acknowledge("c", 3)
    message = {"type": "next_node_idx", "next_node_idx": 4, "success": False, "reset": True}
    rig.engine.deliver("b", message)
    assert rig.engine.match_index("b") == 0 and rig.engine.match_index("c") == 2
    rig.sent.clear()
    rig.clock.now += 0.06
    rig.engine.tick()
    (to_b,) = [m for to, m in rig.take("append_entries") if to == "b"]
    assert (to_b["prevLogIdx"], to_b["entries"][0][1]) == (3, 4)


def test_a_follower_before_the_log_gets_serialized_nothing() -> None:
    """That is our sign to carry a snapshot; PySyncObj's own has no state in it."""
    rig = Rig()
    rig.lead()
    for i in range(20):
        rig.engine.submit(COMMAND + b"%d" % i, ignore)
    rig.engine.tick()
    rig.acknowledge("b", 23)
    rig.engine.tick()
    rig.journal.trim(22, 0, None)
    assert rig.journal.first_index > 10
    rig.sent.clear()
    message = {"type": "next_node_idx", "next_node_idx": 4, "success": False, "reset": True}
    rig.engine.deliver("c", message)
    rig.clock.now += 0.06
    rig.engine.tick()
    to_c = [m for to, m in rig.take("append_entries") if to == "c"]
    assert len(to_c) == 1, "disconnecting stops it in the middle of its loop"
    assert "serialized" in to_c[0] and "prevLogIdx" not in to_c[0]


def test_nothing_is_sent_to_who_is_not_connected() -> None:
    rig = Rig()
    rig.lead()
    rig.engine.disconnect("c")
    rig.engine.submit(COMMAND + b"x", ignore)
    rig.engine.tick()
    rig.clock.now += 0.051
    rig.engine.tick()
    assert {to for to, _ in rig.take("append_entries")} == {"b"}


def test_the_log_may_lose_its_prefix_between_ticks() -> None:
    """PySyncObj asks for the first index anew, each time; its own compaction never runs."""
    rig = Rig()
    rig.lead()
    for round_ in range(50):
        for i in range(10):
            rig.engine.submit(COMMAND + b"%d" % i, ignore)
        rig.engine.tick()
        rig.acknowledge("b", rig.journal.last_index + 1)
        rig.acknowledge("c", rig.journal.last_index + 1)
        rig.clock.now += 10.0 if round_ % 10 == 0 else 0.01
        rig.acknowledge("b", rig.journal.last_index + 1)
        rig.engine.tick()
        rig.journal.trim(rig.engine.last_applied, 0, None)
    assert rig.engine.commit_index == rig.journal.last_index == 502
    assert len(rig.journal) <= 3


def test_install_replaces_the_log_and_the_applied_index() -> None:
    rig = Rig()
    rig.append("b", 2, *[COMMAND + b"%d" % i for i in range(20)])
    header = SnapshotHeader(50, 4, 3, COMMAND + b"last")
    rig.engine.install("b", 5, header.previous, header.last)
    rig.engine.tick()
    assert rig.journal[:] == [header.previous, header.last]
    assert rig.engine.last_applied == rig.engine.commit_index == 50
    assert (rig.engine.term, rig.engine.leader) == (5, "b")
    rig.append("b", 5, COMMAND + b"next", commit=51)
    rig.engine.tick()
    assert rig.engine.last_applied == 51


def test_install_at_start_names_no_leader() -> None:
    rig = Rig()
    header = SnapshotHeader(50, 4, 3, COMMAND + b"last")
    rig.engine.install(None, 4, header.previous, header.last)
    assert rig.engine.leader is None and rig.engine.last_applied == 50
    rig.engine.campaign()
    assert rig.engine.term == 5


def test_a_stored_log_is_taken_up_where_it_ended() -> None:
    """Term, vote and entries come from the journal; the commit index is never beyond it (S4b)."""
    journal = Journal()
    journal.add(NO_OP, 1, 0)
    journal.add(COMMAND + b"x", 2, 3)
    journal.setCurrentTerm(7, "b")
    journal.setRaftCommitIndex(99)
    engine = Engine("a", ["a", "b", "c"], journal, lambda *_: None, Clock(), 0.05, 0.8)
    assert engine.term == 7
    assert engine.commit_index == 2
    request = {"type": "request_vote", "term": 7, "last_log_index": 9, "last_log_term": 9}
    sent: list[str] = []
    engine._outlet.outgoing = lambda _to, message: sent.append(message["type"])
    engine.deliver("c", request)
    assert sent == [], "it has voted for b in this term"


def test_members_are_visited_in_the_same_order_in_every_process() -> None:
    """Sets of nodes hash by position, not by a string hash that is salted per process."""
    names = [f"node-{i}" for i in range(9)]
    random.Random(5).shuffle(names)
    engine = Engine(names[0], names, Journal(), lambda *_: None, Clock(), 0.05, 0.8)
    nodes = [engine._nodes[name] for name in names]
    assert [hash(node) for node in nodes] == list(range(9))
    assert nodes[3] == Node(names[3]) and nodes[3] != nodes[4]


def test_a_closed_engine_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    closed: list[bool] = []
    monkeypatch.setattr(rig.journal, "_destroy", lambda: closed.append(True))
    rig.engine.close()
    assert closed == [True]


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_no_payload_of_ours_is_ever_unpickled(payload: bytes) -> None:
    rig = Rig("a")
    rig.engine.campaign()
    rig.engine.submit(COMMAND + payload, ignore)
    rig.engine.tick()
    rig.engine.tick()
    assert rig.engine.last_applied == 3
