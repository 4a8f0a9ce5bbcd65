"""Everything but keys and batches: the cluster's state, health, metrics, documentation."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from raftcache.http import query as q
from raftcache.http.exchange import Exchange, Reply
from raftcache.http.openapi import document
from raftcache.http.problems import Kind, of_result, problem_reply
from raftcache.http.ui import PAGE
from raftcache.limits import Limits
from raftcache.ops import Result, Status
from raftcache.service import Service

if TYPE_CHECKING:
    from raftcache.http.server import FrontEndMetrics

Handlers = Mapping[str, Callable[[Exchange, str], Awaitable[Reply]]]

_GROUP: Final = re.compile(r"([0-9]{1,9})/transfer")
_JSON: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
_TEXT: Final = b"Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
_HTML: Final = (
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\n"
    b"Content-Security-Policy: default-src 'none'; connect-src 'self'; img-src data:;"
    b" style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'\r\n"
)
_NO_METRICS: Final = (b"", "text/plain; version=0.0.4; charset=utf-8")
_encode: Final = msgspec.json.Encoder().encode


class Pages:
    """The handlers. Each takes the exchange and the raw query."""

    def __init__(
        self,
        service: Service,
        limits: Limits,
        metrics: FrontEndMetrics | None,
        draining: Callable[[], bool],
    ) -> None:
        self._service = service
        self._limits = limits
        self._metrics = metrics
        self._draining = draining
        self._openapi = _encode(document(limits))

    def routes(self) -> dict[str, tuple[str, Handlers]]:
        """Path to operation name and handlers by method."""
        return {
            "/v1/cluster": ("cluster", {"GET": self.cluster}),
            "/healthz": ("health", {"GET": self.health}),
            "/readyz": ("ready", {"GET": self.ready}),
            "/metrics": ("metrics", {"GET": self.metrics}),
            "/openapi.json": ("openapi", {"GET": self.openapi}),
            "/ui": ("ui", {"GET": self.ui}),
        }

    def group_route(self, rest: str) -> tuple[str, Handlers] | None:
        """The route of ``/v1/cluster/groups/{rest}``."""
        match = _GROUP.fullmatch(rest)
        if match is None:
            return None
        group = int(match.group(1))

        async def transfer(exchange: Exchange, raw_query: str) -> Reply:
            return await self.transfer(group, raw_query)

        return "transfer", {"POST": transfer}

    async def transfer(self, group: int, raw_query: str) -> Reply:
        """Hand leadership of one group over."""
        query = q.parse_query(raw_query, ("to", "timeout"))
        target = query.get("to")
        if target == "":
            target = None
        deadline = self._service.now() + q.timeout_s(query, self._limits)
        result: Result = await self._service.transfer(group, target, deadline)
        if result.status is Status.OK:
            return Reply(204)
        if result.status is Status.NOT_FOUND:
            where = f"has no replica on {target[:80]!r}" if target else "does not exist"
            return problem_reply(Kind.NOT_FOUND, f"Group {group} does not exist or {where}.")
        return of_result(result)

    async def cluster(self, exchange: Exchange, raw_query: str) -> Reply:
        q.parse_query(raw_query, ())
        return Reply(200, _JSON, _encode(self._service.status()))

    async def health(self, exchange: Exchange, raw_query: str) -> Reply:
        """200 while the process lives and its event loop turns."""
        q.parse_query(raw_query, ())
        return Reply(200, _TEXT, b"ok\n")

    async def ready(self, exchange: Exchange, raw_query: str) -> Reply:
        """200 when this node should get traffic."""
        q.parse_query(raw_query, ())
        reason = "The node is shutting down." if self._draining() else self._service.not_ready()
        if reason is None:
            return Reply(200, _TEXT, b"ready\n")
        return problem_reply(Kind.NOT_READY, reason, headers=b"Retry-After: 1\r\n")

    async def metrics(self, exchange: Exchange, raw_query: str) -> Reply:
        """Prometheus text. Its query (``name[]``) is ignored, as scrapers may send one."""
        body, content_type = _NO_METRICS if self._metrics is None else self._metrics.render()
        return Reply(200, f"Content-Type: {content_type}\r\n".encode(), body)

    async def openapi(self, exchange: Exchange, raw_query: str) -> Reply:
        q.parse_query(raw_query, ())
        return Reply(200, _JSON, self._openapi)

    async def ui(self, exchange: Exchange, raw_query: str) -> Reply:
        q.parse_query(raw_query, ())
        return Reply(200, _HTML, PAGE)
