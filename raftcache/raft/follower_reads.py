"""Reads at replicas that do not lead: linearizable ones, and ones of bounded staleness.

A replica asks its leader for a read index; once it has applied that far, its state is at least as
fresh as the moment at which it asked, whatever the network did in between and whatever other clocks
say. So a linearizable read can be answered by any replica, after a question that began later than
the read (Raft dissertation, section 6.4, at the end); reads within a bound of the last such moment
need no message at all.

The question says in which term the replica follows. That is its word for the leader, as good as an
answer to a question of the leader's: of three replicas the two are a majority, and no round is
needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from raftcache.calls import for_each
from raftcache.raft import wire
from raftcache.raft.engine import Engine
from raftcache.raft.pace import Pace
from raftcache.raft.reads import Confirmed, Reads
from raftcache.runtime import Runtime


class _Question(NamedTuple):
    """Asked of ``leader`` in ``term``, at ``started``, with those of other groups."""

    leader: str
    term: int
    started: float
    started_with: int
    waiting: list[Confirmed]


class FollowerReads:
    """One group's freshness on one replica. ``reads``: the leader's own read barriers;
    ``term_followed()``: -1 when this replica's word counts for nothing; ``wake`` is called when
    ``advance`` has something to do again, which waited for other groups."""

    def __init__(
        self,
        group: int,
        engine: Engine,
        runtime: Runtime,
        send: Callable[[str, wire.Message], bool],
        applied: Callable[[], int],
        reads: Reads,
        term_followed: Callable[[], int],
        announce_commit_to: Callable[[str], None],
        pace: Pace,
        wake: Callable[[], None],
    ) -> None:
        self._group = group
        self._engine = engine
        self._runtime = runtime
        self._send = send
        self._applied = applied
        self._reads = reads
        self._term_followed = term_followed
        self._announce_commit_to = announce_commit_to
        self._together = pace.questions
        self._wake = wake
        self._fresh_at = -1e18
        self._number = 0
        self._asked_at = -1e18
        self._asked: dict[int, _Question] = {}
        self._applying: list[tuple[int, float, list[Confirmed]]] = []
        self._waiting: list[Confirmed] = []
        self._connection: dict[str, int] = {}
        """How many connections to each node have ended."""

    def confirm(self, max_staleness_s: float, confirmed: Confirmed) -> None:
        """``confirmed(True)`` once the state is no older than ``max_staleness_s``; False: no
        leader."""
        if self._runtime.now() - self._fresh_at <= max_staleness_s:
            confirmed(True)
        else:
            self._waiting.append(confirmed)

    def confirm_now(self, confirmed: Confirmed) -> None:
        """``confirmed(True)`` once the state is no older than this call; False: no leader."""
        self._waiting.append(confirmed)

    @property
    def due(self) -> bool:
        """Whether ``advance`` may have something to ask."""
        return bool(self._waiting)

    def advance(self) -> None:
        """To be called after every tick."""
        if self._applying:
            self._finish_applied(self._applied())
        if self._asked:
            self._drop_outdated()
        if self._waiting:
            self._ask()

    def _finish_applied(self, applied: int) -> None:
        for item in [item for item in self._applying if item[0] <= applied]:
            self._applying.remove(item)
            self._fresh_at = max(self._fresh_at, item[1])
            for_each(item[2], lambda confirmed: confirmed(True))

    def _drop_outdated(self) -> None:
        """What was asked in an earlier term has to be asked again."""
        term = self._engine.term
        for number in [n for n, question in self._asked.items() if question.term != term]:
            self._waiting += self._end(number).waiting

    def _end(self, number: int) -> _Question:
        """A question is under way no longer."""
        question = self._asked.pop(number)
        self._together.end(question.started_with)
        return question

    def _may_ask(self) -> bool:
        """As with rounds: where answers take less than that, fewer and fuller ones are quicker."""
        asked, last = len(self._asked), self._asked_at
        return self._engine.is_leader or self._together.may_start(asked, last, self._wake)

    def _ask(self) -> None:
        leader, started = self._engine.leader, self._runtime.now()
        if leader is not None and not self._may_ask():
            return
        waiting, self._waiting = self._waiting, []
        if self._engine.is_leader:

            def own(ok: bool) -> None:
                self._finish(started, waiting, ok)

            self._reads.confirm(own)
            return
        self._number += 1
        question = wire.ReadIndex(self._group, self._number, self._term_followed())
        if leader is not None and self._send(leader, question):
            self._asked_at = started
            together = self._together.start()
            self._asked[self._number] = _Question(
                leader, self._engine.term, started, together, waiting
            )
        else:
            self._finish(started, waiting, False)

    def _finish(self, started: float, waiting: list[Confirmed], ok: bool) -> None:
        if ok:
            self._fresh_at = max(self._fresh_at, started)
        for_each(waiting, lambda confirmed: confirmed(ok))

    def on_request(self, node: str, message: wire.ReadIndex) -> None:
        """A follower asks: answer with what is applied once leadership is confirmed. Not on another
        connection than it asked on: the number may be another question's there, asked later by the
        follower's next incarnation."""
        connection = self._connection.get(node, 0)

        def answer(ok: bool) -> None:
            if self._connection.get(node, 0) != connection:
                return
            index = self._applied() if ok else 0
            if ok:
                self._announce_commit_to(node)
            self._send(node, wire.ReadIndexReply(self._group, message.id, index))

        if not self._engine.is_leader:
            answer(False)
        elif message.term != self._engine.term or not self._reads.confirm_vouched(answer):
            self._reads.confirm(answer)

    def on_reply(self, node: str, message: wire.ReadIndexReply) -> None:
        """The leader's answer."""
        asked = self._asked.get(message.id)
        if asked is None or asked.leader != node:
            return
        self._end(message.id)
        if message.index == 0:
            self._finish(asked.started, asked.waiting, False)
        else:
            self._applying.append((message.index, asked.started, asked.waiting))
            self._finish_applied(self._applied())

    def on_down(self, node: str) -> None:
        """What was asked of ``node`` is lost, and what it asked."""
        self._connection[node] = self._connection.get(node, 0) + 1
        for number in [n for n, asked in self._asked.items() if asked.leader == node]:
            asked = self._end(number)
            self._finish(asked.started, asked.waiting, False)
