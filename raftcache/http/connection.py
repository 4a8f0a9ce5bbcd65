"""One client connection: aiohttp's, with a fast lane before it (``fastlane``), problem documents
for what is no HTTP, and what draining needs to know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from raftcache.http.exchange import Reply
from raftcache.http.fastlane import FastLane, Plain
from raftcache.http.framing import request_end
from raftcache.http.problems import Kind, problem_reply

_log: Any = structlog.get_logger("raftcache.http")

MAX_BACKLOG_BYTES: Final = 262_144
"""What a client may send ahead of the answers before its connection is read no more."""

Finish = Callable[[str, float, Reply], None]
"""(operation, when it came, reply): settle whether the connection stays, and count."""


class Connection(web.RequestHandler):
    """``busy``: a request has come and is not answered. ``closed``: set when the connection has
    ended.

    One request is in flight at a time; what a client sends ahead waits in the backlog. A request
    that is none for the lane goes to aiohttp, up to its end where that is known (``framing``).
    Where it is not, all later bytes go to aiohttp, too: its parser may hold part of a request.
    """

    __slots__ = (
        "_backlog",
        "_finish",
        "_handed_over",
        "_lane",
        "_left",
        "_owed",
        "_plain",
        "_reading",
        "_timed",
        "busy",
        "closed",
    )

    def __init__(self, manager: web.Server, lane: FastLane, finish: Finish, **options: Any) -> None:
        super().__init__(manager, **options)
        self.busy = False
        self.closed = asyncio.Event()
        self._lane = lane
        self._finish = finish
        self._plain: Plain | None = None
        """The lane's request in flight."""
        self._handed_over = False
        """aiohttp has one request."""
        self._owed = 0
        """Bytes of it that are still to come."""
        self._left = False
        """aiohttp has all."""
        self._timed = False
        """aiohttp may have set a timer to close the connection."""
        self._backlog = b""
        self._reading = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # aiohttp would end an idle connection an hour after the last request that *it* served.
        self.keep_alive(True)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._backlog = b""
        self.closed.set()

    def data_received(self, data: bytes) -> None:
        self.busy = True
        if self._owed:
            super().data_received(data[: self._owed])
            data, self._owed = data[self._owed :], max(0, self._owed - len(data))
        if self._left:
            super().data_received(data)
        elif not self._backlog and not self._waits():
            self._serve(data)
        else:
            self._backlog += data
            if len(self._backlog) > MAX_BACKLOG_BYTES and self._reading:
                self._reading = False
                if self.transport is not None:
                    self.transport.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._serve_backlog()

    def handled(self) -> None:
        """aiohttp has answered a request, and the connection stays."""
        if not self._handed_over:
            return
        if self._owed:
            self._left, self._handed_over, self._owed = True, False, 0
        else:
            # Later: aiohttp is to come to the end of this request first.
            asyncio.get_running_loop().call_soon(self._taken_back)

    def _taken_back(self) -> None:
        self._handed_over = False
        self._timed = True
        self.busy = bool(self._backlog)
        self._serve_backlog()

    def _waits(self) -> bool:
        """Whether the next request has to."""
        return self._plain is not None or self._handed_over or self.writing_paused

    def _serve_backlog(self) -> None:
        if self._waits():
            return
        if not self._reading:
            self._reading = True
            if self.transport is not None:
                self.transport.resume_reading()
        data, self._backlog = self._backlog, b""
        if data:
            self._serve(data)

    def _serve(self, data: bytes) -> None:
        """Serve ``data`` until a request has to wait."""
        while data and self.transport is not None:
            self.busy = True
            try:
                plain = self._lane.start(data)
            except Exception:
                reply = bug("lane")
                reply.close = True
                reply.write_to(self.transport)
                self.force_close()
                return
            if plain is None:
                self._hand_over(data)
                return
            if self._timed:
                self._timed = False
                self.keep_alive(True)
            data = data[plain.end :]
            if plain.result is None:
                self._plain, self._backlog = plain, data
                plain.answered = self._answered
                return
            self._reply(plain)
            if self.writing_paused:
                self._backlog = data
                return

    def _hand_over(self, data: bytes) -> None:
        """The request at the front of ``data`` to aiohttp."""
        end = request_end(data)
        if end is None:
            self._left = True
            super().data_received(data)
            return
        self._handed_over = True
        self._owed = max(0, end - len(data))
        self._backlog = data[end:]
        super().data_received(data[:end])

    def _answered(self) -> None:
        plain, self._plain = self._plain, None
        if plain is None or self.transport is None:
            return
        self._reply(plain)
        self._serve_backlog()

    def _reply(self, plain: Plain) -> None:
        transport = self.transport
        if transport is None:
            return
        try:
            reply = plain.reply()
        except Exception:
            reply = bug(plain.operation)
        self._finish(plain.operation, plain.started, reply)
        reply.write_to(transport)
        self.busy = bool(self._backlog)
        if reply.close:
            self._backlog = b""
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp answers when its parser refuses a request."""
        return malformed(exc, self.max_line_size)


def bug(operation: str) -> Reply:
    """The reply of last resort; to be called while the exception is handled."""
    _log.exception("request failed", operation=operation)
    return problem_reply(Kind.INTERNAL, "A bug; the log of this node has the details.")


def malformed(error: BaseException | None, max_line_size: int) -> Reply:
    """The reply to what is no HTTP or too much of it, by what aiohttp's parser raised."""
    kind, detail = Kind.BAD_REQUEST, "The request is not valid HTTP/1.1 or HTTP/1.0."
    if isinstance(error, LineTooLong):
        if max_line_size in error.args:
            kind, detail = Kind.URI_TOO_LONG, f"A target has at most {max_line_size} bytes."
        else:
            kind, detail = Kind.HEADERS_TOO_LARGE, "Send smaller header fields."
    elif error is not None and "Too many headers" in str(error):
        kind, detail = Kind.HEADERS_TOO_LARGE, "Send fewer header fields."
    return problem_reply(kind, detail, close=True)
