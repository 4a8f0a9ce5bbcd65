"""The control: PySyncObj as shipped, where ``raftcache.raft`` stands otherwise.

Node, router, replica, state machine, connections and disk are the real ones; only the consensus
underneath is an unmodified SyncObj with its own defaults (elections after 0.4 to 1.4 s, heartbeats
every 0.1 s, a leader falls back after 30 s), its own vote counting, catch-up, truncation,
forwarding and transfer, and no guard of ours. What it sends arrives as it was sent, in order, or
not at all when the connection ends.

Where the embedding had a choice it is kind, so that a conviction is PySyncObj's own:

- Peers are authenticated, dialed again within 0.25 s (its own transport: 5 s), and an older
  connection is never heard once there is a newer one (its own transport: it is).
- Reads, of which it has none that are linearizable, wait for a no-op of their own that is committed
  through the log.
- Outcomes mean what its documentation says (``FAIL_REASON``). A callback that never comes ends as
  unknown after ``PATIENCE_S``, and so does a success with more or fewer results than the
  command has operations.
- Exceptions inside its tick are swallowed, as its own thread does; ours are not.
- Disks: see ``stock_journal``. Compaction, in memory only, as by default after 5,000 entries, or
  after 5 to 55 in the runs with small sizes; with a journal on disk there is none, since
  without a dump file it would forget what it compacts.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

import pysyncobj.syncobj as core_module
import structlog
from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, SyncObjConsumer, replicated

from jepsen_like.sim.cluster import SimNode
from jepsen_like.sim.runtime import SimRuntime
from jepsen_like.sim.stock_journal import StockJournal, StockMemoryJournal
from raftcache.raft import wire
from raftcache.raft.clock import GroupClock
from raftcache.raft.core import CoreNode, Outlet
from raftcache.raft.group import Done, Outcome, RaftGroup
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.snapshots import StateMachine
from raftcache.raft.transport import Network
from raftcache.runtime import Runtime

PATIENCE_S: Final = 1.5
"""A command without an answer for so long is given up as unknown."""
TRANSFER_LIMIT_S: Final = 1.0
FLOOD_S: Final = 0.001
"""What it takes PySyncObj to say that a snapshot is not ready yet."""
_NEVER: Final = 2**40
_DEFINITE: Final = frozenset(
    {
        FAIL_REASON.QUEUE_FULL,
        FAIL_REASON.MISSING_LEADER,
        FAIL_REASON.NOT_LEADER,
        FAIL_REASON.REQUEST_DENIED,
        FAIL_REASON.DISCARDED,
    }
)
"""Documented as: the command was not applied, and will not be."""

_log = structlog.get_logger()


class _ToStory(logging.Handler):
    """What PySyncObj logs belongs to the story of the run."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.CRITICAL or record.exc_info:
            _log.warning("PySyncObj says", message=record.getMessage(), error=record.exc_info)


logging.getLogger("pysyncobj.syncobj").addHandler(_ToStory())
logging.getLogger("pysyncobj.syncobj").propagate = False


class _Replicated(SyncObjConsumer):  # type: ignore[misc]
    """The state machine, as PySyncObj wants it."""

    def __init__(self, group: StockGroup) -> None:
        super().__init__()
        self._group = group

    @replicated  # type: ignore[untyped-decorator]
    def command(self, payload: bytes) -> Any:
        return self._group.apply(payload)

    @replicated  # type: ignore[untyped-decorator]
    def barrier(self) -> None:
        """Nothing: a read waits for it."""

    def _serialize(self) -> bytes:
        return self._group.snapshot()

    def _deserialize(self, data: bytes) -> None:
        self._group.install(data)


class StockEngine:
    """What others want to know of the SyncObj inside."""

    def __init__(self, core: Any, members: Sequence[str], node: str) -> None:
        self._core = core
        self.node = node
        self.others = tuple(member for member in members if member != node)

    @property
    def term(self) -> int:
        return int(self._core.raftCurrentTerm)

    @property
    def is_leader(self) -> bool:
        return bool(self._core._isLeader())

    @property
    def leader(self) -> str | None:
        node = self._core._getLeader()
        return None if node is None or not node.id else str(node.id)

    @property
    def commit_index(self) -> int:
        return int(self._core.raftCommitIndex)

    @property
    def last_applied(self) -> int:
        return int(self._core.raftLastApplied)

    def match_index(self, node: str) -> int:
        return int(self._core.getStatus().get(f"match_idx_server_{node}", 0))


class _Counters:
    """``raft`` counts things that a control does not have."""

    rounds = sent = received = 0


class StockGroup:
    """Offers what ``RaftGroup`` offers to the rest of the node."""

    compact_after: int | None = None
    """Entries after which a log in memory is compacted; ``None``: PySyncObj's default."""

    def __init__(
        self,
        group: int,
        node: str,
        replicas: Sequence[str],
        runtime: Runtime,
        options: RaftOptions,
        journal: Journal,
        machine: StateMachine,
        network: Network,
        clock: GroupClock,
        on_change: Callable[[], None],
    ) -> None:
        del options, clock  # ours
        assert isinstance(runtime, SimRuntime)
        self.group = group
        self._runtime = runtime
        self._journal = cast(StockJournal | StockMemoryJournal, journal)
        self._machine = machine
        self._network = network
        self._on_change = on_change
        self._pending: dict[int, tuple[float, Callable[[Any, int], None]]] = {}
        self._serial = 0
        self._scheduled = self._closed = False
        self._seen: tuple[object, ...] = ()
        self._transfer_until = 0.0
        self._spent_s = 0.0
        self.reads = self.snapshots = _Counters()
        self.campaigns = 0
        self._members = {member: CoreNode(member, i) for i, member in enumerate(replicas)}
        self._outlet = Outlet(self._outgoing)
        self._state = _Replicated(self)
        self._core = self._make_core(node)
        self.engine = StockEngine(self._core, replicas, node)

    def _make_core(self, node: str) -> Any:
        in_memory = isinstance(self._journal, StockMemoryJournal)
        sizes = {}
        if not in_memory:
            sizes = {"logCompactionMinEntries": _NEVER, "logCompactionMinTime": _NEVER}
        elif self.compact_after is not None:
            sizes = {"logCompactionMinEntries": self.compact_after}
        others = [member for name, member in self._members.items() if name != node]
        conf = SyncObjConf(autoTick=False, **sizes)
        self._enter()
        create_journal = core_module.createJournal
        core_module.createJournal = lambda _file: self._journal
        try:
            return SyncObj(
                self._members[node],
                others,
                conf,
                consumers=[self._state],
                transport=self._outlet,
            )
        finally:
            core_module.createJournal = create_journal

    def _enter(self) -> None:
        """Its clock and its randomness are those of this process."""
        self._spent_s = 0.0
        core_module.monotonicTime = self._now
        core_module.random = self._runtime.random

    def _now(self) -> float:
        return self._runtime.now() + self._spent_s

    # -- state machine

    def apply(self, payload: bytes) -> Any:
        try:
            index = self._core.raftLastApplied + 1
            return self._machine.apply(index, memoryview(payload), None)
        except Exception as error:  # it would be swallowed by PySyncObj, and it is ours
            self._runtime.call_soon(_raise, error)
            return []

    def snapshot(self) -> bytes:
        return b"".join(self._machine.snapshot())

    def install(self, data: bytes) -> None:
        try:
            self._machine.install(self._machine.prepare(data))
        except Exception as error:
            self._runtime.call_soon(_raise, error)

    # -- state

    @property
    def recovering(self) -> bool:
        """Whether this replica has lost its state and not caught up since. It takes part all the
        same: nothing in PySyncObj knows."""
        return isinstance(self._journal, StockMemoryJournal) and not self._core.isReady()

    @property
    def is_leader(self) -> bool:
        return self.engine.is_leader

    @property
    def accepts(self) -> bool:
        return self.engine.is_leader

    @property
    def full(self) -> bool:
        """It does not look."""
        return False

    @property
    def has_room(self) -> bool:
        return True

    def lacks_room(self, node: str) -> bool:
        return False

    def refusal(self) -> Outcome:
        return Outcome.NOT_APPLIED

    @property
    def applied_index(self) -> int:
        return self.engine.last_applied

    @property
    def last_index(self) -> int:
        return self._journal.last_index

    @property
    def highest_commit(self) -> int:
        return self.engine.commit_index

    @property
    def leader(self) -> str | None:
        return self.engine.leader

    @property
    def leader_ready(self) -> bool:
        ready = self._journal.term_at(self.applied_index) == self.engine.term
        return self.engine.is_leader and ready

    @property
    def close_behind(self) -> bool:
        """PySyncObj reads where it leads only."""
        return False

    @property
    def caught_up(self) -> bool:
        if self.engine.is_leader:
            return self.leader_ready
        return bool(self._core.isReady()) and self.applied_index >= self.engine.commit_index

    @property
    def transferring(self) -> bool:
        return self.engine.is_leader and self._runtime.now() < self._transfer_until

    # -- requests

    def propose(self, payload: bytes, hint: Any, done: Done) -> None:
        if not self.accepts:
            done(Outcome.NOT_APPLIED, None)
            return

        def ended(result: Any, error: int) -> None:
            if error in _DEFINITE:
                done(Outcome.NOT_APPLIED, None)
            elif error == FAIL_REASON.SUCCESS and _fits(result, hint):
                done(Outcome.APPLIED, result)
            else:
                done(Outcome.UNKNOWN, None)

        self._submit(lambda callback: self._state.command(payload, callback=callback), ended)

    def confirm_read(self, confirmed: Callable[[bool], None], *, lease: bool = False) -> None:
        del lease  # it has none
        if not self.engine.is_leader:
            confirmed(False)
            return

        def ended(_result: Any, error: int) -> None:
            confirmed(error == FAIL_REASON.SUCCESS)

        self._submit(lambda callback: self._state.barrier(callback=callback), ended)

    def confirm_here(self, confirmed: Callable[[bool], None]) -> None:
        self.confirm_read(confirmed)

    def confirm_fresh(self, max_staleness_s: float, confirmed: Callable[[bool], None]) -> None:
        del max_staleness_s
        confirmed(False)

    def _submit(
        self,
        submit: Callable[[Callable[[Any, int], None]], None],
        ended: Callable[[Any, int], None],
    ) -> None:
        self._serial += 1
        serial = self._serial
        self._pending[serial] = (self._runtime.now() + PATIENCE_S, ended)

        def callback(result: Any, error: int) -> None:
            entry = self._pending.pop(serial, None)
            if entry is not None:  # outside of its tick, where our exceptions are not swallowed
                self._runtime.call_soon(entry[1], result, error)

        self._enter()
        submit(callback)
        self.schedule()

    def transfer(self, target: str | None) -> None:
        if self.engine.is_leader and not self.transferring:
            self._enter()
            self._transfer_until = self._runtime.now() + TRANSFER_LIMIT_S
            self._core.transferLeadership(None if target is None else self._members[target])

    # -- the turn

    def schedule(self) -> None:
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._runtime.call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if not self._closed:
            self._enter()
            self._guarded(self._core.doTick, 0.0)
            self._tell_change()

    def _guarded(self, function: Callable[..., object], *args: Any) -> None:
        """PySyncObj's own thread logs what its tick raises, and goes on."""
        try:
            function(*args)
        except Exception as error:
            _log.warning("PySyncObj raised", group=self.group, error=repr(error))

    def _tell_change(self) -> None:
        seen = (self.engine.leader, self.engine.is_leader, self.engine.term, self.leader_ready)
        if seen != self._seen:
            self._seen = seen
            self._on_change()

    def on_timer(self) -> None:
        now = self._runtime.now()
        for serial in [s for s, (deadline, _) in self._pending.items() if deadline <= now]:
            _, ended = self._pending.pop(serial)
            ended(None, FAIL_REASON.UNKNOWN_OUTCOME)
        self.schedule()

    # -- messages and connections

    def _outgoing(self, node: str, message: dict[str, Any]) -> None:
        if message.get("serialized", ()) is None:
            # Sent in a loop that only the clock ends (S15), and here no time would pass in it.
            self._spent_s += FLOOD_S
        self._tell(f"to {node}", message)
        self._network.send(
            node, wire.SnapshotChunk(self.group, 0, 0, 0, 0, b"", 0, pickle.dumps(message), True)
        )

    def on_message(self, node: str, message: wire.GroupMessage) -> None:
        if not isinstance(message, wire.SnapshotChunk):
            raise wire.WireError(f"unexpected {type(message).__name__}")
        content = pickle.loads(message.data)
        self._tell(f"from {node}", content)
        self._enter()
        self._guarded(self._outlet._onMessageReceived, self._members[node], content)
        self._tell_change()
        self.schedule()

    def on_up(self, node: str) -> None:
        self._enter()
        self._outlet._onNodeConnected(self._members[node])
        self.schedule()

    def on_down(self, node: str) -> None:
        self._enter()
        self._outlet._onNodeDisconnected(self._members[node])
        self.schedule()

    def on_congested(self, node: str, congested: bool) -> None:
        """It buffers without bound."""

    def _tell(self, where: str, message: dict[str, Any]) -> None:
        process = self._runtime.process
        if process.scheduler.trace is not None:
            process.scheduler.say(process.name, f"group {self.group} {where}: {_brief(message)}")

    def close(self) -> None:
        self._closed = True
        pending, self._pending = self._pending, {}
        for _, ended in pending.values():
            ended(None, FAIL_REASON.UNKNOWN_OUTCOME)
        self._core.destroy()


class StockNode(SimNode):
    """A node whose groups are PySyncObj's own."""

    def _journal(self, group: int) -> Journal:
        path = self.settings.data_dir
        if path is None:
            made: Any = StockMemoryJournal()
        else:
            made = StockJournal(self.runtime, f"{path}/stock-{group:04d}")
        self.journals[group] = made
        return cast(Journal, made)

    @property
    def _group_type(self) -> type[RaftGroup]:
        kept = self._retention_bytes
        small = {"compact_after": None if kept is None else 5 + kept // 1000}
        return cast(type[RaftGroup], type("StockGroup", (StockGroup,), small))


def _fits(result: Any, hint: Any) -> bool:
    """Whether a result is one of the command that ``hint`` (a ``Batch``) stands for."""
    return isinstance(result, list) and len(result) == len(hint.ops)


def _brief(message: dict[str, Any]) -> str:
    """One line of a message."""
    parts = [str(message["type"])]
    for key, value in message.items():
        if key == "entries":
            where = [f"{index}@{term}" for _, index, term in value]
            parts.append(f"entries={','.join(where)}")
        elif key == "serialized":
            sizes = None if value is None else (len(value[0]), *value[1:])
            parts.append(f"serialized={sizes}")
        elif key != "type" and not isinstance(value, bytes):
            parts.append(f"{key}={value}")
    return " ".join(parts)


def _raise(error: Exception) -> None:
    raise error
