"""One client connection: aiohttp's, with problem documents for what is no HTTP, and with what
draining needs to know."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong

from raftcache.http.exchange import Reply
from raftcache.http.problems import Kind, problem_reply


class Connection(web.RequestHandler):
    """``busy``: a request is being served. ``closed``: set when the connection has ended."""

    __slots__ = ("busy", "closed")

    def __init__(self, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self.busy = False
        self.closed = asyncio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.closed.set()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp answers when its parser refuses a request."""
        return malformed(exc, self.max_line_size)


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
