"""PySyncObj, and everything that reaches into it: the only module that does, but for the base
classes in ``core``.

Used of it are public names, single-underscore names (``_poller`` among them: there is nothing to
poll) and three module globals: ``createJournal`` (our journal instead of its own, while an object
is being made), ``monotonicTime`` (the runtime's clock instead of the process's) and
``PIPE_NOTIFIER_ENABLED`` (off: nobody waits in its poller).
``tests/raft/test_engine.py`` fails when PySyncObj changes any of these.

It sends entries with its heartbeats only: the transport sends what is new itself, where PySyncObj
would send at every entry, and at every commit once more. The engine never elects on its own
(timeouts of 1e15 s): ``campaign`` and ``step_down`` drive it from outside. It never compacts: the
journal trims itself, and ``install`` hands up a snapshot whose state was restored already. Commands
carry type byte 0x40, unknown to PySyncObj: it replicates and commits them and applies nothing; the
group applies them from the journal, so that no pickle is involved.
"""

from __future__ import annotations

import gzip
import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final

import pysyncobj.syncobj as core_module
from pysyncobj import SyncObj, SyncObjConf

from raftcache.raft.core import CoreNode, Outlet
from raftcache.raft.entries import Entry
from raftcache.raft.journal import Journal

NO_OP: Final = b"\x01"
"""PySyncObj's own no-op, the first entry of every term."""
COMMAND: Final = b"\x40"
"""Type byte of our commands."""

_NEVER_S: Final = 1e15
_UNBOUNDED_BYTES: Final = 2**60
_UNBOUNDED_TERM: Final = 2**62

# The engine's serializer complains whenever a follower needs a snapshot, which we carry ourselves.
logging.getLogger("pysyncobj.serializer").disabled = True

core_module.PIPE_NOTIFIER_ENABLED = False


class _NoPoller:
    """PySyncObj's poller, which has nothing to poll: a system call less for each tick."""

    def poll(self, timeout: float) -> None:
        pass


class Engine:
    """One unmodified SyncObj. ``members`` are the ids of all voters, this ``node`` among them."""

    def __init__(
        self,
        node: str,
        members: Sequence[str],
        journal: Journal,
        outgoing: Callable[[str, dict[str, Any]], None],
        clock: Callable[[], float],
        heartbeat_s: float,
        fallback_s: float,
    ) -> None:
        self.node = node
        self.others = tuple(member for member in members if member != node)
        self.majority = len(members) // 2 + 1
        self._clock = clock
        self._nodes = {member: CoreNode(member, i) for i, member in enumerate(members)}
        self._stranger = CoreNode("", len(members))
        self._outlet = Outlet(outgoing)
        self._connected: set[str] = set()
        self._enter()
        conf = SyncObjConf(
            autoTick=False,
            commandsQueueSize=0,
            commandsWaitLeader=False,
            appendEntriesUseBatch=True,
            appendEntriesPeriod=heartbeat_s,
            appendEntriesBatchSizeBytes=_UNBOUNDED_BYTES,
            raftMinTimeout=_NEVER_S,
            raftMaxTimeout=2 * _NEVER_S,
            connectionTimeout=3 * _NEVER_S,
            leaderFallbackTimeout=fallback_s,
            logCompactionMinEntries=_UNBOUNDED_BYTES,
            logCompactionMinTime=_NEVER_S,
        )
        create_journal = core_module.createJournal
        core_module.createJournal = lambda _file: journal
        try:
            self._core = SyncObj(
                self._nodes[node],
                [self._nodes[other] for other in self.others],
                conf,
                transport=self._outlet,
            )
        finally:
            core_module.createJournal = create_journal
        self._core._poller = _NoPoller()

    def _enter(self) -> None:
        # PySyncObj looks it up in its module at each call.
        core_module.monotonicTime = self._clock

    # -- state

    @property
    def term(self) -> int:
        term: int = self._core.raftCurrentTerm
        return term

    @property
    def is_leader(self) -> bool:
        leading: bool = self._core._isLeader()
        return leading

    @property
    def leader(self) -> str | None:
        """The leader of the current term, as far as known."""
        node = self._core._getLeader()
        return None if node is None or not node.id else node.id

    @property
    def commit_index(self) -> int:
        index: int = self._core.raftCommitIndex
        return index

    @property
    def last_applied(self) -> int:
        index: int = self._core.raftLastApplied
        return index

    def match_index(self, node: str) -> int:
        """How far ``node``'s log is known to match this leader's."""
        return int(self._core.getStatus().get(f"match_idx_server_{node}", 0))

    def next_index(self, node: str) -> int:
        """From where on ``node`` is to be sent this leader's log, as far as its answers tell."""
        return int(self._core.getStatus()[f"next_node_idx_server_{node}"])

    # -- input

    def tick(self) -> None:
        """Commit, append what was submitted; send, when a heartbeat is due."""
        self._enter()
        self._core.doTick(0.0)

    def submit(self, command: bytes, on_error: Callable[[object, int], None]) -> None:
        """Queue a command for the next tick. Exactly one of three follows: the journal's
        ``on_append`` with this very object, ``on_error``, or an outgoing ``apply_command`` with it
        (not leader)."""
        self._core._applyCommand(command, on_error)

    def deliver(self, node: str, message: dict[str, Any]) -> None:
        """Hand up a message that passed the transport's guards."""
        self._enter()
        self._outlet._onMessageReceived(self._nodes[node], message)

    def connect(self, node: str) -> None:
        """From now on entries may be sent to ``node``."""
        self._enter()
        self._connected.add(node)
        self._outlet._onNodeConnected(self._nodes[node])

    def disconnect(self, node: str) -> None:
        """Send nothing to ``node`` until ``connect``."""
        self._enter()
        self._connected.discard(node)
        self._outlet._onNodeDisconnected(self._nodes[node])

    def campaign(self) -> None:
        """Become a candidate of the next term, now; not while nobody can be asked, since PySyncObj
        would remember the order, ignore its leader's heartbeats, and campaign later."""
        if not self._reachable():
            return
        self._enter()
        leader = self._core._getLeader()
        self._outlet._onMessageReceived(leader, {"type": "timeout_now", "term": self.term})
        self._core.doTick(0.0)

    def _reachable(self) -> bool:
        return bool(self._connected) or not self.others

    def vote(self, candidate: str) -> None:
        """Record a vote in the current term, unless there is one. Nobody is told: ``candidate`` has
        won already, and this replica must not help another to win, too."""
        self._enter()
        request = {"type": "request_vote", "term": self.term, "last_log_index": 0}
        outgoing, self._outlet.outgoing = self._outlet.outgoing, lambda _node, _message: None
        try:
            node = self._nodes[candidate]
            self._outlet._onMessageReceived(node, {**request, "last_log_term": _UNBOUNDED_TERM})
        finally:
            self._outlet.outgoing = outgoing

    def step_down(self, term: int) -> None:
        """Adopt ``term`` (higher than the current one) as a follower; grants nothing, since no log
        ends in term -1."""
        self._enter()
        request = {"type": "request_vote", "term": term, "last_log_index": 0, "last_log_term": -1}
        self._outlet._onMessageReceived(self._stranger, request)

    def transfer(self, target: str) -> bool:
        """Ask ``target``, when it has the whole log, to campaign."""
        self._enter()
        outcome: list[int] = []
        self._core.transferLeadership(self._nodes[target], lambda _, error: outcome.append(error))
        return outcome == [0]

    def install(self, leader: str | None, term: int, previous: Entry, last: Entry) -> None:
        """Replace the log by the last two entries of a snapshot whose state has been restored. What
        is unpickled by PySyncObj here was pickled here, of typed values."""
        self._enter()
        manifest = gzip.compress(pickle.dumps((None, last, previous, ())), 0)
        message = {
            "type": "append_entries",
            "term": term,
            "commit_index": 0,
            "serialized": (manifest, True, True),
        }
        node = self._stranger if leader is None else self._nodes[leader]
        self._outlet._onMessageReceived(node, message)
        self._outlet._onMessageReceived(
            node, {"type": "append_entries", "term": term, "commit_index": last[1]}
        )

    def close(self) -> None:
        """Let go of PySyncObj's resources."""
        self._core.destroy()
