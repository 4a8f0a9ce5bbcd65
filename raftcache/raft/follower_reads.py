"""Reads of bounded staleness at any replica, by the replica's own clock.

A replica asks its leader for a read index; once it has applied that far, its state is at least as
fresh as the moment at which it asked, whatever the network did in between and whatever other clocks
say. Reads within the bound of the last such moment need no message at all.
"""

from __future__ import annotations

from collections.abc import Callable

from raftcache.raft import wire
from raftcache.raft.engine import Engine
from raftcache.raft.reads import Confirmed
from raftcache.runtime import Runtime


class FollowerReads:
    """One group's freshness on one replica. ``confirm`` is the leader's own read barrier."""

    def __init__(
        self,
        group: int,
        engine: Engine,
        runtime: Runtime,
        send: Callable[[str, wire.Message], bool],
        applied: Callable[[], int],
        confirm: Callable[[Confirmed], None],
        announce_commit: Callable[[], None],
    ) -> None:
        self._group = group
        self._engine = engine
        self._runtime = runtime
        self._send = send
        self._applied = applied
        self._confirm = confirm
        self._announce_commit = announce_commit
        self._fresh_at = -1e18
        self._number = 0
        self._asked: dict[int, tuple[str, float, list[Confirmed]]] = {}
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

    def advance(self) -> None:
        """To be called after every tick."""
        if self._applying:
            self._finish_applied(self._applied())
        if self._waiting:
            self._ask()

    def _finish_applied(self, applied: int) -> None:
        for item in [item for item in self._applying if item[0] <= applied]:
            self._applying.remove(item)
            self._fresh_at = max(self._fresh_at, item[1])
            for confirmed in item[2]:
                confirmed(True)

    def _ask(self) -> None:
        waiting, self._waiting = self._waiting, []
        started, leader = self._runtime.now(), self._engine.leader
        if self._engine.is_leader:

            def own(ok: bool) -> None:
                self._finish(started, waiting, ok)

            self._confirm(own)
            return
        self._number += 1
        question = wire.ReadIndex(self._group, self._number)
        if leader is not None and self._send(leader, question):
            self._asked[self._number] = (leader, started, waiting)
        else:
            self._finish(started, waiting, False)

    def _finish(self, started: float, waiting: list[Confirmed], ok: bool) -> None:
        if ok:
            self._fresh_at = max(self._fresh_at, started)
        for confirmed in waiting:
            confirmed(ok)

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
                self._announce_commit()
            self._send(node, wire.ReadIndexReply(self._group, message.id, index))

        if self._engine.is_leader:
            self._confirm(answer)
        else:
            answer(False)

    def on_reply(self, node: str, message: wire.ReadIndexReply) -> None:
        """The leader's answer."""
        asked = self._asked.get(message.id)
        if asked is None or asked[0] != node:
            return
        del self._asked[message.id]
        if message.index == 0:
            self._finish(asked[1], asked[2], False)
        else:
            self._applying.append((message.index, asked[1], asked[2]))

    def on_down(self, node: str) -> None:
        """What was asked of ``node`` is lost, and what it asked."""
        self._connection[node] = self._connection.get(node, 0) + 1
        for number in [n for n, asked in self._asked.items() if asked[0] == node]:
            _, started, waiting = self._asked.pop(number)
            self._finish(started, waiting, False)
