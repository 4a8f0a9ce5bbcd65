"""Linearizable reads without log entries: ReadIndex rounds, and leases on request.

ReadIndex (Raft dissertation, section 6.4): note the commit index, confirm with a majority that this
node still leads, wait until the index is applied, read. All reads that wait when a round starts
share it. It holds only once an entry of the leader's own term is committed, since before that the
commit index may lag behind what earlier leaders acknowledged.

A round asks no more replicas than it needs ("thrifty", as in Moraru et al., EPaxos, SOSP 2013,
section 6.2): those that answered first when all were asked last. When they take long, the others
are asked, too, and from then on before them.

A lease is a majority's promise to vote for nobody else for ``lease_s``; it is asked for only while
lease reads come in. It counts from when the round started, shortened by the stated clock drift, and
is given up for the rest of the term before a leadership transfer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from raftcache.calls import for_each
from raftcache.raft import wire
from raftcache.raft.engine import Engine
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.pace import Pace
from raftcache.runtime import Runtime

ASK_OTHERS_AFTER_S: Final = 0.005
"""Those that were asked have so long to answer before the others are asked, too."""

Confirmed = Callable[[bool], None]
"""Called with True when the state machine may be read, with False when this node cannot tell."""


class _Round:
    """One question to as many others as a majority takes, or to all. ``race``: to all at the same
    time."""

    __slots__ = (
        "asked",
        "index",
        "lease",
        "number",
        "race",
        "started",
        "started_with",
        "term",
        "voters",
        "waiting",
    )

    def __init__(
        self, number: int, term: int, index: int, started: float, waiting: list[Confirmed]
    ) -> None:
        self.number = number
        self.term = term
        self.index = index
        self.started = started
        self.waiting = waiting
        self.asked: set[str] = set()
        self.voters: set[str] = set()
        self.lease = self.race = False
        self.started_with = 0
        """See ``Rounds.start``."""


class Reads:
    """One group's read barriers. ``applied()`` is the index up to which the state machine has
    applied; ``wake`` is called when ``advance`` has something to do again, which waited for other
    groups."""

    def __init__(
        self,
        group: int,
        engine: Engine,
        journal: Journal,
        runtime: Runtime,
        options: RaftOptions,
        send: Callable[[str, wire.Message], bool],
        applied: Callable[[], int],
        pace: Pace,
        wake: Callable[[], None],
    ) -> None:
        self._group = group
        self._engine = engine
        self._journal = journal
        self._runtime = runtime
        self._options = options
        self._send = send
        self._applied = applied
        self._waiting: list[Confirmed] = []
        self._rounds: deque[_Round] = deque()
        self._applying: deque[tuple[int, list[Confirmed]]] = deque()
        self._together = pace.rounds
        self._wake = wake
        self._quickest = pace.to_read(engine.others)
        self._watching = False
        self._number = 0
        self._lease_wanted = False
        self._lease = (0, -1e18)
        self._lease_given_up_in = -1
        self.rounds = 0
        """Rounds started."""

    # -- asking

    def confirm(self, confirmed: Confirmed) -> None:
        """A linearizable read: ``confirmed`` is called after the next round."""
        self._waiting.append(confirmed)

    def confirm_by_lease(self, confirmed: Confirmed) -> None:
        """The same, at once while this leader holds a lease."""
        if self.lease_valid() and self._own_term_applied():
            confirmed(True)
        else:
            self._lease_wanted = True
            self._waiting.append(confirmed)

    def confirm_vouched(self, confirmed: Confirmed) -> bool:
        """A read at a follower of this term, which asks after the read has begun. Where two are a
        majority that is as good as a round: no majority without one of the two elects another
        leader, and neither had moved on to a later term when it asked, or answers. False: it takes
        a round; ``confirmed`` will not be called."""
        if self._engine.majority > 2 or not self._own_term_committed():
            return False
        self._applying.append((self._engine.commit_index, [confirmed]))
        self._finish_applied()
        return True

    def lease_valid(self) -> bool:
        """Whether a majority has promised to elect nobody else for now."""
        term, until = self._lease
        engine = self._engine
        return engine.is_leader and term == engine.term and self._runtime.now() < until

    def give_up_lease(self) -> None:
        """No lease in this term any more: a transfer may be under way."""
        self._lease_given_up_in = self._engine.term
        self._lease = (0, -1e18)

    def _own_term_committed(self) -> bool:
        engine = self._engine
        return self._journal.term_at(engine.commit_index) == engine.term

    def _own_term_applied(self) -> bool:
        return self._journal.term_at(self._applied()) == self._engine.term

    # -- rounds

    @property
    def due(self) -> bool:
        """Whether ``advance`` may have something to do: not when a round's later answers come."""
        return bool(self._waiting or self._applying)

    def advance(self) -> None:
        """To be called after every tick: start rounds, finish those that are due."""
        if not self._engine.is_leader:
            if self._waiting or self._rounds or self._applying:
                self._fail_all()
            return
        self._finish_applied()
        term = self._engine.term
        while self._rounds and self._rounds[0].term != term:
            self._refuse(self._end_first().waiting)
        if not self._waiting or not self._own_term_committed() or not self._may_start():
            return
        self._start(term)
        # A leader that has nobody to ask is confirmed already.
        self._finish_applied()

    def _may_start(self) -> bool:
        rounds = self._rounds
        last = rounds[-1].started if rounds else 0.0
        return self._together.may_start(len(rounds), last, self._wake)

    def _end_first(self) -> _Round:
        """The oldest round is under way no longer."""
        round_ = self._rounds.popleft()
        self._together.end(round_.started_with)
        return round_

    def _finish_applied(self) -> None:
        while self._applying and self._applying[0][0] <= self._applied():
            for_each(self._applying.popleft()[1], _yes)

    def _start(self, term: int) -> None:
        self._number += 1
        self.rounds += 1
        waiting, self._waiting = self._waiting, []
        index, now = self._engine.commit_index, self._runtime.now()
        round_ = _Round(self._number, term, index, now, waiting)
        round_.lease = self._lease_wanted and self._lease_given_up_in != term
        self._lease_wanted = False
        self._rounds.append(round_)
        round_.started_with = self._together.start()
        round_.race = self._quickest.race()
        if round_.race:
            self._ask_some(round_, len(self._quickest))
        else:
            self._ask_some(round_, self._engine.majority - 1)
            self._watch(ASK_OTHERS_AFTER_S)
        self._count(round_)

    def _ask_some(self, round_: _Round, count: int) -> None:
        """As many as that, of those who are connected and were not asked yet."""
        for node in self._quickest.all:
            if count <= 0:
                return
            if node not in round_.asked and self._ask(node, round_):
                count -= 1

    def _ask(self, node: str, round_: _Round) -> bool:
        """Whether ``node`` is connected."""
        lease_ms = int(self._options.lease_s * 1000) if round_.lease else 0
        sent = self._send(node, wire.Probe(self._group, round_.term, round_.number, lease_ms))
        if sent:
            round_.asked.add(node)
        return sent

    def _watch(self, delay_s: float) -> None:
        if not self._watching:
            self._watching = True
            self._runtime.call_later(delay_s, self._ask_others)

    def _ask_others(self) -> None:
        """Rounds that wait for long ask whoever was not asked; who kept them waiting is asked last
        from now on."""
        self._watching = False
        now, term = self._runtime.now(), self._engine.term
        for round_ in self._rounds:
            if round_.race or round_.term != term:
                continue
            left = round_.started + ASK_OTHERS_AFTER_S - now
            if left > 0:
                self._watch(left)
                return
            slow = round_.asked - round_.voters
            self._quickest.slow(slow)
            self._ask_some(round_, len(self._quickest))

    def repeat(self, node: str) -> None:
        """A new connection to ``node``: what was asked on the old one is lost."""
        for round_ in self._rounds:
            if round_.term == self._engine.term and node not in round_.voters:
                self._ask(node, round_)

    def remind(self) -> None:
        """Ask once more whoever has not answered for a heartbeat: a replica that gets its state
        back hears nothing meanwhile, on a connection that goes on. To be called by the leader, now
        and then."""
        late = self._runtime.now() - self._options.heartbeat_s
        for round_ in self._rounds:
            if round_.started <= late and round_.term == self._engine.term:
                for node in self._engine.others:
                    if node not in round_.voters:
                        self._ask(node, round_)

    def on_probe_reply(self, node: str, message: wire.ProbeReply) -> None:
        """``node`` confirmed that it follows this leader, after the round began."""
        for round_ in self._rounds:
            if round_.number == message.round and round_.term == message.term:
                if round_.race and not round_.voters:
                    self._quickest.won(node)
                round_.voters.add(node)
                self._count(round_)
                return

    def _count(self, round_: _Round) -> None:
        """A confirmed round confirms those before it, at its own index: their reads began
        earlier."""
        if len(round_.voters) + 1 < self._engine.majority:
            return
        if round_.lease and self._lease_given_up_in != round_.term:
            self._lease = (round_.term, round_.started + self._lease_duration_s())
        if self._engine.term != round_.term or not self._engine.is_leader:
            return
        while self._rounds:
            done = self._end_first()
            self._applying.append((round_.index, done.waiting))
            if done is round_:
                break

    def _lease_duration_s(self) -> float:
        """By this node's clock, shorter than the promise by how much faster another's may run."""
        return self._options.lease_s * (1.0 - self._options.max_clock_drift)

    def _fail_all(self) -> None:
        refused: list[Confirmed] = []
        while self._rounds:
            refused += self._end_first().waiting
        applying, self._applying = self._applying, deque()
        waiting, self._waiting = self._waiting, []
        refused += [confirmed for _, each in applying for confirmed in each]
        self._refuse([*refused, *waiting])

    def _refuse(self, waiting: list[Confirmed]) -> None:
        for_each(waiting, _no)


def _yes(confirmed: Confirmed) -> None:
    confirmed(True)


def _no(confirmed: Confirmed) -> None:
    confirmed(False)
