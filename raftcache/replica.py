"""One node's replica of one group: the cache's state machine on top of its Raft group.

Writes that arrive in one turn of the event loop become one batch, one log entry; reads that arrive
in one turn share one ReadIndex round. The replica that leads also keeps the group's clock, writes
the recency of what was read into the log, and proposes a tick when something is due to expire.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from raftcache.calls import for_each
from raftcache.lull import Lull
from raftcache.machine import Machine, SnapshotError
from raftcache.metrics import GroupMetrics
from raftcache.ops import Batch, Configure, Op, Result, Scan, encode_batch
from raftcache.raft.clock import GroupClock
from raftcache.raft.group import Outcome, RaftGroup
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.peers import Peers
from raftcache.recency import Recency, Room
from raftcache.requests import Call, Request
from raftcache.runtime import Runtime
from raftcache.scans import Scans

MAX_BATCH_OPERATIONS: Final = 4096
MAX_BATCH_BYTES: Final = 4 * 1024 * 1024
"""Of keys and values in one log entry; one larger request still goes whole."""
WORTHWHILE_OPERATIONS: Final = 64
"""While an entry is on its way, another one leaves only with at least so many operations."""
_APPLIED: Final = Outcome.APPLIED


class ReplicaOptions(NamedTuple):
    """``configure``: what the machine's settings should be while this node leads."""

    configure: Configure
    touch_interval_s: float
    max_in_flight: int


class _MachineAdapter:
    """The cache as ``raft`` sees it: bytes in, results out."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def apply(self, index: int, payload: memoryview, hint: Any) -> list[Result]:
        return self._replica.apply(payload, hint)

    def snapshot(self) -> Iterator[bytes]:
        return iter(self._replica.machine.snapshot())

    def prepare(self, data: bytes) -> Machine:
        try:
            return Machine.restore(data)
        except SnapshotError as error:
            raise ValueError(str(error)) from error

    def install(self, prepared: Machine) -> None:
        self._replica.install(prepared)


class Replica:
    """``on_change``: the group's leader, as this node sees it, or its readiness changed. ``room``:
    what the groups of a node have in common for uses of keys that wait to be written down.
    ``group_type``: the consensus underneath; the simulator's controls have another."""

    def __init__(
        self,
        group: int,
        replicas: Sequence[str],
        runtime: Runtime,
        peers: Peers,
        journal: Journal,
        raft_options: RaftOptions,
        options: ReplicaOptions,
        on_change: Callable[[int], None],
        room: Room,
        group_type: type[RaftGroup] = RaftGroup,
    ) -> None:
        self.id = group
        self.replicas = tuple(replicas)
        self.leader: str | None = None
        """The group's leader, as far as known: as of the last ``on_change``."""
        self.machine = Machine()
        self.metrics = GroupMetrics()
        self._runtime = runtime
        self._options = options
        self._on_change = on_change
        self._queue: list[Request] = []
        self._queued_operations = 0
        self._in_flight = 0
        self._flushing = False
        self._lull = Lull(runtime, self._resume)
        self._reads: list[Request] = []
        self._lease_reads: list[Request] = []
        self._reads_here: list[Request] = []
        self._recency = Recency(runtime.now, options.touch_interval_s, room)
        self._look_at_ms, self._look_notes = 0, False
        self._configuring = False
        self.clock = GroupClock(runtime.now, raft_options.max_clock_drift)
        self._scans = Scans(runtime, lambda: self.machine)
        self.raft = group_type(
            group,
            peers.options.node,
            replicas,
            runtime,
            raft_options,
            journal,
            _MachineAdapter(self),
            peers,
            self.clock,
            self._raft_changed,
        )

    # -- state machine

    def apply(self, payload: memoryview, hint: Batch | None) -> list[Result]:
        """One log entry. The proposer kept the decoded batch."""
        machine = self.machine
        results: list[Result]
        results = machine.apply_payload(payload) if hint is None else machine.apply(hint)
        self.clock.reach(machine.time_ms)
        return results

    def install(self, machine: Machine) -> None:
        """A snapshot replaces the state; the counters of what happened here go on."""
        machine.stats.hits += self.machine.stats.hits
        machine.stats.misses += self.machine.stats.misses
        machine.stats.evictions += self.machine.stats.evictions
        machine.stats.expirations += self.machine.stats.expirations
        self.machine = machine
        self.clock.restart(machine.time_ms)

    # -- writes

    def write(self, request: Request) -> None:
        """Propose at the end of this turn; ``NOT_APPLIED`` when this node does not lead then."""
        self._queue.append(request)
        self._queued_operations += len(request.ops)
        self._schedule()

    def _schedule(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._runtime.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._flush_reads()
        while self._queue:
            if not self.raft.accepts:
                self._fail_queue(self.raft.refusal())
                return
            if self._lull.active or self._in_flight >= self._options.max_in_flight:
                return
            if self._in_flight and self._queued_operations < WORTHWHILE_OPERATIONS:
                return
            self._propose(self._take())

    def _resume(self) -> None:
        if self._queue:
            self._schedule()

    def _take(self) -> list[Request]:
        operations = size = count = 0
        for request in self._queue:
            operations += len(request.ops)
            size += request.size
            if count and (operations > MAX_BATCH_OPERATIONS or size > MAX_BATCH_BYTES):
                break
            count += 1
        taken = self._queue[:count]
        del self._queue[:count]
        return taken

    def _propose(self, requests: list[Request], ops: tuple[Op, ...] | None = None) -> None:
        if ops is None:
            ops = tuple(op for request in requests for op in request.ops)
        self._queued_operations -= len(ops) if requests else 0
        batch = Batch(self.clock.now_ms(), self._recency.take(), ops)
        started = self._runtime.now()
        self._in_flight += 1

        def done(outcome: Outcome, results: list[Result] | None) -> None:
            self._in_flight -= 1
            metrics = self.metrics
            ended: list[Sequence[Result]] = [()] * len(requests)
            if results is not None:
                metrics.applied += len(ops)
                metrics.batch_operations.observe(len(ops))
                metrics.commit_seconds.observe(self._runtime.now() - started)
                at = 0
                for place, request in enumerate(requests):
                    count = len(request.ops)
                    ended[place] = results[at : at + count]
                    at += count
            elif outcome is Outcome.UNKNOWN:
                metrics.unknown += len(ops)
            else:
                metrics.not_applied += len(ops)
            self._lull.begin()
            for_each(
                zip(requests, ended, strict=True), lambda each: each[0].finish(outcome, each[1])
            )

        self.raft.propose(encode_batch(batch), batch, done)

    def _fail_queue(self, outcome: Outcome = Outcome.NOT_APPLIED) -> None:
        queue, self._queue = self._queue, []
        self._queued_operations = 0
        self._end(queue, outcome)

    @staticmethod
    def _end(requests: Sequence[Request], outcome: Outcome) -> None:
        """Without results."""
        for_each(requests, lambda request: request.finish(outcome, ()))

    # -- reads

    def read(self, request: Request, *, lease: bool = False) -> None:
        """Linearizable reads (operations are all ``Read``); ``NOT_APPLIED`` when not the leader."""
        (self._lease_reads if lease else self._reads).append(request)
        self._schedule()

    def read_here(self, request: Request) -> None:
        """Linearizable reads at a replica that need not lead. ``AT_LEADER`` when only a leader can
        tell, ``NOT_APPLIED`` when there is none."""
        self._reads_here.append(request)
        self._schedule()

    @property
    def may_confirm(self) -> bool:
        """Whether ``confirm`` is likely to be answered soon."""
        return self.raft.leader_ready or self.raft.close_behind

    def confirm(self, confirmed: Callable[[bool], None]) -> None:
        """``confirmed(True)`` when keys may be looked up here, linearizably; False: not here."""
        self.raft.confirm_here(confirmed)

    def _flush_reads(self) -> None:
        if self._reads:
            reads, self._reads = self._reads, []
            self._confirm(reads, lease=False)
        if self._lease_reads:
            reads, self._lease_reads = self._lease_reads, []
            self._confirm(reads, lease=True)
        if self._reads_here:
            reads, self._reads_here = self._reads_here, []
            self.raft.confirm_here(self._confirmation(reads))

    def _confirm(self, reads: list[Request], *, lease: bool) -> None:
        self.raft.confirm_read(self._confirmation(reads), lease=lease)

    def _confirmation(self, reads: list[Request]) -> Callable[[bool], None]:
        """What answers these once it is known whether they may be."""
        started = self._runtime.now()

        def confirmed(ok: bool) -> None:
            if ok:
                count = sum(len(request.ops) for request in reads)
                self.metrics.read_seconds.observe(self._runtime.now() - started, count)
                if not self.raft.is_leader:
                    self.metrics.read_here += count
                self.serve(reads, linearizable=True)
            else:
                self._end(reads, Outcome.NOT_APPLIED)

        return confirmed

    def serve(self, reads: Sequence[Request], *, linearizable: bool) -> None:
        """Answer from the state as it is."""
        now_ms, note = self.clock.now_ms(), self.machine.uses_recency
        if note:
            self._recency.age()
        for_each(reads, lambda request: self._serve(request, now_ms, note, linearizable))

    def begin_looking(self, count: int, seconds: float) -> None:
        """So many keys are to be looked up at once, which were asked for so long ago."""
        self._look_at_ms, self._look_notes = self.clock.now_ms(), self.machine.uses_recency
        if self._look_notes:
            self._recency.age()
        self.metrics.read_seconds.observe(seconds, count)
        if not self.raft.is_leader:
            self.metrics.read_here += count

    def look(self, key: bytes) -> Result | None:
        """The answer to a linearizable ``Get`` that may be given; ``None`` where ``read`` and
        ``read_here`` are to be asked: a key that is due must be written out of the log."""
        result = self.machine.look(key, self._look_at_ms)
        if self._look_notes and result is not None and result.value is not None:
            self._recency.note(key)
        return result

    def _serve(self, request: Request, now_ms: int, note: bool, linearizable: bool) -> None:
        ops = request.ops
        if type(ops[0]) is Scan:
            self._scans.serve(request)
            return
        results, due_ms = self.machine.query(ops)
        elsewhere = linearizable and not self.raft.is_leader
        if due_ms <= now_ms and (elsewhere or self._decides()):
            # Due by the leader's clock, but the log does not say so yet: it must, before anybody is
            # told, or another replica might show the key again.
            parts = request.split()
            if len(parts) != 1:
                self.serve(parts, linearizable=linearizable)
            elif elsewhere:
                request.finish(Outcome.AT_LEADER, ())
            else:
                self.write(request)
            return
        if note:
            self._recency.note_found(ops, results)
        request.finish(_APPLIED, results)

    def _decides(self) -> bool:
        """Whether this node says what has expired; on a full disk it must refuse to."""
        return self.raft.accepts or (self.raft.is_leader and self.raft.full)

    def read_stale(self, request: Request, max_staleness_s: float | None) -> None:
        """Answer from this replica's state, no older than the bound."""
        if max_staleness_s is None:
            self.serve([request], linearizable=False)
            return

        def fresh(ok: bool) -> None:
            if ok:
                self.serve([request], linearizable=False)
            else:
                request.finish(Outcome.NOT_APPLIED, ())

        self.raft.confirm_fresh(max_staleness_s, fresh)

    def note_uses(self, keys: Sequence[bytes]) -> None:
        """What was read at another replica."""
        if self.machine.uses_recency and self.raft.is_leader:
            self._recency.age()
            for key in keys:
                self._recency.note(key)

    def take_uses(self) -> Iterator[list[bytes]]:
        """What was read here, where somebody else leads, once it has waited for long enough: in
        pieces of bounded size."""
        return self._recency.messages() if self._recency.due else iter(())

    # -- the leader's duties

    def _raft_changed(self) -> None:
        self.leader = self.raft.leader
        if not self.raft.is_leader:
            self._recency.take()
            self._fail_queue()
        self._on_change(self.id)

    def on_timer(self) -> None:
        """To be called every half heartbeat."""
        self.raft.on_timer()
        self._count_raft()
        if not self.raft.leader_ready or not self.raft.accepts:
            if self.raft.is_leader and self._recency.due:
                self._recency.take()  # nowhere to write them: others have something to note, too
            return
        if self.machine.settings != self._options.configure:
            if not self._configuring:
                self._configuring = True
                self._configure()
        elif self._recency.due:
            self._propose([], ())
        elif not self._queue and not self._in_flight:
            deadline = self.machine.next_deadline_ms()
            if deadline is not None and deadline <= self.clock.now_ms():
                self._propose([], ())

    def _count_raft(self) -> None:
        """What ``raft`` counts for itself, which knows nothing of metrics."""
        metrics, raft = self.metrics, self.raft
        metrics.read_rounds = raft.reads.rounds
        metrics.elections = raft.campaigns
        metrics.snapshots_sent = raft.snapshots.sent
        metrics.snapshots_received = raft.snapshots.received

    def _configure(self) -> None:
        def done(_outcome: Outcome, _results: Sequence[Result]) -> None:
            self._configuring = False

        self.write(Call((self._options.configure,), 0, done))

    def close(self) -> None:
        """Stop; what waits ends."""
        self._fail_queue()
        reads, self._reads = [*self._reads, *self._lease_reads, *self._reads_here], []
        self._end(reads, Outcome.NOT_APPLIED)
        self.raft.close()
