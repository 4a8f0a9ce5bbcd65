"""Snapshots on their way: state for a follower that needs entries the log no longer has.

PySyncObj's own transfer is not used (it moves the commit index without a log check, acknowledges
failed installs and installs older state over newer). A snapshot is taken when it is needed, cut
into chunks with offsets and a window, and installed only when it is newer than what is committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import structlog

from raftcache.raft import wire
from raftcache.raft.engine import Engine
from raftcache.raft.entries import Entry, SnapshotHeader
from raftcache.raft.journal import Journal
from raftcache.raft.options import RaftOptions
from raftcache.raft.transport import GroupTransport, check_commands
from raftcache.runtime import Runtime

RETRY_S: Final = 0.5
"""A follower that could not install a snapshot asks for another one so much later."""
_NEVER: Final = -1e18

_log = structlog.get_logger()


class StateMachine(Protocol):
    """What a group replicates. Deterministic; ``apply`` never raises."""

    def apply(self, index: int, payload: memoryview, hint: Any) -> Any:
        """Apply one entry; ``hint`` is what its proposer passed along, on the proposer only."""
        ...

    def snapshot(self) -> Iterator[bytes]:
        """The state as of now, in chunks, while later entries are applied."""
        ...

    def prepare(self, data: bytes) -> Any:
        """Read a snapshot; touches nothing of the current state and may run in a thread.
        ``ValueError`` when the data is not a snapshot."""
        ...

    def install(self, prepared: Any) -> None:
        """Replace the state by what ``prepare`` returned."""
        ...


class _Outgoing:
    """A snapshot being sent to one follower."""

    __slots__ = (
        "acknowledged",
        "chunks",
        "command",
        "finished",
        "index",
        "prev_term",
        "sent",
        "term",
    )

    def __init__(self, entry: Entry, prev_term: int, chunks: Iterator[bytes]) -> None:
        self.command, self.index, self.term = entry
        self.prev_term = prev_term
        self.chunks = chunks
        self.sent = 0
        self.acknowledged = 0
        self.finished = False


class _Incoming:
    """A snapshot being received."""

    __slots__ = ("data", "first", "leader", "preparing", "received")

    def __init__(self, leader: str, first: wire.SnapshotChunk) -> None:
        self.leader = leader
        self.first = first
        self.data: list[bytes] = []
        self.received = 0
        self.preparing = False


class Snapshots:
    """Both directions for one group. ``installed(index)`` is called after the state was
    replaced."""

    def __init__(
        self,
        group: int,
        engine: Engine,
        journal: Journal,
        transport: GroupTransport,
        machine: StateMachine,
        runtime: Runtime,
        options: RaftOptions,
        send: Callable[[str, wire.Message], bool],
        applied: Callable[[], int],
        installed: Callable[[int], None],
    ) -> None:
        self._group = group
        self._engine = engine
        self._journal = journal
        self._transport = transport
        self._machine = machine
        self._runtime = runtime
        self._options = options
        self._send = send
        self._applied = applied
        self._installed = installed
        self._outgoing: dict[str, _Outgoing] = {}
        self._incoming: _Incoming | None = None
        self._gave_up_at = _NEVER
        self.sent = 0
        self.received = 0

    @property
    def pinned(self) -> int | None:
        """The oldest index that a follower will continue from; the log must keep it."""
        return min((out.index for out in self._outgoing.values()), default=None)

    @property
    def installing(self) -> bool:
        """Whether a snapshot has come whole and is being read."""
        return self._incoming is not None and self._incoming.preparing

    # -- sending

    def start(self, node: str) -> None:
        """Send the state as it is now."""
        if node in self._outgoing:
            return
        index = self._applied()
        entry, previous = self._journal.at(index), self._journal.term_at(index - 1)
        if entry is None or previous is None:
            return
        self.sent += 1
        self._outgoing[node] = _Outgoing(entry, previous, self._machine.snapshot())
        _log.info("snapshot started", group=self._group, peer=node, index=index)
        self._pump(node)

    def _pump(self, node: str) -> None:
        out = self._outgoing.get(node)
        if out is None or out.finished:
            return
        if out.sent - out.acknowledged >= self._options.snapshot_window_bytes:
            return
        chunk = next(out.chunks, None)
        out.finished = chunk is None
        message = wire.SnapshotChunk(
            self._group,
            self._engine.term,
            out.index,
            out.term,
            out.prev_term,
            out.command if out.sent == 0 else b"",
            out.sent,
            chunk or b"",
            out.finished,
        )
        out.sent += len(message.data)
        self._send(node, message)
        if not out.finished:
            # One chunk a turn: other work goes on in between.
            self._runtime.call_soon(self._pump, node)

    def on_reply(self, node: str, message: wire.SnapshotReply) -> None:
        """The follower has so much, or all."""
        out = self._outgoing.get(node)
        if message.term != self._engine.term or not self._engine.is_leader:
            return
        self._transport.keep_contact(node)
        if out is None or out.index != message.index:
            return
        if message.done:
            self.stop(node)
        else:
            out.acknowledged = max(out.acknowledged, message.offset)
            self._pump(node)

    def stop(self, node: str) -> None:
        """The transfer to ``node`` ended, one way or the other."""
        if self._outgoing.pop(node, None) is not None:
            self._transport.lift(node, "snapshot")

    async def store(self) -> None:
        """Write the state as it is now to disk, and let it replace the log so far."""
        index = self._applied()
        entry, previous_term = self._journal.at(index), self._journal.term_at(index - 1)
        if entry is None or previous_term is None:
            return
        header = SnapshotHeader(index, entry[2], previous_term, entry[0])
        if await self._journal.store(header, self._machine.snapshot()):
            self._journal.compact(index)

    def stop_all(self) -> None:
        """This node leads no more."""
        for node in list(self._outgoing):
            self.stop(node)

    def keep_alive(self) -> None:
        """PySyncObj sends no heartbeats to followers that get a snapshot. A chunk without data asks
        whether the transfer is still under way there: a follower that has to ask for its own state
        first is deaf, so that chunks are lost though their connection is not."""
        term = self._engine.term
        for node, out in self._outgoing.items():
            self._send(
                node,
                wire.SnapshotChunk(
                    self._group, term, out.index, out.term, out.prev_term, b"", out.sent, b"", False
                ),
            )

    # -- receiving

    def on_chunk(self, node: str, message: wire.SnapshotChunk) -> None:
        """Collect; install when complete. The sender's term has been checked."""
        if self._known(message):
            self._transport.installed(node, message.term, message.index)
            self._reply(node, message, 0, done=True)
            self._incoming = None
            return
        if not message.data and not message.last:
            self._on_question(node, message)
            return
        if message.offset == 0 and not self.installing:
            check_commands([(message.command, message.last_term)])
            self._incoming = _Incoming(node, message)
        incoming = self._incoming
        expected = incoming is not None and (
            incoming.leader == node
            and incoming.first.term == message.term
            and incoming.first.index == message.index
            and incoming.received == message.offset
            and not incoming.preparing
        )
        if incoming is None or not expected:
            return
        incoming.data.append(message.data)
        incoming.received += len(message.data)
        if message.last:
            incoming.preparing = True
            self._runtime.spawn(self._install(incoming), f"install snapshot {self._group}")
        else:
            self._reply(node, message, incoming.received, done=False)

    def _on_question(self, node: str, message: wire.SnapshotChunk) -> None:
        """Everything up to ``offset`` was sent before. What has not come never will: the transfer
        is over, and the leader will find that another one is needed. (Not while a snapshot is being
        installed, whosever it is: another one would find no room either.) Any answer is a sign of
        life."""
        incoming = self._incoming
        under_way = incoming is not None and (
            incoming.leader == node
            and incoming.first.term == message.term
            and incoming.first.index == message.index
            and incoming.received >= message.offset
        )
        patient = self.installing or self._runtime.now() - self._gave_up_at <= RETRY_S
        self._reply(node, message, 0, done=not under_way and not patient)

    def _known(self, message: wire.SnapshotChunk) -> bool:
        """Never go backwards: the log already has this snapshot's last entry."""
        committed = message.index <= self._engine.commit_index
        return committed or self._journal.term_at(message.index) == message.last_term

    async def _install(self, incoming: _Incoming) -> None:
        data, first = b"".join(incoming.data), incoming.first
        incoming.data.clear()
        try:
            prepared = await self._runtime.in_thread(lambda: self._machine.prepare(data))
        except ValueError as error:
            _log.error("snapshot refused", group=self._group, reason=str(error))
            self._give_up(incoming)
            return
        header = SnapshotHeader(first.index, first.last_term, first.prev_term, first.command)
        stored = await self._journal.store(header, [data])
        if not stored or self._incoming is not incoming or self._engine.term != first.term:
            self._give_up(incoming)
            return
        self._incoming = None
        if not self._known(first):
            self._machine.install(prepared)
            self._journal.installing(True)
            self._engine.install(incoming.leader, first.term, header.previous, header.last)
            self._journal.installing(False)
            self.received += 1
            self._installed(first.index)
            _log.info("snapshot installed", group=self._group, index=first.index, bytes=len(data))
        self._transport.installed(incoming.leader, first.term, first.index)
        self._reply(incoming.leader, first, len(data), done=True)

    def _give_up(self, incoming: _Incoming) -> None:
        """Let the leader end this transfer after a while: it will find that another is needed."""
        if self._incoming is incoming:
            self._incoming = None
        self._gave_up_at = self._runtime.now()
        self._runtime.call_later(
            RETRY_S, lambda: self._reply(incoming.leader, incoming.first, 0, done=True)
        )

    def _reply(self, node: str, message: wire.SnapshotChunk, offset: int, *, done: bool) -> None:
        term = self._engine.term
        self._send(node, wire.SnapshotReply(self._group, term, message.index, offset, done))
