"""Starting without a disk, or with an emptied one, without breaking promises made before.

A process that has lost its log, term and vote must not vote or acknowledge as if it had never done
so. It is deaf to its group until it has learnt, from f + 1 of the 2 f + 1 replicas other than
itself, the leader of the highest term among them included, which term to enter and how far the log
goes. It then follows, with that leader for its vote in that term, and votes again only when its log
reaches as far. This is Viewstamped Replication's recovery ("Viewstamped Replication
Revisited", section 4.3) with a crash vector (Michael et al., "Recovering Shared Objects Without
Stable Storage", DISC 2017): a vote by an incarnation that is known to be dead does not count, since
its successor knows nothing of it. ``transport`` holds votes for that reason, and votes carry what
the voter knows.

When every replica of the group is without state at one moment, there is nothing to recover: all
start anew. Hence the first start of a cluster waits for all its members, and at most f replicas may
be down or recovering at once; a memory-only cluster that loses more loses its data."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

import structlog

from raftcache.raft import wire
from raftcache.raft.engine import Engine
from raftcache.raft.journal import Journal
from raftcache.runtime import Runtime

ASK_INTERVAL_S: Final = 0.1

_log = structlog.get_logger()


class Phase(enum.IntEnum):
    """How much of its state a replica has."""

    WHOLE = 0
    """All that its group relies on."""
    ASKING = 1
    """Nothing, and it has promised nothing."""
    PRISTINE = 2
    """The same, but it knows that there is nothing to know: it started anew and has not voted."""
    CATCHING_UP = 3
    """The term, but not all of the log."""


class Recovery:
    """One replica's way back. ``done(anew)`` is called when it may vote."""

    def __init__(
        self,
        group: int,
        engine: Engine,
        journal: Journal,
        runtime: Runtime,
        send: Callable[[str, wire.Message], bool],
        done: Callable[[bool], None],
    ) -> None:
        self._group = group
        self._engine = engine
        self._journal = journal
        self._runtime = runtime
        self._send = send
        self._done = done
        self._asking = False
        self._catching_up = False
        self._anew = False
        """There was a moment at which nobody had any state."""
        self._round = 0
        self._asked_at = -1e18
        self._replies: dict[str, wire.RecoveryReply] = {}
        self._target = 0
        self._followed_term = 0

    # -- state

    @property
    def deaf(self) -> bool:
        """Whether everything but recovery's own messages must be ignored."""
        return self._asking

    @property
    def active(self) -> bool:
        """Whether this replica may not vote or campaign yet."""
        return self._asking or self._catching_up

    def _phase(self) -> Phase:
        blank = self._engine.term == 0 and self._journal.last_index <= 1
        if self.active:
            return Phase.ASKING if self._asking and blank else Phase.CATCHING_UP
        return Phase.PRISTINE if blank else Phase.WHOLE

    # -- the way back

    def begin(self) -> None:
        """This replica has no state: find out whether its group has any."""
        self._asking = True
        if self._engine.others:
            self._ask()
        else:
            self._finish(anew=True)

    def _ask(self) -> None:
        """A new round. Answers to earlier ones count no more: all that a round's answers say was
        true when it began, because no connection has changed since."""
        self._round += 1
        self._asked_at = self._runtime.now()
        self._replies.clear()
        for node in self._engine.others:
            self._send(node, wire.RecoveryRequest(self._group, self._round))

    def on_connection_change(self) -> None:
        """Somebody came or went, perhaps as another incarnation."""
        if self._asking:
            self._ask()

    def on_timer(self) -> None:
        """To be called every half heartbeat."""
        if self._asking and self._runtime.now() - self._asked_at >= ASK_INTERVAL_S:
            self._ask()
        self.advance()

    def on_request(self, node: str, message: wire.RecoveryRequest) -> None:
        """Say what is known here."""
        engine = self._engine
        reply = wire.RecoveryReply(
            self._group,
            message.round,
            int(self._phase()),
            engine.term,
            engine.is_leader,
            self._journal.last_index,
        )
        self._send(node, reply)

    def on_reply(self, node: str, message: wire.RecoveryReply) -> None:
        """Collect this round's answers."""
        if not self._asking or message.round != self._round:
            return
        self._replies[node] = message
        replies, blank = self._replies.values(), (Phase.ASKING, Phase.PRISTINE)
        everybody = len(replies) == len(self._engine.others)
        if everybody and self._phase() in blank and all(r.phase in blank for r in replies):
            self._finish(anew=True)
            return
        whole = [reply for reply in replies if reply.phase in (Phase.WHOLE, Phase.PRISTINE)]
        if len(whole) < self._engine.majority:
            return
        term = max(reply.term for reply in whole)
        for leader, reply in self._replies.items():
            if reply.leader and reply.term == term >= self._engine.term:
                self._follow(leader, term, reply.last_index)
                return

    def _follow(self, leader: str, term: int, last_index: int) -> None:
        """Enter ``term``. An earlier incarnation may have voted in it, for whom is not known: a
        vote for the leader, who has won already, is recorded, so that nobody else gets one. It
        outlives this process as any other vote does."""
        self._asking, self._catching_up = False, True
        self._followed_term, self._target = term, last_index
        if term > self._engine.term:
            self._engine.step_down(term)
        self._engine.vote(leader)
        _log.info("recovering", group=self._group, term=term, up_to=last_index)

    def advance(self) -> None:
        """Whether the log reaches far enough now. A newer term means that others moved on: ask
        again."""
        if self._anew:
            self._finish(anew=True)
        if not self._catching_up:
            return
        if self._engine.term > self._followed_term:
            self._catching_up, self._asking = False, True
            self._ask()
        elif self._journal.durable_index >= self._target and self._journal.meta_durable:
            self._finish(anew=False)

    def _finish(self, *, anew: bool) -> None:
        self._anew = anew
        if not self._journal.end_recovery():
            return  # the disk cannot remember it yet
        self._asking = self._catching_up = self._anew = False
        event = "no replica has state, starting anew" if anew else "recovered"
        _log.info(event, group=self._group, index=self._journal.last_index)
        self._done(anew)
