"""Requests between routers: an answer belongs to the process that asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from raftcache.forwarding import SILENT_S, Forwarder, Ticket
from raftcache.lull import TURNS
from raftcache.metrics import GroupMetrics
from raftcache.ops import Get, Result, Status
from raftcache.payloads import Forward, ForwardReply, Kind, decode_payload, encode_payload
from raftcache.raft import wire
from raftcache.raft.follower_reads import FollowerReads
from raftcache.raft.group import Outcome
from raftcache.raft.pace import Pace
from raftcache.requests import Finish


class Peers:
    """The part of ``raft.peers.Peers`` that is used here; ``incarnations``: of who is connected."""

    def __init__(self) -> None:
        self.incarnations = {"b": 7}
        self.sent: list[tuple[str, wire.Message]] = []

    def incarnation_of(self, node: str) -> int:
        return self.incarnations.get(node, 0)

    def send(self, node: str, message: wire.Message) -> bool:
        self.sent.append((node, message))
        return True


def ignored(*_: object) -> None:
    pass


def nobody(_group: int) -> None:
    return None


class Runtime:
    """The part of ``Runtime`` that is used here; ``calls``: what is to run at the turn's end."""

    def __init__(self) -> None:
        self.time = 100.0
        self.calls: list[Any] = []

    def now(self) -> float:
        return self.time

    def call_soon(self, call: Any, *args: Any) -> None:
        self.calls.append(partial(call, *args))


def asking() -> tuple[Forwarder, Runtime]:
    """A node that asks others, and its time."""
    runtime = Runtime()
    forwarder = Forwarder(
        runtime,  # type: ignore[arg-type]
        Peers(),  # type: ignore[arg-type]
        {0: GroupMetrics()},
        ignored,
        nobody,
        ignored,
        ignored,
    )
    return forwarder, runtime


@pytest.mark.parametrize(("later", "answered"), [(7, True), (8, False), (0, False)])
def test_an_answer_is_given_only_to_the_incarnation_that_asked(later: int, answered: bool) -> None:
    """Each numbers its requests from 1: its successor would take the answer for that to another
    request, and call applied what was not, or failed what was applied. (Found by the simulator,
    seed 300439.)"""
    peers, asked = Peers(), list[Finish]()

    def serve(_message: Forward, finish: Finish) -> None:
        asked.append(finish)

    forwarder = Forwarder(None, peers, {}, serve, nobody, ignored, ignored)  # type: ignore[arg-type]
    forwarder.on_payload("b", encode_payload(Forward(1, 0, Kind.READ, [Get(b"k")])))
    peers.incarnations["b"] = later
    results: Sequence[Result] = [Result(Status.OK)]
    asked[0](Outcome.APPLIED, results)
    assert bool(peers.sent) is answered


@pytest.mark.parametrize(
    ("kind", "silent"),
    [(Kind.READ, True), (Kind.WRITE, True), (Kind.SCAN, False), (Kind.TRANSFER, False)],
)
def test_who_takes_the_time_that_a_request_takes_is_not_silent(kind: Kind, silent: bool) -> None:
    """To build the index of a million keys takes a second, to hand over perhaps as long."""
    forwarder, runtime = asking()
    forwarder.add("b", Ticket(0, kind, (Get(b"k"),), 1, 200.0, ignored, ignored))
    runtime.calls.pop()()
    assert forwarder.silent() == set()
    runtime.time += SILENT_S
    assert forwarder.silent() == ({"b"} if silent else set())


@pytest.mark.parametrize("reconnected", [False, True])
def test_a_read_index_is_told_only_on_the_connection_it_was_asked_on(reconnected: bool) -> None:
    """An old answer to a new question would make a state look fresher than it is."""
    waiting: list[Any] = []
    sent: list[wire.Message] = []

    class Leader:
        is_leader = True
        term = 3

    class Barrier:
        def confirm(self, confirmed: Any) -> None:
            waiting.append(confirmed)

    reads = FollowerReads(
        1,
        Leader(),  # type: ignore[arg-type]
        None,  # type: ignore[arg-type]
        lambda _node, message: bool(sent.append(message)),
        lambda: 5,
        Barrier(),  # type: ignore[arg-type]
        lambda: -1,
        ignored,
        Pace(None),  # type: ignore[arg-type]
        lambda: None,
    )
    reads.on_request("b", wire.ReadIndex(1, 1))
    if reconnected:
        reads.on_down("b")
    waiting[0](True)
    assert sent == ([] if reconnected else [wire.ReadIndexReply(1, 1, 5)])


def test_what_nobody_waits_for_any_more_is_no_silence() -> None:
    """Whoever lost one answer would be avoided for as long as its connection lives. (Found by an
    hour of faults against real processes.)"""
    forwarder, runtime = asking()
    ticket = Ticket(0, Kind.READ, (Get(b"k"),), 1, 200.0, ignored, ignored)
    forwarder.add("b", ticket)
    runtime.calls.pop()()
    runtime.time += SILENT_S
    assert forwarder.silent() == {"b"}
    ticket.finished = True
    assert forwarder.silent() == set()
    assert forwarder._sent == {}


def test_after_an_answer_what_is_asked_next_goes_together() -> None:
    """Clients that were answered by it need a turn or two more, one than the other."""
    forwarder, runtime = asking()
    peers: Any = forwarder._peers

    def ask(key: bytes) -> None:
        forwarder.add("b", Ticket(0, Kind.READ, (Get(key),), 1, 200.0, ignored, ignored))

    def end_turn() -> None:
        calls, runtime.calls = runtime.calls, []
        for call in calls:
            call()

    ask(b"1")
    end_turn()
    assert len(peers.sent) == 1, "nothing to wait for"
    reply = ForwardReply(1, Outcome.APPLIED.value, [Result(Status.OK)])
    forwarder.on_payload("b", encode_payload(reply))
    ask(b"2")
    for _ in range(TURNS):
        end_turn()
        assert len(peers.sent) == 1
    ask(b"3")
    end_turn()
    (_, message) = peers.sent[1]
    assert [op.key for op in decode_payload(message.data).ops] == [b"2", b"3"]
    assert len(peers.sent) == 2
    end_turn()
    assert not runtime.calls
