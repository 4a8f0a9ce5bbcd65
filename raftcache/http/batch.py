"""``POST /v1/batch``: many operations in one request, results in order.

Decoding, checking of types and encoding are msgspec's; Python touches an operation once on its way
in and once on its way out. A malformed operation refuses the whole request before anything is
applied; how each operation of a well-formed request ended is told one by one, with the status an
HTTP request of its own would have had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import hdrs

from raftcache.http import query as q
from raftcache.http.body import read_body, refuse_codings
from raftcache.http.exchange import Exchange, Reply
from raftcache.http.keys import session_of
from raftcache.http.operations import (
    DeleteOperation,
    ExpireOperation,
    GetOperation,
    IncrOperation,
    Operation,
    convert,
    once,
    parse,
)
from raftcache.http.problems import Kind, ProblemError, bad_request, code_of
from raftcache.limits import Limits
from raftcache.ops import Result, Status
from raftcache.service import Service

PARAMETERS: Final = ("timeout", "encoding")


class BatchResult(msgspec.Struct, omit_defaults=True):
    """How one operation ended; fields that it does not speak of are left out."""

    status: str
    code: int
    version: int = 0
    value: str | int | None = None
    value_base64: bytes | None = None
    ttl_ms: int = -1
    flags: int = 0


class BatchResponse(msgspec.Struct):
    """The body of the answer."""

    results: list[BatchResult]


_encode: Final = msgspec.json.Encoder().encode
_JSON: Final = b"Content-Type: application/json\r\nCache-Control: no-store\r\n"
_WORDS: Final = {status: (status.name.lower(), code_of(status)) for status in Status}


class Batches:
    """The handler of ``/v1/batch``."""

    def __init__(self, service: Service, limits: Limits) -> None:
        self._service = service
        self._limits = limits

    async def post(self, exchange: Exchange, raw_query: str) -> Reply:
        service, limits = self._service, self._limits
        query = q.parse_query(raw_query, PARAMETERS)
        timeout_s = q.timeout_s(query, limits)
        deadline = service.now() + timeout_s
        binary = _wants_base64(query)
        refuse_codings(exchange)
        _require_json(exchange)
        session = session_of(exchange, limits)
        body = await read_body(exchange, limits.max_batch_bytes, Kind.BATCH_TOO_LARGE, timeout_s)
        operations, atomic = parse(body)
        if len(operations) > limits.max_batch_operations:
            raise ProblemError(
                Kind.BATCH_TOO_LARGE,
                f"The batch has {len(operations)} operations; at most"
                f" {limits.max_batch_operations} are accepted. Nothing was done.",
            )
        ops = convert(operations, limits)
        if session is not None:
            ops = once(ops, session)
        results = await service.batch(ops, deadline, atomic=atomic) if ops else []
        return Reply(200, _JSON, _encode(BatchResponse(_render(operations, results, binary))))


def _wants_base64(query: q.Query) -> bool:
    encoding = query.get("encoding", "auto")
    if encoding not in ("auto", "base64"):
        raise bad_request("The query parameter 'encoding' should be auto or base64.")
    return encoding == "base64"


def _require_json(exchange: Exchange) -> None:
    """A declared content type has to be JSON. This also keeps other sites' HTML forms out."""
    declared = exchange.parsed.headers.get(hdrs.CONTENT_TYPE)
    if declared is None:
        return
    media_type = declared.partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise ProblemError(
            Kind.UNSUPPORTED_MEDIA_TYPE,
            "A batch is JSON: send Content-Type: application/json.",
            headers=b"Accept: application/json\r\n",
        )


def _render(
    operations: Sequence[Operation], results: Sequence[Result], binary: bool
) -> list[BatchResult]:
    rendered: list[BatchResult] = []
    for operation, result in zip(operations, results, strict=True):
        word, code = _WORDS[result.status]
        shown = BatchResult(word, code, result.version)
        if code < 300:
            kind = type(operation)
            if kind is GetOperation:
                _show_entry(shown, result, binary)
            elif kind is IncrOperation:
                shown.value = result.number
            elif kind is DeleteOperation:
                shown.version = 0
            elif kind is ExpireOperation:
                shown.ttl_ms = result.ttl_ms
        rendered.append(shown)
    return rendered


def _show_entry(shown: BatchResult, result: Result, binary: bool) -> None:
    """The value as text when it is UTF-8 and nobody asked otherwise, else as base64."""
    value = result.value or b""
    shown.ttl_ms = result.ttl_ms
    shown.flags = result.flags
    if not binary:
        try:
            shown.value = value.decode()
            return
        except UnicodeDecodeError:
            pass
    shown.value_base64 = value
