"""The server: listening, dispatch on the raw target, draining.

Dispatch looks at ``/v1/keys/`` first, with one prefix test, because that is where the load is.
Everything else goes through one table of paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

from aiohttp import web

from raftcache.http.batch import Batches
from raftcache.http.connection import Connection, bug
from raftcache.http.exchange import Exchange, Reply
from raftcache.http.fastlane import FastLane
from raftcache.http.keys import Keys, method_not_allowed, split_action
from raftcache.http.pages import Pages
from raftcache.http.problems import Kind, ProblemError, problem_reply
from raftcache.http.query import split_target
from raftcache.limits import Limits
from raftcache.service import Service

KEYS_PREFIX: Final = "/v1/keys/"
GROUPS_PREFIX: Final = "/v1/cluster/groups/"

KEY_METHODS: Final = "GET, HEAD, PUT, DELETE"

LINGER_S: Final = 2.0
"""After an early answer the rest of the request is read and dropped for this long, so that the
client finds the answer and not a reset (RFC 9112 section 9.6)."""

IDLE_GRACE_S: Final = 1.0
"""While draining, idle connections get this long to send one more request, which is answered with
``Connection: close``; then they are closed."""

CUT_OFF_S: Final = 0.01
"""How long ``close`` waits for handlers (aiohttp takes 0 for no limit)."""

Handler = Callable[[Exchange, str], Awaitable[Reply]]


class FrontEndMetrics(Protocol):
    """Where the front end reports its requests, and what ``/metrics`` shows."""

    def observe(self, operation: str, code: int, seconds: float) -> None:
        """One request answered. ``operation`` is one of a small fixed set of names."""
        ...

    def render(self) -> tuple[bytes, str]:
        """Body and content type of ``/metrics``."""
        ...


class HttpServer:
    """The HTTP front end of one node."""

    def __init__(
        self, service: Service, limits: Limits, metrics: FrontEndMetrics | None = None
    ) -> None:
        self._service = service
        self._metrics = metrics
        self._keys = Keys(service, limits)
        batches = Batches(service, limits)
        self._pages = Pages(service, limits, metrics, lambda: self._draining)
        self._routes = self._pages.routes() | {"/v1/batch": ("batch", {"POST": batches.post})}
        self._limits = limits
        self._draining = False
        self._manager: web.Server | None = None
        self._listener: asyncio.Server | None = None

    @property
    def draining(self) -> bool:
        """Whether ``drain`` or ``close`` has been called."""
        return self._draining

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the real port when ``port`` is 0."""
        loop = asyncio.get_running_loop()
        manager = self._manager = web.Server(self._handle, request_factory=Exchange)
        lane = FastLane(self._service, self._limits)
        # A key's bytes take up to three characters each; the rest is for the query.
        longest_line = 3 * self._limits.max_key_bytes + 8190

        def connection() -> Connection:
            return Connection(
                manager,
                lane,
                self._finish,
                loop=loop,
                logger=logging.getLogger("raftcache.http.aiohttp"),
                access_log=cast(Any, None),
                auto_decompress=False,
                lingering_time=LINGER_S,
                max_line_size=longest_line,
            )

        self._listener = await loop.create_server(connection, host, port, backlog=1024)
        real_port: int = self._listener.sockets[0].getsockname()[1]
        return real_port

    async def drain(self, timeout_s: float) -> None:
        """Stop accepting, answer what is in flight with ``Connection: close``, then close. What
        is not answered after ``timeout_s`` is cut off."""
        self._draining = True
        if self._listener is not None:
            self._listener.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        await self._wait_for_connections(min(IDLE_GRACE_S, timeout_s / 2))
        for connection in self._connections():
            if not connection.busy:
                connection.force_close()
        await self._wait_for_connections(deadline - loop.time())
        await self.close()

    async def close(self) -> None:
        """Stop at once."""
        self._draining = True
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if self._manager is not None:
            await self._manager.shutdown(CUT_OFF_S)
            self._manager = None

    def _connections(self) -> list[Connection]:
        if self._manager is None:
            return []
        return [cast(Connection, connection) for connection in self._manager.connections]

    async def _wait_for_connections(self, seconds: float) -> None:
        """Until every connection has closed, at most ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await asyncio.gather(*(c.closed.wait() for c in self._connections()))

    async def _handle(self, request: web.BaseRequest) -> Reply:
        """Answer one request, whatever it is; never raises but for cancellation."""
        exchange = cast(Exchange, request)
        connection = cast(Connection, request.protocol)
        service = self._service
        started = service.now()
        operation = "other"
        connection.busy = True
        try:
            if exchange.version.major != 1:
                raise ProblemError(Kind.BAD_REQUEST, "Use HTTP/1.1 or HTTP/1.0.", close=True)
            path, query = split_target(exchange.parsed.path)
            if path.startswith(KEYS_PREFIX):
                operation, handler, key = self._key_route(exchange.method, path)
                reply = await handler(exchange, key, query)
            else:
                operation, plain = self._route(exchange.method, path)
                reply = await plain(exchange, query)
        except ProblemError as problem:
            reply = problem.reply()
        except web.RequestPayloadError:
            reply = problem_reply(Kind.BAD_REQUEST, "The body is not valid HTTP.", close=True)
        except ConnectionError:
            raise
        except Exception:
            reply = bug(operation)
        finally:
            connection.busy = False
        self._finish(operation, started, reply)
        reply.written = connection.handled
        return reply

    def _finish(self, operation: str, started: float, reply: Reply) -> None:
        """What every answer goes through on its way out."""
        if self._draining:
            reply.close = True
        if self._metrics is not None:
            self._metrics.observe(operation, reply.code, self._service.now() - started)

    def _key_route(
        self, method: str, path: str
    ) -> tuple[str, Callable[[Exchange, str, str], Awaitable[Reply]], str]:
        """Operation, handler and raw key for a path below ``/v1/keys/``."""
        raw_key = path[len(KEYS_PREFIX) :]
        keys = self._keys
        if method in ("GET", "HEAD"):
            return "get", keys.get, raw_key
        if method == "PUT":
            return "put", keys.put, raw_key
        if method == "DELETE":
            return "delete", keys.delete, raw_key
        action = split_action(raw_key)
        if method == "POST" and action is not None:
            raw_key, name = action
            return name, keys.incr if name == "incr" else keys.expire, raw_key
        raise method_not_allowed(KEY_METHODS if action is None else KEY_METHODS + ", POST")

    def _route(self, method: str, path: str) -> tuple[str, Handler]:
        """Operation and handler for any other path."""
        route = self._routes.get(path)
        if route is None and path.startswith(GROUPS_PREFIX):
            route = self._pages.group_route(path[len(GROUPS_PREFIX) :])
        if route is None:
            raise ProblemError(
                Kind.NOT_FOUND,
                "No such path; /openapi.json describes all of them. Keys are below /v1/keys/.",
            )
        operation, methods = route
        handler = methods.get("GET" if method == "HEAD" else method)
        if handler is None:
            allow = ", ".join(methods)
            raise method_not_allowed(allow.replace("GET", "GET, HEAD"))
        return operation, handler
