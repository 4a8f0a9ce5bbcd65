"""One client connection: commands to batches, results to replies, in order.

All commands that are there when the connection is free go together: their operations are submitted
as one, and their replies are written as one. Until then, what comes waits, so that a connection
sees its own commands take effect in order, whichever groups they touch.

Nothing a client does costs more than bounded memory: what it sends ahead is read no further than
``MAX_BACKLOG_BYTES``, an announced length beyond the limits ends the connection with Redis's error,
and while it does not read its replies, no more of its commands are run.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from raftcache.ops import Get, Read, Result, Set, Status, Write
from raftcache.resp.commands import NOT_QUEUED, TABLE, Command, unknown
from raftcache.resp.outcomes import checked
from raftcache.resp.parser import Parser
from raftcache.resp.replies import OK, QUEUED, RedisError, error
from raftcache.resp.session import Ask, Everywhere, Plan, Render, Session, Steps
from raftcache.resp.slowlog import SLOWER_THAN_S

if TYPE_CHECKING:
    from raftcache.resp.server import RespServer

MAX_BACKLOG_BYTES: Final = 1024 * 1024
"""What may wait, beside one command of the largest size, before the socket is read no further."""
MAX_BATCH_COMMANDS: Final = 4096
WRITE_PIECE_BYTES: Final = 256 * 1024
"""Replies are joined and written in pieces of about this size."""

_GET_NAMES: Final = frozenset((b"GET", b"get"))
_SET_NAMES: Final = frozenset((b"SET", b"set"))
_OK: Final = Status.OK
_CREATED: Final = Status.CREATED
_NOT_FOUND: Final = Status.NOT_FOUND
_GET: Final = 0
_SET: Final = 1

_log: Any = structlog.get_logger("raftcache.resp")

Waiting = bytes | int | tuple[int, Render]
"""A reply known already; or how the next result of a plain ``GET`` (RESP2) or ``SET`` is told; or
(how many results, how to render them)."""


class Connection:
    """An ``asyncio.Protocol``, though not by its base: a compiled class has none.
    ``stalled_since``: the client reads nothing, since then (``None``: it does)."""

    def __init__(self, server: RespServer) -> None:
        self._server = server
        self._parser = Parser(server.max_command_bytes)
        self._transport: asyncio.Transport | None = None
        self.session: Session | None = None
        self._commands: list[list[bytes]] = []
        self._busy = False
        self._paused_reading = False
        self._backlog = 0
        self._last: bytes | None = None
        self._output: list[Waiting] = []
        self._gets = self._sets = 0
        self._others: list[str] = []
        self._started = 0.0
        self._under_way: list[list[bytes]] = []
        """Plain commands, names of the others, since when, and the commands themselves."""
        self._result_at = 0
        """Of the results, the first that has not been told."""
        self._results: Sequence[Result] = ()
        self._writable = True
        self.stalled_since: float | None = None

    # -- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.session = self._server.admit(self, self._transport)

    def eof_received(self) -> None:
        """The transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._commands, self._output, self._results = [], [], ()
        self._server.forget(self)

    def data_received(self, data: bytes) -> None:
        if self.session is None or self.session.closing:
            return
        try:
            self._parser.feed(data, self._commands)
        except RedisError as refusal:
            self._end(error(str(refusal)))
        self._backlog += len(data)
        if not self._busy:
            self._run()
        full = self._backlog > MAX_BACKLOG_BYTES and bool(self._commands)
        if full and not self._paused_reading and self._transport is not None:
            self._paused_reading = True
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._writable = False
        self.stalled_since = self._server.service.now()

    def resume_writing(self) -> None:
        self._writable = True
        self.stalled_since = None
        self._write()

    def _end(self, last: bytes) -> None:
        """What came before is answered, then this, then the connection closes."""
        assert self.session is not None
        self._server.counters.failed(last)
        self._last = last
        self.session.closing = True

    # -- commands to operations

    def _run(self) -> None:
        """Start all that waits, up to a command that the rest must wait for."""
        session = self.session
        if session is None or not self._writable:
            return
        self._backlog = self._parser.unparsed
        if self._paused_reading and self._transport is not None:
            self._paused_reading = False
            self._transport.resume_reading()
        if not self._commands:
            self._close_if_ending()
            return
        self._busy, ending = True, session.closing
        commands, self._commands = self._commands, []
        ops: list[Read | Write] = []
        output: list[Waiting] = []
        alone: Everywhere | Steps | None = None
        gets = sets = 0
        others: list[str] = []
        plain = session.plain
        limits, resp3 = self._server.limits, session.resp3
        longest, largest = limits.max_key_bytes, limits.max_value_bytes
        for number, args in enumerate(commands):
            if plain and 2 <= len(args) <= 3 and len(args[1]) <= longest:
                # The two commonest commands, laid flat.
                name = args[0]
                if len(args) == 2:
                    if not resp3 and name in _GET_NAMES:
                        gets += 1
                        output.append(_GET)
                        ops.append(Get(args[1]))
                        continue
                elif name in _SET_NAMES and len(args[2]) <= largest:
                    sets += 1
                    output.append(_SET)
                    ops.append(Set(args[1], args[2]))
                    continue
            plan, barrier = self._plan(session, args)
            if isinstance(plan, Everywhere | Steps):
                if output:
                    # It goes alone: what came before it first.
                    self._commands = commands[number:]
                    break
                alone = plan
            others.append(_name(args))
            self._add(session, plan, ops, output)
            plain, resp3 = session.plain, session.resp3
            if session.closing and not ending:
                break  # QUIT: what follows is not run
            if barrier or number >= MAX_BATCH_COMMANDS:
                self._commands = commands[number + 1 :]
                break
        self._output, self._result_at = output, 0
        self._gets, self._sets, self._others = gets, sets, others
        self._started, self._under_way = self._server.service.now(), commands
        self._submit(session, ops, alone)

    def _plan(self, session: Session, args: list[bytes]) -> tuple[Plan, bool]:
        """One command; an error reply when it is refused."""
        name = args[0].upper()
        command = TABLE.get(name)
        try:
            if command is None:
                raise RedisError(unknown(args))
            if not command.accepts(len(args)):
                raise RedisError(f"ERR wrong number of arguments for '{command.name}' command")
            self._server.check_keys(session, command, args)
        except RedisError as refusal:
            session.dirty = session.queue is not None
            return error(str(refusal)), False
        if session.queue is not None and name not in NOT_QUEUED:
            return self._enqueue(session, command, args), False
        try:
            return command.handler(session, args), command.barrier
        except RedisError as refusal:
            return error(str(refusal)), command.barrier

    def _enqueue(self, session: Session, command: Command, args: list[bytes]) -> bytes:
        assert session.queue is not None
        if len(session.queue) >= MAX_BATCH_COMMANDS:
            session.dirty = True
            return error(f"ERR a transaction has at most {MAX_BATCH_COMMANDS} commands")
        session.queue.append((command, args))
        return QUEUED

    def _add(
        self, session: Session, plan: Plan, ops: list[Read | Write], output: list[Waiting]
    ) -> None:
        silent = session.reply_off or session.skip_next
        session.skip_next = session.skip_next and plan == b""
        if isinstance(plan, bytes):
            output.append(b"" if silent else plan)
        elif isinstance(plan, Ask):
            output.append((len(plan.ops), _silent if silent else plan.render))
            ops.extend(plan.ops)
        elif isinstance(plan, Everywhere):
            count = self._server.groups
            output.append((count, _silent if silent else plan.render))
        else:
            output.append(b"")

    def _submit(
        self, session: Session, ops: list[Read | Write], alone: Everywhere | Steps | None
    ) -> None:
        server = self._server
        if isinstance(alone, Everywhere):
            server.ask_everywhere(alone.op, self._finished)
        elif alone is not None:
            self._step(session, alone)
        elif ops:
            server.submit(session, ops, self._finished)
        else:
            self._finished(())

    def _step(self, session: Session, plan: Steps) -> None:
        """Go through the steps of the one command that is under way."""

        def finished(results: Sequence[Result]) -> None:
            if self._transport is None:
                return  # nobody waits for the rest
            try:
                following = plan.then(checked(results[0]))
            except RedisError as refusal:
                following = error(str(refusal))
            if isinstance(following, Steps):
                self._step(session, following)
            else:
                silent = session.reply_off or session.skip_next
                self._output = [b"" if silent else following]
                self._finished(())

        self._server.submit(session, (plan.op,), finished, plan.group)

    # -- results to replies

    def _finished(self, results: Sequence[Result]) -> None:
        self._results = results
        self._write()

    def _write(self) -> None:
        """Write what there is, as far as the client takes it; then go on."""
        transport, output = self._transport, self._output
        if transport is None or self.session is None:
            return
        if output:
            pieces: list[bytes] = []
            size, written, at, results = 0, 0, self._result_at, self._results
            for waiting in output:
                if not self._writable:
                    break
                written += 1
                if waiting is _GET:
                    result = results[at]
                    at += 1
                    value = result.value
                    if value is not None:
                        reply = b"$%d\r\n%b\r\n" % (len(value), value)
                    elif result.status is _NOT_FOUND:
                        reply = b"$-1\r\n"
                    else:
                        reply = self._failure(result)
                elif waiting is _SET:
                    status = results[at].status
                    reply = OK
                    if status is not _OK and status is not _CREATED:
                        reply = self._failure(results[at])
                    at += 1
                else:
                    if type(waiting) is bytes:
                        reply = waiting
                    else:
                        count, render = cast(tuple[int, Render], waiting)
                        reply = _reply(render, results[at : at + count])
                        at += count
                    if reply[:1] == b"-":
                        self._server.counters.failed(reply)
                pieces.append(reply)
                size += len(reply)
                if size >= WRITE_PIECE_BYTES:
                    transport.write(b"".join(pieces))
                    pieces, size = [], 0
            if size:
                transport.write(b"".join(pieces))
            if written < len(output):
                # The rest when the client has read some.
                self._output, self._result_at = output[written:], at
                return
            self._count()
        self._output, self._results, self._result_at = [], (), 0
        self._busy = False
        self._run()

    def _count(self) -> None:
        """What was under way is answered."""
        counters, server = self._server.counters, self._server
        seconds = server.service.now() - self._started
        if self._gets:
            counters.observe("get", seconds, self._gets)
        if self._sets:
            counters.observe("set", seconds, self._sets)
        for name in self._others:
            counters.observe(name, seconds)
        if seconds >= SLOWER_THAN_S and self.session is not None:
            count = self._gets + self._sets + len(self._others)
            answered = self._under_way[:count]
            server.slow.add(answered, seconds, server.service.wall(), self.session)
        self._under_way = []

    def _failure(self, result: Result) -> bytes:
        """The reply to a plain command that did not end as one does."""
        try:
            checked(result)
            reply = error("ERR unexpected result")
        except RedisError as refusal:
            reply = error(str(refusal))
        self._server.counters.failed(reply)
        return reply

    def _close_if_ending(self) -> None:
        if self.session is not None and self.session.closing and self._transport is not None:
            if self._last is not None:
                self._transport.write(self._last)
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close once what is under way has been answered."""
        if self.session is not None:
            self.session.closing = True
        if not self._busy and self._transport is not None:
            self._transport.close()


def _name(args: list[bytes]) -> str:
    """For the counters: one of a fixed set."""
    command = TABLE.get(args[0].upper())
    return "unknown" if command is None else command.name


def _silent(results: Sequence[Result]) -> bytes:
    return b""


def _reply(render: Render, results: Sequence[Result]) -> bytes:
    try:
        return render(results)
    except RedisError as refusal:
        return error(str(refusal))
    except Exception:
        _log.exception("command failed")
        return error("ERR a bug; the log of this node has the details")
