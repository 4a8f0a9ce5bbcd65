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
from raftcache.http.problems import Kind, problem_reply

_log: Any = structlog.get_logger("raftcache.http")

MAX_BACKLOG_BYTES: Final = 262_144
"""What a client may send ahead of the answers before its connection is read no more."""

Finish = Callable[[str, float, Reply], None]
"""(operation, when it came, reply): settle whether the connection stays, and count."""


class Connection(web.RequestHandler):
    """``busy``: a request has come and is not answered. ``closed``: set when the connection has
    ended.

    In the lane one request is in flight at a time; what a client sends ahead waits in the backlog.
    Once bytes go to aiohttp all later ones do, since its parser may hold part of a request.
    """

    __slots__ = ("_backlog", "_finish", "_in_lane", "_lane", "_plain", "_reading", "busy", "closed")

    def __init__(self, manager: web.Server, lane: FastLane, finish: Finish, **options: Any) -> None:
        super().__init__(manager, **options)
        self.busy = False
        self.closed = asyncio.Event()
        self._lane = lane
        self._finish = finish
        self._in_lane = True
        self._plain: Plain | None = None
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
        if not self._in_lane:
            super().data_received(data)
        elif self._plain is None and not self._backlog and not self.writing_paused:
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

    def _serve_backlog(self) -> None:
        if self._plain is not None or self.writing_paused:
            return
        if not self._reading:
            self._reading = True
            if self.transport is not None:
                self.transport.resume_reading()
        data, self._backlog = self._backlog, b""
        if data:
            self._serve(data)

    def _serve(self, data: bytes) -> None:
        """Serve ``data`` until a request has to wait, or is none for the lane."""
        while data and self.transport is not None:
            try:
                plain = self._lane.start(data)
            except Exception:
                reply = bug("lane")
                reply.close = True
                reply.write_to(self.transport)
                self.force_close()
                return
            if plain is None:
                self._in_lane = False
                super().data_received(data)
                return
            data = data[plain.end :]
            if plain.result is None:
                self._plain, self._backlog = plain, data
                plain.answered = self._answered
                return
            self._reply(plain)
            if self.writing_paused:
                self._backlog = data
                return

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
